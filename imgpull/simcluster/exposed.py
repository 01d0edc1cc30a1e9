"""What the programs on a node count: pod by pod for most metrics, as totals for its meters.

Hides the meaning of every series: what its clock starts and ends with, and which calls it counts.
Keys are those of `exporters.families`; kubelet's sources are kubernetes 1.36 pkg/kubelet, those of
containerd 2.3 internal/cri/server.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from imgpull import exporters
from imgpull.simcluster.model import Attempt, PodTrace, Segment, World
from imgpull.simcluster.promfunctions import Floats

_TICK_S = 1e-9  # the shortest time that containerd's clock tells
_RUNC = (("runtime", "io.containerd.runc.v2"),)


class Observation(NamedTuple):
    """One value that one pod gave a metric; `labels` beside the node's."""

    at_s: float
    value: float = 1.0
    labels: tuple[tuple[str, str], ...] = ()


Observe = Callable[[World, PodTrace], Iterator[Observation]]


def _answered(pod: PodTrace) -> Iterator[tuple[Attempt, float, float]]:
    """PullImage calls that returned, with when they began and ended.

    A pull that kubelet rejects by itself (pull QPS exceeded) never becomes a call.
    """
    for attempt in pod.attempts:
        if attempt.began_s is not None and attempt.ended_s is not None:
            yield attempt, attempt.began_s, attempt.ended_s


# --------------------------------------------------------------------------------- kubelet


def _image_pull(world: World, pod: PodTrace) -> Iterator[Observation]:
    """Of a successful pull: Pulling event to answer, kubelet's queue included; whole ms."""
    for attempt, _, ended_s in _answered(pod):
        if attempt.worked:
            size = exporters.image_size_class(world.image_bytes(pod.request.image))
            # A hair is added first, so that 0.83 (stored as 0.8299999...) stays 830 ms.
            milliseconds = math.floor((ended_s - attempt.asked_s) * 1000 + 1e-6)
            yield Observation(ended_s, milliseconds / 1000, (("image_size_in_bytes", size),))


def _operations(world: World, pod: PodTrace) -> Iterator[Observation]:
    """kubelet's calls of the runtime, failed ones too: kuberuntime/instrumented_services.go."""
    if pod.synced_s is not None and pod.sandbox_s is not None:
        yield _operation("run_podsandbox", pod.sandbox_s, pod.sandbox_s - pod.synced_s)
    for _, began_s, ended_s in _answered(pod):
        yield _operation("pull_image", ended_s, ended_s - began_s)
    for create in _container_create(world, pod):
        yield _operation("create_container", create.at_s, create.value)
    for start in _container_start(world, pod):
        yield _operation("start_container", start.at_s, start.value)


def _operation_count(world: World, pod: PodTrace) -> Iterator[Observation]:
    return (one._replace(value=1.0) for one in _operations(world, pod))


def _operation_errors(world: World, pod: PodTrace) -> Iterator[Observation]:
    for attempt, _, ended_s in _answered(pod):
        if attempt.error:
            yield _operation("pull_image", ended_s, 1.0)


def _run_sandbox(world: World, pod: PodTrace) -> Iterator[Observation]:
    """Its label runtime_handler is empty for the default one: Prometheus drops empty labels."""
    if pod.synced_s is not None and pod.sandbox_s is not None:
        yield Observation(pod.sandbox_s, pod.sandbox_s - pod.synced_s)


def _pod_start(world: World, pod: PodTrace) -> Iterator[Observation]:
    """creationTimestamp (whole seconds) to the started pod's return by the watch."""
    if pod.ready_s is not None:
        yield Observation(pod.ready_s, pod.ready_s - math.floor(pod.created_s))


def _pod_start_without_pull(world: World, pod: PodTrace) -> Iterator[Observation]:
    """util/pod_startup_latency_tracker.go: less the first Pulling event to the last answer."""
    for started in _pod_start(world, pod):
        pulling_s = pod.pulled_s - pod.attempts[0].asked_s if pod.pulled_s is not None else 0.0
        yield started._replace(value=started.value - pulling_s)


def _started_pods(world: World, pod: PodTrace) -> Iterator[Observation]:
    if pod.synced_s is not None:
        yield Observation(pod.synced_s)


def _started_containers(world: World, pod: PodTrace) -> Iterator[Observation]:
    """Tries to start one, and their echo in back-off: recorded, 2 for each pull that failed."""
    tries = [attempt.asked_s for attempt in pod.attempts]
    tries += [attempt.ended_s for attempt in pod.attempts if attempt.error and attempt.ended_s]
    tries += [pod.present_s] if pod.present_s is not None else []
    for at_s in tries:
        yield Observation(at_s, labels=(("container_type", "container"),))


# ------------------------------------------------------------------------------ containerd


def _throughput(world: World, pod: PodTrace) -> Iterator[Observation]:
    """MiB/s of one PullImage: its image's size, cached or not; from 2.4 what was fetched."""
    fetched_only = exporters.version_tuple(world.containerd.version) >= (2, 4)
    for attempt, began_s, ended_s in _answered(pod):
        image_bytes = world.image_bytes(pod.request.image)
        size_bytes = attempt.fetched_bytes if fetched_only else image_bytes
        if attempt.worked and not (fetched_only and size_bytes == 0):
            yield Observation(ended_s, size_bytes / max(ended_s - began_s, _TICK_S) / 1024**2)


def _pulls(world: World, pod: PodTrace) -> Iterator[Observation]:
    for attempt, _, ended_s in _answered(pod):
        status = "failure" if attempt.error else "success"
        yield Observation(ended_s, labels=(("status", status),))


def _running_pulls(world: World, pod: PodTrace) -> Iterator[Observation]:
    for attempt in pod.attempts:
        if attempt.began_s is not None:
            yield Observation(attempt.began_s)
            if attempt.ended_s is not None:
                yield Observation(attempt.ended_s, -1.0)


def _network(world: World, pod: PodTrace) -> Iterator[Observation]:
    """CNI ADD as the sandbox comes up; CNI DEL twice, as it is stopped and as it is removed."""
    for setup in _sandbox_network(world, pod):
        yield _operation("set_up_pod", setup.at_s, setup.value)
    teardown_s = pod.network_teardown_s
    if pod.stopped_s is not None and teardown_s is not None and not pod.request.host_network:
        for nth in (1, 2):
            yield _operation("tear_down_pod", pod.stopped_s + nth * teardown_s, teardown_s)


def _network_count(world: World, pod: PodTrace) -> Iterator[Observation]:
    return (one._replace(value=1.0) for one in _network(world, pod))


def _sandbox_network(world: World, pod: PodTrace) -> Iterator[Observation]:
    """CNI ADD and the network namespace around it, which takes no time here (recorded: 2 ms)."""
    setup_s = pod.network_setup_s
    if pod.sandbox_s is not None and setup_s is not None and not pod.request.host_network:
        yield Observation(pod.sandbox_s, setup_s)


def _container_create(world: World, pod: PodTrace) -> Iterator[Observation]:
    there_s = pod.pulled_s if pod.present_s is None else pod.present_s
    if pod.container_s is not None and there_s is not None:
        yield Observation(pod.container_s, pod.container_s - there_s, _RUNC)


def _container_start(world: World, pod: PodTrace) -> Iterator[Observation]:
    if pod.started_s is not None and pod.container_s is not None:
        yield Observation(pod.started_s, pod.started_s - pod.container_s, _RUNC)


def _operation(kind: str, at_s: float, value: float) -> Observation:
    return Observation(at_s, value, (("operation_type", kind),))


def _nothing(world: World, pod: PodTrace) -> Iterator[Observation]:
    return iter(())


OBSERVERS: Mapping[str, Observe] = {
    "image pull": _image_pull,
    "operations": _operations,
    "operation count": _operation_count,
    "operation errors": _operation_errors,
    "run sandbox": _run_sandbox,
    "pod start": _pod_start,
    "pod start without pull": _pod_start_without_pull,
    "started pods": _started_pods,
    "started containers": _started_containers,
    "network": _network,
    "network count": _network_count,
    "network errors": _nothing,  # no CNI call fails here
    "sandbox network": _sandbox_network,
    "container create": _container_create,
    "container start": _container_start,
    "pulls": _pulls,
    "running pulls": _running_pulls,
    "throughput": _throughput,
    "throughput mibps": _throughput,
    "idle running pulls": _nothing,
    "idle throughput": _nothing,
    "idle sandbox network": _nothing,
}


class Meter:
    """Running totals of a node's rates: what it received, wrote and spent until a moment."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        table = np.fromiter(chain.from_iterable(segments), np.float64).reshape(-1, 5)
        ends = (table[:, 2:] * (table[:, 1:2] - table[:, :1])).cumsum(axis=0)
        begins = np.concatenate([np.zeros((1, 3)), ends[:-1]])[: len(ends)]
        self._at_s = table[:, :2].ravel()
        self._totals = np.stack([begins, ends], axis=1).reshape(-1, 3)

    def until(self, at_s: Floats, rate: str, *, since_s: float = math.inf) -> Floats:
        """The total of a `Segment`'s rate at ascending times; from `since_s` on since then."""
        if not len(self._at_s):
            return np.zeros(len(at_s))
        totals = self._totals[:, Segment._fields.index(rate) - 2]
        before = np.interp(since_s, self._at_s, totals)
        found: Floats = np.interp(at_s, self._at_s, totals)
        return found - np.where(at_s >= since_s, before, 0.0)
