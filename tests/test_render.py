"""Laws of bundles: golden files, what a test must be, errors that point, values that stay put."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgpull import cl2, engines, exporters, render, units
from imgpull.config import job as jobs
from imgpull.errors import ConfigError, RenderError
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
    engines.build(case_job).validate(bundle)


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
    assert pod["nodeSelector"] == dict(asked.cluster.node_selector)
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


# ---------------------------------------------------------------------------- errors that point


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A copy of templates/ to break."""
    return shutil.copytree(render.TEMPLATES, tmp_path / "templates")


def line_of(text: str, needle: str) -> int:
    """The number of the line on which the needle begins."""
    return text[: text.index(needle)].count("\n") + 1


def broken(
    templates: Path, file: str, old: str, new: str, job: jobs.Job
) -> tuple[RenderError, int]:
    """The error of a template with one mistake, and the mistake's line."""
    path = templates / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RenderError) as caught:
        render.check(render.render(job, templates), templates)
    assert caught.value.__cause__ is not None
    return caught.value, line_of(path.read_text(), new)


IN_JINJA = [
    ("image-pull.yaml", "<%= qps | yaml", "<%= qp | yaml",
     " uses a name that a Job does not have: 'qp' is undefined", "did you mean 'qps'?"),
    ("image-pull.yaml", "<%= wait_timeout | yaml %>", "<%= wait_timout %>",
     " uses a name that a Job does not have: 'wait_timout' is undefined",
     "did you mean 'wait_timeout'?"),
    ("deployment.yaml", "cluster.node_selector", "cluster.node_selectr",
     " uses a name that a Job does not have: 'imgpull.config.schema.Cluster object' has no "
     "attribute 'node_selectr'", "did you mean 'node_selector'?"),
    ("containerd-measurements.yaml", "<% if metrics.containerd_throughput",
     "<% if metrics.containerd_throughputs",
     " uses a name that a Job does not have: 'dict object' has no attribute "
     "'containerd_throughputs'", "did you mean 'containerd_throughput'?"),
    ("image-pull.yaml", "<%= qps | yaml", "<%= zzz | yaml",
     " uses a name that a Job does not have: 'zzz' is undefined", "names: cache, cluster,"),
    ("deployment.yaml", "<% if image.args %>", "<% iff image.args %>",
     ": Encountered unknown tag 'iff'.", "Jinja2 here writes <%= value %>"),
    ("kubelet-measurements.yaml", "| yaml %>", "| yml %>",
     ": No filter named 'yml'.", "Jinja2 here writes <%= value %>"),
    ("image-pull.yaml", '<% include "kubelet-measurements.yaml" %>',
     '<% include "kubelet-measurement.yaml" %>',
     " needs templates/kubelet-measurement.yaml, which is missing",
     "did you mean 'kubelet-measurements.yaml'?"),
    ("queries.jinja", "(<%= selector %> offset", "(<%= selectr %> offset",
     " uses a name that a Job does not have: 'selectr' is undefined", "names: "),
    ("image-pull.yaml", "<%= qps | yaml", "<%= qps + cache | yaml",
     ": unsupported operand type(s) for +: 'float' and 'str'", "correct the template"),
    ("image-pull.yaml", "<%= qps | yaml", "<%= (qps / 0) | yaml",
     ": float division by zero", "correct the template"),
    ("deployment.yaml", "<%= replicas | yaml", "<%= replicas.real.imag.foo.bar | yaml",
     " uses a name that a Job does not have: ", "names: "),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "message", "hint"), IN_JINJA)
def test_a_mistake_in_a_template_is_named_with_file_line_and_remedy(
    templates: Path, job: MakeJob, file: str, old: str, new: str, message: str, hint: str
) -> None:
    error, line = broken(templates, file, old, new, job())
    place, _, trail = error.message.partition(" (from templates/")
    said = place + (trail[trail.index(")") + 1 :] if trail else "")
    assert said.startswith(f"templates/{file}:{line}{message}")
    assert error.hint.startswith(hint)


def test_a_mistake_below_others_is_named_with_the_lines_that_led_there(
    templates: Path, job: MakeJob
) -> None:
    old, new = "metrics.kubelet_image_pull,", "metrics.kubelet_image_pul,"
    error, line = broken(templates, "kubelet-measurements.yaml", old, new, job())
    include = '<% include "kubelet-measurements.yaml" %>'
    included = line_of((templates / "image-pull.yaml").read_text(), include)
    assert re.match(  # Jinja2 finds out where the macro uses what it was given
        rf"templates/queries\.jinja:\d+ \(from templates/kubelet-measurements\.yaml:{line}, "
        rf"templates/image-pull\.yaml:{included}\) uses a name that a Job does not have",
        error.message,
    )
    assert error.hint == "did you mean 'kubelet_image_pull'?"


def test_a_template_that_is_gone_is_named(templates: Path, job: MakeJob) -> None:
    (templates / "deployment.yaml").unlink()
    with pytest.raises(RenderError, match=r"needs templates/deployment\.yaml, which is missing"):
        render.render(job(), templates)


IN_YAML = [
    ("image-pull.yaml", "    tuningSet: Creation", "    tuningSet: Creation: x", "image-pull.yaml",
     "not YAML: mapping values are not allowed"),
    ("image-pull.yaml", "    tuningSet: Creation", "    tunningSet: Creation", "image-pull.yaml",
     "unknown key 'tunningSet'"),
    ("image-pull.yaml", "    tuningSet: Creation", "    tuningSet: Created", "image-pull.yaml",
     'Invalid value: "Created": tuning set referenced has not been declared'),
    ("image-pull.yaml", "  action: start\n      apiVersion", "  action: begin\n      apiVersion",
     "image-pull.yaml", "unknown action begin"),
    ("kubelet-measurements.yaml", "      metricVersion: v1", "      metricVersoin: v1",
     "image-pull.yaml", "unknown key 'metricVersoin'"),
    ("containerd-measurements.yaml", "threshold: 0", "treshold: 0", "image-pull.yaml",
     "unknown key 'treshold'"),
    ("deployment.yaml", "      automountServiceAccountToken: false",
     "       automountServiceAccountToken: false", "deployment.yaml", "not YAML: "),
    ("deployment.yaml", "kind: Deployment", 'kind: "{{.Name}}"', "deployment.yaml",
     "kind must be a literal"),
    ("deployment.yaml", 'name: "{{.Name}}"', 'name: "{{.Nmae}}"', "deployment.yaml",
     "nothing gives '{{.Nmae}}' a value"),
    ("overrides.yaml", "CL2_PROMETHEUS_PVC_ENABLED: false", "CL2_PROMETHEUS_PVC_ENABLED false",
     "overrides.yaml", "not YAML: "),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "rendered", "message"), IN_YAML)
def test_a_mistake_in_the_rendered_test_is_named_with_its_line_and_that_line_s_text(
    templates: Path, job: MakeJob, file: str, old: str, new: str, rendered: str, message: str
) -> None:
    error, _ = broken(templates, file, old, new, job())
    place = re.match(rf"{re.escape(rendered)}:(\d+): ", error.message)
    assert place, error.message
    assert message in error.message
    lines = render.render(job(), templates)[rendered].splitlines()
    shown = lines[min(int(place[1]), len(lines)) - 1].strip()
    assert error.message.endswith(f"\n  {place[1]} | {shown}")
    assert "The line comes from templates/" in error.hint


def test_a_line_that_stands_in_a_template_as_it_was_rendered_is_found_there(
    templates: Path, job: MakeJob
) -> None:
    error, line = broken(templates, "image-pull.yaml", "deployment.yaml", "deploymint.yaml", job())
    assert 'Invalid value: "deploymint.yaml": file must exist' in error.message
    assert error.hint.endswith(f"The line comes from templates/image-pull.yaml:{line}.")


IN_QUERIES = [
    ("histogram_quantile(", "histogram_quantil(", "unknown function"),
    ("(<%= selector %>) - (", "(<%= selector %>) - ((", "unclosed"),
    ("offset %v", "ofset %v", "invalid promql query"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), IN_QUERIES)
def test_a_query_that_prometheus_could_not_parse_is_named_with_file_and_line(
    templates: Path, job: MakeJob, old: str, new: str, message: str
) -> None:
    error, _ = broken(templates, "queries.jinja", old, new, job())
    place = re.match(r"image-pull\.yaml:(\d+): (\w+)/(\w+): ", error.message)
    assert place, error.message
    assert message in error.message
    lines = render.render(job(), templates)["image-pull.yaml"].splitlines()
    assert lines[int(place[1]) - 1].strip() == f"- Identifier: {place[2]}"
    assert error.hint


def test_a_metric_that_no_exporter_has_is_named_by_the_simulator(
    templates: Path, job: MakeJob, tmp_path: Path
) -> None:
    path = templates / "queries.jinja"
    path.write_text(path.read_text().replace('name ~ "_bucket{"', 'name ~ "_buckets{"'))
    files = render.render(job(), templates)
    render.check(files, templates)
    with pytest.raises(RenderError) as caught:
        engines.build(job()).validate(render.write(files, tmp_path / "bundle"))
    name = "kubelet_image_pull_duration_seconds_bucket"
    assert re.match(r"image-pull\.yaml:\d+: .*KubeletImagePull.*p50", caught.value.message)
    assert caught.value.message.endswith(f"no series named {name}s")
    assert f"did you mean {name}?" in caught.value.hint


# ------------------------------------------------------------------------ values that stay put

NASTY = [
    '"', "'", "\n", "\r", "\t", "{{", "}}", "{", "}", "<%", "%>", "<%= qps %>", ": ", " #", "- ",
    "\\", "%", "&", "*", "!", "|", ">", "`", "@", "$", "\x00", "\x7f", "\x85", "\u2028", "\ufeff",
    "\ud800", "é", "日", "🐳", "{{.Name}}", "hostNetwork: true", "no", "~", "0x1f",
]  # fmt: skip
nasty = st.lists(
    st.one_of(st.sampled_from(NASTY), st.text(max_size=3), st.sampled_from("aZ09.-_/:")), max_size=6
).map("".join)

MARK = "marked.io"  # valid in every place below, and found nowhere else in a bundle

PLACES: dict[str, Callable[[str], dict[str, dict[str, Any]]]] = {
    "args": lambda text: {"image": {"args": ["-c", text, "last"]}},
    "command": lambda text: {"image": {"command": [text]}},
    "pull_secret": lambda text: {"image": {"pull_secret": text}},
    "registry": lambda text: {"image": {"reference": f"{text}/a:1"}},
    "repository": lambda text: {"image": {"reference": f"reg.io/{text}:1"}},
    "tag": lambda text: {"image": {"reference": f"reg.io/a:{text}"}},
    "node_prefix": lambda text: {"cluster": {"node_prefix": text}},
    "label key": lambda text: {"cluster": {"node_selector": {text: "x"}}},
    "label value": lambda text: {"cluster": {"node_selector": {"x": text}}},
    "taint key": lambda text: {"cluster": {"tolerations": [{"key": text}]}},
    "taint value": lambda text: {"cluster": {"tolerations": [{"key": "x", "value": text}]}},
    "Prometheus label key": lambda text: {"cluster": {"prometheus_node_selector": {text: "x"}}},
    "Prometheus label value": lambda text: {"cluster": {"prometheus_node_selector": {"x": text}}},
}


def bundle_with(compose: Compose, where: str, text: str) -> dict[str, Any] | None:
    """What CL2 reads when this text stands in that place; None where the value is refused."""
    values = compose()
    for group, changes in PLACES[where](text).items():
        values[group] |= changes
    try:
        files = render.render(jobs.job_from(values))
    except ConfigError:
        return None
    found: dict[str, Any] = {
        name: body if name == render.TEST_CONFIG else yaml.load(body, YAML)
        for name, body in files.items()
    }
    # A fragment of YAML that CL2 puts into Prometheus' manifest as it is.
    key = "CL2_PROMETHEUS_NODE_SELECTOR"
    found["overrides.yaml"][key] = yaml.safe_load(found["overrides.yaml"][key])
    return found


def marked(value: Any, text: str) -> Any:
    """The structure with MARK replaced wherever it stands, in keys too."""
    if isinstance(value, dict):
        return {marked(key, text): marked(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item, text) for item in value]
    if not isinstance(value, str):
        return value
    in_a_query = MARK.replace(".", "[.]"), text.replace(".", "[.]")
    return value.replace(*in_a_query).replace(MARK, text)


@pytest.mark.parametrize("where", PLACES)
@settings(max_examples=25)
@given(text=nasty)
@example(text="another.io")
@example(text='x"}, "hostNetwork": {"y": "')
@example(text="x\n      hostNetwork: true")
def test_a_value_stays_exactly_in_its_place_or_is_refused(
    where: str, compose: Compose, text: str
) -> None:
    found = bundle_with(compose, where, text)
    if found is not None:
        plain = bundle_with(compose, where, MARK)
        assert plain is not None
        assert found == marked(plain, text)


@pytest.mark.parametrize("where", PLACES)
def test_a_harmless_value_is_never_refused(where: str, compose: Compose) -> None:
    for text in (MARK, "another.io"):
        found = bundle_with(compose, where, text)
        assert found is not None
        assert text.split(".")[0] in str(found)


@settings(max_examples=200)
@given(text=nasty)
@example(text="\x85")  # YAML folds it, JSON leaves it
@example(text="\u2028\ufeff\x7f🐳")
def test_an_argument_is_refused_only_for_braces_that_cl2_would_fill_or_for_no_text(
    compose: Compose, text: str
) -> None:
    refused = bundle_with(compose, "args", text) is None
    assert refused == ("{{" in text or any("\ud800" <= char <= "\udfff" for char in text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x {{.Name}}", "carries '{{', which ClusterLoader2 would read as a template"),
        ("\udc80", "carries the lone surrogate U+DC80, which is no text"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_reason(
    compose: Compose, text: str, message: str
) -> None:
    values = compose()
    values["image"]["args"] = [text]
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        render.render(jobs.job_from(values))
    assert caught.value.hint
