"""One sweep while it runs: trial after trial, and the end that always comes.

Hides what must happen whatever a trial does: the ledger knows of each, MLflow's parent is closed,
and the end step is done, on Ctrl-C too.
"""

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from imgpull.engines import Apart, Session
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord, read_record
from imgpull.sweep import workers
from imgpull.sweep.ending import FAILED, INTERRUPTED, OK, Conclusion, conclude
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Planned
from imgpull.sweep.progress import Progress
from imgpull.sweep.tracked import Tracked

Launch = Callable[[Sequence[Planned]], None]


@dataclass
class Sweep:
    """A sweep in progress. `earlier` are trials of a former session that MLflow may lack."""

    directory: Path
    plan: Sequence[Planned]
    tracked: Tracked
    factors: Mapping[str, Sequence[object]]
    session: Session = field(default_factory=Apart)
    parent: str | None = None
    earlier: Sequence[Path] = ()
    stop_on_failure: bool = False
    records: list[JobRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.directory)
        self.progress = Progress(self.plan, before=self.ledger.read())

    def run(self, launch: Launch, *, together: int = 1) -> int:
        """Launch every trial, `together` at once, do the end step; returns the exit status."""
        with self.progress:
            status = self._run(launch, together)
        return self._finish(status)

    def _run(self, launch: Launch, together: int) -> int:
        try:
            self._start()
            if together == 1:
                self._one_by_one(launch)
            else:
                self._side_by_side(launch, together)
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

    def _one_by_one(self, launch: Launch) -> None:
        for nth, planned in enumerate(self.plan, 1):
            self.progress.start(planned)
            launch([planned])
            if self._stops_after(nth):
                return

    def _side_by_side(self, launch: Launch, together: int) -> None:
        """Workers run the trials; what they left is taken in here, in the order of the plan."""
        with workers.told(self.directory, self.plan):
            for begin in range(0, len(self.plan), together):
                batch = self.plan[begin : begin + together]
                self.progress.step(f"{len(batch)} trials side by side")
                with self.progress.following(self.ledger.path):
                    launch(batch)
                for planned in batch:
                    self._take_in(planned, read_record(self.directory / planned.directory))
                    self._log(self.directory / planned.directory)
                if self._stops_after(begin + len(batch)):
                    return

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
        say = partial(self.progress.step, planned=planned)
        record = workers.run_trial(self.directory, planned, say, self.session)
        say("logging")
        self._log(self.directory / planned.directory)
        self._take_in(planned, record)
        return record

    def _take_in(self, planned: Planned, record: JobRecord) -> None:
        self.records.append(record)
        self.progress.finish(planned, record)

    def _log(self, job_dir: Path) -> None:
        run_id = self.tracked.log(job_dir)
        if run_id:
            where = job_dir.relative_to(self.directory).as_posix()
            self.ledger.append("logged", dir=where, run_id=run_id)

    def _stops_after(self, done: int) -> bool:
        """Whether on_failure=stop ends the sweep with trials left."""
        left = len(self.plan) - done
        if not left or not self.stop_on_failure or all(each.counts for each in self.records):
            return False
        trials = f"{left} trial{'s' * (left > 1)}"
        self.warnings.append(f"on_failure=stop: {trials} after it did not run")
        return True

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
