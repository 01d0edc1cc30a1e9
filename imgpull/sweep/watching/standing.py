"""How a sweep stands: what its events so far come to.

Hides the rules by which events count, so that the display of a running sweep and `imgpull status`
say the same. A trial counts once, however often it is attempted: by its last attempt.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from imgpull.sweep.moments import Event, SessionClock, at_s, moment_s, number
from imgpull.sweep.watching.eta import Coming, Pace, Past, left_s
from imgpull.sweep.watching.words import label, one_line

COUNTED = ("valid", "degraded")  # as results.record has it, which takes long to import

_ATTEMPT = re.compile("/attempt-([0-9]{1,9})$")


@dataclass(frozen=True)
class Running:
    """A trial that runs, or was running when its session was cut off."""

    trial_id: str
    name: str
    trial: int
    attempt: int
    directory: str  # relative to the sweep's
    elapsed_s: float

    @property
    def label(self) -> str:
        """The trial as people tell it from others."""
        return label(self.name, self.trial, self.attempt)


@dataclass(frozen=True)
class Failure:
    """The last trial that does not count, and why."""

    name: str
    trial: int
    attempt: int
    directory: str
    verdict: str
    reason: str

    @property
    def label(self) -> str:
        """The trial as people tell it from others."""
        return label(self.name, self.trial, self.attempt)


@dataclass(frozen=True)
class Session:
    """The last of a sweep's sessions, and how it ended if it did. None is unknown."""

    number: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    pid: int | None = None
    host: str | None = None
    stopped: str = ""  # why it ended before all trials were done
    lost: tuple[str, ...] = ()  # why clusters, of several, run no further trial
    interrupted: bool = False
    status: int | None = None  # with which it ended


@dataclass(frozen=True)
class Standing:
    """A sweep at one moment; done + running + left = planned. Seconds are the wall clock's."""

    planned: int
    done: int
    left: int
    running: tuple[Running, ...]
    cut_off: tuple[Running, ...]  # of those left: begun in a session that is over
    verdicts: Mapping[str, int]  # of the trials done
    slo_missed: int
    again: int  # attempts beyond each trial's first
    last_failure: Failure | None
    eta_s: float | None  # None: unknown
    spent_s: float  # in all sessions
    virtual_s: float | None  # lived through by simulated clusters; None: none was
    cost: float | None  # of all attempts that ended; None: of one at least it is not known
    excluded: int
    session: Session


@dataclass
class _Trial:
    trial_id: str
    cell_id: str
    name: str
    trial: int
    attempt: int
    directory: str
    state: str = "left"  # or running, done
    since: float | None = None
    verdict: str = ""
    slo: str = ""


class Course:
    """Takes a sweep's events, in their order, and tells how it stands.

    What is no event, or lacks what makes it one, is passed over: a ledger may hold anything.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._trials: dict[str, _Trial] = {}
        self._attempts: dict[tuple[str, int], Event] = {}  # finished
        self._expected_s: dict[str, float] = {}
        self._last_failure: Failure | None = None
        self._excluded = 0
        self._builds = False  # a cluster, which costs between trials too
        self._spent_s = 0.0  # in former sessions
        self._clock = SessionClock()
        self._session = Session()
        self._running: set[str] = set()
        self._lanes, self._starts, self._pauses_s = 1, 0, list[float]()  # of this session
        self._idle_since: float | None = None
        self._take: Mapping[str, Callable[[Event], None]] = {
            "sweep": self._sweep,
            "planned": self._planned,
            "forecast": self._forecast,
            "started": self._started,
            "finished": self._finished,
            "lost": self._lost,
            "interrupted": self._interrupted,
            "stopped": self._stopped,
            "ended": self._ended,
        }
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        """One more thing has happened."""
        name = event.get("event")
        if self._clock.is_over_at(event):
            self._spent_s += self._clock.spent_s(None)
            self._clock = SessionClock()
        self._clock.take(event)
        self._builds |= name == "provisioned"
        take = self._take.get(name) if isinstance(name, str) else None
        if take is not None:
            take(event)

    def expect(self, expected_s: Mapping[str, float]) -> None:
        """So many seconds each trial will take, by trial_id."""
        self._forecast({"trials": expected_s})

    def trials(self) -> list[tuple[str, str]]:
        """(trial_id, directory) of every trial that is not done."""
        return [(t.trial_id, t.directory) for t in self._trials.values() if t.state != "done"]

    @property
    def planned(self) -> int:
        """How many trials there are."""
        return len(self._trials)

    @property
    def done(self) -> int:
        """How many trials are done."""
        return sum(trial.state == "done" for trial in self._trials.values())

    @property
    def running(self) -> list[str]:
        """The trials that run, by trial_id."""
        return sorted(self._running)

    def undone(self) -> list[str]:
        """The directories of the trials that are not done."""
        return [t.directory for t in self._trials.values() if t.state != "done" and t.directory]

    def is_done(self, trial_id: str, attempt: int) -> bool:
        """Whether this attempt of a trial has ended."""
        return (trial_id, attempt) in self._attempts

    def label(self, trial_id: str) -> str:
        """A trial as people tell it from others; its id when it is not known."""
        trial = self._trials.get(trial_id)
        return label(trial.name, trial.trial, trial.attempt) if trial else one_line(trial_id)

    def standing(self, now: float | None = None, *, alive: bool = True) -> Standing:
        """How the sweep stands; `now` is seconds since 1970, `alive` whether a process runs it."""
        now = datetime.now(UTC).timestamp() if now is None else now
        trials = list(self._trials.values())
        begun = tuple(_running(t, now) for t in trials if t.state == "running")
        done = [trial for trial in trials if trial.state == "done"]
        running = begun if alive else ()
        return Standing(
            planned=len(trials),
            done=len(done),
            left=len(trials) - len(done) - len(running),
            running=running,
            cut_off=() if alive else begun,
            verdicts=dict(Counter(trial.verdict for trial in done)),
            slo_missed=sum(trial.slo == "missed" for trial in done),
            again=sum(attempt > 1 for _, attempt in self._attempts),
            last_failure=self._last_failure,
            eta_s=self._eta_s({each.trial_id: each.elapsed_s for each in running}),
            spent_s=self._spent_s + self._clock.spent_s(now if alive else None),
            virtual_s=self._virtual_s(),
            cost=self._cost(),
            excluded=self._excluded,
            session=self._session,
        )

    def _eta_s(self, elapsed_s: Mapping[str, float]) -> float | None:
        coming = [
            Coming(trial.trial_id, trial.cell_id, elapsed_s.get(trial.trial_id))
            for trial in self._trials.values()
            if trial.state != "done"
        ]
        past = []
        for (trial_id, _), event in self._attempts.items():
            wall_s = number(event.get("wall_s"))
            # A trial that ran again and was cut off is in no plan until the next session has one.
            trial = self._trials.get(trial_id) or _trial(event)
            if trial and wall_s is not None and event.get("verdict") != "failed":
                past.append(Past(trial_id, trial.cell_id, max(wall_s, 0.0)))
        pace = Pace(self._lanes, self._starts, tuple(self._pauses_s))
        return left_s(coming, past, self._expected_s, pace)

    def _virtual_s(self) -> float | None:
        found = [number(event.get("virtual_s")) for event in self._attempts.values()]
        lived = [virtual_s for virtual_s in found if virtual_s is not None]
        return sum(lived) if lived else None

    def _cost(self) -> float | None:
        known = [number(event.get("cost")) for event in self._attempts.values()]
        unknown = self._builds or None in known
        return None if unknown else sum(cost for cost in known if cost is not None)

    def _sweep(self, event: Event) -> None:
        # What this session is to run is planned anew; what is done stays.
        self._trials = {key: t for key, t in self._trials.items() if t.state == "done"}
        self._running.clear()
        self._idle_since = None
        self._lanes, self._starts, self._pauses_s = 1, 0, []
        settings, excluded = event.get("settings"), event.get("excluded")
        self._excluded = len(excluded) if isinstance(excluded, list) else 0
        self._session = Session(
            number=self._session.number + 1,
            settings=settings if isinstance(settings, dict) else {},
            pid=_count(event.get("pid"), 0) or None,
            host=_text(event.get("host")) or None,
        )

    def _planned(self, event: Event) -> None:
        trial = _trial(event)
        known = self._trials.get(trial.trial_id) if trial else None
        if trial is None or (known and known.state != "left" and known.attempt >= trial.attempt):
            return
        self._trials[trial.trial_id] = trial

    def _forecast(self, event: Event) -> None:
        expected = event.get("trials")
        for trial_id, told in expected.items() if isinstance(expected, Mapping) else ():
            wall_s = number(told)
            if wall_s is not None and wall_s >= 0:
                self._expected_s[trial_id] = wall_s

    def _of(self, event: Event) -> _Trial | None:
        """The trial that an event is about, entered if its plan was lost; None for an old news."""
        told = _trial(event)
        if told is None or self.is_done(told.trial_id, told.attempt):
            return None
        known = self._trials.setdefault(told.trial_id, told)
        known.attempt, known.directory = told.attempt, told.directory or known.directory
        return known

    def _started(self, event: Event) -> None:
        trial = self._of(event)
        if trial is None or trial.state == "running":
            return
        now = moment_s(event)
        if now is not None and self._idle_since is not None:
            self._pauses_s.append(max(now - self._idle_since, 0.0))
        trial.state, trial.since, self._idle_since = "running", at_s(event.get("at")), None
        self._running.add(trial.trial_id)
        self._starts += 1
        self._lanes = max(self._lanes, len(self._running))

    def _finished(self, event: Event) -> None:
        trial = self._of(event)
        if trial is None:
            return
        self._attempts[trial.trial_id, trial.attempt] = event
        trial.state, trial.since = "done", None
        self._running.discard(trial.trial_id)
        trial.verdict, trial.slo = _text(event.get("verdict")) or "failed", _text(event.get("slo"))
        if trial.verdict not in COUNTED:
            reason = one_line(_text(event.get("reason")))
            self._last_failure = Failure(
                trial.name, trial.trial, trial.attempt, trial.directory, trial.verdict, reason
            )
        if not self._running:
            self._idle_since = moment_s(event)

    def _lost(self, event: Event) -> None:
        """A cluster of several runs no further trial."""
        left = event.get("left")
        for trial_id in left if isinstance(left, list) else ():
            trial = self._trials.get(trial_id) if isinstance(trial_id, str) else None
            if trial is not None and trial.state == "running":
                trial.state, trial.since = "left", None
                self._running.discard(trial.trial_id)
        if why := _text(event.get("why")):
            self._session = replace(self._session, lost=(*self._session.lost, why))

    def _interrupted(self, event: Event) -> None:
        self._end(interrupted=True)

    def _stopped(self, event: Event) -> None:
        self._end(stopped=_text(event.get("why")) or "for a reason not told")

    def _ended(self, event: Event) -> None:
        status = event.get("status")
        self._end(status=status if isinstance(status, int) else 1)

    def _end(self, **how: Any) -> None:
        self._session = replace(self._session, **how)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _trial(event: Event) -> _Trial | None:
    """What an event says of its trial; None when it does not even say which."""
    trial_id = _text(event.get("trial_id"))
    if not trial_id:
        return None
    cell_id, _, trial = trial_id.rpartition("-t")
    directory = _text(event.get("dir"))
    further = _ATTEMPT.search(directory)
    return _Trial(
        trial_id=trial_id,
        cell_id=_text(event.get("cell_id")) or cell_id or trial_id,
        name=_text(event.get("name")) or (f"in {directory}" if directory else trial_id),
        trial=_count(event.get("trial"), int(trial) if re.fullmatch("[0-9]{1,9}", trial) else 1),
        attempt=_count(event.get("attempt"), int(further[1]) if further else 1),
        directory=directory,
    )


def _running(trial: _Trial, now: float) -> Running:
    elapsed_s = max(now - trial.since, 0.0) if trial.since is not None else 0.0
    return Running(
        trial.trial_id, trial.name, trial.trial, trial.attempt, trial.directory, elapsed_s
    )
