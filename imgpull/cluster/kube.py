"""One Kubernetes API server, spoken to in JSON.

Hides paging and the forms of requests. Objects stay plain mappings: thousands of pods as classes of
a client library take gigabytes.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from imgpull.cluster import kubeconfig as kubeconfigs
from imgpull.cluster.exchange import TIMEOUT_S, Asked, Exchange
from imgpull.cluster.exchange import ApiError as ApiError
from imgpull.cluster.exchange import Stream as Stream
from imgpull.cluster.kubeconfig import Access

Object = dict[str, Any]

_PAGE = 500  # as kubectl asks
# How often a list that began anew is read again before it is given up.
_LISTS = 7
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Kube:
    """A client of one API server. Paths are the API's own: "/api/v1/nodes". Thread-safe."""

    def __init__(self, access: Access) -> None:
        self._exchange = Exchange(access)
        self.server, self.context = self._exchange.server, access.context

    @classmethod
    def open(cls, kubeconfig: Path | None = None, context: str | None = None) -> "Kube":
        """The server of a kubeconfig's context: by default as kubectl chooses it.

        EngineUnavailable when the file, the context or its credential cannot be had.
        """
        return cls(kubeconfigs.read(kubeconfig, context))

    def secrets(self) -> frozenset[str]:
        """What must never be written anywhere: the credentials in use until now."""
        return self._exchange.connection.secrets()

    def get(self, path: str, **params: Any) -> Object:
        """The object at a path; ApiError when there is none."""
        return self._json(Asked("GET", _with(path, params)))

    def find(self, path: str, **params: Any) -> Object | None:
        """The object at a path, or None when there is none."""
        try:
            return self.get(path, **params)
        except ApiError as error:
            if error.is_missing:
                return None
            raise

    def items(self, path: str, **params: Any) -> Iterator[Object]:
        """Every object of a collection, page by page (labelSelector, fieldSelector, …).

        None twice, also where the list began anew because its token had expired.
        """
        seen: set[str] = set()
        for _ in range(_LISTS):
            try:
                for page in self.pages(path, **params):
                    for found in page.get("items") or ():
                        if (uid := (found.get("metadata") or {}).get("uid", "")) not in seen:
                            yield found
                            seen |= {uid} if uid else set()
            except ApiError as error:
                if not (error.is_gone and seen):
                    raise
            else:
                return
        raise ApiError(410, "Expired", f"GET {path}: the list expired again and again")

    def pages(self, path: str, **params: Any) -> Iterator[Object]:
        """A collection's pages; the last one's metadata.resourceVersion is where to watch from.

        A list that outlives its token raises ApiError (is_gone): start again.
        """
        token = ""
        while True:
            paging = {"limit": _PAGE, **({"continue": token} if token else {})}
            page = self._json(Asked("GET", _with(path, {**params, **paging})))
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object in a collection; ApiError (conflict) when its name is taken."""
        return self._json(Asked("POST", path, body, may_repeat=False))

    def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        """Replace an object; ApiError (conflict) when its resourceVersion is not the newest."""
        return self._json(Asked("PUT", path, body))

    def patch(self, path: str, body: Any, kind: str = "merge", **params: Any) -> Object:
        """Patch an object; `kind` is merge, json or apply."""
        asked = Asked(
            "PATCH", _with(path, params), body, _PATCHES[kind], may_repeat=kind != "json"
        )  # fmt: skip
        return self._json(asked)

    def delete(
        self,
        path: str,
        *,
        grace_s: int | None = None,
        propagation: str = "Background",
        uid: str | None = None,
    ) -> bool:
        """Delete an object (only the one of this uid, if given); False when there was none."""
        body: Object = {"propagationPolicy": propagation}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            self._json(Asked("DELETE", path, body))
        except ApiError as error:
            if error.is_missing or (uid is not None and error.is_conflict):
                return False
            raise
        return True

    def text(self, path: str, *, timeout_s: float = TIMEOUT_S, **params: Any) -> str:
        """The body at a path as text: logs, metrics through a proxy."""
        asked = Asked("GET", _with(path, params), timeout_s=timeout_s)
        data: bytes = self._exchange.request(asked).data
        return data.decode("utf-8", "replace")

    def stream(self, path: str, *, timeout_s: float = 330.0, **params: Any) -> Stream:
        """The body at a path line by line, as it comes; `timeout_s` without a byte breaks it."""
        asked = Asked("GET", _with(path, params), timeout_s=timeout_s, whole=False)
        return Stream(self._exchange.request(asked), path)

    def watch(self, path: str, *, version: str, timeout_s: int = 300, **params: Any) -> Stream:
        """Changes of a collection since `version`, a JSON event a line, for about `timeout_s`."""
        return self.stream(
            path,
            timeout_s=timeout_s + 30.0,
            watch="true",
            resourceVersion=version,
            timeoutSeconds=timeout_s,
            allowWatchBookmarks="true",
            **params,
        )

    def impatient(self) -> "Kube":
        """The same client asking twice at most: for what may well have no answer."""
        clone = copy.copy(self)
        clone._exchange = copy.copy(self._exchange)
        clone._exchange.tries = 2
        return clone

    def server_time_s(self) -> float | None:
        """The server's clock, in whole seconds since 1970; None when an answer does not tell it."""
        told = self._exchange.request(Asked("GET", "/version")).headers.get("Date", "")
        try:
            return parsedate_to_datetime(told).timestamp()
        except ValueError:
            return None

    def close(self) -> None:
        """Close its connections."""
        self._exchange.connection.close()

    def _json(self, asked: Asked) -> Object:
        data = self._exchange.request(asked).data
        try:
            found = json.loads(data) if data else {}
        except ValueError as error:
            what = f"{asked.method} {asked.resource}"
            raise ApiError(0, "Garbage", f"{what}: the answer is not JSON") from error
        return found if isinstance(found, dict) else {}


def _with(path: str, params: Mapping[str, Any]) -> str:
    """A path with these parameters, but for those that are not given."""
    query = {key: value for key, value in params.items() if value not in (None, "")}
    return f"{path}{'&' if '?' in path else '?'}{urlencode(query)}" if query else path
