"""Whether a side is slower than its baseline by more than is accepted: what a release waits for.

Hides the test: one-sided at 2.5 %, against the minimum effect instead of against no change, Holm
over the cells, and a mean above the limit. Exit statuses are design 4.8's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from imgpull.analysis.acknowledging import Acknowledged
from imgpull.analysis.comparing import CellPair, Comparison, compare_sides
from imgpull.analysis.comparison_text import closing, effect_text, heading, interval_text
from imgpull.analysis.power import detectable, spread_of
from imgpull.analysis.sides import Side
from imgpull.analysis.statistics import (
    ALPHA,
    AT_LEAST,
    AT_MOST,
    TOO_FEW,
    Ratio,
    Reading,
    compare_readings,
    holm,
)
from imgpull.analysis.wording import change

PASSED, REGRESSION, CANNOT_TELL = 0, 3, 4  # exit statuses, design 4.8
OK, SLOWER, ACCEPTED, UNKNOWN = "ok", "regression", "acknowledged", "cannot tell"
MIN_EFFECT = 0.03


@dataclass(frozen=True)
class Limits:
    """What is let through: a mean slowdown up to `max_regression`; noise up to `min_effect`."""

    max_regression: float
    min_effect: float = MIN_EFFECT


@dataclass(frozen=True)
class Judged:
    """A cell at the gate: `outcome` is ok, regression, acknowledged or cannot tell."""

    name: str
    outcome: str
    message: str


@dataclass(frozen=True)
class Gate:
    """What the gate says; `remarks` name entries that expired or covered nothing, and new cells."""

    comparison: Comparison
    cells: Sequence[Judged]
    remarks: Sequence[str]

    @property
    def status(self) -> int:
        """3 for a regression, else 4 when a cell cannot be told, else 0."""
        outcomes = {cell.outcome for cell in self.cells}
        if SLOWER in outcomes:
            return REGRESSION
        return CANNOT_TELL if UNKNOWN in outcomes else PASSED


def gate(
    baseline: Side,
    after: Side,
    *,
    measurement: str,
    limits: Limits,
    allow: Collection[str] = (),
    acknowledged: Sequence[Acknowledged] = (),
    today: date,
) -> Gate:
    """Hold every cell of the baseline against the other side; Unlike when they may not be.

    A cell that the other side lacks, or whose trials there all failed, cannot be told: a release
    that breaks the test must not pass for want of numbers.
    """
    found = compare_sides(baseline, after, measurement=measurement, allow=allow, strict=True)
    slowdowns, tested = (
        [
            slowdown(
                *cell.readings,
                paired=cell.ratio.paired,
                more_is_worse=found.quantity.more_is_worse,
                times=times,
            )
            for cell in found.cells
        ]
        for times in (1.0, 1 + limits.min_effect)
    )
    sure = beyond_chance(tested)
    open_entries = [entry for entry in acknowledged if entry.expires >= today]
    used: set[int] = set()
    judged = []
    for cell, slower, yes in zip(found.cells, slowdowns, sure, strict=True):
        plain = _judged(cell, slower, yes, limits)
        judged.append(_accepted(cell, slower, plain, open_entries, measurement, used))
    judged += [Judged(name, UNKNOWN, "not on the other side") for name in found.only_before]
    expired = [entry for entry in acknowledged if entry.expires < today]
    remarks = [f"expired, counts no more: {entry.text}" for entry in expired]
    remarks += [
        f"acknowledges no regression found here: {entry.text}"
        for place, entry in enumerate(open_entries)
        if place not in used
    ]
    remarks += [f"not in the baseline, not judged: {name}" for name in found.only_after]
    return Gate(found, judged, remarks)


def slowdown(
    before: Sequence[Reading],
    after: Sequence[Reading],
    *,
    paired: bool,
    more_is_worse: bool = True,
    times: float = 1.0,
) -> Ratio:
    """How much slower the other side is than `times` the baseline."""
    good, bad = (before, after) if more_is_worse else (after, before)
    raised = [Reading(one.value * times, one.at_least) for one in good]
    return compare_readings(raised, bad, paired=paired)


def beyond_chance(tested: Sequence[Ratio]) -> list[bool]:
    """Which slowdowns are beyond chance, one-sided at 2.5 %, Holm over the cells."""
    one_sided = [_one_sided(ratio) for ratio in tested]
    corrected = iter(holm([p for p in one_sided if p is not None]))
    return [p is not None and next(corrected) < ALPHA / 2 for p in one_sided]


def _one_sided(ratio: Ratio) -> float | None:
    p = ratio.rank_p if ratio.bound else ratio.p
    if p is None or ratio.ratio is None or not ratio.enough or ratio.bound == AT_MOST:
        return None
    return p / 2 if ratio.ratio > 1 else 1 - p / 2


def _judged(cell: CellPair, slower: Ratio, sure: bool, limits: Limits) -> Judged:
    name = cell.name or "all"
    text = f"{effect_text(cell.ratio)} {interval_text(cell.ratio)}".removesuffix(" -")
    limit = f"limit {change(limits.max_regression)}"
    if slower.ratio is None:
        return Judged(name, UNKNOWN, cell.ratio.note or "no number")
    if not slower.enough:
        return Judged(name, UNKNOWN, f"{text}: {TOO_FEW}")
    over = slower.ratio > 1 + limits.max_regression
    if sure and over:
        return Judged(name, SLOWER, f"{text}, {limit}")
    if slower.bound == AT_LEAST or (slower.bound == AT_MOST and over):
        return Judged(name, UNKNOWN, f"{text}: only a bound is known")
    if sure:
        return Judged(name, OK, f"{text}: slower, within the {limit}")
    return Judged(name, OK, f"{text}: no regression shown{_could(cell, limits)}")


def _could(cell: CellPair, limits: Limits) -> str:
    """What the trials could have shown, where that is more than the limit."""
    sides = [[one.value for one in side] for side in cell.readings]
    if cell.ratio.paired:
        ratios = [b / a for a, b in zip(*sides, strict=True)]
        found = spread_of([ratios])
        spread = None if found is None else found / 2**0.5
    else:
        spread = spread_of(sides)
    smallest = detectable(spread, min(map(len, sides)), cell.ratio.paired) if spread else None
    if smallest is None or smallest <= limits.max_regression:
        return ""
    return f"; so few trials would miss less than {change(smallest)} one time in five and more"


def _accepted(
    cell: CellPair,
    slower: Ratio,
    judged: Judged,
    entries: Sequence[Acknowledged],
    measurement: str,
    used: set[int],
) -> Judged:
    """The same, acknowledged if an entry covers it; notes which entry that was."""
    if judged.outcome != SLOWER or slower.ratio is None:
        return judged
    for place, entry in enumerate(entries):
        if entry.covers(cell.all_levels, measurement, slower.ratio - 1):
            used.add(place)
            return Judged(judged.name, ACCEPTED, f"{judged.message}; acknowledged: {entry.text}")
    return judged


def lines(found: Gate) -> list[str]:
    """What differs, the cells with the worst first, the remarks, and the answer."""
    order = (SLOWER, UNKNOWN, ACCEPTED, OK)
    cells = sorted(found.cells, key=lambda cell: order.index(cell.outcome))
    counts = {word: sum(cell.outcome == word for cell in cells) for word in order}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    answer = {PASSED: "passed", REGRESSION: "regression", CANNOT_TELL: "cannot tell"}
    return [
        *heading(found.comparison),
        *(f"{cell.outcome}: {cell.name}: {cell.message}" for cell in cells),
        *(f"note: {remark}" for remark in found.remarks),
        *closing(found.comparison)[-2:],
        f"gate: {answer[found.status]} ({found.comparison.quantity.text}: {told})",
    ]
