"""When CL2 starts the actions of a phase: the arithmetic of its tuning sets.

Hides each set's sleeps, which are whole nanoseconds in Go. An action is one index in one namespace:
its objects are written one after the other. Sources: perf-tests 4b34154 clusterloader2
pkg/tuningset/*.go, one file a set; what they draw from math/rand is drawn here by seed, trial and
phase.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import zip_longest

from imgpull import cl2, units
from imgpull.simcluster import World
from imgpull.simcluster.delays import Luck, TokenBucket


@dataclass(frozen=True)
class Timetable:
    """When each action of a phase starts, in the phase's order, and when the phase is over."""

    starts_s: tuple[float, ...]
    end_s: float


@dataclass
class _Paced:
    """A phase: its set, how long each action takes, and a number drawn for each."""

    tuning_set: cl2.TuningSet
    lasts_s: Sequence[float]
    draw: Callable[[int], float]

    def number(self, name: str) -> float:
        return float(self.tuning_set.params[name])

    def nanoseconds(self, name: str) -> int:
        return round(units.parse_duration(str(self.tuning_set.params[name])) * 1e9)


class Pacing:
    """Paces all phases of one test: a globalQPSLoad's tokens are shared by all that name it."""

    def __init__(self, world: World) -> None:
        self._luck = Luck(world.seed, world.trial)
        self._buckets: dict[str, TokenBucket] = {}
        self._phases = 0

    def timetables(
        self, begin_s: float, phases: Sequence[tuple[cl2.TuningSet, Sequence[float]]]
    ) -> list[Timetable]:
        """Of phases that run side by side: each one's tuning set, and how long its actions take."""
        paced = []
        for tuning_set, lasts_s in phases:
            self._phases += 1
            paced.append(_Paced(tuning_set, lasts_s, self._draw(self._phases)))
        shared = self._by_tokens(begin_s, [one for one in paced if _is_global(one)])
        tables = []
        for one in paced:
            starts_s, slept_s = shared.pop(0) if _is_global(one) else _starts(begin_s, one)
            done_s = (at_s + last_s for at_s, last_s in zip(starts_s, one.lasts_s, strict=True))
            tables.append(Timetable(tuple(starts_s), max(slept_s, *done_s, begin_s)))
        return tables

    def _draw(self, phase: int) -> Callable[[int], float]:
        return lambda action: self._luck.share(f"phase {phase}", action)

    def _by_tokens(
        self, begin_s: float, phases: Sequence[_Paced]
    ) -> list[tuple[list[float], float]]:
        """globalQPSLoad: phases that wait for one bucket get its tokens in turn."""
        starts_s: list[list[float]] = [[] for _ in phases]
        for turn in zip_longest(*(range(len(one.lasts_s)) for one in phases)):
            for one, action, mine_s in zip(phases, turn, starts_s, strict=True):
                if action is not None:
                    asked_s = mine_s[-1] if mine_s else begin_s
                    mine_s.append(self._bucket(one).wait(asked_s))
        return [(mine_s, begin_s) for mine_s in starts_s]

    def _bucket(self, paced: _Paced) -> TokenBucket:
        name = paced.tuning_set.name
        if name not in self._buckets:
            bucket = TokenBucket(paced.number("qps"), paced.number("burst"))
            self._buckets[name] = bucket
        return self._buckets[name]


def _is_global(paced: _Paced) -> bool:
    return paced.tuning_set.kind == "globalQPSLoad"


def _starts(begin_s: float, paced: _Paced) -> tuple[list[float], float]:
    """When actions start, and when the last sleep is over."""
    if paced.tuning_set.kind == "parallelismLimitedLoad":
        return _by_workers(begin_s, paced), begin_s
    if paced.tuning_set.kind == "randomizedTimeLimitedLoad":
        limit_ns = paced.nanoseconds("timeLimit")
        drawn = map(paced.draw, range(len(paced.lasts_s)))
        return [begin_s + math.trunc(limit_ns * share) / 1e9 for share in drawn], begin_s
    starts_s: list[float] = []
    slept_ns = 0
    for action in range(len(paced.lasts_s)):
        starts_s.append(begin_s + slept_ns / 1e9)
        slept_ns += _sleep_ns(action, paced)
    if paced.tuning_set.kind == "poissonLoad":
        return starts_s, begin_s  # it sleeps before an action, not after
    return starts_s, begin_s + slept_ns / 1e9


def _by_workers(begin_s: float, paced: _Paced) -> list[float]:
    """parallelismLimitedLoad: the next action goes to the worker who is free first."""
    free_s = [begin_s] * int(paced.number("parallelismLimit"))
    starts_s = []
    for last_s in paced.lasts_s:
        starts_s.append(free_s[0])
        heapreplace(free_s, free_s[0] + last_s)
    return starts_s


def _sleep_ns(action: int, paced: _Paced) -> int:
    """How long the set sleeps after an action, the last one included."""
    match paced.tuning_set.kind:
        case "qpsLoad":
            return math.trunc(1e9 / paced.number("qps"))
        case "steppedLoad":
            full = (action + 1) % int(paced.number("burstSize")) == 0
            return paced.nanoseconds("stepDelay") if full else 0
        case "timeLimitedLoad":
            return paced.nanoseconds("timeLimit") // len(paced.lasts_s)
        case "randomizedLoad":
            return math.trunc(2 * paced.draw(action) * 1e9 / paced.number("averageQps"))
        case "poissonLoad":
            waited = -math.log(1 - paced.draw(action))
            return math.trunc(1e9 * (waited / paced.number("expectedActionsPerSecond")))
        case kind:
            raise AssertionError(f"{kind} has no pace")
