"""A trial's files become `measurements.csv`: long form, base units, one number a row.

Hides where each number comes from. Headline pull figures are exact, from `pulls.csv`; what CL2's
queries returned stands beside them with its source, n and bucket width. docs/measurements.md says
what each includes and how it can mislead.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from imgpull import cl2, exporters, units
from imgpull.engines import Subject
from imgpull.pulls import Pull
from imgpull.results.flags import duplicates
from imgpull.results.record import Measurement
from imgpull.results.seen import PodRow

# CL2's unit strings -> (base unit, factor).
_UNITS = {
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "MiB/s": ("bytes/s", float(units.MIB)),
    "MB/s": ("bytes/s", 1e6),
    "1": ("1", 1.0),
    "count": ("1", 1.0),
}
# Part of a histogram's name -> its edges.
_EDGES: Mapping[str, tuple[float, ...]] = {
    exporters.KUBELET_IMAGE_PULL: exporters.KUBELET_IMAGE_PULL_EDGES_S,
    exporters.KUBELET_RUNTIME_OPERATIONS: exporters.KUBELET_RUNTIME_OPERATIONS_EDGES_S,
    "network_plugin_operations_duration": exporters.DEFAULT_EDGES,
    "image_pulling_throughput_bucket": exporters.DEFAULT_EDGES,
    "image_pulling_throughput_mibps_bucket": exporters.THROUGHPUT_EDGES_MIB_S,
}
_PARTS = re.compile(r"\w+_(total|count|sum|bucket)\b")


def measurements(
    subject: Subject, report: cl2.Report, rows: Sequence[Pull], pods: Sequence[PodRow]
) -> list[Measurement]:
    """Every number of a trial."""
    found = [
        *_pod_startup(subject, report, pods),
        *_pulls(subject, rows),
        *_validity(subject, rows, pods),
    ]
    for result in report.queries:
        found += _queries(report, result)
    return found


_ALL = ("p50", "p90", "p99", "max", "mean")


def _statistics(values: Sequence[float]) -> dict[str, float]:
    """Nearest-rank percentiles, extremes and mean, as CL2 takes its own; none of no values."""
    if not values:
        return {}
    ordered = sorted(values)
    percentiles = {f"p{p}": cl2.nearest_rank(ordered, p) for p in (50, 90, 99)}
    mean = math.fsum(ordered) / len(ordered)
    return {**percentiles, "min": ordered[0], "max": ordered[-1], "mean": mean}


def _rows(
    name: str, unit: str, source: str, values: Iterable[float], wanted: Sequence[str] = _ALL
) -> list[Measurement]:
    values = list(values)
    known = _statistics(values)
    found = [Measurement(name, key, "", known[key], unit, source) for key in wanted if known]
    return [*found, *_n(name, len(values), source)]


def _n(name: str, count: int, source: str) -> list[Measurement]:
    return [Measurement(name, "n", "", count, "1", source)] if count else []


def _pod_startup(subject: Subject, report: cl2.Report, pods: Sequence[PodRow]) -> list[Measurement]:
    """CL2's figures. It leaves out pods that never ran, which were slower than all others."""
    unready = any(row.ready is None for row in pods)
    found: list[Measurement] = []
    for transition, latencies in report.pod_startup.items():
        name = transition if transition == "pod_startup" else f"pod_{transition}"
        tail = "_at_least" if unready and transition != "create_to_schedule" else ""
        for statistic, seconds in latencies.items():
            key = statistic.replace("Perc", "p") + tail
            found.append(Measurement(name, key, "", seconds, "s", "PodStartupLatency"))
    startups = [
        row.ready - row.created for row in pods if row.ready is not None and row.created is not None
    ]
    # A pod that never became ready took at least as long as it was waited for.
    waited_s = subject.wait_timeout_s or 0.0
    least = _statistics([*startups, *(waited_s for row in pods if row.ready is None)])
    for key in ("max", "mean"):
        if least.get(key, 0.0) > 0:
            name = f"{key}_at_least" if unready else key
            found.append(Measurement("pod_startup", name, "", least[key], "s", "pods.csv"))
    return [*found, *_n("pod_startup", len(startups), "pods.csv")]


def _pulls(subject: Subject, rows: Sequence[Pull]) -> list[Measurement]:
    source = "pulls.csv"
    # What a node fetches again is no further pull: one real pull a node and digest.
    again = duplicates(rows)
    leaders = [row for row in rows if row.leader and id(row) not in again]
    ended = [row for row in leaders if row.pull_s is not None]
    cut = [row for row in leaders if row.outcome == "censored"]
    bounds_s = [row.pull_at_least_s or 0.0 for row in cut]
    durations_s = [row.pull_s for row in ended if row.pull_s is not None]
    sizes = [row.size_bytes or subject.compressed_bytes for row in ended]
    speeds = [
        size / pull_s for size, pull_s in zip(sizes, durations_s, strict=True) if size and pull_s
    ]
    # Figures of the quick ones alone would flatter the slow ones: none where some are censored.
    found: list[Measurement] = []
    if not any(row.outcome == "censored" for row in rows):
        waits_s = [row.wait_s for row in rows if row.wait_s is not None]
        found += _rows("image_pull_wait", "s", source, waits_s)
    if cut:
        return [*found, *_censored_pulls(durations_s, bounds_s)]
    found += _rows("image_pull", "s", source, durations_s)
    found += _rows("node_throughput", "bytes/s", source, speeds, ("p50", "min", "max", "mean"))
    moved = [row.size_bytes or subject.compressed_bytes for row in rows if id(row) in again]
    if sizes and all((*sizes, *moved)):
        total = float(sum(size for size in (*sizes, *moved) if size))
        found.append(Measurement("data", "total", "", total, "bytes", source))
    return found


def _censored_pulls(durations_s: Sequence[float], bounds_s: Sequence[float]) -> list[Measurement]:
    """Statistics of pulls of which some are known only to be longer than a bound.

    Exact where no length of theirs could change the value, else `p99_at_least`, which none of them
    can undercut.
    """
    source = "pulls.csv"
    least = _statistics([*durations_s, *bounds_s])
    most = _statistics([*durations_s, *(math.inf for _ in bounds_s)])
    found = _n("image_pull", len(durations_s) + len(bounds_s), source)
    for key in _ALL:
        name = key if least[key] == most[key] else f"{key}_at_least"
        # At least 0 too: a trial without the number would leave its comparison to the quick ones.
        found.append(Measurement("image_pull", name, "", least[key], "s", source))
    return found


def _validity(subject: Subject, rows: Sequence[Pull], pods: Sequence[PodRow]) -> list[Measurement]:
    counts: dict[str, float] = {
        "pulls": sum(row.outcome == "pulled" for row in rows),
        "present": sum(row.outcome == "present" for row in rows),
        "failed": sum(row.outcome == "failed" for row in rows),
        "censored": sum(row.outcome == "censored" for row in rows),
        "throttled": sum(row.failure in ("throttled", "qps_exceeded") for row in rows),
        "qps_exceeded": sum(row.failure == "qps_exceeded" for row in rows),
        "leaders": sum(bool(row.leader) for row in rows),
        "duplicates": len(duplicates(rows)),
    }
    if not rows and not pods:
        counts = {}  # nobody looked: unknown is not zero
    share = cold_share(rows)
    if share is not None:
        counts["cold_share"] = share
    seen = seen_share(subject, rows, pods)
    if seen is not None:
        counts["seen_share"] = seen
    if pods:
        counts["pods_ready"] = sum(ready_in_time(subject, row) for row in pods)
    if subject.pods is not None:
        counts["pods_asked"] = subject.pods
    return [
        Measurement("validity", name, "", float(value), "1", "pulls.csv")
        for name, value in counts.items()
    ]


def ready_in_time(subject: Subject, pod: PodRow) -> bool:
    """Whether a pod was ready before the wait for it ended."""
    return pod.ready is not None and pod.ready <= subject.deadline_s(pod.created)


def cold_share(rows: Iterable[Pull]) -> float | None:
    """Share of (node, image) pairs whose image really was fetched; None when none is known."""
    pairs: dict[tuple[str | None, str], set[str]] = {}
    for row in rows:
        if row.outcome in ("pulled", "present"):
            pairs.setdefault((row.node, row.image), set()).add(
                row.temperature if row.leader or row.temperature == "warm" else ""
            )
    known = [
        kinds for kinds in pairs.values() if kinds - {"", "unknown"} and "unknown" not in kinds
    ]
    if not known:
        return None
    return sum("cold" in kinds for kinds in known) / len(known)


def seen_share(subject: Subject, rows: Sequence[Pull], pods: Sequence[PodRow]) -> float | None:
    """Share of started pods whose pull (or its absence) the events told; of those asked for when
    nobody listed pods. None when nobody looked, or knows how many there were.
    """
    told = {(row.namespace, row.pod) for row in rows if row.outcome != "unknown"}
    if pods:
        started = {(row.namespace, row.pod) for row in pods if row.started is not None}
        return len(started & told) / len(started) if started else 1.0
    if not rows or not subject.pods:
        return None
    return min(1.0, len(told) / subject.pods)


def _queries(report: cl2.Report, result: cl2.QueryResult) -> list[Measurement]:
    name = snake_case(result.metric_name.removesuffix("PerNode"))
    found: list[Measurement] = []
    for labels, data in result.rows:
        subject = "/".join(labels.values())
        for query, value in data.items():
            text = report.query_text(result.metric_name, query) or ""
            unit, factor = ("1", 1.0) if _counts(query, text) else _unit(result, text)
            found += [
                Measurement(name, statistic, subject, number * factor, unit, result.file)
                for statistic, number in _with_width(query, text, value)
            ]
    return found + _overall(name, found)


def _with_width(query: str, text: str, value: float) -> list[tuple[str, float]]:
    """A query's number, with its bucket's width if it is a quantile read from a histogram."""
    width = _bucket_width(text, value)
    if width is None:
        return [(query, value)]
    if math.isinf(width):
        # The last edge is all that the histogram can say: a bound, no value.
        return [(f"{query}_at_least", value)]
    return [(query, value), (f"{query}_bucket_width", width)]


def _counts(query: str, text: str) -> bool:
    """Whether a query counts, whatever unit its measurement has."""
    if not text:
        return query in ("n", "errors", "success", "failure")
    parts = set(_PARTS.findall(text))
    return bool(parts) and parts <= {"total", "count"} and not re.search(r"rate\(|/", text)


def _unit(result: cl2.QueryResult, text: str) -> tuple[str, float]:
    unit, factor = _UNITS.get(result.unit, (result.unit, 1.0))
    # containerd divides by 1048576, whatever a config calls the unit.
    if unit == "bytes/s" and "image_pulling_throughput" in text:
        factor = float(units.MIB)
    return unit, factor


def _bucket_width(text: str, value: float) -> float | None:
    """How far off a quantile read from a histogram may be; None for another query or histogram."""
    if "histogram_quantile(" not in text:
        return None
    edges = next((edges for name, edges in _EDGES.items() if name in text), None)
    return None if edges is None else exporters.bucket_width(edges, value)


def _overall(name: str, found: Sequence[Measurement]) -> list[Measurement]:
    """Over all nodes: the mean weighted by n, where each node that has observations has a mean."""
    counts = {row.subject: row for row in found if row.statistic == "n" and row.subject}
    counts = {subject: row for subject, row in counts.items() if row.value > 0}
    means = {row.subject: row for row in found if row.statistic == "mean" and row.subject}
    if not means or means.keys() != counts.keys():
        return []
    any_mean = next(iter(means.values()))
    total = math.fsum(row.value for row in counts.values())
    mean = math.fsum(row.value * counts[subject].value for subject, row in means.items()) / total
    return [
        Measurement(name, "mean", "", mean, any_mean.unit, any_mean.source),
        Measurement(name, "n", "", total, "1", any_mean.source),
    ]


def snake_case(name: str) -> str:
    """KubeletImagePull -> kubelet_image_pull, CPUUsage -> cpu_usage; the rest becomes "_"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+", "_", name)
    return words.strip("_").lower()
