"""What Prometheus would have scraped from the nodes of a simulated trial.

Hides when a series exists and what a scrape sees of it. A real vector of metrics has no series
before its first observation, targets are scraped at their own moments, programs that start afresh
count from zero, and a series that ends is marked stale: all four decide what rate() can see.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from imgpull import exporters
from imgpull.exporters import Family
from imgpull.simcluster.exposed import OBSERVERS, Meter
from imgpull.simcluster.model import NodeTrace, Trace, World
from imgpull.simcluster.promfunctions import Floats, Integers
from imgpull.simcluster.promql import STALE, Series
from imgpull.simcluster.promvectors import Labels

# perf-tests clusterloader2 pkg/prometheus: the kubelet ServiceMonitor, whose two endpoints
# (/metrics and /metrics/cadvisor) share a job and so one series of `up`; its jobLabel; and the job
# that Azure's CL2 adds (containerd-scrape-configs).
KUBELET_INTERVAL_S = 30.0
JOBS = {"kubelet": "kubelet", "cadvisor": "kubelet", "containerd": "monitoring/containerd"}
_EARLIER_SCRAPES = 3  # Prometheus runs for a while before the load: what exists is seen at zero

# Rate of a segment and labels, by metric. kubelet adds container, image, name, namespace and pod
# (pkg/kubelet/server: containerPrometheusLabelsFunc), which are empty for a cgroup outside of
# pods: Prometheus drops empty labels. ASSUMPTION: a VM's first NIC and SCSI disk.
_METERED: dict[str, tuple[str, Labels]] = {
    "receive": ("receive_bytes_s", {"id": exporters.NODE_ID, "interface": "eth0"}),
    "write": ("write_bytes_s", {"id": exporters.NODE_ID, "device": "/dev/sda"}),
    "cpu": ("cpu_cores", {"id": exporters.CONTAINERD_ID, "cpu": "total"}),
}

Bools = NDArray[np.bool_]
_Pairs = tuple[tuple[str, str], ...]
# A series name, its labels beside the target's, and its values: a row for each node.
_Column = tuple[str, Labels, Floats]


@dataclass(frozen=True)
class _Observed:
    """What pods gave one metric under one set of labels, in columns."""

    node: Integers
    at_s: Floats
    value: Floats


class Exporters:
    """The series that Prometheus holds after a trial: a `promql.Store`.

    Kubelets are scraped each 30 s and containerds each `containerd_interval_s`, from a little
    before `begin_s` to `end_s`, each target at its own phase. Series are built when first selected.
    """

    def __init__(
        self,
        world: World,
        trace: Trace,
        begin_s: float,
        end_s: float,
        containerd_interval_s: float,
    ) -> None:
        self._world, self._trace = world, trace
        self._window_s = begin_s, end_s
        self._containerd_interval_s = containerd_interval_s
        self._nodes = [trace.nodes.get(name, NodeTrace()) for name in world.node_names]
        self._families = {
            name: (kind, family)
            for kind, family in exporters.families(world.containerd.version).items()
            for name in family.series_names()
        }
        self._targets: dict[str, _Scrapes] = {}
        self._built: dict[str, list[Series]] = {}

    def names(self) -> frozenset[str]:
        """Every name that a program here exposes, observed or not."""
        return frozenset(self._families) | {"up"}

    def select(self, name: str) -> Sequence[Series]:
        """Return the series of one name; none if no program exposes it or nothing was observed."""
        if name in self._built:
            return self._built[name]
        if name == "up":
            self._built["up"] = [
                series for target in ("kubelet", "containerd") for series in self._up(target)
            ]
        elif name in self._families:
            kind, family = self._families[name]
            self._built |= {each: [] for each in family.series_names()}
            found = self._metered(kind, family) if kind in _METERED else self._told(kind, family)
            for each, series in found:
                self._built[each].append(series)
        return self._built.get(name, [])

    def _up(self, target: str) -> Iterator[Series]:
        scrapes = self._scrapes(target)
        answered = scrapes.answered.astype(np.float64)
        return (series for _, series in scrapes.series(scrapes.asked, [("up", {}, answered)]))

    def _metered(self, kind: str, family: Family) -> Iterator[tuple[str, Series]]:
        rate, labels = _METERED[kind]
        scrapes = self._scrapes(family.target)
        rows = [
            meter.until(times_s, rate, since_s=node.restarted_s)
            for node, meter, times_s in zip(self._nodes, self._meters, scrapes.times_s, strict=True)
        ]
        return scrapes.series(scrapes.answered, [(family.name, labels, np.array(rows))])

    @cached_property
    def _meters(self) -> list[Meter]:
        return [Meter(node.segments) for node in self._nodes]

    def _told(self, kind: str, family: Family) -> Iterator[tuple[str, Series]]:
        scrapes = self._scrapes(family.target)
        for pairs, observed in self._observations(kind, family.from_start).items():
            labels = dict(pairs)
            if family.edges:
                counts = scrapes.counts(observed, family.edges)
                columns = _histogram(family, labels, counts, scrapes.total(observed))
                seen = counts[:, -1] > 0
            else:
                total = scrapes.total(observed)
                columns, seen = [(family.name, labels, total)], total > 0
            yield from scrapes.series(scrapes.answered & (seen | family.from_start), columns)

    def _observations(self, kind: str, from_start: bool) -> dict[_Pairs, _Observed]:
        index = {name: row for row, name in enumerate(self._world.node_names)}
        observe, world = OBSERVERS[kind], self._world
        found: dict[_Pairs, list[tuple[int, float, float]]] = {(): []} if from_start else {}
        for pod in self._trace.pods:
            if pod.node is not None:
                row = index[pod.node]
                for at_s, value, labels in observe(world, pod):
                    found.setdefault(labels, []).append((row, at_s, value))
        observed = {}
        for labels, rows in found.items():
            table = np.array(rows, dtype=np.float64).reshape(-1, 3)
            observed[labels] = _Observed(table[:, 0].astype(np.int64), table[:, 1], table[:, 2])
        return observed

    def _scrapes(self, target: str) -> "_Scrapes":
        """When the targets of this kind are scraped, and which scrapes are answered."""
        if target not in self._targets:
            world, (begin_s, end_s) = self._world, self._window_s
            containerd = target == "containerd"
            interval_s = self._containerd_interval_s if containerd else KUBELET_INTERVAL_S
            phases = [
                [random.Random(f"{world.seed}/scrape {target}/{row}").random()]
                for row in range(len(world.node_names))
            ]
            count = int((end_s - begin_s) // interval_s) + _EARLIER_SCRAPES + 1
            first_s = begin_s + (np.array(phases, dtype=np.float64) - _EARLIER_SCRAPES) * interval_s
            scrapes_s = first_s + interval_s * np.arange(count)
            times_s: Floats = np.round(scrapes_s, 3).astype(np.float64)  # Prometheus keeps ms
            lost_s = np.array([[node.lost_s] for node in self._nodes])
            restarted_s = np.array([[node.restarted_s] for node in self._nodes])
            back_s = restarted_s + world.faults.restart_takes_s
            down = (times_s >= lost_s) | ((times_s >= restarted_s) & (times_s < back_s))
            asked = times_s <= end_s
            self._targets[target] = _Scrapes(
                nodes=world.node_names,
                job=JOBS[target],
                interval_s=interval_s,
                times_s=times_s,
                asked=asked,
                answered=asked & ~down,
                restarted_s=restarted_s[:, 0],
            )
        return self._targets[target]


def _histogram(family: Family, labels: Labels, counts: Floats, total: Floats) -> list[_Column]:
    bounds = [repr(float(edge)).removesuffix(".0") for edge in family.edges] + ["+Inf"]
    return [
        *(
            (f"{family.name}_bucket", {**labels, "le": bound}, counts[:, bucket])
            for bucket, bound in enumerate(bounds)
        ),
        (f"{family.name}_sum", labels, total),
        (f"{family.name}_count", labels, counts[:, -1]),
    ]


@dataclass(frozen=True)
class _Scrapes:
    """All scrapes of one kind of target: in each array a row for each node, a column a scrape."""

    nodes: Sequence[str]
    job: str
    interval_s: float
    times_s: Floats
    asked: Bools  # within the trial
    answered: Bools
    restarted_s: Floats

    def total(self, observed: _Observed) -> Floats:
        """What was observed until each scrape, summed."""
        return self._running(observed, np.zeros_like(observed.node), 1, observed.value)[:, 0]

    def counts(self, observed: _Observed, edges: tuple[float, ...]) -> Floats:
        """How many values were observed until each scrape, up to each edge and in all."""
        bucket = np.array(edges).searchsorted(observed.value)
        ones = np.ones_like(observed.value)
        return self._running(observed, bucket, len(edges) + 1, ones).cumsum(axis=1)

    def _running(
        self, observed: _Observed, column: Integers, columns: int, weight: Floats
    ) -> Floats:
        """Sums of weights by node and column until each scrape."""
        nodes, count = self.times_s.shape
        scrape = self._first_to_see(observed)
        seen = scrape < count
        place = (observed.node * columns + column) * count + scrape
        grown = np.bincount(place[seen], weight[seen], nodes * columns * count)
        # Of nothing, bincount makes integers.
        sums: Floats = grown.reshape(nodes, columns, count).cumsum(axis=2, dtype=np.float64)
        for node, afresh in enumerate(self._afresh):
            if 0 < afresh < count:
                sums[node, :, afresh:] -= sums[node, :, afresh - 1, np.newaxis]
        return sums

    @cached_property
    def _afresh(self) -> Integers:
        """By node its first scrape since its programs started afresh; beyond the last if never."""
        before: Integers = (self.times_s < self.restarted_s[:, np.newaxis]).sum(axis=1)
        return before

    def _first_to_see(self, observed: _Observed) -> Integers:
        """The first scrape that sees each observation; beyond the last one if none does."""
        node, at_s, count = observed.node, observed.at_s, self.times_s.shape[1]
        index: Integers = np.ceil((at_s - self.times_s[node, 0]) / self.interval_s).astype(np.int64)
        index = index.clip(0, count)
        # Scrapes are rounded to ms: the one before or after may be it.
        index -= (index > 0) & (self.times_s[node, index - 1] >= at_s)
        index += (index < count) & (self.times_s[node, index.clip(0, count - 1)] < at_s)
        forgotten = (at_s < self.restarted_s[node]) & (index >= self._afresh[node])
        index[forgotten] = count
        return index

    def series(self, exists: Bools, columns: Sequence[_Column]) -> Iterator[tuple[str, Series]]:
        """Series by name, of what exists at a scrape, and marked where it does no more."""
        ended = np.zeros_like(exists)
        ended[:, 1:] = exists[:, :-1] & ~exists[:, 1:] & self.asked[:, 1:]
        kept = exists | ended
        for row in np.flatnonzero(kept.any(axis=1)).tolist():
            marked = ended[row].any()
            first = int(kept[row].argmax())
            plain = slice(first, first + int(kept[row].sum()))
            where = np.flatnonzero(kept[row]) if marked else plain
            times_s = self.times_s[row, where]
            target = {"job": self.job, "node": self.nodes[row]}
            for name, labels, values in columns:
                mine = values[row, where]
                if marked:
                    mine[ended[row, where]] = STALE
                yield name, Series({**target, **labels}, times_s, mine)
