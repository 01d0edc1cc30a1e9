"""The simulated exporters: what their series count, when they exist, how like the real ones."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull import exporters
from imgpull.simcluster.model import (
    Containerd,
    Kubelet,
    Layer,
    Node,
    PodRequest,
    PodTrace,
    Rates,
    Registry,
    Trace,
    World,
)
from imgpull.simcluster.promql import Series, evaluate
from imgpull.simcluster.scrape import Exporters

MIB = 1024**2
IMAGE_BYTES = 300 * MIB
RECORDED = Path(__file__).parent / "data" / "metrics"

WORLD = World(
    node_names=("node-0", "node-1", "node-2"),
    node=Node(4, 16 * 10**9, 1e9, 1e9, 110),
    registry=Registry(1e9, 1e9, 0.05),
    kubelet=Kubelet("1.36.2"),
    containerd=Containerd("2.1.9"),
    rates=Rates(1e8, 1e8, 1e8, 100, 10, 20, 10, 0.3, 0.05, 0.04, 0.1, 0.1, 0.2, 0.0, 0.0, 0.0),
    image_reference="registry.example/image:1",
    layers=(Layer("sha256:a", 100 * MIB, 200 * MIB), Layer("sha256:b", 200 * MIB, 400 * MIB)),
    image_present=False,
    seed=7,
    trial=1,
)


def pod(index: int, node: str = "node-0", begin_s: float = 100.0, **moments: object) -> PodTrace:
    """A pod whose image was asked for at `begin_s`, waited 2 s for its turn and took 10 s more."""
    image = WORLD.image_reference
    plain: dict[str, object] = {
        "created_s": begin_s - 2, "node": node, "scheduled_s": begin_s - 1.5, "sandbox_s": begin_s,
        "network_setup_s": 0.06, "network_teardown_s": 0.03, "pulling_s": begin_s,
        "pull_began_s": begin_s + 2, "pulled_s": begin_s + 12, "leader": True,
        "fetched_bytes": IMAGE_BYTES,
    }  # fmt: skip
    request = PodRequest(index, "imgpull-1", f"pod-{index}", "pull-0", begin_s - 3, image)
    return PodTrace(request, **(plain | moments))  # type: ignore[arg-type]


def exporters_of(
    *pods: PodTrace,
    version: str = "2.1.9",
    deleted_s: Mapping[str, float] | None = None,
    end_s: float = 600.0,
    interval_s: float = 15.0,
    world: World = WORLD,
) -> Exporters:
    world = replace(world, containerd=Containerd(version))
    return Exporters(world, Trace(pods, {}), deleted_s or {}, 0.0, end_s, interval_s)


def total(store: Exporters, query: str, at_s: float = 600.0) -> float | None:
    """The one value that a query finds, None if it finds nothing."""
    found = evaluate(query, store, at_s)
    assert len(found) <= 1
    return found[0].value if found else None


# --------------------------------------------------------------------------------- kubelet

PULLS = exporters.KUBELET_IMAGE_PULL
OPERATIONS = exporters.KUBELET_RUNTIME_OPERATIONS
PULL_IMAGE = '{operation_type="pull_image"}'


def test_kubelets_time_pulls_with_the_queue_and_runtime_calls_without() -> None:
    store = exporters_of(pod(0), pod(1, "node-1", pulled_s=142.0))
    assert total(store, f"sum({PULLS}_count)") == 2
    assert total(store, f"sum({PULLS}_sum)") == pytest.approx(12 + 42)
    assert total(store, f"sum({OPERATIONS}_sum{PULL_IMAGE})") == pytest.approx(10 + 40)
    assert total(store, f'sum({PULLS}_bucket{{le="20"}})') == 1
    sandboxes = f'sum({OPERATIONS}_sum{{operation_type="run_podsandbox"}})'
    assert total(store, sandboxes) == pytest.approx(1.5 + 1.5)


def test_no_pull_series_before_the_first_observation() -> None:
    store = exporters_of(pod(0))
    (series,) = store.select(f"{PULLS}_count")
    assert 112 <= series.times_s[0] < 112 + 30
    assert set(series.values) == {1.0}
    assert evaluate(f"{PULLS}_count", store, 111.9) == []


def test_the_first_pull_of_a_node_is_invisible_to_increase() -> None:
    store = exporters_of(pod(0))
    assert total(store, f"sum(increase({PULLS}_count[600s]))") == 0
    before = f"sum({PULLS}_count offset 500s) or vector(0)"
    assert total(store, f"sum({PULLS}_count) - ({before})") == 1


@pytest.mark.parametrize(
    "idle",
    [
        pod(0, present=True, pulling_s=None, pull_began_s=None, pulled_s=None),
        pod(0, pulled_s=None),
        pod(0, pulled_s=None, pull_began_s=None),
        pod(0, node=None),
    ],
    ids=["present", "still pulling", "queued", "without a node"],
)
def test_what_was_not_pulled_is_not_counted(idle: PodTrace) -> None:
    store = exporters_of(idle)
    for name in (f"{PULLS}_count", f"{OPERATIONS}_count{PULL_IMAGE}"):
        assert evaluate(name, store, 600) == []
    assert store.select("containerd_cri_sandboxed_image_pulls_total") == []


def test_only_failures_that_reached_the_runtime_are_its_errors() -> None:
    rejected = pod(0, failures=[(100.0, "pull QPS exceeded")], pull_began_s=110.0, pulled_s=120.0)
    store = exporters_of(rejected)
    assert store.select(exporters.KUBELET_RUNTIME_OPERATIONS_ERRORS) == []
    assert total(store, f"sum({PULLS}_sum)") == pytest.approx(10)  # a back-off is no queue
    failed = pod(1, failures=[(103.0, "not found"), (120.0, "not found")], pulled_s=None)
    store = exporters_of(rejected, failed)
    assert total(store, f"{exporters.KUBELET_RUNTIME_OPERATIONS_ERRORS}{PULL_IMAGE}") == 2
    failures = 'containerd_cri_sandboxed_image_pulls_total{status="failure"}'
    assert total(store, failures) == 2
    assert evaluate(failures, store, 102) == []


# ------------------------------------------------------------------------------ containerd


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("1.6.20", set()),
        ("1.7.24", {"containerd_cri_", "containerd_cri_sandboxed_"}),
        ("2.0.0", {"containerd_cri_sandboxed_"}),
        ("v2.3.4", {"containerd_cri_sandboxed_"}),
        ("2.4.0-beta.0", {"containerd_cri_sandboxed_"}),
    ],
)
def test_names_follow_the_generation_of_containerd(version: str, names: set[str]) -> None:
    store = exporters_of(pod(0), version=version)
    prefixes = {"containerd_cri_", "containerd_cri_sandboxed_"}
    found = {one for one in prefixes if store.select(f"{one}image_pulling_throughput_count")}
    assert found == names
    counted = {one for one in prefixes if store.select(f"{one}image_pulls_total")}
    assert counted == names & {exporters.image_metric_prefix(version)}
    assert store.select(f"{exporters.NETWORK_PLUGIN}_count")  # never renamed


def test_throughput_exists_from_the_start_and_pulls_from_the_first() -> None:
    store = exporters_of(pod(0), version="1.7.24")
    zeros = total(store, "sum(containerd_cri_image_pulling_throughput_count)", 0)
    assert zeros == 0
    assert evaluate("containerd_cri_image_pulls_total", store, 111) == []
    nodes = evaluate("containerd_cri_image_pulling_throughput_count", store, 0)
    assert [dict(sample.labels) for sample in nodes] == [{"node": f"node-{n}"} for n in range(3)]


def test_the_idle_twin_of_1_7_stays_at_zero() -> None:
    store = exporters_of(pod(0), pod(1), version="1.7.24")
    assert total(store, "sum(containerd_cri_image_pulling_throughput_count)") == 2
    assert total(store, "sum(containerd_cri_sandboxed_image_pulling_throughput_count)") == 0


FOLLOWER = pod(1, leader=False, fetched_bytes=0, pull_began_s=107.0)


def test_throughput_counts_the_whole_image_for_leader_and_follower() -> None:
    metric = "containerd_cri_sandboxed_image_pulling_throughput"
    store = exporters_of(pod(0), FOLLOWER)
    assert total(store, f"sum({metric}_count)") == 2
    assert total(store, f"sum({metric}_sum)") == pytest.approx(300 / 10 + 300 / 5)
    assert total(store, f"histogram_quantile(0.5, sum by (le) ({metric}_bucket))") == 10


def test_from_2_4_throughput_counts_what_was_fetched() -> None:
    metric = "containerd_cri_sandboxed_image_pulling_throughput"
    partial = pod(2, "node-1", fetched_bytes=100 * MIB)
    store = exporters_of(pod(0), FOLLOWER, partial, version="2.4.0")
    assert total(store, f"sum({metric}_count)") == 2
    assert total(store, f"sum({metric}_sum)") == pytest.approx(300 / 10 + 100 / 10)
    assert total(store, 'sum(containerd_cri_sandboxed_image_pulls_total{status="success"})') == 3


# --------------------------------------------------------------------------------- network

SET_UP = f'sum({exporters.NETWORK_PLUGIN}_count{{operation_type="set_up_pod"}})'
TEAR_DOWN = f'sum({exporters.NETWORK_PLUGIN}_count{{operation_type="tear_down_pod"}})'


def test_a_pod_is_set_up_once_and_torn_down_twice() -> None:
    pods = [pod(0), pod(1, "node-1"), pod(2)]
    store = exporters_of(*pods, deleted_s={"pod-0": 300.0, "pod-1": 310.0})
    assert total(store, SET_UP) == 3
    assert total(store, TEAR_DOWN, 299) is None
    assert total(store, TEAR_DOWN) == 2 * 2
    durations = TEAR_DOWN.replace("_count", "_sum")
    assert total(store, durations) == pytest.approx(4 * 0.03)
    assert store.select(exporters.NETWORK_PLUGIN_ERRORS) == []


def test_pods_on_the_host_network_call_no_network_plugin() -> None:
    host = pod(0)
    host = replace(host, request=replace(host.request, host_network=True))
    store = exporters_of(host, deleted_s={"pod-0": 300.0})
    assert store.select(f"{exporters.NETWORK_PLUGIN}_count") == []


# ---------------------------------------------------------------------------------- scraping


def test_each_target_is_scraped_at_its_own_phase_and_interval() -> None:
    metric = "containerd_cri_sandboxed_image_pulling_throughput_count"
    by_node = [series.times_s for series in exporters_of(interval_s=10).select(metric)]
    again = [series.times_s for series in exporters_of(interval_s=10).select(metric)]
    other_seed = exporters_of(interval_s=10, world=replace(WORLD, seed=8)).select(metric)
    for times_s, same_s, other in zip(by_node, again, other_seed, strict=True):
        assert np.array_equal(times_s, same_s)
        assert not np.array_equal(times_s[:5], other.times_s[:5])
        assert np.allclose(np.diff(times_s), 10)
        assert times_s[0] < -10 <= times_s[2]
        assert 590 < times_s[-1] <= 600
    assert len({times_s[0] for times_s in by_node}) == 3
    kubelet = exporters_of(pod(0), interval_s=10).select(f"{PULLS}_count")[0]
    assert np.allclose(np.diff(kubelet.times_s), 30)


@st.composite
def pulled_pods(draw: st.DrawFn) -> list[PodTrace]:
    begins = draw(st.lists(st.floats(0, 400), min_size=1, max_size=12))
    return [
        pod(
            index,
            draw(st.sampled_from(WORLD.node_names)),
            begin_s,
            pulled_s=begin_s + 2 + draw(st.floats(0.01, 150)),
        )
        for index, begin_s in enumerate(begins)
    ]


@settings(max_examples=30, deadline=None)
@given(pods=pulled_pods(), version=st.sampled_from(["1.7.24", "2.1.9"]))
def test_after_the_last_scrape_every_pull_is_counted_everywhere(
    pods: Sequence[PodTrace], version: str
) -> None:
    store = exporters_of(*pods, version=version, end_s=700)
    prefix = exporters.image_metric_prefix(version)
    for query in (
        f"sum({PULLS}_count)",
        f'sum({PULLS}_bucket{{le="+Inf"}})',
        f"sum({OPERATIONS}_count{PULL_IMAGE})",
        f"sum({prefix}image_pulling_throughput_count)",
        f'sum({prefix}image_pulls_total{{status="success"}})',
        SET_UP,
    ):
        assert total(store, query, 700) == len(pods), query


@settings(max_examples=30, deadline=None)
@given(pods=pulled_pods())
def test_a_scrape_sees_what_had_happened_by_then(pods: Sequence[PodTrace]) -> None:
    store = exporters_of(*pods, end_s=700)
    for count, total_s in zip(
        store.select(f"{PULLS}_count"), store.select(f"{PULLS}_sum"), strict=True
    ):
        mine = [one for one in pods if one.node == count.labels["node"]]
        for at_s, n, sum_s in zip(count.times_s, count.values, total_s.values, strict=True):
            done = [one.pulled_s - one.pulling_s for one in mine if one.pulled_s <= at_s]
            assert n == len(done) > 0
            assert sum_s == pytest.approx(sum(done))


@settings(max_examples=30, deadline=None)
@given(pods=pulled_pods())
def test_buckets_grow_with_le_and_nothing_ever_falls(pods: Sequence[PodTrace]) -> None:
    store = exporters_of(*pods, end_s=700)
    for name in sorted(exporters.known_metrics("2.1.9")):
        histograms: dict[frozenset[tuple[str, str]], list[tuple[float, Series]]] = defaultdict(list)
        for series in store.select(name):
            assert np.all(np.diff(series.values) >= 0)
            assert len(series.times_s) == len(series.values) > 0
            others = frozenset(item for item in series.labels.items() if item[0] != "le")
            bound = float(series.labels.get("le", "inf"))
            histograms[others].append((bound, series))
        for buckets in histograms.values():
            ordered = [series.values for _, series in sorted(buckets, key=lambda pair: pair[0])]
            assert np.all(np.diff(np.array(ordered), axis=0) >= 0)


# ------------------------------------------------------------------------- as the real ones

Shape = dict[tuple[str, frozenset[tuple[str, str]]], set[str]]


def recorded(file: str) -> Shape:
    """Buckets (le) by series name and other labels, of a recorded page of metrics."""
    shape: Shape = defaultdict(set)
    for name, labels in re.findall(
        r"^(\w+?)(?:\{(.*)\})? \S+$", (RECORDED / file).read_text("utf-8"), re.MULTILINE
    ):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        le = pairs.pop("le", "")
        shape[name, frozenset(pairs.items())].add(le)
    return shape


def simulated(store: Exporters, names: set[str]) -> Shape:
    shape: Shape = defaultdict(set)
    for name in names:
        for series in store.select(name):
            pairs = dict(series.labels)
            le = pairs.pop("le", "")
            assert pairs.pop("node") == "node-0"  # added by the scraper
            shape[name, frozenset(pairs.items())].add(le)
    return shape


@pytest.mark.parametrize("version", ["1.7.24", "2.1.9"])
def test_containerd_series_are_those_recorded(version: str) -> None:
    failed = pod(1, failures=[(103.0, "not found")], pulled_s=None)
    world = replace(WORLD, node_names=("node-0",))
    store = exporters_of(pod(0), failed, version=version, deleted_s={"pod-0": 300.0}, world=world)
    real = recorded(f"containerd-{version}.prom")
    assert simulated(store, {name for name, _ in real}) == real


def test_kubelet_series_are_those_recorded() -> None:
    failed = pod(1, failures=[(103.0, "not found")], pulled_s=None)
    world = replace(WORLD, node_names=("node-0",))
    real = recorded("kubelet-1.36.2.prom")
    shape: Shape = {}
    for compressed_bytes in (264_056_486, 16 * 10**6):  # the two images that were pulled
        layer = Layer("sha256:a", compressed_bytes, 0)
        store = exporters_of(pod(0), failed, world=replace(world, layers=(layer,)))
        shape |= simulated(store, {name for name, _ in real})
    assert shape == real
