"""The pod in which ClusterLoader2 runs: waited for, followed to its end, its report had back.

Hides what can keep a pod from running, or end it early, and how a report gets out of it.
"""

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.node_pods import require_pulled
from imgpull.cluster.ownership import SYSTEM_NAMESPACE, object_path
from imgpull.engines import jobspec
from imgpull.engines.door import Say
from imgpull.engines.following import Follower
from imgpull.engines.jobspec import CL2, REPORT
from imgpull.engines.podlog import LogReader
from imgpull.engines.running import silent
from imgpull.errors import EngineFailed, EngineUnavailable

PODS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"
_EVENTS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/events"
_POLL_S = 0.2
_SLICE_S = 60.0  # for one slice of the report
_TRIES = 3
_REST_S = 60.0  # for the last lines, when CL2 has ended
_NO_POD_S = 15.0  # the controller tells of a refusal within seconds
_NO_PLACE_S = 120.0  # an autoscaler may bring a node
_UNREADABLE_S = 300.0  # an API server that is gone for longer takes the trial with it


def pods_of(kube: Kube, job: str) -> list[Object]:
    """The pods of a Job."""
    return list(kube.items(PODS, labelSelector=f"job-name={job}"))


class JobPod:
    """The pod of one Job, from its making to the end of CL2 in it."""

    def __init__(self, kube: Kube, job: str, pod: jobspec.Pod, limit_s: float) -> None:
        self._kube, self._job, self._spec = kube, job, pod
        self._begun = time.monotonic()
        self._until = self._begun + limit_s
        self._pod: Object = {}
        self.timed_out = False

    def wall_s(self) -> float:
        """Since the Job was made."""
        return time.monotonic() - self._begun

    def digest(self) -> str:
        """Of the image that runs, as the node knows it."""
        image_id = str(_status(self._pod, CL2).get("imageID") or "")
        return image_id.rpartition("@")[2] if "sha256:" in image_id else ""

    def to_its_end(self, follower: Follower, say: Say) -> int | None:
        """CL2's exit code, all it printed followed; None when it was stopped or lost."""
        for line in self._lines(say):
            follower.feed(line + b"\n")
        ended = self._ended()
        if ended is None:
            return None
        if ended.get("reason") not in (None, "Error", "Completed"):
            follower.note(f"the container ended: {ended['reason']} {ended.get('message') or ''}")
        code = ended.get("exitCode")
        return code if isinstance(code, int) else None

    def printed(self) -> Iterator[bytes]:
        """All that is printed; EngineFailed when that takes too long."""
        yield from self._lines(silent)
        if self.timed_out:
            raise EngineFailed(
                f"{self._spec.image} did not answer in the cluster: {_why_waiting(self._pod)}",
                hint=f"kubectl -n {SYSTEM_NAMESPACE} get pods,events",
            )

    def _lines(self, say: Say) -> Iterator[bytes]:
        """The lines of CL2 until it has ended, or the limit."""
        if not self._wait_for_start(say):
            return
        reader = LogReader(self._kube, self._path(), CL2)
        while True:
            for line in reader.follow(self._left_s()):
                yield line
                if self._left_s() <= 0:
                    break
            if self._left_s() <= 0:
                self.timed_out = True
                return
            if reader.failed_s > _UNREADABLE_S:
                raise EngineFailed(
                    f"the log of {self._path()} cannot be read for {_UNREADABLE_S:.0f} s",
                    hint="kubectl version: does the API server answer?",
                )
            if self._look() and self._ended() is not None:
                yield from reader.rest(_REST_S)
                return
            time.sleep(_POLL_S)

    def _wait_for_start(self, say: Say) -> bool:
        """Until all its containers have started; False at the limit.

        EngineUnavailable when they never will.
        """
        told = ""
        while not self._look() or not self._has_started():
            if self._left_s() <= 0:
                self.timed_out = True
                return False
            why = self._require_hope()
            if why != told:
                told = why
                say(f"the Job's pod waits: {why}")
            time.sleep(_POLL_S)
        return True

    def _has_started(self) -> bool:
        names = [CL2] if self._spec.helper_image is None else [CL2, REPORT]
        states = [_status(self._pod, name).get("state") or {} for name in names]
        return all("running" in state or "terminated" in state for state in states)

    def _require_hope(self) -> str:
        """Why the pod does not run yet; EngineUnavailable when that will not pass."""
        if not self._pod:
            return self._require_pod()
        fix = "imgpull cluster attach-acr, or mirror it: engine.image=…, cluster.helper_image=…"
        require_pulled(_status(self._pod, CL2), f"engine.image={self._spec.image}", fix)
        require_pulled(
            _status(self._pod, REPORT), f"cluster.helper_image={self._spec.helper_image}", fix
        )
        phase = (self._pod.get("status") or {}).get("phase")
        why = _why_waiting(self._pod)
        unplaced = _unschedulable(self._pod)
        if phase == "Failed" or (unplaced and self.wall_s() > _NO_PLACE_S):
            raise EngineUnavailable(
                f"the pod of CL2 cannot run: {why}",
                hint="cluster.prometheus_node_selector must select a node with room for it, whose "
                "taints Prometheus tolerates (monitoring, control-plane)",
            )
        return why

    def _require_pod(self) -> str:
        if self.wall_s() > _NO_POD_S:
            selector = f"involvedObject.name={self._job},reason=FailedCreate"
            for event in self._kube.items(_EVENTS, fieldSelector=selector):
                raise EngineUnavailable(
                    f"the cluster refuses the pod of CL2: {event.get('message')}",
                    hint=f"let it into namespace {SYSTEM_NAMESPACE}, or use engine=binary",
                )
        return "no pod yet"

    def _look(self) -> bool:
        """See the pod as it is; False when there is none yet, or nobody answers.

        EngineFailed when it was there and is gone.
        """
        try:
            pods = pods_of(self._kube, self._job)
        except ApiError as error:
            if error.status in (401, 403):
                raise
            return False
        if not pods and self._pod:
            raise EngineFailed(
                f"the pod of CL2 was deleted while it ran: {self._path()}",
                hint="a node that was drained or lost, or somebody's hand: kubectl get events -n "
                f"{SYSTEM_NAMESPACE}",
            )
        self._pod = pods[0] if pods else {}
        return bool(pods)

    def _ended(self) -> Mapping[str, Any] | None:
        """How CL2's container ended, if it did; EngineFailed when its pod was taken away."""
        status = self._pod.get("status") or {}
        if status.get("phase") == "Failed" and status.get("reason"):
            raise EngineFailed(
                f"the pod of CL2 failed: {status['reason']} {status.get('message') or ''}".rstrip(),
                hint="a node short of memory or disk evicts: cluster.prometheus_node_selector",
            )
        state = _status(self._pod, CL2).get("state") or {}
        found: Mapping[str, Any] | None = state.get("terminated")
        return found

    def report(self) -> bytes:
        """The report directory as a tar, slice by slice, each compared with its checksum."""
        data = bytearray()
        number, total = 0, 1
        while len(data) < total:
            piece, total = self._slice(number)
            data += piece
            number += 1
        return bytes(data)

    def _slice(self, number: int) -> tuple[bytes, int]:
        for attempt in range(1, _TRIES + 1):
            asked = f"{number}-{attempt}"
            annotation = {"metadata": {"annotations": {jobspec.ASKED: asked}}}
            self._kube.patch(self._path(), annotation)
            until = time.monotonic() + _SLICE_S
            while not self._has_told(asked) and time.monotonic() < until:
                time.sleep(_POLL_S)
            if found := slice_of(self._told(), asked):
                return found
        raise EngineFailed(
            f"the report of CL2 did not come back from {self._path()}",
            hint=f"cluster.helper_image={self._spec.helper_image} needs sh, sed, tar, gzip, dd, "
            "base64, sha256sum, cut and wc",
        )

    def _has_told(self, asked: str) -> bool:
        last = self._kube.text(f"{self._path()}/log", container=REPORT, tailLines=1)
        return last.startswith(f"end {asked} ")

    def _told(self) -> str:
        """What the second container printed last, a slice at least."""
        lines = 3 + 2 * jobspec.SLICE_BYTES // 57  # 57 bytes are a line of base64
        log = f"{self._path()}/log"
        return self._kube.text(log, container=REPORT, tailLines=lines, timeout_s=_SLICE_S)

    def _path(self) -> str:
        return object_path(PODS, self._pod)

    def _left_s(self) -> float:
        return self._until - time.monotonic()


def slice_of(log: str, asked: str) -> tuple[bytes, int] | None:
    """The slice that a log holds for what was asked, and the size of the whole.

    None when it is not there as it was sent: logs rotate, and what is read may be cut.
    """
    _, begin, rest = log.rpartition(f"begin {asked}\n")
    body, end, told = rest.partition(f"end {asked} ")
    words = told.split()
    if not begin or not end or len(words) < 2:
        return None
    try:
        data, total = base64.b64decode("".join(body.split()), validate=True), int(words[1])
    except ValueError:
        return None
    return (data, total) if data and hashlib.sha256(data).hexdigest() == words[0] else None


def _status(pod: Object, container: str) -> Mapping[str, Any]:
    found = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((each for each in found if each.get("name") == container), {})


def _unschedulable(pod: Object) -> bool:
    return any(
        each.get("type") == "PodScheduled" and each.get("status") == "False"
        for each in (pod.get("status") or {}).get("conditions") or ()
    )


def _why_waiting(pod: Object) -> str:
    """In the words of whoever lets it wait."""
    status = pod.get("status") or {}
    for each in status.get("containerStatuses") or ():
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason"):
            return f"{waiting['reason']} {waiting.get('message') or ''}".strip()
    for each in status.get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return str(each.get("message") or each.get("reason") or "it has no node")
    return str(status.get("message") or status.get("phase") or "no node has seen it")
