"""A trial's files become `measurements.csv`: long form, base units, one number a row.

Hides where each number comes from. Headline pull figures are exact, from `pulls.csv`; what CL2's
queries returned stands beside them with its source, n and bucket width. docs/measurements.md says
what each includes and how it can mislead.
"""

import math
import re
from collections.abc import Iterable, Sequence

from imgpull import cl2, exporters, units
from imgpull.engines import Subject
from imgpull.pulls import Pull
from imgpull.results.pull_rows import PodRow
from imgpull.results.record import Measurement

# Measurement -> edges of the histogram that its quantiles are read from.
_EDGES = {
    "kubelet_image_pull": exporters.KUBELET_IMAGE_PULL_EDGES_S,
    "kubelet_runtime_pull_image": exporters.KUBELET_RUNTIME_OPERATIONS_EDGES_S,
    "network_setup": exporters.DEFAULT_EDGES,
    "network_teardown": exporters.DEFAULT_EDGES,
}
# Queries that count, whatever unit their measurement has.
_COUNTS = frozenset({"n", "errors", "success", "failure"})
# CL2's unit strings -> (base unit, factor).
_UNITS = {
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "MiB/s": ("bytes/s", float(units.MIB)),
    "MB/s": ("bytes/s", 1e6),
    "1": ("1", 1.0),
    "count": ("1", 1.0),
}


def measurements(
    subject: Subject, report: cl2.Report, rows: Sequence[Pull], pods: Sequence[PodRow]
) -> list[Measurement]:
    """Every number of a trial."""
    found = [*_pod_startup(report, pods), *_pulls(subject, rows), *_validity(subject, rows, pods)]
    for result in report.queries:
        found += _queries(report, result)
    return found


def _statistics(
    name: str, unit: str, source: str, values: Iterable[float], wanted: Sequence[str]
) -> list[Measurement]:
    """Nearest-rank percentiles, extremes and mean, as CL2 takes its own."""
    ordered = sorted(values)
    if not ordered:
        return []
    known = {
        "p50": cl2.nearest_rank(ordered, 50),
        "p90": cl2.nearest_rank(ordered, 90),
        "p99": cl2.nearest_rank(ordered, 99),
        "min": ordered[0],
        "max": ordered[-1],
        "mean": math.fsum(ordered) / len(ordered),
    }
    found = [Measurement(name, key, "", known[key], unit, source) for key in wanted]
    return [*found, Measurement(name, "n", "", len(ordered), "1", source)]


def _pod_startup(report: cl2.Report, pods: Sequence[PodRow]) -> list[Measurement]:
    found = [
        Measurement(
            transition if transition == "pod_startup" else f"pod_{transition}",
            statistic.replace("Perc", "p"),
            "",
            seconds,
            "s",
            "PodStartupLatency",
        )
        for transition, latencies in report.pod_startup.items()
        for statistic, seconds in latencies.items()
    ]
    startups = [
        row.ready - row.created for row in pods if row.ready is not None and row.created is not None
    ]
    return [*found, *_statistics("pod_startup", "s", "pods.csv", startups, ("max", "mean"))]


def _pulls(subject: Subject, rows: Sequence[Pull]) -> list[Measurement]:
    source = "pulls.csv"
    leaders = [row for row in rows if row.leader]
    pulled_s = [row.pull_s for row in leaders if row.pull_s is not None]
    all_five = ("p50", "p90", "p99", "max", "mean")
    censored = [row for row in leaders if row.outcome == "censored"]
    if censored:
        found = _censored(pulled_s, [_bound_s(subject, row) for row in censored])
    else:
        found = _statistics("image_pull", "s", source, pulled_s, all_five)
    waits = [row.wait_s for row in rows if row.wait_s is not None]
    found += _statistics("image_pull_wait", "s", source, waits, all_five)
    speeds = [
        size / row.pull_s
        for row in leaders
        if (size := row.size_bytes or subject.compressed_bytes) and row.pull_s
    ]
    wanted = ("p50", "min", "max", "mean")
    found += _statistics("node_throughput", "bytes/s", source, speeds, wanted)
    sizes = [row.size_bytes or subject.compressed_bytes for row in leaders if row.pull_s]
    if sizes and all(sizes):
        total = float(sum(size for size in sizes if size))
        found.append(Measurement("data", "total", "", total, "bytes", source))
    return found


def _bound_s(subject: Subject, row: Pull) -> float | None:
    """A censored pull took at least this long: what was left of the wait when it was asked for."""
    if subject.wait_timeout_s is None or row.requested_at is None:
        return None
    return subject.wait_timeout_s


def _censored(pulled_s: Sequence[float], bounds_s: Sequence[float | None]) -> list[Measurement]:
    """Percentiles with unfinished pulls in their place, above all finished ones.

    A percentile that falls on one is known only as a bound: `p99_at_least`.
    """
    source = "pulls.csv"
    ordered = [*sorted(pulled_s), *(math.inf for _ in bounds_s)]
    known = [bound for bound in bounds_s if bound is not None]
    found = [Measurement("image_pull", "n", "", len(ordered), "1", source)]
    for p in (50, 90, 99, 100):
        name = "max" if p == 100 else f"p{p}"
        value = cl2.nearest_rank(ordered, p)
        if math.isfinite(value):
            found.append(Measurement("image_pull", name, "", value, "s", source))
        elif known:
            found.append(Measurement("image_pull", f"{name}_at_least", "", min(known), "s", source))
    return found


def _validity(subject: Subject, rows: Sequence[Pull], pods: Sequence[PodRow]) -> list[Measurement]:
    counts: dict[str, float] = {
        "pulls": sum(row.outcome == "pulled" for row in rows),
        "present": sum(row.outcome == "present" for row in rows),
        "failed": sum(row.outcome == "failed" for row in rows),
        "censored": sum(row.outcome == "censored" for row in rows),
        "throttled": sum(row.failure in ("throttled", "qps_exceeded") for row in rows),
        "leaders": sum(bool(row.leader) for row in rows),
    }
    if not rows and not pods:
        counts = {}  # nobody looked: unknown is not zero
    share = cold_share(rows)
    if share is not None:
        counts["cold_share"] = share
    if pods:
        ready = sum(row.ready is not None for row in pods)
        counts["pods_ready"] = ready
        counts["seen_share"] = seen_share(rows, pods)
    if subject.pods is not None:
        counts["pods_asked"] = subject.pods
    return [
        Measurement("validity", name, "", float(value), "1", "pulls.csv")
        for name, value in counts.items()
    ]


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


def seen_share(rows: Sequence[Pull], pods: Sequence[PodRow]) -> float:
    """Share of started pods whose pull (or its absence) the events told."""
    started = {(row.namespace, row.pod) for row in pods if row.started is not None}
    told = {(row.namespace, row.pod) for row in rows}
    return len(started & told) / len(started) if started else 1.0


def _queries(report: cl2.Report, result: cl2.QueryResult) -> list[Measurement]:
    name = snake_case(result.metric_name.removesuffix("PerNode"))
    found: list[Measurement] = []
    for labels, data in result.rows:
        subject = "/".join(labels.values())
        for query, value in data.items():
            if query in _COUNTS:
                unit, factor = "1", 1.0
            else:
                unit, factor = _unit(result, report.query_text(result.metric_name, query))
            value *= factor
            found.append(Measurement(name, query, subject, value, unit, result.file))
            found += _bucket_width(name, query, subject, value, result.file)
    return found + _overall(name, found)


def _unit(result: cl2.QueryResult, query: str | None) -> tuple[str, float]:
    unit, factor = _UNITS.get(result.unit, (result.unit, 1.0))
    # containerd divides by 1048576, whatever a config calls the unit.
    if unit == "bytes/s" and query is not None and "image_pulling_throughput" in query:
        factor = float(units.MIB)
    return unit, factor


def _bucket_width(
    name: str, query: str, subject: str, value: float, source: str
) -> list[Measurement]:
    edges = _EDGES.get(name)
    if edges is None or not re.fullmatch(r"p\d+", query):
        return []
    width = exporters.bucket_width(edges, value)
    if not math.isfinite(width):
        return []
    return [Measurement(name, f"{query}_bucket_width", subject, width, "s", source)]


def _overall(name: str, found: Sequence[Measurement]) -> list[Measurement]:
    """Over all nodes: the mean weighted by n, where each node has both."""
    means = {row.subject: row for row in found if row.statistic == "mean" and row.subject}
    counts = {row.subject: row.value for row in found if row.statistic == "n" and row.subject}
    total = sum(counts.values())
    if not means or means.keys() != counts.keys() or total <= 0:
        return []
    source = next(iter(means.values())).source
    unit = next(iter(means.values())).unit
    mean = math.fsum(row.value * counts[subject] for subject, row in means.items()) / total
    return [
        Measurement(name, "mean", "", mean, unit, source),
        Measurement(name, "n", "", total, "1", source),
    ]


def snake_case(name: str) -> str:
    """KubeletImagePull -> kubelet_image_pull; other characters become underscores."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name)
    return words.strip("_").lower()
