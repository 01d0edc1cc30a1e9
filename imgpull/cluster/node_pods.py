"""A pod of ours on each of some nodes, for as long as it takes: one DaemonSet.

Hides how such pods come and go, and every way they can fail to come: an admission that refuses
them, an image that cannot be pulled, a node that does not answer. Whatever happens between, the
DaemonSet and its pods are gone when `placed` ends.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from imgpull import pulls
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.nodes import node_facts
from imgpull.cluster.ownership import (
    MEASURED_SELECTOR,
    SYSTEM_NAMESPACE,
    Owner,
    ensure_system_namespace,
)
from imgpull.config import schema
from imgpull.config.job import MEASURED_LABEL
from imgpull.errors import EngineFailed, EngineUnavailable, ImgpullError

T = TypeVar("T")
Say = Callable[[str], None]

_DAEMON_SETS = f"/apis/apps/v1/namespaces/{SYSTEM_NAMESPACE}/daemonsets"
_PODS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"
_EVENTS = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/events"
NAME_LABEL = "imgpull.dev/node-pods"
_GONE_S = 90.0
_LOOK_S = 30.0  # how often the nodes that did not answer are looked at
_REFUSED_AFTER_S = 2.0  # the controller tells of a refusal in an event, about a second later
# A pull that failed for one of these will fail again; others may pass.
_HOPELESS = frozenset({"auth", "not_found", "tls"})
_NO_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NO_PRIVILEGE = (
    f"let privileged pods into namespace {SYSTEM_NAMESPACE} (an exemption of your policy), or use "
    "cache=salted, which needs none"
)


@dataclass(frozen=True)
class NodePods:
    """The pods of one DaemonSet."""

    kube: Kube
    name: str

    @property
    def path(self) -> str:
        return f"{_DAEMON_SETS}/{self.name}"

    def pods(self) -> list[Object]:
        """Those that there are."""
        return list(self.kube.items(_PODS, labelSelector=f"{NAME_LABEL}={self.name}"))

    def wait(
        self,
        nodes: Sequence[str],
        answer: Callable[[Object], T | None],
        limit_s: float,
        say: Callable[[int], None],
    ) -> dict[str, T]:
        """What each node's pod answers, asked until it is not None; `say` hears how many have.

        EngineUnavailable when they are refused or their image cannot be pulled; EngineFailed names
        the nodes that did not answer in time, and why.
        """
        answers: dict[str, T] = {}
        reasons: dict[str, str] = {}
        started, pause_s, look_at_s = time.monotonic(), 0.05, _LOOK_S
        while True:
            for pod in self.pods():
                node = (pod.get("spec") or {}).get("nodeName") or ""
                if node not in nodes or node in answers:
                    continue
                if (found := answer(pod)) is not None:
                    answers[node] = found
                reasons[node] = _why_waiting(pod)
            say(len(answers))
            waited_s = time.monotonic() - started
            missing = [node for node in nodes if node not in answers]
            if not missing:
                return answers
            if waited_s > _REFUSED_AFTER_S and any(node not in reasons for node in missing):
                self._require_admitted()
            if waited_s > look_at_s:
                self._require_ready(missing)
                look_at_s = waited_s + _LOOK_S
            if waited_s > limit_s:
                node = missing[0]
                raise EngineFailed(
                    f"{len(missing)} of {len(nodes)} nodes did not answer in {limit_s:.0f} s: "
                    f"{node}: {reasons.get(node, 'no pod was made for it')}",
                    hint=f"kubectl describe node {node}: is it Ready, has it label "
                    f"{MEASURED_SELECTOR}, are its taints among cluster.tolerations?",
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5 + len(nodes) / 200)  # a thousand pods are 10 MB to list

    def _require_admitted(self) -> None:
        """EngineUnavailable when the controller may not make the pods."""
        selector = f"involvedObject.name={self.name},reason=FailedCreate"
        for event in self.kube.items(_EVENTS, fieldSelector=selector):
            raise EngineUnavailable(
                f"the cluster refuses pods of ours on its nodes: {event.get('message')}",
                hint=_NO_PRIVILEGE,
            )

    def _require_ready(self, missing: Sequence[str]) -> None:
        """EngineFailed when a node that did not answer is lost: it will not answer."""
        ready = {node.name for node in node_facts(self.kube) if node.ready}
        if lost := [name for name in missing if name not in ready]:
            raise EngineFailed(
                f"node {lost[0]} is gone or not Ready, and {len(missing)} nodes did not answer",
                hint=f"kubectl describe node {lost[0]}; then the same command again",
            )

    def remove(self, limit_s: float = _GONE_S) -> None:
        """Delete them and see that they are gone; EngineFailed when they stay."""
        until, pause_s = time.monotonic() + limit_s, 0.05
        while True:
            there = self.kube.delete(self.path, propagation="Foreground")
            left = self.pods()
            if not there and not left:
                return
            if time.monotonic() > until:
                names = ", ".join(pod["metadata"]["name"] for pod in left[:3])
                raise EngineFailed(
                    f"DaemonSet {self.name} is still there after {limit_s:.0f} s, with "
                    f"{len(left)} pods: {names}",
                    hint=f"kubectl -n {SYSTEM_NAMESPACE} delete daemonset {self.name}",
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5 + len(left) / 200)


@contextlib.contextmanager
def placed(
    kube: Kube,
    name: str,
    owner: Owner,
    pod_spec: Mapping[str, Any],
    tolerations: Sequence[schema.Toleration],
) -> Iterator[NodePods]:
    """Such pods on all measured nodes, gone at the end, checked; an older set of the name first.

    EngineUnavailable when the cluster refuses them.
    """
    ensure_system_namespace(kube)
    placed_pods = NodePods(kube, name)
    placed_pods.remove()
    try:
        try:
            kube.create(_DAEMON_SETS, _daemon_set(name, owner, pod_spec, tolerations))
        except ApiError as error:
            if error.status == 403 and ("denied" in error.message or "Security" in error.message):
                raise EngineUnavailable(
                    f"the cluster refuses pods of ours on its nodes: {error.message}",
                    hint=_NO_PRIVILEGE,
                ) from error
            raise
        yield placed_pods
    except BaseException:
        with contextlib.suppress(ImgpullError):  # the first error counts; the janitor finds it
            placed_pods.remove()
        raise
    placed_pods.remove()


def _daemon_set(
    name: str, owner: Owner, pod_spec: Mapping[str, Any], tolerations: Sequence[schema.Toleration]
) -> Object:
    labels = {**owner.labels(), NAME_LABEL: name}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {NAME_LABEL: name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {MEASURED_LABEL: "true"},
                    "tolerations": [asdict(each) for each in tolerations],
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "hostNetwork": True,  # no pod address, no CNI call
                    "terminationGracePeriodSeconds": 1,
                    **pod_spec,
                },
            },
        },
    }


def require_pulled(status: Mapping[str, Any], what: str, fix: str) -> None:
    """EngineUnavailable when a container's image was refused for a cause that will not pass."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason") or "", waiting.get("message") or ""
    cause = pulls.classify_failure(message, status.get("image") or "")
    if reason in ("InvalidImageName", "ErrImageNeverPull") or (
        reason in _NO_PULL and cause in _HOPELESS
    ):
        raise EngineUnavailable(f"{what} cannot be pulled: {message or reason}", hint=fix)


def _why_waiting(pod: Object) -> str:
    status = pod.get("status") or {}
    for each in (*(status.get("initContainerStatuses") or ()),
                 *(status.get("containerStatuses") or ())):  # fmt: skip
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing"):
            return f"{waiting['reason']} {waiting.get('message') or ''}".strip()
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason"))
    return f"its pod is {status.get('phase') or 'not seen by the node yet'}"
