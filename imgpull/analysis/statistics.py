"""What few trials say: a cell's number with its interval, the ratio of two cells, and how sure.

Hides the choice of method. Trial statistics are positive and right-skewed, so intervals are
Student's t on their logs; a bootstrap of five values covers far less than it claims.
docs/statistics.md has the measured coverage.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

ALPHA = 0.05
CONFIDENCE = 1 - ALPHA
BOOTSTRAP_FROM = 20  # below, a percentile bootstrap is too narrow (5 values: 84 % instead of 95 %)
TOO_FEW = "too few trials to tell"
AT_LEAST, AT_MOST, UNKNOWN = "at_least", "at_most", "unknown"
_NO_SPREAD = 1e-9  # of logs: files keep twelve digits, what is below is rounding
_ORDERS = 4_000  # tied values are tried in all orders, if no more: up to 7 against 7

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A cell's number over its trials; `low` and `high` are None where nothing tells them."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Ratio:
    """After / before with its 95 % interval; None is what cannot be told.

    `p` is the t test's, `rank_p` the exact rank test's. `bound` is "" for a ratio that is known,
    "at_least" or "at_most" where one side is known only from below, "unknown" where both are.
    """

    ratio: float | None
    low: float | None
    high: float | None
    n_before: int
    n_after: int
    paired: bool
    p: float | None
    note: str = ""
    rank_p: float | None = None
    bound: str = ""

    @property
    def enough(self) -> bool:
        """Whether so many trials could have shown a difference at all."""
        return reachable(self.n_before, self.n_after, paired=self.paired)


@dataclass(frozen=True)
class Reading:
    """A trial's number; `at_least`: it is known only from below (censored, or off a histogram)."""

    value: float
    at_least: bool = False


def mean(values: Sequence[float] | Floats) -> float:
    """The geometric mean of what is known; the plain one where a value is 0; NaN of none."""
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan
    return float(found.mean() if (found <= 0).any() else np.exp(np.log(found).mean()))


def estimate(values: Sequence[float]) -> Estimate:
    """The geometric mean of trials with a t interval on the log; NaN of none.

    Values of zero have no log: their mean, with a percentile bootstrap from 20 trials on.
    """
    found = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    n = len(found)
    if n == 0:
        return Estimate(math.nan, None, None, 0)
    if (found <= 0).any():
        return _plain_mean(found)
    logs = np.log(found)
    middle = float(logs.mean())
    value = math.exp(middle)
    if n < 2:
        return Estimate(value, None, None, n)
    if np.ptp(logs) < _NO_SPREAD:
        return Estimate(value, value, value, n)
    from scipy import special  # scipy.stats takes three times as long to load

    reach = float(special.stdtrit(n - 1, 1 - ALPHA / 2) * logs.std(ddof=1)) / math.sqrt(n)
    return Estimate(value, math.exp(middle - reach), math.exp(middle + reach), n)


def _plain_mean(found: Floats) -> Estimate:
    mean, n = float(found.mean()), len(found)
    if n < BOOTSTRAP_FROM or np.ptp(found) == 0:
        return Estimate(mean, None, None, n)
    from scipy import stats

    done = stats.bootstrap(
        (found,), np.mean, confidence_level=CONFIDENCE, method="percentile", rng=0
    )
    interval = done.confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), n)


def compare(
    before: Sequence[float], after: Sequence[float], *, paired: bool, ranks: bool = True
) -> Ratio:
    """After / before. `paired`: the values at one place belong together, by block or shared luck.

    Pairs: a t test of the differences of logs. Others: Welch's, for spreads need not be alike.
    `ranks`: the rank test beside it too, which takes a hundred times as long.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if paired and len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values are no pairs")
    sizes = (len(first), len(second), paired)
    if not len(first) or not len(second):
        return Ratio(None, None, None, *sizes, None, "no number on one side")
    if not all(np.isfinite(side).all() and (side > 0).all() for side in (first, second)):
        return Ratio(None, None, None, *sizes, None, "zero or unknown values have no ratio")
    logs = np.log(first), np.log(second)
    log_ratio = float(logs[1].mean() - logs[0].mean())
    ratio = math.exp(log_ratio)
    if min(len(first), len(second)) < 2:
        return Ratio(ratio, None, None, *sizes, None, TOO_FEW)
    low, high, p = t_interval(*logs, paired=paired, log_ratio=log_ratio)
    rank_p = _rank_p(*logs, paired=paired) if ranks else None
    found = Ratio(ratio, math.exp(low), math.exp(high), *sizes, p, rank_p=rank_p)
    return replace(found, note=_note(found))


def t_interval(
    first: Floats, second: Floats, *, paired: bool, log_ratio: float
) -> tuple[float, float, float]:
    """The limits of a log ratio, and p. Without any spread there is nothing to test against.

    As scipy.stats' ttest_rel and ttest_ind (Welch's), which take long to load and much longer to
    run. One side without any spread is met among simulated trials; its variance of 0 is right.
    """
    spread = np.ptp(second - first) if paired else max(np.ptp(first), np.ptp(second))
    if spread < _NO_SPREAD:
        return log_ratio, log_ratio, float(abs(log_ratio) < _NO_SPREAD)
    from scipy import special

    parts = [second - first] if paired else [first, second]
    squares = [float(part.var(ddof=1)) / len(part) for part in parts]
    spare = sum(squares) ** 2 / sum(
        s**2 / (len(p) - 1) for s, p in zip(squares, parts, strict=True)
    )
    error = math.sqrt(sum(squares))
    reach = error * float(special.stdtrit(spare, 1 - ALPHA / 2))
    p = 2 * float(special.stdtr(spare, -abs(log_ratio) / error))
    return log_ratio - reach, log_ratio + reach, p


def by_block(cells: Sequence[Sequence[tuple[Hashable, float]]]) -> Floats:
    """One value a block, whose mean is that of the cells' means; `cells` have (block, value).

    Where each cell has one trial in each block, a block's mean. Else what its trials add to the
    cells' means (cluster-robust variance). A single value where a cell has one trial.
    """
    means = [math.fsum(value for _, value in cell) / len(cell) for cell in cells]
    middle = math.fsum(means) / len(means)
    if min(map(len, cells)) < 2:
        return np.asarray([middle])
    added: dict[Hashable, float] = {}
    for cell, mean in zip(cells, means, strict=True):
        weight = 1 / (len(cells) * math.sqrt(len(cell) * (len(cell) - 1)))
        for block, value in cell:
            added[block] = added.get(block, 0.0) + weight * (value - mean)
    blocks = len(added)
    return middle + math.sqrt(blocks * (blocks - 1)) * np.asarray(list(added.values()))


def _note(found: Ratio) -> str:
    if not found.enough:
        return TOO_FEW
    assert found.p is not None
    own = smallest_rank_p(found.n_before, found.n_after, paired=found.paired) < ALPHA
    if own and found.rank_p is not None and (found.p < ALPHA) != (found.rank_p < ALPHA):
        return f"the rank test differs (p {found.rank_p:.2g})"
    return ""


def smallest_rank_p(n_before: int, n_after: int, *, paired: bool) -> float:
    """The smallest two-sided p that an exact rank test of so many trials can give."""
    return 2 / 2**n_before if paired else 2 / math.comb(n_before + n_after, n_before)


def reachable(n_before: int, n_after: int, *, paired: bool) -> bool:
    """Whether a rank test could give p < 0.05 at all: 4 trials a side, or 6 pairs.

    Of fewer pairs the test without pairs still can; it errs to the safe side when they are alike.
    """
    unpaired = smallest_rank_p(n_before, n_after, paired=False) < ALPHA
    return unpaired or (paired and smallest_rank_p(n_before, n_after, paired=True) < ALPHA)


def _rank_p(first: Floats, second: Floats, *, paired: bool) -> float | None:
    """Wilcoxon's signed-rank p of pairs, if it can be small; else Mann and Whitney's.

    Exact, except of many tied values: the normal approximation with its correction for ties.
    """
    from scipy import stats

    if paired and smallest_rank_p(len(first), len(second), paired=True) < ALPHA:
        differences = second - first
        differences[abs(differences) < _NO_SPREAD] = 0.0
        if not differences.any():
            return 1.0
        sizes = np.append(abs(differences), 0.0)
        signed = stats.wilcoxon(differences, method=_way(sizes, 2 ** len(differences)))
        return float(signed.pvalue)
    both = np.concatenate([first, second])
    if np.ptp(both) < _NO_SPREAD:
        return 1.0
    orders = math.comb(len(both), len(first))
    summed = stats.mannwhitneyu(second, first, method=_way(both, orders))
    return float(summed.pvalue)


def _way(values: Floats, orders: int) -> Any:
    """How scipy finds the p of these values."""
    from scipy import stats

    if len(np.unique(values)) == len(values):
        return "exact"
    return "asymptotic" if orders > _ORDERS else stats.PermutationMethod(n_resamples=_ORDERS)


def compare_readings(
    before: Sequence[Reading], after: Sequence[Reading], *, paired: bool, ranks: bool = True
) -> Ratio:
    """As `compare`, for trials of which some are known only from below: then a bound, no interval.

    A bound put in place of what it bounds makes its side no larger than it is, so a rank test that
    finds that side larger errs to the safe side. Bounds on both sides tell nothing.
    """
    first, second = [one.value for one in before], [one.value for one in after]
    open_before = any(one.at_least for one in before)
    open_after = any(one.at_least for one in after)
    if not open_before and not open_after:
        return compare(first, second, paired=paired, ranks=ranks)
    sizes = (len(first), len(second), paired)
    if not first or not second or min(*first, *second) <= 0:
        return Ratio(None, None, None, *sizes, None, "cannot tell", bound=UNKNOWN)
    if open_before and open_after:
        note = "cannot tell: both are known only from below"
        return Ratio(None, None, None, *sizes, None, note, bound=UNKNOWN)
    logs = np.log(first), np.log(second)
    log_ratio = float(logs[1].mean() - logs[0].mean())
    known = min(len(first), len(second)) > 1 and reachable(len(first), len(second), paired=False)
    toward = log_ratio > 0 if open_after else log_ratio < 0
    rank_p = _rank_p(*logs, paired=False) if known and toward else None
    return Ratio(
        math.exp(log_ratio), None, None, *sizes, None, "" if known else TOO_FEW, rank_p,
        bound=AT_LEAST if open_after else AT_MOST,
    )  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of one family, corrected by Holm's method; never smaller than they were.

    Holm, A simple sequentially rejective multiple test procedure, 1979; as statsmodels has it.
    """
    found = np.asarray(p_values, dtype=float)
    order = np.argsort(found, kind="stable")
    raised = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    corrected = np.empty_like(found)
    corrected[order] = np.minimum(raised, 1.0)
    return [float(p) for p in corrected]
