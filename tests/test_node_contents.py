"""What a simulated node holds and how it works: layers, slots, disk, and what goes wrong."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import (
    BASE,
    FAMILY,
    IMAGE,
    MB,
    QUIET,
    WIDE,
    failures,
    family,
    fetched_bytes,
    leads,
    moved,
    pods,
    pull_s,
    rates_of,
    world,
)

from imgpull.pulls import classify_failure
from imgpull.simcluster import (
    BrownOut,
    Containerd,
    Faults,
    Held,
    Layer,
    Registry,
    simulate,
)

# several images, and what nodes hold


def test_a_layer_of_two_images_is_fetched_and_unpacked_once() -> None:
    first, second = family().pods
    assert (leads(first), leads(second)) == (True, True)
    assert fetched_bytes(first) + fetched_bytes(second) == 300 * MB
    written = moved(rates_of(family())["node-0"], "write_bytes_s")
    assert written == pytest.approx(300 * MB + 300 * MB, abs=1)


def test_one_containerd_shares_its_download_slots_from_2_1_on() -> None:
    alone = {image: (Layer(image, 100 * MB, 0),) for image in FAMILY}
    took = {}
    for version in ("2.0.5", "2.1.9"):
        trace = family(images=alone, containerd=Containerd(version, max_concurrent_downloads=1))
        took[version] = max(pull_s(pod) for pod in trace.pods)
    assert took == pytest.approx({"2.0.5": 0.25 + 2.05, "2.1.9": 0.25 + 4.1})


def test_a_chunked_layer_uses_several_connections_from_2_1_on() -> None:
    one = (Layer("a", 300 * MB, 0),)
    chunked = {
        version: Containerd(version, 3, concurrent_layer_fetch_buffer=100 * MB)
        for version in ("2.0.5", "2.1.9")
    }
    took = {
        version: pull_s(simulate(world(layers=one, containerd=each), pods(0.0)).pods[0])
        for version, each in chunked.items()
    }
    assert took == pytest.approx({"2.0.5": 0.3 + 6.0, "2.1.9": 0.3 + 2.0})


def test_layers_are_unpacked_side_by_side_from_2_2_on() -> None:
    four = tuple(Layer(f"l{k}", 0, 100 * MB) for k in range(4))
    took = {}
    for version, unpacks in (("2.1.9", 2), ("2.2.0", 2), ("2.2.0", 4)):
        many = Containerd(version, 4, max_concurrent_unpacks=unpacks)
        [pod] = simulate(world(layers=four, containerd=many), pods(0.0)).pods
        took[version, unpacks] = round(pull_s(pod) - 0.3, 3)
    assert took == {("2.1.9", 2): 4.0, ("2.2.0", 2): 2.0, ("2.2.0", 4): 1.0}


def test_layers_held_as_snapshots_are_not_fetched_and_blobs_are_only_unpacked() -> None:
    held = Held(snapshots=frozenset({"a"}), blobs=frozenset({"b"}))
    [pod] = simulate(world(held=held), pods(0.0)).pods
    assert fetched_bytes(pod) == 0
    assert pull_s(pod) == pytest.approx(0.25 + 1.0)
    [pod] = simulate(world(held=Held(snapshots=frozenset({"a"}))), pods(0.0)).pods
    assert fetched_bytes(pod) == 200 * MB
    assert pull_s(pod) == pytest.approx(0.25 + 0.05 + 4.0 + 1.0)


def test_a_snapshot_is_of_no_use_without_those_below_it() -> None:
    [pod] = simulate(world(held=Held(snapshots=frozenset({"b"}))), pods(0.0)).pods
    assert fetched_bytes(pod) == 100 * MB  # its blob is there all the same


# the disk


def test_unpacking_runs_ahead_of_the_disk_until_dirty_pages_reach_their_limit() -> None:
    rates = replace(QUIET, dirty_share=0.5)
    small = replace(WIDE, disk_write_bytes_s=50 * MB, memory_bytes=200 * MB)
    [pod] = simulate(
        world(node=small, rates=rates, layers=(Layer("a", 0, 400 * MB),)), pods(0.0)
    ).pods
    # 2 s at 100 MB/s fill 100 MB of pages; the other 200 MB come at the disk's 50 MB/s
    assert pull_s(pod) == pytest.approx(0.3 + 2 + 4)


def test_burst_credits_last_for_their_time_of_pulling() -> None:
    bursting = replace(
        WIDE, disk_write_bytes_s=10 * MB, disk_burst_bytes_s=50 * MB, disk_burst_s=3.05
    )
    trace = simulate(world(node=bursting, layers=(Layer("a", 0, 200 * MB),)), pods(0.0))
    assert pull_s(trace.pods[0]) == pytest.approx(0.25 + 3.05 + 5.0)


# accidents


def test_a_slow_node_is_slow_in_everything() -> None:
    slow = Faults(slow_nodes=1, slow_factor=0.5)
    wire = world(2, faults=slow, node=replace(WIDE, nic_bytes_s=10 * MB), layers=(BASE,))
    trace = simulate(wire, pods(0.0, 0.0))
    assert sorted(pull_s(pod) - 0.3 for pod in trace.pods) == pytest.approx([10 + 1, 20 + 2])


def test_of_a_lost_node_nothing_is_heard_again() -> None:
    trace = simulate(world(2, faults=Faults(lost_nodes=1, lost_s=3.0)), pods(0.0, 0.0))
    lost = [node for node in trace.nodes.values() if node.lost_s == 3.0]
    assert len(lost) == 1
    assert all(segment.end_s <= 3.0 for segment in lost[0].segments)
    done = [pod for pod in trace.pods if pod.ready_s is not None]
    [cut] = [pod for pod in trace.pods if pod.ready_s is None]
    assert len(done) == 1
    assert cut.attempts[-1].ended_s is None
    assert 0 < fetched_bytes(cut) < 300 * MB


def test_a_restarted_node_pulls_again_what_was_not_complete() -> None:
    faults = Faults(restarted_nodes=1, restarted_s=3.535, restart_takes_s=5.0)
    trace = simulate(world(faults=faults), pods(0.0))
    [pod] = trace.pods
    first, second = pod.attempts
    assert (first.ended_s, first.leader) == (None, True)
    assert second.asked_s == pytest.approx(8.535 + 0.05)
    # 100 MB of layer a had been complete since 2.835 s, 200 MB of b are fetched once more
    assert second.fetched_bytes == 200 * MB
    assert pod.ready_s is not None
    assert trace.nodes["node-0"].restarted_s == 3.535


def test_a_brown_out_slows_who_pulls_during_it() -> None:
    thin = Registry(50 * MB, 50 * MB, 0.0)
    one = (Layer("a", 200 * MB, 0),)
    quiet = simulate(world(registry=thin, layers=one), pods(0.0)).pods[0]
    faults = Faults(brown_outs=(BrownOut(2.0, 7.0, 0.2),))
    [pod] = simulate(world(registry=thin, layers=one, faults=faults), pods(0.0)).pods
    assert pull_s(pod) == pytest.approx(pull_s(quiet) + 4.0)


def test_a_silent_registry_cancels_pulls_after_containerds_progress_timeout() -> None:
    faults = Faults(brown_outs=(BrownOut(2.0, 1000.0, 0.0),))
    [pod] = simulate(world(faults=faults), pods(0.0), until_s=500.0).pods
    when_s, error = failures(pod)[0]
    assert when_s == 302.0
    assert error.endswith("context canceled")


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("throttled", "throttled"), ("auth", "auth"), ("not_found", "not_found"),
        ("network", "network"), ("disk_full", "disk_full"),
    ],
)  # fmt: skip
def test_a_share_of_pulls_fails_in_words_that_are_understood(fault: str, word: str) -> None:
    for version in ("1.7.34", "2.3.3"):
        broken = world(
            50, faults=Faults(pull_shares={fault: 0.3}), containerd=Containerd(version), seed=3
        )
        trace = simulate(broken, pods(*[0.0] * 50))
        errors = [error for pod in trace.pods for _, error in failures(pod)]
        assert 8 <= len([pod for pod in trace.pods if failures(pod)]) <= 24
        assert {classify_failure(error, IMAGE) for error in errors} == {word}
        assert all(pod.ready_s is not None for pod in trace.pods)


def test_when_the_leader_fails_who_waited_goes_on_from_what_is_there() -> None:
    for seed in range(40):
        broken = world(faults=Faults(pull_shares={"network": 0.5}), seed=seed)
        first, second = simulate(broken, pods(0.0, 0.0)).pods
        if failures(first) and not failures(second):
            assert leads(second)
            assert fetched_bytes(first) + fetched_bytes(second) in (400 * MB, 500 * MB)
            return
    pytest.fail("no seed made the first of two pulls fail alone")


def test_requests_beyond_the_registrys_rate_are_answered_429() -> None:
    strict = replace(world().registry, requests_s=1.0, requests_burst=6)
    trace = simulate(world(2, registry=strict), pods(0.0, 0.0))
    [refused] = [pod for pod in trace.pods if failures(pod)]
    assert "429 Too Many Requests" in failures(refused)[0][1]
    assert refused.ready_s is not None


def test_a_pull_that_failed_alone_leaves_nothing_for_the_next_try() -> None:
    for seed in range(40):
        broken = world(faults=Faults(pull_shares={"disk_full": 0.5}), seed=seed)
        [pod] = simulate(broken, pods(0.0)).pods
        if failures(pod):
            assert pod.attempts[-1].worked
            assert pod.attempts[-1].fetched_bytes == 300 * MB
            return
    pytest.fail("no seed made the pull fail")


def test_a_pull_that_is_refused_a_layer_stops_working_on_the_others() -> None:
    strict = replace(world().registry, requests_s=1e-3, requests_burst=4)  # resolves, no more
    held = Held(blobs=frozenset({"a"}))
    trace = simulate(world(registry=strict, held=held), pods(0.0), until_s=100.0)
    assert "blobs/b: 429" in failures(trace.pods[0])[0][1]
    assert rates_of(trace)["node-0"] == ()


@pytest.mark.parametrize("accident", ["lost", "restarted"])
@given(moment_s=st.floats(0.0, 6.0))
def test_at_whatever_moment_a_node_goes_nothing_more_comes_to_its_pulls(
    accident: str, moment_s: float
) -> None:
    late = Registry(100 * MB, 100 * MB, 0.5)  # long between a layer's request and its first byte
    faults = Faults(**{f"{accident}_nodes": 1, f"{accident}_s": moment_s})
    faults = replace(faults, restart_takes_s=5.0)
    trace = simulate(world(registry=late, faults=faults), pods(0.0, 0.0))
    back_s = moment_s + 5.0 if accident == "restarted" else math.inf
    segments = trace.nodes["node-0"].segments
    away = [each for each in segments if moment_s < each.end_s and each.begin_s < back_s]
    assert not any(each.receive_bytes_s for each in away)
    assert all(attempt.fetched_bytes <= 300 * MB for pod in trace.pods for attempt in pod.attempts)
    if accident == "restarted":
        assert all(pod.ready_s is not None for pod in trace.pods)
