"""What a simulated trial's gather calls find: pod startup from traces, queries from series.

Hides how CL2 turns samples into rows and violations. Queries are evaluated over what a Prometheus
would have scraped, never from a side door that knows the answer.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from imgpull import cl2
from imgpull.cl2 import wording
from imgpull.errors import RenderError
from imgpull.simcluster import PodTrace, promql

# Virtual time begins here in every trial, so that equal trials leave equal bytes.
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# A query that fails is tried again for so long (perf-tests 4b34154 measurement/util/prometheus.go).
_QUERY_TIMEOUT_S = 900.0
# Of a step's beginnings a sum of floats: whole seconds must not become one less.
_ROUNDING_S = 1e-6

Rows = dict[tuple[str, ...], dict[str, float]]


@dataclass(frozen=True)
class Gathered:
    """How a measurement call went: seconds taken, its error, and the summary it leaves.

    Summaries are written when the last step is over; a fatal error makes this step the last.
    """

    took_s: float = 0.0
    error: str = ""
    summary: Callable[[cl2.ReportWriter], object] | None = None
    fatal: bool = False


def stamp(at_s: float) -> datetime:
    return EPOCH + timedelta(seconds=at_s)


def pod_startup(
    start: cl2.MeasurementCall, started_s: float, now_s: float, pods: Iterable[PodTrace]
) -> Gathered:
    """Transitions as CL2 takes them since 2026-05: when its watch told it so, from its start on."""
    to_schedule, to_run, startup = [], [], []
    for pod in pods:
        if pod.created_s > now_s or (pod.gone_s is not None and pod.gone_s <= started_s):
            continue
        created_s = max(pod.created_s, started_s)
        if pod.scheduled_s is None or pod.scheduled_s > now_s:
            continue
        scheduled_s = max(pod.scheduled_s, started_s)
        to_schedule.append(scheduled_s - created_s)
        if pod.ready_s is not None and pod.ready_s <= now_s:
            ready_s = max(pod.ready_s, started_s)
            to_run.append(ready_s - scheduled_s)
            startup.append(ready_s - created_s)
    samples = {
        "create_to_schedule": to_schedule,
        "schedule_to_run": to_run,
        "run_to_watch": [0.0] * len(to_run),
        "schedule_to_watch": to_run,
        "pod_startup": startup,
        "create_to_run": startup,
    }
    limit = start.params.get("threshold", "5s")
    limits_s = {f"Perc{p}": start.seconds(f"perc{p}Threshold", limit) for p in (50, 90, 99)}
    violation = wording.pod_startup_violation(cl2.percentiles(startup), limits_s)
    return Gathered(
        error=violation or "",
        summary=lambda report: report.pod_startup(start.identifier, samples, stamp(now_s)),
    )


def queries(
    start: cl2.MeasurementCall,
    gather: cl2.MeasurementCall,
    window: tuple[float, float],
    store: promql.Store,
    memo: promql.Memo,
) -> Gathered:
    """One GenericPrometheusQuery over the window between its calls."""
    asked = cl2.prometheus_queries(start)
    started_s, now_s = window
    whole_s = int(now_s - started_s + _ROUNDING_S)
    rows: Rows = {}
    violations: list[str] = []
    try:
        for query in asked.queries:
            bounded = query.query.replace("%v", f"{whole_s}s")
            # CL2 asks at whole seconds and drops NaN.
            found = promql.evaluate(bounded, store, float(int(now_s + _ROUNDING_S)), memo)
            samples = [sample for sample in found if not math.isnan(sample.value)]
            violations += _answer(query, asked, samples, rows)
    except RenderError as error:
        parsed = not isinstance(error.__cause__, ValueError)
        text = wording.query_error(str(error.__cause__ or error.message), parsed=parsed)
        return Gathered(_QUERY_TIMEOUT_S, text)
    values = (value for data in rows.values() for value in data.values())
    if infinite := next((value for value in values if math.isinf(value)), None):
        return Gathered(error=wording.unsupported_value(infinite))
    named = [(dict(zip(asked.dimensions, key, strict=True)), data) for key, data in rows.items()]
    return Gathered(
        error=wording.query_violations(asked.metric_name, violations)
        if violations and gather.flag("enableViolations")
        else "",
        summary=lambda report: report.query(
            asked.metric_name, asked.metric_version, asked.unit, named, stamp(now_s)
        ),
    )


def _answer(
    query: cl2.Query, asked: cl2.PrometheusQueries, samples: list[promql.Sample], rows: Rows
) -> Iterator[str]:
    """Put a query's samples into the rows by dimensions; yields its violations."""
    if not samples and (text := wording.no_samples(asked.metric_name, query)):
        yield text
    for sample in samples:
        key = tuple(sample.labels.get(name, "") for name in asked.dimensions)
        data = rows.setdefault(key, {})
        if query.name in data:
            yield wording.too_many_samples(query, key, sample.value, data[query.name])
        else:
            data[query.name] = sample.value
        if text := wording.sample_violation(query, sample.value):
            yield text


class Timers:
    """The Timer measurement: durations by identifier and label."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], float] = {}
        self._taken: dict[str, dict[str, float]] = {}

    def call(self, call: cl2.MeasurementCall, now_s: float) -> Gathered:
        """Start, stop or gather."""
        key = call.identifier, call.text("label")
        taken = self._taken.setdefault(call.identifier, {})
        if call.action == "start":
            self._running[key] = now_s
            return Gathered()
        if call.action == "stop":
            if key not in self._running:
                return Gathered(error=f"uninitialized timer {call.text('label')}")
            taken[call.text("label")] = now_s - self._running.pop(key)
            return Gathered()
        data = dict(taken)
        return Gathered(summary=lambda report: report.timer(data, stamp(now_s)))
