"""measurements.csv and job.json: base units, exact where exact is known, nothing where not."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import GIB, pod, pull

from imgpull import cl2
from imgpull.cl2 import Junit, QueryResult, Report
from imgpull.engines import Subject
from imgpull.errors import ReportError
from imgpull.pulls import Pull
from imgpull.results.measure import measurements, snake_case
from imgpull.results.record import (
    MEASUREMENT_COLUMNS,
    Failure,
    JobRecord,
    Measurement,
    job_directories,
    read_measurements,
    read_record,
    write_measurements,
    write_record,
)
from imgpull.results.seen import PodRow

SUBJECT = Subject(cell_id="c", label="made", factors={}, wait_timeout_s=600.0)
EMPTY = Report("test", Junit("test", "", 0.0, 0.0))
MIB = 1024**2


def numbers_of(
    rows: list[Pull] | None = None,
    pods: list[PodRow] | None = None,
    subject: Subject = SUBJECT,
    report: Report = EMPTY,
) -> dict[tuple[str, str], float]:
    found = measurements(subject, report, rows or [], pods or [])
    return {(row.measurement, row.statistic): row.value for row in found if not row.subject}


# Pulls


@given(st.lists(st.floats(0.001, 1e5), min_size=1, max_size=30))
def test_percentiles_are_cl2s_nearest_rank_over_leaders(durations_s: list[float]) -> None:
    rows = [pull(n, seconds) for n, seconds in enumerate(durations_s)]
    follower = pull(99, 1e9, leader=False, fetched_bytes=0)
    numbers = numbers_of([*rows, follower])
    expected = cl2.percentiles(durations_s)
    for percentile in (50, 90, 99):
        assert numbers["image_pull", f"p{percentile}"] == expected[f"Perc{percentile}"]
    assert numbers["image_pull", "max"] == max(durations_s)
    assert numbers["image_pull", "mean"] == pytest.approx(math.fsum(durations_s) / len(durations_s))
    assert numbers["image_pull", "n"] == len(durations_s)
    assert numbers["data", "total"] == len(durations_s) * GIB
    assert numbers["node_throughput", "min"] == GIB / max(durations_s)


def test_everyone_waits_but_only_leaders_pull() -> None:
    rows = [pull(0, wait_s=1.0), pull(1, wait_s=3.0, leader=False)]
    numbers = numbers_of(rows)
    assert (numbers["image_pull", "n"], numbers["image_pull_wait", "n"]) == (1, 2)
    assert numbers["image_pull_wait", "max"] == 3


def test_sizes_come_from_the_layer_table_where_no_event_told_them() -> None:
    known = replace(SUBJECT, layers=((MIB, 3 * MIB), (MIB, MIB)))
    assert numbers_of([pull(0, size_bytes=None)], subject=known)["data", "total"] == 2 * MIB
    unknown = numbers_of([pull(0, size_bytes=None), pull(1)])
    assert ("data", "total") not in unknown  # a part of it would pass for all
    assert unknown["node_throughput", "n"] == 1


@given(
    st.lists(st.floats(0.1, 590), max_size=12),
    st.lists(st.tuples(st.floats(0, 600), st.floats(0.1, 1e4)), min_size=1, max_size=12),
)
def test_no_length_of_the_censored_pulls_could_contradict_a_percentile(
    durations_s: list[float], censored: list[tuple[float, float]]
) -> None:
    rows = [pull(n, seconds) for n, seconds in enumerate(durations_s)]
    open_rows = [
        pull(100 + n, None, pull_at_least_s=at_least or None)
        for n, (at_least, _) in enumerate(censored)
    ]
    numbers = numbers_of([*rows, *open_rows])
    truth = sorted([*durations_s, *(at_least + longer for at_least, longer in censored)])
    for percentile in (50, 90, 99, 100):
        name = "max" if percentile == 100 else f"p{percentile}"
        real = cl2.nearest_rank(truth, percentile)
        if ("image_pull", name) in numbers:
            assert numbers["image_pull", name] == pytest.approx(real)
        else:
            assert numbers["image_pull", f"{name}_at_least"] <= real + 1e-9
    assert numbers["image_pull", "n"] == len(truth)
    assert ("image_pull", "mean") not in numbers
    mean = math.fsum(truth) / len(truth)
    assert numbers["image_pull", "mean_at_least"] <= mean + 1e-9


def test_with_a_censored_pull_nothing_is_said_that_only_the_quick_ones_know() -> None:
    told = {name for name, _ in numbers_of([pull(0), pull(1, None)], [pod(0), pod(1, None)])}
    assert not told & {"node_throughput", "data", "image_pull_wait"}


def test_a_censored_pull_without_a_bound_took_any_time_and_its_trial_is_not_without_number() -> (
    None
):
    numbers = numbers_of([pull(0, None)])
    assert numbers["image_pull", "n"] == 1
    assert numbers["image_pull", "p50_at_least"] == 0
    assert ("image_pull", "p50") not in numbers


def test_nothing_is_said_where_nobody_looked() -> None:
    assert numbers_of() == {}
    assert numbers_of(subject=replace(SUBJECT, deployments=2, replicas=3)) == {
        ("validity", "pods_asked"): 6
    }


def test_validity_counts_what_became_of_pulls() -> None:
    rows = [
        pull(0), pull(1, None), pull(2, None, outcome="failed", failure="auth", leader=None),
        pull(3, None, outcome="present", temperature="warm", leader=None),
        pull(4, failure="qps_exceeded", leader=False), pull(5, failure="throttled"),
    ]  # fmt: skip
    pods = [pod(n) for n in range(5)] + [pod(5, ready=700.0), pod(6, ready=None, started=None)]
    numbers = numbers_of(rows, pods)
    counted = {name: value for (m, name), value in numbers.items() if m == "validity"}
    assert counted == {
        "pulls": 3, "present": 1, "failed": 1, "censored": 1, "throttled": 2, "qps_exceeded": 1,
            "leaders": 3, "duplicates": 0,
        "cold_share": 2 / 3, "seen_share": 1.0, "pods_ready": 5,
    }  # fmt: skip


# Pod startup


def startup_report(**transitions: float) -> Report:
    latencies = {name: {"Perc50": s, "Perc90": s, "Perc99": s} for name, s in transitions.items()}
    return replace(EMPTY, pod_startup=latencies)


def test_pod_startup_is_cl2s_with_n_max_and_mean_from_the_pods() -> None:
    report = startup_report(pod_startup=3.0, create_to_schedule=0.1)
    numbers = numbers_of([], [pod(0, ready=4.0), pod(1, ready=6.0)], report=report)
    assert numbers["pod_startup", "p50"] == 3.0
    assert numbers["pod_create_to_schedule", "p99"] == 0.1
    startup = {s: v for (m, s), v in numbers.items() if m == "pod_startup"}
    assert (startup["n"], startup["max"], startup["mean"]) == (2, 5.0, 4.0)


def test_percentiles_of_those_that_came_up_are_bounds_while_others_did_not() -> None:
    report = startup_report(pod_startup=3.0, create_to_schedule=0.1)
    numbers = numbers_of([], [pod(0, ready=4.0), pod(1, ready=None)], report=report)
    assert numbers["pod_startup", "p50_at_least"] == 3.0
    assert ("pod_startup", "p50") not in numbers
    assert ("pod_startup", "max") not in numbers
    assert numbers["pod_startup", "max_at_least"] == 600.0  # it was waited for so long
    assert numbers["pod_startup", "mean_at_least"] == (3.0 + 600.0) / 2
    assert numbers["pod_create_to_schedule", "p50"] == 0.1


# Queries


def query_report(
    data: dict[str, float] | list[tuple[dict[str, str], dict[str, float]]],
    queries: dict[str, str],
    unit: str = "s",
    name: str = "KubeletImagePull",
) -> Report:
    rows = tuple(data) if isinstance(data, list) else (({}, data),)
    result = QueryResult(name, unit, f"GenericPrometheusQuery {name}", rows)
    listed = [{"name": key, "query": text} for key, text in queries.items()]
    params = {"metricName": name, "unit": unit, "queries": listed}
    generated = {"steps": [{"measurements": [{"params": params}]}]}
    return replace(EMPTY, queries=(result,), generated=generated)


QUANTILE = "histogram_quantile(0.5, sum by (le) (kubelet_image_pull_duration_seconds_bucket))"


def test_a_quantile_of_a_histogram_carries_its_buckets_width() -> None:
    numbers = numbers_of(report=query_report({"p50": 150.0}, {"p50": QUANTILE}))
    assert numbers == {
        ("kubelet_image_pull", "p50"): 150.0,
        ("kubelet_image_pull", "p50_bucket_width"): 60.0,
    }


def test_a_quantile_at_the_last_edge_is_a_bound_and_has_no_width() -> None:
    numbers = numbers_of(report=query_report({"p50": 3600.0}, {"p50": QUANTILE}))
    assert numbers == {("kubelet_image_pull", "p50_at_least"): 3600.0}


def test_a_quantile_across_nodes_is_no_histograms_and_has_no_width() -> None:
    text = "quantile(0.5, sum by (node) (containerd_cri_image_pulling_throughput_sum))"
    report = query_report({"p50": 64.0}, {"p50": text}, "MiB/s", "ContainerdThroughput")
    assert numbers_of(report=report) == {("containerd_throughput", "p50"): 64.0 * MIB}


@pytest.mark.parametrize(
    ("unit", "query", "value"),
    [
        ("s", "avg(some_seconds)", 7.0),
        ("ms", "avg(some_milliseconds)", 0.007),
        ("MB/s", "avg(nic_megabytes)", 7e6),
        ("MiB/s", "avg(nic_mebibytes)", 7 * MIB),
        ("MB/s", "sum(rate(containerd_cri_image_pulling_throughput_sum[1m]))", 7 * MIB),
        ("MB/s", 'sum(increase(containerd_cri_image_pulls_total{status="success"}[1m]))', 7),
        ("s", "sum(kubelet_image_pull_duration_seconds_count)", 7),
        ("s", "sum(x_sum) / sum(x_count)", 7.0),
        ("MB/s", "sum(rate(bytes_total[1m]))", 7e6),
    ],
)
def test_numbers_are_in_base_units_and_counts_count(unit: str, query: str, value: float) -> None:
    report = query_report({"x": 7.0}, {"x": query}, unit)
    (row,) = measurements(SUBJECT, report, [], [])
    assert row.value == pytest.approx(value)
    counted = (value == 7 and unit == "MB/s") or ("count)" in query and "/" not in query)
    assert (row.unit == "1") == counted


@given(st.lists(st.tuples(st.floats(0.1, 1e3), st.integers(0, 50)), min_size=1, max_size=8))
def test_the_overall_mean_is_weighted_by_observations(nodes: list[tuple[float, int]]) -> None:
    rows = [
        ({"node": f"n{k}"}, {"n": float(n)} | ({"mean": mean} if n else {}))
        for k, (mean, n) in enumerate(nodes)
    ]
    texts = {"n": "sum by (node) (x_count)", "mean": "sum by (node) (x_sum) / y"}
    numbers = numbers_of(report=query_report(rows, texts))
    total = sum(n for _, n in nodes)
    if not total:
        assert numbers == {}
        return
    mean = sum(mean * n for mean, n in nodes) / total
    assert numbers["kubelet_image_pull", "mean"] == pytest.approx(mean)
    assert numbers["kubelet_image_pull", "n"] == total


def test_names_become_words() -> None:
    assert snake_case("KubeletImagePull") == "kubelet_image_pull"
    assert snake_case("Cilium Envoy HTTP Metrics") == "cilium_envoy_http_metrics"
    assert snake_case("ContainerdCRIPulls") == "containerd_cri_pulls"


# measurements.csv


def test_measurements_read_back_to_the_nanosecond_whatever_their_order(tmp_path: Path) -> None:
    rows = [
        Measurement("pod_startup", "p50", "", 1.356115592, "s", "PodStartupLatency"),
        Measurement("data", "total", "", 65_512_000_001.0, "bytes", "pulls.csv"),
        Measurement("kubelet_image_pull", "n", "node, one", 3.0, "1", 'a "file".json'),
    ]
    write_measurements(tmp_path, rows)
    first = (tmp_path / "measurements.csv").read_bytes()
    write_measurements(tmp_path, rows[::-1])
    assert (tmp_path / "measurements.csv").read_bytes() == first
    assert sorted(read_measurements(tmp_path), key=str) == sorted(rows, key=str)
    assert first.decode().splitlines()[0] == ",".join(MEASUREMENT_COLUMNS)


def test_a_trial_that_failed_early_has_no_measurements(tmp_path: Path) -> None:
    assert read_measurements(tmp_path) == []


# job.json

RECORD = JobRecord(
    cell_id="c", trial_id="c-t1", attempt=2, trial=1, block=3, position=4, name="r5 q10",
    factors={"replicas": 5, "image": None}, engine="sim", measured_by="x",
    started_at="2000-01-01T00:00:00+00:00", wall_s=0.5, virtual_s=None, verdict="failed",
    reasons=("it broke",), slo="unknown", error=Failure("E", "m", "h", "t"),
    fingerprint={"engine": "sim"}, versions={"imgpull": "0"}, digests={"image": None}, seed=0,
    bundle_sha256=None, config_sha256="c", git={"dirty": None}, host={}, notes=("n",),
)  # fmt: skip


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, error=None, notes=(), reasons=())])
def test_a_record_reads_back_as_written(tmp_path: Path, record: JobRecord) -> None:
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_only_valid_and_degraded_trials_count() -> None:
    verdicts = ("valid", "degraded", "invalid", "failed")
    assert [replace(RECORD, verdict=verdict).counts for verdict in verdicts] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no job.json"),
        ("half", "not JSON"),
        ('{"schema": 1}', "incomplete"),
        ('{"schema": 2, "cell_id": "c"}', "schema 2, this version reads 1"),
        ("{}", "schema None"),
        ("[]", "schema None"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_by_what_is_wrong(
    tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "job.json").write_text(text, "utf-8")
    with pytest.raises(ReportError, match=words) as refused:
        read_record(tmp_path)
    assert refused.value.hint


def test_half_a_record_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    whole = (tmp_path / "job.json").read_text("utf-8")
    (tmp_path / "job.json").write_text(whole[: len(whole) // 2], "utf-8")
    with pytest.raises(ReportError, match="not JSON"):
        read_record(tmp_path)


def test_a_record_with_keys_of_a_later_minor_version_is_read(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    raw = json.loads((tmp_path / "job.json").read_text("utf-8"))
    (tmp_path / "job.json").write_text(json.dumps(raw | {"later": 1}), "utf-8")
    assert read_record(tmp_path) == RECORD


def test_trials_are_listed_by_number_with_their_attempts_and_nothing_else(tmp_path: Path) -> None:
    own = ["0", "0/attempt-2", "0/attempt-10", "2", "10", "10/attempt-2"]
    stray = ["plots", "0-copy", "1.bak", "0/attempt-x", "0/report", "attempt-2"]
    for name in [*own, *stray]:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        write_record(tmp_path / name, RECORD)
    (tmp_path / "3").mkdir()  # still running
    (tmp_path / "3" / "job.json.tmp").write_text("{}", "utf-8")
    assert [str(path.relative_to(tmp_path)) for path in job_directories(tmp_path)] == own
