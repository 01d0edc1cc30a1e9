"""Measurement calls: what the known methods take.

Hides the parameters of each method, which CL2 checks only when the call runs, minutes into a test;
here they are checked when the file is read. Methods that imgpull does not know are read unchecked.
Source: perf-tests 4b34154 clusterloader2/pkg/measurement/common.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from imgpull.cl2.places import Place
from imgpull.errors import RenderError
from imgpull.units import parse_duration

# How often WaitForControlledPodsRunning looks; only Azure's fork can be told otherwise.
CONTROLLED_POLL_S = 5.0

_SELECTOR = ("namespace", "labelSelector", "fieldSelector")
_DURATIONS = frozenset(
    {
        "threshold", "perc50Threshold", "perc90Threshold", "perc99Threshold", "operationTimeout",
        "syncTimeout", "refreshInterval", "duration", "timeout",
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
    "WaitForRunningPods": (
        "desiredPodCount", *_SELECTOR, "timeout", "refreshInterval", "isFatal",
    ),
    "WaitForNodes": (
        "minDesiredNodeCount", "maxDesiredNodeCount", *_SELECTOR, "timeout", "refreshInterval",
    ),
    "Timer": ("action", "label"),
    "Sleep": ("duration",),
}  # fmt: skip
_COUNTS = ("desiredPodCount", "minDesiredNodeCount", "maxDesiredNodeCount", "countErrorMargin")
_ACTIONS = {
    "PodStartupLatency": ("start", "gather"),
    "WaitForControlledPodsRunning": ("start", "gather", "stop"),
    "GenericPrometheusQuery": ("start", "gather"),
    "Timer": ("start", "stop", "gather"),
}
_REQUIRED = {
    ("Sleep", ""): ("duration",),
    ("WaitForControlledPodsRunning", "start"): ("apiVersion", "kind"),
    ("WaitForRunningPods", ""): ("desiredPodCount",),
    ("WaitForNodes", ""): ("minDesiredNodeCount", "maxDesiredNodeCount"),
    ("Timer", "start"): ("label",),
    ("Timer", "stop"): ("label",),
}

SUPPORTED_METHODS = frozenset(_PARAMS)


@dataclass(frozen=True)
class MeasurementCall:
    """One call of a measurement method; params are as written, durations as their strings.

    `entry` is its place among the step's measurements, which instances share: CL2 reports them as
    one case, without identifier (pkg/test/simple_test_executor.go).
    """

    method: str
    identifier: str
    params: dict[str, Any]
    line: int
    file: str
    entry: int = 0
    instance: bool = False

    @property
    def action(self) -> str:
        return str(self.params.get("action", ""))

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean param, which CL2 also takes as a string ("true")."""
        value = self.params.get(name, default)
        return value if isinstance(value, bool) else str(value).lower() in ("true", "1", "t")

    def seconds(self, name: str, default: str) -> float:
        """A duration param in seconds."""
        return parse_duration(self.params.get(name, default))

    def count(self, name: str, default: int = 0) -> int:
        """A whole param, which CL2 also takes as a string."""
        return int(self.params.get(name, default))

    def text(self, name: str) -> str:
        """A param that is text; empty when absent."""
        return str(self.params.get(name) or "")

    @cached_property  # asked for in every cell of a matrix, whose calls are the same objects
    def _queries(self) -> "PrometheusQueries":
        return _queries(self)

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


@lru_cache(maxsize=1024)  # configs of one matrix share most of their measurements, see alike.py
def read_calls(place: Place, entry: int = 0) -> tuple[MeasurementCall, ...]:
    """The calls that one entry of `measurements` makes: one, or one for each of its instances."""
    return tuple(_calls(place, entry))


def _calls(place: Place, entry: int) -> Iterator[MeasurementCall]:
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
        params = _params(method, (fields["params"],))
        yield _checked(MeasurementCall(method, identifier, params, place.line, place.file, entry))
    for instance in instances:
        own = instance.fields("identifier", "params")
        name = own["identifier"].text()
        params = _params(method, (fields["params"], own["params"]))
        call = MeasurementCall(method, name, params, place.line, place.file, entry, instance=True)
        yield _checked(call)


def _params(method: str, sources: tuple[Place, ...]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for source in sources:
        params |= source.mapping()
        if method in _PARAMS:
            for name, field in source.fields(*_PARAMS[method], exact=True).items():
                if name in _DURATIONS:
                    field.duration()
    return params


def _checked(call: MeasurementCall) -> MeasurementCall:
    """Refuse what CL2 would refuse when the call runs."""
    actions = _ACTIONS.get(call.method)
    if actions and "action" not in call.params:
        raise call.error("key action not found", hint=f"Give one of {', '.join(actions)}.")
    if actions and call.action not in actions:
        raise call.error(f"unknown action {call.action}", hint=f"One of {', '.join(actions)}.")
    if call.method == "GenericPrometheusQuery" and call.action == "start":
        prometheus_queries(call)
    for name in _REQUIRED.get((call.method, call.action), ()):
        value = call.params.get(name)
        if value in (None, "") or (name not in _COUNTS and not isinstance(value, str)):
            raise call.error(f"key {name} not found", hint=f"Add {name} to its params.")
    for name in set(call.params) & set(_COUNTS if call.method in _PARAMS else ()):
        value = call.params[name]
        if isinstance(value, bool) or not str(value).isdecimal():
            raise call.error(f"{name}: {value} is no whole number", hint="Write it like 10.")
    return call


def prometheus_queries(call: MeasurementCall) -> PrometheusQueries:
    """The queries of a GenericPrometheusQuery call; RenderError where CL2 would refuse them."""
    return call._queries


def _queries(call: MeasurementCall) -> PrometheusQueries:
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
