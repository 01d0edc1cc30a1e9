"""How long which machines stood that a sweep had built, as its ledger tells.

Hides which lines begin and end such a stretch. Between two sessions a cluster that was kept costs
all the same, so that the wall clock counts here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from imgpull.provisioning.variables import Machines


@dataclass(frozen=True)
class Span:
    """A stretch of time with the same machines; seconds since 1970, `end_s` None: it goes on."""

    machines: tuple[Machines, ...]
    region: str
    begin_s: float
    end_s: float | None = None
    until_s: float | None = None  # its expiry, where it was kept: later nobody knows

    @property
    def nodes(self) -> int:
        """All of them."""
        return sum(each.count for each in self.machines)

    def hours(self, now_s: float) -> float:
        """How long it stood, until now where it goes on."""
        end_s = self.end_s
        if end_s is None:
            end_s = now_s if self.until_s is None else min(now_s, self.until_s)
        return max(0.0, end_s - self.begin_s) / 3600


def machine_spans(events: Iterable[Mapping[str, Any]]) -> list[Span]:
    """The stretches in turn. Machines count from when their set-up was begun."""
    found: list[Span] = []
    for event in events:
        kind, at_s = event.get("event"), seconds(event.get("at"))
        if at_s is None:
            continue
        if kind in ("provisioned", "provisioning failed"):
            begin_s = at_s - float(event.get("seconds") or 0.0)
            _end(found, begin_s)
            gone = kind == "provisioning failed" and not event.get("left", True)
            machines = tuple(Machines(*each) for each in event.get("machines", ()))
            region = str(event.get("region", ""))
            found.append(Span(machines, region, begin_s, at_s if gone else None))
        elif kind == "given back" and event.get("done") == "destroyed":
            _end(found, at_s)
        elif kind == "given back" and event.get("done") == "kept" and found:
            found[-1] = replace(found[-1], until_s=seconds(event.get("expiry")))
    return found


def _end(found: list[Span], at_s: float) -> None:
    """The last stretch ends now, if it goes on."""
    if found and found[-1].end_s is None:
        last = found[-1]
        end_s = at_s if last.until_s is None else min(at_s, last.until_s)
        found[-1] = replace(last, end_s=max(end_s, last.begin_s))


def seconds(at: object) -> float | None:
    """An event's time since 1970; None when it has none."""
    try:
        told = datetime.fromisoformat(at) if isinstance(at, str) else None
    except ValueError:
        return None
    if told is None:
        return None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
