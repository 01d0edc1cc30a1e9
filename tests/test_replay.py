"""Recorded reports through the whole path: real numbers, honest verdicts, nothing guessed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from trials import MakeJob, Trial, run

from imgpull import engines
from imgpull.config.job import Job
from imgpull.config.schema import ReplayEngine
from imgpull.errors import ConfigError, ReportError

DATA = Path(__file__).parent / "data"
REPORTS = DATA / "cl2-reports"
OWN = REPORTS / "own-2026-two-nodes"
TELESCOPE = REPORTS / "telescope-cri-resource-consumer-fail-20250503"
NETPOL = REPORTS / "telescope-network-policy-scale-pass-20250304"
MIB = 1024**2

Replay = Callable[..., Trial]


@pytest.fixture
def replay(job: MakeJob, tmp_path: Path) -> Replay:
    """Take a report (a copy of it, with files added) through engine, results and verdict."""

    def replayed(report: Path, **added: Any) -> Trial:
        return run(replaying(job, _copy(report, tmp_path, added)), tmp_path / "out")

    return replayed


def replaying(job: MakeJob, directory: Path) -> Job:
    """The job that replays a directory."""
    plain = job("engine=replay", "engine.report=DIR")  # composed once for all
    return replace(plain, engine=ReplayEngine(report=str(directory)))


def _copy(report: Path, tmp_path: Path, added: dict[str, Any]) -> Path:
    directory = tmp_path / report.name
    shutil.copytree(report, directory)
    if "said" in added:
        (directory / "replay.yaml").write_text(yaml.safe_dump(added["said"]), "utf-8")
    if "events" in added:
        text = json.dumps({"kind": "List", "items": added["events"]})
        (directory / "events.json").write_text(text, "utf-8")
    return directory


def refusal(job: MakeJob, tmp_path: Path, report: Path = OWN, **added: Any) -> str:
    directory = _copy(report, tmp_path, added)
    with pytest.raises((ConfigError, ReportError)) as refused:
        engines.build(replaying(job, directory)).check()
    assert refused.value.hint
    return str(refused.value)


# What was recorded, and what it is worth


def test_a_mean_that_no_single_pull_can_reach_makes_the_report_invalid(replay: Replay) -> None:
    own = replay(OWN)
    assert (own.verdict, own.slo) == ("invalid", "met")
    assert "mean21 is 2,523 MiB/s" in own.reasons[0]
    assert "a single pull's hashing and unpacking" in own.reasons[0]
    assert own.reasons[0].endswith("the node was warm")
    assert own.reasons[1:] == ("no pull events: pulls are unknown",)


def test_the_invalid_reports_real_numbers_are_kept_in_base_units(replay: Replay) -> None:
    numbers = replay(OWN).numbers
    assert numbers["pod_startup", "p50"] == 1.356115592
    assert numbers["pod_startup", "p99"] == 4.739729293
    assert numbers["pod_schedule_to_run", "p90"] == 4.705749977
    # containerd divides by 2^20; the config called it MB/s.
    mean, warm = "image_pull_throughput", ("image_pull_throughput", "mean21")
    assert numbers[warm] / MIB == pytest.approx(2522.9230451678086, rel=1e-11)
    assert numbers[mean, "mean17"] / MIB == pytest.approx(64.37021684904175, rel=1e-11)
    # A counter's growth is a count, whatever unit its measurement has.
    assert numbers[mean, "count17"] == pytest.approx(2.1052631578947367, rel=1e-11)
    # The histogram ends at 10 MiB/s: a bound, not a median.
    assert numbers[mean, "p50of17_at_least"] / MIB == 10
    assert (mean, "p50of17") not in numbers


def test_nothing_is_said_of_pulls_that_nobody_saw(replay: Replay) -> None:
    own = replay(OWN)
    told = {name for name, _ in own.numbers}
    assert not told & {"validity", "image_pull", "image_pull_wait", "node_throughput", "data"}
    assert own.pulls == []


def test_a_failed_report_fails_with_cl2s_own_reason_and_keeps_its_numbers(replay: Replay) -> None:
    failed = replay(TELESCOPE)
    assert failed.verdict == "failed"
    assert failed.reasons[0] == (
        "measurement call WaitForControlledPodsRunning - WaitForRunningLatencyDeployments error: "
        "1 objects timed out: Deployments: resource-consumer-1/resource-consumer-0-0"
    )
    recorded = next(TELESCOPE.glob("PodStartupLatency_*"))
    (item,) = (
        item["data"]
        for item in json.loads(recorded.read_text("utf-8"))["dataItems"]
        if item["labels"]["Metric"] == "pod_startup"
    )
    found = [failed.numbers["pod_startup", f"p{percentile}"] for percentile in (50, 90, 99)]
    assert found == pytest.approx([item[f"Perc{p}"] / 1000 for p in (50, 90, 99)], rel=1e-12)


def test_an_old_report_is_as_good_as_its_files(replay: Replay) -> None:
    old = replay(REPORTS / "own-2021-two-nodes")
    assert (old.verdict, old.slo) == ("degraded", "met")
    assert old.reasons == ("no pull events: pulls are unknown",)
    assert old.numbers["pod_startup", "p50"] > 0
    assert ("pod_create_to_run", "p50") not in old.numbers  # it came in 2026


def test_a_report_of_junit_alone_says_nothing_of_startup(replay: Replay) -> None:
    bare = replay(REPORTS / "telescope-autoscale-pass")
    assert (bare.verdict, bare.slo, bare.numbers) == ("degraded", "unknown", {})


def test_foreign_measurements_keep_their_names_and_numbers(replay: Replay) -> None:
    passed = replay(NETPOL)
    assert passed.verdict == "degraded"
    recorded = json.loads(next(NETPOL.glob("GenericPrometheusQuery*")).read_text("utf-8"))
    (item,) = recorded["dataItems"]
    found = {key: passed.numbers["cilium_envoy_http_metrics", key] for key in item["data"]}
    assert found == pytest.approx(item["data"], rel=1e-11)


def test_a_hand_made_report_of_another_shape_is_read_with_what_it_has(replay: Replay) -> None:
    made = replay(REPORTS / "telescope-network-scale-handmade")
    assert made.verdict == "degraded"
    assert made.of_nodes("cilium_avg_cpu_usage", "value") == {
        "Perc50": 0.1, "Perc90": 0.3, "Perc99": 0.5,
    }  # fmt: skip


def test_a_hand_made_report_with_a_test_alone_has_no_numbers(replay: Replay) -> None:
    made = replay(REPORTS / "telescope-job-scheduling-branch")
    assert (made.verdict, made.numbers) == ("degraded", {})


def test_a_file_of_unknown_shape_is_refused_by_name(job: MakeJob, tmp_path: Path) -> None:
    directory = _copy(OWN, tmp_path, {})
    (path,) = directory.glob("GenericPrometheusQuery*")
    path.write_text('{"items": []}', "utf-8")
    with pytest.raises(ReportError, match="GenericPrometheusQuery ImagePullThroughput") as refused:
        engines.build(replaying(job, directory)).check()
    assert refused.value.hint


# replay.yaml: what it says is used, the rest is unknown

SAID = {
    "measured_by": "ClusterLoader2 4b34154", "deployments": 1, "replicas": 4, "qps": 5, "nodes": 2,
    "cache": "as_is", "image": "big", "cluster": "two-vms", "kubernetes": "1.36",
    "containerd": "2.1.9", "image_reference": "127.0.0.1:5000/bench/big:v1",
    "layers": [{"compressed_bytes": "264MB", "unpacked_bytes": "500MB"}],
    "factors": {"churn": 1},
}  # fmt: skip


def test_without_a_description_nothing_is_known_least_of_all_the_defaults(replay: Replay) -> None:
    own = replay(OWN)
    known = {name: level for name, level in own.subject.factors.items() if level is not None}
    assert known == {"report": OWN.name}
    assert {key: v for key, v in own.subject.fingerprint.items() if v is not None} == {
        "engine": "replay"
    }
    assert own.subject.pods is None
    assert own.subject.compressed_bytes is None
    assert own.subject.label == OWN.name
    assert own.outcome.measured_by.startswith("unknown")
    assert own.outcome.virtual_s is None


def test_what_the_description_says_is_used_and_what_it_does_not_is_unknown(replay: Replay) -> None:
    own = replay(OWN, said=SAID)
    assert own.subject.factors == {
        "deployments": 1, "replicas": 4, "qps": 5, "nodes": 2, "image": "big",
        "cluster": "two-vms", "cache": "as_is", "churn": 1, "report": OWN.name,
    }  # fmt: skip
    assert (own.subject.pods, own.subject.nodes, own.subject.cache) == (4, 2, "as_is")
    assert own.subject.compressed_bytes == 264_000_000
    assert own.subject.fingerprint["containerd"] == "2.1.9"
    assert own.subject.fingerprint["vm_size"] is None
    assert own.outcome.measured_by == "ClusterLoader2 4b34154"
    assert own.outcome.versions == {"kubernetes": "1.36", "containerd": "2.1.9"}


def test_a_promised_temperature_that_nobody_saw_is_invalid(replay: Replay) -> None:
    old = replay(REPORTS / "own-2021-two-nodes", said={"cache": "cold"})
    assert old.verdict == "invalid"
    assert old.reasons == ("no pull was seen: cache=cold cannot be verified",)


def test_a_described_nic_is_a_limit_too(replay: Replay) -> None:
    slow = replay(OWN, said={"nic_mbit_s": 400})
    assert "more than the node's NIC can do (48 MiB/s)" in slow.reasons[0]
    assert "(and 1 more)" in slow.reasons[0]  # mean17 is 64


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"deploymnts": 1}, "unknown key 'deploymnts'.*did you mean 'deployments'"),
        ({"nodes": "two"}, "nodes='two' is of the wrong type"),
        ({"nodes": True}, "nodes=True is of the wrong type"),
        ({"nodes": 0}, "nodes=0 is not above zero"),
        ({"cache": "frozen"}, "cache=frozen.*choose one of cold, warm, as_is"),
        ({"layers": [{"compressed_bytes": "1GB"}]}, "a layer is .*unpacked_bytes"),
        ({"layers": [7]}, "a layer is "),
        ([1, 2], "not a mapping"),
    ],
)
def test_a_description_with_a_mistake_is_refused_with_the_fix(
    job: MakeJob, tmp_path: Path, said: object, words: str
) -> None:
    directory = _copy(OWN, tmp_path, {"said": said})
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        engines.build(replaying(job, directory))


def test_a_description_that_is_no_yaml_is_refused(job: MakeJob, tmp_path: Path) -> None:
    directory = _copy(OWN, tmp_path, {})
    (directory / "replay.yaml").write_text("nodes: [", "utf-8")
    with pytest.raises(ConfigError, match=r"replay\.yaml"):
        engines.build(replaying(job, directory))


def test_reports_that_differ_in_a_byte_are_different_cells(job: MakeJob, tmp_path: Path) -> None:
    for side, added in (("a", {}), ("b", {}), ("c", {"said": {"nodes": 2}})):
        (tmp_path / side).mkdir()
        _copy(OWN, tmp_path / side, added)
    a, b, c = (engines.build(replaying(job, tmp_path / side / OWN.name)).subject for side in "abc")
    assert a.cell_id == b.cell_id != c.cell_id


# Events: only the run's own

RUN_BEGAN = datetime(2026, 11, 23, 21, 31, 3, tzinfo=UTC)
_STAMPS = ("firstTimestamp", "lastTimestamp", "eventTime")


def recorded_events() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DATA / "kube-events" / "two-nodes.json").read_text())
    return found


def events_of_the_run(shift: timedelta = timedelta(0)) -> list[dict[str, Any]]:
    """The recorded wave of four pods on two nodes, moved into the run and its namespace."""
    pods = ("big-7bf6dbf68b-59c9g", "big-7bf6dbf68b-662ss", "big-7bf6dbf68b-m4tt6",
            "big-7bf6dbf68b-q7tdm")  # fmt: skip
    wave = [event for event in recorded_events() if event["involvedObject"]["name"] in pods]
    first = min(datetime.fromisoformat(event[s]) for event in wave for s in _STAMPS if event.get(s))
    moved = []
    for event in wave:
        stamps = {
            s: (datetime.fromisoformat(event[s]) - first + RUN_BEGAN + shift).isoformat()
            for s in _STAMPS
            if event.get(s)
        }
        about = {**event["involvedObject"], "namespace": "test-hffhls-1"}
        moved.append({**event, **stamps, "involvedObject": about})
    return moved


def test_events_of_the_run_become_pulls_with_one_leader_a_node(replay: Replay) -> None:
    own = replay(OWN, events=events_of_the_run(), said=SAID)
    leaders = {row["node"]: row["pod"] for row in own.pulls if row["leader"] == "true"}
    assert leaders == {"node1": "big-7bf6dbf68b-662ss", "node2": "big-7bf6dbf68b-q7tdm"}
    assert {row["pod"]: float(row["pull_s"]) for row in own.pulls} == {
        "big-7bf6dbf68b-59c9g": 8.013, "big-7bf6dbf68b-662ss": 7.097,
        "big-7bf6dbf68b-m4tt6": 6.813, "big-7bf6dbf68b-q7tdm": 8.283,
    }  # fmt: skip
    assert {row["source"] for row in own.pulls} == {"event"}
    assert {row["size_bytes"] for row in own.pulls} == {"264056486"}
    assert own.numbers["image_pull", "max"] == 8.283
    assert own.numbers["data", "total"] == 2 * 264_056_486
    assert own.numbers["validity", "leaders"] == 2


def test_with_events_containerds_mean_is_judged_only_if_it_counted_the_leaders(
    replay: Replay,
) -> None:
    # Its own count is not in this report, so whether it holds warm pulls is unknown.
    own = replay(OWN, events=events_of_the_run(), said=SAID)
    assert (own.verdict, own.reasons) == ("valid", ())


def test_pods_of_other_namespaces_are_not_the_trials(replay: Replay) -> None:
    strangers = [
        {**event, "involvedObject": {**event["involvedObject"], "namespace": "default"}}
        for event in events_of_the_run()
    ]
    assert replay(OWN, events=strangers).pulls == []


def test_fewer_pulls_than_pods_asked_for_are_unseen(replay: Replay) -> None:
    own = replay(OWN, events=events_of_the_run(), said={**SAID, "replicas": 8})
    assert own.verdict == "invalid"
    assert own.reasons == ("50% of pulls were not seen",)


def test_events_are_not_copied_into_the_report(replay: Replay) -> None:
    own = replay(OWN, events=events_of_the_run())
    assert not own.report_files("events")
    assert len(own.events) == len(events_of_the_run())


@pytest.mark.parametrize("shift", [timedelta(minutes=-5), timedelta(minutes=5)])
def test_events_outside_the_runs_window_are_refused_before_anything_runs(
    job: MakeJob, tmp_path: Path, shift: timedelta
) -> None:
    message = refusal(job, tmp_path, events=events_of_the_run(shift))
    assert "lies outside the run's window (2026-11-23T21:30:5" in message


def test_the_recorded_events_as_they_are_belong_to_another_run(
    job: MakeJob, tmp_path: Path
) -> None:
    items = recorded_events()
    assert "lies outside the run's window" in refusal(job, tmp_path, events=items)


def test_events_of_a_report_without_times_cannot_be_placed(job: MakeJob, tmp_path: Path) -> None:
    report = REPORTS / "telescope-autoscale-pass"
    message = refusal(job, tmp_path, report, events=events_of_the_run())
    assert "does not say when it ran" in message


@pytest.mark.parametrize(
    ("stamp", "words"),
    [("yesterday", "yesterday"), ("2026-11-23T21:31:05", "names no zone"), (5, "must be str")],
)
def test_events_without_a_readable_time_are_refused(
    job: MakeJob, tmp_path: Path, stamp: object, words: str
) -> None:
    event = {**events_of_the_run()[1], "lastTimestamp": stamp}
    assert words in refusal(job, tmp_path, events=[event])


@pytest.mark.parametrize("text", ["{", '{"kind": "Event"}', "[1, 2]", "3"])
def test_an_event_file_that_is_none_is_refused(job: MakeJob, tmp_path: Path, text: str) -> None:
    directory = _copy(OWN, tmp_path, {})
    (directory / "events.json").write_text(text, "utf-8")
    with pytest.raises(ReportError, match=r"events\.json"):
        engines.build(replaying(job, directory)).check()
