"""One sweep while it runs: trial after trial, and the end that always comes.

Hides what must happen whatever a trial does: the ledger knows of each, MLflow's parent is closed,
and the end step is done, on Ctrl-C too.
"""

import errno
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
from imgpull.sweep.agenda import Agenda
from imgpull.sweep.ending import FAILED, INTERRUPTED, OK, Conclusion, conclude
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.limits import Limits
from imgpull.sweep.plan import Planned
from imgpull.sweep.stopping import Stopping
from imgpull.sweep.tracked import Tracked
from imgpull.sweep.watching.progress import Progress

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
    stop_after: int | None = None
    retries: int = 0
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.directory)
        self.progress = Progress(self.plan, self.limits.expected_s, before=self.ledger.read())
        self.agenda = Agenda(self.plan, retries=self.retries, seed=self.seed)
        self.stopping = Stopping(
            self.session,
            self.limits,
            self.stop_after,
            cells=len({planned.cell.cell_id for planned in self.plan}),
        )
        self.stopped: str | None = None
        self._launched: dict[str, Planned] = {}  # by directory

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
            self._tell_interrupted()
            return INTERRUPTED
        except Exception as error:
            # Not the trial's: a full disk, a conf/ broken meanwhile, a bug. What is done counts.
            self.warnings.append(f"the sweep broke: {self._words(error)}")
            return FAILED
        done = self.agenda.final
        counts = all(record.counts for record in done.values())
        return OK if counts and not self.agenda else FAILED

    def _words(self, error: Exception) -> str:
        if isinstance(error, ImgpullError):
            return str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            again = f"imgpull resume {shlex.quote(str(self.directory))}"
            return f"{type(error).__name__}: {error}\n  free some space, then: {again}"
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"

    def _tell_interrupted(self) -> None:
        try:
            self.ledger.append("interrupted")
        except ImgpullError as error:
            self.warn_once(str(error))

    def _one_by_one(self, launch: Launch) -> None:
        while planned := self._next():
            self.progress.start(planned)
            launch([planned])

    def _side_by_side(self, launch: Launch, together: int) -> None:
        """Workers run the trials; what they left is taken in here, in the order of the plan."""
        with workers.told(self.directory) as tell:
            while batch := self._next_batch(together):
                self.progress.step(f"{len(batch)} trials side by side")
                tell(batch)
                with self.progress.following(self.ledger.path):
                    launch(batch)
                for planned in batch:
                    self._log(self.directory / planned.directory)
                    self._take_in(planned, read_record(self.directory / planned.directory))

    def _next(self) -> Planned | None:
        """The next trial in its place; None when all are done, or the rest shall not run."""
        upcoming = self.agenda.peek()
        if upcoming is None:
            return None
        self.stopped = self.stopping.why(upcoming)
        if self.stopped:
            self.ledger.append("stopped", why=self.stopped, left=self.agenda.left)
            self.warnings.append(f"stopped: {self.stopped}")
            return None
        planned = self.agenda.take()
        assert planned is not None
        self._launched[planned.directory] = planned
        return planned

    def _next_batch(self, most: int) -> list[Planned]:
        batch: list[Planned] = []
        while len(batch) < most and self.stopped is None and (planned := self._next()):
            batch.append(planned)
        return batch

    def _start(self) -> None:
        self.progress.step("opening tracking")
        command = shlex.join(["python", *sys.argv])
        self.tracked.start(self.directory, self.factors, command, self.parent)
        if self.tracked.parent and self.tracked.parent != self.parent:
            self.ledger.append("parent", run_id=self.tracked.parent)
        for job_dir in self.earlier:
            self._log(job_dir)

    def launched(self, subdir: str) -> Planned:
        """The trial that was handed out for this directory."""
        return self._launched[subdir]

    def run_trial(self, planned: Planned) -> JobRecord:
        """Run one planned trial, record and log it."""
        say = partial(self.progress.step, planned=planned)
        record = workers.run_trial(self.directory, planned, say, self.session)
        say("logging")
        self._log(self.directory / planned.directory)
        self._take_in(planned, record)
        return record

    def _take_in(self, planned: Planned, record: JobRecord) -> None:
        again = self.agenda.ended(planned, record)
        self.stopping.note(planned, record, final=again is None)
        self.limits.add(workers.cost(planned, record))
        self.progress.finish(planned, record)
        if again:
            self.ledger.append_all([again.as_event()])
            self.progress.add(again)

    def _log(self, job_dir: Path) -> None:
        run_id = self.tracked.log(job_dir)
        if run_id:
            where = job_dir.relative_to(self.directory).as_posix()
            self.ledger.append("logged", dir=where, run_id=run_id)

    def warn_once(self, warning: str) -> None:
        """Say this at the end."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _finish(self, status: int) -> int:
        from rich.console import Console

        console = Console(highlight=False)
        left = self.agenda.left
        try:
            end = conclude(self.directory, console)
        except KeyboardInterrupt:  # a second one: no time for plots
            status, end = INTERRUPTED, Conclusion()
        try:
            self.ledger.append("ended", status=status, verdicts=end.counts, left=left)
        except ImgpullError as error:
            self.warn_once(str(error))
        killed = status == INTERRUPTED
        self.tracked.finish(self.directory, killed=killed, counts=end.counts, note=end.markdown)
        self._warn(end.warnings)
        for line in [
            *self.tracked.view_lines(),
            *(f"report:   {path}" for path in (end.report or ())[:1]),
            f"summary:  {end.summary or self.directory}",
        ]:
            console.print(line, soft_wrap=True, markup=False)
        return status

    def _warn(self, warnings: Sequence[str]) -> None:
        away = self.tracked.warning(self.directory)
        for warning in [*self.warnings, *warnings, *([away] if away else [])]:
            self.progress.say(f"warning: {warning}")
        left = len(self.agenda.left)
        if left:
            again = f"imgpull resume {shlex.quote(str(self.directory))}"
            self.progress.say(f"{left} of {len(self.plan)} trials not done; go on with: {again}")
