"""One request to an API server, until it is answered, refused, or not worth another try.

Hides what may be sent again: never what might then happen twice, and not for long to a server that
nobody ever heard of.
"""

import contextlib
import http.client
import itertools
import json
import random
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imgpull.cluster.connection import Connection
from imgpull.cluster.kubeconfig import Access
from imgpull.errors import EngineFailed, EngineUnavailable

TIMEOUT_S = 30.0
_CONNECT_S = 10.0
_TRIES = 7  # about half a minute with the pauses between them
_FIRST_TRIES = 2  # where nobody ever answered: the address is wrong, or the way to it is shut
_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 10.0
_LUCK = random.Random()  # of its own: nobody's seed is touched
_BUSY = frozenset({429, 500, 502, 503, 504})  # what may pass


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


@dataclass(frozen=True)
class Asked:
    """A request. `path` has its query; `may_repeat`: no harm is done when it arrives twice."""

    method: str
    path: str
    body: Any = None
    content: str = "application/json"
    timeout_s: float = TIMEOUT_S
    whole: bool = True  # else the answer is read as it comes
    may_repeat: bool = True

    @property
    def resource(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]


class Exchange:
    """Requests to one server, with the credential of one kubeconfig. Thread-safe."""

    def __init__(self, access: Access) -> None:
        self.connection = Connection(access)
        self.server = access.server.rstrip("/")
        self.tries = _TRIES
        self._has_answered = False

    def request(self, asked: Asked) -> Any:
        """The server's answer; ApiError when it refuses, or does not answer in time."""
        for tried in itertools.count(1):
            try:
                return self._send(asked)
            except _Passing as failed:
                most = self.tries if self._has_answered else min(self.tries, _FIRST_TRIES)
                if failed.error.status == 429:  # it answered: who asks thousands must wait
                    most = _TRIES
                if not failed.may_repeat or tried >= most:
                    raise failed.error from failed.error.__cause__
                time.sleep(_pause_s(tried) if failed.pause_s is None else failed.pause_s)
        raise AssertionError  # the loop has no end

    def _send(self, asked: Asked) -> Any:
        try:
            headers = self.connection.headers()
            response = self._exchange(asked, headers)
            if response.status == 401 and self.connection.refused(headers):
                _body(response)
                response = self._exchange(asked, self.connection.headers())
        except EngineUnavailable as error:  # the plugin failed: its identity provider may be back
            failed = ApiError(0, "NoCredential", error.message, hint=error.hint)
            failed.__cause__ = error
            raise _Passing(failed, may_repeat=True) from error
        self._has_answered = True
        if response.status < 400:
            return response
        failed = _refusal(response.status, _body(response), asked)
        if response.status in _BUSY:
            # Refused with 429 it was not done; the others may have been.
            repeat = response.status == 429 or asked.may_repeat
            raise _Passing(failed, may_repeat=repeat, pause_s=_asked_pause_s(response))
        raise failed

    def _exchange(self, asked: Asked, headers: Mapping[str, str]) -> Any:
        import urllib3

        headers = {**headers, "Accept": "application/json", "User-Agent": "imgpull"}
        body = None
        if asked.body is not None:
            headers["Content-Type"], body = asked.content, json.dumps(asked.body)
        try:
            return self.connection.pool.request(
                asked.method, f"{self.server}{asked.path}", body=body, headers=headers,
                preload_content=asked.whole, redirect=False, retries=False,
                timeout=urllib3.Timeout(
                    connect=min(_CONNECT_S, asked.timeout_s), read=asked.timeout_s
                ),
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError, http.client.HTTPException) as error:
            raise self._unanswered(asked, error) from error

    def _unanswered(self, asked: Asked, error: Exception) -> "_Passing":
        import urllib3

        what = f"{self.server} did not answer {asked.method} {asked.resource}"
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
        return _Passing(failed, may_repeat=unsent or asked.may_repeat)


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


def _refusal(status: int, data: bytes, asked: Asked) -> ApiError:
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
    return ApiError(status, reason, f"{asked.method} {asked.resource}: {status} {words}", hint=hint)
