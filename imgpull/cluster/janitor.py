"""What a killed sweep left on a cluster: found by our marks alone, removed, and seen to be gone.

Hides where to look. Without our label or annotation nothing is touched, whatever its name; what the
sweep of a live lease holds is in use, and left alone unless asked for.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from imgpull.cluster import lease, nodes, prometheus
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.ownership import (
    IMGPULL,
    MANAGED_BY,
    MANAGED_SELECTOR,
    MEASURED_BY,
    SWEEP_LABEL,
    SYSTEM_NAMESPACE,
    TRIAL_COLLECTIONS,
    held_up_by,
)
from imgpull.config.job import MEASURED_LABEL
from imgpull.errors import EngineFailed

Say = Callable[[str], None]

_LIMIT_S = 600.0
_POLL_S = 0.5
_NAMESPACES = "/api/v1/namespaces"
_STACK = f"{_NAMESPACES}/{prometheus.NAMESPACE}"
_PROMETHEUS, _LABEL = "Prometheus", "node label"
# What a sweep leaves on purpose, or has its own way to go.
_NOT_HERE = frozenset({f"{_NAMESPACES}/{SYSTEM_NAMESPACE}", _STACK})


@dataclass(frozen=True)
class Leftover:
    """Something of ours that nobody uses any more."""

    kind: str
    path: str
    name: str
    why: str  # how it is known to be ours
    sweep: str = ""
    age_s: float | None = None
    uid: str = ""


def leftovers(kube: Kube, *, include_live: bool = False) -> list[Leftover]:
    """What is there and ours; without what the sweep of a live lease holds, unless told.

    Whose Prometheus a live sweep uses is not known: none is listed then.
    """
    holder = None if include_live else lease.look(kube)
    found = [*_objects(kube), *_labels(kube), *(() if holder else _stack(kube))]
    return [each for each in found if holder is None or each.sweep != holder.sweep]


def remove(
    kube: Kube, found: Sequence[Leftover], say: Say, *, limit_s: float = _LIMIT_S
) -> list[Leftover]:
    """Remove these; returns those that are still there after the limit, and says why.

    What is no longer what was found, or has lost its mark, is left alone.
    """
    left, failed = [], []
    for each in sorted(found, key=lambda each: each.kind == _PROMETHEUS):  # it takes longest
        say(f"removing {each.kind} {each.name}")
        try:
            if _remove(kube, each, say, limit_s):
                left.append(each)
        except EngineFailed as error:
            say(f"{each.kind} {each.name}: {error.message}")
            failed.append(each)
    return [*failed, *_wait(kube, left, say, limit_s)]


def _remove(kube: Kube, each: Leftover, say: Say, limit_s: float) -> bool:
    """Whether it has been told to go, and is to be waited for."""
    if each.path == _STACK:
        prometheus.tear_down(kube, say, limit_s=limit_s)
        return False
    now = kube.find(each.path)
    if now is None or now["metadata"].get("uid") != each.uid:
        return False
    if each.kind == _LABEL:
        marks = {"labels": {MEASURED_LABEL: None}, "annotations": {MEASURED_BY: None}}
        if _annotations(now).get(MEASURED_BY) == each.sweep:
            kube.patch(each.path, {"metadata": marks})
        return False
    if each.kind == _PROMETHEUS:
        return prometheus.remove_leftover(kube, each.path, say)
    is_marked = _labels_of(now).get(MANAGED_BY) == IMGPULL or bool(_beside(each.why))
    return is_marked and kube.delete(each.path, uid=each.uid)


def _wait(kube: Kube, left: list[Leftover], say: Say, limit_s: float) -> list[Leftover]:
    end_s = time.monotonic() + limit_s
    while True:
        there = [
            (each, now)
            for each in left
            if (now := kube.find(each.path)) is not None and now["metadata"].get("uid") == each.uid
        ]
        left = [each for each, _ in there]
        if not left or time.monotonic() > end_s:
            break
        time.sleep(_POLL_S)
    for each, now in there:
        say(f"{each.kind} {each.name} is still there{held_up_by(now)}")
    return left


def _objects(kube: Kube) -> Iterator[Leftover]:
    """What carries our label, besides what a sweep leaves on purpose."""
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
            if path not in _NOT_HERE and not owned:  # what another makes goes with it
                yield _leftover(_kind(collection), path, one, f"label {MANAGED_SELECTOR}")
        if collection == _NAMESPACES:
            yield from _made_by_cl2(kube, every)


def _made_by_cl2(kube: Kube, ours: Sequence[Object]) -> Iterator[Leftover]:
    """Namespaces of a test beyond its first: ClusterLoader2 makes them, without any label."""
    prefixes = {
        found[1]: _labels_of(one).get(SWEEP_LABEL, "")
        for one in ours
        if (found := re.fullmatch(r"(ip[0-9a-f]{10})-1", one["metadata"]["name"]))
    }
    for one in kube.items(_NAMESPACES) if prefixes else ():
        name = one["metadata"]["name"]
        prefix, _, number = name.rpartition("-")
        if prefix in prefixes and number.isdigit() and MANAGED_BY not in _labels_of(one):
            made = _leftover("Namespace", f"{_NAMESPACES}/{name}", one, f"beside {prefix}-1")
            yield replace(made, sweep=prefixes[prefix])


def _beside(why: str) -> str:
    return why.partition("beside ")[2]


def _labels(kube: Kube) -> Iterator[Leftover]:
    for node in nodes.node_facts(kube, MEASURED_LABEL):
        sweep = node.annotations.get(MEASURED_BY, "")
        if sweep:  # a label alone may be the user's own
            yield Leftover(
                _LABEL, f"{nodes.NODES}/{node.name}", node.name, f"annotation {MEASURED_BY}",
                sweep, uid=node.uid,
            )  # fmt: skip


def _stack(kube: Kube) -> Iterator[Leftover]:
    """ClusterLoader2's Prometheus, where it carries our annotation."""
    space = kube.find(_STACK)
    why = f"annotation {prometheus.ANNOTATION}"
    if space is not None and _annotations(space).get(prometheus.ANNOTATION):
        yield _leftover(_PROMETHEUS, _STACK, space, why)  # and all that came with it
        return
    for path in prometheus.CL2_LEFTOVERS:
        found = kube.find(path)
        if found is not None and _annotations(found).get(prometheus.ANNOTATION):
            yield _leftover(_PROMETHEUS, path, found, why)


def _annotations(found: Object) -> dict[str, str]:
    return found["metadata"].get("annotations") or {}


def _labels_of(found: Object) -> dict[str, str]:
    return found["metadata"].get("labels") or {}


def _leftover(kind: str, path: str, found: Object, why: str) -> Leftover:
    meta = found["metadata"]
    return Leftover(
        kind, path, meta["name"], why, _labels_of(found).get(SWEEP_LABEL, ""),
        _age_s(meta.get("creationTimestamp")), meta["uid"],
    )  # fmt: skip


def _age_s(stamp: str | None) -> float | None:
    if not stamp:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()


_KINDS = {"daemonsets": "DaemonSet", "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount",
          "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding"}  # fmt: skip


def _kind(collection: str) -> str:
    plural = collection.rpartition("/")[2]
    return _KINDS.get(plural, plural.removesuffix("s").capitalize())
