"""Two sides compared: cells paired by their factors, each with effect, interval and verdict.

Hides how cells find each other and when a difference is called one. A factor that has one level on
each side, and not the same, is what is being compared; cells pair by all others.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from imgpull.analysis.cells import FACTOR_ORDER, unknown
from imgpull.analysis.likeness import Difference, Pair, other_versions, require_alike, unlike
from imgpull.analysis.pairing import shared
from imgpull.analysis.settings import other_settings
from imgpull.analysis.sides import Quantity, Side, Trial, quantity
from imgpull.analysis.statistics import (
    ALPHA,
    AT_LEAST,
    AT_MOST,
    Estimate,
    Ratio,
    Reading,
    compare_readings,
    estimate,
    holm,
)
from imgpull.analysis.wording import level_text
from imgpull.errors import ReportError

SLOWER, FASTER, SAME, INCONCLUSIVE = "slower", "faster", "same", "inconclusive"
SAME_WITHIN = 0.05  # an interval within so much of no change is called the same


@dataclass(frozen=True)
class CellPair:
    """A cell on both sides; `p` is corrected by Holm's method over all cells.

    `within` is how far from no change its interval reaches, where the verdict is "same".
    """

    levels: Mapping[str, Any]  # of the factors that vary among the cells
    all_levels: Mapping[str, Any]
    before: Estimate
    after: Estimate
    bounded: tuple[bool, bool]  # whether the estimate of a side is only a bound from below
    ratio: Ratio
    p: float | None
    verdict: str
    within: float | None
    readings: tuple[Sequence[Reading], Sequence[Reading]]

    @property
    def name(self) -> str:
        """What sets the cell apart, "nodes 10, replicas 5"."""
        return ", ".join(f"{key} {level_text(level)}" for key, level in self.levels.items())


@dataclass(frozen=True)
class Comparison:
    """What came of it. `differences` are all that differs on purpose or by leave."""

    before: Side
    after: Side
    quantity: Quantity
    differences: Sequence[Difference]
    cells: Sequence[CellPair]
    only_before: Sequence[str]
    only_after: Sequence[str]
    paired: str  # why trials are pairs; "" when they are not
    overall: Ratio | None  # the mean change over all cells


def compare_sides(
    before: Side,
    after: Side,
    *,
    measurement: str,
    allow: Collection[str] = (),
    same_within: float = SAME_WITHIN,
    strict: bool = False,
) -> Comparison:
    """Compare the cells that both sides have; `strict` refuses unlike factors too.

    Unlike when the fingerprints differ in a field that `allow` does not name.
    """
    what = quantity(measurement, (before, after))
    keys = _keys((before, after))
    moved = _moved(before, after, keys)
    matched = [key for key in keys if key not in {one.field for one in moved}]
    groups = [_grouped(side, matched) for side in (before, after)]
    both = [key for key in groups[0] if key in groups[1]]
    if not both:
        raise _no_common_cell(before, after, matched)
    pairs: list[Pair] = [(groups[0][key], groups[1][key]) for key in both]
    found = unlike(pairs)
    names = {name for pair in pairs for one in chain(*pair) for name in one.record.fingerprint}
    require_alike([*found, *(moved if strict else ())], allow, {*names, *keys})
    shown = [key for key in matched if _varies((before, after), key)]
    why = _pairs_why(before, after)
    cells = _judge(
        [_cell(pair, what, shown, bool(why)) for pair in pairs], same_within, what.more_is_worse
    )
    return Comparison(
        before, after, what,
        [*moved, *found, *other_versions(pairs), *other_settings(pairs, [*moved, *found])],
        sorted(cells, key=lambda cell: [_rank(cell.levels[key]) for key in shown]),
        _names(groups[0], groups[1], shown),
        _names(groups[1], groups[0], shown),
        why if any(cell.ratio.paired for cell in cells) else "",
        _overall(pairs, what, bool(why)),
    )  # fmt: skip


def _keys(sides: Iterable[Side]) -> list[str]:
    found = {key for side in sides for trial in side.trials for key in trial.levels}
    known = [key for key in FACTOR_ORDER if key in found]
    return known + sorted(found - {*known})


def _moved(before: Side, after: Side, keys: Iterable[str]) -> list[Difference]:
    """The factors with one level on each side, and not the same."""
    found = []
    for key in keys:
        own = [
            {level_text(trial.levels.get(key)) for trial in side.trials} for side in (before, after)
        ]
        if all(len(levels) == 1 for levels in own) and own[0] != own[1]:
            found.append(Difference(key, own[0].pop(), own[1].pop()))
    return found


def _grouped(side: Side, keys: Sequence[str]) -> dict[tuple[str, ...], list[Trial]]:
    found: dict[tuple[str, ...], list[Trial]] = {}
    for trial in side.trials:
        levels = trial.levels
        found.setdefault(tuple(level_text(levels.get(key)) for key in keys), []).append(trial)
    return found


def _no_common_cell(before: Side, after: Side, keys: Sequence[str]) -> ReportError:
    apart = []
    for key in keys:
        own = [
            {level_text(trial.levels.get(key)) for trial in side.trials} for side in (before, after)
        ]
        if not own[0] & own[1]:
            first, second = (" and ".join(sorted(levels)) for levels in own)
            apart.append(f"{key} is {first} in one, {second} in the other")
    return ReportError(
        f"no cell is on both sides: {'; '.join(apart) or 'no combination of levels is shared'}",
        hint="compare sweeps that share cells, or single trials' directories",
    )


def _varies(sides: Iterable[Side], key: str) -> bool:
    return len({level for side in sides for level in _levels(side, key)}) > 1


def _levels(side: Side, key: str) -> set[str]:
    return {level_text(trial.levels.get(key)) for trial in side.trials}


def _rank(level: Any) -> tuple[bool, float, str]:
    """Numbers ascending, then words."""
    number = isinstance(level, int | float) and not unknown(level)
    return not number, float(level) if number else 0.0, level_text(level)


def _names(
    these: Mapping[tuple[str, ...], list[Trial]],
    others: Mapping[tuple[str, ...], list[Trial]],
    keys: Sequence[str],
) -> list[str]:
    alone = [trials[0].levels for key, trials in these.items() if key not in others]
    return [", ".join(f"{key} {level_text(one.get(key))}" for key in keys) for one in alone]


def _pairs_why(before: Side, after: Side) -> str:
    """Why trials of the two sides belong together; "" when they do not."""
    trials = [*before.counted, *after.counted]
    if len({(trial.record.engine, trial.record.seed) for trial in trials}) == 1:
        if trials[0].record.engine == "sim":
            return (
                f"common random numbers: simulated with seed {trials[0].record.seed} on both sides"
            )
        if _sweep(before) == _sweep(after):
            return "blocks, for both are of one sweep"
    return ""


def _sweep(side: Side) -> Any:
    place = side.path.resolve()
    if not (place / "job.json").exists():
        return place
    return place.parent.parent if place.name.startswith("attempt-") else place.parent


def _key(trial: Trial) -> int:
    """What a trial shares with its pair: luck by number, a stretch of time by block."""
    return trial.record.trial if trial.record.engine == "sim" else trial.record.block


def _readings(
    pair: Pair, what: Quantity, paired: bool
) -> tuple[list[Reading], list[Reading], list[Any]]:
    """The numbers of both sides, put in pairs (with their keys) where that may be."""
    sides = []
    for trials in pair:
        counted = [(_key(trial), what.of(trial)) for trial in trials if trial.record.counts]
        sides.append([(key, reading) for key, reading in counted if reading is not None])
    first, second = sides
    places = shared([key for key, _ in first], [key for key, _ in second]) if paired else []
    if places:
        first = [first[a] for a, _ in places]
        second = [second[b] for _, b in places]
    keys = [key for key, _ in first] if places else []
    return [one for _, one in first], [one for _, one in second], keys


def _cell(pair: Pair, what: Quantity, keys: Sequence[str], paired: bool) -> CellPair:
    first, second, places = _readings(pair, what, paired)
    ratio = compare_readings(first, second, paired=bool(places))
    levels = pair[0][0].levels
    return CellPair(
        {key: levels.get(key) for key in keys},
        levels,
        estimate([one.value for one in first]),
        estimate([one.value for one in second]),
        (any(one.at_least for one in first), any(one.at_least for one in second)),
        ratio, None, INCONCLUSIVE, None, (first, second),
    )  # fmt: skip


def _judge(cells: Sequence[CellPair], same_within: float, more_is_worse: bool) -> list[CellPair]:
    tested = [_p(cell.ratio) for cell in cells]
    corrected = iter(holm([p for p in tested if p is not None]))
    family = [None if p is None else next(corrected) for p in tested]
    judged = []
    for cell, p in zip(cells, family, strict=True):
        verdict, within = verdict_of(cell.ratio, p, same_within, more_is_worse=more_is_worse)
        judged.append(replace(cell, p=p, verdict=verdict, within=within))
    return judged


def _p(ratio: Ratio) -> float | None:
    return ratio.rank_p if ratio.bound else ratio.p


def verdict_of(
    ratio: Ratio, p: float | None, same_within: float, *, more_is_worse: bool = True
) -> tuple[str, float | None]:
    """Slower, faster, same (and within how much) or inconclusive; `p` is the corrected one."""
    if ratio.ratio is None or p is None or not ratio.enough:
        return INCONCLUSIVE, None
    if not ratio.bound:
        assert ratio.low is not None
        assert ratio.high is not None
        within = max(ratio.high, 1 / ratio.low) - 1 if ratio.low > 0 else math.inf
        if within <= same_within:
            return SAME, within
    if p >= ALPHA:
        return INCONCLUSIVE, None
    grew = ratio.bound == AT_LEAST or (ratio.bound != AT_MOST and ratio.ratio > 1)
    return (SLOWER if grew == more_is_worse else FASTER), None


def _overall(pairs: Sequence[Pair], what: Quantity, paired: bool) -> Ratio | None:
    """The mean change over the cells that are known on both sides; None for fewer than two."""
    from imgpull.analysis.least_squares import Model, Trials, connected

    logs: list[float] = []
    cell: list[int] = []
    block: list[Any] = []
    steps: list[tuple[int, int]] = []
    together = paired
    for pair in pairs:
        first, second, keys = _readings(pair, what, paired)
        values = [one.value for one in (*first, *second)]
        exact = not any(one.at_least for one in (*first, *second))
        if not first or not second or not exact or min(values) <= 0:
            continue
        start = 2 * len(steps)
        steps.append((start, start + 1))
        logs += [math.log(value) for value in values]
        cell += [start] * len(first) + [start + 1] * len(second)
        block += [*keys, *keys] if keys else [None] * len(values)
        together = together and bool(keys)
    if len(steps) < 2:
        return None
    together = together and connected(cell, block, 2 * len(steps))
    simulated = all(trial.record.engine == "sim" for pair in pairs for trial in pair[0])
    trials = Trials(np.asarray(logs), cell, block, [], [], 2 * len(steps), together, simulated)
    value, low, high, p = Model(trials).change(steps)
    sizes = (cell_count(cell, 0), cell_count(cell, 1))
    if math.isnan(p):
        return Ratio(math.exp(value), None, None, *sizes, together, None)
    return Ratio(math.exp(value), math.exp(low), math.exp(high), *sizes, together, p)


def cell_count(cell: Sequence[int], side: int) -> int:
    """How many trials stand on a side."""
    return sum(place % 2 == side for place in cell)
