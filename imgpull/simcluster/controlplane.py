"""A pod's life before any node hears of it: created by its controller, placed by the scheduler.

Hides how the control plane paces and where it puts pods. kubernetes 1.36: controllers make a
ReplicaSet's pods in batches of 1, 2, 4, ... (pkg/controller/replicaset), each write takes a token
of the controller manager's client; the scheduler binds one pod a token and prefers the node with
the fewest pods (NodeResourcesLeastAllocated and PodTopologySpread; ImageLocality is not modelled).
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Sequence

from imgpull.simcluster.delays import Luck, TokenBucket
from imgpull.simcluster.model import PodRequest, PodTrace, World

RETRY_S = 1.0  # kubernetes 1.36 pkg/scheduler: podInitialBackoffSeconds, after room was made


def created(world: World, luck: Luck, requests: Sequence[PodRequest]) -> list[PodTrace]:
    """Pods in the order of their creation; those deleted before it never come to be."""
    rates = world.rates
    bucket = TokenBucket(rates.controller_pods_s, rates.controller_burst)
    in_set: dict[tuple[str, float], list[PodTrace]] = defaultdict(list)
    traces: list[PodTrace] = []
    for request in sorted(requests, key=lambda pod: (pod.owner_created_s, pod.index)):
        if request.deleted_s <= request.owner_created_s:
            continue
        siblings = in_set[request.owner, request.owner_created_s]
        if not siblings:
            bucket.wait(request.owner_created_s)  # the ReplicaSet, or its new size
        batch = (len(siblings) + 1).bit_length()  # 1, 2, 2, 3, 3, 3, 3, ...
        calls_s = (1 + batch) * rates.api_call_s
        calls_s *= luck.factor("creation", request.index, rates.event_jitter_sigma)
        created_s = bucket.wait(request.owner_created_s) + calls_s
        pod = PodTrace(request, created_s)
        siblings.append(pod)
        if created_s < deletion_s(world, request):
            traces.append(pod)
    traces.sort(key=lambda pod: (pod.created_s, pod.request.index))
    return traces


def deletion_s(world: World, request: PodRequest) -> float:
    """When the deletion reaches the pod: Deployment, ReplicaSet, Pod, one write each."""
    return request.deleted_s + 3 * world.rates.api_call_s


class Scheduler:
    """Finds each pod its node, first come, first served."""

    def __init__(self, world: World, luck: Luck, bind: Callable[[float, PodTrace], None]) -> None:
        self._world, self._luck, self._bind = world, luck, bind
        rates, count = world.rates, len(world.node_names)
        self._bucket = TokenBucket(rates.scheduler_pods_s, rates.scheduler_burst)
        self._pods = [0] * count
        self._by_pods: list[list[int]] = [[] for _ in range(world.node.max_pods + 1)]
        self._by_pods[0] = list(range(count))  # nodes with so many pods, in order
        self._unspread = 0  # pods of no spread
        self._spread: dict[str, list[int]] = {}  # pods of each spread on each node
        self._cpu_cores, self._memory_bytes = [0.0] * count, [0.0] * count
        self._index = {name: index for index, name in enumerate(world.node_names)}
        self._waiting: list[PodTrace] = []

    def turn_s(self, now_s: float, pod: PodTrace) -> float:
        """When the scheduler comes to a pod that it sees now."""
        factor = self._luck.factor(
            "binding", pod.request.index, self._world.rates.event_jitter_sigma
        )
        return self._bucket.wait(now_s) + self._world.rates.binding_s * factor

    def place(self, now_s: float, pod: PodTrace) -> None:
        """Bind the pod to the node with the fewest pods that may take it, or let it wait."""
        request = pod.request
        if request.deleted_s <= now_s:
            return
        candidates = self._candidates(request)
        if not candidates:
            self._waiting.append(pod)
            return
        node = candidates[int(self._luck.share("spread", request.index) * len(candidates))]
        self._count(node, request, 1)
        pod.node, pod.scheduled_s = self._world.node_names[node], now_s
        self._bind(now_s, pod)

    def leave(self, pod: PodTrace) -> list[PodTrace]:
        """The pod is gone from its node; returns who waited for room and may be tried again."""
        if pod.node is None:
            return []
        self._count(self._index[pod.node], pod.request, -1)
        waiting, self._waiting = self._waiting, []
        return waiting

    def _candidates(self, request: PodRequest) -> list[int]:
        """Of the nodes that may take the pod those with the fewest pods, in order."""
        there = self._spread.get(request.spread or "")
        asks = request.cpu_cores or request.memory_bytes
        # Where every pod is of one spread, the nodes with the fewest pods are those it allows.
        binds = there is not None and (len(self._spread) > 1 or self._unspread > 0)
        fewest = min(there) if there is not None and (asks or binds) else 0
        for nodes in self._by_pods[:-1]:
            if nodes and not asks and not binds:
                return nodes
            found = [node for node in nodes if self._fits(node, request, there, fewest)]
            if found:
                return found
        return []

    def _fits(self, node: int, request: PodRequest, there: list[int] | None, fewest: int) -> bool:
        hardware = self._world.node
        return (
            self._cpu_cores[node] + request.cpu_cores <= hardware.vcpus
            and self._memory_bytes[node] + request.memory_bytes <= hardware.memory_bytes
            and (there is None or there[node] - fewest < request.max_skew)
        )

    def _count(self, node: int, request: PodRequest, more: int) -> None:
        pods = self._pods[node]
        alike = self._by_pods[pods]
        del alike[bisect_left(alike, node)]
        self._pods[node] = pods + more
        insort(self._by_pods[pods + more], node)
        self._cpu_cores[node] += more * request.cpu_cores
        self._memory_bytes[node] += more * request.memory_bytes
        if request.spread is None:
            self._unspread += more
            return
        if request.spread not in self._spread:
            self._spread[request.spread] = [0] * len(self._pods)
        self._spread[request.spread][node] += more
