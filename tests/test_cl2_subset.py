"""What of a bundle the simulator reads, and what it refuses by name, file and line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import (
    IMAGE,
    TEMPLATE,
    WORLD,
    call,
    controlled,
    phase,
    play,
    query,
    sleep,
    template,
    written,
)

from imgpull import cl2
from imgpull.engines.sim.deployments import Deployment, deployment
from imgpull.engines.sim.subset import require_playable
from imgpull.errors import RenderError

CONTAINER = f"        image: {IMAGE}\n"
POD = "      terminationGracePeriodSeconds: 1\n"
SPREAD = """\
      topologySpreadConstraints:
      - maxSkew: 2
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {group: g}}
"""


def made(tmp_path: Path, text: str) -> Deployment:
    """The Deployment that a template makes."""
    test = written(tmp_path, {"Create": [phase(1)]}, deployment=text)
    return deployment(test.steps[0].phases[0].objects[0], 0, "ns-1")


def in_container(line: str) -> str:
    return template(CONTAINER, f"{CONTAINER}        {line}\n")


def in_pod(line: str) -> str:
    return template(POD, f"{POD}      {line}\n")


# What a template says


@pytest.mark.parametrize(
    ("image", "line", "policy"),
    [
        ("registry/image:v1", "", "IfNotPresent"),
        ("registry/image:latest", "", "Always"),
        ("registry:5000/image", "", "Always"),
        ("registry/image@sha256:0", "", "IfNotPresent"),
        ("registry/image:latest", "imagePullPolicy: IfNotPresent", "IfNotPresent"),
        ("registry/image:v1", "imagePullPolicy: Always", "Always"),
    ],
)
def test_the_pull_policy_follows_from_the_tag_where_it_is_not_said(
    tmp_path: Path, image: str, line: str, policy: str
) -> None:
    text = in_container(line) if line else TEMPLATE
    assert made(tmp_path, text.replace(IMAGE, image)).pull_policy == policy


@pytest.mark.parametrize(
    ("resources", "cpu_cores", "memory_bytes"),
    [
        ("{requests: {cpu: 250m, memory: 64Mi}}", 0.25, 64 * 2**20),
        ("{requests: {cpu: 1.5, memory: 2e9}}", 1.5, 2e9),
        ("{requests: {cpu: '2', memory: 1G}, limits: {cpu: 4, memory: 2G}}", 2, 1e9),
        ("{limits: {cpu: 1, memory: 1Gi}}", 1, 2**30),  # a limit alone is requested too
        ("{requests: {cpu: 100m}, limits: {memory: 128}}", 0.1, 128),
        ("{}", 0, 0),
    ],
)
def test_requests_are_read_in_kubernetes_quantities(
    tmp_path: Path, resources: str, cpu_cores: float, memory_bytes: float
) -> None:
    found = made(tmp_path, in_container(f"resources: {resources}"))
    assert (found.cpu_cores, found.memory_bytes) == pytest.approx((cpu_cores, memory_bytes))


def test_pods_ask_for_what_their_template_says(tmp_path: Path) -> None:
    text = template(POD, "      hostNetwork: true\n" + SPREAD)
    text = text.replace(CONTAINER, CONTAINER + "        resources: {requests: {cpu: 100m}}\n")
    played = play(tmp_path, {"Create": [phase(1)]}, deployment=text)
    [pod] = played.interpreter.pods
    assert (pod.host_network, pod.grace_s, pod.cpu_cores) == (True, 30, 0.1)
    assert (pod.spread, pod.max_skew) == ("ns-1/group=g", 2)
    assert (pod.image, pod.pull_policy) == (IMAGE, "IfNotPresent")


def test_a_spread_that_is_a_mere_preference_binds_nobody(tmp_path: Path) -> None:
    assert (
        made(tmp_path, in_pod(SPREAD.strip().replace("DoNotSchedule", "ScheduleAnyway"))).spread
        is None
    )


def test_replicas_that_are_not_said_are_one(tmp_path: Path) -> None:
    text = template("  replicas: {{.Replicas}}\n", "")
    steps = {"Create": [phase(1)], "Patch": [phase(1)]}
    assert len(play(tmp_path, steps, deployment=text).interpreter.pods) == 1


@pytest.mark.parametrize(
    "text",
    [
        in_container("command: [sleep, infinity]"),
        in_container("env: [{name: A, value: b}]"),
        in_container("ports: [{containerPort: 80, name: http}]"),
        in_container("securityContext: {runAsUser: 1}"),
        in_container("volumeMounts: [{name: v, mountPath: /v}]"),
        in_pod("volumes: [{name: v, emptyDir: {}}]"),
        in_pod("nodeSelector: {pool: user}"),
        in_pod("tolerations: [{operator: Exists}]"),
        in_pod("automountServiceAccountToken: false"),
        in_pod("imagePullSecrets: [{name: s}]"),
        in_pod("restartPolicy: Always"),
        template("spec:\n  replicas", "spec:\n  strategy: {type: Recreate}\n  replicas"),
    ],
)
def test_what_changes_nothing_here_is_let_through(tmp_path: Path, text: str) -> None:
    assert play(tmp_path, {"Create": [phase(1)]}, deployment=text).failures == ()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (in_container("readinessProbe: {}"), r"19: spec\..*\.containers\[0\]\.readinessProbe"),
        (in_container("livenessProbe: {}"), r"livenessProbe"),
        (in_container("lifecycle: {preStop: {}}"), r"lifecycle"),
        (in_container("ports: [{containerPort: 80, hostPort: 80}]"), r"ports\[0\]\.hostPort"),
        (in_container("resources: {requests: {nvidia.com/gpu: 1}}"), r"requests\.nvidia\.com/gpu"),
        (in_container("resources: {requests: {cpu: fast}}"), r'cpu: Invalid value: "fast"'),
        (in_container("imagePullPolicy: Never"), r"knows no policy Never"),
        (in_pod("affinity: {}"), r"template\.spec\.affinity"),
        (in_pod("initContainers: [{name: x}]"), r"template\.spec\.initContainers"),
        (in_pod("volumes: [{name: v, hostPath: {path: /}}]"), r"volumes\[0\]\.hostPath"),
        (in_pod("volumes: [{name: v, persistentVolumeClaim: {}}]"), r"persistentVolumeClaim"),
        (in_pod("priorityClassName: high"), r"priorityClassName"),
        (in_pod("schedulerName: mine"), r"knows only default-scheduler"),
        (in_pod("nodeName: n0"), r"nodeName"),
        (in_pod("runtimeClassName: kata"), r"runtimeClassName"),
        (in_pod(SPREAD.strip().replace("kubernetes.io/hostname", "zone")), r"over kubernetes"),
        (in_pod(SPREAD.strip().replace("group: g", "group: x")), r"does not select the pod itself"),
        (in_pod(SPREAD.strip().replace("DoNotSchedule", "Never")), r"Unsatisfiable: .*\"Never\""),
        (in_pod((SPREAD + SPREAD.partition("\n")[2]).strip()), r"one constraint that is DoNotSch"),
        (template("spec:\n  rep", "spec:\n  minReadySeconds: 5\n  rep"), r"7: spec\.minReady"),
        (template("spec:\n  rep", "spec:\n  paused: true\n  rep"), r"7: spec\.paused"),
        (template("kind: Deployment", "kind: StatefulSet"), r"2: kind: .*not StatefulSet"),
        (template("apps/v1", "extensions/v1beta1"), r"not Deployment of extensions/v1beta1"),
        (template("      name: \"{{.Name}}\"\n  template", "      name: other\n  template"),
         r"8: spec\.selector: does not select"),
        (template("  labels: {group: g}\nspec", "  namespace: x\nspec"), r"5: metadata\.namespace"),
        (TEMPLATE + "      - name: second\n        image: x\n", r"one container a pod, not 2"),
        (in_container("ports: [{containerPort: 80}]").replace(POD, "      hostNetwork: true\n"),
         r"lets one such pod"),
        (template(IMAGE, "registry/image:v2"), r"18: image 'registry/image:v2' is not in the sim"),
        (template("{{.Replicas}}", "{{AddInt .Replicas 1}}"), r"7: .*template function 'AddInt'"),
    ],
)  # fmt: skip
def test_what_would_change_what_happens_to_pods_is_refused_by_field_and_line(
    tmp_path: Path, text: str, field: str
) -> None:
    test = written(tmp_path, {"Create": [phase(1)]}, deployment=text)
    with pytest.raises(RenderError, match=rf"^deployment\.yaml:(\d+: .*)?{field}") as refused:
        require_playable(test, WORLD)
    assert refused.value.hint


def test_an_image_that_the_registry_has_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    test = written(tmp_path, {"Create": [phase(1)]}, deployment=template(":v1", ":v2"))
    with pytest.raises(RenderError) as refused:
        require_playable(test, WORLD)
    assert refused.value.hint == f"did you mean {IMAGE}?"


def test_each_index_is_looked_at_and_not_the_first_alone(tmp_path: Path) -> None:
    text = template("image:v1", "image:v{{.Index}}")
    test = written(tmp_path, {"Create": [phase(3)]}, deployment=text)
    world = replace(WORLD, images={f"registry/image:v{index}": () for index in range(2)})
    with pytest.raises(RenderError, match="image 'registry/image:v2' is not in the simulated"):
        require_playable(test, world)


# What phases do


def test_a_patch_that_would_roll_pods_out_anew_is_refused(tmp_path: Path) -> None:
    again = template(CONTAINER, CONTAINER + "        args: [x]\n")
    steps = {"Create": [phase(1)], "Patch": [phase(1, template="again.yaml")]}
    test = written(tmp_path, steps, again=again)
    with pytest.raises(RenderError, match=r"again\.yaml:1: patches ns-1/web-0 with more than"):
        require_playable(test, WORLD)


def test_a_deletion_between_lets_the_next_one_differ(tmp_path: Path) -> None:
    again = template(CONTAINER, CONTAINER + "        args: [x]\n")
    steps = {"Create": [phase(1)], "Delete": [phase(0)], "Again": [phase(1, template="again.yaml")]}
    assert len(play(tmp_path, steps, again=again).interpreter.pods) == 2


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([phase(1), phase(2)], "'Create' declares the same objects twice"),
        ([phase(1, "a", "a")], "'Create' declares the same objects twice"),
        ([phase(1) | {"namespaceRange": None, "namespaceList": ["default"]}],
         "'Create' acts in {'default'}, outside the test's namespaces"),
        ([phase(1) | {"namespaceRange": None}], "'Create' acts in {''}, outside"),
    ],
)  # fmt: skip
def test_a_phase_that_acts_in_no_order_or_elsewhere_is_refused(
    tmp_path: Path, phases: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(RenderError, match=r"config\.yaml:\d+: step ") as refused:
        require_playable(written(tmp_path, {"Create": phases}), WORLD)
    assert words in refused.value.message


def test_pods_that_a_constraint_would_count_must_share_it(tmp_path: Path) -> None:
    steps = {"Create": [phase(1, "a")], "More": [phase(1, "b", template="plain.yaml")]}
    test = written(tmp_path, steps, deployment=in_pod(SPREAD.strip()), plain=TEMPLATE)
    with pytest.raises(RenderError, match=r"plain\.yaml:18: .*'group=g', which selects these too"):
        require_playable(test, WORLD)


# Measurements


STARTUP = [call("PodStartupLatency", "P", action=action) for action in ("start", "gather")]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([[controlled("gather")]], "Wait: gather without a start in a step before"),
        ([[controlled("start"), controlled("gather")]], "gather without a start in a step before"),
        ([[controlled("start")], [controlled("start")]], "Wait: is started a second time"),
        ([[controlled("start")], [controlled("stop")], [controlled("gather")]],
         "gather without a start in a step before"),
        ([[controlled("start")], [controlled("stop")], [controlled("start")]], "a second time"),
        ([[STARTUP[0]], [STARTUP[1]], [STARTUP[0]]], "P: is started a second time"),
        ([[controlled("start", kind="Job")]], "waits for Deployments of apps/v1, not Job"),
        ([[controlled("start", operationTimeout="0s")]], "operationTimeout must be above zero"),
        ([[controlled("start", fieldSelector="metadata.name=x")]], "knows no fieldSelector"),
        ([[controlled("start", labelSelector="a in (b)")]], "labelSelector: 'a in .b.' is no KEY"),
        ([[controlled("start")], [controlled("gather", refreshInterval="1s")]], "refreshInterval"),
        ([[query("up", prometheusClient="managed")]], "knows no prometheusClient 'managed'"),
        ([[call("WaitForNodes", minDesiredNodeCount=1, maxDesiredNodeCount=1,
                labelSelector="pool = x")]], "the simulator's nodes have no such label"),
        ([[call("Exec", command=["x"])]], "method 'Exec' is unknown"),
    ],
)  # fmt: skip
def test_a_measurement_that_could_not_be_carried_out_is_refused(
    tmp_path: Path, steps: list[list[dict[str, Any]]], words: str
) -> None:
    test = written(tmp_path, {f"Step {index}": calls for index, calls in enumerate(steps)})
    with pytest.raises(RenderError, match=rf"config\.yaml:\d+: .*{words}") as refused:
        require_playable(test, WORLD)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (call("WaitForRunningPods", timeout="5s"), "key desiredPodCount not found"),
        (call("WaitForRunningPods", desiredPodCount="few"), "few is no whole number"),
        (call("WaitForNodes", minDesiredNodeCount=1), "key maxDesiredNodeCount not found"),
        (call("WaitForNodes", minDesiredNodeCount=1, maxDesiredNodeCount=1, timeout=5),
         "params.timeout: must be a string, got 5"),
        (call("Timer", action="start"), "key label not found"),
        (call("Timer", action="pause"), "unknown action pause"),
        (call("Timer", action="gather", desiredPodCount=1), "unknown key 'desiredPodCount'"),
    ],
)  # fmt: skip
def test_params_that_cl2_would_find_wrong_when_the_call_runs_are_refused_when_it_is_read(
    tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(RenderError, match=rf"config\.yaml:\d+: .*{words}"):
        written(tmp_path, {"Step": [asked]})


def test_nodes_may_be_selected_as_the_pods_select_them(tmp_path: Path) -> None:
    wait = call("WaitForNodes", minDesiredNodeCount=3, maxDesiredNodeCount=3,
                labelSelector="pool = user")  # fmt: skip
    steps = {"Create": [phase(1)], "Wait": [wait]}
    played = play(tmp_path, steps, deployment=in_pod("nodeSelector: {pool: user}"))
    assert (played.failures, played.took_s("Wait")) == ((), 30)


# Modules and overrides


def module(path: Path, steps: str, **params: Any) -> cl2.TestConfig:
    """A test of one module, under the overrides {Size: 1, Rest: 5s}."""
    written(path, {"Sleep": [sleep("1s")]}, module=steps)
    (path / "config.yaml").write_text(
        f"name: small\nsteps:\n- module: {{path: module.yaml, params: {params}}}\n", "utf-8"
    )
    return cl2.load_test(path / "config.yaml", {"Size": 1, "Rest": "5s"})


SLEEP = """\
steps:
- measurements:
  - {identifier: s, method: Sleep, params: {duration: "{{.Rest}}"}}
"""


def test_a_module_sees_the_overrides_and_its_params_win_over_them(tmp_path: Path) -> None:
    for name, params, rest in (("plain", {}, "5s"), ("own", {"Rest": "9s"}, "9s")):
        [call_] = module(tmp_path / name, SLEEP, **params).steps[0].measurements
        assert call_.params == {"duration": rest}


def test_a_module_within_a_module_sees_its_own_params_and_the_overrides(tmp_path: Path) -> None:
    outer = "steps:\n- module: {path: inner.yaml, params: {Inner: 1}}"
    (tmp_path / "inner.yaml").write_text(SLEEP, "utf-8")
    [call_] = module(tmp_path, outer, Rest="9s").steps[0].measurements
    assert call_.params == {"duration": "5s"}


def test_object_templates_see_the_overrides_and_their_fill_map_wins(tmp_path: Path) -> None:
    written(tmp_path, {"Create": [phase(1, replicas=7)]}, deployment=TEMPLATE + "# {{.Size}}\n")
    test = cl2.load_test(tmp_path / "config.yaml", {"Replicas": 2, "Size": 1})
    [bundled] = test.steps[0].phases[0].objects
    assert cl2.object_manifest(bundled, 0, "ns-1")["spec"]["replicas"] == 7
    assert bundled.fill == {"Replicas": 7}
