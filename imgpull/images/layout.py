"""An OCI image layout on this machine: a directory, or one tar file of it.

Hides how a blob whose digest is known only at its end gets its name: the directory renames it, the
tar file has its header written last.
"""

import errno
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

from imgpull.errors import ConfigError, EngineUnavailable

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_INDEX = "application/vnd.oci.image.index.v1+json"
_BLOCK = 512


def layout(target: Path, tag: str) -> "Directory | TarFile":
    """A new layout: a tar file if it is named *.tar; ConfigError when it is there."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise ConfigError(f"{target} exists", hint=f"another name, or: rm -r {target}")
    return TarFile(target, tag) if target.suffix == ".tar" else Directory(target, tag)


class Directory:
    """An image layout as files."""

    def __init__(self, target: Path, tag: str) -> None:
        self.reference, self._tag, self._blobs = str(target), tag, target / "blobs" / "sha256"
        self._target = target

    def __enter__(self) -> "Directory":
        with _told(self._target):
            self._blobs.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        """What is there stays: each blob is whole."""

    def blob(self) -> "_File":
        """Begin a blob."""
        return _File(self._blobs)

    def finish(self, manifest: bytes, media_type: str, digest: str) -> None:
        """Have the manifest, and what leads to it."""
        with _told(self._target):
            (self._blobs / digest.removeprefix("sha256:")).write_bytes(manifest)
            (self._target / "oci-layout").write_bytes(_LAYOUT)
            index = _index(manifest, media_type, digest, self._tag)
            (self._target / "index.json").write_bytes(index)


class _File:
    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "incomplete"
        with _told(folder):
            self._file = self._path.open("wb")

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None:
            self._path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        with _told(self._folder):
            self._file.write(data)

    def finish(self, digest: str) -> None:
        with _told(self._folder):
            self._file.close()
            self._path.rename(self._folder / digest.removeprefix("sha256:"))


class TarFile:
    """An image layout as one tar file, as `docker load` and `ctr images import` read it."""

    def __init__(self, target: Path, tag: str) -> None:
        self.reference, self._tag, self._target = str(target), tag, target
        self._part = target.with_name(f"{target.name}.part")

    def __enter__(self) -> "TarFile":
        with _told(self._target):
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._file: BufferedRandom = self._part.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def blob(self) -> "_Member":
        """Begin a blob."""
        return _Member(self._file, self._target)

    def finish(self, manifest: bytes, media_type: str, digest: str) -> None:
        """Have the manifest, and what leads to it."""
        with _told(self._target):
            self._add(f"blobs/sha256/{digest.removeprefix('sha256:')}", manifest)
            self._add("oci-layout", _LAYOUT)
            self._add("index.json", _index(manifest, media_type, digest, self._tag))
            self._file.write(bytes(2 * _BLOCK))
            self._file.flush()
            self._part.rename(self._target)

    def _add(self, name: str, content: bytes) -> None:
        self._file.write(_header(name, len(content)) + content + bytes(-len(content) % _BLOCK))


class _Member:
    def __init__(self, file: BufferedRandom, target: Path) -> None:
        self._file, self._target, self._begin = file, target, file.tell()
        self.write(bytes(_BLOCK))

    def __enter__(self) -> "_Member":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._file.seek(self._begin)

    def write(self, data: bytes) -> None:
        with _told(self._target):
            self._file.write(data)

    def finish(self, digest: str) -> None:
        with _told(self._target):
            size = self._file.tell() - self._begin - _BLOCK
            self._file.write(bytes(-size % _BLOCK))
            self._file.seek(self._begin)
            self._file.write(_header(f"blobs/sha256/{digest.removeprefix('sha256:')}", size))
            self._file.seek(0, os.SEEK_END)


def _header(name: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    return entry.tobuf(tarfile.GNU_FORMAT)


def _index(manifest: bytes, media_type: str, digest: str, tag: str) -> bytes:
    described = {
        "mediaType": media_type,
        "digest": digest,
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
    return json.dumps(index).encode()


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """A disk's refusal, in our words."""
    try:
        yield
    except OSError as error:
        fix = "choose a directory that you may write to"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space, or push to a registry: it needs no room here"
        raise EngineUnavailable(f"{target}: {error.strerror}", hint=fix) from error
