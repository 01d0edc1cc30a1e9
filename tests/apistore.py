"""What an API server stores: objects by collection, and the history of their changes.

Hides the rules of Kubernetes that clients stumble over: versions and conflicts, finalizers, owners
whose dependents go with them, namespaces that take their contents along, status apart from spec.
"""

import base64
import json
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import jsonpatch
from apiobjects import Change, Object, Place, Refused, Resource, Stored, Watched, built_in

Copied = TypeVar("Copied")

_STATUS_APART = {
    *("Namespace", "Node", "PersistentVolume", "PersistentVolumeClaim", "Pod", "Service", "Job"),
    *("Deployment", "DaemonSet", "ReplicaSet", "StatefulSet", "CronJob", "ResourceQuota"),
    *("PodDisruptionBudget", "Ingress", "CustomResourceDefinition"),
}


@dataclass
class Store:
    """The objects. Thread-safe; what it returns is the caller's own."""

    resources: dict[tuple[str, str], Resource] = field(default_factory=dict)
    namespace_takes_s: float = 0.0  # from the deletion of a namespace to its end
    skew_s: float = 0.0  # how far this server's clock is ahead
    changed: Callable[[], None] = lambda: None  # called after each change
    created: Callable[[Object], None] = lambda _: None
    deleted: Callable[[Object], None] = lambda _: None

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.version = 1000
        self.floor = 0  # versions below it are Gone
        self.history: list[Change] = []
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Stored]] = {}
        self._dependents: dict[str, set[Place]] = {}  # by the uid of their owner
        self._orphaning: set[str] = set()  # uids whose dependents stay
        self._collected: set[str] = set()  # uids of owners that are gone
        self._emptied: set[str] = set()  # uids of namespaces whose contents were told to go
        for resource in built_in():
            self.resources[resource.group, resource.plural] = resource
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.put(_namespace(name))

    def now(self) -> str:
        return (datetime.now(UTC) + timedelta(seconds=self.skew_s)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def served(self, place: Place) -> Resource:
        """The kind of a path, or 404 as for a CRD that is not installed."""
        if found := self.resources.get(place.collection):
            return found
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def find(self, place: Place) -> Stored | None:
        with self.lock:
            return self._objects.get(place.collection, {}).get(place.key)

    def get(self, place: Place) -> Stored:
        resource = self.served(place)
        if found := self.find(place):
            return found
        raise Refused(404, "NotFound", f'{_named(resource)} "{place.name}" not found')

    def select(self, watched: Watched, after: tuple[str, str] = ("", "")) -> list[Stored]:
        """What a list shows, by namespace and name, from behind `after` on."""
        with self.lock:
            there = self._objects.get(watched.place.collection, {})
            found = [there[key] for key in sorted(key for key in there if key > after)]
        return [each for each in found if watched.takes(each)]

    def page(self, watched: Watched, limit: int, token: str) -> tuple[list[Stored], Object]:
        """Some objects, and the list's metadata."""
        with self.lock:
            version, after = self.version, ("", "")
            if token:
                version, *after = json.loads(base64.b64decode(token))
                if version < self.floor:
                    raise Refused(
                        410, "Expired", "The provided continue parameter is too old to display a "
                        "consistent list result.",
                    )  # fmt: skip
            found = self.select(watched, tuple(after))
        meta: Object = {"resourceVersion": str(version)}
        if limit and len(found) > limit:
            left = len(found) - limit
            found = found[:limit]
            mark = json.dumps([version, *found[-1].key]).encode()
            meta["continue"] = base64.b64encode(mark).decode()
            if not watched.labels and not watched.fields:
                meta["remainingItemCount"] = left
        return found, meta

    def since(self, version: int, watched: Watched) -> tuple[int, list[bytes]]:
        """The newest version, and the events after `version` that this watcher sees."""
        with self.lock:
            newest, start = self.version, len(self.history)
            while start and self.history[start - 1].version > version:
                start -= 1
            changes = self.history[start:]
        seen = (
            change.seen_by(watched)
            for change in changes
            if change.collection == watched.place.collection
        )
        return newest, [each for each in seen if each is not None]

    def put(self, given: Object) -> Object:
        """Store an object as it is, status and all, whether it exists or not."""
        content = copied(given)
        resource = self._resource_of(content)
        meta = content.setdefault("metadata", {})
        if resource.namespaced:
            meta.setdefault("namespace", "default")
            space = Place("v1", "namespaces", "", meta["namespace"])
            if self.find(space) is None:
                self.put(
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name}}
                )
        with self.lock:
            place = Place(resource.group, resource.plural, meta.get("namespace", ""), meta["name"])
            old = self.find(place)
            if old:
                for key in ("uid", "creationTimestamp"):
                    meta.setdefault(key, old.meta[key])
            self._fill(resource, content)
            return self._write(place, old, content, may_end=False)

    def remove(self, place: Place) -> None:
        """Take an object away whatever holds it: the end of a pod's grace period, say."""
        with self.lock:
            if old := self.find(place):
                content = copied(old.content)
                content["metadata"].pop("finalizers", None)
                content["metadata"]["deletionTimestamp"] = self.now()
                if old.content["kind"] == "Namespace":
                    content["spec"] = {}
                self._write(place, old, content)

    def create(self, place: Place, given: Object, *, dry: bool = False) -> Object:
        resource = self.served(place)
        content = copied(given)
        meta = content.setdefault("metadata", {})
        if "name" not in meta and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if not meta.get("name"):
            raise Refused(422, "Invalid", f"{resource.kind}: name or generateName is required")
        content.setdefault("apiVersion", resource.group)
        content.setdefault("kind", resource.kind)
        for key in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"):
            meta.pop(key, None)
        if resource.namespaced:
            meta["namespace"] = place.namespace
        if resource.kind in _STATUS_APART:
            content.pop("status", None)
        with self.lock:
            if resource.namespaced:
                self._check_namespace(resource, place.namespace, meta["name"])
            there = Place(place.group, place.plural, place.namespace, meta["name"])
            if self.find(there):
                raise Refused(
                    409, "AlreadyExists", f'{_named(resource)} "{meta["name"]}" already exists'
                )
            self._fill(resource, content)
            return content if dry else self._write(there, None, content)

    def replace(self, place: Place, given: Object, *, dry: bool = False) -> Object:
        resource = self.served(place)
        with self.lock:
            old = self.get(place)
            told = (given.get("metadata") or {}).get("resourceVersion")
            if told and told != old.meta["resourceVersion"]:
                raise Refused(
                    409, "Conflict", f"Operation cannot be fulfilled on {_named(resource)} "
                    f'"{place.name}": the object has been modified; please apply your changes to '
                    "the latest version and try again",
                )  # fmt: skip
            content = _merged(resource, old.content, copied(given), place.sub)
            return content if dry else self._write(place, old, content)

    def patch(self, place: Place, patch: Any, kind: str, *, dry: bool = False) -> Object:
        with self.lock:
            if "apply-patch" in kind and self.find(place) is None and not place.sub:
                self.served(place)
                patch.setdefault("metadata", {})["name"] = place.name
                return self.create(place, patch, dry=dry)
            old = self.get(place).content
            if "json-patch" in kind:
                try:
                    new = jsonpatch.apply_patch(copied(old), patch)
                except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
                    raise Refused(422, "Invalid", str(error)) from error
            else:
                new = merge_patch(old, patch)
            return self.replace(place, new, dry=dry)

    def delete(self, place: Place, options: Object) -> Object:
        """What was there; an object with finalizers stays, marked."""
        resource = self.served(place)
        with self.lock:
            old = self.get(place)
            uid = (options.get("preconditions") or {}).get("uid")
            if uid and uid != old.meta["uid"]:
                raise Refused(
                    409, "Conflict", f"the UID in the precondition ({uid}) does not match the UID "
                    f"in record ({old.meta['uid']}). The object might have been deleted and then "
                    "recreated",
                )  # fmt: skip
            content = copied(old.content)
            if not old.meta.get("deletionTimestamp"):
                content["metadata"]["deletionTimestamp"] = self.now()
                if resource.kind == "Namespace":
                    content.setdefault("status", {})["phase"] = "Terminating"
                    if self.namespace_takes_s:
                        late = threading.Timer(self.namespace_takes_s, self._empty, (place.name,))
                        late.daemon = True
                        late.start()
                if options.get("propagationPolicy") == "Orphan":
                    self._orphaning.add(old.meta["uid"])
                content = self._write(place, old, content)
                if resource.kind == "Namespace" and not self.namespace_takes_s:
                    self._empty(place.name)
            return content

    def _write(
        self, place: Place, old: Stored | None, content: Object, *, may_end: bool = True
    ) -> Object:
        """One more version; what is marked and waits for nothing goes at once."""
        with self.lock:
            if old and place.sub != "status" and content.get("spec") != old.content.get("spec"):
                content["metadata"]["generation"] = old.meta.get("generation", 1) + 1
            unchanged = old is not None and content == old.content
            if unchanged:
                return copied(content)
            self.version += 1
            content["metadata"]["resourceVersion"] = str(self.version)
            new = Stored(copied(content))
            ends = may_end and bool(new.meta.get("deletionTimestamp")) and not self._is_held(new)
            there = self._objects.setdefault(place.collection, {})
            if ends:
                there.pop(place.key, None)
                self.history.append(Change(self.version, place.collection, old or new, None))
            else:
                there[place.key] = new
                self.history.append(Change(self.version, place.collection, old, new))
            self._follow(place, old, new, ends=ends)
            # As the garbage collector does with what a controller made too late.
            owners = {each["uid"] for each in new.meta.get("ownerReferences") or ()}
            if old is None and not ends and owners and owners <= self._collected:
                self.delete(Place(*place.collection, *place.key), {})
                return copied(content)
        self.changed()
        if old is None and not ends:
            self.created(copied(content))
        if ends:
            self.deleted(copied(content))
        return copied(content)

    def _is_held(self, stored: Stored) -> bool:
        if stored.content["kind"] == "Namespace" and (stored.content.get("spec") or {}).get(
            "finalizers"
        ):
            return True
        return bool(stored.meta.get("finalizers"))

    def _follow(self, place: Place, old: Stored | None, new: Stored, *, ends: bool) -> None:
        """What a change brings with it: CRDs serve kinds, dependents go with their owner."""
        if new.content["kind"] == "CustomResourceDefinition":
            self._serve(new.content, ends=ends)
        here = Place(*place.collection, *place.key)
        self._index(here, new, ends=ends)
        dependents = self._dependents.pop(new.meta["uid"], set()) if ends else set()
        if new.meta["uid"] not in self._orphaning:
            if ends:
                self._collected.add(new.meta["uid"])
            for each in dependents:
                if self.find(each):
                    self.delete(each, {})
        if ends and place.namespace:
            self._end_namespace(place.namespace)

    def _index(self, place: Place, stored: Stored, *, ends: bool) -> None:
        for each in stored.meta.get("ownerReferences") or ():
            of = self._dependents.setdefault(each["uid"], set())
            of.discard(place) if ends else of.add(place)

    def _serve(self, crd: Object, *, ends: bool) -> None:
        spec = crd.get("spec") or {}
        for version in spec.get("versions") or ():
            group, plural = f"{spec['group']}/{version['name']}", spec["names"]["plural"]
            if ends:
                self.resources.pop((group, plural), None)
                self._objects.pop((group, plural), None)
            else:
                self.resources[group, plural] = Resource(
                    group, plural, spec["names"]["kind"], spec.get("scope") != "Cluster"
                )

    def _empty(self, namespace: str) -> None:
        """Delete what is in a namespace, then its own finalizer."""
        with self.lock:
            if (space := self.find(Place("v1", "namespaces", "", namespace))) is None:
                return
            for (group, plural), objects in list(self._objects.items()):
                for key in [each for each in objects if each[0] == namespace]:
                    if key in objects:  # may have gone with its owner
                        self.delete(Place(group, plural, *key), {})
            self._emptied.add(space.meta["uid"])
            self._end_namespace(namespace)

    def _end_namespace(self, namespace: str) -> None:
        """Let a namespace go whose contents are gone; what has a finalizer holds it."""
        place = Place("v1", "namespaces", "", namespace)
        stored = self.find(place)
        if stored is None or stored.meta["uid"] not in self._emptied:
            return
        if not any(key[0] == namespace for each in self._objects.values() for key in each):
            self._write(place, stored, {**copied(stored.content), "spec": {}})

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        stored = self.find(Place("v1", "namespaces", "", namespace))
        if stored is None:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        if stored.meta.get("deletionTimestamp"):
            raise Refused(
                403, "Forbidden", f'{_named(resource)} "{name}" is forbidden: unable to create new '
                f"content in namespace {namespace} because it is being terminated",
            )  # fmt: skip

    def _fill(self, resource: Resource, content: Object) -> None:
        meta = content["metadata"]
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", self.now())
        if "spec" in content:
            meta.setdefault("generation", 1)
        if resource.kind == "Namespace":
            meta["labels"] = {"kubernetes.io/metadata.name": meta["name"], **meta.get("labels", {})}
            content.setdefault("spec", {"finalizers": ["kubernetes"]})
            content.setdefault("status", {"phase": "Active"})

    def _resource_of(self, content: Object) -> Resource:
        group, kind = content["apiVersion"], content["kind"]
        with self.lock:
            for resource in self.resources.values():
                if (resource.group, resource.kind) == (group, kind):
                    return resource
            plural = kind.lower() + ("" if kind.endswith("s") else "s")
            made = Resource(group, plural, kind, "namespace" in content.get("metadata", {}))
            self.resources[group, plural] = made
            return made


def copied(value: Copied) -> Copied:
    """A copy of what JSON can say, five times as fast as copy.deepcopy."""
    found: Copied = pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    return found


def merge_patch(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _merged(resource: Resource, old: Object, new: Object, sub: str) -> Object:
    """What a write to an object or to one of its parts changes."""
    new.setdefault("metadata", {})
    for key in ("uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "namespace"):
        if key in old["metadata"]:
            new["metadata"][key] = old["metadata"][key]
    new["metadata"]["name"] = old["metadata"]["name"]
    if "generation" in old["metadata"]:
        new["metadata"]["generation"] = old["metadata"]["generation"]
    new.update(apiVersion=old["apiVersion"], kind=old["kind"])
    if sub == "status":
        return {**old, **({"status": new["status"]} if "status" in new else {})}
    if sub == "finalize":
        return {**old, "spec": new.get("spec") or {}}
    if resource.kind in _STATUS_APART:
        new.pop("status", None)
        new |= {"status": old["status"]} if "status" in old else {}
    return new


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _named(resource: Resource) -> str:
    group = resource.group.rpartition("/")[0]
    return f"{resource.plural}.{group}" if group else resource.plural


def wait_until(true: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait for something that another thread brings about; AssertionError when it does not."""
    until = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > until:
            raise AssertionError(f"not within {limit_s} s")
        time.sleep(0.005)
