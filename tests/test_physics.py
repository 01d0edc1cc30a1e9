"""The laws of the simulated cluster: what must hold in any world, and a few worlds done by hand."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import (
    FAMILY,
    IMAGE,
    LUCKY,
    MB,
    QUIET,
    TWO_LAYERS,
    WIDE,
    asked_s,
    began_s,
    fetched_bytes,
    leads,
    moments,
    moved,
    pods,
    pull_s,
    rates_of,
    speeds,
    world,
    worlds,
)

from imgpull.simcluster import (
    Containerd,
    Layer,
    PodRequest,
    Registry,
    Trace,
    World,
    simulate,
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


# many pods, many images


@settings(max_examples=40, deadline=None)
@given(worlds(rates=LUCKY), moments, st.randoms())
def test_the_order_and_the_names_of_identical_pods_do_not_matter(
    any_world: World, when: list[float], shuffle: random.Random
) -> None:
    plain = pods(*when)
    renamed = [replace(pod, name=f"other-{pod.index}", namespace="elsewhere") for pod in plain]
    shuffle.shuffle(renamed)
    found, others = simulate(any_world, plain), simulate(any_world, renamed)
    assert [replace(pod, request=None) for pod in found.pods] == [  # type: ignore[arg-type]
        replace(pod, request=None)  # type: ignore[arg-type]
        for pod in others.pods
    ]
    assert found.nodes == others.nodes


@settings(max_examples=40, deadline=None)
@given(worlds(rates=LUCKY), moments, st.data())
def test_a_node_pulls_each_image_cold_once_at_most(
    any_world: World, when: list[float], data: st.DataObject
) -> None:
    several = replace(any_world, images={**FAMILY, **any_world.images})
    names = st.sampled_from(sorted(several.images))
    requests = [replace(pod, image=data.draw(names)) for pod in pods(*when)]
    trace = simulate(several, requests)
    cold = Counter((pod.node, pod.request.image) for pod in trace.pods if fetched_bytes(pod) > 0)
    assert not cold or max(cold.values()) == 1
