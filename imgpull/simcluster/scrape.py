"""What Prometheus would have scraped from the nodes of a simulated trial.

Hides when a series exists and what a scrape sees of it. A real vector of metrics has no series
before its first observation, targets are scraped at their own moments, programs that start afresh
count from zero, and what is gone is marked stale: all four decide what rate() can see.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from imgpull import exporters
from imgpull.exporters import Family
from imgpull.simcluster.exposed import OBSERVERS
from imgpull.simcluster.model import NodeTrace, PodTrace, Segment, Trace, World
from imgpull.simcluster.promfunctions import Floats, Integers
from imgpull.simcluster.promql import Series
from imgpull.simcluster.promvectors import Labels

# perf-tests clusterloader2 pkg/prometheus: the kubelet ServiceMonitor, /metrics and
# /metrics/cadvisor, which share a job and (so) one series of `up`.
KUBELET_INTERVAL_S = 30.0
# The former's jobLabel; the job of Azure's CL2 (containerd-scrape-configs).
JOBS = {"kubelet": "kubelet", "cadvisor": "kubelet", "containerd": "monitoring/containerd"}
# Written where a series ends: Prometheus' model/value/value.go.
STALE = np.array([0x7FF0000000000002], dtype=np.uint64).view(np.float64)
_EARLIER_SCRAPES = 3  # Prometheus runs for a while before the load: what exists is seen at zero

# cAdvisor's labels that kubelet fills (pkg/kubelet/server: container, image, name, namespace, pod)
# are empty for cgroups outside of pods: Prometheus drops them. ASSUMPTION: the names of NIC and
# disk, those of an Azure VM with a SCSI disk.
_METERS: dict[str, tuple[str, dict[str, str]]] = {
    "receive": ("receive_bytes_s", {"id": exporters.NODE_ID, "interface": "eth0"}),
    "write": ("write_bytes_s", {"id": exporters.NODE_ID, "device": "/dev/sda"}),
    "cpu": ("cpu_cores", {"id": exporters.CONTAINERD_ID, "cpu": "total"}),
}

Bools = NDArray[np.bool_]
_Pairs = tuple[tuple[str, str], ...]


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
        self._nodes = [trace.nodes.get(name, NodeTrace()) for name in world.node_names]
        self._window_s = begin_s, end_s
        self._intervals_s = {
            "kubelet": KUBELET_INTERVAL_S,
            "cadvisor": KUBELET_INTERVAL_S,
            "containerd": containerd_interval_s,
        }
        self._families = {
            name: (kind, family)
            for kind, family in exporters.families(world.containerd.version).items()
            for name in family.series_names()
        }
        self._built: dict[str, list[Series]] = {}
        self._targets = cache(self._scrapes_of)

    def names(self) -> frozenset[str]:
        """Every name that a program here exposes, observed or not."""
        return frozenset(self._families) | {"up"}

    def select(self, name: str) -> Sequence[Series]:
        """Return the series of one name; none if no program exposes it or nothing was observed."""
        if name not in self._built:
            self._build(name)
        return self._built[name]

    def _build(self, name: str) -> None:
        kind, family = self._families.get(name, ("", None))
        if family is None:
            self._built[name] = list(self._up()) if name == "up" else []
            return
        self._built |= {each: [] for each in family.series_names()}
        found = self._metered(kind) if kind in _METERS else self._observed(kind, family)
        for each, series in found:
            self._built[each].append(series)

    def _up(self) -> Iterator[Series]:
        for target in ("kubelet", "containerd"):
            scrapes = self._targets(target)
            for row, node in enumerate(self._world.node_names):
                asked = scrapes.asked[row]
                values = scrapes.answered[row, asked].astype(np.float64)
                labels = {"job": JOBS[target], "node": node}
                yield Series(labels, scrapes.times_s[row, asked], values)

    def _metered(self, kind: str) -> Iterator[tuple[str, Series]]:
        family = exporters.families(self._world.containerd.version)[kind]
        rate, labels = _METERS[kind]
        scrapes, column = self._targets(family.target), Segment._fields.index(rate) - 2
        values = np.empty((len(self._nodes), 1, scrapes.times_s.shape[1]))
        for row, (node, meter) in enumerate(zip(self._nodes, self._meters, strict=True)):
            values[row, 0] = meter.until(scrapes.times_s[row])[column]
            if (first := scrapes.afresh[row]) < values.shape[2]:
                values[row, 0, first:] -= meter.until(np.array([node.restarted_s]))[column]
        everywhere = np.arange(len(self._nodes))
        exists = scrapes.answered
        yield from self._series(family, labels, scrapes.of(everywhere), exists, values)

    @cached_property
    def _meters(self) -> list["Meter"]:
        return [Meter(node.segments) for node in self._nodes]

    # ------------------------------------------------------------- from observations to series

    def _observed(self, kind: str, family: Family) -> Iterator[tuple[str, Series]]:
        scrapes = self._targets(family.target)
        for labels, (row, at_s, value) in self._observations(kind, family).items():
            scrape = scrapes.first_to_see(row, at_s)
            seen = scrape < scrapes.times_s.shape[1]
            row, scrape, value = row[seen], scrape[seen], value[seen]
            shown = np.arange(len(self._nodes)) if family.from_start else np.unique(row)
            mine = scrapes.of(shown)
            values = mine.totals(shown.searchsorted(row), scrape, value, family.edges)
            exists = mine.answered & (family.from_start | (values[:, -1] > 0))
            yield from self._series(family, dict(labels), mine, exists, values)

    def _observations(
        self, kind: str, family: Family
    ) -> dict[_Pairs, tuple[Integers, Floats, Floats]]:
        """By labels: on which node (its index), when and what was observed."""
        index = {name: row for row, name in enumerate(self._world.node_names)}
        found: dict[_Pairs, tuple[list[int], list[float], list[float]]] = {}
        if family.from_start:
            found[()] = [], [], []
        observe = OBSERVERS[kind]
        for pod in self._trace.pods:
            if pod.node is None:
                continue
            for at_s, value, labels in observe(self._world, pod):
                if labels not in found:
                    found[labels] = [], [], []
                for column, one in zip(found[labels], (index[pod.node], at_s, value), strict=True):
                    column.append(one)
        return {
            labels: (np.array(row, dtype=np.int64), np.array(at_s), np.array(value))
            for labels, (row, at_s, value) in found.items()
        }
