"""Trials in the order of the shapes that a cluster is given for them: each shape is built once.

Hides how that is randomised, and what it costs: blocks lie within a shape, so that what differs
between shapes alone cannot be told from the order in which they were built.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from imgpull import engines
from imgpull.config.sweeping import SweepSettings
from imgpull.provisioning import shapes
from imgpull.provisioning.shapes import Shape

if TYPE_CHECKING:
    from imgpull.sweep.plan import Cell

EVENT = "shapes"
Ordered = list[tuple[int, int, "Cell"]]  # (block, trial, cell)


def is_built(cell: "Cell") -> bool:
    """Whether the cell's cluster is built by the sweep."""
    return cell.values.get("provision") == "terraform" and engines.is_real(cell.job)


def shape_of(cell: "Cell") -> Shape | None:
    """The shape that a cell needs; None where nothing is built for it."""
    return shapes.shape_of(cell.job) if is_built(cell) else None


def by_shape(cells: Sequence["Cell"]) -> dict[Shape | None, list["Cell"]]:
    """The cells of each shape, as given; ConfigError when no one cluster can serve them."""
    built = [cell.job for cell in cells if is_built(cell)]
    shapes.check_one_cluster(built)
    found: dict[Shape | None, list[Cell]] = {}
    for cell in cells:
        found.setdefault(shape_of(cell), []).append(cell)
    return found


def in_shapes(
    cells: Sequence["Cell"],
    seed: int,
    *,
    shuffled: bool,
    order: Callable[[Sequence["Cell"]], Ordered],
) -> Ordered:
    """The trials of one shape after the other, each shape's in its own order; no block is in two.

    `order` gives the trials of some cells.
    """
    groups = by_shape(cells)
    if len(groups) <= 1:
        return order(cells)
    turns = list(groups.values())
    if shuffled:
        Random(f"{seed}/shapes").shuffle(turns)
    found: Ordered = []
    first = 0
    for group in turns:
        own = order(group)
        blocks = {block: first + place for place, block in enumerate(_different(own), 1)}
        found += [(blocks[block], trial, cell) for block, trial, cell in own]
        first += len(blocks)
    return found


def _different(trials: Ordered) -> list[int]:
    return list(dict.fromkeys(block for block, _, _ in trials))


@dataclass(frozen=True)
class Turn:
    """A shape, and the cells that run while the cluster has it."""

    shape: Shape
    cells: tuple["Cell", ...]


def turns(running: Iterable["Cell"]) -> list[Turn]:
    """The shapes in the order of these trials' cells; one that comes again is another turn."""
    found: list[tuple[Shape, dict[str, Cell]]] = []
    for cell in running:
        shape = shape_of(cell)
        if shape is None:
            continue
        if not found or found[-1][0] != shape:
            found.append((shape, {}))
        found[-1][1][cell.cell_id] = cell
    return [Turn(shape, tuple(cells.values())) for shape, cells in found]


def confounded(cells: Sequence["Cell"]) -> list[str]:
    """The factors of a matrix that differ between shapes and never within one."""
    groups = [same for shape, same in by_shape(cells).items() if shape is not None]
    keys = dict.fromkeys(key for same in groups for cell in same for key in cell.factors)
    return [key for key in keys if _follows(key, groups)]


def _follows(key: str, groups: Sequence[Sequence["Cell"]]) -> bool:
    levels = [{str(cell.factors.get(key)) for cell in same} for same in groups]
    return all(len(each) == 1 for each in levels) and len(set().union(*levels)) > 1


def events(
    running: Sequence["Cell"], cells: Sequence["Cell"], settings: SweepSettings
) -> list[Mapping[str, Any]]:
    """The ledger's line on the shapes of these trials, and what shapes hide in all of the cells.

    None where nothing is built.
    """
    found = turns(running)
    if not found:
        return []
    order = [
        {"shape": turn.shape.text, "cells": [cell.cell_id for cell in turn.cells]} for turn in found
    ]
    shuffled = settings.order != "as_given"
    hidden = confounded(cells)
    return [{"event": EVENT, "order": order, "shuffled": shuffled, "confounded": hidden}]


def remarks(told: Iterable[Mapping[str, Any]]) -> list[str]:
    """What a reader of the results must know, from the ledger's lines."""
    found = [event for event in told if event.get("event") == EVENT]
    sentences = {
        confounding([str(key) for key in event.get("confounded", ())],
                    shuffled=bool(event.get("shuffled")))
        for event in found[-1:]
    }  # fmt: skip
    return sorted(filter(None, sentences))


def confounding(keys: Sequence[str], *, shuffled: bool) -> str:
    """The sentence on factors that follow the order of provisioning; empty without any."""
    if not keys:
        return ""
    names = " and ".join(keys)
    how = "the order of shapes is shuffled by the seed" if shuffled else "shapes run as given"
    return (
        f"{names} cannot be told from the order of provisioning: each shape of the cluster is "
        f"built once, and its blocks run before the next shape's ({how}); a drift of the cloud "
        f"looks like an effect of {names}, which sweeps with other seeds would show"
    )


def building(
    directory: Path,
    running: Sequence["Cell"],
    settings: SweepSettings,
    lasts_s: float | None,
    announce: Callable[[str], None],
) -> engines.Building | None:
    """What the session needs to build for these trials; None where nothing is built."""
    if settings.provisioning is None or not any(is_built(cell) for cell in running):
        return None
    from imgpull.sweep.forecasting.building import hourly_of

    return engines.Building(
        directory=directory.absolute(),
        lasts_s=lasts_s,
        limit_s=settings.provisioning.limit_s,
        keep=settings.keep,
        done_with=lambda: _is_done_with(directory),
        announce=announce,
        cost=hourly_of,
    )


def _is_done_with(directory: Path) -> bool:
    """Whether the session that is over ran all there was, or may spend no more on it."""
    from imgpull.sweep.ledger import Ledger

    events = Ledger(directory).read()
    begun = max((place for place, e in enumerate(events) if e["event"] == "sweep"), default=-1)
    own = events[begun:] if begun >= 0 else []
    if any(e["event"] == "stopped" and str(e.get("why")).startswith("max_cost=") for e in own):
        return True
    return any(e["event"] == "ended" and e.get("status") == 0 for e in own)
