"""The eight tuning sets: when each action of a phase starts, and when the phase is over."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from bundles import WORLD
from hypothesis import given
from hypothesis import strategies as st

from imgpull import cl2
from imgpull.engines.sim.pacing import Pacing, Timetable

CALL_S = 0.01
ALL: dict[str, dict[str, float | int | str]] = {
    "qpsLoad": {"qps": 7.0},
    "randomizedLoad": {"averageQps": 4.0},
    "steppedLoad": {"burstSize": 3, "stepDelay": "2s"},
    "timeLimitedLoad": {"timeLimit": "10s"},
    "randomizedTimeLimitedLoad": {"timeLimit": "10s"},
    "parallelismLimitedLoad": {"parallelismLimit": 2},
    "globalQPSLoad": {"qps": 5.0, "burst": 2},
    "poissonLoad": {"expectedActionsPerSecond": 4.0},
}


def one(kind: str, **params: Any) -> cl2.TuningSet:
    return cl2.TuningSet(kind, kind, params or ALL[kind], 1)


def paced(kind: str, count: int, *, begin_s: float = 0.0, last_s: float = CALL_S, seed: int = 0,
          **params: Any) -> Timetable:  # fmt: skip
    pacing = Pacing(replace(WORLD, seed=seed))
    [table] = pacing.timetables(begin_s, [(one(kind, **params), [last_s] * count)])
    return table


def near(*times_s: float) -> Any:
    return pytest.approx(list(times_s), abs=1e-8)


def gaps(starts_s: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(starts_s)]


def test_qps_load_sleeps_after_each_action_the_last_one_included() -> None:
    table = paced("qpsLoad", 3, begin_s=100, qps=4.0)
    assert list(table.starts_s) == near(100, 100.25, 100.5)
    assert table.end_s == pytest.approx(100.75)


def test_qps_load_cuts_its_sleep_to_whole_nanoseconds() -> None:
    assert paced("qpsLoad", 2, qps=3.0).starts_s[1] == 0.333333333


def test_a_phase_is_over_when_its_last_action_is() -> None:
    assert paced("qpsLoad", 2, last_s=5.0, qps=1.0).end_s == pytest.approx(6.0)


def test_stepped_load_sleeps_after_each_full_burst() -> None:
    table = paced("steppedLoad", 4, burstSize=2, stepDelay="10s")
    assert list(table.starts_s) == near(0, 0, 10, 10)
    assert table.end_s == pytest.approx(20)
    assert paced("steppedLoad", 3, burstSize=2, stepDelay="10s").end_s == pytest.approx(10.01)


def test_time_limited_load_spreads_its_actions_over_the_limit() -> None:
    table = paced("timeLimitedLoad", 4, timeLimit="10s")
    assert list(table.starts_s) == near(0, 2.5, 5, 7.5)
    assert table.end_s == pytest.approx(10)


def test_parallelism_limited_load_keeps_so_many_workers_busy() -> None:
    table = paced("parallelismLimitedLoad", 5, last_s=3.0, parallelismLimit=2)
    assert list(table.starts_s) == near(0, 0, 3, 3, 6)
    assert table.end_s == pytest.approx(9)


def test_a_worker_who_is_free_takes_the_next_action() -> None:
    tuning_set = one("parallelismLimitedLoad", parallelismLimit=2)
    [table] = Pacing(WORLD).timetables(0.0, [(tuning_set, [5.0, 1.0, 1.0, 1.0])])
    assert list(table.starts_s) == near(0, 0, 1, 2)


def test_global_qps_load_lets_a_burst_through_and_then_a_token_each() -> None:
    table = paced("globalQPSLoad", 5, qps=2.0, burst=3)
    assert list(table.starts_s) == near(0, 0, 0, 0.5, 1)
    assert table.end_s == pytest.approx(1.01)  # no sleep after the last


def test_global_qps_load_is_one_bucket_for_phases_after_and_beside_each_other() -> None:
    pacing, tuning_set = Pacing(WORLD), one("globalQPSLoad", qps=1.0, burst=1)
    left, right = pacing.timetables(0.0, [(tuning_set, [0.0] * 2), (tuning_set, [0.0] * 3)])
    assert list(left.starts_s) == near(0, 2)
    assert list(right.starts_s) == near(1, 3, 4)
    [later] = pacing.timetables(4.5, [(tuning_set, [0.0])])
    assert list(later.starts_s) == near(5)
    [rested] = pacing.timetables(60, [(tuning_set, [0.0])])
    assert list(rested.starts_s) == near(60)


def test_global_qps_load_under_another_name_is_another_bucket() -> None:
    sets = [cl2.TuningSet(name, "globalQPSLoad", {"qps": 1.0, "burst": 1}, 1) for name in "ab"]
    tables = Pacing(WORLD).timetables(0.0, [(tuning_set, [0.0]) for tuning_set in sets])
    assert [table.starts_s for table in tables] == [(0.0,), (0.0,)]


def test_randomized_load_sleeps_up_to_twice_the_mean() -> None:
    found = gaps(paced("randomizedLoad", 4000, averageQps=10.0).starts_s)
    assert 0 <= min(found) < 0.01
    assert 0.19 < max(found) < 0.2
    assert sum(found) / len(found) == pytest.approx(0.1, rel=0.05)


def test_poisson_load_waits_exponentially_and_not_after_the_last() -> None:
    table = paced("poissonLoad", 4000, expectedActionsPerSecond=10.0)
    found = gaps(table.starts_s)
    mean = sum(found) / len(found)
    assert mean == pytest.approx(0.1, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in found) / len(found) == pytest.approx(0.01, rel=0.15)
    assert table.end_s == pytest.approx(table.starts_s[-1] + CALL_S)


def test_randomized_time_limited_load_starts_at_random_moments_of_the_limit() -> None:
    starts_s = paced("randomizedTimeLimitedLoad", 2000, begin_s=50, timeLimit="20s").starts_s
    assert min(starts_s) >= 50
    assert max(starts_s) < 70
    assert sum(starts_s) / len(starts_s) == pytest.approx(60, abs=0.5)
    assert list(starts_s) != sorted(starts_s)


@pytest.mark.parametrize("kind", ["randomizedLoad", "randomizedTimeLimitedLoad", "poissonLoad"])
def test_chance_is_the_same_for_one_seed_and_another_for_another_seed_or_phase(kind: str) -> None:
    assert paced(kind, 9) == paced(kind, 9)
    assert paced(kind, 9) != paced(kind, 9, seed=1)
    first, second = Pacing(WORLD).timetables(0.0, [(one(kind), [0.0] * 9)] * 2)
    assert first != second


@given(st.sampled_from(sorted(ALL)), st.integers(0, 20), st.floats(0, 1e5), st.floats(0, 10))
def test_every_set_starts_each_action_once_and_ends_after_all(
    kind: str, count: int, begin_s: float, last_s: float
) -> None:
    table = paced(kind, count, begin_s=begin_s, last_s=last_s)
    assert len(table.starts_s) == count
    assert all(begin_s <= start_s for start_s in table.starts_s)
    assert all(start_s + last_s <= table.end_s for start_s in table.starts_s)
    assert table.end_s >= begin_s
    if not count:
        assert table.end_s == begin_s
