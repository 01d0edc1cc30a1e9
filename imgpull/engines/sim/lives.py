"""Deployments as they are created, scaled and deleted, and what becomes of their pods.

Hides how a changed Deployment turns into pods asked for and deleted, and when the physics has to be
played again: whatever is changed later changes nothing that has already happened.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from imgpull.engines.sim import files
from imgpull.engines.sim.declared import Change
from imgpull.engines.sim.deployments import Deployment, deployment, selects
from imgpull.simcluster import PodRequest, PodTrace, Trace, World, simulate
from imgpull.simcluster.delays import Luck

# How CL2 calls a pod's state (perf-tests 4b34154 pkg/measurement/util/pods.go). There is no
# RunningButNotReady: without probes kubelet tells of both at once.
UNSCHEDULED, PENDING = "PendingNotScheduled", "PendingScheduled"
READY, TERMINATING = "RunningAndReady", "Terminating"


@dataclass
class Life:
    """A Deployment from its creation to its deletion; a later one of its name is another."""

    key: str  # namespace/name
    owner: str  # the same, told apart from earlier lives
    namespace: str
    made: Deployment
    wanted: int  # pods
    changed_s: float  # when a watcher saw its last change, be it its deletion
    pods: list[int] = field(default_factory=list)  # their indexes
    deleted: bool = False


@dataclass
class _Played:
    """A trace, of what had been asked for by a version; right up to `known_s` for later ones."""

    version: int
    until_s: float
    known_s: float
    trace: Trace
    pods: dict[int, PodTrace]


class Lives:
    """All Deployments of a trial, and the pods that the cluster was asked for."""

    def __init__(self, world: World) -> None:
        self.pods: list[PodRequest] = []
        self.all: list[Life] = []
        self.version = 0  # of what was asked for
        self._world = world
        self._luck = Luck(world.seed, world.trial)
        self._alive: dict[str, Life] = {}
        self._lived: Counter[str] = Counter()
        self._played: _Played | None = None

    def apply(self, change: Change, at_s: float) -> None:
        """Create, patch or delete a Deployment: the call is made at `at_s`."""
        seen_s = at_s + self._world.rates.api_call_s
        life = self._alive.get(change.key)
        if change.verb == "delete":
            if life is not None:  # CL2 tolerates that it is not there
                life.deleted, life.changed_s = True, seen_s
                self._delete(life.pods, at_s)
                del self._alive[change.key]
            return
        made = deployment(change.bundled, change.index, change.namespace)
        if change.verb == "patch" and life is not None:
            wanted = life.wanted if made.replicas is None else made.replicas
            if wanted != life.wanted:
                self._scale(life, wanted, at_s)
                life.wanted, life.changed_s = wanted, seen_s
        elif life is None:  # or it is there already, which CL2 tolerates
            wanted = 1 if made.replicas is None else made.replicas
            self._lived[change.key] += 1
            nth = self._lived[change.key]
            owner = change.key if nth == 1 else f"{change.key}#{nth}"
            life = Life(change.key, owner, change.namespace, made, wanted, seen_s)
            self.all.append(life)
            self._alive[change.key] = life
            self._add(life, wanted, at_s)

    def _scale(self, life: Life, wanted: int, at_s: float) -> None:
        alive = [index for index in life.pods if self.pods[index].deleted_s == math.inf]
        if len(alive) > wanted:
            surplus = len(alive) - wanted
            self._delete(self._first_to_go(life, alive, at_s)[:surplus], at_s)
        else:
            self._add(life, wanted - len(alive), at_s)

    def _add(self, life: Life, count: int, at_s: float) -> None:
        made, name = life.made, life.key.removeprefix(f"{life.namespace}/")
        for index in range(len(self.pods), len(self.pods) + count):
            life.pods.append(index)
            self.pods.append(
                PodRequest(
                    index=index,
                    namespace=life.namespace,
                    name=files.pod_name(name, index, self._world),
                    owner=life.owner,
                    owner_created_s=at_s,
                    image=made.image,
                    pull_policy=made.pull_policy,
                    host_network=made.host_network,
                    # A constraint counts the pods of its own namespace.
                    spread=made.spread and f"{life.namespace}/{made.spread}",
                    max_skew=made.max_skew,
                    cpu_cores=made.cpu_cores,
                    memory_bytes=made.memory_bytes,
                    grace_s=made.grace_s,
                )
            )
        self._changed(at_s)

    def _delete(self, pods: Sequence[int], at_s: float) -> None:
        for index in pods:
            if self.pods[index].deleted_s == math.inf:
                self.pods[index] = replace(self.pods[index], deleted_s=at_s)
        self._changed(at_s)

    def _changed(self, at_s: float) -> None:
        self.version += 1
        if self._played is not None:
            self._played.known_s = min(self._played.known_s, at_s)

    def _first_to_go(self, life: Life, pods: Sequence[int], at_s: float) -> list[int]:
        """In the order in which a ReplicaSet gives up its pods.

        kubernetes 1.36 pkg/controller/controller_utils.go ActivePodsWithRanks: not scheduled, not
        ready, many on one node, young (by the logarithm of its age), then by random uid.
        """
        there = self._states(pods, at_s)
        shared = Counter(pod.node for pod in there.values())

        def order(index: int) -> tuple[float, ...]:
            pod, luck = there.get(index), self._luck.share("pod uid", index)
            if pod is None:  # not created yet, and now it never will be
                return (0, 0, 0, 0, luck)
            state = (UNSCHEDULED, PENDING, READY).index(status(pod, at_s) or UNSCHEDULED)
            since_s = pod.created_s if pod.ready_s is None else pod.ready_s
            age_ns = (at_s - since_s) * 1e9
            age = math.trunc(math.log2(age_ns)) if age_ns >= 1 else -1
            return (1, state, -shared[pod.node], age, luck)

        return sorted(pods, key=order)

    def _states(self, pods: Sequence[int], at_s: float) -> dict[int, PodTrace]:
        """Those of the pods that there are then, by index."""

        def settled(played: _Played, pod: PodTrace | None) -> bool:
            return pod is not None and (pod.ready_s or math.inf) <= played.known_s

        played = self._played
        # Where all were ready before anything was changed, playing again would tell nothing new.
        if played is None or not all(settled(played, played.pods.get(index)) for index in pods):
            played = self._play(at_s)
        return {index: played.pods[index] for index in pods if index in played.pods}

    def force_delete(self, namespace: str, labels: str, at_s: float) -> None:
        """Delete all pods of a namespace that match, with no grace; ReplicaSets replace them."""
        for life in self.all:
            if life.namespace != namespace or not selects(labels, life.made.pod_labels):
                continue
            for index in life.pods:
                pod = self.pods[index]
                going_s = max(0.0, at_s - pod.deleted_s)
                self.pods[index] = replace(pod, grace_s=min(pod.grace_s, going_s))
            if not life.deleted:
                self._delete(life.pods, at_s)
                self._add(life, life.wanted, at_s)
        self._changed(at_s)

    # ---------------------------------------------------------------- what happens to them

    def trace(self, until_s: float) -> Trace:
        """What happens until then at least, if nothing more is asked for."""
        return self._play(until_s).trace

    def _play(self, until_s: float) -> _Played:
        played = self._played
        if played is None or played.version != self.version or played.until_s < until_s:
            trace = simulate(self._world, self.pods, until_s)
            pods = {pod.request.index: pod for pod in trace.pods}
            played = self._played = _Played(self.version, until_s, until_s, trace, pods)
        return played

    def ended(self, end_s: float) -> Trace:
        """What has happened by then, and nothing after it."""
        played = self._play(end_s)
        trace = played.trace
        over = all(pod.gone_s is not None and pod.gone_s <= end_s for pod in trace.pods) and all(
            not node.segments or node.segments[-1].end_s <= end_s for node in trace.nodes.values()
        )
        if over or played.until_s == end_s:
            return trace
        return simulate(self._world, self.pods, end_s)

    def selected(self, namespace: str, labels: str, trace: Trace) -> Iterator[PodTrace]:
        """The pods whose own labels match; of all namespaces when it is empty."""
        chosen = {
            index
            for life in self.all
            if namespace in ("", life.namespace) and selects(labels, life.made.pod_labels)
            for index in life.pods
        }
        return (pod for pod in trace.pods if pod.request.index in chosen)


def status(pod: PodTrace, at_s: float) -> str | None:
    """How CL2 would call the pod's state then; None when the API does not have it."""
    if pod.created_s > at_s or (pod.gone_s is not None and pod.gone_s <= at_s):
        return None
    if pod.request.deleted_s <= at_s:
        return TERMINATING
    if pod.ready_s is not None and pod.ready_s <= at_s:
        return READY
    return UNSCHEDULED if pod.scheduled_s is None or pod.scheduled_s > at_s else PENDING
