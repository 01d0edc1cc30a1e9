"""How Go writes numbers and how CL2 words its failures.

Hides the exact phrases that junit.xml carries, so that a simulated failure and a real one are the
same text. Sources: perf-tests 4b34154 clusterloader2/pkg/measurement and pkg/errors.
"""

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


def objects_timed_out(kind: str, keys: Sequence[str]) -> str:
    """WaitForControlledPodsRunning's failure; keys are "namespace/name"."""
    return f"{len(keys)} objects timed out: {kind}s: {', '.join(keys)}"


def wrong_object_count(kind: str, running: int, wanted: int) -> str:
    """WaitForControlledPodsRunning's failure when some controller is not among the running ones."""
    return f"incorrect objects number: {running}/{wanted} {kind}s are running with all pods"
