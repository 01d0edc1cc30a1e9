"""Pods and their events as an API server holds them: what kubelet and scheduler would write.

Times are seconds after BEGAN; stamps are in whole seconds, and names of events in nanoseconds.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from imgpull import pulls

Object = dict[str, Any]

BEGAN = datetime(2026, 11, 23, 21, 15, 0, tzinfo=UTC)
NAMESPACE, NODE = "ip0123456789-1", "aks-measured-1"
IMAGE, SIZE = "registry.example/big:1", 264_056_486
DIGEST = "sha256:" + "a" * 64


def stamp(at_s: float) -> str:
    return (BEGAN + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(
    name: str = "a",
    *,
    image_id: str = "",
    waiting: tuple[str, str] | None = None,
    namespace: str = NAMESPACE,
    **moments: float,
) -> Object:
    """A pod at some point of its life: created, scheduled, sandbox, started, ready so far."""
    kinds = {"scheduled": "PodScheduled", "sandbox": "PodReadyToStartContainers", "ready": "Ready"}
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": stamp(moments[key])}
        for key, kind in kinds.items()
        if key in moments
    ]
    state: Object = {"waiting": {"reason": "ContainerCreating"}}
    if waiting:
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    if "started" in moments:
        state = {"running": {"startedAt": stamp(moments["started"])}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": f"uid-{name}",
            "creationTimestamp": stamp(moments.get("created", 1.0)),
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:x": {}}}],
        },
        "spec": {
            "containers": [{"name": "image", "image": IMAGE}],
            **({"nodeName": NODE} if "scheduled" in moments else {}),
        },
        "status": {
            "conditions": conditions,
            "containerStatuses": [{"name": "image", "imageID": image_id, "state": state}],
        },
    }  # fmt: skip


def event(
    name: str, reason: str, message: str, at_s: float, *, count: int = 1,
    last_s: float | None = None, namespace: str = NAMESPACE, named: bool = True, **more: Any,
) -> Object:  # fmt: skip
    """A kubelet's event about a pod."""
    nanoseconds = int(BEGAN.timestamp()) * 10**9 + round(at_s * 1e9)
    told = f"{nanoseconds:x}" if named else f"x{nanoseconds}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": namespace, "name": f"{name}.{told}",
            "uid": f"{namespace}-{name}-{reason}-{told}",
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:x": {}}}],
        },
        "type": "Warning" if reason == "Failed" else "Normal",
        "reason": reason,
        "message": message,
        "count": count,
        "eventTime": None,
        "firstTimestamp": stamp(at_s),
        "lastTimestamp": stamp(at_s if last_s is None else last_s),
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name,
            "uid": f"uid-{name}", "fieldPath": "spec.containers{image}",
        },
        "source": {"component": "kubelet", "host": NODE},
        **more,
    }  # fmt: skip


def scheduled(name: str, at_s: float) -> Object:
    """The scheduler's event, with its microseconds."""
    told = event(name, "Scheduled", f"Successfully assigned {NAMESPACE}/{name} to {NODE}", at_s)
    at = BEGAN + timedelta(seconds=at_s)
    told |= {"eventTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "count": None, "source": {}}
    told |= {"firstTimestamp": None, "lastTimestamp": None}
    return told


def pulling(name: str, at_s: float, **more: Any) -> Object:
    return event(name, "Pulling", pulls.pulling_message(IMAGE), at_s, **more)


def pulled(
    name: str, at_s: float, pull_s: float, total_s: float | None = None, **more: Any
) -> Object:
    """The answer, at `at_s`."""
    text = pulls.pulled_message(IMAGE, pull_s, pull_s if total_s is None else total_s, SIZE)
    return event(name, "Pulled", text, at_s, **more)


def started(name: str, at_s: float, **more: Any) -> Object:
    return event(name, "Started", "Container started", at_s, **more)
