"""Writes a report directory as CL2 does: the same names, shapes and numbers.

Hides what CL2 computes on the way out: nearest-rank percentiles, milliseconds from whole
nanoseconds, three pod startup files, and the double counting of failures in junit.xml.
Sources: perf-tests 4b34154 clusterloader2/pkg/measurement/util and pkg/test.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgpull.cl2.generated import generated_config
from imgpull.cl2.junit import Case, Junit, step_case, write_junit
from imgpull.cl2.report import FailedPod, Row
from imgpull.cl2.testconfig import TestConfig
from imgpull.cl2.wording import unsupported_value

# Since perf-tests 09a6a61de (2026-05-26); before, the same without create_to_run.
TRANSITIONS = (
    "create_to_schedule", "schedule_to_run", "run_to_watch", "schedule_to_watch", "pod_startup",
    "create_to_run",
)  # fmt: skip


def nearest_rank(sorted_values: Sequence[float], p: float) -> float:
    """CL2's percentile: the value at index ceil(n*p/100) - 1 of ascending values; 0 of none."""
    if not 0 < p <= 100:
        raise ValueError(f"p={p} is not a percentile above 0, up to 100")
    if not sorted_values:
        return 0.0
    return sorted_values[math.ceil(len(sorted_values) * p / 100) - 1]


def percentiles(samples_s: Iterable[float]) -> dict[str, float]:
    """Perc50, Perc90 and Perc99 in seconds; negative samples count as 0, as in CL2."""
    ordered = sorted(max(0.0, sample) for sample in samples_s)
    return {f"Perc{p}": nearest_rank(ordered, p) for p in (50, 90, 99)}


class ReportWriter:
    """Writes one test's report directory; finish() writes junit.xml, last."""

    def __init__(self, directory: Path, config_name: str, config_path: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cl2-metadata.json").write_text("{}", encoding="utf-8")
        self.directory = directory
        self.config_name = config_name
        self.config_path = config_path
        self._cases: list[Case] = []
        self._steps = 0

    def generated_config(self, test: TestConfig, namespace_prefix: str | None = None) -> None:
        """Write generatedConfig_<name>.yaml, under the namespace prefix really used."""
        path = self.directory / f"generatedConfig_{self.config_name}.yaml"
        path.write_text(generated_config(test, namespace_prefix), encoding="utf-8")

    def pod_startup(
        self, identifier: str, samples_by_transition: Mapping[str, Iterable[float]], at: datetime
    ) -> None:
        """Write the three PodStartupLatency files from samples in seconds; all pods stateless."""
        all_pods = {name: percentiles(samples_by_transition.get(name, ())) for name in TRANSITIONS}
        none = {name: percentiles(()) for name in TRANSITIONS}
        for prefix, latencies in (("", all_pods), ("Stateless", all_pods), ("Stateful", none)):
            items = [
                # Durations are whole nanoseconds in Go.
                _item({p: round(s * 1e9) / 1e6 for p, s in latency.items()}, "ms", {"Metric": name})
                for name, latency in latencies.items()
            ]
            self._summary(
                f"{prefix}PodStartupLatency_{identifier}",
                {"version": "1.0", "dataItems": items},
                at,
            )

    def query(
        self, metric_name: str, version: str, unit: str, rows: Iterable[Row], at: datetime
    ) -> None:
        """Write one GenericPrometheusQuery file; ValueError, in Go's words, for an infinity."""
        items = [_item(data, unit, labels) for labels, data in rows]
        for item in items:
            for value in item["data"].values():
                if not math.isfinite(value):
                    raise ValueError(unsupported_value(value))
        data = {"version": version, "dataItems": items or None}
        self._summary(f"GenericPrometheusQuery {metric_name}", data, at)

    def timer(self, seconds_by_label: Mapping[str, float], at: datetime) -> None:
        """Write the durations that a Timer took."""
        # Durations are whole nanoseconds in Go.
        data = {label: round(seconds, 9) for label, seconds in seconds_by_label.items()}
        item = _item(data, "s", {"test": "phases"})
        self._summary("Timer", {"version": "v1", "dataItems": [item]}, at)

    def failed_pods(self, pods: Iterable[FailedPod], at: datetime) -> None:
        """Write the pods that WaitForControlledPodsRunning waited for in vain; no file for none."""
        rows = [
            {
                "namespace": pod.namespace,
                "controlledBy": pod.controlled_by,
                "name": pod.name,
                "host": pod.host,
                "status": pod.status,
            }
            for pod in pods
        ]
        if rows:
            seconds = int(at.timestamp())
            self._summary(f"WaitForControlledPodsRunning_{seconds}_failedpods", rows, at)

    def phase_step(self, name: str, time_s: float, failures: Sequence[str] = ()) -> None:
        """Record the outcome of the next step, one of phases."""
        self._steps += 1
        self._cases.append(step_case(self.config_name, self._steps, name, time_s, tuple(failures)))

    def measurement_step(
        self, name: str, calls: Iterable[tuple[str, float, Sequence[str]]]
    ) -> None:
        """Record the next step, one of measurements: (identifier, seconds, failures) a call."""
        self._steps += 1
        self._cases += [
            step_case(self.config_name, self._steps, name, time_s, tuple(failures), (index, one))
            for index, (one, time_s, failures) in enumerate(calls)
        ]

    def finish(
        self, overall_s: float, *, suite_s: float | None = None, failures: Sequence[str] = ()
    ) -> Junit:
        """Write junit.xml and return it; `failures` are those outside any step."""
        steps = (failure for case in self._cases for failure in case.failures)
        junit = Junit(
            self.config_name,
            self.config_path,
            overall_s if suite_s is None else suite_s,
            overall_s,
            (*failures, *steps),
            tuple(self._cases),
        )
        write_junit(self.directory / "junit.xml", junit)
        return junit

    def _summary(self, name: str, data: Any, at: datetime) -> None:
        stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        path = self.directory / f"{name}_{self.config_name}_{stamp}.json"
        path.write_text(text + "\n", encoding="utf-8")


def _item(data: Mapping[str, float], unit: str, labels: Mapping[str, str]) -> dict[str, Any]:
    short = {
        key: int(value) if math.isfinite(value) and value == int(value) else value
        for key, value in sorted(data.items())
    }
    item = {"data": short, "unit": unit}
    return item | {"labels": dict(sorted(labels.items()))} if labels else item
