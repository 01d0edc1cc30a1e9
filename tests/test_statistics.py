"""Laws of what few trials say: intervals, ratios, ranks, families, and the effects of factors."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import FACTORS, write_trial
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull.analysis import read_sweep
from imgpull.analysis.effects import against_reference, effects, estimates, interactions
from imgpull.analysis.statistics import (
    TOO_FEW,
    Reading,
    compare,
    compare_readings,
    estimate,
    holm,
    reachable,
    smallest_rank_p,
)

TRIALS = st.lists(st.floats(1, 2000), min_size=2, max_size=8)
PAIRS = st.lists(st.tuples(st.floats(1, 2000), st.floats(1, 2000)), min_size=2, max_size=7)

# Student's t, two-sided 95 %, from a printed table: degrees of freedom -> quantile.
T = {2: 4.303, 4: 2.776, 8: 2.306}


# ---- One cell --------------------------------------------------------------------------------


def test_an_interval_worked_by_hand() -> None:
    # Logs of 100, 200, 400 are ln 200 -/+ ln 2: mean ln 200, deviation ln 2, error ln 2 / sqrt 3.
    found = estimate([100.0, 200.0, 400.0])
    half = T[2] * math.log(2) / math.sqrt(3)
    assert found.value == pytest.approx(200)
    assert found.low == pytest.approx(200 * math.exp(-half), rel=1e-3)
    assert found.high == pytest.approx(200 * math.exp(half), rel=1e-3)
    assert found.n == 3


@settings(max_examples=40, deadline=None)
@given(TRIALS, st.floats(0.01, 100))
def test_an_estimate_scales_with_its_unit(values: list[float], factor: float) -> None:
    plain, scaled = estimate(values), estimate([value * factor for value in values])
    assert plain.low is not None
    assert plain.high is not None
    assert plain.low <= plain.value * (1 + 1e-9)
    assert plain.high >= plain.value * (1 - 1e-9)
    assert scaled.value == pytest.approx(plain.value * factor)
    assert scaled.low == pytest.approx(plain.low * factor, rel=1e-6)
    assert scaled.high == pytest.approx(plain.high * factor, rel=1e-6)


@pytest.mark.parametrize("values", [[], [5.0], [math.nan, 5.0]])
def test_no_interval_of_fewer_than_two_trials(values: list[float]) -> None:
    found = estimate(values)
    assert (found.low, found.high) == (None, None)
    assert found.n == sum(map(math.isfinite, values))


def test_trials_of_zero_have_a_mean_and_an_interval_only_where_a_bootstrap_is_honest() -> None:
    few = estimate([0.0, 1.0, 2.0])
    assert (few.value, few.low, few.high) == (1.0, None, None)
    many = estimate([0.0, 1.0, 2.0, 3.0] * 5)
    assert many.low is not None
    assert many.high is not None
    assert many.low < many.value == 1.5 < many.high


# ---- Two cells -------------------------------------------------------------------------------


def test_a_paired_ratio_worked_by_hand() -> None:
    # Log ratios are ln 2 -/+ 0.1 and ln 2: mean ln 2, deviation 0.1.
    before = [100.0, 300.0, 50.0]
    after = [200 * math.exp(0.1), 600.0, 100 * math.exp(-0.1)]
    found = compare(before, after, paired=True)
    half = T[2] * 0.1 / math.sqrt(3)
    assert found.ratio == pytest.approx(2)
    assert found.low == pytest.approx(2 * math.exp(-half), rel=1e-3)
    assert found.high == pytest.approx(2 * math.exp(half), rel=1e-3)


def test_an_unpaired_ratio_worked_by_hand() -> None:
    # Both sides' logs have deviation 0.1 about ln 100 and ln 120: Welch has 8 degrees of freedom.
    steps = [0.1 * step / math.sqrt(2.5) for step in (-2, -1, 0, 1, 2)]
    before = [100 * math.exp(step) for step in steps]
    after = [120 * math.exp(step) for step in steps]
    found = compare(before, after, paired=False)
    half = T[8] * 0.1 * math.sqrt(2 / 5)
    assert found.ratio == pytest.approx(1.2)
    assert found.low == pytest.approx(1.2 * math.exp(-half), rel=1e-3)
    assert found.high == pytest.approx(1.2 * math.exp(half), rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(PAIRS, st.booleans())
def test_the_ratio_of_a_to_b_is_the_inverse_of_b_to_a(
    pairs: list[tuple[float, float]], paired: bool
) -> None:
    a, b = [one for one, _ in pairs], [one for _, one in pairs]
    there, back = compare(a, b, paired=paired), compare(b, a, paired=paired)
    assert there.ratio is not None
    assert there.low is not None
    assert there.high is not None
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert back.low == pytest.approx(1 / there.high, rel=1e-6)
    assert back.high == pytest.approx(1 / there.low, rel=1e-6)
    assert back.p == pytest.approx(there.p, abs=1e-9)
    assert back.rank_p == pytest.approx(there.rank_p)


@settings(max_examples=30, deadline=None)
@given(PAIRS, st.booleans(), st.floats(0.01, 100))
def test_a_ratio_does_not_know_its_unit(
    pairs: list[tuple[float, float]], paired: bool, factor: float
) -> None:
    a, b = [one for one, _ in pairs], [one for _, one in pairs]
    plain = compare(a, b, paired=paired)
    scaled = compare([one * factor for one in a], [one * factor for one in b], paired=paired)
    assert scaled.ratio == pytest.approx(plain.ratio)
    assert scaled.low == pytest.approx(plain.low, rel=1e-6)
    assert scaled.p == pytest.approx(plain.p, rel=1e-4, abs=1e-6)


def test_pairs_take_out_what_their_blocks_share() -> None:
    weather = [1.0, 2.0, 0.5, 1.5, 0.8]
    noise = [1.01, 0.99, 1.0, 1.02, 0.98]
    before = [100 * one for one in weather]
    after = [120 * one * rest for one, rest in zip(weather, noise, strict=True)]
    paired, unpaired = (compare(before, after, paired=pair) for pair in (True, False))
    assert paired.low is not None
    assert unpaired.low is not None
    assert paired.low > 1.1
    assert unpaired.low < 1


@pytest.mark.parametrize(("n", "paired"), [(3, False), (3, True)])
def test_too_few_trials_are_said_to_be_too_few_however_clear_they_look(
    n: int, paired: bool
) -> None:
    found = compare([100.0 + i for i in range(n)], [900.0 + i for i in range(n)], paired=paired)
    assert found.p is not None
    assert found.p < 0.001
    assert found.note == TOO_FEW
    assert not found.enough


def test_the_smallest_rank_p_is_one_order_of_all_each_way() -> None:
    for n in range(2, 8):
        orders = len(list(itertools.combinations(range(2 * n), n)))
        assert smallest_rank_p(n, n, paired=False) == pytest.approx(2 / orders)
        signs = len(list(itertools.product((0, 1), repeat=n)))
        assert smallest_rank_p(n, n, paired=True) == pytest.approx(2 / signs)
    assert next(n for n in range(2, 10) if reachable(n, n, paired=False)) == 4


@pytest.mark.parametrize(("n", "paired"), [(5, False), (8, False), (6, True), (8, True)])
def test_fully_parted_sides_have_the_smallest_rank_p(n: int, paired: bool) -> None:
    found = compare(
        [100.0 + i for i in range(n)], [300.0 + i**1.5 for i in range(n)], paired=paired
    )
    assert found.rank_p == pytest.approx(smallest_rank_p(n, n, paired=paired))


def test_trials_that_do_not_differ_at_all_are_no_difference() -> None:
    for paired in (True, False):
        found = compare([120.0] * 5, [120.0] * 5, paired=paired)
        assert (found.ratio, found.low, found.high, found.p, found.rank_p) == (1, 1, 1, 1, 1)


def test_what_cannot_be_told_is_none_and_says_why() -> None:
    for before, after, word in (([], [1.0], "no number"), ([0.0, 1.0], [1.0, 2.0], "zero")):
        found = compare(before, after, paired=False)
        assert found.ratio is None
        assert word in found.note


# ---- Bounds ----------------------------------------------------------------------------------

EXACT = [Reading(100.0 + 3 * place) for place in range(5)]
CENSORED = [Reading(1800.0, at_least=True)] * 3


def test_a_side_known_only_from_below_makes_a_bound_and_never_an_interval() -> None:
    slower = compare_readings(EXACT, [*CENSORED, Reading(1500.0), Reading(1600.0)], paired=False)
    assert slower.bound == "at_least"
    assert slower.ratio is not None
    assert slower.ratio > 10
    assert (slower.low, slower.high) == (None, None)
    assert slower.rank_p == pytest.approx(2 / math.comb(10, 5))
    faster = compare_readings([*CENSORED, *CENSORED], EXACT, paired=False)
    assert faster.bound == "at_most"


def test_bounds_on_both_sides_tell_nothing() -> None:
    found = compare_readings(CENSORED, [*CENSORED, *EXACT], paired=False)
    assert (found.ratio, found.p, found.rank_p) == (None, None, None)
    assert "cannot tell" in found.note


def test_a_bound_below_what_it_is_held_against_shows_no_difference() -> None:
    found = compare_readings(EXACT, [Reading(50.0, at_least=True)] * 5, paired=False)
    assert found.rank_p is None
    assert found.p is None


# ---- Families --------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)  # statsmodels collects garbage on each call
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_makes_a_p_smaller_and_keeps_their_order(raw: list[float]) -> None:
    corrected = holm(raw)
    assert all(after >= before for before, after in zip(raw, corrected, strict=True))
    assert all(after <= 1 for after in corrected)
    for (p, q), (a, b) in zip(
        itertools.combinations(raw, 2), itertools.combinations(corrected, 2), strict=True
    ):
        assert (p - q) * (a - b) >= 0


def test_holm_worked_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


# ---- Factors ---------------------------------------------------------------------------------

Truth = Callable[[Mapping[str, Any]], float]


def sweep(
    directory: Path,
    grid: Mapping[str, Sequence[Any]],
    truth: Truth,
    *,
    trials: int = 5,
    noise: float = 0.02,
    weather: float = 0.0,
    skip: Sequence[int] = (),
    **record: Any,
) -> pd.DataFrame:
    """A sweep whose cells have a true pull time, with noise by trial and weather by block."""
    rng = np.random.default_rng(7)
    job = 0
    for trial in range(1, trials + 1):
        block = math.exp(rng.normal(0, weather))
        for levels in itertools.product(*grid.values()):
            chosen = dict(zip(grid, levels, strict=True))
            seconds = truth(chosen) * block * math.exp(rng.normal(0, noise))
            if job not in skip:
                write_trial(
                    directory / str(job),
                    cell="-".join(map(str, levels)),
                    trial=trial,
                    factors={**FACTORS, **chosen},
                    values={("image_pull", "p50"): seconds},
                    **record,
                )
            job += 1
    return read_sweep(directory)


def by_nodes_and_replicas(chosen: Mapping[str, Any]) -> float:
    return 100 * (1.3 if chosen["nodes"] == 20 else 1) * (1.1 if chosen["replicas"] == 5 else 1)


GRID = {"nodes": (10, 20), "replicas": (1, 5), "qps": (1.0, 5.0, 10.0)}


def test_a_matrix_is_told_as_its_factors(tmp_path: Path) -> None:
    frame = sweep(tmp_path, GRID, by_nodes_and_replicas, weather=0.3, engine="docker")
    found = {(one.factor, one.end): one for one in effects(frame)}
    assert list(found) == [("replicas", 5), ("qps", 5), ("qps", 10), ("nodes", 20)]
    nodes, qps = found["nodes", 20], found["qps", 10]
    assert nodes.low is not None
    assert nodes.high is not None
    assert nodes.low < 1.3 < nodes.high
    assert nodes.high - nodes.low < 0.06
    assert (nodes.start, nodes.trials, nodes.paired, nodes.pairs) == (10, 5, True, 6)
    assert qps.ratio == pytest.approx(1, abs=0.02)
    assert interactions(frame) == []


def test_an_effect_of_two_cells_is_their_paired_comparison(tmp_path: Path) -> None:
    frame = sweep(tmp_path, {"nodes": (10, 20)}, lambda c: 10.0 * c["nodes"], weather=0.2)
    (effect,) = effects(frame)
    sides = [
        frame[frame["nodes"] == nodes].sort_values("block")["image_pull_p50_s"].to_list()
        for nodes in (10, 20)
    ]
    told = compare(*sides, paired=True)
    for name in ("ratio", "low", "high", "p"):
        assert getattr(effect, name) == pytest.approx(getattr(told, name)), name


def test_simulated_cells_that_repeat_each_other_make_nothing_surer(tmp_path: Path) -> None:
    """Twelve cells with one luck tell the effect of nodes no better than two of them."""

    def write(directory: Path, replicas: Sequence[int], engine: str) -> float:
        luck = np.random.default_rng(3).normal(0, 0.1, (5, 2))  # one of each block and node count
        order = itertools.product(range(5), enumerate((10, 20)), replicas)
        for job, (block, (place, nodes), count) in enumerate(order):
            write_trial(
                directory / str(job), cell=f"{nodes}-{count}", trial=block + 1, engine=engine,
                factors={**FACTORS, "nodes": nodes, "replicas": count},
                values={("image_pull", "p50"): 10 * nodes * math.exp(luck[block, place])},
            )  # fmt: skip
        effect = next(one for one in effects(read_sweep(directory)) if one.factor == "nodes")
        assert effect.low is not None
        assert effect.high is not None
        return effect.high / effect.low

    alone = write(tmp_path / "two", (1,), "sim")
    assert write(tmp_path / "twelve", (1, 2, 3, 4, 5, 6), "sim") == pytest.approx(alone)
    assert write(tmp_path / "real", (1, 2, 3, 4, 5, 6), "docker") < alone


def test_an_effect_that_is_not_the_same_everywhere_is_said(tmp_path: Path) -> None:
    def truth(chosen: Mapping[str, Any]) -> float:
        grows = 1.5 if (chosen["nodes"], chosen["replicas"]) == (20, 5) else 1.0
        return 100 * grows

    frame = sweep(tmp_path, {"nodes": (10, 20), "replicas": (1, 5)}, truth)
    (sentence,) = interactions(frame)
    assert sentence.startswith("replicas and nodes interact: replicas 1 -> 5 is ")
    assert "with nodes 10, +5" in sentence or "with nodes 10, +4" in sentence


def test_cells_that_share_no_block_are_not_pairs(tmp_path: Path) -> None:
    for job, (nodes, trial) in enumerate(itertools.product((10, 20), range(1, 6))):
        write_trial(
            tmp_path / str(job), cell=f"n{nodes}", trial=trial, engine="docker",
            block=trial if nodes == 10 else 100 + trial, factors={**FACTORS, "nodes": nodes},
            values={("image_pull", "p50"): 10.0 * nodes + trial},
        )  # fmt: skip
    (effect,) = effects(read_sweep(tmp_path))
    (cell,) = against_reference(read_sweep(tmp_path))
    assert not effect.paired
    assert not cell.against.paired


def test_simulated_trials_pair_by_their_number_and_others_only_by_block(tmp_path: Path) -> None:
    for engine in ("sim", "docker"):
        frame = sweep(
            tmp_path / engine, {"nodes": (10, 20)}, lambda c: 10.0 * c["nodes"],
            weather=0.2, engine=engine, block=1,
        )  # fmt: skip
        (effect,) = effects(frame)
        assert effect.paired is (engine == "sim")


def test_one_trial_a_cell_has_effects_without_intervals(tmp_path: Path) -> None:
    frame = sweep(tmp_path, GRID, by_nodes_and_replicas, trials=1, noise=0.0)
    for effect in effects(frame):
        assert effect.ratio is not None
        assert (effect.low, effect.high, effect.p) == (None, None, None)
        assert "one trial" in effect.note


def test_a_missing_trial_costs_its_cell_and_no_other(tmp_path: Path) -> None:
    frame = sweep(tmp_path, GRID, by_nodes_and_replicas, weather=0.3, skip=(3,))
    nodes = next(one for one in effects(frame) if one.factor == "nodes")
    assert nodes.low is not None
    assert nodes.high is not None
    assert nodes.low < 1.3 < nodes.high
    assert nodes.paired
    assert nodes.trials == 4


def test_a_cell_known_only_from_below_is_in_no_effect(tmp_path: Path) -> None:
    for job, (nodes, replicas, trial) in enumerate(
        itertools.product((10, 20), (1, 5), range(1, 6))
    ):
        slow = (nodes, replicas) == (20, 5)
        key = ("image_pull", "p99_at_least" if slow else "p99")
        write_trial(
            tmp_path / str(job), cell=f"{nodes}-{replicas}", trial=trial,
            factors={**FACTORS, "nodes": nodes, "replicas": replicas},
            values={key: 1800.0 if slow else 10.0 * nodes + trial},
        )  # fmt: skip
    frame = read_sweep(tmp_path)
    nodes = next(one for one in effects(frame, "image_pull_p99_s") if one.factor == "nodes")
    assert nodes.ratio is not None
    assert 1.8 < nodes.ratio < 2
    assert "1 of 2 comparisons known only as bounds" in nodes.note
    known = estimates(frame, "image_pull_p99_s").set_index("cell_id")
    assert math.isnan(known["value"]["20-5"])
    assert known["at_least"]["20-5"] == pytest.approx(1800)


def test_cells_against_a_reference_are_one_family(tmp_path: Path) -> None:
    frame = sweep(tmp_path, GRID, by_nodes_and_replicas)
    found = against_reference(frame)
    assert len(found) == 11
    assert {one.reference for one in found} == {"replicas 1, qps 1, nodes 10"}
    raw = [one.against.p for one in found]
    corrected = [one.p for one in found]
    assert all(
        a is not None and b is not None and b >= a for a, b in zip(raw, corrected, strict=True)
    )
    slower = [one.cell for one in found if one.p is not None and one.p < 0.05]
    assert all("nodes 20" in cell or "replicas 5" in cell for cell in slower)
    assert len(slower) >= 9


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(10)))
def test_estimates_do_not_depend_on_the_order_of_trials(order: Sequence[int]) -> None:
    values = [100.0 + 7 * place for place in range(10)]
    found = estimate([values[place] for place in order])
    assert found.value == pytest.approx(statistics.geometric_mean(values))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_intervals_and_p_are_those_of_scipy_s_t_tests(
    few: int, many: int, seed: int, paired: bool
) -> None:
    from scipy import stats

    rng = np.random.default_rng(seed)
    before = rng.lognormal(3, 0.2, few)
    after = rng.lognormal(3.1, 0.3, few if paired else many)
    found = compare(before.tolist(), after.tolist(), paired=paired)
    logs = np.log(after), np.log(before)
    told = stats.ttest_rel(*logs) if paired else stats.ttest_ind(*logs, equal_var=False)
    interval = told.confidence_interval(0.95)
    assert found.p == pytest.approx(told.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx(
        (math.exp(interval.low), math.exp(interval.high))
    )
