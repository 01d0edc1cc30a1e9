"""Whose an object on the cluster is: the marks by which all of ours is found and removed again.

Hides labels, names and waiting: what is removed here is checked to be gone.
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.config.job import MEASURED_LABEL
from imgpull.errors import EngineFailed, EngineUnavailable

MANAGED_BY, IMGPULL = "app.kubernetes.io/managed-by", "imgpull"
MANAGED_SELECTOR = f"{MANAGED_BY}={IMGPULL}"
SWEEP_LABEL = "imgpull.dev/sweep"
TRIAL_LABEL = "imgpull.dev/trial"
MEASURED_SELECTOR = f"{MEASURED_LABEL}=true"
MEASURED_BY = "imgpull.dev/measured-by"  # annotation of a measured node: the sweep
SYSTEM_NAMESPACE = "imgpull-system"

_PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
_NAMESPACES = "/api/v1/namespaces"
_TERMINATING_S = 600.0  # as long as ClusterLoader2 itself waits for a namespace
_FIRST_POLL_S, _POLL_S = 0.05, 1.0

# Collections in which a trial may have made something.
TRIAL_COLLECTIONS = (
    _NAMESPACES,  # first: they take longest
    f"/apis/apps/v1/namespaces/{SYSTEM_NAMESPACE}/daemonsets",
    f"/apis/batch/v1/namespaces/{SYSTEM_NAMESPACE}/jobs",
    f"{_NAMESPACES}/{SYSTEM_NAMESPACE}/pods",
    f"{_NAMESPACES}/{SYSTEM_NAMESPACE}/configmaps",
    f"{_NAMESPACES}/{SYSTEM_NAMESPACE}/secrets",
    f"{_NAMESPACES}/{SYSTEM_NAMESPACE}/serviceaccounts",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
)


@dataclass(frozen=True)
class Owner:
    """A sweep, or one attempt of one of its trials: what an object belongs to."""

    sweep: str
    trial: str = ""
    attempt: int = 1

    def labels(self) -> dict[str, str]:
        """What every object of this owner carries."""
        labels = {MANAGED_BY: IMGPULL, SWEEP_LABEL: self.sweep}
        return {**labels, TRIAL_LABEL: self._execution} if self.trial else labels

    def selector(self) -> str:
        """What of the cluster belongs to this owner, as a label selector."""
        return ",".join(f"{key}={value}" for key, value in self.labels().items())

    def prefix(self) -> str:
        """The prefix of the test's namespaces: of this attempt alone."""
        text = f"{self.sweep}/{self.trial}/{self.attempt}"
        return f"ip{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def _execution(self) -> str:
        return f"{self.trial}-a{self.attempt}"


def ensure_system_namespace(kube: Kube) -> None:
    """Have the namespace of our own helpers, in which privileged pods are allowed."""
    found = kube.find(f"{_NAMESPACES}/{SYSTEM_NAMESPACE}")
    if found is not None and _is_terminating(found):
        wait_gone(kube, [f"{_NAMESPACES}/{SYSTEM_NAMESPACE}"], _TERMINATING_S)
        found = None
    if found is not None:
        labels = (found.get("metadata") or {}).get("labels") or {}
        if labels.get(MANAGED_BY) != IMGPULL:
            raise EngineUnavailable(
                f"namespace {SYSTEM_NAMESPACE} exists and is not imgpull's: it lacks the label "
                f"{MANAGED_SELECTOR}",
                hint=f"remove or rename it; or, if it is: kubectl label namespace "
                f"{SYSTEM_NAMESPACE} {MANAGED_SELECTOR}",
            )
        if not _PRIVILEGED.items() <= labels.items():
            kube.patch(f"{_NAMESPACES}/{SYSTEM_NAMESPACE}", {"metadata": {"labels": _PRIVILEGED}})
        return
    _create_namespace(kube, SYSTEM_NAMESPACE, {MANAGED_BY: IMGPULL, **_PRIVILEGED})


def make_namespace(kube: Kube, name: str, owner: Owner) -> None:
    """Make a namespace of this owner; an old one of that name is waited for while it goes.

    EngineFailed when the name is taken and stays so.
    """
    path = f"{_NAMESPACES}/{name}"
    found = kube.find(path)
    if found is not None:
        if not _is_terminating(found):
            labels = (found.get("metadata") or {}).get("labels") or {}
            if labels.get(MANAGED_BY) != IMGPULL:
                raise EngineFailed(
                    f"namespace {name} exists and is not imgpull's",
                    hint=f"kubectl get namespace {name} -o yaml",
                )
            kube.delete(path)
        wait_gone(kube, [path], _TERMINATING_S)
    _create_namespace(kube, name, owner.labels())


def _create_namespace(kube: Kube, name: str, labels: dict[str, str]) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    try:
        kube.create(_NAMESPACES, body)
    except ApiError as error:
        # A request whose answer was lost may have been done. A conflict: by another of ours.
        if not error.is_conflict and error.status not in (0, 500, 502, 503, 504):
            raise
        found = kube.find(f"{_NAMESPACES}/{name}")
        there = ((found or {}).get("metadata") or {}).get("labels") or {}
        if not labels.items() <= there.items():
            raise


def copy_secret(kube: Kube, name: str, namespace: str, owner: Owner) -> None:
    """Copy a pull secret from namespace `default`; EngineUnavailable when it is not there."""
    secret = kube.find(f"{_NAMESPACES}/default/secrets/{name}")
    if secret is None:
        raise EngineUnavailable(
            f"image.pull_secret={name}: there is no such Secret in namespace default",
            hint=f"kubectl create secret docker-registry {name} --docker-server=… "
            "--docker-username=… --docker-password=…",
        )
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": owner.labels()},
        "type": secret.get("type"),
        "data": secret.get("data") or {},
    }
    collection = f"{_NAMESPACES}/{namespace}/secrets"
    try:
        kube.create(collection, body)
    except ApiError as error:
        if not error.is_conflict:
            raise
        kube.replace(f"{collection}/{name}", body)


def remove_trial(kube: Kube, owner: Owner, limit_s: float) -> None:
    """Remove all that carries this owner's labels, and what CL2 made with its prefix.

    EngineFailed names what is left at the limit; the rest is removed all the same.
    """
    _remove(kube, owner.selector(), limit_s, beside={owner.prefix()})


def remove_trials(kube: Kube, sweep: str, limit_s: float) -> None:
    """Remove what any trial of a sweep made, as an earlier process of it left it. As above."""
    selector = f"{Owner(sweep).selector()},{TRIAL_LABEL}"
    # Read before they go: what CL2 made beside them carries no label.
    first = [path.rpartition("/")[2] for path in found_paths(kube, [_NAMESPACES], selector)]
    _remove(kube, selector, limit_s, beside={name.rpartition("-")[0] for name in first})


def _remove(kube: Kube, selector: str, limit_s: float, beside: Collection[str]) -> None:
    searches = [partial(found_paths, kube, [each], selector) for each in TRIAL_COLLECTIONS]
    searches.insert(0, partial(_made_by_cl2, kube, beside))
    end_s, removed = time.monotonic() + limit_s, set[str]()
    while True:  # until nothing more turns up: a request may have been under way
        new, failed = _delete_found(kube, searches, removed)
        removed |= set(new)
        if not new:
            break
        wait_gone(kube, new, max(0.0, end_s - time.monotonic()))
    if failed:
        raise EngineFailed(
            f"not all of it could be removed: {failed[0].message}",
            hint=failed[0].hint or "imgpull janitor",
        )


def _delete_found(
    kube: Kube, searches: Iterable[Callable[[], Iterable[str]]], but: Collection[str]
) -> tuple[list[str], list[ApiError]]:
    """What was deleted now, and what failed: that is no reason to leave the rest."""
    new: list[str] = []
    failed: list[ApiError] = []
    for search in searches:
        try:
            for path in search():
                if path not in but and path not in new:
                    kube.delete(path, propagation="Background")
                    new.append(path)
        except ApiError as error:
            failed.append(error)
    return new, failed


def _made_by_cl2(kube: Kube, prefixes: Collection[str]) -> Iterable[str]:
    """Namespaces of a test beyond its first: ClusterLoader2 makes them, without any label."""
    for found in kube.items(_NAMESPACES) if prefixes else ():
        named = re.fullmatch(r"(.+)-[1-9][0-9]*", found["metadata"]["name"])
        if named and named[1] in prefixes:
            yield object_path(_NAMESPACES, found)


def found_paths(kube: Kube, collections: Iterable[str], selector: str) -> Iterable[str]:
    """Paths of the objects in these collections that a label selector selects."""
    for collection in collections:
        try:
            for found in kube.items(collection, labelSelector=selector):
                yield object_path(collection, found)
        except ApiError as error:
            if not error.is_missing:  # a namespace or API group that is not there
                raise


def object_path(collection: str, found: Object) -> str:
    """Where an object of a collection is."""
    return f"{collection}/{found['metadata']['name']}"


def wait_gone(kube: Kube, paths: Sequence[str], limit_s: float) -> None:
    """Wait until none of these is there; EngineFailed names what is left and how to look at it."""
    end_s, pause_s = time.monotonic() + limit_s, _FIRST_POLL_S
    left: Sequence[tuple[str, Object | None]] = [(path, None) for path in paths]
    while left := [(path, found) for path, _ in left if (found := kube.find(path)) is not None]:
        if time.monotonic() >= end_s:
            raise _still_there(left, limit_s)
        time.sleep(pause_s)
        pause_s = min(_POLL_S, pause_s * 1.5)


def _still_there(left: Sequence[tuple[str, Object | None]], limit_s: float) -> EngineFailed:
    names = ", ".join(" ".join(path.split("/")[-2:]) for path, _ in left[:5])
    more = f" (and {len(left) - 5} more)" if len(left) > 5 else ""
    path, found = left[0]
    kind, name = path.split("/")[-2:]
    space = re.search(r"/namespaces/([^/]+)/", path)
    within = f" -n {space[1]}" if space else ""
    return EngineFailed(
        f"still there {limit_s:.0f} s after their removal: {names}{more}{held_up_by(found)}",
        hint=f"kubectl get {kind} {name}{within} -o yaml; then: imgpull janitor",
    )


def held_up_by(found: Object | None) -> str:
    """What keeps a removed object there, as it says itself; to be put behind its name."""
    meta, status = (found or {}).get("metadata") or {}, (found or {}).get("status") or {}
    told = [
        str(each.get("message"))
        for each in status.get("conditions") or ()
        if each.get("status") == "True" and str(each.get("type")).startswith("Namespace")
    ]
    if finalizers := meta.get("finalizers"):
        told.append(f"finalizers {', '.join(finalizers)}")
    return f": {'; '.join(told)}" if told else ""


def _is_terminating(namespace: Object) -> bool:
    return bool((namespace.get("metadata") or {}).get("deletionTimestamp"))
