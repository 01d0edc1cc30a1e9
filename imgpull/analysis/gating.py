"""Whether a side is slower than its baseline by more than is accepted: what a release waits for.

Hides the rule: a mean above the limit, one-sided at 5 %, Holm over the cells, and above the minimum
effect, which is what chance alone shows once in a hundred. Exit statuses are design 4.8's.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

from imgpull.analysis.acknowledging import Acknowledged
from imgpull.analysis.comparing import CellPair, Comparison, compare_sides
from imgpull.analysis.comparison_text import closing, effect_text, heading, interval_text
from imgpull.analysis.power import SPREAD, by_chance, detectable, spread_of
from imgpull.analysis.sides import Quantity, Side, directed, quantity
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
from imgpull.errors import ConfigError

PASSED, REGRESSION, CANNOT_TELL = 0, 3, 4  # exit statuses, design 4.8
OK, SLOWER, ACCEPTED, UNKNOWN = "ok", "regression", "acknowledged", "cannot tell"
# One false alarm in a hundred: trials that differ by the spread that is expected show the minimum
# effect in 0.95 of a hundred; in the rest their own spread alone leaves no doubt.
CHANCE, NO_DOUBT = 0.0095, 0.0005
_OFTEN = 0.8416  # standard errors that leave four in five on one side


@dataclass(frozen=True)
class Limits:
    """What is let through: a mean slowdown up to `max_regression`, and what may be noise.

    `min_effect` None: what trials that differ by `spread` show by chance.
    """

    max_regression: float
    min_effect: float | None = None
    spread: float = SPREAD

    def least(self, slower: Ratio, family: int = 1) -> float:
        """The mean slowdown that is no noise, of one cell of so many."""
        if self.min_effect is not None:
            return self.min_effect
        return by_chance(slower.n_before, slower.n_after, self.spread, CHANCE / family)


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

    CannotTell when no cell is on both, or no trial counts; ConfigError for a count.
    A cell that the other side lacks, or whose trials there all failed, cannot be told: a release
    that breaks the test must not pass for want of numbers.
    """
    worse = quantity(measurement, (baseline, after)).more_is_worse
    if worse is None:
        raise ConfigError(
            f"'{measurement}' has no direction: more of it is neither slower nor faster",
            hint=f"gate one of {', '.join(directed((baseline, after)))}",
        )
    found = compare_sides(baseline, after, measurement=measurement, allow=allow, strict=True)
    slowdowns = [
        slowdown(*cell.readings, paired=cell.ratio.paired, more_is_worse=worse)
        for cell in found.cells
    ]
    sure = beyond_chance(slowdowns, limits)
    open_entries = [entry for entry in acknowledged if entry.expires >= today]
    used: set[int] = set()
    judged = []
    for cell, slower, yes in zip(found.cells, slowdowns, sure, strict=True):
        plain = _judged(cell, slower, yes, limits)
        judged.append(_accepted(cell, slower, plain, open_entries, found.quantity, used))
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
    ranks: bool = True,
) -> Ratio:
    """How much slower the other side is than the baseline."""
    good, bad = (before, after) if more_is_worse else (after, before)
    return compare_readings(good, bad, paired=paired, ranks=ranks)


def beyond_chance(slowdowns: Sequence[Ratio], limits: Limits) -> list[bool]:
    """Which slowdowns are no noise: one-sided at 5 %, Holm over the cells, and large enough."""
    one_sided = [_one_sided(ratio) for ratio in slowdowns]
    known = [p for p in one_sided if p is not None]
    corrected = iter(holm(known))
    found = []
    for ratio, p in zip(slowdowns, one_sided, strict=True):
        p = None if p is None else next(corrected)
        if p is None or ratio.ratio is None:
            found.append(False)
            continue
        large = ratio.ratio > 1 + limits.least(ratio, len(known))
        no_doubt = limits.min_effect is None and p < NO_DOUBT
        found.append(no_doubt or (p < ALPHA and large))
    return found


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
    least = limits.least(slower)
    if over and slower.ratio <= 1 + least:
        return Judged(name, OK, f"{text}: so few trials show {change(least)} by chance")
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
    trials = min(map(len, sides))
    smallest = detectable(spread, trials, cell.ratio.paired) if spread else None
    if smallest is None or spread is None:
        return ""
    if limits.min_effect is None and not cell.ratio.paired:
        least = math.log1p(limits.least(cell.ratio)) + _OFTEN * spread * (2 / trials) ** 0.5
        smallest = max(smallest, math.expm1(least))
    if smallest <= limits.max_regression:
        return ""
    return f"; so few trials would miss less than {change(smallest)} one time in five and more"


def _accepted(
    cell: CellPair,
    slower: Ratio,
    judged: Judged,
    entries: Sequence[Acknowledged],
    what: Quantity,
    used: set[int],
) -> Judged:
    """The same, acknowledged if an entry covers it; notes which entry that was."""
    if judged.outcome != SLOWER or slower.ratio is None:
        return judged
    for place, entry in enumerate(entries):
        if entry.covers(cell.all_levels, what, slower.ratio - 1):
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
