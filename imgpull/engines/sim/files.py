"""The files that a simulated trial leaves besides CL2's report: events, pods and series.

Hides how Kubernetes shapes an Event and stamps it (whole seconds). Every event names its component
`kubelet-simulated`, so that no simulated pull can pass for a seen one.
"""

import csv
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from imgpull import exporters, pulls
from imgpull.simcluster import PodTrace, Segment, Trace, World

POD_COLUMNS = (
    "namespace", "pod", "node", "created", "scheduled", "sandbox", "pulling", "pulled", "started",
    "ready",
)  # fmt: skip
SERIES_COLUMNS = (
    "at_s", "node", "receive_bytes_per_s", "write_bytes_per_s", "containerd_cpu_cores",
)  # fmt: skip
_POINTS_A_NODE = 200

# Names as Kubernetes makes them: no vowels, no look-alikes (apimachinery pkg/util/rand).
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def pod_name(deployment: str, index: int, world: World) -> str:
    """Deployment, ReplicaSet hash and suffix, the same in every cell of a trial."""
    draw = random.Random(f"{world.seed}/{world.trial}/pod name/{index}")
    suffix = "".join(draw.choice(_ALPHABET) for _ in range(5))
    replica_set = random.Random(f"{world.seed}/{world.trial}/replica set/{deployment}")
    return f"{deployment}-{''.join(replica_set.choice(_ALPHABET) for _ in range(10))}-{suffix}"


def write_pods(path: Path, trace: Trace) -> None:
    """A pod a row; seconds since the trial began, empty where it never came to that."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(POD_COLUMNS)
        for pod in trace.pods:
            times = (
                pod.created_s, pod.scheduled_s, pod.sandbox_s,
                pod.attempts[0].asked_s if pod.attempts else None, pod.pulled_s,
                pod.started_s, pod.ready_s,
            )  # fmt: skip
            out.writerow(
                (pod.request.namespace, pod.request.name, pod.node or "", *map(_seconds, times))
            )


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def write_series(path: Path, trace: Trace) -> None:
    """Mean receive and write rates and CPU since the node's row before; the first is idle."""
    ends = [node.segments[-1].end_s for node in trace.nodes.values() if node.segments]
    width_s = max(1.0, max(ends, default=0.0) / (_POINTS_A_NODE - 2))
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(SERIES_COLUMNS)
        for node in sorted(trace.nodes):
            sums: dict[int, list[float]] = {}
            for segment in trace.nodes[node].segments:
                for index, seconds in _bins(segment, width_s):
                    row = sums.setdefault(index, [0.0, 0.0, 0.0])
                    row[0] += segment.receive_bytes_s * seconds
                    row[1] += segment.write_bytes_s * seconds
                    row[2] += segment.cpu_cores * seconds
            for index in range(min(sums) - 1, max(sums) + 1) if sums else ():
                receive, write, cpu = (total / width_s for total in sums.get(index, (0, 0, 0)))
                at_s = (index + 1) * width_s
                out.writerow((f"{at_s:.3f}", node, f"{receive:.0f}", f"{write:.0f}", f"{cpu:.4f}"))


def _bins(segment: Segment, width_s: float) -> Iterator[tuple[int, float]]:
    """(interval, seconds of the segment in it)."""
    index = int(segment.begin_s // width_s)
    begin_s = segment.begin_s
    while begin_s < segment.end_s:
        end_s = min(segment.end_s, (index + 1) * width_s)
        yield index, end_s - begin_s
        begin_s, index = end_s, index + 1


def write_events(path: Path, world: World, trace: Trace, epoch: datetime) -> None:
    """A Kubernetes event a line, in the order of time, as a recorder would have seen them."""
    version = exporters.version_tuple(world.kubelet.version)
    rows = sorted(
        (at_s, pod.request.index, order, reason, message, pod)
        for pod in trace.pods
        for order, (at_s, reason, message) in enumerate(
            _told(pod, world.image_bytes(pod.request.image), version)
        )
    )  # fmt: skip
    with path.open("w", encoding="utf-8") as file:
        for at_s, _, order, reason, message, pod in rows:
            event = _event(pod, order, epoch + timedelta(seconds=at_s), reason, message)
            file.write(json.dumps(event) + "\n")


def _told(
    pod: PodTrace, image_bytes: int, version: tuple[int, ...]
) -> Iterator[tuple[float, str, str]]:
    """(when, reason, message) of one pod's events, in kubelet's order."""
    request = pod.request
    if pod.scheduled_s is not None:
        yield (
            pod.scheduled_s,
            "Scheduled",
            f"Successfully assigned {request.namespace}/{request.name} to {pod.node}",
        )
    for attempt in pod.attempts:
        yield attempt.asked_s, "Pulling", pulls.pulling_message(request.image)
        if attempt.ended_s is None:
            continue
        if attempt.error:
            # A kubelet 1.36 was seen to write all four within one second.
            yield attempt.ended_s, "Failed", pulls.failed_message(request.image, attempt.error)
            yield attempt.ended_s, "Failed", "Error: ErrImagePull"
            yield attempt.ended_s, "BackOff", pulls.back_off_message(request.image)
            yield attempt.ended_s, "Failed", "Error: ImagePullBackOff"
        else:
            pull_s = attempt.ended_s - (attempt.began_s or attempt.asked_s)
            total_s = attempt.ended_s - attempt.asked_s
            message = pulls.pulled_message(request.image, pull_s, total_s, image_bytes)
            yield attempt.ended_s, "Pulled", message
    if pod.present_s is not None:
        yield pod.present_s, "Pulled", pulls.present_message(request.image, version)
    if pod.container_s is not None:
        yield pod.container_s, "Created", "Container created"
    if pod.started_s is not None:
        yield pod.started_s, "Started", "Container started"


def _event(pod: PodTrace, order: int, at: datetime, reason: str, message: str) -> dict[str, Any]:
    request = pod.request
    stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    involved = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": request.namespace,
        "name": request.name,
        "uid": f"simulated-{request.index}",
    }
    component = "default-scheduler-simulated"
    if reason != "Scheduled":
        involved["fieldPath"] = "spec.containers{image}"
        component = pulls.SIMULATED_COMPONENT
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "type": "Warning" if reason == "Failed" else "Normal",
        "reason": reason,
        "message": message,
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "involvedObject": involved,
        "metadata": {"namespace": request.namespace, "name": f"{request.name}.{order:x}"},
        "reportingComponent": component,
        "source": {"component": component, "host": pod.node or ""},
    }
