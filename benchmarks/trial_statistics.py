"""How often the statistics are right: coverage, false alarms and power on trials of a known truth.

Hides the generator. `python benchmarks/trial_statistics.py` prints the table of docs/statistics.md;
every row has a seed of its own, and the two sides of a comparison share no randomness.
"""

import argparse
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from imgpull.analysis.comparing import FASTER, SAME_WITHIN, SLOWER, verdict_of  # noqa: E402
from imgpull.analysis.gating import Limits, beyond_chance, slowdown  # noqa: E402
from imgpull.analysis.least_squares import Model, Trials  # noqa: E402
from imgpull.analysis.power import SPREAD, detectable, trials_needed  # noqa: E402
from imgpull.analysis.statistics import Reading, compare, estimate  # noqa: E402

SWEEPS = 4_000
# Times as many of what stands close to its limit: 1 %, 90 %.
SAME, DIFFERENT = 10, 25
NODES = 10
NODE_SPREAD = 0.05  # of the log, between the nodes of a trial
SECONDS = 180.0
_TRUTH_TRIALS = 400_000


@dataclass(frozen=True)
class Row:
    """How often something happened, and within what it should."""

    what: str
    trials: str
    share: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.share <= self.high


@dataclass(frozen=True)
class Generator:
    """Trials of one cell: a trial's p50 over ten nodes that share the trial's luck.

    A trial's luck is log-normal, or gamma; `spread` is the standard deviation of the log of the p50
    between trials, of which the nodes' own part is taken off the luck.
    """

    spread: float = 0.10
    skewed: bool = False  # gamma instead of log-normal

    def trials(self, rng: np.random.Generator, n: int, slowdown: float = 0.0) -> np.ndarray:
        """The p50 (nearest rank, the fifth of ten) of n trials, s."""
        luck = self._luck(rng, n)
        nodes = np.exp(rng.normal(0.0, NODE_SPREAD, (n, NODES)))
        p50 = np.partition(nodes, NODES // 2 - 1, axis=1)[:, NODES // 2 - 1]
        return SECONDS * (1 + slowdown) * luck * p50

    def _luck(self, rng: np.random.Generator, n: int) -> np.ndarray:
        # 0.151 is the variance of the fifth of ten standard normal values (by simulation).
        sigma = math.sqrt(max(self.spread**2 - 0.151 * NODE_SPREAD**2, 0.0))
        if self.skewed:
            return rng.gamma(1 / sigma**2, sigma**2, n)
        return np.exp(rng.normal(0.0, sigma, n))

    def expectation(self) -> float:
        """The statistic's expectation over trials, from very many of them."""
        return float(self.trials(_rng("truth", self), _TRUTH_TRIALS).mean())


def _rng(*parts: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))


def rows(sweeps: int = SWEEPS) -> Iterator[Row]:
    """Every figure, in the order of the table."""
    for part in PARTS.values():
        yield from part(sweeps)


def coverage(sweeps: int) -> Iterator[Row]:
    """A cell's interval holds the statistic's expectation over trials."""
    for skewed, spread in ((False, 0.05), (False, 0.10), (False, 0.20), (True, 0.10)):
        generator = Generator(spread, skewed)
        truth = generator.expectation()
        for n in (3, 5, 10):
            rng = _rng("coverage", generator, n)

            def holds(rng: np.random.Generator = rng, n: int = n) -> bool:
                found = estimate(generator.trials(rng, n).tolist())  # noqa: B023
                return found.low <= truth <= found.high  # type: ignore[operator]  # noqa: B023

            luck = "gamma" if skewed else "log-normal"
            what = f"a cell's interval holds the truth ({luck}, spread {spread:.0%})"
            yield Row(what, str(n), _share(holds, sweeps), 0.93, 0.97)


def ratio_coverage(sweeps: int) -> Iterator[Row]:
    """The interval of a ratio holds the true ratio, unpaired, paired, and of a whole factor."""
    generator = Generator()
    for n in (3, 5, 10):
        for paired in (False, True):
            rng = _rng("ratio", n, paired)

            def holds(rng: np.random.Generator = rng, n: int = n, paired: bool = paired) -> bool:
                weather = np.exp(rng.normal(0, 0.2, n)) if paired else 1.0
                before = generator.trials(rng, n) * weather
                after = generator.trials(rng, n, 0.2) * weather
                found = compare(before.tolist(), after.tolist(), paired=paired, ranks=False)
                return found.low <= 1.2 <= found.high  # type: ignore[operator]

            what = f"a ratio's interval holds +20 % ({'pairs' if paired else 'no pairs'})"
            # Welch's degrees of freedom are too few of three trials: wider than asked for.
            yield Row(what, str(n), _share(holds, sweeps), 0.93, 0.98)
    for n in (2, 5):
        rng = _rng("factor", n)
        what = "a factor's interval holds +20 % (2x2x3 cells in blocks)"
        yield Row(what, str(n), _share(lambda: _factor(rng, n), sweeps // 2), 0.93, 0.97)  # noqa: B023


def _factor(rng: np.random.Generator, n: int) -> bool:
    """Twelve cells of which every other one is 20 % slower; each block has its weather."""
    cells = 12
    weather = np.exp(rng.normal(0, 0.2, n))
    logs = np.log(
        np.concatenate(
            [Generator().trials(rng, n, 0.2 * (place % 2)) * weather for place in range(cells)]
        )
    )
    cell = [place for place in range(cells) for _ in range(n)]
    found = Trials(logs, cell, list(range(n)) * cells, [], [n] * cells, cells, True)
    _, low, high, _ = Model(found).change([(place, place + 1) for place in range(0, cells, 2)])
    return low <= math.log(1.2) <= high


def false_alarms(sweeps: int) -> Iterator[Row]:
    """Two sides of the same truth: a verdict of slower or faster, or a gate that stops."""
    for n in (5, 8, 10):
        alarms, stopped_at_all, stopped = _judged(Generator(), n, 0.0, SAME * sweeps, 0.0)
        yield Row("A/A: compare says slower or faster", str(n), alarms, 0, 0.06)
        yield Row("A/A: gate stops, no minimum effect", str(n), stopped_at_all, 0, 0.06)
        yield Row("A/A: gate stops", str(n), stopped, 0, 0.01)
    for spread in (0.05, 0.15, 0.2):  # unlike what is expected
        _, _, stopped = _judged(Generator(spread), 5, 0.0, SAME * sweeps, 0.0)
        yield Row(f"A/A: gate stops, trials differ by {spread:.0%}", "5", stopped, 0, 0.06)
    _, _, stopped = _judged(Generator(0.2), 5, 0.0, SAME * sweeps, 0.0, expected=0.2)
    what = "A/A: gate --spread 20% stops, trials differ by 20%"
    yield Row(what, "5", stopped, 0, 0.01)


def slowdowns_found(sweeps: int) -> Iterator[Row]:
    """One planned comparison of a true slowdown, at a spread of 10 %."""
    for slower, n in ((0.2, 8), (0.3, 5)):
        found, at_all, default = _judged(Generator(), n, slower, DIFFERENT * sweeps, 0.10)
        yield Row(f"compare finds a true +{slower:.0%}", str(n), found, 0.9, 1)
        what = f"gate --max-regression 10% finds a true +{slower:.0%}"
        yield Row(f"{what}, no minimum effect", str(n), at_all, 0.9, 1)
        yield Row(what, str(n), default, 0.9, 1)


def _judged(
    generator: Generator,
    n: int,
    slower: float,
    sweeps: int,
    max_regression: float,
    expected: float = SPREAD,
) -> tuple[float, float, float]:
    """How often compare says slower or faster, and the gate stops without and with its minimum."""
    rng = _rng("gate", generator, n, slower)
    alarms = at_all = stopped = 0
    for _ in range(sweeps):
        before, after = _readings(generator, rng, n), _readings(generator, rng, n, slower)
        found = slowdown(before, after, paired=False, ranks=False)
        over = found.ratio is not None and found.ratio > 1 + max_regression
        verdict = verdict_of(found, found.p, SAME_WITHIN)[0]
        alarms += verdict == SLOWER or (verdict == FASTER and not slower)
        at_all += over and beyond_chance([found], Limits(max_regression, 0.0))[0]
        stopped += over and beyond_chance([found], Limits(max_regression, None, expected))[0]
    return alarms / sweeps, at_all / sweeps, stopped / sweeps


def power(sweeps: int) -> Iterator[Row]:
    """What the plan promises with 80 % power is found so often, with and without pairs."""
    generator = Generator()
    for paired in (False, True):
        how = "pairs" if paired else "no pairs"
        for n in (5, 10):
            smallest = detectable(generator.spread, n, paired)
            assert smallest is not None
            what = f"compare finds the plan's smallest difference, +{smallest:.1%} ({how})"
            share = _found(generator, n, smallest, sweeps, paired)
            yield Row(what, str(n), share, 0.76, 0.84)
        needed = trials_needed(0.10, generator.spread, paired)
        assert needed is not None
        what = f"compare finds +10% with the trials of target_effect=10% ({how})"
        share = _found(generator, needed, 0.10, sweeps, paired)
        yield Row(what, str(needed), share, 0.78, 0.86)


def _found(generator: Generator, n: int, slower: float, sweeps: int, paired: bool) -> float:
    rng = _rng("power", n, slower, paired)

    def slower_is_said() -> bool:
        before, after = _readings(generator, rng, n), _readings(generator, rng, n, slower)
        return _verdict(before, after, paired) == SLOWER

    return _share(slower_is_said, 2 * sweeps)


def _readings(
    generator: Generator, rng: np.random.Generator, n: int, slower: float = 0.0
) -> list[Reading]:
    return [Reading(float(value)) for value in generator.trials(rng, n, slower)]


def _verdict(before: list[Reading], after: list[Reading], paired: bool) -> str:
    found = slowdown(before, after, paired=paired, ranks=False)
    return verdict_of(found, found.p, SAME_WITHIN)[0]


def _share(happens: Callable[[], bool], sweeps: int) -> float:
    return sum(happens() for _ in range(sweeps)) / sweeps


PARTS = {
    "coverage": coverage,
    "ratios": ratio_coverage,
    "false_alarms": false_alarms,
    "slowdowns": slowdowns_found,
    "power": power,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=SWEEPS)
    parser.add_argument("--part", choices=PARTS, help="default: all")
    asked = parser.parse_args()
    sweeps = asked.sweeps
    print(f"| {sweeps} simulated sweeps each | trials | found | wanted | |")
    print("|---|---:|---:|---:|---|")
    missed = 0
    for row in PARTS[asked.part](sweeps) if asked.part else rows(sweeps):
        mark = "" if row.holds else "MISSED"
        missed += not row.holds
        wanted = f"{100 * row.low:.0f} to {100 * row.high:.0f} %"
        print(
            f"| {row.what} | {row.trials} | {100 * row.share:.1f} % | {wanted} | {mark} |",
            flush=True,
        )
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
