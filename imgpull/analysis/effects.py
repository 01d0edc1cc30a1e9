"""What each factor does: main effects by least squares on the log scale, then cells one by one.

Hides which cells an effect is taken from (all that differ in that factor alone), which level it is
counted from, and which cell the others are held against.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from imgpull.analysis.cells import factors, level_of, levels, varied
from imgpull.analysis.interactions import interactions
from imgpull.analysis.least_squares import (
    HEADLINE,
    Model,
    Trials,
    alike,
    gather,
    ordered_levels,
    told_factors,
)
from imgpull.analysis.pairing import pair_column
from imgpull.analysis.readings import by_cell, compare_groups, readings_of
from imgpull.analysis.statistics import (
    ALPHA,
    AT_LEAST,
    TOO_FEW,
    UNKNOWN,
    Ratio,
    compare_readings,
    estimate,
    holm,
    reachable,
)
from imgpull.analysis.wording import cell_text

__all__ = ["CellEffect", "Effect", "against_reference", "effects", "estimates", "interactions"]

ONE_TRIAL = "one trial a cell carries no interval"


@dataclass(frozen=True)
class Effect:
    """What going from one level of a factor to another does, all else equal; None is unknown.

    `trials` of a cell, the fewest; `pairs` is how many times the two levels were compared. `bound`
    is as a Ratio's: where no comparison is exact, `ratio` may be "at least" or "at most".
    """

    factor: str
    start: Any
    end: Any
    ratio: float | None
    low: float | None
    high: float | None
    trials: int
    paired: bool
    p: float | None
    note: str = ""
    pairs: int = 0
    bound: str = ""

    @property
    def sure(self) -> bool:
        """Whether "no change" is left out: of an interval, or by the rank test of a bound."""
        if self.bound:
            return self.p is not None and self.p < ALPHA
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


@dataclass(frozen=True)
class CellEffect:
    """A cell against the reference cell; `p` is corrected by Holm's method over all of them."""

    cell: str
    reference: str
    against: Ratio
    p: float | None


def effects(frame: pd.DataFrame, column: str = HEADLINE) -> list[Effect]:
    """One effect for each level of each factor against its first; of words: the fastest to pull.

    Factors that always move together are one, under the first one's name. Cells in which a trial
    is known only from below are left out, and the note says so; where no others are, they make
    the effect a bound.
    """
    found = gather(frame, column)
    if found is None:
        return []
    model = Model(found)
    return [
        effect
        for factor in told_factors(found)
        for effect in _of_factor(frame, found, model, factor)
    ]


def estimates(frame: pd.DataFrame, column: str = HEADLINE) -> pd.DataFrame:
    """One row per cell: its number with interval (NaN where unknown), n, and `at_least`.

    Where a trial is known only from below, `value` is NaN and `at_least` is what the cell is over.
    """
    names = factors(frame)
    rows = [
        {
            "cell_id": group["cell_id"].iloc[0],
            "name": group["name"].iloc[0],
            **{name: group[name].iloc[0] for name in names},
            **estimate_of(group[group["counts"]], column),
        }
        for _, group in by_cell(frame)
    ]
    columns = ["cell_id", "name", *names, "value", "low", "high", "at_least", "n"]
    numbers = dict.fromkeys(("value", "low", "high", "at_least"), "float64")
    return pd.DataFrame(rows, columns=columns).astype(numbers)


def estimate_of(counted: pd.DataFrame, column: str) -> dict[str, float | int | None]:
    """The number of one cell's trials that count, as `estimates` has it."""
    readings = readings_of(counted, column)
    exact = estimate([one.value for one in readings])
    open_end = any(one.at_least for one in readings)
    return {
        "value": math.nan if open_end else exact.value,
        "low": None if open_end else exact.low,
        "high": None if open_end else exact.high,
        "at_least": exact.value if open_end else None,
        "n": len(readings),
    }


def against_reference(frame: pd.DataFrame, column: str = HEADLINE) -> list[CellEffect]:
    """Every cell against the one that has each factor at its first level, Holm over the family.

    The intervals are each by itself. No choice by result: the fastest cell of many is partly lucky.
    """
    keys = varied(frame)
    counted = frame[frame["counts"]]
    order = {key: levels(counted[key]) for key in keys}
    groups = sorted(
        (group for _, group in by_cell(counted)),
        key=lambda group: [order[key].index(level_of(group[key].iloc[0])) for key in keys],
    )
    if len(groups) < 2:
        return []
    first, *others = groups
    label = pair_column(counted)
    ratios = [compare_groups(first, other, column, label) for other in others]
    known = [ratio.p for ratio in ratios if ratio.p is not None]
    corrected = iter(holm(known))
    return [
        CellEffect(
            cell_text(other.iloc[0], keys),
            cell_text(first.iloc[0], keys),
            ratio,
            None if ratio.p is None else next(corrected),
        )
        for other, ratio in zip(others, ratios, strict=True)
    ]


def _of_factor(frame: pd.DataFrame, found: Trials, model: Model, factor: str) -> Iterator[Effect]:
    start, *others = ordered_levels(frame[frame["counts"]], factor)
    for end in others:
        pairs = alike(found.cells, factor, start, end)
        told = [pair for pair in pairs if max(pair) < found.exact]
        if not pairs:
            continue
        sizes = found.sizes
        trials = min(sizes[place] for pair in told or pairs for place in pair)
        if not told:
            yield _bounded(
                Effect(factor, start, end, None, None, None, trials, False, None), found, pairs
            )
            continue
        value, low, high, p = model.change(told)
        effect = Effect(
            factor, start, end, math.exp(value), _exp(low), _exp(high), trials, found.paired,
            None if math.isnan(p) else p, pairs=len(told),
        )  # fmt: skip
        yield replace(effect, note=_note(effect, len(pairs) - len(told), sizes, told))


def _bounded(plain: Effect, found: Trials, pairs: Sequence[tuple[int, int]]) -> Effect:
    """The mean of bounds that all point one way, as sure as the least sure of them."""
    sides = [(found.readings[start], found.readings[end]) for start, end in pairs]
    ratios = [compare_readings(first, second, paired=False) for first, second in sides]
    mean = math.exp(sum(math.log(one.ratio or 1.0) for one in ratios) / len(ratios))
    (bound, *others) = {one.bound for one in ratios}
    toward = mean > 1 if bound == AT_LEAST else mean < 1
    if others or bound == UNKNOWN or not toward:
        return replace(plain, note="cannot tell: some trials are known only from below")
    tested = [one.rank_p for one in ratios]
    known = [p for p in tested if p is not None]
    return replace(
        plain,
        ratio=mean,
        p=max(known) if len(known) == len(tested) else None,
        note="" if all(one.enough for one in ratios) else TOO_FEW,
        pairs=len(pairs),
        bound=bound,
    )


def _note(
    effect: Effect, left_out: int, sizes: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> str:
    before = sum(sizes[start] for start in {start for start, _ in pairs})
    after = sum(sizes[end] for end in {end for _, end in pairs})
    notes = []
    if effect.p is None:
        notes.append(ONE_TRIAL if effect.trials < 2 else TOO_FEW)
    elif not reachable(before, after, paired=False):
        notes.append(TOO_FEW)
    if left_out:
        notes.append(f"{left_out} of {left_out + len(pairs)} comparisons known only as bounds")
    return "; ".join(notes)


def _exp(value: float) -> float | None:
    return None if math.isnan(value) else math.exp(value)
