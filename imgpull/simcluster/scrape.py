"""What Prometheus would have scraped from the kubelets and containerds of a simulated trial.

Hides when a series exists and what each metric counts. A real vector of metrics has no series
before its first observation, and targets are scraped at their own moments: both decide what rate()
can see.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from imgpull import exporters
from imgpull.simcluster.model import PodTrace, Trace, World
from imgpull.simcluster.promfunctions import Floats
from imgpull.simcluster.promql import Series
from imgpull.simcluster.promvectors import Labels

KUBELET_INTERVAL_S = 30.0  # perf-tests clusterloader2 pkg/prometheus: the kubelet ServiceMonitor
_EARLIER_SCRAPES = 3  # Prometheus runs for a while before the load: what exists is seen at zero
_TICK_S = 1e-9  # the shortest time that containerd's clock tells


@dataclass(frozen=True)
class _Observation:
    """One value that one pod gave a metric; `labels` beside the node's."""

    at_s: float
    value: float = 1.0
    labels: tuple[tuple[str, str], ...] = ()


Observe = Callable[[PodTrace], Iterator[_Observation]]


@dataclass(frozen=True)
class _Metric:
    """A histogram (with bucket edges) or a counter (without), as one target exposes it."""

    name: str
    target: str  # kubelet | containerd
    observe: Observe
    edges: tuple[float, ...] = ()
    from_start: bool = False  # has no labels: exists at zero as soon as its program runs

    def series_names(self) -> list[str]:
        parts = ("_bucket", "_sum", "_count") if self.edges else ("",)
        return [self.name + part for part in parts]


class Exporters:
    """The series that Prometheus holds after a trial: a `promql.Store`.

    Kubelets are scraped each 30 s and containerds each `containerd_interval_s`, from a little
    before `begin_s` to `end_s`, each node at its own phase. Series are built when first selected.
    """

    def __init__(
        self,
        world: World,
        trace: Trace,
        begin_s: float,
        end_s: float,
        containerd_interval_s: float,
    ) -> None:
        self._world = world
        self._pods: dict[str, list[PodTrace]] = {node: [] for node in world.node_names}
        for pod in trace.pods:
            if pod.node is not None:
                self._pods[pod.node].append(pod)
        self._begin_s, self._end_s = begin_s, end_s
        self._intervals_s = {"kubelet": KUBELET_INTERVAL_S, "containerd": containerd_interval_s}
        self._metrics = {
            name: metric for metric in self._exposed() for name in metric.series_names()
        }
        self._built: dict[str, list[Series]] = {}

    def select(self, name: str) -> Sequence[Series]:
        """Return the series of one name; none if no program exposes it or nothing was observed."""
        if name not in self._built:
            metric = self._metrics.get(name)
            self._built |= self._build(metric) if metric else {name: []}
        return self._built[name]

    # ---------------------------------------------------------------- what is exposed, and when

    def _exposed(self) -> Iterator[_Metric]:
        pulls, operations = exporters.KUBELET_IMAGE_PULL, exporters.KUBELET_RUNTIME_OPERATIONS
        errors, network = exporters.KUBELET_RUNTIME_OPERATIONS_ERRORS, exporters.NETWORK_PLUGIN
        yield _Metric(pulls, "kubelet", self._kubelet_pull, exporters.KUBELET_IMAGE_PULL_EDGES_S)
        yield _Metric(
            operations, "kubelet", _operations, exporters.KUBELET_RUNTIME_OPERATIONS_EDGES_S
        )
        yield _Metric(errors, "kubelet", _failed_operations)
        yield _Metric(network, "containerd", self._network, exporters.DEFAULT_EDGES)
        version = self._world.containerd.version
        throughput = exporters.throughput_metric(version)
        counter = exporters.pulls_metric(version)
        if throughput is None or counter is None:
            return
        yield _Metric(counter, "containerd", _pull_calls)
        yield _Metric(
            throughput, "containerd", self._throughput, exporters.DEFAULT_EDGES, from_start=True
        )
        if exporters.version_tuple(version) < (2,):
            # 1.7 links two CRI servers; the second one is idle, and exposed all the same.
            twin = exporters.throughput_metric("2.0")
            assert twin is not None
            yield _Metric(twin, "containerd", _nothing, exporters.DEFAULT_EDGES, from_start=True)

    def _kubelet_pull(self, pod: PodTrace) -> Iterator[_Observation]:
        """Of a successful pull: Pulling event to answer, kubelet's queue included."""
        if pod.pulled_s is not None:
            size = exporters.image_size_class(self._world.image_bytes(pod.request.image))
            took_s = pod.pulled_s - pod.attempts[-1].asked_s
            yield _Observation(pod.pulled_s, took_s, (("image_size_in_bytes", size),))

    def _throughput(self, pod: PodTrace) -> Iterator[_Observation]:
        """MiB/s of one PullImage: its image's size, cached or not; from 2.4 what was fetched."""
        if pod.pulled_s is None:
            return
        last = pod.attempts[-1]
        fetched_only = exporters.version_tuple(self._world.containerd.version) >= (2, 4)
        whole_bytes = self._world.image_bytes(pod.request.image)
        size_bytes = last.fetched_bytes if fetched_only else whole_bytes
        if fetched_only and size_bytes == 0:
            return
        duration_s = max(pod.pulled_s - (last.began_s or 0.0), _TICK_S)
        yield _Observation(pod.pulled_s, size_bytes / duration_s / 1024**2)

    def _network(self, pod: PodTrace) -> Iterator[_Observation]:
        """CNI ADD as the sandbox comes up; CNI DEL twice, as it is stopped and as it is removed."""
        if pod.request.host_network:
            return
        if pod.sandbox_s is not None and pod.network_setup_s is not None:
            yield _operation("set_up_pod", pod.sandbox_s, pod.network_setup_s)
        teardown_s = pod.network_teardown_s
        if pod.stopped_s is not None and teardown_s is not None:
            for nth in (1, 2):
                yield _operation("tear_down_pod", pod.stopped_s + nth * teardown_s, teardown_s)

    # ------------------------------------------------------------------- from events to series

    def _build(self, metric: _Metric) -> dict[str, list[Series]]:
        built: dict[str, list[Series]] = {name: [] for name in metric.series_names()}
        for index, (node, pods) in enumerate(self._pods.items()):
            observed: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
            if metric.from_start:
                observed[()] = []
            for pod in pods:
                for one in metric.observe(pod):
                    observed.setdefault(one.labels, []).append((one.at_s, one.value))
            scrapes_s = self._scrapes_s(metric.target, index)
            for extra, events in observed.items():
                labels = {"node": node, **dict(extra)}
                for name, series in _scraped(metric, labels, events, scrapes_s):
                    built[name].append(series)
        return built

    def _scrapes_s(self, target: str, index: int) -> Floats:
        """When Prometheus scrapes this target on the node of this index."""
        interval_s = self._intervals_s[target]
        phase = random.Random(f"{self._world.seed}/scrape {target}/{index}").random()
        first_s = self._begin_s - (_EARLIER_SCRAPES - phase) * interval_s
        count = max(0, math.floor((self._end_s - first_s) / interval_s) + 1)
        return np.round(first_s + interval_s * np.arange(count), 3)  # Prometheus keeps ms


def _scraped(
    metric: _Metric, labels: Labels, events: Sequence[tuple[float, float]], scrapes_s: Floats
) -> Iterator[tuple[str, Series]]:
    """A metric with one set of labels, as the scrapes saw it, by series name."""
    happened_s = np.array([at_s for at_s, _ in sorted(events)], dtype=np.float64)
    values = np.array([value for _, value in sorted(events)], dtype=np.float64)
    seen = happened_s.searchsorted(scrapes_s, side="right")  # observations by each scrape
    if not metric.from_start:
        first = int(seen.searchsorted(1))
        scrapes_s, seen = scrapes_s[first:], seen[first:]
    if not len(seen):
        return
    total = _running(values)[seen]
    if not metric.edges:
        yield metric.name, Series(labels, scrapes_s, total)
        return
    edges = (*metric.edges, math.inf)
    below = _running((values[:, np.newaxis] <= np.array(edges)).astype(np.float64))[seen]
    for edge, counts in zip(edges, below.T, strict=True):
        yield f"{metric.name}_bucket", Series({**labels, "le": _le(edge)}, scrapes_s, counts)
    yield f"{metric.name}_sum", Series(labels, scrapes_s, total)
    yield f"{metric.name}_count", Series(labels, scrapes_s, seen.astype(np.float64))


@cache
def _le(edge: float) -> str:
    """A bucket's label as Prometheus' client libraries write it: shortest, and +Inf."""
    return "+Inf" if edge == math.inf else repr(float(edge)).removesuffix(".0")


def _running(values: Floats) -> Floats:
    """Sum of the first n values (or rows), for n from 0."""
    return np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])


def _operation(kind: str, at_s: float, duration_s: float) -> _Observation:
    return _Observation(at_s, duration_s, (("operation_type", kind),))


def _answered(pod: PodTrace) -> Iterator[tuple[float, float, str]]:
    """(when, how long it took, error) of each PullImage call that returned."""
    for attempt in pod.attempts:
        if attempt.began_s is not None and attempt.ended_s is not None:
            yield attempt.ended_s, attempt.ended_s - attempt.began_s, attempt.error


def _operations(pod: PodTrace) -> Iterator[_Observation]:
    """kubelet's calls of the runtime, failed ones too."""
    if pod.synced_s is not None and pod.sandbox_s is not None:
        yield _operation("run_podsandbox", pod.sandbox_s, pod.sandbox_s - pod.synced_s)
    for at_s, took_s, _ in _answered(pod):
        yield _operation("pull_image", at_s, took_s)


def _failed_operations(pod: PodTrace) -> Iterator[_Observation]:
    for at_s, _, error in _answered(pod):
        if error:
            yield _operation("pull_image", at_s, 1.0)


def _pull_calls(pod: PodTrace) -> Iterator[_Observation]:
    for at_s, _, error in _answered(pod):
        yield _Observation(at_s, labels=(("status", "failure" if error else "success"),))


def _nothing(pod: PodTrace) -> Iterator[_Observation]:
    return iter(())
