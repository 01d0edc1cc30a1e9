"""series.csv from cAdvisor's counters: nothing lost, nothing twice, and what is missing is told."""

import contextlib
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apiserver import ApiServer, Request
from test_promql_against_prometheus import is_ready, needs, openmetrics

from imgpull.cluster.kube import Kube
from imgpull.cluster.prometheus import query, query_range, targets
from imgpull.cluster.series import Collected, collect, received_against, received_bytes
from imgpull.errors import EngineFailed
from imgpull.results.seen import read_rates
from imgpull.simcluster.promql import DictStore, Series
from imgpull.tables import SeriesRow, write_series

BEGAN = datetime(2026, 11, 23, 21, 15, 0, tzinfo=UTC)
BEGAN_S = BEGAN.timestamp()
PROXY = r"/api/v1/namespaces/monitoring/services/http:prometheus-k8s:9090/proxy"
RECEIVED = "container_network_receive_bytes_total"
WRITTEN = "container_fs_writes_bytes_total"
COMPUTED = "container_cpu_usage_seconds_total"
MIB = 1024.0**2
Points = Sequence[tuple[float, float]]  # seconds of the trial, value


def series(name: str, points: Points, **labels: str) -> dict[str, Any]:
    """One series as Prometheus answers it."""
    plain = {"__name__": name, "node": "node-1", "id": "/", "instance": "10.0.0.4:10250"}
    values = [[BEGAN_S + at_s, repr(float(value))] for at_s, value in points]
    return {"metric": {**plain, **labels}, "values": values}


def received(points: Points, interface: str = "eth0", **labels: str) -> dict[str, Any]:
    return series(RECEIVED, points, interface=interface, **labels)


def computed(points: Points, **labels: str) -> dict[str, Any]:
    plain = {"id": "/system.slice/containerd.service", "cpu": "total"}
    return series(COMPUTED, points, **{**plain, **labels})


def alike(values: Iterable[float | None]) -> float:
    """The one value of all of these."""
    known = [value for value in values if value is not None]
    assert known
    assert min(known) == pytest.approx(max(known))
    return known[0]


@pytest.fixture
def found(apiserver: ApiServer, kube: Kube) -> Any:
    """What `collect` makes of these series over so many seconds; asked through the proxy."""

    def run(
        *told: Mapping[str, Any],
        until_s: float = 300.0,
        nodes: Mapping[str, str] | None = None,
        busy_s: float | None = None,
    ) -> Collected:
        def answer(request: Request) -> Any:
            name = request.query["query"].partition("{")[0]
            result = [each for each in told if each["metric"]["__name__"] == name]
            data = {"resultType": "matrix", "result": result}
            return 200, {"status": "success", "data": data}

        apiserver.handle("GET", f"{PROXY}/api/v1/query", answer)
        end = BEGAN + timedelta(seconds=until_s)
        busy_from = None if busy_s is None else BEGAN + timedelta(seconds=busy_s)
        nodes = nodes or {"node-1": "node-1"}
        return collect(kube, nodes, BEGAN, end, busy_from=busy_from)

    return run


def steady(step: float, since_s: int = -20, until_s: int = 340, every_s: int = 30) -> Points:
    """A counter that grows by `step` a second."""
    return [(at_s, 1e9 + step * (at_s - since_s)) for at_s in range(since_s, until_s, every_s)]


# Rates


def test_a_row_is_the_mean_since_the_row_before_it_and_the_first_only_begins(found: Any) -> None:
    points = [(-50, 0), (-20, 5), (10, 105), (40, 105), (70, 3105), (310, 9999), (340, 10_000)]
    rows = found(received(points), until_s=60.0).rows
    assert [(row.at_s, row.receive_bytes_per_s) for row in rows] == [
        (-20.0, 0.0), (10.0, pytest.approx(100 / 30)), (40.0, 0.0), (70.0, 100.0),
    ]  # fmt: skip
    assert {row.node for row in rows} == {"node-1"}


def test_what_was_received_is_what_the_counter_grew_by_whatever_its_resets_and_gaps(
    found: Any, tmp_path: Path
) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        points, at_s, value, moved = [(-9.0, 1e6)], -9.0, 1e6, 0.0
        while at_s < 300.0:
            at_s += rng.choice([10.0, 15.0, 30.0, 200.0]) + rng.random()
            step = rng.choice([0.0, 1e3, 1e9]) * rng.random()
            restarted = step < value and rng.random() < 0.3  # else nobody can tell
            value = step if restarted else value + step
            moved += step
            points.append((at_s, value))
        collected = found(received(points))
        assert received_bytes(collected.rows)["node-1"] == pytest.approx(moved), seed
        write_series(tmp_path / "series.csv", collected.rows)
        rates = read_rates(tmp_path / "series.csv")
        assert rates.received_bytes("node-1", -1e9, 1e9) == pytest.approx(
            moved, rel=1e-3, abs=200.0
        ), seed


def test_a_node_has_at_most_200_rows_and_loses_nothing_by_it(found: Any) -> None:
    points = [(at_s, float(at_s + 20) ** 2) for at_s in range(-20, 4000, 10)]
    rows = found(received(points), until_s=3960.0).rows
    assert len(rows) == 200
    assert (rows[0].at_s, rows[-1].at_s) == (0.0, 3970.0)
    assert received_bytes(rows)["node-1"] == pytest.approx(3990.0**2 - 20.0**2)


def test_a_pull_lies_in_the_interval_in_which_it_was_scraped(found: Any) -> None:
    points = [(-5, 0), (25, 0), (55, 264e6), (85, 264e6), (115, 264e6)]
    rows = found(received(points), until_s=100.0).rows
    moved = {row.at_s: (row.receive_bytes_per_s or 0) * 30 for row in rows}
    assert moved == {-5.0: 0.0, 25.0: 0.0, 55.0: pytest.approx(264e6), 85.0: 0.0, 115.0: 0.0}


def test_what_has_other_moments_is_taken_between_its_samples(found: Any) -> None:
    cpu = [(at_s, 0.5 * (at_s + 40)) for at_s in range(-40, 360, 15)]
    rows = found(received(steady(1e6)), computed(cpu), series(WRITTEN, steady(3e6))).rows
    assert alike(row.containerd_cpu_cores for row in rows[1:]) == pytest.approx(0.5)
    assert alike(row.receive_bytes_per_s for row in rows[1:]) == pytest.approx(1e6)
    assert alike(row.write_bytes_per_s for row in rows[1:]) == pytest.approx(3e6)


# What cAdvisor counts


def test_a_nic_and_the_virtual_function_beneath_it_count_once(found: Any) -> None:
    vf = received(steady(0.999e6), "enP51302s1")
    rows = found(vf, received(steady(1e6)), received(steady(5.0), "eth1")).rows
    assert alike(row.receive_bytes_per_s for row in rows[1:]) == pytest.approx(1e6)


def test_disks_are_added_up(found: Any) -> None:
    disks = [series(WRITTEN, steady(rate), device=f"/dev/sd{rate}") for rate in (1, 2, 4)]
    rows = found(received(steady(1e6)), *disks).rows
    assert alike(row.write_bytes_per_s for row in rows[1:]) == pytest.approx(7.0)


@pytest.mark.parametrize(
    "name",
    ["/system.slice/containerd.service", "/runtime.slice/containerd.service", "/containerd"],
)
def test_containerds_cgroup_is_the_outermost_of_its_name(found: Any, name: str) -> None:
    nested = computed(steady(9.0), id=f"/kubepods/burstable/pod1{name}")
    rows = found(received(steady(1e6)), nested, computed(steady(2.0), id=name)).rows
    assert alike(row.containerd_cpu_cores for row in rows[1:]) == pytest.approx(2.0)


def test_what_no_source_had_is_empty_and_no_gap(found: Any) -> None:
    collected = found(received(steady(1e6)))
    assert {row.containerd_cpu_cores for row in collected.rows} == {None}
    assert {row.write_bytes_per_s for row in collected.rows} == {None}
    assert collected.gaps == ()


def test_a_node_is_known_by_its_name_or_its_address(found: Any) -> None:
    nameless = received(steady(1e6), node="", instance="[fd00::7]:10250")
    nodes = {"node-1": "node-1", "10.0.0.4": "node-1", "node-7": "node-7", "fd00::7": "node-7"}
    stranger = received(steady(9e6), node="system-3", instance="10.0.0.9:10250")
    collected = found(received(steady(2e6)), nameless, stranger, nodes=nodes)
    assert {row.node for row in collected.rows} == {"node-1", "node-7"}


# What is missing


def test_a_gap_of_scrapes_is_told_with_its_length_and_node(found: Any) -> None:
    points = [point for point in steady(1e6) if not 60 < point[0] < 150]
    assert found(received(points)).gaps == ("scrape gap of 120 s on node node-1, from 40 s on",)


def test_series_that_begin_late_or_end_early_are_gaps(found: Any) -> None:
    late = [point for point in steady(1e6) if point[0] >= 100]
    early = [point for point in steady(1e6) if point[0] <= 190]
    assert found(received(late)).gaps == ("scrape gap of 100 s on node node-1, from 0 s on",)
    assert found(received(early)).gaps == ("scrape gap of 110 s on node node-1, from 190 s on",)


def test_before_the_first_pod_nothing_is_missing(found: Any) -> None:
    """A Prometheus that ClusterLoader2 brings up itself scrapes nothing before it is there."""
    late = [point for point in steady(1e6) if point[0] >= 100]
    assert found(received(late), busy_s=60.0).gaps == ()
    gap = "scrape gap of 90 s on node node-1, from 10 s on"
    assert found(received(late), busy_s=10.0).gaps == (gap,)


def test_one_late_scrape_is_no_gap(found: Any) -> None:
    points = [point for point in steady(1e6) if point[0] != 100]
    assert found(received(points)).gaps == ()


def test_nodes_without_receive_rates_are_named(found: Any) -> None:
    nodes = {f"node-{number}": f"node-{number}" for number in range(1, 9)}
    collected = found(received(steady(1e6)), computed(steady(1.0), node="node-2"), nodes=nodes)
    assert collected.gaps == (
        "no receive rates of 7 of 8 nodes: node-2, node-3, node-4, node-5, node-6, …",
    )
    assert {row.receive_bytes_per_s for row in collected.rows if row.node == "node-2"} == {None}


# Total data against received bytes


def test_total_data_and_received_bytes_that_agree_are_not_mentioned() -> None:
    assert received_against({"a": 100e6, "b": 100e6}, {"a": 105e6, "b": 111e6}) is None
    assert received_against({"a": 100e6}, {}) is None
    assert received_against({}, {"a": 5e9}) is None


def test_a_difference_beyond_a_tenth_is_told_with_both_figures() -> None:
    less = received_against({"a": 15e9, "b": 15e9, "unseen": 15e9}, {"a": 15e9, "b": 6e9})
    assert less == (
        "2 nodes received 21 GB, and pulls account for 30 GB: 30% less; layers were there already, "
        "images share some, or peers sent them another way"
    )
    more = received_against({"a": 10e9}, {"a": 13e9, "b": 1e9})
    assert more == (
        "1 nodes received 13 GB, and pulls account for 10 GB: 30% more; layers were fetched again "
        "after failures, or something else was received"
    )


def test_received_bytes_are_counted_from_each_nodes_second_row_on() -> None:
    rows = [
        SeriesRow(-10.0, "a", 99.0, None, None), SeriesRow(0.0, "b", 99.0, None, None),
        SeriesRow(20.0, "a", 2.0, None, None), SeriesRow(30.0, "b", None, None, None),
    ]  # fmt: skip
    assert received_bytes(rows) == {"a": 60.0}


# Asking


def test_what_prometheus_refuses_is_told_in_its_words(apiserver: ApiServer, kube: Kube) -> None:
    refusal = {"status": "error", "errorType": "bad_data", "error": "parse error: unexpected }"}
    apiserver.handle("GET", f"{PROXY}/api/v1/query", (400, refusal))
    with pytest.raises(EngineFailed, match="parse error: unexpected }"):
        query(kube, "up}", BEGAN)


@pytest.mark.parametrize(
    ("reply", "hint"),
    [
        ((403, {"message": "services is forbidden"}), "services/proxy"),
        ((404, {"message": 'services "prometheus-k8s" not found'}), "kubectl -n monitoring"),
        ((200, "<html>"), "kubectl -n monitoring"),
    ],
)
def test_a_way_to_prometheus_that_is_shut_names_what_opens_it(
    apiserver: ApiServer, kube: Kube, reply: Any, hint: str
) -> None:
    apiserver.handle("GET", f"{PROXY}/.*", reply)
    with pytest.raises(EngineFailed, match="Prometheus gave no answer") as caught:
        query_range(kube, "up", BEGAN, BEGAN, 30.0)
    assert (
        hint in caught.value.hint
        or hint in caught.value.message
        or "permissions" in caught.value.hint
    )


def test_targets_that_are_down_come_first_and_say_port_and_node(
    apiserver: ApiServer, kube: Kube
) -> None:
    def target(job: str, node: str, port: int, error: str = "") -> dict[str, Any]:
        return {
            "labels": {"job": job, "node": node}, "scrapeUrl": f"http://{node}:{port}/v1/metrics",
            "lastError": error, "health": "down" if error else "up",
        }  # fmt: skip

    refused = "connect: connection refused"
    active = [
        target("kubelet", "node-1", 10250),
        target("monitoring/containerd", "node-2", 10257, refused),
    ]
    answer = {"status": "success", "data": {"activeTargets": active}}
    apiserver.handle("GET", f"{PROXY}/api/v1/targets", (200, answer))
    down, up = targets(kube)
    assert str(down) == (
        "monitoring/containerd: port 10257 of node node-2 (http://node-2:10257/v1/metrics): "
        f"{refused}"
    )
    assert up.trouble == ""


# A real Prometheus


@contextlib.contextmanager
def prometheus_of(store: DictStore, directory: Path) -> Iterator[str]:
    """The URL of a Prometheus that holds these series."""
    text, data = directory / "series.txt", directory / "data"
    text.write_text(openmetrics(store), encoding="utf-8")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)]
    subprocess.run(command, check=True, capture_output=True)
    (directory / "prometheus.yml").write_text("{}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yml",
             f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y",
             f"--web.listen-address={address}"], stdout=log, stderr=log,
        )  # fmt: skip
    try:
        while not is_ready(address):
            assert server.poll() is None, (directory / "log").read_text("utf-8")
            time.sleep(0.05)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()


def scraped(phase_s: float, of: Any, until_s: float = 600.0) -> tuple[Any, Any]:
    times_s = np.arange(-100.0 + phase_s, until_s, 30.0)
    return BEGAN_S + times_s, np.array([of(at_s) for at_s in times_s], dtype=float)


@pytest.mark.prometheus
@needs("prometheus")
@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on PATH")
def test_a_real_prometheus_gives_each_node_its_rates(tmp_path: Path) -> None:
    """Two nodes that pull 264 MB in 4 s, with all that cAdvisor says besides."""

    def pulled(at_s: float) -> float:
        return 5e6 + 264e6 * min(1.0, max(0.0, (at_s - 120.0) / 4.0))

    def all_of(name: str, labels: Mapping[str, str], of: Any) -> list[Series]:
        return [
            Series(
                {"job": "kubelet", "node": f"node-{number}", **labels}, *scraped(7.5 * number, of)
            )
            for number in (1, 2)
        ]

    def cores(at_s: float) -> float:
        return max(0.0, at_s) * 0.25

    inner = [{"interface": name} for name in ("azv12ab", "vethx", "cali1", "eni0123456789a", "lo")]
    machine = [{"device": name} for name in ("/dev/dm-0", "/dev/loop1", "md0")]
    store = DictStore(
        {
            RECEIVED: [
                *all_of(RECEIVED, {"id": "/", "interface": "eth0"}, pulled),
                *all_of(RECEIVED, {"id": "/", "interface": "enP1s1"}, pulled),
                *all_of(RECEIVED, {"id": "/kubepods/x", "interface": "eth0"}, lambda _: 7e12),
                *(
                    s
                    for each in inner
                    for s in all_of(RECEIVED, {"id": "/", **each}, cores_of(9e12))
                ),
            ],
            WRITTEN: [
                *all_of(WRITTEN, {"id": "/", "device": "/dev/sda"}, lambda at_s: 2 * pulled(at_s)),
                *(
                    s
                    for each in machine
                    for s in all_of(WRITTEN, {"id": "/", **each}, cores_of(9e12))
                ),
            ],
            COMPUTED: [
                *all_of(
                    COMPUTED, {"id": "/system.slice/containerd.service", "cpu": "total"}, cores
                ),
                *all_of(
                    COMPUTED, {"id": "/system.slice/kubelet.service", "cpu": "total"}, cores_of(9)
                ),
            ],
        }
    )
    nodes = {"node-1": "node-1", "node-2": "node-2"}
    with prometheus_of(store, tmp_path) as url:
        collected = collect(url, nodes, BEGAN, BEGAN + timedelta(seconds=500))
        answered = query_range(url, f'{RECEIVED}{{interface="eth0",id="/"}}', BEGAN, BEGAN, 15.0)
        with pytest.raises(EngineFailed, match="parse error"):
            query(url, "up{", BEGAN)
    assert collected.gaps == ()
    assert received_bytes(collected.rows) == {
        "node-1": pytest.approx(264e6), "node-2": pytest.approx(264e6),
    }  # fmt: skip
    for node in nodes:
        rows = [row for row in collected.rows if row.node == node]
        assert -30.0 < rows[0].at_s <= 0.0
        assert 500.0 <= rows[-1].at_s < 530.0
        peak = max(rows, key=lambda row: row.receive_bytes_per_s or 0.0)
        assert peak.receive_bytes_per_s == pytest.approx(264e6 / 30)
        assert peak.write_bytes_per_s == pytest.approx(2 * 264e6 / 30)
        assert peak.at_s - 30.0 <= 120.0 <= peak.at_s
        assert alike(row.containerd_cpu_cores for row in rows[2:]) == pytest.approx(0.25)
    assert {re.sub(r"\d", "", each.labels["node"]) for each in answered} == {"node-"}


def cores_of(rate: float) -> Any:
    return lambda at_s: rate * (at_s + 200.0)
