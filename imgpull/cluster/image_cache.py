"""What measured nodes hold of the image: removed, brought or only looked at, and proven.

Hides node.sh, which does and sees it with each node's own crictl and ctr, and what its words mean
for the next pull. It runs in an init container: once, and its words come with the pod as a
termination message (4096 bytes), not through a log, which needs a way from the API server to
every kubelet. Proof is containerd's own list of snapshots by chain ID, since a next pull skips
just those, and the blobs on disk; never the node's status.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgpull.cluster import node_words, registry
from imgpull.cluster.kube import Kube, Object
from imgpull.cluster.node_pods import NodePods, placed, require_pulled
from imgpull.cluster.node_words import OTHERWISE, Words
from imgpull.cluster.node_words import NodeCache as NodeCache
from imgpull.cluster.ownership import (
    SYSTEM_NAMESPACE,
    Owner,
    copy_secret,
    ensure_system_namespace,
)
from imgpull.cluster.registry import ImageInfo
from imgpull.cluster.registry_login import secret_logins
from imgpull.config.job import Job
from imgpull.errors import EngineFailed, EngineUnavailable, ImgpullError

Say = Callable[[str], None]

# References that this machine cannot read: half a minute each to find out, so asked once.
_UNREADABLE: set[str] = set()

SCRIPT = Path(__file__).with_name("node.sh")
# kubelet removes dead containers of a pod that has gone within a minute (its containerGC period).
_USED_S = 150.0
# A layer that is fetched or unpacked grows all the time; a registry that throttles makes pauses.
_STILL_S = 30.0
_KILLED = (137, 143)  # exit codes after KILL and TERM
_START_S = 180.0  # for pods of ours to come up, and the script to end


def purge(
    kube: Kube, job: Job, nodes: Sequence[str], owner: Owner, *, limit_s: float, say: Say
) -> dict[str, NodeCache]:
    """Remove the image from the nodes, and drop their page cache; what each still holds.

    Waits for containers of the image, exited ones too, and for pulls under way; EngineFailed names
    what uses it at the limit, or a node that did not answer; EngineUnavailable where it cannot be
    done at all.
    """
    told, known = _run(kube, job, nodes, owner, "purge", limit_s, say)
    for node, words in told.items():
        node_words.require_removed(node, words)
    return {node: node_words.after_purge(node, words, known) for node, words in told.items()}


def look(
    kube: Kube, job: Job, nodes: Sequence[str], owner: Owner, *, limit_s: float, say: Say
) -> dict[str, NodeCache]:
    """What each node holds of the image, nothing changed. Raises as `purge`."""
    told, known = _run(kube, job, nodes, owner, "look", limit_s, say)
    return {node: node_words.seen(node, words, known) for node, words in told.items()}


def warm(
    kube: Kube, job: Job, nodes: Sequence[str], owner: Owner, *, limit_s: float, say: Say
) -> dict[str, NodeCache]:
    """Have each node's kubelet pull the image, with its pull secret; what each holds then.

    EngineUnavailable when it cannot be pulled, EngineFailed names a node that did not in time.
    """
    image = job.image
    container: Object = {
        "name": "image",
        "image": image.pinned_reference,
        "imagePullPolicy": "IfNotPresent",
        **({"command": list(image.command)} if image.command else {}),
        **({"args": list(image.args)} if image.args else {}),
    }
    spec = {"containers": [container]} | _pull_secrets(image.pull_secret)

    def pulled(pod: Object) -> bool | None:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            require_pulled(
                status, f"the image {image.pinned_reference}",
                "check image.reference and image.pull_secret: imgpull doctor",
            )  # fmt: skip
            # Whatever came of its container: only a pulled image has an ID.
            if status.get("imageID") or _has_begun(status):
                return True
        return None

    with (
        _copied_secret(kube, image.pull_secret, owner),
        placed(kube, _name("warm", owner), owner, spec, job.cluster.tolerations) as pods,
    ):
        pods.wait(
            nodes, pulled, limit_s,
            lambda done: say(f"bringing the image: {done} of {len(nodes)} nodes have it"),
        )  # fmt: skip
    return look(kube, job, nodes, owner, limit_s=limit_s, say=say)


def _pull_secrets(name: str | None) -> Object:
    return {"imagePullSecrets": [{"name": name}] if name else []}


@contextmanager
def _copied_secret(kube: Kube, name: str | None, owner: Owner) -> Iterator[None]:
    """The pull secret beside our pods, for as long as they pull."""
    if name is None:
        yield
        return
    ensure_system_namespace(kube)
    try:
        copy_secret(kube, name, SYSTEM_NAMESPACE, owner)
        yield
    finally:
        kube.delete(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/secrets/{name}")


def _has_begun(status: Mapping[str, Any]) -> bool:
    states = (status.get("state") or {}), (status.get("lastState") or {})
    waiting = (states[0].get("waiting") or {}).get("reason") or ""
    return (
        any("running" in state or "terminated" in state for state in states)
        # What a container can only fail with once its image is there.
        or waiting in ("CreateContainerError", "RunContainerError", "CrashLoopBackOff")
    )


def _run(
    kube: Kube, job: Job, nodes: Sequence[str], owner: Owner, action: str, limit_s: float, say: Say
) -> tuple[dict[str, Words], ImageInfo | None]:
    known = _layer_table(kube, job)
    waiting_s = limit_s - min(_START_S, limit_s / 2)
    script = {
        "ACTION": action,
        "IMAGES": " ".join(_names_of(job, known)),
        "LAYERS": " ".join(f"{x.digest}={x.diff_id}" for x in known.layers) if known else "",
        "USED_S": str(round(min(waiting_s, _USED_S))),
        "LIMIT_S": str(round(waiting_s)),
        "STILL_S": str(round(_STILL_S)),
    }
    doing = {"purge": "removing the image", "look": "looking for the image"}[action]
    secret = job.image.pull_secret  # a mirror of the helper image may ask for it too
    spec = _script_spec(job.cluster.helper_image, script) | _pull_secrets(secret)
    with (
        _copied_secret(kube, secret, owner),
        placed(kube, _name(action, owner), owner, spec, job.cluster.tolerations) as pods,
    ):
        told = _answers(pods, job, nodes, limit_s, lambda done: say(
            f"{doing}: {done} of {len(nodes)} nodes done"))  # fmt: skip
    for node, words in told.items():
        node_words.require_able(node, words)
    return told, known


def _names_of(job: Job, known: ImageInfo | None) -> list[str]:
    """All that a node may know the image by: under another name it is as warm."""
    image = job.image
    names = [image.pinned_reference, image.reference]
    if known:
        names.append(known.config_digest)
    return list(dict.fromkeys(names))


def _name(action: str, owner: Owner) -> str:
    return f"{action}-{owner.prefix()}"


def _layer_table(kube: Kube, job: Job) -> ImageInfo | None:
    """The image's layers as its registry has them, or None where this machine cannot ask it."""
    image = job.image
    if image.pinned_reference in _UNREADABLE:
        return None
    try:
        logins = None
        if image.pull_secret:
            # Where a user keeps it; from there it is copied into the test's namespaces.
            logins = secret_logins(kube, "default", image.pull_secret)
        return registry.inspect(image.pinned_reference, image.platform, logins)
    except ImgpullError:
        _UNREADABLE.add(image.pinned_reference)
        return None


def _script_spec(helper_image: str, script: Mapping[str, str]) -> Object:
    """Pods that run the script as root of their node, then stay, so that it runs once."""
    privileged = {"privileged": True, "runAsUser": 0}
    return {
        "initContainers": [
            {
                "name": "node",
                "image": helper_image,
                "imagePullPolicy": "IfNotPresent",
                "command": [
                    "sh", "-c",
                    'chroot /host /bin/sh -c "$SCRIPT" > /dev/termination-log 2>&1',
                ],
                "env": [
                    {"name": name, "value": value}
                    for name, value in {**script, "SCRIPT": SCRIPT.read_text()}.items()
                ],
                "securityContext": privileged,
                "volumeMounts": [{"name": "host", "mountPath": "/host"}],
            }
        ],
        "containers": [
            {
                "name": "done",
                "image": helper_image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
            }
        ],
        "volumes": [{"name": "host", "hostPath": {"path": "/", "type": "Directory"}}],
    }  # fmt: skip


def _answers(
    pods: NodePods, job: Job, nodes: Sequence[str], limit_s: float, say: Callable[[int], None]
) -> dict[str, Words]:
    helper = job.cluster.helper_image

    def answer(pod: Object) -> Words | None:
        for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
            require_pulled(
                status, f"cluster.helper_image {helper}",
                "mirror it where nodes can pull it, and set cluster.helper_image=…; or use "
                "cache=salted",
            )  # fmt: skip
            ended = (status.get("state") or {}).get("terminated") or {}
            failed = (status.get("lastState") or {}).get("terminated") or {}
            if ended and not ended.get("exitCode"):
                return Words.of(pod["spec"]["nodeName"], ended.get("message") or "")
            if failed or ended:
                _raise_failed(pod, helper, ended or failed)
        return None

    return pods.wait(nodes, answer, limit_s, say)


def _raise_failed(pod: Object, helper: str, ended: Mapping[str, Any]) -> None:
    node, code = pod["spec"]["nodeName"], ended.get("exitCode")
    if code in _KILLED:
        raise EngineFailed(
            f"node {node}: the script was killed ({code}) before it ended",
            hint="run it again; if it is killed again, kubectl describe node shows memory pressure",
        )
    said = (ended.get("message") or ended.get("reason") or "nothing").strip()
    raise EngineUnavailable(
        f"node {node}: the script of cluster.helper_image {helper} ended with {code}: "
        f"{said[-300:]}",
        hint=f"cluster.helper_image needs sh and chroot, the node /bin/sh; else {OTHERWISE}",
    )
