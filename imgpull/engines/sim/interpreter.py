"""Interprets a CL2 test step by step in virtual time, over a simulated cluster.

Hides CL2's own timing: how a tuning set paces objects, when a wait ends, what a deletion cuts.
What happens to pods is the simulator's (imgpull.simcluster), simulated again whenever more exist.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from imgpull import cl2, units
from imgpull.cl2 import wording
from imgpull.engines.sim import files
from imgpull.engines.sim.deployments import Deployment, deployment, selects
from imgpull.engines.sim.gathered import (
    EPOCH,
    Case,
    Gather,
    stamp,
    write_pod_startup,
    write_queries,
)
from imgpull.simcluster import model, simulate
from imgpull.simcluster.scrape import Exporters

# CL2 polls controlled pods every 5 s (pkg/measurement/util/wait_for_pods.go).
_POLL_S = 5.0


@dataclass
class Interpreter:
    """One trial being interpreted, step by step, in virtual time."""

    world: model.World
    test: cl2.TestConfig
    containerd_interval_s: float
    clock_s: float = 0.0
    pods: list[model.PodRequest] = field(default_factory=list)
    deployments: dict[str, Deployment] = field(default_factory=dict)  # by namespace/name
    deleted_s: dict[str, float] = field(default_factory=dict)  # by namespace/name
    started: dict[tuple[str, str], tuple[float, cl2.MeasurementCall]] = field(default_factory=dict)
    cases: list[tuple[cl2.Step, list[Case]]] = field(default_factory=list)
    gathers: list[Gather] = field(default_factory=list)
    failed_pods: list[tuple[float, list[cl2.FailedPod]]] = field(default_factory=list)
    _trace: model.Trace | None = None  # of the pods and deletions so far

    def step(self, step: cl2.Step) -> None:
        """Run one step: its phases or its measurements in parallel."""
        cases: list[Case] = []
        self.cases.append((step, cases))
        if step.phases:
            cases.append(Case(max(self._phase(phase) for phase in step.phases)))
        for call in step.measurements:
            cases.append(Case())
            cases[-1].time_s = self._measure(call, cases[-1])
        self.clock_s += max(case.time_s for case in cases)

    def _phase(self, phase: cl2.Phase) -> float:
        """Create what is missing, delete what is too much, as CL2 does; returns seconds taken."""
        qps = float(self.test.tuning_sets[phase.tuning_set].params["qps"])
        gap_s = math.trunc(1e9 / qps) / 1e9
        at_s = self.clock_s
        for namespace in phase.namespaces(self.test.namespace_prefix):
            for bundled in phase.objects:
                alive = [
                    owner
                    for owner in self.deployments
                    if owner.startswith(f"{namespace}/{bundled.basename}-")
                    and owner not in self.deleted_s
                ]
                for index in range(len(alive), phase.replicas_per_namespace):
                    self._create(bundled, index, namespace, at_s)
                    at_s += gap_s
                for owner in alive[phase.replicas_per_namespace :]:
                    self._delete(owner, at_s)
                    at_s += gap_s
        return at_s - self.clock_s

    def _create(self, bundled: cl2.ObjectBundle, index: int, namespace: str, at_s: float) -> None:
        manifest = cl2.object_manifest(bundled, index, namespace)
        found = deployment(manifest, bundled)
        name = manifest["metadata"]["name"]
        owner = f"{namespace}/{name}"
        self.deployments[owner] = found
        self._trace = None
        for number in range(len(self.pods), len(self.pods) + found.replicas):
            self.pods.append(
                model.PodRequest(
                    index=number,
                    namespace=namespace,
                    name=files.pod_name(name, number, self.world),
                    owner=owner,
                    owner_created_s=at_s,
                    image=found.image,
                    pull_policy=found.pull_policy,
                    host_network=found.host_network,
                    grace_s=found.grace_s,
                )
            )

    def _delete(self, owner: str, at_s: float) -> None:
        self.deleted_s[owner] = at_s
        self.pods = [
            replace(pod, deleted_s=at_s) if pod.owner == owner else pod for pod in self.pods
        ]
        self._trace = None

    def trace(self) -> model.Trace:
        """What happens to the pods created so far, if nothing more is asked for."""
        if self._trace is None:
            self._trace = simulate(self.world, self.pods)
        return self._trace

    def _measure(self, call: cl2.MeasurementCall, case: Case) -> float:
        """Run one call; seconds taken."""
        key = (call.method, call.identifier)
        if call.method == "Sleep":
            return units.parse_duration(call.params["duration"])
        if call.action == "start":
            self.started[key] = (self.clock_s, call)
            return 0.0
        if key not in self.started:
            raise call.error(
                "gathered, but never started", hint="start it under the same Identifier first"
            )
        started_s, start = self.started[key]
        if call.action == "stop":
            return 0.0
        if call.method == "WaitForControlledPodsRunning":
            return self._wait(start, case)
        self.gathers.append(Gather(start, call, started_s, self.clock_s, case))
        return 0.0

    def _wait(self, start: cl2.MeasurementCall, case: Case) -> float:
        """Until the pods of all selected Deployments run or are gone, or had their time."""
        timeout_s = units.parse_duration(start.params.get("operationTimeout", "10m"))
        done_s, late = self.clock_s, []
        selector = str(start.params.get("labelSelector", ""))
        for owner, pods in self._pods_by_owner().items():
            if not selects(selector, self.deployments[owner].labels):
                continue
            if owner in self.deleted_s:
                begun_s = self.deleted_s[owner]
                end_s = max(math.inf if pod.gone_s is None else pod.gone_s for pod in pods)
            else:
                begun_s = pods[0].request.owner_created_s
                end_s = max(math.inf if pod.ready_s is None else pod.ready_s for pod in pods)
            if end_s > begun_s + timeout_s:
                late.append(owner)
            done_s = max(done_s, min(end_s, begun_s + timeout_s))
        if late:
            text = wording.objects_timed_out("Deployment", late)
            case.failures.append(wording.call_error(start.method, start.identifier, text))
            self.failed_pods.append((done_s, self._not_running(done_s, late)))
        return math.ceil((done_s - self.clock_s) / _POLL_S) * _POLL_S

    def _pods_by_owner(self) -> dict[str, list[model.PodTrace]]:
        owners: dict[str, list[model.PodTrace]] = {}
        for pod in self.trace().pods:
            owners.setdefault(pod.request.owner, []).append(pod)
        return owners

    def _not_running(self, at_s: float, owners: list[str]) -> list[cl2.FailedPod]:
        return [
            cl2.FailedPod(
                pod.request.namespace,
                pod.request.owner,
                pod.request.name,
                pod.node or "",
                "PendingScheduled" if pod.node else "PendingNotScheduled",
            )
            for pod in self.trace().pods
            if pod.request.owner in owners and (pod.ready_s is None or pod.ready_s > at_s)
        ]

    def finish(self, out: Path) -> None:
        """Evaluate what was gathered and write every file; junit.xml comes last."""
        trace = simulate(self.world, self.pods, self.clock_s)
        report = cl2.ReportWriter(out / "report", self.test.name, self.test.path.name)
        report.generated_config(self.test)
        for at_s, pods in self.failed_pods:
            report.failed_pods(pods, stamp(at_s))
        store = self._store(trace)
        for gather in self.gathers:
            if gather.start.method == "PodStartupLatency":
                text = write_pod_startup(report, gather, self._selected(gather, trace))
            else:
                text = write_queries(report, gather, store)
            if text:
                start = gather.start
                gather.case.failures.append(
                    wording.call_error(start.method, start.identifier, text)
                )
        for step, cases in self.cases:
            if step.phases:
                report.phase_step(step.name, cases[0].time_s, cases[0].failures)
            else:
                report.measurement_step(
                    step.name,
                    [
                        (call.identifier, case.time_s, case.failures)
                        for call, case in zip(step.measurements, cases, strict=True)
                    ],
                )
        report.finish(self.clock_s)
        files.write_events(out / "events.jsonl", self.world, trace, EPOCH)
        files.write_pods(out / "pods.csv", trace)
        files.write_series(out / "series.csv", trace)

    def _selected(self, gather: Gather, trace: model.Trace) -> list[model.PodTrace]:
        selector = str(gather.start.params.get("labelSelector", ""))
        return [
            pod
            for pod in trace.pods
            if selects(selector, self.deployments[pod.request.owner].pod_labels)
        ]

    def _store(self, trace: model.Trace) -> Exporters:
        return Exporters(
            self.world,
            trace,
            begin_s=0.0,
            end_s=self.clock_s,
            containerd_interval_s=self.containerd_interval_s,
        )
