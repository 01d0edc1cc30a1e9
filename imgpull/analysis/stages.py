"""Where a trial's pods spent their time between being asked for and running.

Hides which stage a second belongs to. What a pod waits for its own image's leader is that leader's
pull, whether kubelet or containerd makes it wait; kubelet's queue is only what remains.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from imgpull.analysis.limits import Limits
from imgpull.pulls import Pull
from imgpull.tables import PodRow

_THROTTLED = ("throttled", "qps_exceeded")
# Times of creation that a real API tells are cut to whole seconds.
_CUT_S = 1.0

Window = tuple[float, float]


@dataclass
class Stages:
    """Seconds of all pods of a trial together, by stage."""

    total_s: float = 0.0  # from being asked for to running, or to the end of the wait
    control_plane_s: float = 0.0  # asked -> created (beyond the asked rate) -> bound to a node
    throttled_s: float = 0.0  # back-off after a refusal by rate
    kubelet_queue_s: float = 0.0  # kubelet's turn, while no pull of its own image went on
    pull_s: float = 0.0  # the image's leader at work
    refusals: dict[str, int] = field(default_factory=dict)  # kind -> pulls
    pulling: dict[str, list[Window]] = field(default_factory=dict)  # node -> leaders at work
    pull_s_of: dict[str, float] = field(default_factory=dict)  # node -> its part of pull_s
    images: int = 1  # different images that one node pulled at most


def stages(pods: Sequence[PodRow], pulls: Sequence[Pull], limits: Limits, *, real: bool) -> Stages:
    """Divide the time of all pods; without pods.csv there is only the pulls' own."""
    found = Stages()
    by_pod = {(pod.namespace, pod.pod): pod for pod in pods}
    end_s = max((time for pod in pods for time in _times(pod)), default=0.0)
    windows = _leaders(pulls, by_pod, end_s)
    for (node, _), window in windows.items():
        found.pulling.setdefault(node, []).append(window)
    found.images = max((len(own) for own in found.pulling.values()), default=1)
    for pod, late_s in zip(pods, _late(pods, limits, real=real), strict=True):
        _count_pod(found, pod, late_s, end_s)
    for pull in pulls:
        _count_pull(found, pull, by_pod.get((pull.namespace, pull.pod)), windows, end_s)
    if not pods:
        found.total_s = found.pull_s + found.throttled_s + found.kubelet_queue_s
    return found


def _times(pod: PodRow) -> Iterable[float]:
    every = (pod.created, pod.scheduled, pod.sandbox, pod.pulling, pod.pulled, pod.started)
    return [time for time in every if time is not None]


def _late(pods: Sequence[PodRow], limits: Limits, *, real: bool) -> list[float]:
    """Seconds that each pod was created later than the asked rate would have it."""
    if limits.qps is None:
        return [0.0] * len(pods)
    born = sorted((pod.created, at) for at, pod in enumerate(pods) if pod.created is not None)
    late = [0.0] * len(pods)
    for rank, (created_s, at) in enumerate(born):
        due_s = born[0][0] + rank // limits.replicas / limits.qps
        late[at] = max(0.0, created_s - due_s - (_CUT_S if real else 0.0))
    return late


def _count_pod(found: Stages, pod: PodRow, late_s: float, end_s: float) -> None:
    if pod.created is None:
        return
    running_s = end_s if pod.started is None else pod.started
    bound_s = end_s if pod.scheduled is None else pod.scheduled
    found.control_plane_s += late_s + max(0.0, bound_s - pod.created)
    found.total_s += late_s + max(0.0, running_s - pod.created)


def _span(pull: Pull, pod: PodRow | None, end_s: float) -> Window | None:
    """From the first Pulling event to the image, or to the end of what was seen."""
    asked_s = pull.requested_at
    if asked_s is None:
        return None
    if pod is not None and pod.pulled is not None:
        return asked_s, max(asked_s, pod.pulled)
    if pull.pull_s is not None:
        return asked_s, asked_s + (pull.wait_s or 0.0) + pull.pull_s
    return asked_s, max(asked_s, end_s)


def _leaders(
    pulls: Sequence[Pull], pods: Mapping[tuple[str, str], PodRow], end_s: float
) -> dict[tuple[str, str], Window]:
    """(node, image) -> when its bytes came: the first leader's pull, without its queue."""
    found: dict[tuple[str, str], Window] = {}
    for pull in pulls:
        if not pull.leader or pull.node is None:
            continue
        span = _span(pull, pods.get((pull.namespace, pull.pod)), end_s)
        if span is None or (pull.pull_s is None and pull.failure in _THROTTLED):
            continue
        begun_s = span[0] if pull.pull_s is None else max(span[0], span[1] - pull.pull_s)
        key = pull.node, pull.image
        if key not in found or begun_s < found[key][0]:
            found[key] = begun_s, span[1]
    return found


def _count_pull(
    found: Stages,
    pull: Pull,
    pod: PodRow | None,
    windows: Mapping[tuple[str, str], Window],
    end_s: float,
) -> None:
    if pull.failure in _THROTTLED:
        found.refusals[pull.failure] = found.refusals.get(pull.failure, 0) + 1
    span = _span(pull, pod, end_s)
    if span is None or pull.outcome == "present":
        return
    spent_s, node = span[1] - span[0], pull.node or ""
    led = windows.get((node, pull.image), (math.inf, -math.inf))
    own_s = min(spent_s, max(0.0, min(span[1], led[1]) - max(span[0], led[0])))
    if pull.leader is None and not own_s:
        own_s = pull.pull_s or 0.0
    rest_s = spent_s - own_s
    if pull.failure in _THROTTLED:
        found.throttled_s += rest_s
    elif pull.wait_s is not None:
        found.kubelet_queue_s += min(rest_s, pull.wait_s)
    found.pull_s += own_s
    found.pull_s_of[node] = found.pull_s_of.get(node, 0.0) + own_s
