"""CL2 test configs: modules flattened, objects rendered, and CL2's rules kept, with the line."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from imgpull import cl2
from imgpull.cl2.generated import generated_config
from imgpull.cl2.templates import fill
from imgpull.errors import RenderError

OWN = Path(__file__).parent / "data" / "cl2-reports" / "own-2026-two-nodes"

CONFIG = """\
name: image-pull
namespace: {number: 1, prefix: imgpull}
tuningSets:
- name: Creation
  qpsLoad: {qps: 10}
steps:
- module:
    path: kubelet.yaml
    params: {action: start}
- name: create
  phases:
  - namespaceRange: {min: 1, max: 1}
    replicasPerNamespace: 10
    tuningSet: Creation
    objectBundle:
    - basename: imgpull
      objectTemplatePath: deployment.yaml
      templateFillMap: {Replicas: 2}
- name: settle
  measurements:
  - Identifier: Startup
    Method: PodStartupLatency
    Params: {action: start, threshold: 3m}
  - {identifier: Rest, method: Sleep, params: {duration: 10m}}
"""
MODULE = """\
steps:
- name: "kubelet {{.action}}"
  measurements:
  - method: GenericPrometheusQuery
    params:
      action: "{{.action}}"
      metricName: Kubelet pulls
      metricVersion: v1
      unit: s
      queries:
      - {name: p50, query: 'sum(rate(x_sum{a="b"}[%v]))', threshold: 3, requireSamples: true}
    instances:
    - identifier: Pulls
    - identifier: PullsByNode
      params: {metricName: Kubelet pulls by node, dimensions: [node]}
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{{.Name}}"
  namespace: "{{ .Namespace }}"
  labels: {group: imgpull}
spec:
  replicas: {{.Replicas}}
  index: "{{.Index}}"
  note: "{{.BaseName}}"
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "kubelet.yaml").write_text(MODULE)
    (tmp_path / "deployment.yaml").write_text(DEPLOYMENT)
    return tmp_path


def test_modules_are_flattened_and_instances_expanded(bundle: Path) -> None:
    test = cl2.load_test(bundle / "config.yaml")
    cl2.require_supported(test)
    assert (test.name, test.namespace_number, test.namespace_prefix) == ("image-pull", 1, "imgpull")
    assert test.tuning_sets["Creation"].params == {"qps": 10}
    assert [step.name for step in test.steps] == ["kubelet start", "create", "settle"]
    one, two = test.steps[0].measurements
    assert (one.identifier, one.file, one.line) == ("Pulls", "kubelet.yaml", 4)
    assert (two.identifier, two.params["metricName"]) == ("PullsByNode", "Kubelet pulls by node")
    assert cl2.prometheus_queries(two) == cl2.PrometheusQueries(
        "Kubelet pulls by node",
        "v1",
        "s",
        (cl2.Query("p50", 'sum(rate(x_sum{a="b"}[%v]))', 3.0, False, True),),
        ("node",),
    )
    assert two.action == "start"
    assert not two.flag("enableViolations")
    [phase] = test.steps[1].phases
    assert phase.replicas_per_namespace == 10
    assert phase.namespaces("imgpull") == ("imgpull-1",)
    startup, rest = test.steps[2].measurements
    assert (startup.params["threshold"], rest.params["duration"]) == ("3m", "10m")


def test_a_module_sees_only_its_own_params(bundle: Path) -> None:
    (bundle / "inner.yaml").write_text(MODULE)
    outer = 'steps:\n- module: {path: inner.yaml, params: {action: "{{.action}}"}}\n'
    (bundle / "kubelet.yaml").write_text(outer)
    assert cl2.load_test(bundle / "config.yaml").steps[0].name == "kubelet start"
    (bundle / "kubelet.yaml").write_text(outer.replace("params", "Params").replace("action:", "x:"))
    with pytest.raises(RenderError, match=r"inner\.yaml:2: nothing gives '\{\{\.action\}\}'"):
        cl2.load_test(bundle / "config.yaml")


def test_a_phase_names_its_namespaces() -> None:
    def phase(**where: Any) -> Any:
        return cl2.Phase(1, "Creation", (), **where)

    assert phase(namespace_min=2, namespace_max=3).namespaces("p") == ("p-2", "p-3")
    assert phase(namespace_min=1, namespace_max=1, namespace_basename="b").namespaces("p") == (
        "b-1",
    )
    assert phase(namespace_list=("x", "y")).namespaces("p") == ("x", "y")
    assert phase().namespaces("p") == ("",)


RANGE = "namespaceRange: {min: 1, max: 1}"
STARTUP = "Params: {action: start, threshold: 3m}"
INVALID = "tuningSets[0].{}: Invalid value: {}: must have positive value"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: image-pull", "name: a/b", '1: name: Invalid value: "a/b": must be a part of file'),
        ("name: image-pull", "name: 12", "1: name: must be a string, got 12"),
        ("number: 1", "number: -1", "2: namespace.number: Invalid value: -1: must be positive"),
        ("number: 1", "numbr: 1", "2: namespace.numbr: unknown key 'numbr', which ClusterLoader2"),
        ("namespace: {number: 1, prefix: imgpull}", "namespaces:\n  number: 1",
         "2: namespaces: unknown key"),
        ("number: 1", "number: 1, Number: 2", "2: namespace.Number: 'Number' is given twice"),
        ("number: 1", "deleteNamespaceTimeout: 9", "must be a string, got 9"),
        ("number: 1", "deleteNamespaceTimeout: 9x", "'9x' is not a duration"),
        ("name: Creation", "name: ''", "4: tuningSets[0].name: Required value: name is required"),
        ("qps: 10", "qps: 0", "5: " + INVALID.format("qpsLoad.qps", "0.0")),
        ("qps: 10", "", "5: " + INVALID.format("qpsLoad.qps", "0.0")),
        ("qps: 10", "qps: fast", "5: tuningSets[0].qpsLoad.qps: must be a number, got fast"),
        (
            "qpsLoad: {qps: 10}",
            "steppedLoad: {burstSize: 1, stepDelay: 0s}",
            "5: " + INVALID.format("steppedLoad.stepDelay", '"0s"'),
        ),
        (
            "  qpsLoad: {qps: 10}",
            "  qpsLoad: {qps: 10}\n  poissonLoad: {expectedActionsPerSecond: 1}",
            "4: tuningSets[0]: Forbidden: must specify exactly 1 tuning set type",
        ),
        ("  qpsLoad: {qps: 10}\n", "", "must specify exactly 1 tuning set type"),
        ("qpsLoad:", "initialDelay: 1s\n  qpsLoad:", "'initialDelay' is outside the subset"),
        (
            "steps:",
            "- {name: Creation, qpsLoad: {qps: 1}}\nsteps:",
            'tuningSets[1]: Invalid value: "Creation": is declared twice',
        ),
        (CONFIG[CONFIG.index("steps:") :], "", "1: steps: Invalid value: 0: cannot be empty"),
        ("- name: settle\n", "- name: empty\n- name: settle\n", "empty with empty phases"),
        ("- name: settle\n", "", "steps[1].measurements: Invalid value: []: can't be non-"),
        ("- name: create\n  ph", "  ph", "can't be non-empty with a module"),
        (RANGE, RANGE + "\n    namespaceList: [a]", "12: steps[1].phases[0]: Forbidden: must"),
        ("min: 1, max: 1", "min: -1, max: 1", "Range.min: Invalid value: -1: must be non-negative"),
        ("min: 1, max: 1", "min: 1, max: 0", "Range.max: Invalid value: 0: must be greater"),
        ("min: 1, max: 1", "min: 1, max: 2", "namespaces 1 to 2 are not among the test's 1 to 1"),
        ("Namespace: 10", "Namespace: -1", "Namespace: Invalid value: -1: must be non-neg"),
        ("Namespace: 10", "Namespace: 1.5", "Namespace: must be a whole number, got 1.5"),
        ("tuningSet: Creation", "tuningSet: Other", '14: steps[1].phases[0].tuningSet: '
         'Invalid value: "Other": tuning set referenced has not been declared'),
        ("    tuningSet: Creation\n", "", 'Invalid value: "": tuning set referenced has not been'),
        ("basename: imgpull", "basename: Img_pull", "a lowercase RFC 1123 subdomain must consist"),
        ("deployment.yaml", "absent.yaml", '17: steps[1].phases[0].objectBundle[0].'
         'objectTemplatePath: Invalid value: "absent.yaml": file must exist'),
        ("kubelet.yaml", "absent.yaml", '8: steps[0].module.path: Invalid value: "absent.yaml"'),
        ("{action: start}\n", "{}\n", "kubelet.yaml:2: nothing gives '{{.action}}' a value"),
        ("{action: start}\n", "{action: [1]}\n", "would become [1], which is no single-line"),
        ("{action: start}\n", "{action: stop}\n", "kubelet.yaml:4: GenericPrometheusQuery - "
         "Pulls: unknown action stop"),
        ("Identifier: Startup", "identifer: Startup", "21: steps[2].measurements[0].identifer: un"),
        ("  - Identifier: Startup\n    Method", "  - Method", "and Instances cannot be both empty"),
        (STARTUP, STARTUP + "\n    instances: [{identifier: x}]", "cannot be non empty when"),
        ("Method: PodStartupLatency", "Method: ''", "Required value: method is required"),
        ("threshold: 3m", "treshold: 3m", "params.treshold: unknown key 'treshold'"),
        ("threshold: 3m", "Threshold: 3m", "params.Threshold: unknown key 'Threshold'"),
        ("threshold: 3m", "threshold: 180", "params.threshold: must be a string, got 180"),
        ("threshold: 3m", "threshold: 3 min", "'3 min' is not a duration"),
        ("action: start, threshold", "threshold", "21: PodStartupLatency - Startup: key action"),
        ("action: start, threshold", "action: go, threshold", "unknown action go"),
        ("{duration: 10m}", "{}", "config.yaml:24: Sleep - Rest: key duration not found"),
        ("Method: PodStartupLatency", "Method: WaitForControlledPodsRunning",
         "unknown key 'threshold'"),
        ("PodStartupLatency\n    " + STARTUP,
         "WaitForControlledPodsRunning\n    Params: {action: start}",
         "key apiVersion not found"),
        ("steps:", "dependencies: []\nsteps:", "6: dependencies: 'dependencies' is outside"),
        (CONFIG[CONFIG.index("steps:") :], "steps: {a: 1}", "6: steps: must be a list"),
        ("{qps: 10}", "[1]", "5: tuningSets[0].qpsLoad: must be a mapping"),
        ("prefix: imgpull", 'prefix: "{{.Prefix}}"', "config.yaml:2: nothing gives '{{.Prefix}}'"),
        ("steps:", "steps: [", "not YAML"),
        ("steps:", "---\nsteps:", "config.yaml:7: a second YAML document begins"),
        (CONFIG, "# nothing\n", "config.yaml:1: the file is empty"),
    ],
)  # fmt: skip
def test_what_cl2_refuses_or_drops_is_refused_with_its_line(
    old: str, new: str, message: str, bundle: Path
) -> None:
    assert old in CONFIG
    (bundle / "config.yaml").write_text(CONFIG.replace(old, new, 1))
    with pytest.raises(RenderError, match=re.escape(message)) as caught:
        cl2.load_test(bundle / "config.yaml")
    assert caught.value.message.startswith(("config.yaml:", "kubelet.yaml:"))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      metricName: Kubelet pulls\n", "",
         "4: GenericPrometheusQuery - Pulls: metricName is required"),
        ("metricVersion: v1", "metricVersion: ''", "metricVersion is required"),
        ("unit: s", "unit: 1", "unit must be a string, got 1"),
        ("{name: p50, ", "{", "params.queries[0] validation failed: name is required"),
        ("query: '", "text: '", "params.queries[0] validation failed: unknown key 'text'"),
        ("threshold: 3", "threshold: '3'", "threshold '3' is no number"),
        ("requireSamples: true", "requireSamples: 'true'", "requireSamples must be true or false"),
        ("[node]", "node", "params.dimensions must be a list of label names"),
        ("steps:", "name: x\nsteps:", "kubelet.yaml:1: name: unknown key 'name'"),
        ("{{.action}}", "{{.action | lower}}", "'{{.action | lower}}' is more than a placeholder"),
        ("{{.action}}", "{{.action", "kubelet.yaml:2: '{{.action\"\n"),
        (MODULE, "steps:\n- module: {path: kubelet.yaml}\n",
         'Invalid value: "kubelet.yaml": includes itself'),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_module_is_refused_with_the_modules_line(
    old: str, new: str, message: str, bundle: Path
) -> None:
    assert old in MODULE
    (bundle / "kubelet.yaml").write_text(MODULE.replace(old, new, 1))
    with pytest.raises(RenderError, match=re.escape(message)) as caught:
        cl2.load_test(bundle / "config.yaml")
    assert caught.value.message.startswith("kubelet.yaml:")


def test_an_unclosed_placeholder_is_refused() -> None:
    with pytest.raises(RenderError, match=r"f\.yaml:2: '\{\{' is never closed"):
        fill("a: {{.x}}\nb: {{.x", {"x": 1}, "f.yaml")


def test_what_only_cl2_knows_is_read_but_not_supported(bundle: Path) -> None:
    path = bundle / "config.yaml"
    path.write_text(CONFIG.replace("Method: PodStartupLatency", "Method: Exec"))
    test = cl2.load_test(path)
    with pytest.raises(RenderError, match=r"config.yaml:21: .*'Exec' is unknown: the simulator's"):
        cl2.require_supported(test)


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"absent\.yaml: cannot be read"):
        cl2.load_test(tmp_path / "absent.yaml")


def manifest_of(bundle: Path, template: str) -> dict[str, Any]:
    (bundle / "deployment.yaml").write_text(template)
    [one] = cl2.load_test(bundle / "config.yaml").steps[1].phases[0].objects
    return cl2.object_manifest(one, 7, "imgpull-1")


def test_an_object_is_named_and_filled_as_cl2_does(bundle: Path) -> None:
    assert manifest_of(bundle, DEPLOYMENT) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "imgpull-7",
            "namespace": "imgpull-1",
            "labels": {"group": "imgpull"},
        },
        "spec": {
            "replicas": 2,
            "index": "7",
            "note": "imgpull",
        },
    }


def test_cl2s_own_names_win_over_the_fill_map_and_the_template(bundle: Path) -> None:
    path = bundle / "config.yaml"
    path.write_text(CONFIG.replace("{Replicas: 2}", "{Replicas: 2, Index: 99}"))
    manifest = manifest_of(bundle, DEPLOYMENT.replace("{{.Name}}", "other"))
    assert manifest["spec"]["index"] == "7"
    assert manifest["metadata"]["name"] == "imgpull-7"


def test_a_leading_slash_still_means_the_configs_directory(bundle: Path) -> None:
    path = bundle / "config.yaml"
    path.write_text(CONFIG.replace("kubelet.yaml", "/kubelet.yaml"))
    assert cl2.load_test(path).steps[0].name == "kubelet start"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{{.BaseName}}", "{{.Image}}", "deployment.yaml:10: nothing gives '{{.Image}}' a value"),
        ("{{.BaseName}}", "{{ if .Name }}", "deployment.yaml:10: '{{ if .Name }}' is more than"),
        ("kind: Deployment", 'kind: "{{.Replicas}}"', "deployment.yaml:2: kind must be a literal"),
        ("apiVersion: apps/v1\n", "", "deployment.yaml:1: apiVersion must be a literal"),
        ("spec:", "---\nspec:", "a second YAML document begins"),
        (
            "labels: {group: imgpull}",
            "labels: {group: {{.Name}}}",
            "with its placeholders cut away",
        ),
        (DEPLOYMENT[DEPLOYMENT.index("metadata:") :], "metadata: 1\n", "metadata is no mapping"),
    ],
)
def test_a_template_that_cl2_could_not_use_is_refused(
    old: str, new: str, message: str, bundle: Path
) -> None:
    with pytest.raises(RenderError, match=re.escape(message)) as caught:
        manifest_of(bundle, DEPLOYMENT.replace(old, new, 1))
    assert caught.value.hint


def test_params_keep_their_yaml_types_except_what_json_has_not(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: t\nsteps:\n- measurements:\n  - method: Other\n    identifier: i\n"
        "    params: {a: 1, b: 2.5, c: true, d: null, e: 2026-01-02, 6: [x, {y: z}]}\n"
    )
    [call] = cl2.load_test(tmp_path / "c.yaml").steps[0].measurements
    assert call.params == {
        "a": 1, "b": 2.5, "c": True, "d": None, "e": "2026-01-02", "6": ["x", {"y": "z"}],
    }  # fmt: skip


def recorded_test(tmp_path: Path) -> Any:
    shutil.copy(OWN / "input-config.yaml", tmp_path / "config.yaml")
    shutil.copy(OWN / "input-deployment.yaml", tmp_path / "deployment.yaml")
    return cl2.load_test(tmp_path / "config.yaml")


def test_the_generated_config_is_cl2s_own(tmp_path: Path) -> None:
    recorded = (OWN / "generatedConfig_imgpull.yaml").read_text()
    written = generated_config(recorded_test(tmp_path), "test-hffhls")
    assert yaml.safe_load(written) == yaml.safe_load(recorded)
    assert written == recorded


def test_the_recorded_test_renders_its_deployment(tmp_path: Path) -> None:
    test = recorded_test(tmp_path)
    cl2.require_supported(test)
    [bundle] = test.steps[1].phases[0].objects
    manifest = cl2.object_manifest(bundle, 3, "test-hffhls-1")
    assert manifest["metadata"]["name"] == "bench-3"
    assert manifest["spec"]["replicas"] == 4
    assert manifest["spec"]["selector"] == {"matchLabels": {"name": "bench-3"}}


@pytest.mark.parametrize("word", ["y", "N", "yes", "off"])
def test_a_word_that_clusterloader_reads_as_a_boolean_is_no_text(bundle: Path, word: str) -> None:
    text = MODULE.replace("{name: p50,", f"{{name: {word},")
    (bundle / "kubelet.yaml").write_text(text)
    with pytest.raises(RenderError, match=r"name must be a string, got (True|False)"):
        queries(bundle)
    (bundle / "kubelet.yaml").write_text(text.replace(f"name: {word},", f"name: '{word}',"))
    assert queries(bundle) == [word]


def queries(bundle: Path) -> list[str]:
    call = cl2.load_test(bundle / "config.yaml").steps[0].measurements[0]
    return [query.name for query in cl2.prometheus_queries(call).queries]
