"""The simulated exporters: what their series count, when they exist, how like the real ones."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull import exporters
from imgpull.simcluster.exposed import OBSERVERS
from imgpull.simcluster.model import (
    Attempt,
    Containerd,
    Faults,
    Kubelet,
    Layer,
    Node,
    NodeTrace,
    PodRequest,
    PodTrace,
    Rates,
    Registry,
    Segment,
    Trace,
    World,
)
from imgpull.simcluster.promql import Series, evaluate
from imgpull.simcluster.scrape import Exporters

MIB = 1024**2
IMAGE, IMAGE_BYTES = "registry.example/image:1", 300 * MIB
RECORDED = Path(__file__).parent / "data" / "metrics"
VERSIONS = ["1.6.20", "1.7.24", "2.0.0", "2.1.9", "2.3.3", "2.4.0-beta.0"]

WORLD = World(
    node_names=("node-0", "node-1", "node-2"),
    node=Node(4, 16 * 10**9, 1e9, 1e9, 110),
    registry=Registry(1e9, 1e9, 0.05),
    kubelet=Kubelet("1.36.2"),
    containerd=Containerd("2.1.9"),
    rates=Rates(*[1.0] * len(Rates.__dataclass_fields__)),
    images={
        IMAGE: (
            Layer("sha256:a", 100 * MIB, 200 * MIB),
            Layer("sha256:b", 200 * MIB, 400 * MIB),
        )
    },
    seed=7,
    trial=1,
    faults=Faults(restart_takes_s=45.0),
)
ONE_NODE = replace(WORLD, node_names=("node-0",))


def pod(
    index: int, node: str | None = "node-0", begin_s: float = 100.0, **moments: object
) -> PodTrace:
    """A pod whose image was asked for at `begin_s`, waited 2 s for its turn and took 10 s more."""
    attempts = moments.pop("attempts", [pull(begin_s)])
    assert isinstance(attempts, list)
    pulled_s = attempts[-1].ended_s if attempts else None
    end_s = begin_s if pulled_s is None else pulled_s
    plain: dict[str, object] = {
        "created_s": begin_s - 2, "node": node, "scheduled_s": begin_s - 1.7,
        "synced_s": begin_s - 1.5, "sandbox_s": begin_s, "network_setup_s": 0.06,
        "attempts": attempts, "container_s": end_s + 0.25, "started_s": end_s + 0.75,
        "ready_s": end_s + 1,
    }  # fmt: skip
    request = PodRequest(index, "imgpull-1", f"pod-{index}", "imgpull-1/pull-0", begin_s - 3, IMAGE)
    return PodTrace(request, **(plain | moments))  # type: ignore[arg-type]


def pull(
    asked_s: float, wait_s: float | None = 2, pull_s: float | None = 10, **more: object
) -> Attempt:
    """One that worked, unless it has an `error`; None: it never came to that."""
    began_s = None if wait_s is None else asked_s + wait_s
    ended_s = None if pull_s is None else (asked_s if began_s is None else began_s) + pull_s
    plain: dict[str, object] = {"fetched_bytes": IMAGE_BYTES}
    return Attempt(asked_s, began_s, ended_s, **(plain | more))  # type: ignore[arg-type]


NEVER = {"container_s": None, "started_s": None, "ready_s": None}


def failed(index: int, node: str = "node-0", times: int = 1) -> PodTrace:
    """A pod whose pulls all failed, each after 1 s, 20 s after the other."""
    attempts = [pull(102.0 + 20 * n, 0, 1, error="not found") for n in range(times)]
    return pod(index, node, attempts=attempts, **NEVER)


def deleted(one: PodTrace, stopped_s: float = 300.0) -> PodTrace:
    return replace(one, stopped_s=stopped_s, network_teardown_s=0.03, gone_s=stopped_s + 0.1)


def exporters_of(
    *pods: PodTrace,
    version: str = "2.1.9",
    end_s: float = 600.0,
    interval_s: float = 15.0,
    world: World = WORLD,
    **nodes: NodeTrace,
) -> Exporters:
    world = replace(world, containerd=Containerd(version))
    told = {name.replace("_", "-"): node for name, node in nodes.items()}
    return Exporters(world, Trace(pods, told), 0.0, end_s, interval_s)


def total(store: Exporters, query: str, at_s: float = 600.0) -> float | None:
    """The one value that a query finds, None if it finds nothing."""
    found = evaluate(query, store, at_s)
    assert len(found) <= 1
    return found[0].value if found else None


def is_stale(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    return values.view(np.uint64) == 0x7FF0_0000_0000_0002  # Prometheus model/value/value.go


# --------------------------------------------------------------------------------- kubelet

PULLS = exporters.KUBELET_IMAGE_PULL
OPERATIONS = exporters.KUBELET_RUNTIME_OPERATIONS
ERRORS = exporters.KUBELET_RUNTIME_OPERATIONS_ERRORS
PULL_IMAGE = '{operation_type="pull_image"}'


def test_kubelets_time_pulls_with_the_queue_and_runtime_calls_without() -> None:
    store = exporters_of(pod(0), pod(1, "node-1", attempts=[pull(100.0, 2, 40)]))
    assert total(store, f"sum({PULLS}_count)") == 2
    assert total(store, f"sum({PULLS}_sum)") == pytest.approx(12 + 42)
    assert total(store, f"sum({OPERATIONS}_sum{PULL_IMAGE})") == pytest.approx(10 + 40)
    assert total(store, f'sum({PULLS}_bucket{{le="20"}})') == 1


def test_a_pull_is_told_in_whole_milliseconds_by_kubelet_alone() -> None:
    store = exporters_of(pod(0, attempts=[pull(100.0, 0, 0.8376)]))
    assert total(store, f"{PULLS}_sum") == 0.837
    assert total(store, f"{OPERATIONS}_sum{PULL_IMAGE}") == pytest.approx(0.8376)


@pytest.mark.parametrize(
    ("kind", "duration_s"),
    [("run_podsandbox", 1.5), ("create_container", 0.25), ("start_container", 0.5)],
)
@pytest.mark.parametrize("present", [True, False])
def test_the_other_runtime_calls_are_timed_each(
    kind: str, duration_s: float, present: bool
) -> None:
    found = {"attempts": [], "present_s": 100.0} if present else {}
    store = exporters_of(pod(0, **found))
    selector = f'{{operation_type="{kind}"}}'
    assert total(store, f"{OPERATIONS}_sum{selector}") == pytest.approx(duration_s)
    assert total(store, f"kubelet_runtime_operations_total{selector}") == 1


def test_pod_starts_count_from_the_whole_second_with_and_without_the_pull() -> None:
    attempts = [pull(100.0, 0, 1, error="not found"), pull(111.0, 0, 5)]
    store = exporters_of(pod(0, created_s=98.7, attempts=attempts, ready_s=118.5))
    assert total(store, "kubelet_pod_start_total_duration_seconds_sum") == pytest.approx(20.5)
    # From the first Pulling event to the answer: back-off is pulling too.
    assert total(store, "kubelet_pod_start_sli_duration_seconds_sum") == pytest.approx(20.5 - 16)


def test_pods_and_tries_to_start_containers_are_counted() -> None:
    waiting = pod(2, synced_s=None, sandbox_s=None, attempts=[], **NEVER)
    store = exporters_of(pod(0), failed(1, times=2), waiting)
    assert total(store, 'kubelet_started_pods_total{node="node-0"}') == 2
    assert total(store, 'kubelet_started_pods_total{node="node-1"}') == 0
    # A pull that failed is tried again at once, in back-off: 2 each, as recorded.
    assert total(store, "kubelet_started_containers_total") == 1 + 2 * 2


def test_a_bucket_holds_its_own_bound() -> None:
    store = exporters_of(pod(0, attempts=[pull(100.0, 0, 20)]))
    counts = [total(store, f'{PULLS}_bucket{{le="{bound}"}}') for bound in ("10", "20", "30")]
    assert counts == [0, 1, 1]


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
        pod(0, present_s=100.0, attempts=[]),
        pod(0, attempts=[pull(100.0, pull_s=None)], **NEVER),
        pod(0, attempts=[pull(100.0, None, None)], **NEVER),
        pod(0, attempts=[pull(100.0, None, 0, error="pull QPS exceeded")], **NEVER),
        pod(0, node=None),
    ],
    ids=["present", "still pulling", "queued", "rejected", "without a node"],
)
def test_what_was_not_pulled_is_not_counted(idle: PodTrace) -> None:
    store = exporters_of(idle)
    for name in (f"{PULLS}_count", f"{OPERATIONS}_count{PULL_IMAGE}", ERRORS):
        assert evaluate(name, store, 600) == []
    assert store.select("containerd_cri_sandboxed_image_pulls_total") == []
    assert total(store, "sum(containerd_cri_sandboxed_image_pulling_throughput_count)") == 0


def test_a_failed_call_is_timed_and_counted_as_an_error_but_is_no_image_pull() -> None:
    store = exporters_of(failed(1, times=2))
    assert total(store, f"{OPERATIONS}_sum{PULL_IMAGE}") == pytest.approx(2)
    assert total(store, f"{ERRORS}{PULL_IMAGE}") == 2
    assert store.select(f"{PULLS}_count") == []
    failures = 'containerd_cri_sandboxed_image_pulls_total{status="failure"}'
    assert total(store, failures) == 2
    assert evaluate(failures, store, 102) == []


def test_each_attempt_of_a_pod_counts_by_its_own_clock() -> None:
    rejected = pull(100.0, None, 0, error="pull QPS exceeded")
    store = exporters_of(pod(0, attempts=[rejected, pull(111.0, 1, 8)]))
    assert total(store, f"{PULLS}_sum") == pytest.approx(9)  # back-off is no queue
    assert store.select(ERRORS) == []


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
    assert store.select(f"{exporters.network_plugin_metric(version)}_count")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_names_known_before_a_run_are_those_exposed(version: str) -> None:
    pods = deleted(pod(0)), failed(1)
    store = exporters_of(*pods, version=version, node_0=NodeTrace((Segment(0, 9, 1, 1, 1),)))
    assert store.names() == exporters.known_metrics(version)
    silent = {name for name in store.names() if not store.select(name)}
    assert all("network_plugin_operations_errors" in name for name in silent)
    assert store.select("containerd_no_such_metric") == []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_metric_of_a_program_has_its_meaning(version: str) -> None:
    told = {kind for kind, one in exporters.families(version).items() if one.target != "cadvisor"}
    assert told <= OBSERVERS.keys()


def test_throughput_exists_from_the_start_and_pulls_from_the_first() -> None:
    store = exporters_of(pod(0), version="1.7.24")
    zeros = total(store, "sum(containerd_cri_image_pulling_throughput_count)", 0)
    assert zeros == 0
    assert evaluate("containerd_cri_image_pulls_total", store, 111) == []
    nodes = evaluate("containerd_cri_image_pulling_throughput_count", store, 0)
    assert [sample.labels["node"] for sample in nodes] == ["node-0", "node-1", "node-2"]


def test_the_idle_twin_of_1_7_stays_at_zero() -> None:
    store = exporters_of(pod(0), pod(1), version="1.7.24")
    assert total(store, "sum(containerd_cri_image_pulling_throughput_count)") == 2
    assert total(store, "sum(containerd_cri_sandboxed_image_pulling_throughput_count)") == 0


FOLLOWER = pod(1, attempts=[pull(100.0, 7, 5, fetched_bytes=0)])


def test_throughput_counts_the_whole_image_for_leader_and_follower() -> None:
    metric = "containerd_cri_sandboxed_image_pulling_throughput"
    store = exporters_of(pod(0), FOLLOWER, failed(2))
    assert total(store, f"sum({metric}_count)") == 2
    assert total(store, f"sum({metric}_sum)") == pytest.approx(300 / 10 + 300 / 5)
    assert total(store, f"histogram_quantile(0.5, sum by (le) ({metric}_bucket))") == 10


@pytest.mark.parametrize("suffix", ["", "_mibps"])
def test_from_2_4_throughput_counts_what_was_fetched(suffix: str) -> None:
    metric = f"containerd_cri_sandboxed_image_pulling_throughput{suffix}"
    partial = pod(2, "node-1", attempts=[pull(100.0, fetched_bytes=100 * MIB)])
    store = exporters_of(pod(0), FOLLOWER, partial, version="2.4.0")
    assert total(store, f"sum({metric}_count)") == 2
    assert total(store, f"sum({metric}_sum)") == pytest.approx(300 / 10 + 100 / 10)
    assert total(store, 'sum(containerd_cri_sandboxed_image_pulls_total{status="success"})') == 3


def test_the_gauge_of_running_pulls_rises_and_falls() -> None:
    gauge = "sum(containerd_cri_sandboxed_in_progress_image_pulls_total)"
    long = pod(1, attempts=[pull(100.0, 100, None)])
    store = exporters_of(pod(0, attempts=[pull(100.0, 0, 150)]), long)
    assert [total(store, gauge, at_s) for at_s in (95, 195, 225, 300)] == [0, 1, 2, 1]


# --------------------------------------------------------------------------------- network

SET_UP = f'sum({exporters.NETWORK_PLUGIN}_count{{operation_type="set_up_pod"}})'
TEAR_DOWN = f'sum({exporters.NETWORK_PLUGIN}_count{{operation_type="tear_down_pod"}})'


def test_a_pod_is_set_up_once_and_torn_down_twice() -> None:
    store = exporters_of(deleted(pod(0)), deleted(pod(1, "node-1"), 310.0), pod(2))
    assert total(store, SET_UP) == 3
    assert total(store, TEAR_DOWN, 299) is None
    assert total(store, TEAR_DOWN) == 2 * 2
    durations = TEAR_DOWN.replace("_count", "_sum")
    assert total(store, durations) == pytest.approx(4 * 0.03)
    counted = "sum(containerd_cri_network_plugin_operations_total_total)"
    assert total(store, counted) == 3 + 2 * 2
    assert total(store, "sum(containerd_cri_sandbox_create_network_seconds_count)") == 3


def test_pods_on_the_host_network_call_no_network_plugin() -> None:
    host = deleted(pod(0))
    host = replace(host, request=replace(host.request, host_network=True))
    store = exporters_of(host)
    assert store.select(f"{exporters.NETWORK_PLUGIN}_count") == []
    assert total(store, "sum(containerd_cri_sandbox_create_network_seconds_count)") == 0


# -------------------------------------------------------------------------------- cadvisor

METERS = {
    "container_network_receive_bytes_total": 100.0 * MIB,
    "container_fs_writes_bytes_total": 200.0 * MIB,
    "container_cpu_usage_seconds_total": 1.5,
}


@pytest.mark.parametrize(("name", "rate"), METERS.items())
def test_meters_grow_with_the_node_s_rates_and_rest_between(name: str, rate: float) -> None:
    busy = [Segment(at_s, at_s + 50, 100.0 * MIB, 200.0 * MIB, 1.5) for at_s in (100.0, 400.0)]
    store = exporters_of(node_0=NodeTrace(tuple(busy)))
    (series, *idle) = store.select(name)
    for at_s, value in zip(series.times_s, series.values, strict=True):
        busy_s = min(max(at_s - 100, 0), 50) + min(max(at_s - 400, 0), 50)
        assert value == pytest.approx(busy_s * rate)
    assert len(idle) == 2
    assert all(not series.values.any() for series in idle)
    assert np.allclose(np.diff(series.times_s), 30)


def test_meters_tell_of_the_whole_node_and_of_containerd() -> None:
    store = exporters_of(world=ONE_NODE)
    target = {"job": "kubelet", "node": "node-0"}
    assert [store.select(name)[0].labels for name in METERS] == [
        {**target, "id": "/", "interface": "eth0"},
        {**target, "id": "/", "device": "/dev/sda"},
        {**target, "id": "/system.slice/containerd.service", "cpu": "total"},
    ]


def test_meters_start_from_zero_again() -> None:
    busy = NodeTrace((Segment(100.0, 500.0, 10.0, 0.0, 0.0),), restarted_s=300.0)
    world = replace(ONE_NODE, faults=Faults(restart_takes_s=0.0))
    store = exporters_of(world=world, node_0=busy)
    (series,) = store.select("container_network_receive_bytes_total")
    for at_s, value in zip(series.times_s, series.values, strict=True):
        since_s = 300 if at_s >= 300 else 100
        assert value == pytest.approx(10 * (min(max(at_s, since_s), 500) - since_s))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.001, 90), st.floats(0, 1e10)), max_size=30),
    st.floats(0, 600),
)
def test_meters_never_fall_but_where_their_programs_start_afresh(
    told: list[tuple[float, float, float]], restarted_s: float
) -> None:
    segments, at_s = [], 0.0
    for gap_s, length_s, rate in told:
        segments.append(Segment(at_s + gap_s, at_s + gap_s + length_s, rate, rate, rate))
        at_s += gap_s + length_s
    name = "container_network_receive_bytes_total"
    whole = NodeTrace(tuple(segments))
    (series,) = exporters_of(world=ONE_NODE, node_0=whole).select(name)
    assert np.all(np.diff(series.values) >= 0)
    again = replace(whole, restarted_s=restarted_s)
    (reset,) = exporters_of(world=ONE_NODE, node_0=again).select(name)
    later = reset.times_s >= restarted_s
    for part in (reset.values[~later], reset.values[later & ~is_stale(reset.values)]):
        assert np.all(np.diff(part) >= 0)
        assert np.all(part >= 0)


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


@settings(max_examples=100, deadline=None)
@given(st.integers(3, 80), st.sampled_from([-1e-3, -4e-4, -1e-7, 0.0, 1e-7, 4e-4, 1e-3]))
def test_a_scrape_sees_what_ended_no_later_than_its_own_millisecond(
    number: int, later_s: float
) -> None:
    gauge = "containerd_cri_sandboxed_in_progress_image_pulls_total"
    (zeros,) = exporters_of(world=ONE_NODE, interval_s=7.3337).select(gauge)
    running = pull(float(zeros.times_s[number]) + later_s, 0, None)
    store = exporters_of(pod(0, attempts=[running]), world=ONE_NODE, interval_s=7.3337)
    (series,) = store.select(gauge)
    assert series.values.searchsorted(1) == number + (later_s > 0)


def test_up_is_one_for_each_program_of_a_node_at_every_scrape() -> None:
    found = exporters_of(interval_s=10).select("up")
    assert [(one.labels["job"], one.labels["node"]) for one in found] == [
        (job, f"node-{n}") for job in ("kubelet", "monitoring/containerd") for n in range(3)
    ]
    for series in found:
        assert set(series.values) == {1.0}
        step_s = 30 if series.labels["job"] == "kubelet" else 10
        assert np.allclose(np.diff(series.times_s), step_s)


def test_a_lost_node_s_series_end_at_its_first_failed_scrape() -> None:
    store = exporters_of(pod(0), world=ONE_NODE, node_0=NodeTrace(lost_s=250.0))
    for name in (f"{PULLS}_count", f"{PULLS}_bucket", *METERS):
        for series in store.select(name):
            assert series.times_s[-2] < 250 <= series.times_s[-1] < 250 + 30
            assert list(is_stale(series.values[-2:])) == [False, True]
    for series in store.select("up"):
        assert np.array_equal(series.values, series.times_s < 250)
        assert series.times_s[-1] > 570


def test_queries_do_not_see_a_lost_node_but_remember_it() -> None:
    pods = pod(0), pod(1, "node-1")
    store = exporters_of(*pods, node_0=NodeTrace(lost_s=250.0))
    assert [total(store, f"sum({PULLS}_count)", at_s) for at_s in (240, 290, 600)] == [2, 1, 1]
    assert total(store, f"sum(max_over_time({PULLS}_count[500s]))") == 2
    assert total(store, "sum(up)") == 4


RESTARTED = NodeTrace(restarted_s=300.0)  # for 45 s: one or two scrapes of kubelet fail


def test_a_restarted_node_s_counters_start_from_zero() -> None:
    pods = pod(0), pod(1, begin_s=400.0)
    store = exporters_of(*pods, world=ONE_NODE, node_0=RESTARTED)
    (series,) = store.select("containerd_cri_sandboxed_image_pulling_throughput_sum")
    at = dict(zip(series.times_s.tolist(), series.values.tolist(), strict=True))
    assert {at[t] for t in at if 112 <= t < 300} == {30.0}
    assert all(np.isnan(at[t]) for t in at if 300 <= t < 345)
    assert {at[t] for t in at if 345 <= t < 412} == {0.0}
    assert {at[t] for t in at if t >= 412} == {30.0}
    (up,) = (one for one in store.select("up") if one.labels["job"] == "kubelet")
    assert np.array_equal(up.values == 0, (up.times_s >= 300) & (up.times_s < 345))


def test_increase_counts_across_a_restart() -> None:
    early = [pod(index, begin_s=100.0 + 20 * index) for index in range(5)]
    late = [pod(5 + index, begin_s=400.0 + 20 * index) for index in range(3)]
    store = exporters_of(*early, *late, world=ONE_NODE, node_0=RESTARTED)
    count = "containerd_cri_sandboxed_image_pulling_throughput_count"
    assert total(store, count) == 3
    assert total(store, f"increase({count}[620s])") == pytest.approx(5 + 3, rel=0.05)


def test_a_series_with_labels_is_away_from_a_restart_to_its_next_observation() -> None:
    pods = pod(0), pod(1, begin_s=400.0)
    store = exporters_of(*pods, world=ONE_NODE, node_0=RESTARTED)
    (series,) = store.select(f"{PULLS}_count")
    stale = is_stale(series.values)
    assert stale.sum() == 1
    gone_s = float(series.times_s[stale][0])
    assert 300 <= gone_s < 330
    assert set(series.values[~stale]) == {1.0}  # the first pull is forgotten
    back_s = float(series.times_s[series.times_s > gone_s][0])
    assert 412 <= back_s < 442


def test_a_series_is_marked_even_when_every_scrape_was_answered() -> None:
    world = replace(ONE_NODE, faults=Faults(restart_takes_s=0.0))
    store = exporters_of(pod(0), world=world, node_0=RESTARTED)
    (series,) = store.select(f"{PULLS}_count")
    assert list(is_stale(series.values)) == [False] * (len(series.values) - 1) + [True]
    assert {value for one in store.select("up") for value in one.values} == {1.0}


def test_what_happened_since_the_last_scrape_before_a_restart_is_forgotten() -> None:
    late = pod(0, begin_s=288.0 - 1e-3)  # its pull ended just before the restart
    store = exporters_of(late, world=ONE_NODE, node_0=NodeTrace(restarted_s=300.0))
    assert store.select(f"{PULLS}_count") == []
    assert total(store, "sum(containerd_cri_sandboxed_image_pulling_throughput_count)") == 0


@st.composite
def pulled_pods(draw: st.DrawFn) -> list[PodTrace]:
    begins = draw(st.lists(st.floats(0, 400), min_size=1, max_size=12))
    return [
        pod(
            index,
            draw(st.sampled_from(WORLD.node_names)),
            begin_s,
            attempts=[pull(begin_s, 2, draw(st.floats(0.01, 150)))],
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
@given(pods=pulled_pods(), restarted_s=st.one_of(st.just(1e9), st.floats(0, 600)))
def test_a_scrape_sees_what_its_program_saw_by_then(
    pods: Sequence[PodTrace], restarted_s: float
) -> None:
    again = NodeTrace(restarted_s=restarted_s)
    store = exporters_of(*pods, end_s=700, node_0=again, node_1=again)
    for count, total_s in zip(
        store.select(f"{PULLS}_count"), store.select(f"{PULLS}_sum"), strict=True
    ):
        mine = [one for one in pods if one.node == count.labels["node"]]
        since_s = restarted_s if count.labels["node"] != "node-2" else 1e9
        stale = is_stale(count.values)
        for at_s, n, sum_s in zip(
            count.times_s[~stale], count.values[~stale], total_s.values[~stale], strict=True
        ):
            begin_s = since_s if at_s >= since_s else 0.0
            done = [one.pulled_s - one.attempts[0].asked_s for one in mine
                    if one.pulled_s is not None and begin_s <= one.pulled_s <= at_s]  # fmt: skip
            assert n == len(done) > 0
            assert sum_s == pytest.approx(sum(done), abs=1e-3 * len(done))


@settings(max_examples=30, deadline=None)
@given(pods=pulled_pods())
def test_buckets_grow_with_le_and_nothing_ever_falls(pods: Sequence[PodTrace]) -> None:
    store = exporters_of(*pods, end_s=700)
    gauges = {"containerd_cri_sandboxed_in_progress_image_pulls_total"}
    for name in sorted(exporters.known_metrics("2.1.9") - gauges):
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
        pairs = dict(re.findall(r'(\w+)="([^"]+)"', labels))  # Prometheus drops empty labels
        le = pairs.pop("le", "")
        shape[name, frozenset(pairs.items())].add(le)
    return shape


def simulated(store: Exporters, program: str) -> Shape:
    shape: Shape = defaultdict(set)
    for name in store.names():
        for series in store.select(name) if name.startswith(program) else ():
            pairs = dict(series.labels)
            le = pairs.pop("le", "")
            assert pairs.pop("node") == "node-0"  # these two are added by the scraper
            assert program in pairs.pop("job")
            shape[name, frozenset(pairs.items())].add(le)
    return shape


@pytest.mark.parametrize("version", ["1.6.20", "1.7.24", "2.1.9", "2.4.0-beta"])
def test_containerd_series_are_those_recorded(version: str) -> None:
    store = exporters_of(deleted(pod(0)), failed(1), version=version, world=ONE_NODE)
    assert simulated(store, "containerd") == recorded(f"containerd-{version}.prom")


def test_kubelet_series_are_those_recorded() -> None:
    shape: Shape = {}
    for compressed_bytes in (264_056_486, 16 * 10**6):  # the two images that were pulled
        images = {IMAGE: (Layer("sha256:a", compressed_bytes, 0),)}
        store = exporters_of(pod(0), failed(1), world=replace(ONE_NODE, images=images))
        shape |= simulated(store, "kubelet")
    assert shape == recorded("kubelet-1.36.2.prom")
