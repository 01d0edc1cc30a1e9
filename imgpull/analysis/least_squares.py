"""Least squares of a sweep on the log scale: a mean for each cell, and for each block cells share.

Hides the design and its error, which is what trials of one cell differ by: an effect that is not
the same everywhere does not widen its own interval. Simulated cells that share their luck repeat
each other: there a block is one observation, however many cells it holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from imgpull.analysis.cells import level_of, levels, varied
from imgpull.analysis.pairing import pair_column
from imgpull.analysis.readings import by_cell, readings_of, with_number
from imgpull.analysis.statistics import ALPHA, Floats, Reading, estimate, t_interval

if TYPE_CHECKING:
    import pandas as pd

HEADLINE = "image_pull_p50_s"
_NO_SPREAD = 1e-9  # of logs


@dataclass(frozen=True)
class Trials:
    """The logs of the trials that enter, which cell and block each belongs to, and all cells.

    Cells of which a trial is known only from below come last and have no logs here.
    """

    logs: Floats
    cell: list[int]
    block: list[Any]
    cells: list[dict[str, Any]]  # the levels of each cell, and its engine
    sizes: list[int]  # trials of each cell
    exact: int  # so many cells are known
    paired: bool
    shared_luck: bool = False  # simulated: what a block does to one cell it does to others
    readings: Sequence[Sequence[Reading]] = ()  # of each cell, bounds among them


def gather(frame: pd.DataFrame, column: str) -> Trials | None:
    """What enters the model; None when fewer than two cells have a number."""
    counted = frame[frame["counts"]]
    label = pair_column(counted)
    known: list[tuple[dict[str, Any], list[Reading], list[Any]]] = []
    bounded: list[tuple[dict[str, Any], list[Reading], list[Any]]] = []
    keys = varied(frame)
    for _, group in by_cell(counted):
        told = with_number(group, column)
        readings = readings_of(told, column)
        if not readings or min(one.value for one in readings) <= 0:
            continue
        place = {key: level_of(group[key].iloc[0]) for key in keys}
        blocks = list(told[label]) if label else [None] * len(readings)
        side = bounded if any(one.at_least for one in readings) else known
        side.append((place, readings, blocks))
    if len(known) + len(bounded) < 2:
        return None
    cell = [place for place, (_, readings, _) in enumerate(known) for _ in readings]
    block = [key for _, _, blocks in known for key in blocks]
    return Trials(
        np.asarray([math.log(one.value) for _, readings, _ in known for one in readings]),
        cell,
        block,
        _told_apart([place for place, _, _ in (*known, *bounded)]),
        [len(readings) for _, readings, _ in (*known, *bounded)],
        len(known),
        label is not None and connected(cell, block, len(known)),
        bool((counted["engine"] == "sim").all()),
        [readings for _, readings, _ in (*known, *bounded)],
    )


def _told_apart(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells without the factors that are constant or move along with an earlier one."""
    kept: list[str] = []
    # Engine first: what only moves along with it cannot be told from a rehearsal's difference.
    for key in sorted(cells[0], key=lambda key: key != "engine"):
        own = [str(cell[key]) for cell in cells]
        if len(set(own)) > 1 and not any(_together(own, cells, first) for first in kept):
            kept.append(key)
    return [{key: cell[key] for key in kept} for cell in cells]


def _together(own: Sequence[str], cells: Sequence[Mapping[str, Any]], first: str) -> bool:
    other = [str(cell[first]) for cell in cells]
    return len(set(zip(own, other, strict=True))) == len(set(own)) == len(set(other))


def connected(cell: Sequence[int], block: Sequence[Any], cells: int) -> bool:
    """Whether blocks can be told from cells: at least two, each linked to all others by cells."""
    blocks = list(dict.fromkeys(block))
    if len(blocks) < 2:
        return False
    design = _dummies(cell, range(cells))
    design = np.hstack([design, _dummies(block, blocks)])
    return int(np.linalg.matrix_rank(design)) == cells + len(blocks) - 1


def _dummies(values: Sequence[Any], known: Sequence[Any]) -> Floats:
    places = {level: place for place, level in enumerate(known)}
    found = np.zeros((len(values), len(places)))
    for row, value in enumerate(values):
        if value in places:
            found[row, places[value]] = 1.0
    return found


class Model:
    """Least squares of the logs: a mean for each cell, and one for each block but the first."""

    def __init__(self, found: Trials) -> None:
        cells = found.exact
        self._found = found
        design = _dummies(found.cell, range(cells))
        blocks = list(dict.fromkeys(found.block))[1:] if found.paired else []
        self._blocks = _dummies(found.block, blocks) if blocks else np.empty((len(design), 0))
        design = np.hstack([design, self._blocks])
        self.spare = len(design) - design.shape[1]  # degrees of freedom of the error
        self._means: Floats | None = None
        if cells and self.spare > 0:
            # statsmodels' OLS fits the same and takes longer to load than a report's effects take.
            self._means = np.asarray(np.linalg.lstsq(design, found.logs, rcond=None)[0], float)
            self._error = _rest(design, found.logs) / self.spare
            self._spread = np.linalg.pinv(design.T @ design)
        self._width = design.shape[1]
        self._simple = [
            float(found.logs[[one == place for one in found.cell]].mean()) for place in range(cells)
        ]

    def change(self, pairs: Sequence[tuple[int, int]]) -> tuple[float, float, float, float]:
        """The mean change of logs from one cell to another: value, low, high, p (NaN: unknown)."""
        if self._found.paired and self._found.shared_luck:
            told = self._by_block(pairs)
            if told is not None:
                return told
        if self._means is None:
            mean = float(np.mean([self._simple[b] - self._simple[a] for a, b in pairs]))
            return mean, math.nan, math.nan, math.nan
        contrast = np.zeros(self._width)
        for start, end in pairs:
            contrast[end] += 1 / len(pairs)
            contrast[start] -= 1 / len(pairs)
        value = float(contrast @ self._means)
        if self._error < _NO_SPREAD**2:
            return value, value, value, float(abs(value) < _NO_SPREAD)
        from scipy import special

        error = math.sqrt(self._error * float(contrast @ self._spread @ contrast))
        reach = error * float(special.stdtrit(self.spare, 1 - ALPHA / 2))
        p = 2 * float(special.stdtr(self.spare, -abs(value) / error))
        return value, value - reach, value + reach, p

    def _by_block(
        self, pairs: Sequence[tuple[int, int]]
    ) -> tuple[float, float, float, float] | None:
        """The same from one mean change a block, as cells that share their luck repeat each other.

        None when fewer than two blocks hold all these cells.
        """
        found = self._found
        places = zip(found.cell, found.block, strict=True)
        logs = {place: float(log) for place, log in zip(places, found.logs, strict=True)}
        used = {place for pair in pairs for place in pair}
        blocks = [
            block
            for block in dict.fromkeys(found.block)
            if all((place, block) in logs for place in used)
        ]
        if len(blocks) < 2:
            return None
        means = np.asarray(
            [np.mean([logs[end, one] - logs[start, one] for start, end in pairs]) for one in blocks]
        )
        value = float(means.mean())
        return value, *t_interval(np.zeros_like(means), means, paired=True, log_ratio=value)

    def product_p(self, found: Trials, one: str, other: str) -> float | None:
        """The p of an F test of two factors' product; None where it cannot be tested."""
        if self._means is None or self._error < _NO_SPREAD**2:
            return None
        alone = [self._of(found, (key,)) for key in found.cells[0]]
        smaller = np.hstack([self._blocks, np.ones((len(found.logs), 1)), *alone])
        larger = np.hstack([smaller, self._of(found, (one, other))])
        from scipy import special

        ranks = [int(np.linalg.matrix_rank(design)) for design in (smaller, larger)]
        if ranks[0] == ranks[1]:
            return None
        squares = [_rest(design, found.logs) for design in (smaller, larger)]
        explained = (squares[0] - squares[1]) / (ranks[1] - ranks[0])
        ratio = explained / self._error
        return float(special.fdtrc(ranks[1] - ranks[0], self.spare, ratio))

    @staticmethod
    def _of(found: Trials, keys: Sequence[str]) -> Floats:
        values = [tuple(found.cells[place][key] for key in keys) for place in found.cell]
        return _dummies(values, list(dict.fromkeys(values)))


def _rest(design: Floats, logs: Floats) -> float:
    """The squares that a design leaves unexplained."""
    fitted = design @ np.linalg.lstsq(design, logs, rcond=None)[0]
    return float(((logs - fitted) ** 2).sum())


def told_factors(found: Trials) -> list[str]:
    """The factors that can be told apart; engines are no factor: one is a rehearsal of another."""
    return [key for key in found.cells[0] if key != "engine"]


def ordered_levels(frame: pd.DataFrame, factor: str) -> list[Any]:
    """Numbers ascending; of words the fastest to pull first, by the geometric mean of trials."""
    known = levels(frame[factor])
    if not any(isinstance(level, str) for level in known) or HEADLINE not in frame.columns:
        return known
    speeds = frame[HEADLINE].astype(float)
    mean = {
        level: estimate(
            list(speeds[[level_of(one) == level for one in frame[factor]]].dropna())
        ).value
        for level in known
    }
    return sorted(known, key=lambda level: (math.isnan(mean[level]), mean[level]))


def alike(
    cells: Sequence[Mapping[str, Any]], factor: str, start: Any, end: Any
) -> list[tuple[int, int]]:
    """Places of cells that are at `start` and `end` of a factor and alike in all others."""
    of_start, of_end = (
        {
            tuple(str(level) for key, level in cell.items() if key != factor): place
            for place, cell in enumerate(cells)
            if cell[factor] == wanted
        }
        for wanted in (start, end)
    )
    return [(place, of_end[rest]) for rest, place in of_start.items() if rest in of_end]
