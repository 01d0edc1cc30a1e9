"""How small a difference so many trials can show, and how many trials a difference takes.

Hides the power of the t tests of `statistics.py`, exactly: two-sided at 5 %, found in 80 of 100
sweeps; and what trials without any difference show by chance.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from imgpull.analysis.statistics import ALPHA, reachable

POWER = 0.8
# ASSUMPTION: trials of a cell on a shared cloud differ by 10 %, until some were seen to differ.
SPREAD = 0.10
MOST_TRIALS = 1000
_PARTS = 64  # of the distribution of the share; the power is then right to four digits


def detectable(spread: float, trials: int, paired: bool = False) -> float | None:
    """The smallest slowdown (0.2 is +20 %) that so many trials a side show with 80 % power.

    `spread` is the standard deviation of the log between a cell's trials, about their relative
    spread. Pairs are taken to share nothing, which errs to the safe side. None: too few trials.
    """
    if trials < 2 or not reachable(trials, trials, paired=paired):
        return None
    from scipy.optimize import brentq

    def missing(size: float) -> float:
        return _power(size, trials, paired) - POWER

    # In standard errors of the difference: 1 is found by far too few, 10 by nearly all.
    size = float(brentq(missing, 1.0, 10.0, xtol=1e-6))
    return math.expm1(size * math.sqrt(2 / trials) * spread)


def _power(size: float, trials: int, paired: bool) -> float:
    """How often a slowdown of `size` standard errors is called one: noncentral t.

    Welch's degrees of freedom depend on how unlike the two sample variances u : 1 - u are. Their
    share u is Beta((n - 1) / 2, (n - 1) / 2) and independent of their sum, so given u the statistic
    is noncentral t with 2 n - 2 degrees of freedom against the critical value of Welch's.
    """
    from scipy import special

    spare = trials - 1
    if paired:
        return 1 - float(special.nctdtr(spare, size, special.stdtrit(spare, 1 - ALPHA / 2)))
    quantiles = (np.arange(_PARTS) + 0.5) / _PARTS
    u = special.betaincinv(spare / 2, spare / 2, quantiles)
    critical = special.stdtrit(spare / (u**2 + (1 - u) ** 2), 1 - ALPHA / 2)
    return 1 - float(np.mean(special.nctdtr(2 * spare, size, critical)))


def by_chance(before: int, after: int, spread: float, share: float) -> float:
    """The slowdown that so many trials a side without any show in a `share` of comparisons."""
    from scipy import special

    error = spread * math.sqrt(1 / before + 1 / after)
    return math.expm1(float(-special.ndtri(share)) * error)


def trials_needed(effect: float, spread: float = SPREAD, paired: bool = False) -> int | None:
    """The fewest trials a side that show a slowdown of `effect` (0.1 is +10 %) with 80 % power.

    None when a thousand would not do.
    """
    if effect <= 0:
        raise ValueError(f"an effect of {effect} is no slowdown")

    def enough(trials: int) -> bool:
        smallest = detectable(spread, trials, paired)
        return smallest is not None and smallest <= effect

    if not enough(MOST_TRIALS):
        return None
    low, high = 1, MOST_TRIALS  # never enough, always enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def spread_of(cells: Iterable[Sequence[float]]) -> float | None:
    """The pooled standard deviation of the log within cells; None when no cell has two trials."""
    squares, spare = 0.0, 0
    for values in cells:
        logs = np.log([value for value in values if value > 0])
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            spare += len(logs) - 1
    return math.sqrt(squares / spare) if spare else None
