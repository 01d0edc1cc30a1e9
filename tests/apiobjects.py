"""What an API server holds and how it is named: kinds, paths, versions of objects, selections.

Hides the spelling of paths and selectors, and what a watcher of a selection sees of a change.
"""

import copy
import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

# group/version: plural=Kind of what exists without a CRD; * marks what has no namespace.
_BUILT_IN = """
v1: *namespaces=Namespace *nodes=Node *persistentvolumes=PersistentVolume pods=Pod events=Event
v1: configmaps=ConfigMap secrets=Secret services=Service endpoints=Endpoints
v1: serviceaccounts=ServiceAccount persistentvolumeclaims=PersistentVolumeClaim
v1: resourcequotas=ResourceQuota limitranges=LimitRange
apps/v1: deployments=Deployment daemonsets=DaemonSet replicasets=ReplicaSet
apps/v1: statefulsets=StatefulSet
batch/v1: jobs=Job cronjobs=CronJob
events.k8s.io/v1: events=Event
coordination.k8s.io/v1: leases=Lease
discovery.k8s.io/v1: endpointslices=EndpointSlice
rbac.authorization.k8s.io/v1: *clusterroles=ClusterRole *clusterrolebindings=ClusterRoleBinding
rbac.authorization.k8s.io/v1: roles=Role rolebindings=RoleBinding
storage.k8s.io/v1: *storageclasses=StorageClass *csinodes=CSINode
scheduling.k8s.io/v1: *priorityclasses=PriorityClass
policy/v1: poddisruptionbudgets=PodDisruptionBudget
networking.k8s.io/v1: networkpolicies=NetworkPolicy ingresses=Ingress
apiextensions.k8s.io/v1: *customresourcedefinitions=CustomResourceDefinition
apiregistration.k8s.io/v1: *apiservices=APIService
"""
_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>.+))?)?"
)
_NAMESPACE_PARTS = ("status", "finalize")  # of a namespace itself, not collections inside it


class Refused(Exception):
    """The API server's answer to what it does not do."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message

    @property
    def body(self) -> Object:
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.status,
        }  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a path of the API leads."""

    group: str  # "v1", "apps/v1"
    plural: str
    namespace: str = ""
    name: str = ""
    sub: str = ""

    @property
    def collection(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @classmethod
    def of(cls, path: str) -> "Place | None":
        """None for a path that is not of resources."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        group = found["core"] or found["group"]
        if group == "v1" and found["namespace"] and found["plural"] in _NAMESPACE_PARTS:
            return cls("v1", "namespaces", "", found["namespace"], found["plural"])
        return cls(
            group, found["plural"], found["namespace"] or "", found["name"] or "",
            found["sub"] or "",
        )  # fmt: skip


@dataclass(frozen=True)
class Resource:
    """A kind that is served."""

    group: str
    plural: str
    kind: str
    namespaced: bool


@dataclass(frozen=True)
class Stored:
    """One version of an object; never changed."""

    content: Object

    @functools.cached_property
    def json(self) -> bytes:
        return json.dumps(self.content, separators=(",", ":")).encode()

    @property
    def meta(self) -> Object:
        found: Object = self.content["metadata"]
        return found

    @property
    def version(self) -> int:
        return int(self.meta["resourceVersion"])

    @functools.cached_property
    def key(self) -> tuple[str, str]:
        return self.meta.get("namespace", ""), self.meta["name"]


@dataclass(frozen=True)
class Change:
    """One step of a collection's history."""

    version: int
    collection: tuple[str, str]
    old: Stored | None
    new: Stored | None

    def seen_by(self, watched: "Watched") -> bytes | None:
        """The event as a watcher of this selection sees it, or None: nothing for it."""
        before = self.old is not None and watched.takes(self.old)
        after = self.new is not None and watched.takes(self.new)
        if after and self.new:
            return _event("MODIFIED" if before else "ADDED", self.new.json)
        if before and self.old:  # the last state, at the version of the deletion
            content = copy.deepcopy((self.new or self.old).content)
            content["metadata"]["resourceVersion"] = str(self.version)
            return _event("DELETED", Stored(content).json)
        return None


@dataclass(frozen=True)
class Watched:
    """A selection of a collection: one namespace or all, labels and fields."""

    place: Place
    labels: str = ""
    fields: str = ""

    def takes(self, stored: Stored) -> bool:
        if self.place.namespace and stored.key[0] != self.place.namespace:
            return False
        if self.place.name and stored.key[1] != self.place.name:
            return False
        return _labels_match(self.labels, stored.meta.get("labels") or {}) and _fields_match(
            self.fields, stored.content
        )


def built_in() -> Iterator[Resource]:
    for line in _BUILT_IN.strip().splitlines():
        group, _, kinds = line.partition(": ")
        for each in kinds.split():
            plural, _, kind = each.partition("=")
            yield Resource(group, plural.lstrip("*"), kind, not plural.startswith("*"))


def _event(kind: str, content: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), content)


def _labels_match(selector: str, labels: Object) -> bool:
    return all(test(labels) for test in _label_tests(selector))


@functools.lru_cache(maxsize=256)
def _label_tests(selector: str) -> list[Callable[[Object], bool]]:
    return [
        _label_test(part.strip()) for part in re.split(r",(?![^(]*\))", selector) if part.strip()
    ]


def _label_test(part: str) -> Callable[[Object], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", part):
        key, values = found[1], {each.strip() for each in found[3].split(",")}
        if found[2] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := re.fullmatch(r"([^!=\s]+)\s*(!=|==?)\s*(\S*)", part):
        key, wanted = found[1], found[3]
        if found[2] == "!=":
            return lambda labels: labels.get(key) != wanted
        return lambda labels: labels.get(key) == wanted
    if part.startswith("!"):
        return lambda labels: part[1:].strip() not in labels
    return lambda labels: part in labels


def _fields_match(selector: str, content: Object) -> bool:
    for part in selector.split(",") if selector else ():
        found = re.fullmatch(r"([\w.]+)(!=|==?)(.*)", part.strip())
        if found is None:
            raise Refused(400, "BadRequest", f"invalid field selector: {selector}")
        value: Any = content
        for step in found[1].split("."):
            value = value.get(step) if isinstance(value, dict) else None
        text = "" if value is None else str(value)
        if (text == found[3]) is (found[2] == "!="):
            return False
    return True
