"""Finds the earlier sweep that a command continues, and what of it is done.

Hides the rule "content decides". A trial is done when its job.json says that it counts. A sweep is
continued when its seed and its cells are those asked for; the seed is no part of a cell, but a
simulated trial of another seed is another trial. The newest that asked for the same cells is
preferred, then the newest that grows into them (all its cells are asked for), then the newest that
holds them all. Sweeps that only overlap are not continued.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from imgpull.errors import LedgerError
from imgpull.results.record import read_records
from imgpull.sweep.ledger import NAME, Event, Ledger

ATTEMPT = "attempt-"


@dataclass(frozen=True)
class Asked:
    """What a command asks for: the content that decides."""

    matrix: str
    cells: Set[str]
    seed: int


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
    taken: frozenset[int] = frozenset()  # numbers of directories that exist or were planned
    positions: int = 0
    parent: str | None = None
    unlogged: tuple[Path, ...] = ()
    ended: bool = False  # its end step was done, and not because of Ctrl-C
    planned: Mapping[str, str] = field(default_factory=dict)  # trial_id -> its number
    cells: frozenset[str] = frozenset()
    # cell_id -> the newest trial of it that counts: hash of its bundle, its directory's name
    bundles: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def find_earlier(
    candidates: Iterable[Path],
    asked: Asked,
    pass_over: Callable[[LedgerError], None] = lambda error: None,
) -> Earlier | None:
    """The sweep that is continued, finished or not; None without one.

    Newest by name, which is a time: a copied directory keeps it. One whose ledger cannot be read is
    told and passed over.
    """
    best: tuple[int, Path, list[Event]] | None = None
    for directory in sorted(candidates, key=lambda path: path.name, reverse=True):
        try:
            events = Ledger(directory).read()
        except LedgerError as error:
            pass_over(error)
            continue
        nearness = _nearness(directory, events, asked)
        if nearness == 0:
            return read_earlier(directory, events)
        if nearness is not None and (best is None or nearness < best[0]):
            best = nearness, directory, events
    return read_earlier(best[1], best[2]) if best else None


def _nearness(directory: Path, events: Sequence[Event], asked: Asked) -> int | None:
    """0 the same cells, 1 grows into them, 2 holds them all; None is another sweep."""
    if any(event.get("matrix") == asked.matrix for event in events):
        return 0
    cells, seeds = content(directory, events)
    if not cells or seeds != {asked.seed}:
        return None
    if cells == asked.cells:
        return 0
    if cells < asked.cells:
        return 1
    return 2 if cells > asked.cells else None


def content(directory: Path, events: Sequence[Event]) -> tuple[frozenset[str], frozenset[int]]:
    """The cells that the sessions of a sweep asked for, and their seeds; of a lost ledger, those
    of its trials.
    """
    cells: set[str] = set()
    seeds: set[int] = set()
    for event in events:
        if event["event"] == "sweep":
            cells |= {str(cell["cell_id"]) for cell in event.get("cells", ())}
            told = event.get("settings", {})
            seeds |= {int(told["seed"])} if "seed" in told else set()
        elif event["event"] == "planned" and "cell_id" in event:
            cells.add(str(event["cell_id"]))
    if not cells or not seeds:
        records = [record for _, record in read_records(directory)[0]]
        cells |= {record.cell_id for record in records}
        seeds |= {record.seed for record in records}
    return frozenset(cells), frozenset(seeds)


def sweep_directories(root: Path) -> list[Path]:
    """Every directory under `root` that holds a sweep, its ledger lost or not."""
    marks = [*root.glob(f"*/{NAME}"), *root.glob("*/multirun.yaml")]
    return list({path.parent: None for path in marks})


def read_earlier(directory: Path, events: Sequence[Event]) -> Earlier:
    """What is known of a sweep begun before."""
    done: dict[str, Done] = {}
    bundles: dict[str, tuple[str, str]] = {}
    positions = 0
    logged = {event.get("dir") for event in events if event["event"] == "logged"}
    unlogged = []
    planned = {
        str(event["trial_id"]): str(event["dir"]).split("/")[0]
        for event in events
        if event["event"] == "planned"
    }
    for job_dir, record in read_records(directory)[0]:  # unreadable is not done
        where = job_dir.relative_to(directory)
        number = where.parts[0]
        done[record.trial_id] = Done(number, record.attempt + 1, record.counts)
        planned[record.trial_id] = number
        positions = max(positions, record.position)
        if record.counts and record.bundle_sha256:
            bundles[record.cell_id] = record.bundle_sha256, where.as_posix()
        if where.as_posix() not in logged:
            unlogged.append(job_dir)
    parents = [str(event["run_id"]) for event in events if event["event"] == "parent"]
    there = {path.name for path in directory.iterdir()} | set(planned.values())
    return Earlier(
        directory,
        done,
        taken=frozenset(int(name) for name in there if name.isdigit()),
        positions=positions,
        parent=parents[-1] if parents else None,
        unlogged=tuple(unlogged),
        ended=_ended(events),
        planned=planned,
        cells=content(directory, events)[0],
        bundles=bundles,
    )


def _ended(events: Sequence[Event]) -> bool:
    marks = [e for e in events if e["event"] in ("sweep", "interrupted", "ended")]
    return bool(marks) and marks[-1]["event"] == "ended" and marks[-1].get("status") != 130
