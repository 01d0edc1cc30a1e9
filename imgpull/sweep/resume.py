"""Finds the earlier sweep that a command continues, and what of it is done.

Hides the rule "content decides": a sweep is the same when its cells are, and a trial is done when
its job.json says that it counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imgpull.errors import ReportError
from imgpull.results.record import job_directories, read_record
from imgpull.sweep.ledger import NAME, Ledger

ATTEMPT = "attempt-"


@dataclass(frozen=True)
class Done:
    """The last attempt of a trial: where its first attempt lies, and whether it counts."""

    directory: str
    next_attempt: int
    counts: bool


@dataclass(frozen=True)
class Earlier:
    """A sweep to continue. `unlogged` are its finished trials that no tracker is known to have."""

    directory: Path
    done: Mapping[str, Done]
    taken: frozenset[int]  # numbers of directories that exist
    positions: int
    parent: str | None
    unlogged: tuple[Path, ...]
    ended: bool  # its end step was done, and not because of Ctrl-C


def find_earlier(candidates: Iterable[Path], matrix: str) -> Earlier | None:
    """The newest sweep of the same matrix, finished or not; None without one.

    Newest by name, which is a time: a copied directory keeps it.
    """
    for directory in sorted(candidates, key=lambda path: path.name, reverse=True):
        events = Ledger(directory).read()
        if any(event.get("matrix") == matrix for event in events):
            return _read(directory, events)
    return None


def sweep_directories(root: Path) -> list[Path]:
    """Every directory under `root` that holds a ledger."""
    return [path.parent for path in root.glob(f"*/{NAME}")]


def _read(directory: Path, events: list[dict[str, object]]) -> Earlier:
    done: dict[str, Done] = {}
    positions = 0
    logged = {event.get("dir") for event in events if event.get("event") == "logged"}
    unlogged = []
    for job_dir in job_directories(directory):
        try:
            record = read_record(job_dir)
        except ReportError:
            continue  # unreadable is not done
        where = job_dir.relative_to(directory)
        number = where.parts[0]
        done[record.trial_id] = Done(number, _next_attempt(directory / number), record.counts)
        positions = max(positions, record.position)
        if where.as_posix() not in logged:
            unlogged.append(job_dir)
    parents = [str(event["run_id"]) for event in events if event.get("event") == "parent"]
    return Earlier(
        directory,
        done,
        taken=frozenset(int(path.name) for path in directory.iterdir() if path.name.isdigit()),
        positions=positions,
        parent=parents[-1] if parents else None,
        unlogged=tuple(unlogged),
        ended=_ended(events),
    )


def _next_attempt(first: Path) -> int:
    """One more than any attempt begun here: one that was cut off left files that must not mix."""
    names = [path.name.removeprefix(ATTEMPT) for path in first.glob(f"{ATTEMPT}*")]
    return max([1, *(int(name) for name in names if name.isdigit())]) + 1


def _ended(events: list[dict[str, object]]) -> bool:
    marks = [e for e in events if e.get("event") in ("sweep", "interrupted", "ended")]
    return bool(marks) and marks[-1].get("event") == "ended" and marks[-1].get("status") != 130
