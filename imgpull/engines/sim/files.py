"""The files that a simulated trial leaves besides CL2's report: events, pods and series.

Hides how Kubernetes words, counts, drops and stamps events (in whole seconds). Every event names
its component `kubelet-simulated`, so that no simulated pull can pass for a seen one.
"""

import json
import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgpull import exporters, pulls, tables
from imgpull.simcluster import PodTrace, Trace, World
from imgpull.simcluster.delays import Luck, TokenBucket
from imgpull.simcluster.exposed import Meter

# Names as Kubernetes makes them: no vowels, no look-alikes (apimachinery pkg/util/rand).
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
CONTAINER = "image"  # in our templates

# client-go tools/record/events_cache.go: events of one source about one object that may come at
# once, and how slowly more may follow. Warnings have a budget of their own (kubernetes PR 124747 of
# 2024; recorded from 1.36.2: 25 warnings and 10 others of one pod that could not be pulled).
_SPAM_BURST, _SPAM_EVENTS_S = 25, 1 / 300


def pod_name(deployment: str, index: int, world: World) -> str:
    """Deployment, ReplicaSet hash and suffix, the same in every cell of a trial."""
    draw = random.Random(f"{world.seed}/{world.trial}/pod name/{index}")
    suffix = "".join(draw.choice(_ALPHABET) for _ in range(5))
    replica_set = random.Random(f"{world.seed}/{world.trial}/replica set/{deployment}")
    return f"{deployment}-{''.join(replica_set.choice(_ALPHABET) for _ in range(10))}-{suffix}"


def write_pods(path: Path, trace: Trace) -> None:
    """A pod a row; seconds since the trial began, empty where it never came to that."""
    tables.write_pods(path, map(_pod_row, trace.pods))


def _pod_row(pod: PodTrace) -> tables.PodRow:
    failed = next((attempt.error for attempt in pod.attempts if attempt.error), "")
    return tables.PodRow(
        namespace=pod.request.namespace,
        pod=pod.request.name,
        node=pod.node,
        created=pod.created_s,
        scheduled=pod.scheduled_s,
        sandbox=pod.sandbox_s,
        pulling=pod.attempts[0].asked_s if pod.attempts else None,
        pulled=pod.pulled_s,
        started=pod.started_s,
        ready=pod.ready_s,
        uid=_uid(pod),
        # No image runs here, so none has an id.
        containers=(
            tables.Container(
                CONTAINER, pod.request.image, "", f"ErrImagePull: {failed}" if failed else ""
            ),
        ),
    )


def _uid(pod: PodTrace) -> str:
    return f"{pulls.SIMULATED_UID}{pod.request.index}"


def write_series(path: Path, trace: Trace) -> None:
    """Mean receive and write rates and CPU since the node's row before; the first is idle."""
    tables.write_series(path, _series_rows(trace))


def _series_rows(trace: Trace) -> Iterator[tables.SeriesRow]:
    segments = {name: node.segments for name, node in trace.nodes.items() if node.segments}
    end_s = max((told[-1].end_s for told in segments.values()), default=0.0)
    width_s = max(1.0, end_s / (tables.POINTS_A_NODE - 2))
    for name in sorted(segments):
        told = segments[name]
        first = math.floor(told[0].begin_s / width_s)
        last = math.ceil(told[-1].end_s / width_s)
        edges_s = np.arange(first - 1, last + 1, dtype=np.float64) * width_s
        meter = Meter(told)
        means = [
            np.diff(meter.until(edges_s, rate)) / width_s
            for rate in ("receive_bytes_s", "write_bytes_s", "cpu_cores")
        ]
        for at_s, receive, write, cpu in zip(edges_s[1:], *means, strict=True):
            yield tables.SeriesRow(at_s, name, receive, write, cpu)


class _Told(NamedTuple):
    """Something that the scheduler or kubelet has to tell about a pod."""

    at_s: float
    reason: str
    message: str

    @property
    def type(self) -> str:
        return "Warning" if self.reason == "Failed" else "Normal"


def write_events(path: Path, world: World, trace: Trace, epoch: datetime) -> None:
    """A Kubernetes event a line, in the order of time, as a recorder would have seen them.

    What is told again is the same event with a higher count, and another line: so a watch sees it.
    """
    luck = Luck(world.seed, world.trial)
    restarted_s = {name: node.restarted_s for name, node in trace.nodes.items()}
    rows: list[tuple[float, int, int, dict[str, Any]]] = []
    for pod in trace.pods:
        if pod.scheduled_s is not None:
            rows.append((pod.scheduled_s, pod.request.index, -1, _scheduled(pod, epoch)))
        sent = _sent(pod, world, epoch, restarted_s.get(pod.node or "", math.inf))
        for order, at_s, event in sent:
            if (
                luck.share(f"event loss {order}", pod.request.index)
                >= world.faults.event_loss_share
            ):
                rows.append((at_s, pod.request.index, order, event))
    rows.sort(key=lambda row: row[:3])
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for *_, event in rows)


def _told(pod: PodTrace, world: World) -> Iterator[_Told]:
    """What kubelet has to tell, in its order."""
    image, version = pod.request.image, exporters.version_tuple(world.kubelet.version)
    for attempt in pod.attempts:
        yield _Told(attempt.asked_s, "Pulling", pulls.pulling_message(image))
        ended_s = attempt.ended_s
        if ended_s is not None and attempt.error:
            # All in one second: recorded from 1.36.2.
            yield _Told(ended_s, "Failed", pulls.failed_message(image, attempt.error))
            yield _Told(ended_s, "Failed", "Error: ErrImagePull")
            yield _Told(ended_s, "BackOff", pulls.back_off_message(image))
            yield _Told(ended_s, "Failed", "Error: ImagePullBackOff")
        elif ended_s is not None and attempt.began_s is not None:
            message = pulls.pulled_message(
                image,
                ended_s - attempt.began_s,
                ended_s - attempt.asked_s,
                world.image_bytes(image),
            )
            yield _Told(ended_s, "Pulled", message)
    if pod.present_s is not None:
        yield _Told(pod.present_s, "Pulled", pulls.present_message(image, version))
    if pod.container_s is not None:
        yield _Told(pod.container_s, "Created", _created_message(version))
    if pod.started_s is not None:
        yield _Told(pod.started_s, "Started", _started_message(version))
        if pod.stopped_s is not None and pod.started_s <= pod.stopped_s - pod.request.grace_s:
            killing_s = pod.stopped_s - pod.request.grace_s
            yield _Told(killing_s, "Killing", f"Stopping container {CONTAINER}")


def _created_message(version: tuple[int, ...]) -> str:
    """Without the container's name from 1.35 on (kubernetes PR 134043); recorded from 1.36.2."""
    if version >= (1, 35):
        return "Container created"
    # ASSUMPTION: the colon came with 1.32 (kuberuntime_container.go; the commit was not found).
    return f"Created container{':' if version >= (1, 32) else ''} {CONTAINER}"


def _started_message(version: tuple[int, ...]) -> str:
    return "Container started" if version >= (1, 35) else f"Started container {CONTAINER}"


def _sent(
    pod: PodTrace, world: World, epoch: datetime, restarted_s: float
) -> Iterator[tuple[int, float, dict[str, Any]]]:
    """(order, when, event) of what kubelet's recorder sends; a restart forgets what was sent."""
    budgets: dict[tuple[bool, str], TokenBucket] = {}
    counts: dict[tuple[bool, str, str], int] = {}
    firsts: dict[tuple[bool, str, str], dict[str, Any]] = {}
    for order, told in enumerate(sorted(_told(pod, world), key=lambda told: told.at_s)):
        life = told.at_s >= restarted_s
        key = (life, told.reason, told.message)
        event = firsts.setdefault(key, _event(pod, order, told, epoch))
        # Counted before it is dropped: a later line tells of those that were.
        counts[key] = counts.get(key, 0) + 1
        budget = budgets.setdefault((life, told.type), TokenBucket(_SPAM_EVENTS_S, _SPAM_BURST))
        if budget.try_take(told.at_s):
            last = _stamp(epoch + timedelta(seconds=told.at_s))
            yield order, told.at_s, {**event, "count": counts[key], "lastTimestamp": last}


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _about(pod: PodTrace) -> dict[str, str]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": pod.request.namespace,
        "name": pod.request.name,
        "uid": _uid(pod),
    }


def _named(pod: PodTrace, order: int, at: datetime) -> dict[str, str]:
    """As client-go names an event: the object and the nanosecond, each event its own."""
    nanoseconds = round(at.timestamp() * 1e6) * 1000 + order + 1
    name = f"{pod.request.name}.{nanoseconds:x}"
    return {"namespace": pod.request.namespace, "name": name, "creationTimestamp": _stamp(at)}


def _event(pod: PodTrace, order: int, told: _Told, epoch: datetime) -> dict[str, Any]:
    at = epoch + timedelta(seconds=told.at_s)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "type": told.type,
        "reason": told.reason,
        "message": told.message,
        "count": 1,
        "eventTime": None,
        "firstTimestamp": _stamp(at),
        "lastTimestamp": _stamp(at),
        "involvedObject": {**_about(pod), "fieldPath": f"spec.containers{{{CONTAINER}}}"},
        "metadata": _named(pod, order, at),
        "reportingComponent": pulls.SIMULATED_COMPONENT,
        "reportingInstance": pod.node or "",
        "source": {"component": pulls.SIMULATED_COMPONENT, "host": pod.node or ""},
    }


def _scheduled(pod: PodTrace, epoch: datetime) -> dict[str, Any]:
    """The scheduler speaks the newer events API: microseconds, and no count."""
    at = epoch + timedelta(seconds=pod.scheduled_s or 0.0)
    request = pod.request
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "type": "Normal",
        "reason": "Scheduled",
        "action": "Binding",
        "message": f"Successfully assigned {request.namespace}/{request.name} to {pod.node}",
        "eventTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "firstTimestamp": None,
        "lastTimestamp": None,
        "involvedObject": _about(pod),
        "metadata": _named(pod, -1, at),
        "reportingComponent": "default-scheduler-simulated",
        "reportingInstance": "default-scheduler-simulated",
        "source": {"component": "default-scheduler-simulated"},
    }
