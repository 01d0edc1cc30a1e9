"""How Go writes numbers and how CL2 words its failures.

Hides the exact phrases that junit.xml carries, so that a simulated failure and a real one are the
same text. Sources: perf-tests 4b34154 clusterloader2/pkg/measurement and pkg/errors.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from imgpull.cl2.measurements import Query
from imgpull.units import go_duration


def go_number(value: float) -> str:
    """As Go's %v prints a float64: 4.0 -> "4", 1000000 -> "1e+06"."""
    number = Decimal(repr(float(value))).normalize()
    if not number.is_finite():
        return "NaN" if number.is_nan() else "+Inf" if number > 0 else "-Inf"
    exponent = number.adjusted()
    # strconv's 'g' at the shortest precision turns to exponents at 1e-5 and 1e6.
    if -4 <= exponent < 6:
        return format(number, "f")
    sign, digits, _ = number.as_tuple()
    mantissa = ".".join(filter(None, (str(digits[0]), "".join(map(str, digits[1:])))))
    return f"{'-' if sign else ''}{mantissa}e{exponent:+03d}"


def call_error(method: str, identifier: str, text: str) -> str:
    """What a measurement's error becomes in junit.xml."""
    return f"measurement call {method} - {identifier} error: {text}"


def critical(text: str) -> str:
    """An error that ends the test at its step, as CL2 spells it (pkg/errors/fatal_error.go)."""
    return f"criticl error: {text}"


def bundle_error(basename: str, count: int, before: str, count_before: int) -> str:
    """Objects of one bundle that there are different numbers of; the phase is skipped."""
    return f"bundle error: {basename} has {count} replicas while {before} has {count_before}"


def pod_startup_violation(
    latency_s: Mapping[str, float], threshold_s: Mapping[str, float]
) -> str | None:
    """The first of Perc50, Perc90, Perc99 above its threshold, in CL2's words, if any."""
    for percentile, name in (("Perc50", "50th"), ("Perc90", "90th"), ("Perc99", "99th")):
        got, limit = latency_s[percentile], threshold_s[percentile]
        if got > limit:
            return (
                f"pod startup: too high latency {name} percentile: "
                f"got {go_duration(got)} expected: {go_duration(limit)}"
            )
    return None


def sample_violation(query: Query, value: float) -> str | None:
    """A sample on the wrong side of its query's threshold; None when it is within, or has none."""
    if query.threshold is None:
        return None
    if query.lower_bound and value < query.threshold:
        side, wanted = "below", "greater"
    elif not query.lower_bound and value > query.threshold:
        side, wanted = "above", "less"
    else:
        return None
    return (
        f"{query.name}: sample {side} threshold: want: {wanted} or equal than "
        f"{go_number(query.threshold)}, got: {go_number(value)}"
    )


def no_samples(metric_name: str, query: Query) -> str | None:
    """What a query without samples is called, if it requires samples."""
    if not query.require_samples:
        return None
    return f"{query.name}: query returned no samples for {metric_name}"


def too_many_samples(query: Query, row: Sequence[str], value: float, kept: float) -> str:
    """A second sample for one row (its dimension values) of one query; CL2 keeps the first."""
    return (
        f"{query.name}: too many samples for [{' '.join(row)}]: query returned "
        f"{go_number(value)} and {go_number(kept)}, expected single value."
    )


def query_violations(metric_name: str, violations: Sequence[str]) -> str:
    """All violations of one GenericPrometheusQuery as its one error."""
    return f"{metric_name}: [{' '.join(violations)}]"


def unsupported_value(value: float) -> str:
    """What CL2 says of a sample that JSON cannot hold; no file is written."""
    return f"building encoder error: json: unsupported value: {go_number(value)}"


def query_error(message: str, *, parsed: bool) -> str:
    """A query that Prometheus refused, as the API server's proxy and client-go pass it on.

    Status 400 when it could not be parsed and 422 when it could not be evaluated (Prometheus
    web/api/v1/api.go); the phrases are apimachinery's, pkg/api/errors NewGenericServerResponse.
    """
    reason, kind, text = (
        "for an unknown reason",
        "bad_data",
        f'invalid parameter "query": {message}',
    )
    if parsed:
        reason, kind, text = "due to an error in our request", "execution", message
    body = json.dumps({"status": "error", "errorType": kind, "error": text}, separators=(",", ":"))
    return (
        f"query error: the server rejected our request {reason} "
        f"(get services http:prometheus-k8s:9090) [body: {body}]"
    )


def selection(namespace: str, labels: str) -> str:
    """How CL2 prints a selector."""
    parts = [f"namespace({namespace})"] if namespace else []
    parts += [f"labelSelector({labels})"] if labels else []
    return ", ".join(parts) or "everything"


def pods_not_running(wanted: int, selected: str, seen: Mapping[str, int]) -> str:
    """WaitForRunningPods' failure; `seen` counts pods by status when it last looked, if it did."""
    waiting, pending = seen.get("PendingNotScheduled", 0), seen.get("PendingScheduled", 0)
    running = seen.get("RunningAndReady", 0)
    return (
        f"got context deadline exceeded while waiting for {wanted} pods to be running in "
        f"{selected} - summary of pods : Pods: {waiting + pending + running} created, "
        f"{wanted if seen else 0} desired, {running} running ({running} updated), "
        f"{pending} pending scheduled, {waiting} not scheduled, 0 inactive, "
        f"{seen.get('Terminating', 0)} terminating, 0 unknown, 0 runningButNotReady "
    )


def nodes_not_ready(low: int, high: int, selected: str, ready: int) -> str:
    """WaitForNodes' failure."""
    return (
        f"timeout while waiting for [{low}-{high}] Nodes with selector '{selected}' to be ready - "
        f"currently there is {ready} Nodes"
    )


# WaitForControlledPodsRunning's failure when its list has others than its watch.
CONTROLLERS_NOT_SYNCED = (
    "timed out while waiting for controlled pods: timed out waiting for the condition"
)


def objects_timed_out(kind: str, keys: Sequence[str]) -> str:
    """WaitForControlledPodsRunning's failure; keys are "namespace/name"."""
    return f"{len(keys)} objects timed out: {kind}s: {', '.join(keys)}"


def wrong_object_count(kind: str, running: int, wanted: int) -> str:
    """WaitForControlledPodsRunning's failure when some controller is not among the running ones."""
    return f"incorrect objects number: {running}/{wanted} {kind}s are running with all pods"
