"""One sweep while it runs: trial after trial, and the end that always comes.

Hides what must happen whatever a trial does: the ledger knows of each, MLflow's parent is closed,
and the end step is done, on Ctrl-C too.
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path

from imgpull.engines import Apart, Place, Session
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord, read_record
from imgpull.sweep import workers
from imgpull.sweep.agenda import Agenda
from imgpull.sweep.ending import FAILED, INTERRUPTED, OK, Conclusion, conclude
from imgpull.sweep.lanes import Lanes, lanes_of
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.limits import Limits
from imgpull.sweep.outlets import result_console
from imgpull.sweep.plan import Planned
from imgpull.sweep.stopping import Stopping, why_broken
from imgpull.sweep.tracked import Tracked
from imgpull.sweep.watching.onward import LeftBehind, left_behind, resume_command
from imgpull.sweep.watching.progress import Progress

Launch = Callable[[Sequence[Planned]], None]


@dataclass
class Sweep:
    """A sweep in progress. `earlier` are trials of a former session that MLflow may lack."""

    directory: Path
    plan: Sequence[Planned]
    tracked: Tracked
    factors: Mapping[str, Sequence[object]]
    session: Session | Lanes = field(default_factory=Apart)
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
        positions = count(self.plan[0].position if self.plan else 1)
        self.agendas = {
            place: Agenda(part, retries=self.retries, seed=self.seed, positions=positions)
            for place, part in lanes_of(self.plan).items()
        }
        self.stopping = Stopping(self.session, self.limits, self.stop_after, self.plan)
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
            if isinstance(self.session, Lanes):
                self._on_lanes(self.session)
            elif together == 1:
                self._one_by_one(launch)
            else:
                self._side_by_side(launch, together)
        except KeyboardInterrupt:
            self._tell_interrupted()
            return INTERRUPTED
        except Exception as error:  # what is done counts
            self.warnings.append(f"the sweep broke: {why_broken(error, self.directory)}")
            return FAILED
        done = chain.from_iterable(agenda.final.values() for agenda in self.agendas.values())
        return OK if all(record.counts for record in done) and not self.left else FAILED

    @property
    def left(self) -> list[str]:
        """The trials without a last word."""
        return [trial_id for agenda in self.agendas.values() for trial_id in agenda.left]

    def _tell_interrupted(self) -> None:
        try:
            self.ledger.append("interrupted")
        except ImgpullError as error:
            self.warn_once(str(error))

    def _one_by_one(self, launch: Launch) -> None:
        while planned := self.next_on(None):
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
                    self.ended(planned)

    def _on_lanes(self, lanes: Lanes) -> None:
        """Each cluster runs its own trials, one after the other."""
        try:
            lanes.run(self)
        except BaseException:
            lanes.interrupt(self.progress.step)
            raise

    def next_on(self, place: Place | None) -> Planned | None:
        """The next trial of a cluster in its place; None when none is left, or none shall begin."""
        agenda = self.agendas[place]
        upcoming = agenda.peek()
        if upcoming is None or self.stopped:
            return None
        self.stopped = self.stopping.why(upcoming)
        if self.stopped:
            self.ledger.append("stopped", why=self.stopped, left=self.left)
            self.warnings.append(f"stopped: {self.stopped}")
            return None
        if why := self.stopping.why_here(upcoming):
            self.lost(place, why)
            return None
        planned = agenda.take()
        assert planned is not None
        self._launched[planned.directory] = planned
        if isinstance(self.session, Lanes):
            self.progress.start(planned)
        return planned

    def lost(self, place: Place | None, why: str) -> None:
        """A cluster runs no further trial; the sweep goes on where there are others."""
        if len(self.agendas) == 1:
            self.stopped = why
            self.ledger.append("stopped", why=why, left=self.left)
        else:
            kubeconfig, context = place or (None, None)
            left = self.agendas[place].left
            self.progress.lose(left)
            self.ledger.append("lost", why=why, kubeconfig=kubeconfig, context=context, left=left)
        self.warnings.append(f"stopped: {why}")

    def ended(self, planned: Planned) -> None:
        """A trial that another process ran is over."""
        job_dir = self.directory / planned.directory
        self._log(job_dir)
        self._take_in(planned, read_record(job_dir))

    def step(self, text: str, planned: Planned | None) -> None:
        """A trial, or a cluster between its trials, has come to this step."""
        self.progress.step(text, planned, own=planned is None)

    def _next_batch(self, most: int) -> list[Planned]:
        batch: list[Planned] = []
        while len(batch) < most and self.stopped is None and (planned := self.next_on(None)):
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
        assert not isinstance(self.session, Lanes)
        record = workers.run_trial(self.directory, planned, say, self.session)
        say("logging")
        self._log(self.directory / planned.directory)
        self._take_in(planned, record)
        return record

    def _take_in(self, planned: Planned, record: JobRecord) -> None:
        (agenda,) = (each for each in self.agendas.values() if each.runs(planned))
        again = agenda.ended(planned, record)
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
        console = result_console()
        left = self.left
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
        behind = end.attempt(lambda: left_behind(self.ledger.read()))
        self._warn(end.warnings, behind)
        for line in [
            *self.tracked.view_lines(),
            *(f"report:   {path}" for path in (end.report or ())[:1]),
            f"summary:  {end.summary or self.directory}",
        ]:
            console.print(line, soft_wrap=True, markup=False)
        return status

    def _warn(self, warnings: Sequence[str], behind: LeftBehind | None) -> None:
        away = self.tracked.warning(self.directory)
        for warning in [*self.warnings, *warnings, *([away] if away else [])]:
            self.progress.say(f"warning: {warning}")
        left = len(self.left)
        if left:
            again = resume_command(self.directory, stopped=self.stopped or "")
            self.progress.say(
                f"{left} of {self.progress.planned} trials not done; go on with: {again}"
            )
        elif behind and behind.trials:
            self.progress.say(behind.told(self.directory))
