"""What of a sweep's request has no result: combinations left out, trials that did not run.

Hides where that stands: the ledger has the request and the plan, the directories what was done.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from imgpull.results.record import JobRecord
from imgpull.sweep import shapes
from imgpull.sweep.ledger import Event
from imgpull.sweep.watching.words import counted

_SHOWN = 8  # cells


def remarks(events: Sequence[Event], records: Iterable[JobRecord]) -> list[str]:
    """Sentences for the end of a sweep; none when all that was asked for was done."""
    not_done = _undone(events, {record.trial_id for record in records})
    return [*_excluded(events), *not_done, *shapes.remarks(events)]


def _excluded(events: Sequence[Event]) -> list[str]:
    requests = [event for event in events if event["event"] == "sweep"]
    excluded = requests[-1].get("excluded", ()) if requests else ()
    if not excluded:
        return []
    by = Counter(str(each["by"]) for each in excluded)
    told = ", ".join(f"{count} by '{expression}'" for expression, count in by.most_common())
    return [f"{counted(len(excluded), 'combination')} excluded: {told}"]


def undone(events: Sequence[Event], records: Iterable[JobRecord]) -> list[dict[str, Any]]:
    """The trials that were planned and have no record, each with the `factors` of its cell."""
    cells = {
        str(cell["cell_id"]): cell.get("factors", {})
        for event in events
        if event["event"] == "sweep"
        for cell in event.get("cells", ())
    }
    return [
        {**event, "factors": cells.get(str(event.get("cell_id")), {})}
        for event in _left(events, {record.trial_id for record in records})
    ]


def _left(events: Sequence[Event], recorded: set[str]) -> list[Event]:
    planned = {str(e["trial_id"]): e for e in events if e["event"] == "planned"}
    return [event for trial_id, event in planned.items() if trial_id not in recorded]


def _undone(events: Sequence[Event], recorded: set[str]) -> list[str]:
    left = _left(events, recorded)
    if not left:
        return []
    cells: dict[str, list[int]] = {}
    for event in left:
        cells.setdefault(str(event.get("name")), []).append(int(event.get("trial", 1)))
    named = [f"{name} ({_trials(numbers)})" for name, numbers in cells.items()]
    rest = len(named) - _SHOWN
    told = "; ".join(named[:_SHOWN]) + f"; and {rest} more cells" * (rest > 0)
    return [f"{counted(len(left), 'trial')} not done{_why(events)}: {told}"]


def _why(events: Sequence[Event]) -> str:
    begun = max((n for n, e in enumerate(events) if e["event"] == "sweep"), default=0)
    lost = [str(e.get("why")) for e in events[begun:] if e["event"] == "lost"]
    marks = [e for e in events if e["event"] in ("sweep", "stopped", "interrupted")]
    if marks and marks[-1]["event"] == "stopped":
        return f" (stopped: {marks[-1].get('why')})"
    if marks and marks[-1]["event"] == "interrupted":
        return " (interrupted)"
    return f" (stopped: {'; '.join(lost)})" if lost else ""


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"
