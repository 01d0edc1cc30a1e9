"""Laws of what a plan promises to show, and of the trials it asks for."""

import math
from pathlib import Path

import pytest
from commands import run_py
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull.analysis.power import SPREAD, detectable, spread_of, trials_needed

SMALL = ("-m", "image=resource_consumer", "nodes=2,3", "deployments=2", "tracking=none")


@settings(max_examples=15, deadline=None)
@given(st.integers(4, 40), st.floats(0.02, 0.5), st.booleans())
def test_more_trials_show_less_and_more_spread_shows_more(
    trials: int, spread: float, paired: bool
) -> None:
    here = detectable(spread, trials, paired)
    assert here is not None
    more, wider = detectable(spread, trials + 1, paired), detectable(2 * spread, trials, paired)
    assert more is not None
    assert wider is not None
    assert more < here < wider


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.5), st.booleans())
def test_the_trials_needed_are_the_fewest_that_show_the_effect(effect: float, paired: bool) -> None:
    needed = trials_needed(effect, SPREAD, paired)
    assert needed is not None
    enough, fewer = (detectable(SPREAD, trials, paired) for trials in (needed, needed - 1))
    assert enough is not None
    assert enough <= effect
    assert fewer is None or fewer > effect


def test_the_normal_approximation_of_many_trials_is_met() -> None:
    # 1.96 + 0.84 standard errors of a difference of two means, on the log scale.
    found = detectable(0.1, 200)
    assert found == pytest.approx(math.expm1((1.95996 + 0.84162) * 0.1 * math.sqrt(2 / 200)), 0.01)


@pytest.mark.parametrize("trials", [0, 1, 2, 3])
def test_fewer_than_four_trials_show_nothing(trials: int) -> None:
    assert detectable(0.01, trials) is None
    assert detectable(0.01, trials, paired=True) is None


def test_an_effect_that_no_sweep_can_show_has_no_number_of_trials() -> None:
    assert trials_needed(0.0001) is None
    with pytest.raises(ValueError, match="no slowdown"):
        trials_needed(0.0)


def test_a_spread_is_pooled_within_cells() -> None:
    assert spread_of([[100.0], []]) is None
    step = math.exp(0.2)  # two logs 0.2 apart have deviation 0.1414
    assert spread_of([[100.0, 100 * step], [700.0, 700 * step]]) == pytest.approx(0.1 * 2**0.5)


def test_a_plan_says_what_it_can_show_and_what_the_target_takes(tmp_path: Path) -> None:
    plan = run_py(tmp_path, *SMALL, "until=plan", "trials=5", "target_effect=10%")
    assert plan.status == 0, plan.err
    assert "5 trials a cell show +27 % of image pull p50 between two cells" in plan.out
    assert "spread 10 %: ASSUMPTION, no earlier trials" in plan.out
    assert f"target_effect +10 % needs trials={trials_needed(0.1, SPREAD, True)}" in plan.out
    assert "share their luck" in plan.out
    few = run_py(tmp_path, *SMALL, "until=plan", "trials=3")
    assert "3 trials a cell cannot show any difference between two cells: trials=4" in few.out


def test_earlier_trials_of_the_same_cells_give_the_spread(tmp_path: Path) -> None:
    assert run_py(tmp_path, *SMALL, "trials=3").status == 0
    plan = run_py(tmp_path, *SMALL, "until=plan", "trials=5", "target_effect=0.2")
    assert "of 6 earlier trials" in plan.out
    assert "ASSUMPTION" not in plan.out.split("pairs by block")[0]


@pytest.mark.parametrize("value", ["0", "ten", "-5%", "2000%"])
def test_a_target_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    refused = run_py(tmp_path, *SMALL, "until=plan", f"target_effect={value}")
    assert refused.status == 2
    assert f"target_effect={value}" in refused.err
    assert "target_effect=10%" in refused.err


@pytest.mark.parametrize("trials", [6, 10, 30])
def test_of_pairs_the_smallest_difference_is_the_one_of_the_paired_t_test(trials: int) -> None:
    from statsmodels.stats.power import TTestPower

    size = TTestPower().solve_power(nobs=trials, alpha=0.05, power=0.8)
    wanted = math.expm1(size * math.sqrt(2) * 0.1)
    assert detectable(0.1, trials, paired=True) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("trials", [4, 5, 12])
def test_without_pairs_welch_s_test_shows_the_smallest_difference_in_four_of_five(
    trials: int,
) -> None:
    import numpy as np
    from scipy import stats

    found = detectable(0.1, trials)
    assert found is not None
    rng = np.random.default_rng(trials)
    before, after = rng.normal(0, 0.1, (2, 40_000, trials))
    told = stats.ttest_ind(after + math.log1p(found), before, axis=1, equal_var=False)
    share = np.mean((told.pvalue < 0.05) & (told.statistic > 0))
    assert share == pytest.approx(0.8, abs=0.008)
