"""Laws of bundles: the golden files, and what a test must be whatever a Job asks for."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgpull import cl2, engines, exporters, render, units
from imgpull.config import job as jobs
from imgpull.simcluster import promql

Compose = Callable[..., dict[str, Any]]
MakeJob = Callable[..., jobs.Job]
Files = Mapping[str, str]

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent for path in GOLDEN.glob("*/overrides.txt"))
QUERY = "GenericPrometheusQuery"
YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def overrides(case: Path) -> list[str]:
    """The overrides of a golden case: a line each, comments and empty lines aside."""
    lines = case.joinpath("overrides.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case_job(request: pytest.FixtureRequest, job: MakeJob) -> jobs.Job:
    """The Job of each golden case in turn."""
    return job(*overrides(request.param))


@pytest.fixture
def test_of(tmp_path: Path) -> Callable[[Files], cl2.TestConfig]:
    """Reads a bundle's test as the simulator does."""
    return lambda files: cl2.load_test(render.write(files, tmp_path / "bundle").test_config)


# --------------------------------------------------------------------------------- golden files


def compare_with_golden(case: Path, files: Files, *, rewrite: bool) -> None:
    """Assert that a case's expected/ holds exactly these files; rewritten first when asked."""
    expected = case / "expected"
    if rewrite:
        shutil.rmtree(expected, ignore_errors=True)
        render.write(files, expected)
    found = {path.name: path.read_bytes() for path in expected.glob("*")}
    rendered = {name: text.encode() for name, text in files.items()}
    assert found == rendered, "if this is meant: make golden, and read the difference"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bundle_is_the_golden_one_byte_for_byte(case: Path, job: MakeJob) -> None:
    files = render.render(job(*overrides(case)))
    compare_with_golden(case, files, rewrite=os.environ.get("IMGPULL_GOLDEN") == "1")


def test_golden_files_are_rewritten_when_asked_and_only_then(tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    with pytest.raises(AssertionError, match="make golden"):
        compare_with_golden(tmp_path, {"a.yaml": "a: 1\n"}, rewrite=False)
    assert not expected.exists()
    compare_with_golden(tmp_path, {"a.yaml": "a: 1\n"}, rewrite=True)
    compare_with_golden(tmp_path, {"a.yaml": "a: 1\n"}, rewrite=False)
    compare_with_golden(tmp_path, {"b.yaml": "b: 1\n"}, rewrite=True)
    assert [path.name for path in expected.iterdir()] == ["b.yaml"]  # nothing stale is left


# -------------------------------------------------------------------------- what a bundle must be


def calls(test: cl2.TestConfig, action: str = "") -> Iterator[tuple[int, cl2.MeasurementCall]]:
    """Every measurement call with the index of its step."""
    for index, step in enumerate(test.steps):
        for call in step.measurements:
            if action in ("", call.action):
                yield index, call


def queries(test: cl2.TestConfig) -> dict[str, cl2.Query]:
    """Every query by Identifier/name."""
    return {
        f"{call.identifier}/{query.name}": query
        for _, call in calls(test, "start")
        if call.method == QUERY
        for query in cl2.prometheus_queries(call).queries
    }


def step_of(test: cl2.TestConfig, identifier: str, action: str = "") -> int:
    """The index of the one step that makes this call."""
    (index,) = (i for i, call in calls(test, action) if call.identifier == identifier)
    return index


def phase_steps(test: cl2.TestConfig) -> tuple[int, int]:
    """The steps that create and that delete the Deployments."""
    created, deleted = (i for i, step in enumerate(test.steps) if step.phases)
    return created, deleted


def slept_s(test: cl2.TestConfig, begin: int, end: int) -> float:
    """Seconds of Sleep in the steps between two others."""
    return sum(
        units.parse_duration(call.params["duration"])
        for index, call in calls(test)
        if call.method == "Sleep" and begin < index < end
    )


def test_every_file_is_yaml_and_none_is_missing(case_job: jobs.Job) -> None:
    files = render.render(case_job)
    assert tuple(files) == render.FILES
    for text in files.values():
        assert isinstance(yaml.load(text, YAML), dict)
        assert "<%" not in re.sub(r"args: .*", "", text)


def test_every_bundle_is_taken_by_cl2_s_rules_and_by_the_simulator(
    case_job: jobs.Job, tmp_path: Path
) -> None:
    files = render.render(case_job)
    render.check(files)
    bundle = render.write(files, tmp_path)
    cl2.require_supported(cl2.load_test(bundle.test_config))
    engines.build(case_job).validate(files)


def test_every_query_parses_asks_the_measured_nodes_and_this_trial_s_window(
    case_job: jobs.Job, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    found = queries(test_of(render.render(case_job)))
    assert len(found) > 10
    known = exporters.known_metrics(case_job.cluster.containerd_version)
    prefix = case_job.cluster.node_prefix.replace(".", "[.]")
    for name, query in found.items():
        render.check_query(query.query, name)
        assert "%v" in query.query
        assert "rate(" not in query.query  # it would lose the first value of a newborn series
        assert promql.metric_names(query.query.replace("%v", "600s")) <= known
        selectors = re.findall(r"\{([^}]*)\}", query.query)
        assert selectors
        assert all(f'node=~"{prefix}.+"' in selector for selector in selectors)


def test_thresholds_count_because_every_gather_enables_violations(
    case_job: jobs.Job, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(case_job))
    gathered = [call for _, call in calls(test, "gather") if call.method == QUERY]
    assert {call.identifier for call in gathered} == {
        call.identifier for _, call in calls(test, "start") if call.method == QUERY
    }
    assert all(call.flag("enableViolations") for call in gathered)


def test_what_starts_is_gathered_later_and_pod_clocks_start_before_pods_exist(
    case_job: jobs.Job, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(case_job))
    created, deleted = phase_steps(test)
    started = {(call.method, call.identifier): i for i, call in calls(test, "start")}
    for index, call in calls(test, "gather"):
        assert started[call.method, call.identifier] < index
    before = {identifier for (_, identifier), i in started.items() if i < created}
    assert {"PodStartupLatency", "PodsRunning", "KubeletImagePull", "NetworkSetup"} <= before
    assert step_of(test, "PodStartupLatency", "gather") < deleted


def test_two_scrapes_of_the_slowest_target_pass_before_and_after_the_load(
    case_job: jobs.Job, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(case_job))
    created, deleted = phase_steps(test)
    slowest_s = max(30.0, case_job.containerd_scrape_interval_s)
    for identifier in ("KubeletImagePull", "KubeletRuntimePullImage", "NetworkSetup"):
        begin, end = (step_of(test, identifier, action) for action in ("start", "gather"))
        assert slept_s(test, begin, created) >= 2 * slowest_s
        assert slept_s(test, created, end) >= 2 * slowest_s
        assert end < deleted


def test_tear_down_is_gathered_only_after_deletion_its_wait_and_two_scrapes(
    case_job: jobs.Job, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(case_job))
    created, deleted = phase_steps(test)
    _, gone = (i for i, call in calls(test, "gather") if call.identifier == "PodsRunning")
    started, gathered = (step_of(test, "NetworkTeardown", a) for a in ("start", "gather"))
    assert created < started < deleted < gone < gathered
    slowest_s = max(30.0, case_job.containerd_scrape_interval_s)
    assert slept_s(test, gone, gathered) >= 2 * slowest_s
    assert all("tear_down" not in q.query for n, q in queries(test).items() if "Teardown" not in n)


ALWAYS = {
    f"{name}/{q}" for name in ("NetworkSetup", "NetworkTeardown") for q in ("p50", "p90", "p99")
}
OF_PULLS = {
    f"{name}/{q}"
    for name in ("KubeletImagePull", "KubeletRuntimePullImage")
    for q in ("p50", "p90", "p99")
}
OF_CONTAINERD = {
    "ContainerdThroughputPerNode/mean", "ContainerdThroughput/mean", "ContainerdPulls/success"
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "required"),
    [
        ([], ALWAYS | OF_PULLS | OF_CONTAINERD),
        (["cluster.containerd_version=2.3.3"], ALWAYS | OF_PULLS | OF_CONTAINERD),
        (["cluster.containerd_version=1.6.20"], ALWAYS | OF_PULLS),
        # A quick pull leaves no throughput sample.
        (["cluster.containerd_version=2.4.0"], ALWAYS | OF_PULLS | {"ContainerdPulls/success"}),
        (["cache=warm"], ALWAYS),
        (["cache=as_is"], ALWAYS),
    ],
)
def test_samples_are_required_of_what_must_have_happened(
    changes: list[str],
    required: set[str],
    job: MakeJob,
    test_of: Callable[[Files], cl2.TestConfig],
) -> None:
    found = queries(test_of(render.render(job(*changes))))
    assert {name for name, query in found.items() if query.require_samples} == required


@pytest.mark.parametrize(
    ("version", "prefix"),
    [("1.7.34", "containerd_cri_image_"), ("2.3.3", "containerd_cri_sandboxed_image_")],
)
def test_image_queries_use_the_names_of_the_cluster_s_containerd(
    version: str, prefix: str, job: MakeJob, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(job(f"cluster.containerd_version={version}")))
    asked = [query.query for name, query in queries(test).items() if "Containerd" in name]
    assert asked
    for query in asked:
        names = promql.metric_names(query.replace("%v", "600s"))
        assert names
        assert all(name.startswith(prefix) for name in names)


def test_an_old_containerd_has_no_throughput_measurement(
    job: MakeJob, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(job("cluster.containerd_version=1.6.20")))
    assert {call.identifier for _, call in calls(test, "gather") if call.method == QUERY} == {
        "KubeletImagePull", "KubeletRuntimePullImage", "NetworkSetup", "NetworkTeardown"
    }  # fmt: skip


def manifest(files: Files) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(files["deployment.yaml"])
    return loaded


def test_pods_use_the_pod_network_and_one_label_spreads_them_over_the_nodes(
    case_job: jobs.Job, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    files = render.render(case_job)
    deployment, test = manifest(files), test_of(files)
    pod = deployment["spec"]["template"]
    assert "hostNetwork" not in pod["spec"]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    shared = {"group": "imgpull"}
    assert spread["labelSelector"]["matchLabels"] == shared
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    assert spread["whenUnsatisfiable"] == "DoNotSchedule"
    assert shared.items() <= pod["metadata"]["labels"].items()
    assert shared.items() <= deployment["metadata"]["labels"].items()  # what CL2 waits for
    selectors = {c.params["labelSelector"] for _, c in calls(test, "start") if c.method != QUERY}
    assert selectors == {"group = imgpull"}


def test_each_deployment_selects_its_own_pods_only(
    job: MakeJob, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    test = test_of(render.render(job()))
    (bundled,) = test.steps[phase_steps(test)[0]].phases[0].objects
    for index in (0, 7):
        made = cl2.object_manifest(bundled, index, "namespace")
        name = {"name": made["metadata"]["name"]}
        assert made["spec"]["selector"]["matchLabels"] == name
        assert name.items() <= made["spec"]["template"]["metadata"]["labels"].items()
        assert name["name"].endswith(f"-{index}")


def test_the_job_s_figures_stand_in_the_test(
    job: MakeJob, test_of: Callable[[Files], cl2.TestConfig]
) -> None:
    asked = replace(
        job(), deployments=7, replicas=3, qps=0.00001, pod_startup_threshold_s=270.0,
        wait_timeout_s=2700.0, metrics_wait_s=720.0,
    )  # fmt: skip
    files = render.render(asked)
    test = test_of(files)
    created, deleted = phase_steps(test)
    (creation,), (deletion,) = test.steps[created].phases, test.steps[deleted].phases
    assert (creation.replicas_per_namespace, deletion.replicas_per_namespace) == (7, 0)
    assert test.tuning_sets[creation.tuning_set].params == {"qps": 0.00001}
    assert manifest(files)["spec"]["replicas"] == 3
    starts = {call.identifier: call.params for _, call in calls(test, "start")}
    assert starts["PodStartupLatency"]["threshold"] == "4m30s"
    assert starts["PodsRunning"]["operationTimeout"] == "45m"
    assert slept_s(test, created, step_of(test, "KubeletImagePull", "gather")) == 12 * 60


def test_the_group_values_stand_in_the_deployment(job: MakeJob) -> None:
    asked = job(*overrides(GOLDEN / "awkward_values"))
    pod = manifest(render.render(asked))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == asked.image.pinned_reference
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["command"] == list(asked.image.command)
    assert container["args"] == list(asked.image.args)
    assert pod["imagePullSecrets"] == [{"name": "my-registry.login"}]
    measured = {"imgpull.dev/measured": "true"}
    assert pod["nodeSelector"] == {**asked.cluster.node_selector, **measured}
    assert [t["key"] for t in pod["tolerations"]] == ["dedicated", "example.com/spot", ""]
    plain = manifest(render.render(job("image.command=[]")))["spec"]["template"]["spec"]
    assert "imagePullSecrets" not in plain
    assert plain["containers"][0].keys() == {"name", "image", "imagePullPolicy"}


@pytest.mark.parametrize("interval_s", [1, 5, 10, 15, 60])
def test_containerd_s_scrape_never_outlasts_its_interval(interval_s: int, job: MakeJob) -> None:
    files = render.render(replace(job(), containerd_scrape_interval_s=interval_s))
    values = yaml.safe_load(files["overrides.yaml"])
    assert units.parse_duration(values["CONTAINERD_SCRAPE_INTERVAL"]) == interval_s
    assert units.parse_duration(values["CONTAINERD_SCRAPE_TIMEOUT"]) == min(10, interval_s)


def test_the_same_job_gives_the_same_bytes_whoever_runs_it(
    case_job: jobs.Job, tmp_path: Path
) -> None:
    shutil.copytree(render.TEMPLATES, tmp_path / "elsewhere")
    files = render.render(case_job)
    again = replace(case_job, seed=99, trial=7)
    assert render.render(again) == files
    assert render.render(case_job, tmp_path / "elsewhere") == files


def test_a_bundle_names_no_sweep_trial_or_seed(job: MakeJob) -> None:
    text = " ".join(render.render(replace(job(), seed=424242, trial=31337)).values())
    assert "424242" not in text
    assert "31337" not in text
    assert jobs.cell_id(job()) not in text


def test_a_bundle_is_named_by_what_it_holds(job: MakeJob, tmp_path: Path) -> None:
    files = render.render(job())
    bundle = render.write(files, tmp_path / "a" / "b")
    assert {path.name: path.read_text("utf-8") for path in bundle.directory.iterdir()} == files
    assert bundle.sha256 == render.bundle_sha256(dict(reversed(files.items())))
    for name in files:
        assert render.bundle_sha256({**files, name: files[name] + " "}) != bundle.sha256
    assert render.bundle_sha256({"a": "b", "c": ""}) != render.bundle_sha256({"a": "", "bc": ""})
