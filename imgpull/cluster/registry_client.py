"""One repository of a registry, asked for manifests, blobs and tags, or written to.

Hides the protocol (a library's), how to log in, patience with a busy registry, and every way that
it can fail: they come out in our words, with what mends them.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from imgpull.cluster.registry_login import DOCKER_HUB, Logins
from imgpull.errors import EngineFailed, EngineUnavailable

T = TypeVar("T")
E = TypeVar("E", bound=EngineUnavailable)

_TIMEOUT_S = 30.0
_TRIES = 5
_LONGEST_PAUSE_S = 30.0
_CHUNK_BYTES = 2**20
_THROTTLED = (429, 503)
_LOOPBACK = re.compile(r"(?:localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?")


class Missing(Exception):
    """There is no such thing in the repository."""


class Busy(EngineUnavailable):
    """It did not answer, or not now: it may another time, after as long as it asked for."""

    pause_s = 0.0
    is_throttled = False  # it answers, and wants fewer questions


class Declined(EngineUnavailable):
    """It would not do what it was asked, whoever asked: with the status that it answered."""

    status = 0


class Repository:
    """A repository of a host; registries on loopback are spoken to without TLS.

    EngineUnavailable when it cannot be asked, EngineFailed when what it says is broken, Missing.
    """

    def __init__(self, host: str, repository: str, logins: Logins, *, writes: bool = False) -> None:
        from dxf import DXF

        self.host, self.repository, self._writes = host, repository, writes
        self._login = logins(f"{host}/{repository}")
        asked = f"registry-1.{DOCKER_HUB}" if host == DOCKER_HUB else host
        self._dxf = DXF(
            asked, repository, auth=self._log_in, timeout=_TIMEOUT_S,
            insecure=_LOOPBACK.fullmatch(asked) is not None,
        )  # fmt: skip

    def __enter__(self) -> "Repository":
        self._dxf.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._dxf.__exit__(*raised)

    def manifest(self, which: str) -> tuple[str, dict[str, Any]]:
        """The digest, computed here, and the content of what a tag or digest names."""
        _, response = self._ask(lambda: self._dxf.get_manifest_and_response(which))
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        if which.startswith("sha256:") and which != digest:
            raise self.broken(f"the manifest {which} has digest {digest}")
        try:
            return digest, cast(dict[str, Any], response.json())
        except ValueError as error:
            raise self.broken(f"the manifest {which} is not JSON") from error

    def blob(self, digest: str) -> bytes:
        """A small blob."""
        return self.streamed(digest, b"".join)

    def streamed(self, digest: str, consume: Callable[[Iterator[bytes]], T]) -> T:
        """What is made of a blob's chunks; from the start again when the connection was cut.

        At the last chunk the digest is checked.
        """

        def stream() -> T:
            chunks = self._dxf.pull_blob(digest, chunk_size=_CHUNK_BYTES)
            return consume(iter(cast(Iterator[bytes], chunks)))

        return self._ask(stream)

    def tags(self) -> list[str]:
        """The tags of the repository."""
        return list(self._ask(self._dxf.list_aliases))

    def send(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None,
        *, tries: int = _TRIES,
    ) -> Mapping[str, str]:  # fmt: skip
        """The headers of the answer to one request of the distribution API, path or full URL.

        Busy, Declined or Missing when it was not done.
        """
        # dxf's own methods upload only what has a digest already; its door to the registry, with
        # all of its logging in, is this.
        ask = self._dxf._request
        answer = self._ask(
            lambda: ask(method, url, data=body, headers=dict(headers or {})), tries=tries
        )
        return cast(Mapping[str, str], answer.headers)

    def broken(self, what: str) -> EngineFailed:
        """The error for content that is not what it should be."""
        return EngineFailed(f"{self.host}/{self.repository}: {what}", hint="push the image again")

    def _log_in(self, dxf: Any, response: Any) -> None:
        if "www-authenticate" not in response.headers:
            raise self._refused(response.status_code)
        login = self._login
        dxf.authenticate(
            login.username if login else None, login.password if login else None, response=response
        )

    def _ask(self, call: Callable[[], T], *, tries: int = _TRIES) -> T:
        import requests
        from dxf.exceptions import DXFDigestMismatchError, DXFError

        for tried in range(1, tries + 1):
            try:
                return call()
            except requests.HTTPError as error:
                self._weather(error, is_last=tried == tries, tried=tried)
            except requests.exceptions.SSLError as error:
                raise self._unavailable(
                    f"cannot be reached over TLS: {_innermost(error)}",
                    "REQUESTS_CA_BUNDLE=FILE names its certificate authority",
                    EngineUnavailable,
                ) from error
            except (requests.ConnectionError, requests.Timeout,
                    requests.exceptions.ChunkedEncodingError) as error:  # fmt: skip
                # Once more for a cut connection; a name or port that is wrong stays wrong.
                if tried >= min(2, tries):
                    raise self._unavailable(
                        f"does not answer: {_innermost(error)}",
                        "check its name, the network and the proxy",
                        Busy,
                    ) from error
                time.sleep(_pause_s("", tried))
            except DXFDigestMismatchError as error:
                raise self.broken(str(error)) from error
            except DXFError as error:
                raise self._refused(401) from error
        raise AssertionError  # the last try returns or raises

    def _weather(self, error: Any, *, is_last: bool, tried: int) -> None:
        """Wait, as long as the registry asks, if what it answered may pass."""
        status = error.response.status_code
        if status == 404:
            raise Missing(str(error)) from error
        if status in (401, 403):
            raise self._refused(status) from error
        if status != 429 and status < 500:
            declined = self._unavailable(f"answers {status}", _mends(status), Declined)
            declined.status = status
            raise declined from error
        asked = error.response.headers.get("Retry-After", "")
        if is_last:
            busy = self._unavailable(f"answers {status}", "try again later", Busy)
            busy.is_throttled = status in _THROTTLED
            busy.pause_s = float(asked) if asked.isdigit() else 0.0
            raise busy from error
        time.sleep(_pause_s(asked, tried))

    def _refused(self, status: int) -> EngineUnavailable:
        host = self.host
        who = f"user {self._login.username}" if self._login else "an anonymous user"
        if _LOOPBACK.fullmatch(host):
            fix = "no password is sent without TLS: let this registry be read anonymously"
        elif host.endswith(".azurecr.io"):
            name = host.partition(".")[0]
            fix = f"az acr login --name {name} (without docker: --expose-token), or a pull secret"
        else:
            fix = f"docker login {host}, or image.pull_secret=NAME"
        if self._writes:
            fix = fix.replace(", or a pull secret", "").replace(", or image.pull_secret=NAME", "")
            raised = f"does not let {who} write to {self.repository} ({status})"
            return EngineUnavailable(f"registry {host} {raised}", hint=fix)
        return EngineUnavailable(
            f"registry {host} does not show {self.repository} to {who} ({status})", hint=fix
        )

    def _unavailable(self, what: str, fix: str, kind: type[E]) -> E:
        return kind(f"registry {self.host} {what}", hint=fix)


def _mends(status: int) -> str:
    if status == 413:
        return "raise the limit of the proxy before it (nginx: client_max_body_size 0)"
    return "try again later"


def _pause_s(asked: str, tried: int) -> float:
    return min(_LONGEST_PAUSE_S, float(asked) if asked.isdigit() else 0.2 * 2.0**tried)


def _innermost(error: BaseException) -> str:
    """What went wrong, without the layers of libraries around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)
