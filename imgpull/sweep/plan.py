"""Which trials a sweep consists of, in which order they run, and where each leaves its files.

Hides the randomisation: blocks hold every cell once, each shuffled by the seed, so that a drift of
the cloud does not become an effect of a factor. And what is left to do of a sweep begun earlier.
"""

import hashlib
import platform
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from imgpull import pipeline
from imgpull.config.job import Job, content_id
from imgpull.sweep import shapes
from imgpull.sweep.resume import Earlier

# How a factor is written in a run's name, where columns are narrow.
_SHORT = {"deployments": "d", "replicas": "r", "qps": "q", "nodes": "n"}
_BY_LEVEL_ALONE = ("image", "cluster", "cache", "report")


def sweep_name(directory: Path) -> str:
    """What a cluster calls the sweep in `directory`: a label's value, of this machine's own."""
    told = re.sub("[^A-Za-z0-9._-]+", "-", directory.absolute().name).strip("._-")[:40]
    where = f"{platform.node()}:{directory.absolute()}"
    return f"{told or 'sweep'}-{hashlib.sha256(where.encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Cell:
    """One combination of levels, composed and checked.

    `values` is its resolved configuration, `files` its bundle (None where nothing is rendered):
    what was checked is what runs, also when conf/ or templates/ are edited meanwhile.
    """

    overrides: tuple[str, ...]
    cell_id: str
    label: str
    job: Job
    values: Mapping[str, Any]
    factors: Mapping[str, Any]
    files: Mapping[str, str] | None


@dataclass(frozen=True)
class Excluded:
    """A combination of levels that the matrix spans and `exclude` leaves out."""

    overrides: tuple[str, ...]
    factors: Mapping[str, Any]
    by: str  # the expression that did it


@dataclass(frozen=True)
class Matrix:
    """What a command spans: the cells that run, as given, and what was left out of them."""

    cells: Sequence[Cell]  # at least one
    excluded: Sequence[Excluded] = ()


@dataclass(frozen=True)
class Planned:
    """One trial in its place. `directory` is relative to the sweep's."""

    cell: Cell
    name: str
    directory: str
    trial: int
    attempt: int
    block: int
    position: int

    @property
    def trial_id(self) -> str:
        """The name of this execution of its cell."""
        return pipeline.trial_id(self.cell.cell_id, self.trial)

    @property
    def job(self) -> Job:
        """What is run: the cell's job as this trial."""
        return replace(self.cell.job, trial=self.trial)

    @property
    def values(self) -> dict[str, Any]:
        """The configuration of this trial, as it was checked."""
        return {**self.cell.values, "trial": self.trial}

    def as_event(self) -> dict[str, Any]:
        """The ledger's line for it."""
        return {
            "event": "planned",
            "trial_id": self.trial_id,
            "cell_id": self.cell.cell_id,
            "trial": self.trial,
            "attempt": self.attempt,
            "block": self.block,
            "position": self.position,
            "name": self.name,
            "dir": self.directory,
            "overrides": list(self.cell.overrides),
        }


def matrix_id(cells: Sequence[Cell], seed: int) -> str:
    """Equal for two sweeps of the same cells and seed, whatever the order of the cells.

    The seed is no part of a cell, but a simulated trial of another seed is another trial.
    """
    return content_id({"cells": sorted(cell.cell_id for cell in cells), "seed": seed})


def plan_trials(
    cells: Sequence[Cell], trials: Sequence[int], order: str, seed: int, earlier: Earlier | None
) -> list[Planned]:
    """What is to be run, in order: all of it, or what an earlier sweep lacks or must run again."""
    named = names(cells)
    done = earlier.done if earlier else {}
    position = earlier.positions if earlier else 0
    every = [pipeline.trial_id(cell.cell_id, trial) for trial in trials for cell in cells]
    numbers = _numbers(every, earlier)
    plan: list[Planned] = []
    ordered, first = _in_order(cells, trials, order, seed), _first_block(earlier, cells)
    for block, trial, cell in ordered:
        trial_id = pipeline.trial_id(cell.cell_id, trial)
        before = done.get(trial_id)
        if before is not None and before.counts:
            continue
        if before is None:
            attempt, directory = 1, numbers[trial_id]
        else:
            attempt = before.next_attempt
            directory = f"{before.directory}/attempt-{attempt}"
        position += 1
        where = block + first, position
        plan.append(Planned(cell, named[cell.cell_id], directory, trial, attempt, *where))
    return plan


def _in_order(
    cells: Sequence[Cell], trials: Sequence[int], order: str, seed: int
) -> list[tuple[int, int, Cell]]:
    """As `order_trials`, within the shapes that a cluster is given for them."""
    return shapes.in_shapes(
        cells,
        seed,
        shuffled=order != "as_given",
        order=lambda some: order_trials(some, trials, order, seed),
    )


def _first_block(earlier: Earlier | None, cells: Sequence[Cell]) -> int:
    """How far blocks are numbered already: a shape that is built again is another stretch of time.

    There were not more blocks than trials.
    """
    if earlier is None or not any(shapes.is_built(cell) for cell in cells):
        return 0
    return earlier.positions


def _numbers(trial_ids: Sequence[str], earlier: Earlier | None) -> dict[str, str]:
    """Directories as the matrix was given, whatever the order of running; none is used twice.

    What an earlier session planned keeps its number, also when it was cut off.
    """
    taken = earlier.taken if earlier else frozenset()
    known = earlier.planned if earlier else {}
    free = count(max(len(trial_ids), *(number + 1 for number in taken), 0))
    return {
        trial_id: known.get(trial_id) or str(number if number not in taken else next(free))
        for number, trial_id in enumerate(trial_ids)
    }


def order_trials(
    cells: Sequence[Cell], trials: Sequence[int], order: str, seed: int
) -> list[tuple[int, int, Cell]]:
    """(block, trial, cell) in running order.

    A block is one trial of every cell; an order without blocks makes the whole sweep block 1.
    """
    if order == "as_given":
        return [(1, trial, cell) for cell in cells for trial in trials]
    if order == "shuffled":
        every = [(1, trial, cell) for trial in trials for cell in cells]
        random.Random(f"{seed}/order").shuffle(every)
        return every
    ordered = []
    for trial in trials:
        block = [(trial, trial, cell) for cell in cells]
        # Keyed by trial, so that asking for more trials later does not reorder earlier blocks.
        random.Random(f"{seed}/order/{trial}").shuffle(block)
        ordered += block
    return ordered


def names(cells: Sequence[Cell]) -> dict[str, str]:
    """cell_id -> what differs from the other cells, short: "r5 q10"."""
    varied = [
        key
        for key, levels in factor_levels([cell.factors for cell in cells]).items()
        if len(levels) > 1
    ]
    return {
        cell.cell_id: " ".join(_part(key, cell.factors.get(key)) for key in varied) or cell.label
        for cell in cells
    }


def _part(key: str, level: Any) -> str:
    if level is None:
        level = "?"
    if key in _SHORT:
        return f"{_SHORT[key]}{level}"
    return str(level) if key in _BY_LEVEL_ALONE else f"{key.rpartition('.')[2]}={level}"


def factor_levels(trials: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Every factor of these trials or cells with its different levels, in the order given."""
    keys = dict.fromkeys(key for factors in trials for key in factors)
    # By text: a level may be a list, and 1 is not True.
    return {
        key: list({str(level): level for level in (f.get(key) for f in trials)}.values())
        for key in keys
    }
