"""The heat map of the matrix: a table whose shades follow its numbers.

Hides the scale of the shades: logarithmic from the smallest number to the largest, because what
matters between cells is a ratio; none where nothing shows a cell to be above the smallest. The
number stands in every cell, so no shade is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from imgpull.analysis.layout import Layout
from imgpull.analysis.pairing import pair_column
from imgpull.analysis.report.story import (
    MEASURES,
    CellView,
    Measure,
    ratio_of,
    titled,
    told_more,
)
from imgpull.analysis.wording import number

MAX_CELLS = 240  # of a heat map; the table below it has all
NO_CHANGE = 0.005  # is said to be "0 %" and gets no shade
DARKEST = 1.25  # times the smallest number at least: a small difference shall look small


@dataclass(frozen=True)
class Square:
    """A cell of the map; `shade` is 0 to 100, None where nothing is known."""

    view: CellView
    text: str
    interval: str
    shade: int | None
    best: bool
    mark: str  # what its trials came to, where not all are valid


@dataclass(frozen=True)
class HeatMap:
    """One measure over the matrix."""

    measure: Measure
    title: str
    rows: tuple[tuple[str, tuple[Square | None, ...]], ...]
    columns: tuple[str, ...]
    across: str  # what the columns are, "" for one column
    down: str
    low: str
    high: str


def heat_maps(
    frame: pd.DataFrame,
    layout: Layout,
    views: Sequence[CellView],
    measures: Sequence[Measure] = MEASURES,
) -> list[HeatMap]:
    """A map of each measure that some cell has; none where there are too many cells."""
    if len(views) > MAX_CELLS:
        return []
    known = [
        measure
        for measure in measures
        if any(view.numbers[measure.column].value is not None for view in views)
    ]
    return [_map(frame, layout, views, measure) for measure in known]


def _map(
    frame: pd.DataFrame, layout: Layout, views: Sequence[CellView], measure: Measure
) -> HeatMap:
    found = {view.numbers[measure.column].value for view in views}
    values = sorted(value for value in found if value is not None)
    low, high = values[0], values[-1]
    best = low if measure.lower_is_better else high
    # Different engines share no scale, and where all are alike none is best.
    comparable = frame["engine"].nunique() == 1 and high > low
    smallest = next(view for view in views if view.numbers[measure.column].value == low)
    label = pair_column(frame[frame["counts"]])
    grid: dict[str, dict[str, Square]] = {}
    for view in views:
        row = view.rows.index[0]
        own = view.numbers[measure.column]
        grid.setdefault(layout.place[row], {})[layout.hue[row]] = Square(
            view,
            own.text,
            own.interval,
            _shade(view, smallest, measure, high, label),
            comparable and own.value == best,
            "" if set(view.rows["verdict"]) == {"valid"} else view.verdicts,
        )
    columns = tuple(layout.hues) or ("",)
    rows = tuple((place, tuple(line.get(hue) for hue in columns)) for place, line in grid.items())
    return HeatMap(
        measure, titled(measure, frame), rows, columns, layout.legend, layout.axis,
        number(low), number(high),
    )  # fmt: skip


def _shade(
    view: CellView, smallest: CellView, measure: Measure, high: float, label: str | None
) -> int | None:
    value, low = (one.numbers[measure.column].value for one in (view, smallest))
    if value is None or low is None:
        return None
    if low <= 0:
        return round(100 * (value - low) / (high - low)) if high > low else 0
    if value / low - 1 < NO_CHANGE:
        return 0
    ratio = ratio_of(smallest, view, measure, label)
    if ratio.low is not None and not told_more(ratio):
        return 0
    return round(100 * math.log(value / low) / math.log(max(high / low, DARKEST)))
