"""What a Prometheus answers: instant and range queries, and which of its targets are down.

Hides the way to it. Inside a cluster that is the API server's service proxy, as ClusterLoader2 goes
(no port-forward, only the right to `services/proxy`); anywhere else, its own address.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from imgpull.cluster.kube import ApiError, Kube
from imgpull.errors import EngineFailed

# perf-tests clusterloader2 pkg/prometheus/clients/in_cluster.go
_PROXY = "/api/v1/namespaces/monitoring/services/http:prometheus-k8s:9090/proxy"
_TIMEOUT_S = 60.0

Source = Kube | str  # a cluster that CL2's Prometheus runs in, or a Prometheus' own URL


@dataclass(frozen=True)
class Sampled:
    """One series of an answer: its labels, and (Unix seconds, value) in the order of time."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Target:
    """One endpoint that is scraped. `trouble` is empty when it is up."""

    job: str
    node: str
    url: str
    trouble: str

    def __str__(self) -> str:
        port = f"port {urlsplit(self.url).port}" if urlsplit(self.url).port else self.url
        on = f" of node {self.node}" if self.node else ""
        return f"{self.job}: {port}{on} ({self.url}): {self.trouble or 'up'}"


def query(source: Source, promql: str, at: datetime | float) -> list[Sampled]:
    """What a query has at a moment: a point a series, or all those of a selected range."""
    data = _ask(source, "query", {"query": promql, "time": _stamp(at)}, promql)
    if data.get("resultType") == "scalar":
        return [Sampled({}, (_point(data["result"]),))]
    return [
        Sampled(each["metric"], tuple(map(_point, each.get("values") or [each["value"]])))
        for each in data["result"]
    ]


def query_range(
    source: Source, promql: str, begin: datetime | float, end: datetime | float, step_s: float
) -> list[Sampled]:
    """What a query had at each step from `begin` to `end`; a step without a value is left out."""
    params = {
        "query": promql, "start": _stamp(begin), "end": _stamp(end), "step": f"{step_s:.3f}"
    }  # fmt: skip
    data = _ask(source, "query_range", params, promql)
    return [Sampled(each["metric"], tuple(map(_point, each["values"]))) for each in data["result"]]


def targets(source: Source) -> list[Target]:
    """Every target that is scraped now; those that are down first."""
    data = _ask(source, "targets", {"state": "active"}, "its targets")
    found = []
    for each in data.get("activeTargets") or ():
        labels = each.get("labels") or {}
        trouble = each.get("lastError") or f"health is {each.get('health')}"
        found.append(
            Target(
                labels.get("job", ""), labels.get("node", ""), each.get("scrapeUrl", ""),
                "" if each.get("health") == "up" else trouble,
            )
        )  # fmt: skip
    return sorted(found, key=lambda each: (not each.trouble, each.job, each.node, each.url))


def _stamp(at: datetime | float) -> str:
    return f"{at.timestamp() if isinstance(at, datetime) else at:.3f}"


def _point(pair: Any) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _ask(source: Source, what: str, params: Mapping[str, str], about: str) -> dict[str, Any]:
    try:
        if isinstance(source, str):
            answer = _get(f"{source.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(params)}")
        else:
            answer = json.loads(
                source.text(f"{_PROXY}/api/v1/{what}", timeout_s=_TIMEOUT_S, **params)
            )
        data: dict[str, Any] | None = answer.get("data")
    except ApiError as error:
        raise _unanswered(about, error) from error
    except (OSError, ValueError, AttributeError) as error:
        raise _refused(about, f"{type(error).__name__}: {error}") from error
    if answer.get("status") != "success" or data is None:
        raise _refused(about, str(answer.get("error")))
    return data


def _get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return json.load(error)  # Prometheus says why, in JSON


def _refused(about: str, why: str) -> EngineFailed:
    return EngineFailed(
        f"Prometheus gave no answer to {about}: {why}",
        hint="kubectl -n monitoring logs prometheus-k8s-0 -c prometheus",
    )


def _unanswered(about: str, error: ApiError) -> EngineFailed:
    """The API server passes Prometheus' own refusals on, with their status."""
    if error.status == 403:
        hint = "ask for the right to get services/proxy in namespace monitoring"
    elif error.status in (0, 502, 503, 504):
        hint = "kubectl -n monitoring get pods,endpoints; can the control plane reach pods?"
    else:
        hint = "kubectl -n monitoring logs prometheus-k8s-0 -c prometheus"
    return EngineFailed(
        f"Prometheus gave no answer to {about}: {error.message}", hint=error.hint or hint
    )
