"""What nodes received, wrote and computed while a trial ran: the rows of series.csv.

Hides cAdvisor, behind kubelets: which of a node's network interfaces carries its traffic once,
which devices are disks, what containerd's cgroup is called. Samples are taken as they were scraped,
with their own times: steps of a range query would smear a pull over several of them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from statistics import median

from imgpull import exporters, units
from imgpull.cluster.prometheus_api import Sampled, Source, query
from imgpull.tables import POINTS_A_NODE, SeriesRow

# Pods' ends of their networks, and bridges, by the names that the usual network plugins give them:
# they carry what a node sends to itself.
_INNER = (
    "lo", "azure.*", "azv.*", "br-.*", "cali.*", "cbr.*", "cni.*", "docker.*", "eni[0-9a-f]{8,}",
    "flannel.*", "genev.*", "ifb.*", "kube-.*", "lxc.*", "nodelocaldns", "tunl.*", "veth.*",
    "vxlan.*",
)  # fmt: skip
_INTERFACES = "|".join(_INNER)
_RECEIVED = (
    f'container_network_receive_bytes_total{{id="{exporters.NODE_ID}",interface!~"{_INTERFACES}"}}'
)
# What lies on other devices would be counted twice.
_WRITTEN = (
    f'container_fs_writes_bytes_total{{id="{exporters.NODE_ID}",'
    'device!~"(/dev/)?(dm-|md|loop|zram).*"}'
)
# system.slice where systemd starts it, other slices with --runtime-cgroups (GKE, gardener).
_COMPUTED = 'container_cpu_usage_seconds_total{id=~"(/.+)?/containerd([.]service)?"}'

_BEFORE_S = 120.0  # the last sample before the trial begins its first interval
_MISSED = 2.5  # intervals without a sample are a gap: one scrape may come late
_TOLERANCE = 0.1  # of total data, before its difference from what was received is told


@dataclass(frozen=True)
class Collected:
    """Rows of series.csv, and what is missing in them: sentences with figures."""

    rows: tuple[SeriesRow, ...]
    gaps: tuple[str, ...]


@dataclass
class _Counter:
    """A total that only grows: what a program counted, restarts added up."""

    times_s: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> "_Counter":
        found = cls()
        before = total = 0.0
        for at_s, value in points:
            if found.times_s:
                # Less than before: it counts from zero again, as Prometheus' rate() has it.
                total += value - before if value >= before else value
            found.times_s.append(at_s)
            found.totals.append(total)
            before = value
        return found

    def at(self, at_s: float) -> float | None:
        """The total at a moment, straight between samples; None outside of them."""
        if not self.times_s or not self.times_s[0] <= at_s <= self.times_s[-1]:
            return None
        after = bisect_right(self.times_s, at_s)
        if after == len(self.times_s):
            return self.totals[-1]
        begin_s, end_s = self.times_s[after - 1], self.times_s[after]
        share = (at_s - begin_s) / (end_s - begin_s)
        return self.totals[after - 1] + share * (self.totals[after] - self.totals[after - 1])


def collect(
    source: Source,
    nodes: Mapping[str, str],
    begin: datetime,
    end: datetime,
    *,
    busy_from: datetime | None = None,
    interval_s: float = 30.0,
) -> Collected:
    """Rates of these nodes over the trial; `interval_s` is how often kubelets are scraped.

    `nodes` maps what a series may call a node (its name, its address) to its name. Times are
    seconds since `begin`; the first row of a node lies before, if it was scraped then. What is
    missing before `busy_from`, when the first pod was created, is no gap. EngineFailed when
    Prometheus does not answer.
    """
    window_s = (end - begin).total_seconds() + _BEFORE_S + interval_s
    at_s = end.timestamp() + interval_s
    found = [
        _by_node(query(source, f"{selector}[{window_s:.0f}s]", at_s), nodes)
        for selector in (_RECEIVED, _WRITTEN, _COMPUTED)
    ]
    rows: list[SeriesRow] = []
    gaps: list[str] = []
    blind: list[str] = []
    for node in sorted(set(nodes.values())):
        received = _busiest(found[0].get(node, ()))
        written = _summed(found[1].get(node, ()))
        computed = _outermost(found[2].get(node, ()))
        if received is None:
            blind.append(node)
        guide = next((each for each in (received, written, computed) if each), None)
        if guide is None:
            continue
        times_s = _window(guide.times_s, begin.timestamp(), end.timestamp())
        busy_s = (busy_from or begin).timestamp()
        gaps += _gaps(node, times_s, (begin.timestamp(), busy_s, end.timestamp()), interval_s)
        edges_s = _thinned(times_s)
        rows += _rows(node, edges_s, begin.timestamp(), (received, written, computed))
    if blind:
        gaps.append(
            f"no receive rates of {len(blind)} of {len(set(nodes.values()))} nodes: "
            f"{', '.join(blind[:5])}{', …' if len(blind) > 5 else ''}"
        )
    return Collected(tuple(rows), tuple(gaps))


def received_bytes(rows: Iterable[SeriesRow]) -> dict[str, float]:
    """What each node received over all its rows."""
    found: dict[str, float] = {}
    last_s: dict[str, float] = {}
    for row in sorted(rows, key=lambda row: (row.node, row.at_s)):
        if row.receive_bytes_per_s is not None and row.node in last_s:
            moved = row.receive_bytes_per_s * (row.at_s - last_s[row.node])
            found[row.node] = found.get(row.node, 0.0) + moved
        last_s[row.node] = row.at_s
    return found


def received_against(
    pulled_bytes: Mapping[str, float], received_bytes: Mapping[str, float]
) -> str | None:
    """What total data and received bytes by node say against each other, beyond 10 %; else None.

    Only nodes whose received bytes are known are compared.
    """
    known = [node for node in pulled_bytes if node in received_bytes]
    pulled = sum(pulled_bytes[node] for node in known)
    received = sum(received_bytes[node] for node in known)
    if not pulled or abs(received - pulled) <= _TOLERANCE * pulled:
        return None
    share = abs(received - pulled) / pulled
    sizes = f"{units.format_size(received)}, and pulls account for {units.format_size(pulled)}"
    if received < pulled:
        why = "layers were there already, images share some, or peers sent them another way"
    else:
        why = "layers were fetched again after failures, or something else was received"
    return f"{len(known)} nodes received {sizes}: {share:.0%} {_more(received - pulled)}; {why}"


def _more(difference: float) -> str:
    return "more" if difference > 0 else "less"


def _by_node(found: Sequence[Sampled], nodes: Mapping[str, str]) -> dict[str, list[Sampled]]:
    by_node: dict[str, list[Sampled]] = {}
    for each in found:
        labels = each.labels
        address = labels.get("instance", "").rpartition(":")[0].strip("[]")
        node = nodes.get(labels.get("node", "")) or nodes.get(address)
        if node and each.points:
            by_node.setdefault(node, []).append(each)
    return by_node


def _busiest(found: Sequence[Sampled]) -> _Counter | None:
    """The interface that received most.

    A virtual function beneath a NIC (accelerated networking), or the members of a bond, count the
    same bytes again: the sum over interfaces would double them.
    """
    counters = [_Counter.of(each.points) for each in found]
    return max(counters, key=lambda each: each.totals[-1], default=None)


def _summed(found: Sequence[Sampled]) -> _Counter | None:
    """All disks together, where all were scraped."""
    counters = [_Counter.of(each.points) for each in found]
    if len(counters) < 2:
        return counters[0] if counters else None
    longest = max(counters, key=lambda each: len(each.times_s))
    summed = _Counter()
    for at_s in longest.times_s:
        totals = [each.at(at_s) for each in counters]
        if None not in totals:
            summed.times_s.append(at_s)
            summed.totals.append(sum(total for total in totals if total is not None))
    return summed if summed.times_s else None


def _outermost(found: Sequence[Sampled]) -> _Counter | None:
    """containerd's own cgroup: the outermost, all its CPUs."""
    if not found:
        return None
    outer = min((each.labels["id"] for each in found), key=lambda name: (name.count("/"), name))
    mine = [each for each in found if each.labels["id"] == outer]
    total = [each for each in mine if each.labels.get("cpu") == "total"]
    return _summed(total or mine)


def _window(times_s: Sequence[float], begin_s: float, end_s: float) -> list[float]:
    """The samples of the trial, with the one before and the one after."""
    first = max(0, bisect_right(times_s, begin_s) - 1)
    last = bisect_right(times_s, end_s) + 1
    return list(times_s[first:last])


def _gaps(
    node: str, times_s: Sequence[float], trial_s: tuple[float, float, float], interval_s: float
) -> Iterator[str]:
    """Times without a sample, from the first pod to the end of the trial."""
    begin_s, busy_s, end_s = trial_s
    lengths = [after - before for before, after in pairwise(times_s)]
    usual_s = max([interval_s, median(lengths)] if lengths else [interval_s])
    marks_s = list(times_s)
    if not marks_s or marks_s[0] > busy_s:
        marks_s.insert(0, busy_s)
    if marks_s[-1] < end_s:
        marks_s.append(end_s)
    for before, after in pairwise(marks_s):
        if after > busy_s and after - before > _MISSED * usual_s:
            yield (
                f"scrape gap of {after - before:.0f} s on node {node}, from "
                f"{before - begin_s:.0f} s on"
            )


def _thinned(times_s: Sequence[float]) -> list[float]:
    """At most so many as a node may have, spread evenly; first and last stay."""
    if len(times_s) <= POINTS_A_NODE:
        return list(times_s)
    width = (len(times_s) - 1) / (POINTS_A_NODE - 1)
    return [times_s[round(index * width)] for index in range(POINTS_A_NODE)]


def _rows(
    node: str,
    edges_s: Sequence[float],
    begin_s: float,
    counters: Sequence[_Counter | None],
) -> Iterator[SeriesRow]:
    totals = [[each.at(at_s) if each else None for at_s in edges_s] for each in counters]
    for index, at_s in enumerate(edges_s):
        before = max(0, index - 1)
        width_s = at_s - edges_s[before]
        means = [_mean(total[before], total[index], width_s) for total in totals]
        yield SeriesRow(at_s - begin_s, node, *means)


def _mean(before: float | None, after: float | None, width_s: float) -> float | None:
    if before is None or after is None:
        return None
    return (after - before) / width_s if width_s > 0 else 0.0
