"""The simulator's laws as an engine: the test comes from the bundle, the world from the job."""

import json
import math
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from trials import Edit, MakeJob, Trial, moved, replaced, run

from imgpull import cl2, engines, render, units
from imgpull.engines.sim import SimEngine, _world
from imgpull.engines.sim.deployments import selects
from imgpull.engines.sim.interpreter import Interpreter
from imgpull.errors import ConfigError, RenderError

SMALL = ("image=resource_consumer", "nodes=3", "deployments=3")
SLOW_DISK = ("nodes=2", "deployments=2", "cluster=aks_d2s_v3", "cluster.node.disk_burst_mb_s=null")
SLOW = ("cluster.node.nic_mbit_s=400", "nodes=2", "deployments=2")  # 50 MB/s: the wire binds


class Trials:
    """Trials of one test module: each set of overrides runs once."""

    def __init__(self, job: MakeJob, directory: Path) -> None:
        self._job, self._directory = job, directory
        self._done: dict[tuple[str, ...], Trial] = {}

    def __call__(self, *overrides: str) -> Trial:
        if overrides not in self._done:
            out = self._directory / str(len(self._done))
            self._done[overrides] = run(self._job(*overrides), out)
        return self._done[overrides]


@pytest.fixture(scope="module")
def trial(job: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(job, tmp_path_factory.mktemp("trials"))


def junit_failures(trial: Trial) -> list[str]:
    root = ElementTree.parse(trial.directory / "report" / "junit.xml").getroot()
    return [element.text or "" for element in root.iter("failure")]


# The bundle is the test


@pytest.mark.parametrize(
    ("edit", "deployments", "pods"),
    [
        (replaced("replicasPerNamespace: 3", "replicasPerNamespace: 2"), 2, 2),
        (replaced("  replicas: 1", "  replicas: 4", file="deployment.yaml"), 3, 12),
    ],
)
def test_an_edit_of_the_rendered_yaml_changes_what_is_simulated(
    job: MakeJob, tmp_path: Path, edit: Edit, deployments: int, pods: int
) -> None:
    edited = run(job(*SMALL), tmp_path, edit=edit)
    owners = {row["pod"].rsplit("-", 2)[0] for row in edited.pods}
    assert (len(owners), len(edited.pods)) == (deployments, pods)


def test_what_the_job_says_of_the_test_does_not_reach_the_simulator(
    job: MakeJob, tmp_path: Path
) -> None:
    plain = job(*SMALL)
    other = replace(plain, deployments=9, replicas=5, qps=0.5, wait_timeout_s=1.0)
    left = run(plain, tmp_path / "a", judged_as=plain)
    right = run(other, tmp_path / "b", bundle_of=plain, judged_as=plain)
    assert left.bytes_by_file() == right.bytes_by_file()


def test_the_world_comes_from_the_job_and_not_from_the_bundle(job: MakeJob, tmp_path: Path) -> None:
    plain, other = job(*SMALL), job(*SMALL, "nodes=1", "cluster.node_prefix=aks-measured-x-")
    moved = run(other, tmp_path, bundle_of=plain)
    assert {row["node"] for row in moved.pods} == {"aks-measured-x-000000"}


@pytest.mark.parametrize("qps", [0.5, 3, 10, 200])
def test_deployments_are_created_no_faster_than_the_bundle_says(
    job: MakeJob, tmp_path: Path, qps: float
) -> None:
    files = replaced("qps: 10 ", f"qps: {qps} ")(render.render(job()))
    test = cl2.load_test(render.write(files, tmp_path).test_config)
    playing = Interpreter(_world(job()), test, 15.0)
    for step in test.steps[: [step.name for step in test.steps].index("Create Deployments") + 1]:
        playing.step(step)
    stamps = [pod.owner_created_s for pod in playing.pods]
    gaps = [after - before for before, after in pairwise(stamps)]
    assert len(stamps) == 10
    assert min(gaps) >= 1 / qps - 1e-9
    assert max(gaps) <= 1 / qps + 1e-6
    assert playing.clock_s >= stamps[-1] + 1 / qps - 1e-6  # CL2's step ends a gap after the last


def test_a_label_selector_that_matches_nothing_waits_for_one_look_as_in_cl2(
    job: MakeJob, tmp_path: Path
) -> None:
    edit = replaced("labelSelector: group = imgpull", "labelSelector: group = imgpul", count=2)
    blind = run(job("nodes=2", "deployments=2"), tmp_path, edit=edit)
    waits = cl2.read_report(tmp_path / "report").junit
    assert waits is not None
    assert [case.time_s for case in waits.cases if case.step_name == "Wait for pods to run"] == [5]
    assert ("pod_startup", "p50") not in blind.numbers


def test_label_selectors_are_read_as_the_api_does() -> None:
    labels = {"group": "imgpull", "name": "x"}
    assert all(selects(s, labels) for s in ("", "group = imgpull", "group==imgpull,name=x"))
    assert not any(selects(s, labels) for s in ("group=x", "other=imgpull", "group=imgpull,name=y"))
    with pytest.raises(ValueError, match="no KEY=VALUE"):
        selects("group in (a, b)", labels)


# Same seed, same bytes


def test_two_runs_of_one_job_leave_the_same_bytes(job: MakeJob, tmp_path: Path) -> None:
    left, right = (run(job("replicas=2"), tmp_path / side).bytes_by_file() for side in "ab")
    assert left == right
    assert {"pulls.csv", "measurements.csv", "events.jsonl", "pods.csv", "series.csv"} < set(left)
    assert sum(name.startswith("report/") for name in left) > 10


@pytest.mark.parametrize("other", ["seed=1", "trial=2"])
def test_another_seed_or_trial_has_other_luck(trial: Trials, other: str) -> None:
    assert trial(*SMALL).numbers != trial(*SMALL, other).numbers


# Physics that a reader can check by hand


@pytest.mark.parametrize(
    ("overrides", "halved"),
    [
        (SLOW, "cluster.node.nic_mbit_s=200"),
        (SLOW_DISK, "cluster.node.disk_write_mb_s=24"),
    ],
)
def test_half_of_what_binds_slows_the_pull_and_nothing_before_it(
    trial: Trials, overrides: tuple[str, ...], halved: str
) -> None:
    fast, slow = trial(*overrides).numbers, trial(*overrides, halved).numbers
    assert slow["image_pull", "p50"] > 1.5 * fast["image_pull", "p50"]
    assert slow["node_throughput", "p50"] < fast["node_throughput", "p50"] / 1.5
    assert slow["data", "total"] == fast["data", "total"]
    for untouched in (("pod_create_to_schedule", "p50"), ("network_setup", "mean")):
        assert slow[untouched] == fast[untouched]


def test_more_pods_on_a_node_move_no_more_bytes_and_wait_no_longer_than_one_pull(
    trial: Trials,
) -> None:
    one, five = trial("nodes=2", "deployments=2"), trial("nodes=2", "deployments=2", "replicas=5")
    assert five.numbers["data", "total"] == one.numbers["data", "total"]
    leaders = {row["node"]: row for row in five.pulls if row["leader"] == "true"}
    assert sorted(leaders) == sorted({row["node"] for row in five.pods})
    for row in five.pulls:
        leader = leaders[row["node"]]
        assert float(row["pull_s"]) <= float(leader["pull_s"]) + 0.1
        if row is not leader:
            assert (row["leader"], row["fetched_bytes"], row["temperature"]) == (
                "false",
                "0",
                "cold",
            )


def test_results_name_the_leader_that_the_physics_had(job: MakeJob, tmp_path: Path) -> None:
    busy = job("nodes=2", "deployments=2", "replicas=8", "cluster.kubelet.registryPullQPS=0")
    found = run(busy, tmp_path)
    world = _world(busy)
    test = cl2.load_test(tmp_path / "bundle" / render.TEST_CONFIG)
    playing = Interpreter(world, test, 15.0)
    for step in test.steps:
        playing.step(step)
    pods = playing.trace().pods
    real = {pod.request.name for pod in pods if any(one.leader for one in pod.attempts)}
    assert real
    assert {row["pod"] for row in found.pulls if row["leader"] == "true"} == real


# Slowness is a result


def test_a_missed_threshold_is_told_in_cl2s_words_and_leaves_the_trial_valid(
    job: MakeJob, tmp_path: Path
) -> None:
    late = run(job("nodes=2", "deployments=2", "pod_startup_threshold=10s"), tmp_path)
    got = units.go_duration(late.numbers["pod_startup", "p50"])
    words = f"pod startup: too high latency 50th percentile: got {got} expected: 10s"
    whole = f"measurement call PodStartupLatency - PodStartupLatency error: {words}"
    assert [whole in text for text in junit_failures(late)] == [True, True]  # step and overall
    assert (late.verdict, late.slo) == ("valid", "missed")
    assert late.reasons == (f"pod startup 50th percentile {got}, limit 10s",)


@pytest.mark.parametrize("metrics_wait", ["10m", "auto"])
@pytest.mark.parametrize("cluster", ["aks_d4ds_v5", "aks_d2s_v3"])
def test_a_pull_not_over_when_the_wait_ends_is_censored_and_no_fault(
    trial: Trials, metrics_wait: str, cluster: str
) -> None:
    short = trial("wait_timeout=1m", f"metrics_wait={metrics_wait}", f"cluster={cluster}")
    assert {row["outcome"] for row in short.pulls} == {"censored"}
    assert {row["pull_s"] for row in short.pulls} == {""}
    assert (short.verdict, short.slo) == ("valid", "missed")
    assert "10 of 10 pods not ready when the wait ended" in short.reasons
    assert ("image_pull", "p50") not in short.numbers
    assert 58 < short.numbers["image_pull", "p50_at_least"] <= 60
    assert ("data", "total") not in short.numbers
    assert ("node_throughput", "p50") not in short.numbers
    assert short.numbers["validity", "censored"] == 10
    assert all(math.isfinite(value) for value in short.numbers.values())


def test_pods_that_came_too_late_are_listed_as_cl2_lists_them(trial: Trials) -> None:
    short = trial("wait_timeout=1m", "metrics_wait=10m", "cluster=aks_d4ds_v5")
    (path,) = short.report_files("WaitForControlledPodsRunning_")
    listed = json.loads(path.read_text("utf-8"))
    assert {pod["name"] for pod in listed} == {row["pod"] for row in short.pods}
    assert {pod["status"] for pod in listed} == {"PendingScheduled"}
    assert "10 objects timed out: Deployments: imgpull-1/imgpull-0" in junit_failures(short)[0]


def test_pulls_beyond_kubelets_burst_are_rejected_and_come_again(trial: Trials) -> None:
    dense = trial("nodes=2", "deployments=2", "replicas=20")
    rejected = [row for row in dense.pulls if row["failure"]]
    assert {row["failure"] for row in rejected} == {"qps_exceeded"}
    assert {row["message"] for row in rejected} == {"pull QPS exceeded"}
    assert {row["outcome"] for row in rejected} == {"pulled"}
    assert min(int(row["attempts"]) for row in rejected) == 2
    assert {row["leader"] for row in rejected} == {"false"}
    assert dense.numbers["validity", "throttled"] == len(rejected) > 0
    assert dense.numbers["image_pull", "n"] == 2
    assert (dense.verdict, dense.slo) == ("valid", "met")


def test_a_rejected_pod_still_pulling_at_the_end_is_censored_and_not_failed(
    trial: Trials,
) -> None:
    cut = trial("nodes=1", "deployments=1", "replicas=20", "wait_timeout=30s", "metrics_wait=auto")
    assert {row["outcome"] for row in cut.pulls if row["failure"]} == {"censored"}
    assert cut.verdict == "valid"


# Queries


def test_tear_down_is_there_after_the_deletion_twice_a_pod(trial: Trials) -> None:
    assert trial(*SMALL).numbers["network_teardown", "n"] == 6
    assert trial(*SMALL).numbers["network_setup", "n"] == 3


def test_tear_down_gathered_before_the_deletion_shows_none(job: MakeJob, tmp_path: Path) -> None:
    def edit(files: dict[str, str]) -> dict[str, str]:
        gathered = moved("Gather network tear-down", before="Delete Deployments")(files)
        return moved("Two scrapes after", before="Gather network tear-down")(gathered)

    early = run(job(*SMALL), tmp_path, edit=edit)
    assert not any(name == "network_teardown" for name, _ in early.numbers)
    (path,) = early.report_files("GenericPrometheusQuery NetworkTeardown_")
    assert json.loads(path.read_text("utf-8"))["dataItems"] is None
    assert early.verdict == "invalid"
    assert "NetworkTeardown/p50, NetworkTeardown/p90, NetworkTeardown/p99" in early.reasons[0]


def test_a_window_of_no_length_is_a_query_error_as_prometheus_says(
    job: MakeJob, tmp_path: Path
) -> None:
    edit = moved("Gather network tear-down", before="Delete Deployments")
    early = run(job(*SMALL), tmp_path, edit=edit)
    assert not early.report_files("GenericPrometheusQuery NetworkTeardown_")
    assert not any(name == "network_teardown" for name, _ in early.numbers)
    assert early.numbers["network_setup", "n"] == 3  # the other measurements go on
    assert early.verdict == "failed"
    assert "NetworkTeardown error: query error: " in early.reasons[0]


def test_a_number_comes_from_the_bundles_own_query(job: MakeJob, tmp_path: Path) -> None:
    many = job("nodes=1", "deployments=40", "qps=20", "image=resource_consumer")
    p50 = "histogram_quantile(0.5, sum by (le)"
    plain = run(many, tmp_path / "a").numbers
    edit = replaced(p50, p50.replace("0.5", "0.9"), count=2)  # set-up and tear-down
    edited = run(many, tmp_path / "b", edit=edit).numbers
    assert plain["network_setup", "p50"] < plain["network_setup", "p90"]
    assert edited["network_setup", "p50"] == plain["network_setup", "p90"]


def test_an_infinite_sample_fails_its_measurement_as_go_does(job: MakeJob, tmp_path: Path) -> None:
    def edit(files: dict[str, str]) -> dict[str, str]:
        text = files[render.TEST_CONFIG]
        count = re.search(r"metricName: ContainerdPulls.*?query: '(.*?)'", text, re.DOTALL)
        assert count
        return {**files, render.TEST_CONFIG: text.replace(count[1], f"({count[1]}) / 0")}

    broken = run(job(*SMALL), tmp_path, edit=edit)
    assert broken.verdict == "failed"
    assert "ContainerdPulls error: building encoder error" in broken.reasons[0]
    assert not broken.report_files("GenericPrometheusQuery ContainerdPulls_")


# Temperature


def test_a_warm_cache_pulls_nothing_and_says_so(trial: Trials) -> None:
    warm = trial(*SMALL, "cache=warm")
    assert {(row["outcome"], row["temperature"], row["attempts"]) for row in warm.pulls} == {
        ("present", "warm", "0")
    }
    assert warm.numbers["validity", "cold_share"] == 0
    assert ("image_pull", "p50") not in warm.numbers
    assert ("data", "total") not in warm.numbers
    assert (warm.verdict, warm.reasons) == ("valid", ())


def test_a_world_that_is_warm_where_cold_was_promised_is_invalid(
    job: MakeJob, tmp_path: Path
) -> None:
    cold = job(*SMALL)
    lie = run(job(*SMALL, "cache=warm"), tmp_path, bundle_of=cold, judged_as=cold)
    assert lie.verdict == "invalid"
    assert "cache=cold, but 100% of nodes had the image or part of it already" in lie.reasons


def test_a_simulated_trial_cannot_pass_for_a_seen_one(trial: Trials) -> None:
    small = trial(*SMALL)
    assert {row["source"] for row in small.pulls} == {"sim"}
    assert all("simulated" in event["source"]["component"] for event in small.events)
    assert "simulated, not measured" in small.outcome.measured_by
    assert small.outcome.virtual_s is not None


def test_series_hold_every_byte_at_no_more_than_200_points_a_node(trial: Trials) -> None:
    for overrides, size in ((SMALL, 50_000_000), (SLOW, 6_551_200_000)):
        found = trial(*overrides)
        text = (found.directory / "series.csv").read_text("utf-8").splitlines()[1:]
        assert max(Counter(line.split(",")[1] for line in text).values()) <= 200
        for row in found.pulls:
            assert int(row["fetched_bytes"]) == pytest.approx(size, rel=1e-3)


# What cannot be played is refused before anything runs


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (replaced("Method: Sleep", "Method: Exec", count=3),
         r"image-pull\.yaml:\d+: Exec - RoomBefore: method 'Exec' is unknown"),
        (replaced("kind: Deployment", "kind: StatefulSet", file="deployment.yaml"),
         r"deployment\.yaml:3: .*not StatefulSet"),
        (replaced("kind: Deployment", "kind: StatefulSet"),
         r"image-pull\.yaml:\d+: WaitForControlledPodsRunning - PodsRunning: .*not StatefulSet"),
        (replaced("query: 'quantile(0.99", "query: 'quantile_over_time(0.99"),
         r"image-pull\.yaml:\d+: GenericPrometheusQuery - ContainerdThroughput: p99: "),
        (replaced("'histogram_quantile(0.5, sum by (node, le) (kubelet_image_pull_duration",
                  "'histogram_quantile(0.5, sum by (node, le) (kubelet_image_pul_duration"),
         r"image-pull\.yaml:\d+: .*KubeletImagePull: p50: .*kubelet_image_pul_duration"),
        (replaced("labelSelector: group = imgpull", "labelSelector: group in (imgpull)", count=2),
         r"image-pull\.yaml:\d+: PodStartupLatency - PodStartupLatency: labelSelector"),
        (replaced("pytorch:large", "pytorch:larg", file="deployment.yaml"),
         r"deployment\.yaml:\d+: image 'example.azurecr.io/pytorch:larg' is not in the simulated"),
        (replaced("      containers:", "      initContainers: [{name: x}]\n      containers:",
                  file="deployment.yaml"),
         r"deployment\.yaml:\d+: spec\.template\.spec\.initContainers: .*does not play this field"),
        (replaced('"15s"', '"15x"', file="overrides.yaml"), r"overrides\.yaml: '15x'"),
    ],
)  # fmt: skip
def test_what_the_simulator_would_have_to_ignore_is_refused_by_name_and_line(
    job: MakeJob, tmp_path: Path, edit: Edit, words: str
) -> None:
    files = edit(render.render(job()))
    with pytest.raises(RenderError, match=words) as refused:
        engines.build(job()).validate(files)
    assert refused.value.hint
    assert not list(tmp_path.iterdir())


def test_a_world_that_cannot_be_simulated_is_refused_by_check(job: MakeJob) -> None:
    plain = job()
    bare = replace(plain, image=replace(plain.image, layers=()))
    with pytest.raises(ConfigError, match="no layer table"):
        SimEngine(bare).check()
    for rates, words in (
        ({**plain.engine.rates, "gzip_unpak_bytes_s": 1.0}, "unknown key 'engine.rates.gzip_unpak"),
        ({**plain.engine.rates, "resolve_s": 0.0}, "engine.rates.resolve_s=0.0 is not above zero"),
        ({"resolve_s": 1.0}, "has no value"),
    ):
        with pytest.raises(ConfigError, match=words):
            SimEngine(replace(plain, engine=replace(plain.engine, rates=rates))).check()
