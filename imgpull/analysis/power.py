"""How small a difference so many trials can show, and how many trials a difference takes.

Hides the power of a t test on the log scale: two-sided at 5 %, found in 80 of 100 sweeps.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from imgpull.analysis.statistics import ALPHA, reachable

POWER = 0.8
# ASSUMPTION: trials of a cell on a shared cloud differ by 10 %, until some were seen to differ.
SPREAD = 0.10
MOST_TRIALS = 1000


def detectable(spread: float, trials: int, paired: bool = False) -> float | None:
    """The smallest slowdown (0.2 is +20 %) that so many trials a side show with 80 % power.

    `spread` is the standard deviation of the log between a cell's trials, about their relative
    spread. Pairs are taken to share nothing, which errs to the safe side. None: too few trials.
    """
    if trials < 2 or not reachable(trials, trials, paired=paired):
        return None
    from statsmodels.stats.power import TTestIndPower, TTestPower

    if paired:
        size = TTestPower().solve_power(nobs=trials, alpha=ALPHA, power=POWER) * math.sqrt(2)
    else:
        size = TTestIndPower().solve_power(nobs1=trials, alpha=ALPHA, power=POWER)
    return math.expm1(float(size) * spread)


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
