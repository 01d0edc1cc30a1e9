"""CL2's waits: for a Deployment's pods, for running pods, for nodes.

Hides polling: CL2 looks again and again, first one interval after it began, so a wait ends at one
of its looks, or at its timeout. Sources: perf-tests 4b34154 clusterloader2
pkg/measurement/util/wait_for_pods.go and wait_for_nodes.go, pkg/measurement/common/wait_for_*.go.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from imgpull import cl2, exporters
from imgpull.cl2 import wording
from imgpull.engines.sim.deployments import selects
from imgpull.engines.sim.gathered import Gathered, stamp
from imgpull.engines.sim.lives import READY, Life, Lives, status
from imgpull.simcluster import PodTrace, World


@dataclass(frozen=True)
class _Waited:
    """When a wait was over, whether it got what it waited for, and when it looked last."""

    end_s: float
    done: bool
    looked_s: float


def _poll(
    done: Callable[[float], bool], begin_s: float, timeout_s: float, interval_s: float
) -> _Waited:
    looks, looked_s = 1, begin_s
    # At the deadline the deadline wins: real polls come a little after their time.
    while (at_s := begin_s + looks * interval_s) < begin_s + timeout_s:
        if done(at_s):
            return _Waited(at_s, True, at_s)
        looks, looked_s = looks + 1, at_s
    return _Waited(begin_s + timeout_s, False, looked_s)


def _settled(pods: Sequence[PodTrace], wanted: int, margin: int, at_s: float) -> bool:
    seen: Counter[str] = Counter()
    for pod in pods:
        now = status(pod, at_s)
        if now is None:
            continue
        if now != READY and not margin:
            return False
        seen[now] += 1
    listed = seen.total()
    if margin and seen[READY] >= wanted - margin and listed <= wanted:
        return True
    return listed == seen[READY] == wanted


def running_pods(call: cl2.MeasurementCall, now_s: float, lives: Lives) -> Gathered:
    """WaitForRunningPods, from `now_s` on."""
    wanted, timeout_s = call.count("desiredPodCount"), call.seconds("timeout", "60s")
    trace = lives.trace(now_s + timeout_s)
    chosen = call.text("namespace"), call.text("labelSelector")
    pods = list(lives.selected(*chosen, trace))
    interval_s = call.seconds("refreshInterval", "5s")
    waited = _poll(partial(_settled, pods, wanted, 0), now_s, timeout_s, interval_s)
    if waited.done:
        return Gathered(waited.end_s - now_s)
    seen: Counter[str] = Counter()
    if waited.looked_s > now_s:
        seen.update(filter(None, (status(pod, waited.looked_s) for pod in pods)))
        seen[READY] += 0  # it has looked, whatever it saw
    text = wording.pods_not_running(wanted, wording.selection(*chosen), seen)
    fatal = call.flag("isFatal")
    return Gathered(timeout_s, wording.critical(text) if fatal else text, fatal=fatal)


def ready_nodes(call: cl2.MeasurementCall, now_s: float, world: World, lives: Lives) -> Gathered:
    """WaitForNodes, from `now_s` on; a lost node is Ready until its leases have run out."""
    timeout_s = call.seconds("timeout", "30m")
    nodes = lives.trace(now_s).nodes  # they know what will befall them
    # kube-controller-manager --node-monitor-grace-period: 40 s, from 1.32 on 50 s.
    grace_s = 50.0 if exporters.version_tuple(world.kubelet.version) >= (1, 32) else 40.0

    def ready(at_s: float) -> int:
        return sum(at_s < nodes[name].lost_s + grace_s for name in world.node_names)

    low, high = call.count("minDesiredNodeCount"), call.count("maxDesiredNodeCount")
    waited = _poll(
        lambda at_s: low <= ready(at_s) <= high,
        now_s,
        timeout_s,
        call.seconds("refreshInterval", "30s"),
    )
    if waited.done:
        return Gathered(waited.end_s - now_s)
    selected = wording.selection("", call.text("labelSelector"))
    text = wording.nodes_not_ready(low, high, selected, ready(waited.looked_s))
    return Gathered(timeout_s, text)


@dataclass(frozen=True)
class ControlledPods:
    """WaitForControlledPodsRunning's gather, of what its start call asked for."""

    start: cl2.MeasurementCall
    started_s: float
    lives: Lives

    def gather(self, call: cl2.MeasurementCall, now_s: float) -> Gathered:
        """Wait for all, each from its own last change on; at least for one look."""
        namespace = self.start.text("namespace")
        latest = self._latest()
        if any(namespace not in ("", life.namespace) for life in latest if not life.deleted):
            # Its list knows no namespace, its watch does.
            sync_s = call.seconds("syncTimeout", "60s")
            return Gathered(sync_s, wording.CONTROLLERS_NOT_SYNCED)
        latest = [life for life in latest if namespace in ("", life.namespace)]
        timeout_s = self.start.seconds("operationTimeout", "10m")
        begins_s = [max(life.changed_s, self.started_s) for life in latest]
        trace = self.lives.trace(max(begins_s, default=now_s) + timeout_s)
        pods = {pod.request.index: pod for pod in trace.pods}
        late: list[Life] = []
        failed: list[cl2.FailedPod] = []
        end_s = now_s + cl2.CONTROLLED_POLL_S
        for life, begin_s in zip(latest, begins_s, strict=True):
            its = [pods[index] for index in life.pods if index in pods]
            wanted = 0 if life.deleted else life.wanted
            done = partial(_settled, its, wanted, self.start.count("countErrorMargin"))
            waited = _poll(done, begin_s, timeout_s, cl2.CONTROLLED_POLL_S)
            end_s = max(end_s, waited.end_s)
            if not waited.done:
                late.append(life)
                failed += _failed(life, its, waited.looked_s)
        if not late:
            return Gathered(end_s - now_s)
        if any(life.deleted for life in late):
            # In no namespace there is nothing: the API refuses to delete the pods of all of them
            # at once, which CL2 only logs.
            self.lives.force_delete(namespace, self.start.text("labelSelector"), end_s)
        return Gathered(
            end_s - now_s,
            wording.objects_timed_out("Deployment", [life.key for life in late]),
            lambda report: report.failed_pods(failed, stamp(end_s)),
        )

    def _latest(self) -> list[Life]:
        """What there is to wait for: of each name its last life, unless it ended before."""
        labels = self.start.text("labelSelector")
        found = {life.key: life for life in self.lives.all if selects(labels, life.made.labels)}
        return [
            life for life in found.values() if not life.deleted or life.changed_s > self.started_s
        ]


def _failed(life: Life, pods: Sequence[PodTrace], at_s: float) -> Iterator[cl2.FailedPod]:
    for pod in pods:
        now = status(pod, at_s)
        if now is not None and now != READY:
            scheduled = pod.scheduled_s is not None and pod.scheduled_s <= at_s
            node = pod.node if scheduled and pod.node else ""
            yield cl2.FailedPod(life.namespace, life.key, pod.request.name, node, now)
