"""A pod's life before any node hears of it: created by its controller, placed by the scheduler.

Hides how the control plane paces and where it puts pods. kubernetes 1.36: controllers make a
ReplicaSet's pods in batches of 1, 2, 4, ... (pkg/controller/replicaset), each write takes a token
of the controller manager's client; the scheduler binds one pod a token and prefers the node with
the fewest pods (NodeResourcesLeastAllocated and PodTopologySpread; ImageLocality is not modelled).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

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
        self._pods = np.zeros(count, dtype=np.int64)
        self._spread: dict[str, NDArray[np.int64]] = {}  # pods of each spread on each node
        self._cpu_cores, self._memory_bytes = np.zeros(count), np.zeros(count)
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
        room = self._room(request)
        fewest = self._pods[room].min() if room.any() else -1
        if fewest < 0:
            self._waiting.append(pod)
            return
        candidates = np.flatnonzero(room & (self._pods == fewest))
        node = int(candidates[int(self._luck.share("spread", request.index) * len(candidates))])
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

    def _room(self, request: PodRequest) -> NDArray[np.bool_]:
        node = self._world.node
        room = self._pods < node.max_pods
        if request.cpu_cores:
            room &= self._cpu_cores + request.cpu_cores <= node.vcpus
        if request.memory_bytes:
            room &= self._memory_bytes + request.memory_bytes <= node.memory_bytes
        if request.spread is not None and request.spread in self._spread:
            there = self._spread[request.spread]
            room &= there - there.min() < request.max_skew
        return room

    def _count(self, node: int, request: PodRequest, more: int) -> None:
        self._pods[node] += more
        self._cpu_cores[node] += more * request.cpu_cores
        self._memory_bytes[node] += more * request.memory_bytes
        if request.spread is not None:
            if request.spread not in self._spread:
                self._spread[request.spread] = np.zeros(len(self._pods), dtype=np.int64)
            self._spread[request.spread][node] += more
