"""ClusterLoader2's Prometheus stack: whose it is, when it is made anew, and that it goes whole.

Hides what CL2 does to a cluster beside its tests: it takes namespace `monitoring` for its own,
makes what is not there (so what is there stays as it was), replaces StorageClass `ssd`, and at its
end removes that namespace and nothing else. Ours is the namespace that carries our annotation: we
make it before CL2 does. Source: perf-tests of August 2026, clusterloader2/pkg/prometheus.
ASSUMPTION: Azure's fork of it makes the same objects.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.monitors import additional_monitors as additional_monitors
from imgpull.cluster.prometheus_api import query as query
from imgpull.cluster.prometheus_api import query_range as query_range
from imgpull.cluster.prometheus_api import targets as targets
from imgpull.errors import EngineFailed, EngineUnavailable

NAMESPACE = "monitoring"
ANNOTATION = "imgpull.dev/prometheus"  # on what is ours: the hash of the settings it was made with
# On the namespace: what was there before CL2 came, and so is not ours to remove.
_KEPT = "imgpull.dev/prometheus-kept"

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
_RBAC = "/apis/rbac.authorization.k8s.io/v1/"
_SPACE = f"/api/v1/namespaces/{NAMESPACE}"
_STORAGE_CLASS = "/apis/storage.k8s.io/v1/storageclasses/ssd"
_OPERATOR_CRDS = tuple(
    f"{_CRDS}{plural}.monitoring.coreos.com"
    for plural in (
        "alertmanagerconfigs", "alertmanagers", "podmonitors", "probes", "prometheuses",
        "prometheusrules", "servicemonitors", "thanosrulers",
    )
)  # fmt: skip

# What CL2 leaves outside its namespace, in the order in which it can go.
CL2_LEFTOVERS = (
    f"{_RBAC}clusterrolebindings/prometheus-operator",
    f"{_RBAC}clusterrolebindings/prometheus-k8s",
    f"{_RBAC}clusterrolebindings/metrics-viewer-binding",
    f"{_RBAC}clusterroles/prometheus-operator",
    f"{_RBAC}clusterroles/prometheus-k8s",
    f"{_RBAC}clusterroles/metrics-viewer",
    "/api/v1/namespaces/default/serviceaccounts/monitoringserviceaccount",
    "/api/v1/namespaces/kube-system/services/kube-proxy",
    # Made by the operator (--kubelet-service), without an owner.
    "/api/v1/namespaces/kube-system/services/kubelet",
    "/api/v1/namespaces/kube-system/endpoints/kubelet",
    _STORAGE_CLASS,
    *_OPERATOR_CRDS,
)
_LIMIT_S = 600.0  # as CL2 waits for the namespace (client.DefaultNamespaceDeletionTimeout)
# CL2's token for kubelets and the API server lasts 24 h; what runs into that scrapes nothing.
_TOKEN_S = 20 * 3600.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class State:
    """Whose namespace `monitoring` is, and what keeps its stack from being used as it is."""

    kind: Literal["absent", "ours", "foreign", "terminating"]
    settings_hash: str = ""
    trouble: str = ""

    def __str__(self) -> str:
        return f"ours:{self.settings_hash}" if self.kind == "ours" else self.kind


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Twelve hex digits for all that shapes the stack: what differs in it needs a new one."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def foreign(kube: Kube) -> list[str]:
    """What CL2 would take over or destroy though it is not ours: a sentence each, with the fix."""
    space = kube.find(_SPACE)
    if space is not None and _annotation(space):
        return []  # what is there beside it came with it: it was looked for before
    found = []
    if space is not None:
        found.append(
            f"namespace {NAMESPACE} exists and is not ours: ClusterLoader2 would put its own "
            f"Prometheus into it and delete the whole namespace after; move what is in it, or, if "
            f"it is left from ClusterLoader2: kubectl delete namespace {NAMESPACE}"
        )
    storage = kube.find(_STORAGE_CLASS)
    if storage is not None and not _annotation(storage):
        found.append(
            f"StorageClass ssd ({storage.get('provisioner')}) exists and is not ours: "
            "ClusterLoader2 would replace it; rename yours, or, if it is left from ClusterLoader2: "
            "kubectl delete storageclass ssd"
        )
    crds = [
        path.rpartition("/")[2]
        for path in _OPERATOR_CRDS
        if (crd := kube.find(path)) is not None and not _annotation(crd)
    ]
    if crds:
        found.append(
            f"prometheus-operator's CRDs exist and are not ours ({', '.join(crds)}): another "
            "operator would run ClusterLoader2's Prometheus too, and the other way round; use a "
            "cluster without one, or, if nothing uses them (kubectl get prometheuses,"
            f"servicemonitors,podmonitors -A): kubectl delete crd {' '.join(crds)}"
        )
    return found


def state(kube: Kube) -> State:
    """Whose the stack is now, and whether it can be used as it is."""
    space = kube.find(_SPACE)
    if space is None:
        return State("absent")
    found = _annotation(space)
    if space["metadata"].get("deletionTimestamp"):
        return State("terminating", found)
    if not found:
        return State("foreign")
    return State("ours", found, _trouble(kube))


def prepare(
    kube: Kube,
    settings_hash: str,
    owner_labels: Mapping[str, str],
    say: Say,
    *,
    limit_s: float = _LIMIT_S,
) -> Literal["reused", "created", "rebuilt"]:
    """Make room for CL2's stack of these settings, or keep the one that has them and is well.

    EngineUnavailable when what is there is not ours: nothing is touched then. EngineFailed when
    what must go does not.
    """
    now = state(kube)
    if now.kind == "terminating":
        _wait_gone(kube, [_SPACE], say, limit_s)
        now = state(kube)
    if now.kind == "ours" and now.settings_hash == settings_hash and not now.trouble:
        return "reused"
    done: Literal["created", "rebuilt"] = "created"
    if now.kind == "ours":
        why = now.trouble or f"its settings were {now.settings_hash}, wanted are {settings_hash}"
        say(f"making Prometheus anew: {why}")
        tear_down(kube, say, limit_s=limit_s)
        done = "rebuilt"
    if strange := foreign(kube):
        raise EngineUnavailable("\n".join(strange), hint="then: imgpull doctor")
    _make_namespace(kube, settings_hash, owner_labels)
    return done


def adopt(kube: Kube, settings_hash: str) -> tuple[str, ...]:
    """Annotate what CL2 made outside its namespace, and return the paths of what is ours.

    Nothing is ours when the namespace is not. CL2 makes StorageClass `ssd` afresh each time it
    starts, so this is due after each time.
    """
    space = kube.find(_SPACE)
    if space is None or not _annotation(space):
        return ()
    kept = set(_annotations(space).get(_KEPT, "").split())
    ours = []
    for path in CL2_LEFTOVERS:
        if path not in kept:
            with _missing_is_fine():
                kube.patch(path, {"metadata": {"annotations": {ANNOTATION: settings_hash}}})
                ours.append(path)
    return tuple(ours)


def tear_down(kube: Kube, say: Say, *, limit_s: float = _LIMIT_S) -> None:
    """Remove the stack and what CL2 left outside it; EngineFailed names what does not go.

    Nothing without our annotation is touched.
    """
    space = kube.find(_SPACE)
    if space is not None and not _annotation(space):
        raise EngineFailed(
            f"namespace {NAMESPACE} is not ours: it was not removed", hint="imgpull doctor"
        )
    if space is not None:
        # Before it goes: a removal that is cut short leaves nothing that cannot be found.
        adopt(kube, _annotation(space))
        say(f"removing namespace {NAMESPACE}")
        kube.delete(_SPACE, uid=space["metadata"]["uid"])
        # The operator in it would make the kubelets' Service anew.
        _wait_gone(kube, [_SPACE], say, limit_s)
    paths = [path for path in CL2_LEFTOVERS if remove_leftover(kube, path, say)]
    _wait_gone(kube, paths, say, limit_s)


def remove_leftover(kube: Kube, path: str, say: Say) -> bool:
    """Remove what CL2 left at a path, if it is ours and nobody else's by now; whether it goes."""
    left = kube.find(path)
    if left is None or not _annotation(left):
        return False
    if user := _user_of(kube, left):
        say(f"{left['kind']} {left['metadata']['name']} stays: {user} needs it")
        kube.patch(path, {"metadata": {"annotations": {ANNOTATION: None}}})
        return False
    return kube.delete(path, uid=left["metadata"]["uid"])


def _user_of(kube: Kube, left: Object) -> str:
    """Whose custom resources would go with a CRD; empty when nobody's would."""
    if left["kind"] != "CustomResourceDefinition":
        return ""
    spec = left["spec"]
    version = next(each["name"] for each in spec["versions"] if each.get("storage", True))
    collection = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
    with _missing_is_fine():
        for each in kube.items(collection):
            meta = each["metadata"]
            if meta.get("namespace") != NAMESPACE:
                return f"{spec['names']['kind']} {meta.get('namespace')}/{meta['name']}"
    return ""


def _annotations(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("annotations") or {}


def _annotation(found: Object) -> str:
    return _annotations(found).get(ANNOTATION, "")


def _make_namespace(kube: Kube, settings_hash: str, labels: Mapping[str, str]) -> None:
    kept = [path for path in CL2_LEFTOVERS if _is_foreign(kube.find(path))]
    kube.create(
        "/api/v1/namespaces",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": NAMESPACE,
                "labels": dict(labels),
                "annotations": {ANNOTATION: settings_hash, _KEPT: " ".join(kept)},
            },
        },
    )


def _is_foreign(found: Object | None) -> bool:
    return found is not None and not _annotation(found)


@contextlib.contextmanager
def _missing_is_fine() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if not error.is_missing:
            raise


def _trouble(kube: Kube) -> str:
    """What keeps our stack from being used again; empty when it is well."""
    pods = list(kube.items(f"{_SPACE}/pods", labelSelector="prometheus=k8s"))
    if not any(_is_ready(pod) for pod in pods):
        return "its Prometheus is not ready" if pods else "it has no Prometheus"
    secret = kube.find(f"{_SPACE}/secrets/prometheus-token")
    if secret is None:
        return "secret prometheus-token is missing"
    age_s = time.time() - _issued_at_s(secret)
    return f"its token is {age_s / 3600:.0f} h old" if age_s > _TOKEN_S else ""


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return not pod["metadata"].get("deletionTimestamp") and any(
        each["type"] == "Ready" and each["status"] == "True" for each in conditions
    )


def _issued_at_s(secret: Object) -> float:
    """When the token was made: CL2 renews it in place, so the secret's own age says little."""
    try:
        token = base64.b64decode((secret.get("data") or {})["token"]).decode()
        claims = token.split(".")[1]
        issued = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iat"]
        return float(issued)
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
        made = datetime.fromisoformat(secret["metadata"]["creationTimestamp"])
        return made.astimezone(UTC).timestamp()


def _wait_gone(kube: Kube, paths: list[str], say: Say, limit_s: float) -> None:
    """Wait until nothing is at these paths any more."""
    begun_s = time.monotonic()
    pause_s = 0.1
    while left := [(path, found) for path in paths if (found := kube.find(path)) is not None]:
        waited_s = time.monotonic() - begun_s
        names = ", ".join(f"{found['kind']} {found['metadata']['name']}" for _, found in left)
        if waited_s > limit_s:
            raise EngineFailed(
                f"{names} did not go within {limit_s:.0f} s{_holdup(left[0][1])}",
                hint=f"kubectl describe {left[0][1]['kind']} {left[0][1]['metadata']['name']}",
            )
        if waited_s > 5:
            say(f"waiting for {names} to go: {waited_s:.0f} s")
        time.sleep(pause_s)
        pause_s = min(2.0, pause_s * 1.5)


def _holdup(found: Object) -> str:
    """What a namespace says of what keeps it."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    told = [str(each.get("message")) for each in conditions if each.get("status") == "True"]
    return f": {'; '.join(told)}" if told else ""
