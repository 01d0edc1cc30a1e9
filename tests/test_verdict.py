"""Verdicts say whether we measured what we said, each rule of docs/design.md 4.5 by its reason."""

from dataclasses import replace
from pathlib import Path

import pytest
from rows import GIB, pod, pull
from trials import MakeJob, run

from imgpull.cl2 import Junit, Report
from imgpull.engines import Subject
from imgpull.pulls import FAILURES, PASSING, Pull
from imgpull.results.measure import measurements
from imgpull.results.record import Measurement
from imgpull.results.seen import PodRow
from imgpull.results.verdict import Verdict, judge

SUBJECT = Subject(
    cell_id="c", label="made", factors={}, deployments=4, replicas=1, nodes=4, cache="cold",
    nic_mbit_s=10_000, disk_ceiling_mb_s=500, wait_timeout_s=600.0,
)  # fmt: skip
PULLS, PODS = [pull(n) for n in range(4)], [pod(n) for n in range(4)]
STARTUP = {"pod_startup": {"Perc50": 1.0, "Perc90": 1.0, "Perc99": 1.0}}


def verdict_on(
    *,
    rows: list[Pull] = PULLS,
    pods: list[PodRow] = PODS,
    failures: tuple[str, ...] = (),
    found: list[Measurement] | None = None,
    **subject: object,
) -> Verdict:
    about = replace(SUBJECT, **subject)  # type: ignore[arg-type]
    report = Report("test", Junit("test", "", 0.0, 0.0, failures), STARTUP)
    numbers = measurements(about, report, rows, pods)
    return judge(about, report, rows, pods, [*numbers, *(found or [])])


def test_a_trial_in_which_everything_asked_for_was_seen_is_valid() -> None:
    found = verdict_on()
    assert (found.verdict, found.reasons, found.slo) == ("valid", (), "met")


# failed


def test_a_report_without_junit_failed() -> None:
    found = judge(SUBJECT, Report("test"), PULLS, PODS, [])
    assert found.verdict == "failed"
    assert "no junit.xml" in found.reasons[0]
    assert found.slo == "unknown"


@pytest.mark.parametrize(
    "text",
    [
        "measurement call WaitForControlledPodsRunning - x error: 1 objects timed out: ...",
        "measurement call GenericPrometheusQuery - x error: query error: parse error",
        "measurement call GenericPrometheusQuery - x error: M: [q: too many samples for []: ...]",
        "create namespace error: exists",
    ],
)
def test_what_broke_for_another_cause_than_slowness_failed_in_its_own_words(text: str) -> None:
    found = verdict_on(failures=(text,))
    assert (found.verdict, found.reasons) == ("failed", (text,))


TIMED_OUT = (
    "measurement call WaitForControlledPodsRunning - PodsRunning error: "
    "1 objects timed out: Deployments: ns/d"
)


def test_a_pod_that_had_its_image_and_never_came_up_is_a_failure() -> None:
    found = verdict_on(pods=[*PODS[:3], pod(3, ready=None)], failures=(TIMED_OUT,))
    assert (found.verdict, found.reasons) == ("failed", (TIMED_OUT,))


def test_a_pod_that_no_node_took_is_a_failure() -> None:
    homeless = pod(
        3, node=None, scheduled=None, pulling=None, pulled=None, started=None, ready=None
    )
    found = verdict_on(rows=PULLS[:3], pods=[*PODS[:3], homeless], failures=(TIMED_OUT,))
    assert found.verdict == "failed"


@pytest.mark.parametrize("failure", FAILURES)
def test_a_pull_that_cannot_work_is_a_failure_and_one_that_is_put_off_is_slowness(
    failure: str,
) -> None:
    passes = failure in PASSING
    outcome = "censored" if passes else "failed"
    row = pull(3, None, outcome=outcome, failure=failure, leader=None, temperature="unknown")
    late = pod(3, pulled=None, started=None, ready=None)
    found = verdict_on(rows=[*PULLS[:3], row], pods=[*PODS[:3], late], failures=(TIMED_OUT,))
    if passes:
        assert (found.verdict, found.slo) == ("valid", "missed")
    else:
        assert (found.verdict, found.reasons) == (
            "failed", (f"{TIMED_OUT} (1 pulls failed: {failure})",),
        )  # fmt: skip


# invalid


@pytest.mark.parametrize("temperature", ["warm", "partial"])
def test_cold_that_was_not_cold_is_invalid(temperature: str) -> None:
    row = pull(3, temperature=temperature, leader=temperature == "partial")
    found = verdict_on(rows=[*PULLS[:3], row])
    assert found.verdict == "invalid"
    assert found.reasons == ("cache=cold, but 25% of nodes had the image or part of it already",)


@pytest.mark.parametrize("temperature", ["cold", "partial"])
def test_warm_that_fetched_anything_is_invalid(temperature: str) -> None:
    rows = [pull(n, None, outcome="present", temperature="warm", leader=None) for n in range(3)]
    found = verdict_on(rows=[*rows, pull(3, temperature=temperature)], cache="warm")
    assert found.verdict == "invalid"
    assert found.reasons == ("cache=warm, but 1 nodes fetched the image or part of it",)


def test_as_is_promises_no_temperature() -> None:
    rows = [*PULLS[:3], pull(3, None, outcome="present", temperature="warm", leader=None)]
    assert verdict_on(rows=rows, cache="as_is").verdict == "valid"


def test_fewer_pods_than_asked_for_is_invalid() -> None:
    found = verdict_on(rows=PULLS[:3], pods=PODS[:3])
    assert (found.verdict, found.reasons) == ("invalid", ("3 pods were created, 4 asked for",))


def test_more_nodes_than_asked_for_is_invalid() -> None:
    found = verdict_on(nodes=3)
    assert found.reasons == ("pods ran on 4 nodes, 3 asked for",)
    assert found.verdict == "invalid"


ABSENT = (
    "measurement call GenericPrometheusQuery - {0} error: {0}: [p50: query returned no samples for "
    "{0} p99: query returned no samples for {0}]"
)


def test_a_required_metric_that_is_absent_is_invalid_by_its_names() -> None:
    found = verdict_on(failures=(ABSENT.format("My Metric"),))
    assert found.verdict == "invalid"
    assert found.reasons == ("required samples are absent: My Metric/p50, My Metric/p99",)


def test_an_absent_metric_beside_a_missed_threshold_says_both() -> None:
    both = ABSENT.format("M").replace(
        "]", " max: sample above threshold: want: less or equal than]"
    )
    found = verdict_on(failures=(both,))
    assert (found.verdict, found.slo) == ("invalid", "missed")
    assert len(found.reasons) == 2


def test_pull_metrics_may_be_absent_where_no_pull_ended_and_others_may_not() -> None:
    rows = [pull(n, None) for n in range(4)]
    pods = [pod(n, pulled=None, started=None, ready=None) for n in range(4)]
    steps = [
        {"measurements": [{"params": {
            "metricName": name, "queries": [{"name": q, "query": text} for q in ("p50", "p99")],
        }}]}
        for name, text in (
            ("Pulls", "kubelet_image_pull_duration_seconds_bucket"),
            ("Network", "containerd_cri_network_plugin_operations_duration_seconds_seconds_bucket"),
        )
    ]  # fmt: skip
    for name, verdict in (("Pulls", "valid"), ("Network", "invalid")):
        junit = Junit("test", "", 0.0, 0.0, (ABSENT.format(name),))
        report = Report("test", junit, STARTUP, generated={"steps": steps})
        assert judge(SUBJECT, report, rows, pods, []).verdict == verdict


@pytest.mark.parametrize(
    ("limits", "seconds", "what"),
    [
        ({}, 1.9, "the node's disk can do (500 MB/s)"),
        ({"disk_ceiling_mb_s": None}, 0.7, "the node's NIC can do (1.25 GB/s)"),
        ({"disk_ceiling_mb_s": None, "nic_mbit_s": None}, 0.4,
         "a single pull's hashing and unpacking can do (2 GB/s)"),
    ],
)  # fmt: skip
def test_a_leader_that_is_faster_than_the_hardware_is_invalid(
    limits: dict[str, object], seconds: float, what: str
) -> None:
    found = verdict_on(rows=[*PULLS[:3], pull(3, seconds)], **limits)
    assert found.verdict == "invalid"
    assert found.reasons == (f"p3 pulled 1.07 GB in {seconds} s on n3: more than {what}",)


def test_a_follower_may_return_at_once() -> None:
    rows = [*PULLS[:3], pull(3, 0.001, leader=False, node="n0", fetched_bytes=0)]
    assert verdict_on(rows=rows).verdict == "valid"


def throughput(mib_s: float, statistic: str = "mean") -> Measurement:
    source = "GenericPrometheusQuery ContainerdThroughput"
    return Measurement("containerd_throughput", statistic, "", mib_s * 2**20, "bytes/s", source)


def counted(pulls: float) -> Measurement:
    return Measurement("containerd_pulls", "success", "", pulls, "1", "GenericPrometheusQuery P")


def test_containerds_mean_is_judged_when_it_counted_the_leaders_and_no_other() -> None:
    assert verdict_on(found=[throughput(3000), counted(4)]).verdict == "invalid"
    assert verdict_on(found=[throughput(3000), counted(8)]).verdict == "valid"
    assert verdict_on(found=[throughput(3000)]).verdict == "valid"
    assert verdict_on(found=[throughput(3000, "p50"), counted(4)]).verdict == "valid"
    assert verdict_on(found=[throughput(400), counted(4)]).verdict == "valid"


def test_containerds_mean_is_judged_where_no_pull_was_seen() -> None:
    found = verdict_on(rows=[], pods=[], cache=None, found=[throughput(3000)])
    assert found.verdict == "invalid"
    assert "3,000 MiB/s" in found.reasons[0]
    assert "the node was warm" in found.reasons[0]


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_a_promise_that_nobody_could_check_is_invalid(cache: str) -> None:
    found = verdict_on(rows=[], pods=[], cache=cache)
    assert found.reasons == (f"no pull was seen: cache={cache} cannot be verified",)
    assert found.verdict == "invalid"


@pytest.mark.parametrize(
    ("unseen", "verdict"), [(0, "valid"), (1, "degraded"), (2, "invalid"), (20, "invalid")]
)
def test_up_to_a_twentieth_of_the_pulls_may_be_unseen(unseen: int, verdict: str) -> None:
    rows, pods = [pull(n) for n in range(unseen, 20)], [pod(n) for n in range(20)]
    found = verdict_on(rows=rows, pods=pods, deployments=20, nodes=20)
    assert found.verdict == verdict
    if unseen:
        assert any("of pulls were not seen" in reason for reason in found.reasons)


# degraded


def test_an_unknown_temperature_is_a_warning() -> None:
    rows = [replace(row, temperature="unknown", fetched_bytes=None) for row in PULLS]
    found = verdict_on(rows=rows)
    assert found.verdict == "degraded"
    assert found.reasons == ("temperature of 4 of 4 pulls is unknown: no receive rates",)


def test_pulls_that_nobody_watched_are_a_warning_where_nothing_was_promised() -> None:
    found = verdict_on(rows=[], pods=[], cache=None)
    assert (found.verdict, found.reasons) == ("degraded", ("no pull events: pulls are unknown",))


# Slowness is never a verdict


@pytest.mark.parametrize(
    "text",
    [
        "measurement call PodStartupLatency - x error: pod startup: too high latency 99th "
        "percentile: got 7m3s expected: 3m0s",
        "measurement call GenericPrometheusQuery - x error: M: [q: sample above threshold: want: "
        "less or equal than 0, got: 3]",
    ],
)
def test_a_missed_limit_is_a_result(text: str) -> None:
    found = verdict_on(failures=(text,))
    assert (found.verdict, found.slo, len(found.reasons)) == ("valid", "missed", 1)


def test_pods_that_came_up_after_the_wait_are_late_and_nothing_worse() -> None:
    rows = [*PULLS[:3], pull(3, None, size_bytes=GIB)]
    pods = [*PODS[:3], pod(3, ready=900.0, pulled=890.0, started=899.0)]
    found = verdict_on(rows=rows, pods=pods, failures=(TIMED_OUT,))
    assert (found.verdict, found.slo) == ("valid", "missed")
    assert found.reasons == ("1 of 4 pods not ready when the wait ended",)


@pytest.mark.parametrize("ready", [600.5, 596.0, 595.1])  # created at 1.0
def test_a_pod_that_came_up_after_cl2s_last_look_is_late_too(ready: float) -> None:
    found = verdict_on(pods=[*PODS[:3], pod(3, ready=ready)], failures=(TIMED_OUT,))
    assert (found.verdict, found.slo) == ("valid", "missed")
    assert found.reasons == (
        "1 of 4 pods not ready when the wait ended, or too late for ClusterLoader2's last look at "
        "them (1)",
    )


def test_a_pods_wait_began_with_the_first_of_its_deployment() -> None:
    early, late = pod(0, pod="d-a"), pod(1, pod="d-b", created=31.0, ready=620.0)
    rows = [pull(0, pod="d-a"), pull(1, pod="d-b"), *PULLS[2:]]
    found = verdict_on(rows=rows, pods=[early, late, *PODS[2:]], failures=(TIMED_OUT,))
    assert (found.verdict, found.slo) == ("valid", "missed")


def test_a_wait_that_timed_out_long_after_all_were_ready_is_a_failure() -> None:
    found = verdict_on(pods=[*PODS[:3], pod(3, ready=590.0)], failures=(TIMED_OUT,))
    assert (found.verdict, found.reasons) == ("failed", (TIMED_OUT,))


def test_every_reason_is_told_the_gravest_first() -> None:
    slow = "pod startup: too high latency 99th percentile: got 7m3s expected: 3m0s"
    rows = [*PULLS[:2], pull(3, 0.1), pull(2, temperature="unknown")]
    found = verdict_on(rows=rows, pods=PODS[:3], failures=(slow, "it broke"))
    assert found.verdict == "failed"
    assert found.reasons[0] == "it broke"
    assert found.reasons[-1].startswith("pod startup 99th percentile 7m3s")
    assert len(found.reasons) >= 4


# The simulator's luck


@pytest.mark.parametrize("replicas", [1, 25])
@pytest.mark.parametrize(("wait_s", "throttled"), [(5, 0), (20, 0.3)])
def test_a_wait_of_any_length_is_met_or_missed_and_never_a_failure(
    job: MakeJob, tmp_path: Path, wait_s: int, throttled: float, replicas: int
) -> None:
    few = ("nodes=3", "deployments=3", "image=resource_consumer", f"replicas={replicas}")
    faults = f"engine.faults.pull_shares.throttled={throttled}"
    slow = job(*few, f"wait_timeout={wait_s}s", faults)
    for trial in (1, 2):
        found = run(replace(slow, trial=trial), tmp_path / str(trial))
        assert found.verdict == "valid", found.reasons


@pytest.mark.parametrize(
    "overrides",
    [
        ("cluster=aks_d2s_v3", "image=resource_consumer"),
        ("cluster=aks_d4ds_v5", "image=resource_consumer"),
        ("cluster=aks_d16ds_v5", "image=resource_consumer"),
        ("cluster=aks_d16ds_v5", "image=even_5gb_10"),
        ("cluster.node.nic_mbit_s=200", "image=even_5gb_10"),  # the wire binds
        ("cluster.node.disk_write_mb_s=30", "image=even_5gb_1"),  # the disk binds, without burst
    ],
)
def test_the_luck_of_a_simulated_trial_never_looks_impossible(
    job: MakeJob, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    base = job(*overrides, "nodes=2", "deployments=2")
    # Three times the usual spread.
    rates = {**base.engine.rates, "trial_spread_sigma": 0.15, "node_spread_sigma": 0.12}
    for trial in range(1, 5):
        lucky = replace(base, trial=trial, engine=replace(base.engine, rates=rates))
        found = run(lucky, tmp_path / str(trial))
        assert found.verdict == "valid", found.reasons
