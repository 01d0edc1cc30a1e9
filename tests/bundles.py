"""Small CL2 tests written in place, and the world that plays them: what each step takes by hand.

Hides YAML and files: steps are given as data, and a played test is its report and its pods.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from imgpull import cl2
from imgpull.cl2.junit import Junit
from imgpull.engines.sim import subset
from imgpull.engines.sim.interpreter import Interpreter
from imgpull.simcluster import Containerd, Kubelet, Layer, Node, PodTrace, Rates, Registry, World

IMAGE = "registry/image:v1"
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{{.Name}}"
  labels: {group: g}
spec:
  replicas: {{.Replicas}}
  selector:
    matchLabels:
      name: "{{.Name}}"
  template:
    metadata:
      labels: {group: g, name: "{{.Name}}"}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: image
        image: registry/image:v1
"""
WORLD = World(
    node_names=("n0", "n1", "n2"),
    node=Node(4, 16 << 30, 1e9, 1e9, max_pods=30),
    registry=Registry(egress_bytes_s=1e10, connection_bytes_s=1e8, first_byte_s=0.01),
    kubelet=Kubelet("1.34.0", registry_pull_qps=0),
    containerd=Containerd("1.7.34"),
    rates=Rates(
        gzip_unpack_bytes_s=2e8, zstd_unpack_bytes_s=4e8, plain_unpack_bytes_s=6e8,
        hash_bytes_s=1e9, dirty_share=0.2, blob_commit_s=0.01, layer_commit_s=0.01,
        scheduler_pods_s=50, scheduler_burst=100, binding_s=0.005, controller_pods_s=20,
        controller_burst=30, api_call_s=0.01, pod_sync_s=0.05, sandbox_s=0.2, network_setup_s=0.2,
        network_teardown_s=0.1, container_create_s=0.1, container_start_s=0.1, watch_lag_s=0.5,
        resolve_s=0.1, present_s=0.01, event_jitter_sigma=0, node_spread_sigma=0,
        trial_spread_sigma=0,
    ),
    images={IMAGE: (Layer("base", 50_000_000, 100_000_000),)},  # pulled within two seconds
    seed=0,
    trial=1,
)  # fmt: skip


def slow(pull_s: float) -> World:
    """The world in which the image is on its way for so long and more."""
    size = int(pull_s * WORLD.registry.connection_bytes_s)
    return replace(WORLD, images={IMAGE: (Layer("base", size, size),)})


def phase(
    count: int,
    *basenames: str,
    replicas: int = 1,
    tuning_set: str = "Fast",
    namespaces: int = 1,
    template: str = "deployment.yaml",
) -> dict[str, Any]:
    """A phase that declares so many of each basename (web when there is none) in each namespace."""
    return {
        "namespaceRange": {"min": 1, "max": namespaces},
        "replicasPerNamespace": count,
        "tuningSet": tuning_set,
        "objectBundle": [
            {
                "basename": basename,
                "objectTemplatePath": template,
                "templateFillMap": {"Replicas": replicas},
            }
            for basename in basenames or ("web",)
        ],
    }


def call(method: str, identifier: str = "", **params: Any) -> dict[str, Any]:
    """A measurement call."""
    return {"method": method, "identifier": identifier or method, "params": params}


def controlled(action: str, **params: Any) -> dict[str, Any]:
    """A call of WaitForControlledPodsRunning for Deployments of the group."""
    if action == "start":
        params = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "labelSelector": "group = g",
        } | params
    return call("WaitForControlledPodsRunning", "Wait", action=action, **params)


def query(text: str, **params: Any) -> dict[str, Any]:
    """The start of a GenericPrometheusQuery of one query, q."""
    asked = {"name": "q", "query": text} | params.pop("query_params", {})
    start = {"action": "start", "metricName": "Q", "metricVersion": "v1", "unit": "1"}
    return call("GenericPrometheusQuery", "Q", **start, queries=[asked], **params)


def sleep(duration: str) -> dict[str, Any]:
    return call("Sleep", duration=duration)


@dataclass(frozen=True)
class Played:
    """A test that was played to its end."""

    interpreter: Interpreter
    report: cl2.Report
    junit: Junit
    directory: Path

    @property
    def pods(self) -> tuple[PodTrace, ...]:
        return self.interpreter.trace().pods

    @property
    def failures(self) -> tuple[str, ...]:
        return self.junit.failures

    def took_s(self, step: str) -> float:
        """How long the step's longest case took, to the millisecond."""
        return round(max(case.time_s for case in self.junit.cases if case.step_name == step), 3)

    def files(self, start: str) -> list[Path]:
        found = (self.directory / "report").iterdir()
        return sorted(path for path in found if path.name.startswith(start))


def written(directory: Path, steps: dict[str, list[dict[str, Any]]], *, namespaces: int = 1,
            sets: dict[str, Any] | None = None, **files: str) -> cl2.TestConfig:  # fmt: skip
    """A test of named steps: of phases, or of measurement calls."""
    loads = {"Fast": {"qpsLoad": {"qps": 1000}}} | (sets or {})
    config = {
        "name": "small",
        "namespace": {"number": namespaces, "prefix": "ns"},
        "tuningSets": [{"name": name, **load} for name, load in loads.items()],
        "steps": [
            {"name": name, "phases" if "objectBundle" in items[0] else "measurements": items}
            for name, items in steps.items()
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    for name, text in ({"deployment": TEMPLATE} | files).items():
        (directory / f"{name}.yaml").write_text(text, "utf-8")
    return cl2.load_test(directory / "config.yaml")


def play(directory: Path, steps: dict[str, list[dict[str, Any]]], *, world: World = WORLD,
         **parts: Any) -> Played:  # fmt: skip
    """Check and play a test; its report is read back."""
    test = written(directory / "bundle", steps, **parts)
    subset.require_playable(test, world)
    interpreter = Interpreter(world, test, 15.0)
    for step in test.steps:
        interpreter.step(step)
    junit = interpreter.finish(directory)
    return Played(interpreter, cl2.read_report(directory / "report"), junit, directory)


def template(old: str, new: str) -> str:
    """The Deployment's template with one text replaced."""
    assert len(re.findall(re.escape(old), TEMPLATE)) == 1
    return TEMPLATE.replace(old, new)
