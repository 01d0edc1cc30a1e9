"""When things happened, and how long a session has lasted, as a ledger's lines tell it.

Hides that clocks are set while a sweep runs: `at` is the wall clock's, for people; `clock_s`, where
a line has it, is a clock that no one sets, which measures within one session.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Event = Mapping[str, Any]


def at_s(at: object) -> float | None:
    """An event's time as seconds since 1970; None when it has none."""
    try:
        told = datetime.fromisoformat(at) if isinstance(at, str) else None
    except ValueError:
        return None
    if told is None:
        return None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()


def moment_s(event: Event) -> float | None:
    """When, in seconds of a clock that measures time within one session."""
    clock_s = number(event.get("clock_s"))
    return at_s(event.get("at")) if clock_s is None else clock_s


def number(value: object) -> float | None:
    """A number that may be counted with; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


@dataclass
class SessionClock:
    """How long one session has lasted, by the clock that no one sets where its lines tell it."""

    begun: float | None = None
    latest: float | None = None
    latest_at: float | None = None
    trials_s: float = 0.0
    rebuilt: bool = False
    begun_by: frozenset[object] = frozenset()  # the events that a session has once

    def is_over_at(self, event: Event) -> bool:
        """Whether this event is the next session's. A cluster is `held` before `sweep` is told, and
        built before that.
        """
        told = "held" if event.get("opening") else _kind(event)
        past = {"sweep": {"sweep"}, "held": {"sweep", "given back"}}.get(told, set())
        return not past.isdisjoint(self.begun_by)

    def take(self, event: Event) -> None:
        if (kind := _kind(event)) in ("sweep", "given back"):
            self.begun_by |= {kind}
        moment = moment_s(event)
        if moment is not None:
            self.begun = moment if self.begun is None else self.begun
            self.latest = moment
            self.latest_at = at_s(event.get("at"))
        self.rebuilt = self.rebuilt or bool(event.get("rebuilt"))
        if event.get("event") == "finished":
            self.trials_s += number(event.get("wall_s")) or 0.0

    def spent_s(self, now: float | None) -> float:
        """Seconds until the last event, or until `now`, seconds since 1970, of one that runs."""
        # Made anew from directories, a ledger has one moment only: then its trials' own times.
        if self.rebuilt or self.begun is None or self.latest is None:
            return max(self.trials_s, 0.0)
        since = now - self.latest_at if now is not None and self.latest_at is not None else 0.0
        return max(self.latest - self.begun, 0.0) + max(since, 0.0)


def _kind(event: Event) -> str:
    kind = event.get("event")
    return kind if isinstance(kind, str) else ""
