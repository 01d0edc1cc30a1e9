"""The figures of docs/statistics.md hold: all of them (slow), and a few on fewer sweeps."""

import math
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import trial_statistics as benchmark  # noqa: E402

TEXT = (ROOT / "docs" / "statistics.md").read_text("utf-8")
MOST_ERRORS = 4.0  # standard errors of a share of so many sweeps


@pytest.mark.slow
def test_every_figure_of_the_page_holds_at_its_full_size() -> None:
    for row in benchmark.rows():
        assert row.holds, row
        assert f"| {row.what} | {row.trials} | {100 * row.share:.1f} % |" in TEXT, row


def test_every_figure_that_the_page_quotes_is_within_what_is_wanted() -> None:
    table = re.findall(r"^\| .* \| \d+ \| ([0-9.]+) % \| (\d+) to (\d+) % \| (.*)\|$", TEXT, re.M)
    assert len(table) > 30
    for found, low, high, mark in table:
        assert float(low) <= float(found) <= float(high)
        assert not mark.strip()


@pytest.mark.parametrize(
    ("part", "sweeps"),
    [
        (benchmark.coverage, 300),
        (benchmark.ratio_coverage, 60),
        (benchmark.slowdowns_found, 60),
        (benchmark.power, 60),
    ],
)
def test_fewer_sweeps_agree_within_chance(part, sweeps: int) -> None:  # type: ignore[no-untyped-def]
    for row in part(sweeps):
        error = math.sqrt(0.25 / sweeps) if row.low < 0.5 else math.sqrt(0.2 * 0.8 / sweeps)
        assert row.low - MOST_ERRORS * error <= row.share <= row.high + MOST_ERRORS * error, row


def test_the_two_sides_of_a_comparison_share_no_randomness() -> None:
    rng = benchmark._rng("sides")
    generator = benchmark.Generator()
    before = [generator.trials(rng, 1)[0] for _ in range(2000)]
    after = [generator.trials(rng, 1)[0] for _ in range(2000)]
    mean = sum(before) / len(before)
    together = sum((a - mean) * (b - mean) for a, b in zip(before, after, strict=True))
    alone = sum((a - mean) ** 2 for a in before)
    assert abs(together / alone) < 0.1


def test_the_generator_s_spread_is_the_one_it_states() -> None:
    from imgpull.analysis.power import spread_of

    for spread in (0.05, 0.10, 0.20):
        values = benchmark.Generator(spread).trials(benchmark._rng("spread"), 20_000)
        assert spread_of([values.tolist()]) == pytest.approx(spread, rel=0.03)
