"""A simulated pod's life: created, placed, its turn to pull, tried again, deleted."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import (
    MB,
    QUIET,
    WIDE,
    asked_s,
    began_s,
    failures,
    fetched_bytes,
    leads,
    pods,
    pull_s,
    rates_of,
    world,
)

from imgpull.errors import ConfigError
from imgpull.simcluster import (
    Kubelet,
    Layer,
    simulate,
)
from imgpull.simcluster.delays import TokenBucket

# control plane


def test_pods_are_created_at_the_controller_managers_pace() -> None:
    rates = replace(QUIET, controller_pods_s=20, controller_burst=30)
    trace = simulate(world(rates=rates), pods(*[1.0] * 100))
    # a token for each Deployment's ReplicaSet, and one for its pod
    paced = [1.0 + 0.03 + max(0, 2 * (k + 1) - 30) / 20 for k in range(100)]
    assert [pod.created_s for pod in trace.pods] == pytest.approx(paced)


def test_pods_are_bound_at_the_schedulers_pace() -> None:
    rates = replace(QUIET, scheduler_pods_s=50, scheduler_burst=10)
    trace = simulate(world(rates=rates), pods(*[0.0] * 60))
    assert trace.pods[-1].scheduled_s == pytest.approx(0.03 + 0.005 + 50 / 50)


def test_tokens_come_back_up_to_the_burst() -> None:
    bucket = TokenBucket(rate=2.0, burst=3)
    assert [bucket.wait(0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert [bucket.try_take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.try_take(100.5)


def test_rounding_rejects_nobody_who_comes_just_in_time() -> None:
    bucket = TokenBucket(rate=10.0, burst=1)
    assert bucket.try_take(0.2)
    assert bucket.try_take(0.3)  # 0.1 s later, which floats make 0.99999...


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(0, 30), st.integers(0, 99))
def test_pods_spread_evenly(nodes: int, count: int, seed: int) -> None:
    trace = simulate(world(nodes, warm=True, seed=seed), pods(*[0.0] * count))
    load = Counter(pod.node for pod in trace.pods)
    assert all(count // nodes <= load[f"node-{k}"] <= -(-count // nodes) for k in range(nodes))


def test_a_pod_without_room_stays_unscheduled() -> None:
    full = world(2, node=replace(WIDE, max_pods=3))
    trace = simulate(full, pods(*[0.0] * 8))
    assert Counter(pod.node for pod in trace.pods) == {"node-0": 3, "node-1": 3, None: 2}
    assert [pod.ready_s for pod in trace.pods if pod.node is None] == [None, None]


# kubelet


def test_second_pod_on_a_node_waits_for_the_first_pull_and_moves_no_bytes() -> None:
    first, second = simulate(world(), pods(0.0, 3.0)).pods
    assert (leads(first), fetched_bytes(first)) == (True, 300 * MB)
    assert (leads(second), fetched_bytes(second), second.present_s) == (False, 0, None)
    assert first.pulled_s is not None
    assert second.pulled_s is not None
    assert first.pulled_s <= second.pulled_s < first.pulled_s + 0.1


def test_a_pod_that_comes_after_the_pull_finds_the_image() -> None:
    _, late = simulate(world(), pods(0.0, 30.0)).pods
    assert late.present_s is not None
    assert (late.attempts, late.pulled_s) == ([], None)
    assert late.ready_s == pytest.approx(30.0 + 0.035 + 0.5 + 0.4 + 0.5)


def test_warm_nodes_pull_nothing() -> None:
    trace = simulate(world(3, warm=True), pods(*[0.0] * 9))
    assert all(pod.present_s is not None and not pod.attempts for pod in trace.pods)
    assert not any(rates_of(trace).values())


def test_policy_always_asks_the_registry_and_moves_no_bytes() -> None:
    trace = simulate(world(warm=True), pods(0.0, pull_policy="Always"))
    [pod] = trace.pods
    assert (pod.present_s, leads(pod), fetched_bytes(pod)) == (None, False, 0)
    assert 0.25 <= pull_s(pod) < 0.3
    assert rates_of(trace) == {"node-0": ()}


def test_serial_pulls_take_turns() -> None:
    """One image a world: the second in the queue pulls an image that is there by then."""
    serial = world(kubelet=Kubelet("v1.30.0", serialize_image_pulls=True))
    trace = simulate(serial, pods(0.0, 0.0, 0.0))
    assert len({asked_s(pod) for pod in trace.pods}) == 1
    first, second, third = sorted(trace.pods, key=lambda pod: pod.pulled_s or 0)
    assert [leads(first), leads(second), leads(third)] == [True, False, False]
    assert (began_s(second), began_s(third)) == (first.pulled_s, second.pulled_s)
    assert pull_s(second) == pytest.approx(0.253)


def test_parallel_pulls_are_as_many_as_allowed() -> None:
    paired = world(kubelet=Kubelet("v1.36.0", max_parallel_image_pulls=2))
    first, second, third = simulate(paired, pods(0.0, 0.0, 0.0)).pods
    assert began_s(first) == began_s(second) == asked_s(first) == asked_s(third)
    assert began_s(third) == first.pulled_s


def test_the_eleventh_pull_at_once_is_rejected_and_tried_again() -> None:
    trace = simulate(world(), pods(*[0.0] * 15))
    large = simulate(world(layers=(Layer("a", 900 * MB, 900 * MB),)), pods(*[0.0] * 15))
    for pod in large.pods[10:]:
        assert failures(pod) == [(asked_s(pod), "pull QPS exceeded")]
        assert asked_s(pod) + 10 <= (began_s(pod) or 0) <= asked_s(pod) + 15
        assert pod.pulled_s == pytest.approx(large.pods[0].pulled_s, abs=0.1)
    assert not any(failures(pod) for pod in large.pods[:10])
    # the small image was there before the back-off was over
    assert all(failures(pod) and pod.present_s and pod.ready_s for pod in trace.pods[10:])
    assert all(began_s(pod) is None for pod in trace.pods[10:])


def test_no_registry_limit_rejects_nobody() -> None:
    trace = simulate(world(kubelet=Kubelet("v1.36.0", registry_pull_qps=0)), pods(*[0.0] * 40))
    assert not any(failures(pod) for pod in trace.pods)


def test_back_off_doubles_up_to_five_minutes() -> None:
    starved = Kubelet("v1.36.0", registry_pull_qps=1e-6, registry_burst=1)
    slow = world(kubelet=starved, layers=(Layer("a", 10**12, 0),))
    _, pod = simulate(slow, pods(0.0, 0.0), until_s=2000.0).pods
    failed_s = [when_s for when_s, _ in failures(pod)]
    gaps_s = [after - before for before, after in pairwise(failed_s)]
    least_s = [10, 20, 40, 80, 160, 300, 300, 300, 300]
    assert len(gaps_s) >= len(least_s)
    # up to one more sync, which comes 10 to 15 s after the one before
    for gap_s, back_off_s in zip(gaps_s, least_s, strict=False):
        assert back_off_s <= gap_s <= back_off_s + 15


def test_an_image_that_the_registry_has_not_is_not_found_again_and_again() -> None:
    [pod] = simulate(world(), pods(0.0, image="r.example/other:2"), until_s=60.0).pods
    assert [attempt.leader for attempt in pod.attempts] == [False] * 3
    assert all("r.example/other:2: not found" in error for _, error in failures(pod))
    assert (pod.pulled_s, pod.ready_s) == (None, None)


def test_an_unknown_compression_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="layer a has compression 'brotli'"):
        simulate(world(layers=(Layer("a", 1, 1, "brotli"),)), pods(0.0))


# a pod's end


def test_a_deleted_pod_stops_after_its_grace_and_leaves_its_network() -> None:
    [pod] = simulate(world(warm=True), pods(0.0, deleted_s=20.0, grace_s=3.0)).pods
    assert pod.stopped_s == pytest.approx(20 + 3 * 0.015 + 3)
    assert pod.network_teardown_s == 0.1
    assert pod.gone_s == pytest.approx((pod.stopped_s or 0) + 0.1 + 0.015)


def test_a_pull_goes_on_when_its_pod_is_deleted_and_the_pod_stays_until_it_ends() -> None:
    [pod] = simulate(world(), pods(0.0, deleted_s=2.0)).pods
    assert pod.pulled_s is not None
    assert pod.stopped_s == pod.pulled_s > 7
    assert (pod.container_s, pod.started_s, pod.ready_s) == (None, None, None)


def test_a_pod_deleted_before_its_controller_made_it_never_is() -> None:
    slow = world(rates=replace(QUIET, controller_pods_s=1.0, controller_burst=2))
    early, late = pods(0.0, 0.0, deleted_s=1.0)
    assert [pod.request for pod in simulate(slow, [early, late]).pods] == [early]


def test_the_place_of_a_pod_that_is_gone_is_taken_by_one_that_waited() -> None:
    full = world(node=replace(WIDE, max_pods=1), warm=True)
    first, second = simulate(full, [*pods(0.0, deleted_s=50.0), *pods(1.0, first=1)]).pods
    assert first.gone_s is not None
    assert second.scheduled_s == pytest.approx(first.gone_s + 1.0)
    assert second.ready_s is not None
