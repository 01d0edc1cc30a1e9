"""A CL2 report directory as data.

Hides file names, JSON shapes and their generations (5 or 6 transitions, null dataItems, missing
keys): what is above sees seconds and plain rows. Names are parsed from the right, because config
and metric names are free text. What has an unknown shape is refused by name, never guessed at.
"""

import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from imgpull.cl2.junit import Junit, read_junit
from imgpull.cl2.places import Loader
from imgpull.errors import ReportError

_SUMMARY = re.compile(
    r"(?P<rest>.+)_(?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d))\.json", re.DOTALL
)
_QUERY = re.compile(r"GenericPrometheusQuery[ _](?P<name>.+)", re.DOTALL)
_FAILED_PODS = re.compile(r"WaitForControlledPodsRunning_\d+_failedpods")
_KNOWN = re.compile(r"PodStartupLatency_|GenericPrometheusQuery[ _]|WaitForControlledPodsRunning_")
_HINT = "Check which ClusterLoader2 wrote it, or leave the file out of the directory."

Row = tuple[dict[str, str], dict[str, float]]


@dataclass(frozen=True)
class FailedPod:
    """A pod that WaitForControlledPodsRunning gave up on; host is empty when unscheduled."""

    namespace: str
    controlled_by: str
    name: str
    host: str
    status: str


@dataclass(frozen=True)
class QueryResult:
    """One GenericPrometheusQuery file: rows of (dimension labels, value by query name)."""

    metric_name: str
    unit: str
    file: str
    rows: tuple[Row, ...]
    version: str = ""


@dataclass(frozen=True)
class Report:
    """What a report directory says; times in seconds.

    junit is None when CL2 did not get that far: a failure of setup or compilation.
    """

    config_name: str
    junit: Junit | None = None
    # Transition -> Perc50, Perc90, Perc99, of all pods. Empty where no pod got that far.
    pod_startup: dict[str, dict[str, float]] = field(default_factory=dict)
    queries: tuple[QueryResult, ...] = ()
    failed_pods: tuple[FailedPod, ...] = ()
    resource_usage: tuple[str, ...] = ()
    generated: dict[str, Any] | None = None
    summaries_at: tuple[datetime, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """Every failure once, in CL2's own words."""
        return self.junit.failures if self.junit else ()

    def window(self) -> tuple[datetime, datetime] | None:
        """The earliest possible start and the latest possible end of the test, if known.

        CL2 records neither, only when summaries were made (to the second) and how long all took.
        """
        if self.junit is None or not self.summaries_at:
            return None
        slack = timedelta(seconds=self.junit.overall_s + 1)
        return max(self.summaries_at) - slack, min(self.summaries_at) + slack

    def query_text(self, metric_name: str, query_name: str) -> str | None:
        """The PromQL of a query, `%v` for its window, from the generated config."""
        for step in (self.generated or {}).get("steps") or []:
            for call in step.get("measurements") or []:
                shared = call.get("params") or {}
                instances = call.get("instances") or [{}]
                for params in (shared | (one.get("params") or {}) for one in instances):
                    if params.get("metricName") != metric_name:
                        continue
                    for query in params.get("queries") or []:
                        if query.get("name") == query_name:
                            return str(query.get("query"))
        return None


def read_report(directory: Path) -> Report:
    """Read a report directory; ReportError names the file whose shape is unknown."""
    if not directory.is_dir():
        raise ReportError(f"{directory}: no such report directory", hint="Name one that exists.")
    files = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    junit = read_junit(files.pop("junit.xml")) if "junit.xml" in files else None
    generated, label = _generated(files)
    report = Report(str((generated or {}).get("name") or (junit.name if junit else "")), junit)
    labels = [name for name in (label, report.config_name) if name]
    found = _Found()
    for name, path in files.items():
        found.add(path, name, labels)
    return replace(
        report,
        config_name=report.config_name or found.label,
        pod_startup=found.pod_startup,
        queries=tuple(found.queries),
        failed_pods=tuple(found.failed_pods),
        resource_usage=tuple(found.resource_usage),
        generated=generated,
        summaries_at=tuple(sorted(found.summaries_at)),
        others=tuple(found.others),
    )


def _generated(files: dict[str, Path]) -> tuple[dict[str, Any] | None, str]:
    """Take generatedConfig_<label>.yaml out of the files: its content, and the label."""
    names = [name for name in files if re.fullmatch(r"generatedConfig_.+\.yaml", name, re.DOTALL)]
    if len(names) > 1:
        raise ReportError(
            f"{names[1]}: a second test beside {names[0]}", hint="Run one test config at a time."
        )
    if not names:
        return None, ""
    try:
        data = yaml.load(files.pop(names[0]).read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(f"{names[0]}: not YAML: {error}", hint=_HINT) from error
    if not isinstance(data, dict):
        raise ReportError(f"{names[0]}: not a mapping", hint=_HINT)
    return data, names[0].removeprefix("generatedConfig_").removesuffix(".yaml")


@dataclass
class _Found:
    """What has been read so far, file by file."""

    label: str = ""
    pod_startup: dict[str, dict[str, float]] = field(default_factory=dict)
    pod_startup_file: str = ""
    queries: list[QueryResult] = field(default_factory=list)
    failed_pods: list[FailedPod] = field(default_factory=list)
    resource_usage: list[str] = field(default_factory=list)
    summaries_at: list[datetime] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add(self, path: Path, file: str, labels: list[str]) -> None:
        """Read one file, or note that it is not interpreted."""
        summary = _SUMMARY.fullmatch(file)
        if summary is None:
            if _KNOWN.match(file):
                raise ReportError(
                    f"{file}: the name does not end in _<test name>_<RFC 3339 time>.json",
                    hint=_HINT,
                )
            self.others.append(file)
            return
        name, label = _split(summary["rest"], labels)
        self.label = self.label or label
        self.summaries_at.append(_time(summary["at"], file))
        if name.startswith("PodStartupLatency_"):
            if self.pod_startup_file:
                raise ReportError(
                    f"{file}: a second PodStartupLatency beside {self.pod_startup_file}",
                    hint="Use a fresh report directory for each run, and one such measurement.",
                )
            self.pod_startup, self.pod_startup_file = _pod_startup(path), file
        elif query := _QUERY.fullmatch(name):
            self.queries.append(_query(path, query["name"]))
        elif _FAILED_PODS.fullmatch(name):
            self.failed_pods += _failed_pods(path)
        elif name.startswith("ResourceUsageSummary"):
            self.resource_usage.append(file)
        else:
            self.others.append(file)


def _split(rest: str, labels: list[str]) -> tuple[str, str]:
    """Summary name and test label of "<summary>_<label>"; a known label may hold underscores."""
    for label in labels:
        if rest.endswith(f"_{label}"):
            return rest.removesuffix(f"_{label}"), label
    name, _, label = rest.rpartition("_")
    return name or rest, label


def _time(text: str, file: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ReportError(f"{file}: '{text}' is no RFC 3339 time", hint=_HINT) from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path.name}: not JSON: {error}", hint=_HINT) from error


def _perf_data(path: Path) -> tuple[str, list[tuple[dict[str, str], dict[str, float], str]]]:
    """Version, and (labels, data, unit) of each item; no items for null."""
    content = _json(path)
    if not isinstance(content, dict) or "dataItems" not in content:
        raise ReportError(f"{path.name}: no dataItems", hint=_HINT)
    entries = content["dataItems"] or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ReportError(f"{path.name}: dataItems is no list of items", hint=_HINT)
    items = []
    for index, entry in enumerate(entries):
        data, labels = entry.get("data"), entry.get("labels") or {}
        if not isinstance(data, dict) or not all(map(_is_number, data.values())):
            raise ReportError(f"{path.name}: dataItems[{index}] holds no numbers", hint=_HINT)
        if not isinstance(labels, dict):
            raise ReportError(f"{path.name}: dataItems[{index}] has no map of labels", hint=_HINT)
        items.append((labels, data, str(entry.get("unit") or "")))
    return str(content.get("version") or ""), items


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pod_startup(path: Path) -> dict[str, dict[str, float]]:
    latencies: dict[str, dict[str, float]] = {}
    for labels, data, unit in _perf_data(path)[1]:
        metric = labels.get("Metric")
        if metric is None or unit != "ms":
            raise ReportError(
                f"{path.name}: an item with metric {metric} and unit '{unit}', not ms", hint=_HINT
            )
        # Whole nanoseconds in Go, so that 1342.799403 ms is exactly 1.342799403 s.
        latencies[metric] = {key: round(value * 1e6) / 1e9 for key, value in data.items()}
    if any(latencies.get("pod_startup", {"": 1.0}).values()):
        return latencies
    # CL2 writes 0 for an empty set: no pod ran, and at best some were scheduled.
    scheduled = latencies.get("create_to_schedule", {})
    return {"create_to_schedule": scheduled} if any(scheduled.values()) else {}


def _query(path: Path, metric_name: str) -> QueryResult:
    version, items = _perf_data(path)
    rows = tuple((labels, data) for labels, data, _ in items)
    return QueryResult(metric_name, items[0][2] if items else "", path.name, rows, version)


def _failed_pods(path: Path) -> list[FailedPod]:
    rows = _json(path)
    keys = ("namespace", "controlledBy", "name", "host", "status")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ReportError(f"{path.name}: not a list of pods", hint=_HINT)
    return [FailedPod(*(str(row.get(key) or "") for key in keys)) for row in rows]
