"""What a simulated trial's gather calls write: pod startup from traces, queries from series.

Hides how CL2 turns samples into rows and violations. Queries are evaluated over what a Prometheus
would have scraped, never from a side door that knows the answer.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from imgpull import cl2, units
from imgpull.cl2 import wording
from imgpull.errors import RenderError
from imgpull.simcluster import model, promql

# Virtual time begins here in every trial, so that equal trials leave equal bytes.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class Case:
    """One line of junit.xml in the making."""

    time_s: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Gather:
    """A measurement to evaluate once the whole trial is known."""

    start: cl2.MeasurementCall
    gather: cl2.MeasurementCall
    started_s: float
    gathered_s: float
    case: Case


def stamp(at_s: float) -> datetime:
    return EPOCH + timedelta(seconds=at_s)


def write_pod_startup(
    report: cl2.ReportWriter, gather: Gather, pods: Iterable[model.PodTrace]
) -> str | None:
    """Transitions as CL2 takes them since 2026-05, from watch events; the violation, if any."""
    seen = [pod for pod in pods if pod.created_s <= gather.gathered_s]
    placed = [pod for pod in seen if pod.scheduled_s is not None]
    ran = [
        (pod.created_s, pod.scheduled_s, pod.ready_s)
        for pod in placed
        if pod.scheduled_s is not None
        and pod.ready_s is not None
        and pod.ready_s <= gather.gathered_s
    ]
    to_run = [ready - scheduled for _, scheduled, ready in ran]
    startup = [ready - created for created, _, ready in ran]
    report.pod_startup(
        gather.start.identifier,
        {
            "create_to_schedule": [(pod.scheduled_s or 0) - pod.created_s for pod in placed],
            "schedule_to_run": to_run,
            "run_to_watch": [0.0] * len(ran),
            "schedule_to_watch": to_run,
            "pod_startup": startup,
            "create_to_run": startup,
        },
        stamp(gather.gathered_s),
    )
    params = gather.start.params
    limit_s = units.parse_duration(params.get("threshold", "5s"))
    limits_s = {
        f"Perc{p}": units.parse_duration(params[f"perc{p}Threshold"])
        if f"perc{p}Threshold" in params
        else limit_s
        for p in (50, 90, 99)
    }
    return wording.pod_startup_violation(cl2.percentiles(startup), limits_s)


def write_queries(report: cl2.ReportWriter, gather: Gather, store: promql.Store) -> str | None:
    """Evaluate and write one GenericPrometheusQuery; its failure, or violations that count."""
    asked = cl2.prometheus_queries(gather.start)
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    violations: list[str] = []
    try:
        for query in asked.queries:
            violations += _answer(query, asked, gather, store, rows)
    except RenderError as error:  # after its retries; no file
        return f"query error: {error.message}"
    try:
        report.query(
            asked.metric_name,
            asked.metric_version,
            asked.unit,
            [(dict(zip(asked.dimensions, key, strict=True)), data) for key, data in rows.items()],
            stamp(gather.gathered_s),
        )
    except ValueError as error:  # an infinity, which Go cannot write as JSON; no file
        return str(error)
    if not violations or not gather.gather.flag("enableViolations"):
        return None
    return wording.query_violations(asked.metric_name, violations)


def _answer(
    query: cl2.Query,
    asked: cl2.PrometheusQueries,
    gather: Gather,
    store: promql.Store,
    rows: dict[tuple[str, ...], dict[str, float]],
) -> Iterator[str]:
    """Put a query's samples into the rows by dimensions; yields its violations."""
    window_s = int(gather.gathered_s - gather.started_s)
    bounded = query.query.replace("%v", f"{window_s}s")
    # CL2 asks at whole seconds and drops NaN.
    found = promql.evaluate(bounded, store, float(int(gather.gathered_s)))
    samples = [sample for sample in found if not math.isnan(sample.value)]
    if not samples and (text := wording.no_samples(asked.metric_name, query)):
        yield text
    for sample in samples:
        key = tuple(sample.labels.get(name, "") for name in asked.dimensions)
        data = rows.setdefault(key, {})
        if query.name in data:
            yield wording.too_many_samples(query, key, sample.value, data[query.name])
            continue
        data[query.name] = sample.value
        if text := wording.sample_violation(query, sample.value):
            yield text
