"""What a killed sweep left on a cluster: found by our marks alone, removed, and seen to be gone.

Hides where to look. Without our label or annotation nothing is touched, whatever its name; what the
sweep of a live lease holds is in use, and left alone unless asked for.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from imgpull.cluster import lease, nodes, prometheus
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.ownership import (
    MANAGED_SELECTOR,
    MEASURED_BY,
    SWEEP_LABEL,
    SYSTEM_NAMESPACE,
    TRIAL_COLLECTIONS,
)
from imgpull.config.job import MEASURED_LABEL
from imgpull.errors import EngineFailed

Say = Callable[[str], None]

_LIMIT_S = 600.0
_POLL_S = 0.5
_PROMETHEUS, _LABEL = "Prometheus", "node label"


@dataclass(frozen=True)
class Leftover:
    """Something of ours that nobody uses any more."""

    kind: str
    path: str
    name: str
    why: str  # how it is known to be ours
    sweep: str = ""
    age_s: float | None = None


def leftovers(kube: Kube, *, include_live: bool = False) -> list[Leftover]:
    """What is there and ours; without what the sweep of a live lease holds, unless told."""
    holder = None if include_live else lease.look(kube)
    living = holder.sweep if holder else ""
    found = [*_objects(kube), *_labels(kube), *_stack(kube)]
    return [each for each in found if not (living and each.sweep == living)]


def remove(kube: Kube, found: Sequence[Leftover], say: Say) -> list[Leftover]:
    """Remove these; returns those that are still there after ten minutes."""
    for each in found:
        say(f"removing {each.kind} {each.name}")
        if each.kind == _LABEL:
            patch = {
                "metadata": {"labels": {MEASURED_LABEL: None}, "annotations": {MEASURED_BY: None}}
            }
            kube.patch(each.path, patch)
        elif each.kind != _PROMETHEUS:
            kube.delete(each.path, propagation="Background")
    stack = [each for each in found if each.kind == _PROMETHEUS]
    still = []
    try:
        if stack:
            prometheus.tear_down(kube, say)
    except EngineFailed as error:
        say(error.message)
        still = stack
    left = [each for each in found if each.kind not in (_PROMETHEUS, _LABEL)]
    end_s = time.monotonic() + _LIMIT_S
    while left := [each for each in left if kube.find(each.path) is not None]:
        if time.monotonic() > end_s:
            break
        time.sleep(_POLL_S)
    return [*left, *still]


def _objects(kube: Kube) -> Iterator[Leftover]:
    """What carries our label, besides what a sweep leaves on purpose."""
    kept = {f"/api/v1/namespaces/{SYSTEM_NAMESPACE}", f"/api/v1/namespaces/{prometheus.NAMESPACE}"}
    for collection in TRIAL_COLLECTIONS:
        try:
            every = list(kube.items(collection, labelSelector=MANAGED_SELECTOR))
        except ApiError as error:
            if error.is_missing:  # a namespace or API group that is not there
                continue
            raise
        for one in every:
            path = f"{collection}/{one['metadata']['name']}"
            owned = one["metadata"].get("ownerReferences")
            if path not in kept and not owned:  # what another makes goes with it
                yield _leftover(_kind(collection), path, one, f"label {MANAGED_SELECTOR}")


def _labels(kube: Kube) -> Iterator[Leftover]:
    for node in nodes.node_facts(kube, MEASURED_LABEL):
        sweep = node.annotations.get(MEASURED_BY, "")
        if sweep:  # a label alone may be the user's own
            yield Leftover(
                _LABEL, f"{nodes.NODES}/{node.name}", node.name, f"annotation {MEASURED_BY}", sweep
            )


def _stack(kube: Kube) -> Iterator[Leftover]:
    """ClusterLoader2's Prometheus, where it carries our annotation."""
    path = f"/api/v1/namespaces/{prometheus.NAMESPACE}"
    space = kube.find(path)
    why = f"annotation {prometheus.ANNOTATION}"
    if space is not None:
        if prometheus.state(kube).kind != "foreign":
            yield _leftover(_PROMETHEUS, path, space, why)
        return
    for path in prometheus.CL2_LEFTOVERS:
        found = kube.find(path)
        marks = ((found or {}).get("metadata") or {}).get("annotations") or {}
        if found is not None and marks.get(prometheus.ANNOTATION):
            yield _leftover(_PROMETHEUS, path, found, why)


def _leftover(kind: str, path: str, found: Object, why: str) -> Leftover:
    meta = found["metadata"]
    sweep = (meta.get("labels") or {}).get(SWEEP_LABEL, "")
    return Leftover(kind, path, meta["name"], why, sweep, _age_s(meta.get("creationTimestamp")))


def _age_s(stamp: str | None) -> float | None:
    if not stamp:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()


_KINDS = {"daemonsets": "DaemonSet", "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount",
          "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding"}  # fmt: skip


def _kind(collection: str) -> str:
    plural = collection.rpartition("/")[2]
    return _KINDS.get(plural, plural.removesuffix("s").capitalize())
