"""One sweep while it runs: its directory, ledger and tracker, and the end that always comes.

Hides what must happen whatever a trial does: the ledger knows of each, MLflow's parent is closed,
and the summary, plots and table are made from the directories, on Ctrl-C too.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgpull import analysis, pipeline
from imgpull.config import schema
from imgpull.errors import ImgpullError, TrackingError
from imgpull.results.record import VERDICTS, JobRecord
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Planned
from imgpull.sweep.progress import Progress
from imgpull.tracking import Tracker

# Beside run.py: where mlflow.db is and what sweep directories are relative to.
ROOT = Path(__file__).resolve().parent.parent.parent

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


@dataclass
class Sweep:
    """A sweep in progress."""

    directory: Path
    plan: Sequence[Planned]
    tracker: Tracker
    progress: Progress
    asked: Mapping[str, Any]
    factors: Mapping[str, Sequence[Any]]
    parent: str | None = None
    records: list[JobRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.directory)

    def run(self, launch: Callable[[Planned], None]) -> int:
        """Launch every trial in turn, then do the end step; returns the exit status."""
        self._tracked(self._start_parent)
        status = OK
        try:
            for planned in self.plan:
                self.ledger.append("started", trial_id=planned.trial_id, dir=planned.directory)
                self.progress.start(planned)
                launch(planned)
                if self._should_stop():
                    self.warnings.append("on_failure=stop: trials after the failed one did not run")
                    break
        except KeyboardInterrupt:
            self.ledger.append("interrupted")
            status = INTERRUPTED
        return status

    def run_trial(self, values: Mapping[str, Any], planned: Planned) -> JobRecord:
        """Run one planned trial of a resolved configuration, record and log it."""
        place = pipeline.Place(
            directory=self.directory / planned.directory,
            name=planned.name,
            block=planned.block,
            position=planned.position,
            attempt=planned.attempt,
            swept=planned.swept,
        )
        record = pipeline.run_job(values, place, self.progress.step)
        self.ledger.append(
            "finished",
            trial_id=record.trial_id,
            dir=planned.directory,
            verdict=record.verdict,
            wall_s=record.wall_s,
            virtual_s=record.virtual_s,
        )
        self.records.append(record)
        self.progress.step("logging to MLflow")
        self._tracked(lambda: self.tracker.log_trial(place.directory, self.parent))
        self.progress.finish(record)
        return record

    def _should_stop(self) -> bool:
        if self.asked.get("on_failure") != "stop" or not self.records:
            return False
        return not self.records[-1].counts

    def _start_parent(self) -> None:
        self.parent = self.tracker.start_sweep(
            self.directory,
            factors=self.factors,
            command=shlex.join(["python", *sys.argv]),
            parent=self.parent,
        )
        if self.parent:
            self.ledger.append("parent", run_id=self.parent)

    def _tracked(self, call: Callable[[], Any]) -> None:
        """Do it, or warn once: the directories are the record."""
        try:
            call()
        except TrackingError as error:
            if not any(error.message in warning for warning in self.warnings):
                self.warnings.append(f"MLflow: {error}")


def finish(sweep: Sweep, status: int) -> int:
    """Write summary and plots, close the parent run, print the table; returns the exit status."""
    from rich.console import Console

    directory = sweep.directory
    counts = dict.fromkeys(VERDICTS, 0)
    for record in sweep.records:
        counts[record.verdict] += 1
    if status == OK and any(not record.counts for record in sweep.records):
        status = FAILED
    console = Console(highlight=False)
    lines: list[str] = []
    summary = None
    try:
        summary = analysis.write_summary(directory)
        frame = analysis.read_sweep(directory)
        lines = analysis.notes(frame, asked=sweep.asked)
        analysis.print_table(frame, console)
        analysis.draw_plots(directory, frame)
    except ImgpullError as error:
        sweep.warnings.append(str(error))
    except Exception as error:  # a picture that fails must not hide the results
        sweep.warnings.append(f"the end step broke: {type(error).__name__}: {error}")
    _close_parent(sweep, status, counts, lines)
    sweep.ledger.append("ended", status=status, verdicts=counts)
    _print_end(sweep, console, lines, summary, status)
    return status


def _close_parent(
    sweep: Sweep, status: int, counts: Mapping[str, int], lines: Iterable[str]
) -> None:
    """An interrupted sweep is KILLED, one with failed trials still FINISHED: it has results."""
    note = "\n".join(f"- {line}" for line in lines)
    sweep._tracked(
        lambda: sweep.tracker.finish_sweep(
            sweep.directory,
            sweep.parent,
            status="KILLED" if status == INTERRUPTED else "FINISHED",
            counts=counts,
            note_markdown=note,
        )
    )


def _print_end(
    sweep: Sweep, console: Any, lines: Iterable[str], summary: Path | None, status: int
) -> None:
    def tell(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    for line in lines:
        tell(f"- {line}")
    for line in dict.fromkeys(note for record in sweep.records for note in record.notes):
        tell(f"- note: {line}")
    for warning in sweep.warnings:
        tell(f"warning: {warning}")
    if status == INTERRUPTED:
        left = len(sweep.plan) - len(sweep.records)
        tell(f"interrupted: {left} of {len(sweep.plan)} trials not done; add resume=auto")
    for line in view_lines(sweep.tracker, sweep.parent):
        tell(line)
    tell(f"summary:  {summary or sweep.directory}")


def verdict_counts(records: Sequence[JobRecord]) -> dict[str, int]:
    """MLflow's metrics of a sweep: how many cells, trials, and trials of each verdict."""
    return {
        "cells/total": len({record.cell_id for record in records}),
        "trials/total": len(records),
        **{f"trials/{v}": sum(record.verdict == v for record in records) for v in VERDICTS},
    }


def view_lines(tracker: Tracker, parent: str | None) -> list[str]:
    """Where MLflow shows a sweep: the command and the filtered chart URL."""
    try:
        view = tracker.view(parent)
    except TrackingError:
        return []
    if view is None:
        return []
    command = [f"MLflow:   {view.command}"] if view.command else []
    return [*command, f"charts:   {view.chart_url}"]


def open_tracker(settings: schema.Tracking) -> tuple[Tracker, str | None]:
    """The tracker asked for, or one that does nothing and the reason, when MLflow is away."""
    from imgpull import tracking

    try:
        return tracking.open_tracker(settings, ROOT), None
    except TrackingError as error:
        return tracking.open_tracker(schema.Tracking(kind=schema.TrackingKind.none), ROOT), str(
            error
        )
