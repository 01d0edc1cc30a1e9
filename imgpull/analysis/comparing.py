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
from imgpull.analysis.settings import other_settings, with_levels
from imgpull.analysis.sides import CannotTell, Quantity, Side, Trial, quantity
from imgpull.analysis.statistics import (
    ALPHA,
    AT_LEAST,
    AT_MOST,
    Estimate,
    Ratio,
    Reading,
    by_block,
    compare_readings,
    estimate,
    holm,
    t_interval,
)
from imgpull.analysis.wording import level_text

Keyed = tuple[int, Reading]  # with the block of its trial, or its number

SLOWER, FASTER, SAME, INCONCLUSIVE = "slower", "faster", "same", "inconclusive"
MORE, LESS = "more", "less"  # of counts
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
    overall: Ratio | None  # the mean change over the cells known on both sides
    overall_cells: int


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
    before, after = with_levels(before, keys), with_levels(after, keys)
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
        *mean_change(pairs, what, paired=bool(why)),
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


def _no_common_cell(before: Side, after: Side, keys: Sequence[str]) -> CannotTell:
    apart = []
    for key in keys:
        own = [
            {level_text(trial.levels.get(key)) for trial in side.trials} for side in (before, after)
        ]
        if not own[0] & own[1]:
            first, second = (" and ".join(sorted(levels)) for levels in own)
            apart.append(f"{key} is {first} in one, {second} in the other")
    return CannotTell(
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


def _keyed(trials: Iterable[Trial], what: Quantity) -> list[Keyed]:
    """The numbers that count, each with what its trial shares with others."""
    counted = [(_key(trial), what.of(trial)) for trial in trials if trial.record.counts]
    return [(key, reading) for key, reading in counted if reading is not None]


def _matched(
    first: Sequence[Keyed], second: Sequence[Keyed]
) -> tuple[list[Keyed], list[Keyed]] | None:
    """Both sides put in pairs; None where nothing pairs them."""
    places = shared([key for key, _ in first], [key for key, _ in second])
    return ([first[a] for a, _ in places], [second[b] for _, b in places]) if places else None


def _readings(
    pair: Pair, what: Quantity, paired: bool
) -> tuple[list[Reading], list[Reading], bool]:
    """The numbers of both sides, in pairs where that may be, and whether they are."""
    sides = _keyed(pair[0], what), _keyed(pair[1], what)
    matched = _matched(*sides) if paired else None
    first, second = matched or sides
    return [one for _, one in first], [one for _, one in second], matched is not None


def _cell(pair: Pair, what: Quantity, keys: Sequence[str], paired: bool) -> CellPair:
    first, second, together = _readings(pair, what, paired)
    ratio = compare_readings(first, second, paired=together)
    levels = pair[0][0].levels
    return CellPair(
        {key: levels.get(key) for key in keys},
        levels,
        estimate([one.value for one in first]),
        estimate([one.value for one in second]),
        (any(one.at_least for one in first), any(one.at_least for one in second)),
        ratio, None, INCONCLUSIVE, None, (first, second),
    )  # fmt: skip


def _judge(
    cells: Sequence[CellPair], same_within: float, more_is_worse: bool | None
) -> list[CellPair]:
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
    ratio: Ratio, p: float | None, same_within: float, *, more_is_worse: bool | None = True
) -> tuple[str, float | None]:
    """Slower, faster, same (and within how much) or inconclusive; `p` is the corrected one.

    More or less where `more_is_worse` is None.
    """
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
    if more_is_worse is None:
        return (MORE if grew else LESS), None
    return (SLOWER if grew == more_is_worse else FASTER), None


def mean_change(pairs: Sequence[Pair], what: Quantity, *, paired: bool) -> tuple[Ratio | None, int]:
    """The mean change over the cells known on both sides, and how many; None of fewer than two.

    Cells of one block share its stretch of time, so a block is one observation of each side, or
    of both where blocks are pairs.
    """
    sides = [(_keyed(first, what), _keyed(second, what)) for first, second in pairs]
    known = [pair for pair in sides if all(map(_exact, pair))]
    if len(known) < 2:
        return None, len(known)
    matched = [found for pair in known if (found := _matched(*pair))] if paired else []
    together = len(matched) == len(known)
    if together:
        changes = [
            [
                (key, _log(after) - _log(before))
                for (key, before), (_, after) in zip(*both, strict=True)
            ]
            for both in matched
        ]
        second = by_block(changes)
        first = np.zeros_like(second)
        sizes = [sum(map(len, changes))] * 2
    else:
        logs = [_by_key([pair[side] for pair in known]) for side in (0, 1)]
        first, second = map(by_block, logs)
        sizes = [sum(map(len, cells)) for cells in logs]
    value = float(second.mean() - first.mean())
    plain = Ratio(math.exp(value), None, None, sizes[0], sizes[1], together, None)
    if min(len(first), len(second)) < 2:
        return plain, len(known)
    low, high, p = t_interval(first, second, paired=together, log_ratio=value)
    return replace(plain, low=math.exp(low), high=math.exp(high), p=p), len(known)


def _exact(readings: Sequence[Keyed]) -> bool:
    return bool(readings) and all(not one.at_least and one.value > 0 for _, one in readings)


def _log(reading: Reading) -> float:
    return math.log(reading.value)


def _by_key(cells: Sequence[Sequence[Keyed]]) -> list[list[tuple[int, float]]]:
    """The logs by block; by their order where a cell has two in one, as an order without blocks."""
    repeated = any(len({key for key, _ in cell}) < len(cell) for cell in cells)
    return [
        [(place if repeated else key, _log(one)) for place, (key, one) in enumerate(cell)]
        for cell in cells
    ]
