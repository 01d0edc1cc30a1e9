"""One sweep while it runs: trial after trial, and the end that always comes.

Hides what must happen whatever a trial does: the ledger knows of each, MLflow's parent is closed,
and the end step is done, on Ctrl-C too.
"""

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgpull import pipeline
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord
from imgpull.sweep.ending import FAILED, INTERRUPTED, OK, Conclusion, conclude
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Planned
from imgpull.sweep.progress import Progress
from imgpull.sweep.tracked import Tracked


@dataclass
class Sweep:
    """A sweep in progress. `earlier` are trials of a former session that MLflow may lack."""

    directory: Path
    plan: Sequence[Planned]
    tracked: Tracked
    factors: Mapping[str, Sequence[object]]
    parent: str | None = None
    earlier: Sequence[Path] = ()
    stop_on_failure: bool = False
    records: list[JobRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.directory)
        self.progress = Progress(len(self.plan))

    def run(self, launch: Callable[[Planned], None]) -> int:
        """Launch every trial in turn, do the end step; returns the exit status."""
        with self.progress:
            status = self._run(launch)
        return self._finish(status)

    def _run(self, launch: Callable[[Planned], None]) -> int:
        try:
            self._start()
            for left, planned in zip(range(len(self.plan))[::-1], self.plan, strict=True):
                self.ledger.append("started", trial_id=planned.trial_id, dir=planned.directory)
                self.progress.start(planned.name, planned.trial, planned.attempt)
                launch(planned)
                if left and self._should_stop():
                    trials = f"{left} trial{'s' * (left > 1)}"
                    self.warnings.append(f"on_failure=stop: {trials} after it did not run")
                    break
        except KeyboardInterrupt:
            self.ledger.append("interrupted")
            return INTERRUPTED
        except Exception as error:
            # Not the trial's: a full disk, a conf/ broken meanwhile, a bug. What is done counts.
            known = isinstance(error, ImgpullError)
            if not known:
                traceback.print_exc()
            words = str(error) if known else f"{type(error).__name__}: {error}"
            self.warnings.append(f"the sweep broke: {words}")
            return FAILED
        return OK if all(record.counts for record in self.records) else FAILED

    def _start(self) -> None:
        self.progress.step("opening tracking")
        command = shlex.join(["python", *sys.argv])
        self.tracked.start(self.directory, self.factors, command, self.parent)
        if self.tracked.parent and self.tracked.parent != self.parent:
            self.ledger.append("parent", run_id=self.tracked.parent)
        for job_dir in self.earlier:
            self._log(job_dir)

    def run_trial(self, planned: Planned) -> JobRecord:
        """Run one planned trial, record and log it."""
        place = pipeline.Place(
            directory=self.directory / planned.directory,
            name=planned.name,
            cell_id=planned.cell.cell_id,
            factors=planned.cell.factors,
            block=planned.block,
            position=planned.position,
            attempt=planned.attempt,
        )
        record = pipeline.run_job(
            planned.job, planned.values, planned.cell.files, place, self.progress.step
        )
        self.records.append(record)
        self.ledger.append(
            "finished",
            trial_id=record.trial_id,
            dir=planned.directory,
            verdict=record.verdict,
            wall_s=record.wall_s,
            virtual_s=record.virtual_s,
        )
        self.progress.step("logging")
        self._log(place.directory)
        self.progress.finish(record)
        return record

    def _log(self, job_dir: Path) -> None:
        run_id = self.tracked.log(job_dir)
        if run_id:
            where = job_dir.relative_to(self.directory).as_posix()
            self.ledger.append("logged", dir=where, run_id=run_id)

    def _should_stop(self) -> bool:
        return self.stop_on_failure and not self.records[-1].counts

    def warn_once(self, warning: str) -> None:
        """Say this at the end."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _finish(self, status: int) -> int:
        from rich.console import Console

        console = Console(highlight=False)
        try:
            end = conclude(self.directory, console)
        except KeyboardInterrupt:  # a second one: no time for plots
            status, end = INTERRUPTED, Conclusion()
        try:
            self.ledger.append("ended", status=status, verdicts=end.counts)
        except OSError as error:
            self.warn_once(f"the ledger could not be written: {error}")
        killed = status == INTERRUPTED
        self.tracked.finish(self.directory, killed=killed, counts=end.counts, note=end.markdown)
        self._warn(end.warnings)
        for line in [
            *self.tracked.view_lines(),
            f"summary:  {end.summary or self.directory}",
        ]:
            console.print(line, soft_wrap=True, markup=False)
        return status

    def _warn(self, warnings: Sequence[str]) -> None:
        away = self.tracked.warning(self.directory)
        for warning in [*self.warnings, *warnings, *([away] if away else [])]:
            self.progress.say(f"warning: {warning}")
        left = len(self.plan) - len(self.records)
        if left:
            self.progress.say(f"{left} of {len(self.plan)} trials not done; add resume=auto")
