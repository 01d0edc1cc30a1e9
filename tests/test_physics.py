"""The laws of the simulated cluster: what must hold in any world, and a few worlds done by hand."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull.errors import ConfigError
from imgpull.pulls import classify_failure
from imgpull.simcluster import (
    BrownOut,
    Containerd,
    Faults,
    Held,
    Kubelet,
    Layer,
    Node,
    PodRequest,
    PodTrace,
    Rates,
    Registry,
    Segment,
    Trace,
    World,
    simulate,
)
from imgpull.simcluster.delays import TokenBucket

MB = 10**6
IMAGE = "registry.example/image:1"
QUIET = Rates(  # no luck, and a control plane that paces nothing
    gzip_unpack_bytes_s=100 * MB,
    zstd_unpack_bytes_s=400 * MB,
    plain_unpack_bytes_s=800 * MB,
    scheduler_pods_s=1e6,
    scheduler_burst=1000,
    controller_pods_s=1e6,
    controller_burst=1000,
    binding_s=0.005,
    api_call_s=0.015,
    pod_sync_s=0.05,
    hash_bytes_s=1e12,
    dirty_share=0.0,
    blob_commit_s=0.0,
    layer_commit_s=0.0,
    sandbox_s=0.15,
    network_setup_s=0.3,
    network_teardown_s=0.1,
    container_create_s=0.2,
    container_start_s=0.2,
    watch_lag_s=0.5,
    resolve_s=0.25,
    present_s=0.003,
    event_jitter_sigma=0.0,
    node_spread_sigma=0.0,
    trial_spread_sigma=0.0,
)
LUCKY = replace(QUIET, event_jitter_sigma=0.2, node_spread_sigma=0.1, trial_spread_sigma=0.1)
WIDE = Node(vcpus=4, memory_bytes=2**34, nic_bytes_s=1e9, disk_write_bytes_s=1e12, max_pods=110)
TWO_LAYERS = (Layer("a", 100 * MB, 400 * MB), Layer("b", 200 * MB, 100 * MB))


def world(
    nodes: int = 1, layers: tuple[Layer, ...] = TWO_LAYERS, warm: bool = False, **changes: object
) -> World:
    """A world where only the connection (50 MB/s) and the core (100 MB/s) matter."""
    plain = World(
        node_names=tuple(f"node-{k}" for k in range(nodes)),
        node=WIDE,
        registry=Registry(egress_bytes_s=1e12, connection_bytes_s=50 * MB, first_byte_s=0.05),
        kubelet=Kubelet(version="v1.36.0"),
        containerd=Containerd(version="2.1.9"),
        rates=QUIET,
        images={IMAGE: layers},
        held=Held(frozenset(each.digest for each in layers), images=frozenset({IMAGE}))
        if warm
        else Held(),
        seed=0,
        trial=1,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def pods(*owner_created_s: float, first: int = 0, **changes: object) -> list[PodRequest]:
    """One pod for each creation time of its Deployment."""
    return [
        replace(PodRequest(k, "ns", f"pod-{k}", f"owner-{k}", when_s, IMAGE), **changes)  # type: ignore[arg-type]
        for k, when_s in enumerate(owner_created_s, start=first)
    ]


def pull_s(pod: PodTrace) -> float:
    last = pod.attempts[-1]
    assert last.worked
    assert last.began_s is not None
    return (last.ended_s or 0.0) - last.began_s


def leads(pod: PodTrace) -> bool:
    return any(attempt.leader for attempt in pod.attempts)


def fetched_bytes(pod: PodTrace) -> int:
    return sum(attempt.fetched_bytes for attempt in pod.attempts)


def asked_s(pod: PodTrace) -> float:
    return pod.attempts[0].asked_s


def failures(pod: PodTrace) -> list[tuple[float | None, str]]:
    return [(attempt.ended_s, attempt.error) for attempt in pod.attempts if attempt.error]


def began_s(pod: PodTrace) -> float | None:
    return pod.attempts[-1].began_s


def rates_of(trace: Trace) -> dict[str, tuple[Segment, ...]]:
    return {name: node.segments for name, node in trace.nodes.items()}


def moved(segments: tuple[Segment, ...], what: str = "receive_bytes_s") -> float:
    return sum(getattr(each, what) * (each.end_s - each.begin_s) for each in segments)


sizes = st.sampled_from([32, 10_000, 3 * MB, 50 * MB, 400 * MB, 2000 * MB])
speeds = st.sampled_from([5.0 * MB, 30.0 * MB, 120.0 * MB, 1000.0 * MB])
layer_tables = st.lists(
    st.builds(
        lambda digest, size, ratio, compression: Layer(
            f"{digest}-{size}", size, int(size * ratio), compression
        ),
        st.sampled_from("abcdef"),
        sizes,
        st.sampled_from([0.5, 1.0, 2.5]),
        st.sampled_from(["gzip", "zstd", "none"]),
    ),
    min_size=1,
    max_size=6,
).map(tuple)
moments = st.lists(st.sampled_from([0.0, 0.5, 3.0, 20.0, 60.0]), min_size=1, max_size=7)


@st.composite
def worlds(draw: st.DrawFn, rates: Rates = QUIET, **changes: object) -> World:
    registry = Registry(draw(speeds), draw(speeds), draw(st.sampled_from([0.0, 0.05])))
    return world(
        nodes=draw(st.integers(1, 3)),
        node=replace(WIDE, nic_bytes_s=draw(speeds), disk_write_bytes_s=draw(speeds)),
        kubelet=Kubelet("v1.36.0", serialize_image_pulls=draw(st.booleans())),
        containerd=Containerd("2.1.9", draw(st.integers(1, 4))),
        **{"registry": registry, "layers": draw(layer_tables), "rates": rates} | changes,
    )


# links


@pytest.mark.parametrize(("nodes", "expected_s"), [(1, 2.0), (2, 4.0), (4, 8.0)])
def test_nodes_share_a_scarce_registry_equally(nodes: int, expected_s: float) -> None:
    registry = Registry(egress_bytes_s=50 * MB, connection_bytes_s=50 * MB, first_byte_s=0.0)
    one = (Layer("a", 100 * MB, 100 * MB),)
    trace = simulate(world(nodes, registry=registry, layers=one), pods(*[0.0] * nodes))
    assert [pull_s(pod) for pod in trace.pods] == pytest.approx([0.25 + expected_s + 1.0] * nodes)


# one pull, by hand


@pytest.mark.parametrize(
    ("layers", "unpacked_s"),
    [
        (TWO_LAYERS, max(2 + 4, 4) + 1),  # fetched after 2 and 4 s, applied in 4 and 1 s
        (TWO_LAYERS[::-1], max(4 + 1, 2) + 4),
    ],
)
def test_a_layer_is_unpacked_once_it_is_there_and_the_one_below_is_done(
    layers: tuple[Layer, ...], unpacked_s: float
) -> None:
    [pod] = simulate(world(layers=layers), pods(0.0)).pods
    assert pull_s(pod) == pytest.approx(0.25 + 0.05 + unpacked_s)


def test_downloads_get_what_unpacking_leaves_of_the_disk() -> None:
    rates = replace(QUIET, gzip_unpack_bytes_s=80 * MB)
    layers = (Layer("a", 50 * MB, 80 * MB), Layer("b", 150 * MB, 80 * MB))
    narrow = replace(WIDE, disk_write_bytes_s=100 * MB)
    trace = simulate(world(node=narrow, layers=layers, rates=rates), pods(0.0))
    # 1 s of 2 x 50 MB/s; 1 s of 20 beside 80; 1.6 s of 50; 1 s of unpacking
    assert pull_s(trace.pods[0]) == pytest.approx(0.25 + 0.05 + 4.6)
    received = [each.receive_bytes_s / MB for each in rates_of(trace)["node-0"]]
    written = [each.write_bytes_s / MB for each in rates_of(trace)["node-0"]]
    assert received == pytest.approx([100, 20, 50, 0])
    assert written == pytest.approx([100, 100, 50, 80])
    assert rates_of(trace)["node-0"][-1].cpu_cores == pytest.approx(1.0)


def test_no_more_layers_than_allowed_come_at_once() -> None:
    layers = tuple(Layer(f"l{k}", 100 * MB, 0) for k in range(4))
    for limit, expected_s in ((1, 8.2), (2, 4.1), (3, 4.1), (4, 2.05)):
        [pod] = simulate(world(layers=layers, containerd=Containerd("1.7", limit)), pods(0.0)).pods
        assert pull_s(pod) == pytest.approx(0.25 + expected_s)


def test_equal_layers_are_fetched_once_and_unpacked_twice() -> None:
    layer = Layer("a", 100 * MB, 100 * MB)
    trace = simulate(world(layers=(layer, layer)), pods(0.0))
    assert fetched_bytes(trace.pods[0]) == 100 * MB
    assert pull_s(trace.pods[0]) == pytest.approx(0.25 + 0.05 + 2 + 1 + 1)


def test_an_image_without_bytes_is_pulled_in_the_time_to_resolve_it() -> None:
    [pod] = simulate(world(layers=()), pods(0.0)).pods
    assert pull_s(pod) == pytest.approx(0.253)


def test_compression_sets_the_speed_of_unpacking() -> None:
    took = {}
    for compression in ("gzip", "zstd", "none"):
        [pod] = simulate(world(layers=(Layer("a", 0, 800 * MB, compression),)), pods(0.0)).pods
        took[compression] = pull_s(pod)
    assert took == pytest.approx({"gzip": 8.3, "zstd": 2.3, "none": 1.3})


def test_a_pod_goes_through_its_life_in_order() -> None:
    [pod] = simulate(world(), pods(2.0)).pods
    life = [
        pod.created_s, pod.scheduled_s, pod.sandbox_s, asked_s(pod), pod.pulled_s,
        pod.container_s, pod.started_s, pod.ready_s,
    ]  # fmt: skip
    assert life == sorted(life, key=lambda moment: moment or 0.0)
    assert pod.network_setup_s == 0.3
    assert pod.ready_s == pytest.approx(2.0 + 0.035 + 0.5 + 7.3 + 0.4 + 0.5)


def test_host_network_skips_the_network_plugin() -> None:
    [pod] = simulate(world(), pods(0.0, host_network=True)).pods
    assert (pod.network_setup_s, pod.network_teardown_s) == (None, None)
    assert pod.sandbox_s == pytest.approx(0.035 + 0.2)


# laws of any world


@settings(max_examples=60, deadline=None)
@given(worlds(), moments)
def test_no_pull_beats_a_link_a_disk_or_a_core(any_world: World, when: list[float]) -> None:
    trace = simulate(any_world, pods(*when))
    here, registry = any_world.node, any_world.registry
    fetched = {layer.digest: layer.compressed_bytes for layer in any_world.images[IMAGE]}
    compressed, largest = sum(fetched.values()), max(fetched.values())
    unpacked = sum(layer.unpacked_bytes for layer in any_world.images[IMAGE])
    streams = any_world.containerd.max_concurrent_downloads
    least_s = max(
        compressed / here.nic_bytes_s,
        (compressed + unpacked) / here.disk_write_bytes_s,
        compressed / (streams * registry.connection_bytes_s),
        largest / registry.connection_bytes_s,
        unpacked / any_world.rates.plain_unpack_bytes_s,
    )
    leaders = [pod for pod in trace.pods if leads(pod)]
    assert all(pull_s(pod) >= least_s for pod in leaders)
    together_s = max(pod.pulled_s or 0 for pod in leaders) - min(
        began_s(pod) or 0 for pod in leaders
    )
    assert together_s >= len(leaders) * compressed / registry.egress_bytes_s


@settings(max_examples=60, deadline=None)
@given(worlds(rates=LUCKY), moments)
def test_bytes_arrive_once_a_node_and_are_written_once(any_world: World, when: list[float]) -> None:
    trace = simulate(any_world, pods(*when))
    unpacked = sum(layer.unpacked_bytes for layer in any_world.images[IMAGE])
    for name, segments in rates_of(trace).items():
        leaders = [pod for pod in trace.pods if pod.node == name and leads(pod)]
        assert len(leaders) == any(pod.node == name for pod in trace.pods)
        fetched = sum(fetched_bytes(pod) for pod in leaders)
        assert moved(segments) == pytest.approx(fetched, abs=1)
        written = fetched + unpacked * len(leaders)
        assert moved(segments, "write_bytes_s") == pytest.approx(written, abs=1)
        edges = [edge for each in segments for edge in (each.begin_s, each.end_s)]
        assert edges == sorted(edges)


@settings(max_examples=40, deadline=None)
@given(worlds(), moments)
def test_no_segment_exceeds_its_node(any_world: World, when: list[float]) -> None:
    trace = simulate(any_world, pods(*when))
    for segment in (each for segments in rates_of(trace).values() for each in segments):
        assert 0 <= segment.receive_bytes_s <= any_world.node.nic_bytes_s * (1 + 1e-6)
        assert 0 < segment.write_bytes_s <= any_world.node.disk_write_bytes_s * (1 + 1e-6)
        assert 0 < segment.cpu_cores < 1 + any_world.node.nic_bytes_s / 1.4e9


LINKS = {
    "nic": lambda w: replace(w, node=replace(w.node, nic_bytes_s=2 * w.node.nic_bytes_s)),
    "disk": lambda w: replace(
        w, node=replace(w.node, disk_write_bytes_s=2 * w.node.disk_write_bytes_s)
    ),
    "connection": lambda w: replace(
        w, registry=replace(w.registry, connection_bytes_s=2 * w.registry.connection_bytes_s)
    ),
    "registry": lambda w: replace(
        w, registry=replace(w.registry, egress_bytes_s=2 * w.registry.egress_bytes_s)
    ),
}


def assert_doubling_slows_nobody(slow: World, link: str, requests: list[PodRequest]) -> None:
    before, after = simulate(slow, requests), simulate(LINKS[link](slow), requests)
    for pod, faster in zip(before.pods, after.pods, strict=True):
        assert (faster.ready_s or math.inf) <= (pod.ready_s or math.inf) + 1e-6


@pytest.mark.parametrize("link", LINKS)
@settings(max_examples=40, deadline=None)
@given(slow=worlds())
def test_a_link_doubled_never_slows_nodes_that_start_together(link: str, slow: World) -> None:
    assert_doubling_slows_nobody(slow, link, pods(*[0.0] * len(slow.node_names)))


@pytest.mark.parametrize("link", ["nic", "disk", "connection"])
@settings(max_examples=40, deadline=None)
@given(speeds, st.data(), moments)
def test_a_link_doubled_never_slows_nodes_that_do_not_compete(
    link: str, connection_bytes_s: float, data: st.DataObject, when: list[float]
) -> None:
    """Where they start apart and also compete for the registry it may: one takes another's."""
    slow = data.draw(worlds(registry=Registry(1e12, connection_bytes_s, 0.05)))
    assert_doubling_slows_nobody(slow, link, pods(*when))


@settings(max_examples=60, deadline=None)
@given(worlds(rates=LUCKY), moments, st.floats(0.1, 100))
def test_until_cuts_and_changes_nothing_before(
    any_world: World, when: list[float], until_s: float
) -> None:
    whole = {pod.request.index: pod for pod in simulate(any_world, pods(*when)).pods}
    cut = simulate(any_world, pods(*when), until_s)
    assert {pod.request.index for pod in cut.pods} == {
        index for index, pod in whole.items() if pod.created_s <= until_s
    }
    for pod in cut.pods:
        for name, moment in vars(whole[pod.request.index]).items():
            if name.endswith("_s") and not name.startswith("network"):
                seen = moment if moment is not None and moment <= until_s else None
                assert getattr(pod, name) == seen, name
    for name, segments in rates_of(cut).items():
        assert all(segment.end_s <= until_s for segment in segments)
        fetched = sum(fetched_bytes(pod) for pod in cut.pods if pod.node == name)
        assert moved(segments) == pytest.approx(fetched, abs=1)


@settings(max_examples=60, deadline=None)
@given(worlds(rates=LUCKY), moments, moments, st.floats(0.01, 80))
def test_pods_created_later_change_nothing_that_was(
    any_world: World, when: list[float], later: list[float], since_s: float
) -> None:
    early = pods(*(moment for moment in when if moment < since_s))
    late = pods(*(since_s + moment for moment in later), first=len(early))
    alone = simulate(any_world, early, since_s)
    assert simulate(any_world, early + late, since_s) == alone


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


# luck


def lucky(nodes: int = 3, count: int = 6, **changes: object) -> Trace:
    return simulate(world(nodes, **{"rates": LUCKY} | changes), pods(*[0.0] * count))


def test_same_seed_same_trace_and_other_trial_other_trace() -> None:
    assert lucky() == lucky()
    assert lucky() != lucky(trial=2)
    assert lucky() != lucky(seed=1)


def test_the_luck_of_a_pod_does_not_depend_on_how_many_there_are() -> None:
    few = {pod.request.index: pod.network_setup_s for pod in lucky(2, 4).pods}
    many = {pod.request.index: pod.network_setup_s for pod in lucky(5, 9).pods}
    assert {index: many[index] for index in few} == few
    assert len(set(many.values())) == 9


def test_without_spread_trials_differ_in_placement_only() -> None:
    quiet = [
        [(pod.created_s, pod.pulled_s, pod.ready_s) for pod in lucky(trial=trial, rates=QUIET).pods]
        for trial in (1, 2)
    ]
    assert sorted(quiet[0]) == sorted(quiet[1])


def luck_of_pulls(nodes: int, trial: int, bound: World, **sigma: float) -> list[float]:
    """Pull times by node, in a world whose only speed that matters is `bound`'s."""
    spread = replace(bound, rates=replace(bound.rates, **sigma), trial=trial)
    names = tuple(f"node-{k}" for k in range(nodes))
    trace = simulate(replace(spread, node_names=names), pods(*[0.0] * nodes))
    return [pull_s(pod) for pod in sorted(trace.pods, key=lambda pod: pod.node or "")]


BY_CONNECTION = world(layers=(Layer("a", 500 * MB, 0),))
BY_CORE = world(layers=(Layer("a", 0, 500 * MB),))
BY_DISK = replace(BY_CORE, node=replace(WIDE, disk_write_bytes_s=50 * MB))
BY_REGISTRY = replace(BY_CONNECTION, registry=Registry(10 * MB, 50 * MB, 0.0))


@pytest.mark.parametrize("bound", [BY_CONNECTION, BY_CORE], ids=["connection", "core"])
def test_node_spread_parts_the_nodes(bound: World) -> None:
    assert len(set(luck_of_pulls(3, 1, bound, node_spread_sigma=0.2))) == 3


@pytest.mark.parametrize(
    "bound", [BY_CONNECTION, BY_DISK, BY_REGISTRY], ids=["connection", "disk", "registry"]
)
def test_trial_spread_parts_the_trials_and_not_the_nodes(bound: World) -> None:
    one, two = (luck_of_pulls(3, trial, bound, trial_spread_sigma=0.2) for trial in (1, 2))
    assert one == pytest.approx([one[0]] * 3)
    assert one != pytest.approx(two)


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


# several images, and what nodes hold

BASE = Layer("base", 100 * MB, 100 * MB)
FAMILY = {
    "r.example/a:1": (BASE, Layer("a", 100 * MB, 100 * MB)),
    "r.example/b:1": (BASE, Layer("b", 100 * MB, 100 * MB)),
}


def family(**changes: object) -> Trace:
    requests = [
        replace(pod, image=image) for pod, image in zip(pods(0.0, 0.0), FAMILY, strict=True)
    ]
    return simulate(world(**{"images": FAMILY} | changes), requests)


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
