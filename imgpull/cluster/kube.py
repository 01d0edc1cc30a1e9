"""One Kubernetes API server, spoken to in JSON.

Hides retries, paging and the two ways a request can fail: the server refused it, or nobody
answered. Objects stay plain mappings: thousands of pods as classes of a client library take
gigabytes.
"""

import contextlib
import copy
import functools
import http.client
import itertools
import json
import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from imgpull.cluster import kubeconfig as kubeconfigs
from imgpull.cluster.connection import Connection
from imgpull.cluster.kubeconfig import Access
from imgpull.errors import EngineFailed

Object = dict[str, Any]

_PAGE = 500  # as kubectl asks
_TIMEOUT_S = 30.0
_CONNECT_S = 10.0
_TRIES = 7  # about half a minute with the pauses between them
_FIRST_TRIES = 2  # where nobody ever answered: the address is wrong, or the way to it is shut
_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 10.0
_LUCK = random.Random()  # of its own: nobody's seed is touched
_BUSY = frozenset({429, 500, 502, 503, 504})  # what may pass
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(EngineFailed):
    """The API server refused a request, or did not answer (status 0)."""

    def __init__(self, status: int, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.reason = status, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.status, self.reason, self.message, self.hint)

    @property
    def is_missing(self) -> bool:
        """Not found."""
        return self.status == 404

    @property
    def is_conflict(self) -> bool:
        """Somebody else changed it, or it exists already."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """The resource version is too old to go on from."""
        return self.status == 410


def _again(status: int, reason: str, message: str, hint: str) -> ApiError:
    return ApiError(status, reason, message, hint=hint)


class Stream:
    """Lines that arrive over time; `close` ends it, from another thread too."""

    def __init__(self, response: Any, what: str) -> None:
        self._response, self._what = response, what
        self._closed = threading.Event()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; whoever iterates over it sees its end."""
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(ValueError, RuntimeError, AttributeError, OSError):  # over already
            self._response.shutdown()  # wakes a thread that reads
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        """Whole lines, without their end; ApiError (status 0) when the connection breaks."""
        import urllib3

        rest = b""
        try:
            for chunk in self._response.stream(2**16, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        except (urllib3.exceptions.HTTPError, OSError, http.client.HTTPException, ValueError,
                AttributeError) as error:  # fmt: skip
            if not self._closed.is_set():
                raise ApiError(0, "Broken", f"{self._what}: the stream broke: {error}") from error
        if rest and not self._closed.is_set():
            yield rest


class Kube:
    """A client of one API server. Paths are the API's own: "/api/v1/nodes". Thread-safe."""

    def __init__(self, access: Access) -> None:
        self._connection = Connection(access)
        self._has_answered = False
        self._tries = _TRIES
        self.server = access.server.rstrip("/")
        self.context = access.context

    @classmethod
    def open(cls, kubeconfig: Path | None = None, context: str | None = None) -> "Kube":
        """The server of a kubeconfig's context: by default as kubectl chooses it.

        EngineUnavailable when the file, the context or its credential cannot be had.
        """
        return cls(kubeconfigs.read(kubeconfig, context))

    def secrets(self) -> frozenset[str]:
        """What must never be written anywhere: the credentials in use until now."""
        return self._connection.secrets()

    def get(self, path: str, **params: Any) -> Object:
        """The object at a path; ApiError when there is none."""
        return self._json("GET", path, params)

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
        for _ in range(_TRIES):
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
            page = self._json("GET", path, {**params, **paging})
            yield page
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object in a collection; ApiError (conflict) when its name is taken."""
        return self._json("POST", path, {}, body)

    def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        """Replace an object; ApiError (conflict) when its resourceVersion is not the newest."""
        return self._json("PUT", path, {}, body)

    def patch(self, path: str, body: Any, kind: str = "merge", **params: Any) -> Object:
        """Patch an object; `kind` is merge, json or apply."""
        return self._json("PATCH", path, params, body, content=_PATCHES[kind])

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
            self._json("DELETE", path, {}, body)
        except ApiError as error:
            if error.is_missing or (uid is not None and error.is_conflict):
                return False
            raise
        return True

    def text(self, path: str, *, timeout_s: float = _TIMEOUT_S, **params: Any) -> str:
        """The body at a path as text: logs, metrics through a proxy."""
        data: bytes = self._request("GET", path, params, timeout_s=timeout_s).data
        return data.decode("utf-8", "replace")

    def stream(self, path: str, *, timeout_s: float = 330.0, **params: Any) -> Stream:
        """The body at a path line by line, as it comes; `timeout_s` without a byte breaks it."""
        return Stream(self._request("GET", path, params, timeout_s=timeout_s, whole=False), path)

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
        clone._tries = 2
        return clone

    def server_time_s(self) -> float | None:
        """The server's clock, in whole seconds since 1970; None when an answer does not tell it."""
        told = self._request("GET", "/version", {}).headers.get("Date", "")
        try:
            return parsedate_to_datetime(told).timestamp()
        except ValueError:
            return None

    def close(self) -> None:
        """Close its connections."""
        self._connection.close()

    def _json(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        body: Any = None,
        *,
        content: str = "application/json",
    ) -> Object:
        data = self._request(method, path, params, body, content=content).data
        try:
            found = json.loads(data) if data else {}
        except ValueError as error:
            raise ApiError(0, "Garbage", f"{method} {path}: the answer is not JSON") from error
        return found if isinstance(found, dict) else {}

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        body: Any = None,
        *,
        content: str = "application/json",
        timeout_s: float = _TIMEOUT_S,
        whole: bool = True,
    ) -> Any:
        url = f"{self.server}{path}"
        if query := {key: value for key, value in params.items() if value not in (None, "")}:
            url += f"{'&' if '?' in url else '?'}{urlencode(query)}"
        repeatable = method != "POST" and content != _PATCHES["json"]
        send = functools.partial(
            self._send, _Asked(method, path, url, None if body is None else json.dumps(body),
                               content, timeout_s, whole, repeatable),
        )  # fmt: skip
        for tried in itertools.count(1):
            try:
                return send()
            except _Passing as failed:
                most = self._tries if self._has_answered else min(self._tries, _FIRST_TRIES)
                if not failed.may_repeat or tried >= most:
                    raise failed.error from failed.error.__cause__
                time.sleep(_pause_s(tried) if failed.pause_s is None else failed.pause_s)
        raise AssertionError  # the loop has no end

    def _send(self, asked: "_Asked") -> Any:
        headers = self._connection.headers()
        response = self._exchange(asked, headers)
        if response.status == 401 and self._connection.refused(headers):
            _body(response)
            response = self._exchange(asked, self._connection.headers())
        self._has_answered = True
        if response.status < 400:
            return response
        failed = _refusal(response.status, _body(response), asked.method, asked.path)
        if response.status in _BUSY:
            # Refused with 429 it was not done; the others may have been.
            repeat = response.status == 429 or asked.repeatable
            raise _Passing(failed, may_repeat=repeat, pause_s=_asked_pause_s(response))
        raise failed

    def _exchange(self, asked: "_Asked", headers: Mapping[str, str]) -> Any:
        import urllib3

        headers = {**headers, "Accept": "application/json", "User-Agent": "imgpull"}
        if asked.body is not None:
            headers["Content-Type"] = asked.content
        try:
            return self._connection.pool.request(
                asked.method, asked.url, body=asked.body, headers=headers,
                preload_content=asked.whole, redirect=False, retries=False,
                timeout=urllib3.Timeout(
                    connect=min(_CONNECT_S, asked.timeout_s), read=asked.timeout_s
                ),
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError, http.client.HTTPException) as error:
            raise self._unanswered(asked, error) from error

    def _unanswered(self, asked: "_Asked", error: Exception) -> "_Passing":
        import urllib3

        what = f"{self.server} did not answer {asked.method} {asked.path}"
        hint = "check the network, the VPN and the context: kubectl version"
        cause = _innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            failed = ApiError(
                0, "Untrusted", f"{self.server} is not who the kubeconfig says: "
                f"{cause.verify_message}",
                hint="get the kubeconfig again (az aks get-credentials …); behind a proxy that "
                "reads TLS, its certificate-authority is needed",
            )  # fmt: skip
            failed.__cause__ = error
            return _Passing(failed, may_repeat=False)
        failed = ApiError(0, "NoAnswer", f"{what}: {_short(cause)}", hint=hint)
        failed.__cause__ = error
        # What never arrived may be sent again; what may have, only if it does no harm twice.
        unsent = isinstance(
            error,
            (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.ProxyError),
        )
        return _Passing(failed, may_repeat=unsent or asked.repeatable)


class _Asked(NamedTuple):
    """A request, to be sent once or more."""

    method: str
    path: str
    url: str
    body: str | None
    content: str
    timeout_s: float
    whole: bool
    repeatable: bool


class _Passing(Exception):
    """An error that may pass."""

    def __init__(self, error: ApiError, *, may_repeat: bool, pause_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.may_repeat, self.pause_s = error, may_repeat, pause_s


def _body(response: Any) -> bytes:
    """The rest of an answer; its connection is free again."""
    import urllib3

    try:
        data: bytes = response.data
    except (urllib3.exceptions.HTTPError, OSError):
        return b""
    finally:
        response.release_conn()
    return data


def _innermost(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or getattr(error, "reason", None) or error.__context__) and (
        isinstance(inner, BaseException)
    ):
        error = inner
    return error


def _short(error: BaseException) -> str:
    """Why, without the client's objects: "connection refused"."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).rpartition(">: ")[2] or type(error).__name__


def _pause_s(tried: int) -> float:
    """Doubling, with luck in it, so that many do not come back at once."""
    return min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0**tried) * _LUCK.uniform(0.7, 1.3)


def _asked_pause_s(response: Any) -> float | None:
    asked = response.headers.get("Retry-After", "")
    return min(_LONGEST_PAUSE_S, float(asked)) if asked.isdigit() else None


def _refusal(status: int, data: bytes, method: str, path: str) -> ApiError:
    try:
        told = json.loads(data)
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    words = told.get("message") or data[:300].decode("utf-8", "replace").strip() or "no reason"
    hint = ""
    if status == 401:
        hint = "log in again (az login; az aks get-credentials …): the credential is not accepted"
    elif status == 403:
        hint = "ask for the permissions of docs/real-clusters.md"
    reason = str(told.get("reason") or http.client.responses.get(status, "Error"))
    return ApiError(status, reason, f"{method} {path}: {status} {words}", hint=hint)
