"""Measurement calls: what the four known methods take.

Hides the parameters of each method, which CL2 checks only when the call runs, minutes into a test;
here they are checked when the file is read. Methods that imgpull does not know are read unchecked.
Source: perf-tests 4b34154 clusterloader2/pkg/measurement/common.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imgpull.cl2.places import Place
from imgpull.errors import RenderError

_SELECTOR = ("namespace", "labelSelector", "fieldSelector")
_DURATIONS = frozenset(
    {
        "threshold", "perc50Threshold", "perc90Threshold", "perc99Threshold", "operationTimeout",
        "syncTimeout", "refreshInterval", "duration",
    }
)  # fmt: skip
_PARAMS = {
    "PodStartupLatency": (
        "action", *_SELECTOR, "threshold", "perc50Threshold", "perc90Threshold", "perc99Threshold",
        "mapEventsByOrder", "schedulerName",
    ),
    "WaitForControlledPodsRunning": (
        "action", "apiVersion", "kind", *_SELECTOR, "operationTimeout", "checkIfPodsAreUpdated",
        "countErrorMargin", "syncTimeout", "refreshInterval",
    ),
    "GenericPrometheusQuery": (
        "action", "metricName", "metricVersion", "unit", "queries", "dimensions",
        "enableViolations", "prometheusClient",
    ),
    "Sleep": ("duration",),
}  # fmt: skip
_ACTIONS = {
    "PodStartupLatency": ("start", "gather"),
    "WaitForControlledPodsRunning": ("start", "gather", "stop"),
    "GenericPrometheusQuery": ("start", "gather"),
}

SUPPORTED_METHODS = frozenset(_PARAMS)


@dataclass(frozen=True)
class MeasurementCall:
    """One call of a measurement method; params are as written, durations as their strings."""

    method: str
    identifier: str
    params: dict[str, Any]
    line: int
    file: str

    @property
    def action(self) -> str:
        return str(self.params.get("action", ""))

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean param, which CL2 also takes as a string ("true")."""
        value = self.params.get(name, default)
        return value if isinstance(value, bool) else str(value).lower() in ("true", "1", "t")

    def error(self, reason: str, *, hint: str) -> RenderError:
        """The error to raise about this call."""
        return RenderError(
            f"{self.file}:{self.line}: {self.method} - {self.identifier}: {reason}", hint=hint
        )


@dataclass(frozen=True)
class Query:
    """One query of a GenericPrometheusQuery; `%v` in it stands for the window."""

    name: str
    query: str
    threshold: float | None = None
    lower_bound: bool = False
    require_samples: bool = False


@dataclass(frozen=True)
class PrometheusQueries:
    """The params of a GenericPrometheusQuery's start call."""

    metric_name: str
    metric_version: str
    unit: str
    queries: tuple[Query, ...]
    dimensions: tuple[str, ...] = ()


def read_calls(place: Place) -> Iterator[MeasurementCall]:
    """The calls that one entry of `measurements` makes: one, or one for each of its instances."""
    fields = place.fields("method", "identifier", "params", "instances")
    method = fields["method"].text()
    identifier, instances = fields["identifier"].text(), fields["instances"].items()
    if not method:
        raise fields["method"].error(
            "Required value: method is required", hint=f"One of {', '.join(sorted(_PARAMS))}."
        )
    if instances and identifier:
        raise fields["identifier"].invalid(
            identifier, "cannot be non empty when Instances specified", hint="Keep one of them."
        )
    if not instances and not identifier:
        raise fields["identifier"].invalid(
            identifier, "and Instances cannot be both empty", hint="Give the call an identifier."
        )
    if not instances:
        yield _call(place, method, identifier, (fields["params"],))
    for instance in instances:
        own = instance.fields("identifier", "params")
        yield _call(place, method, own["identifier"].text(), (fields["params"], own["params"]))


def _call(
    place: Place, method: str, identifier: str, sources: tuple[Place, ...]
) -> MeasurementCall:
    params: dict[str, Any] = {}
    for source in sources:
        params |= source.mapping()
        if method in _PARAMS:
            for name, field in source.fields(*_PARAMS[method], exact=True).items():
                if name in _DURATIONS:
                    field.duration()
    call = MeasurementCall(method, identifier, params, place.line, place.file)
    _check(call)
    return call


def _check(call: MeasurementCall) -> None:
    """Refuse what CL2 would refuse when the call runs."""
    actions = _ACTIONS.get(call.method)
    if actions and "action" not in call.params:
        raise call.error("key action not found", hint=f"Give one of {', '.join(actions)}.")
    if actions and call.action not in actions:
        raise call.error(f"unknown action {call.action}", hint=f"One of {', '.join(actions)}.")
    required: tuple[str, ...] = ()
    if call.method == "Sleep":
        required = ("duration",)
    elif call.method == "WaitForControlledPodsRunning" and call.action == "start":
        required = ("apiVersion", "kind")
    elif call.method == "GenericPrometheusQuery" and call.action == "start":
        prometheus_queries(call)
    for name in required:
        if not isinstance(call.params.get(name), str):
            raise call.error(f"key {name} not found", hint=f"Add {name} to its params.")


def prometheus_queries(call: MeasurementCall) -> PrometheusQueries:
    """The queries of a GenericPrometheusQuery call; RenderError where CL2 would refuse them."""
    params = call.params
    for name in ("metricName", "metricVersion", "unit"):
        _text(call, params, name)
    entries = params.get("queries") or []
    if not isinstance(entries, list):
        raise call.error("params.queries must be a list", hint="Begin each query with a dash.")
    dimensions = params.get("dimensions") or []
    if not isinstance(dimensions, list) or not all(isinstance(d, str) for d in dimensions):
        raise call.error("params.dimensions must be a list of label names", hint="Like [node].")
    return PrometheusQueries(
        params["metricName"],
        params["metricVersion"],
        params["unit"],
        tuple(_query(call, index, entry) for index, entry in enumerate(entries)),
        tuple(dimensions),
    )


def _query(call: MeasurementCall, index: int, entry: object) -> Query:
    known = ("name", "query", "threshold", "lowerBound", "requireSamples")
    prefix = f"params.queries[{index}] validation failed: "
    if not isinstance(entry, dict):
        raise call.error(f"{prefix}not a mapping", hint=f"Its keys are {', '.join(known)}.")
    for key in entry:
        if key not in known:
            raise call.error(f"{prefix}unknown key '{key}'", hint=f"Valid: {', '.join(known)}.")
    threshold = entry.get("threshold")
    if threshold is not None and (
        isinstance(threshold, bool) or not isinstance(threshold, int | float)
    ):
        raise call.error(f"{prefix}threshold '{threshold}' is no number", hint="Unquote it.")
    for name in ("lowerBound", "requireSamples"):
        if not isinstance(entry.get(name, False), bool):
            raise call.error(f"{prefix}{name} must be true or false", hint="Unquote it.")
    return Query(
        _text(call, entry, "name", prefix),
        _text(call, entry, "query", prefix),
        None if threshold is None else float(threshold),
        entry.get("lowerBound", False),
        entry.get("requireSamples", False),
    )


def _text(call: MeasurementCall, source: dict[str, Any], name: str, prefix: str = "") -> str:
    value = source.get(name)
    if value is None or value == "":
        raise call.error(f"{prefix}{name} is required", hint=f"Add {name}.")
    if not isinstance(value, str):
        raise call.error(f"{prefix}{name} must be a string, got {value}", hint="Quote it.")
    return value
