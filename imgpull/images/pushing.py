"""Blobs and manifests into a registry, as they are made.

Hides the upload of the distribution API: in chunks, because what is still being made has no digest
yet; what a registry forgot half-way is made again by whoever makes it (`LostBlob`).
Of the libraries, `dxf` uploads only under a digest that is known before, and `oras` reads a file.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlencode

from imgpull.cluster import registry
from imgpull.cluster.registry_client import Busy, Declined, Missing, Repository
from imgpull.cluster.registry_login import Logins, docker_logins
from imgpull.errors import ConfigError, EngineUnavailable

# As Azure's own SDK sends them to ACR. A registry may ask for larger ones.
_CHUNK_BYTES = 4 * 2**20
_TRIES = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_PATIENCE_S = 300.0  # with a registry that throttles, for one chunk
_OCTETS = "application/octet-stream"
# What a registry says to an upload that it does not know any more, or not so far.
_FORGOTTEN = (400, 416)


class LostBlob(Exception):
    """A registry lost what was uploaded of a blob: it must be made from its begin."""


class Destination:
    """One repository that is written to, and the tag that an image gets at the end."""

    def __init__(self, reference: str, credentials: Logins | None = None) -> None:
        host, path, tag, digest = registry.parts(reference)
        if digest or not tag:
            raise ConfigError(
                f"'{reference}' names a digest, which an image gets when it is made",
                hint=f"push to {host}/{path}:TAG",
            )
        self.reference, self._tag = f"{host}/{path}:{tag}", tag
        self._repository = Repository(host, path, credentials or docker_logins(), writes=True)

    def __enter__(self) -> "Destination":
        self._repository.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._repository.__exit__(kind, error, trace)

    def blob(self) -> "Upload":
        """Begin a blob."""
        return Upload(self._repository)

    def check(self) -> None:
        """EngineUnavailable when it would not take a blob; nothing stays there."""
        Upload(self._repository).call_off()

    def tags(self) -> list[str]:
        """The tags of the repository; Missing when there is none."""
        return self._repository.tags()

    def finish(self, manifest: bytes, media_type: str, digest: str) -> None:
        """Have the manifest under the tag."""
        found = self._repository.send(
            "put", f"manifests/{self._tag}", manifest, {"Content-Type": media_type}
        )
        told = found.get("Docker-Content-Digest", digest)
        if told != digest:
            raise self._repository.broken(f"the manifest {digest} was stored as {told}")


class Upload:
    """One blob on its way. Not finished, it is called off at the end of a `with`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._waiting: list[memoryview] = []
        self._waiting_bytes, self._sent_bytes = 0, 0
        try:
            begun = repository.send("post", "blobs/uploads/")
        except Missing as error:
            raise EngineUnavailable(
                f"registry {repository.host} takes no upload to {repository.repository} (404)",
                hint="check the name; some registries want the repository made first",
            ) from error
        self._url = begun["Location"]
        least = begun.get("OCI-Chunk-Min-Length", "")
        self._chunk_bytes = max(_CHUNK_BYTES, int(least) if least.isdigit() else 0)

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and kind is not LostBlob:
            self.call_off()

    def call_off(self) -> None:
        """Have the registry forget it, which it else does by itself, in a week or so."""
        with contextlib.suppress(EngineUnavailable, Missing):
            self._repository.send("delete", self._url, tries=1)

    def write(self, data: bytes) -> None:
        """Take the next bytes; they are sent a chunk at a time."""
        rest = memoryview(data)
        while self._waiting_bytes + len(rest) >= self._chunk_bytes:
            room = self._chunk_bytes - self._waiting_bytes
            self._send(b"".join([*self._waiting, rest[:room]]))
            self._waiting, self._waiting_bytes, rest = [], 0, rest[room:]
        if rest:
            self._waiting.append(rest)
            self._waiting_bytes += len(rest)

    def finish(self, digest: str) -> None:
        """All was written: it has this digest."""
        if self._waiting:
            self._send(b"".join(self._waiting))
            self._waiting, self._waiting_bytes = [], 0
        joined = "&" if "?" in self._url else "?"
        url = f"{self._url}{joined}{urlencode({'digest': digest})}"
        try:
            self._repository.send("put", url, b"", {"Content-Type": _OCTETS})
        except Missing as error:
            raise LostBlob from error
        except Declined as error:
            if error.status in _FORGOTTEN:
                raise LostBlob from error
            raise

    def _send(self, chunk: bytes) -> None:
        tried, waited_s = 0, 0.0
        while True:
            try:
                if tried:
                    chunk = chunk[self._take_arrived(len(chunk)) :]
                if chunk:
                    self._patch(chunk)
            except Busy as error:
                backoff_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tried)
                tried, pause_s = tried + 1, max(error.pause_s, backoff_s)
                waited_s += pause_s
                # Throttling passes in minutes; what is broken stays so.
                if waited_s > _PATIENCE_S or (tried == _TRIES and not error.is_throttled):
                    raise
                time.sleep(pause_s)
            except Missing as error:
                raise LostBlob from error
            except Declined as error:
                if error.status in _FORGOTTEN:
                    raise LostBlob from error
                raise
            else:
                return

    def _patch(self, chunk: bytes) -> None:
        end = self._sent_bytes + len(chunk)
        headers = {"Content-Type": _OCTETS, "Content-Range": f"{self._sent_bytes}-{end - 1}"}
        self._follow(self._repository.send("patch", self._url, chunk, headers, tries=1))
        self._sent_bytes = end

    def _take_arrived(self, of_bytes: int) -> int:
        """How much of a chunk came through although nothing said so; LostBlob for nonsense."""
        arrived = self._arrived_bytes() - self._sent_bytes
        if not 0 <= arrived <= of_bytes:
            raise LostBlob
        self._sent_bytes += arrived
        return arrived

    def _arrived_bytes(self) -> int:
        """How much of the upload the registry has; LostBlob when it does not know."""
        try:
            told = self._repository.send("get", self._url, tries=1)
        except (Missing, Declined) as error:
            raise LostBlob from error
        self._follow(told)
        begin, _, last = told.get("Range", "").removeprefix("bytes=").partition("-")
        if begin != "0" or not last.isdigit():
            raise LostBlob
        # "0-0" is what an empty upload has, too, and no chunk of ours is one byte.
        return int(last) + 1 if int(last) else 0

    def _follow(self, told: Mapping[str, str]) -> None:
        self._url = told.get("Location", self._url)


def labels(reference: str, credentials: Logins | None = None) -> tuple[str, Mapping[str, str]]:
    """The reference by digest of what is there, and its labels; ConfigError when there is none."""
    host, path, tag, digest = registry.parts(reference)
    with Repository(host, path, credentials or docker_logins()) as repository:
        try:
            found, manifest = repository.manifest(digest or tag)
            # An index has no configuration, and none of ours is one.
            config = (
                repository.blob(manifest["config"]["digest"]) if "config" in manifest else b"{}"
            )
            told = json.loads(config).get("config") or {}
        except Missing as error:
            raise _not_there(reference) from error
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise repository.broken(f"the configuration of {reference} is none") from error
    return f"{host}/{path}@{found}", told.get("Labels") or {}


def delete(reference: str, credentials: Logins | None = None) -> str:
    """Delete the manifest that a reference names, with all its tags; its digest.

    The registry frees the layers when it collects garbage. ConfigError when there is none.
    """
    host, path, tag, digest = registry.parts(reference)
    with Repository(host, path, credentials or docker_logins(), writes=True) as repository:
        try:
            found = digest or repository.manifest(tag)[0]
            repository.send("delete", f"manifests/{found}")
        except Missing as error:
            raise _not_there(reference) from error
        except Declined as error:
            if error.status != 405:
                raise
            raise EngineUnavailable(
                f"registry {host} deletes nothing (405)",
                hint="its own setting: REGISTRY_STORAGE_DELETE_ENABLED=true for docker's registry",
            ) from error
    return found


def _not_there(reference: str) -> ConfigError:
    return ConfigError(f"{reference} is not there", hint="nothing is left to delete")
