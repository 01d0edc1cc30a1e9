"""What a registry knows of an image: its digests, its layers, what it runs.

Hides the forms of manifests, how a platform is chosen, and compression. Nothing is kept: with
`download` the layers stream through to be counted.
"""

import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from imgpull.cluster.registry_client import Missing, Repository
from imgpull.cluster.registry_login import DOCKER_HUB, Logins, docker_logins
from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable

_CHUNK_BYTES = 2**20
_REFERENCE = re.compile(
    r"(?P<path>[^@:\s]+(?::[0-9]+(?=/)[^@:\s]+)?)(?::(?P<tag>[^@:/\s]+))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_COMPRESSIONS = (("gzip", "gzip"), ("zstd", "zstd"), ("tar", "none"))  # by how a media type ends

Say = Callable[[str], None]


@dataclass(frozen=True)
class RegistryLayer:
    """One layer as stored. `unpacked_bytes` (of its archive) is None until downloaded."""

    digest: str
    diff_id: str  # of the archive
    compressed_bytes: int
    unpacked_bytes: int | None
    compression: str


@dataclass(frozen=True)
class ImageInfo:
    """One image for one platform. `digest` is what a pod pins: of the index, where there is one."""

    reference: str  # registry/repository:tag
    digest: str
    manifest_digest: str
    config_digest: str  # the image's ID on a node
    platform: str
    platforms: tuple[str, ...]
    layers: tuple[RegistryLayer, ...]
    command: tuple[str, ...]  # its own entrypoint and arguments

    @property
    def compressed_bytes(self) -> int:
        """What crosses the network in a cold pull."""
        return sum(layer.compressed_bytes for layer in self.layers)


def inspect(
    reference: str,
    platform: str = "linux/amd64",
    credentials: Logins | None = None,
    *,
    download: bool = False,
    say: Say = lambda _: None,
) -> ImageInfo:
    """The image that a reference (with tag, digest or both) names, as its registry has it now.

    Credentials are docker's own unless given. Registries on loopback are spoken to without TLS.
    ConfigError when there is no such image, EngineUnavailable when the registry cannot be asked.
    """
    host, path, tag, digest = parts(reference)
    # A pod that names a digest is not asked for its tag.
    named = f"{host}/{path}:{tag or 'by-digest'}"
    with Repository(host, path, credentials or docker_logins()) as repository:
        try:
            top_digest, top = repository.manifest(digest or tag)
        except Missing as error:
            raise _not_found(repository, tag, digest) from error
        manifest_digest, manifest = top_digest, top
        platforms: tuple[str, ...] = ()
        if "manifests" in top:
            offered = _offered(top)
            platforms = tuple(offered)
            chosen = offered[_choose(named, platform, platforms)]
            manifest_digest, manifest = repository.manifest(chosen)
        _check_manifest(named, manifest)
        config_digest = manifest["config"]["digest"]
        config = _config(repository, config_digest)
        platforms = platforms or (_platform_name(config),)
        _choose(named, platform, platforms)
        layers = tuple(_layers(repository, manifest, config, say if download else None))
    settings = config.get("config") or {}
    command = (*(settings.get("Entrypoint") or ()), *(settings.get("Cmd") or ()))
    return ImageInfo(
        named, top_digest, manifest_digest, config_digest, platform, platforms, layers, command
    )


def image_yaml(info: ImageInfo, name: str) -> str:
    """The text of conf/image/NAME.yaml."""
    lines = [
        f"# {len(info.layers)} layers, {info.compressed_bytes} B compressed, of the manifest.",
        "# Unpacked sizes, which engine=sim needs: imgpull image inspect --download.",
        f"name: {name}",
        f"reference: {info.reference}",
        f"digest: {info.digest}",
        *_command_yaml(info.command),
        "args: []",
        "pull_secret: null",
        f"platform: {info.platform}",
        "layers:",
    ]
    for layer in info.layers:
        unpacked = "null" if layer.unpacked_bytes is None else layer.unpacked_bytes
        lines.append(
            f"  - {{compressed_bytes: {layer.compressed_bytes}, unpacked_bytes: {unpacked}, "
            f"compression: {layer.compression}, digest: '{layer.digest}'}}"
        )
    return "\n".join(lines) + "\n"


def image_name(reference: str) -> str:
    """What to call the file of an image: the last part of its repository, as Hydra takes it."""
    last = parts(reference)[1].rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")


def keeps_running(command: tuple[str, ...]) -> bool:
    """Whether a command is known to run until it is stopped."""
    words = tuple(word.rpartition("/")[2] for word in command)
    return words[:1] == ("pause",) or words[:2] == ("sleep", "infinity")


def _command_yaml(command: tuple[str, ...]) -> list[str]:
    own = json.dumps(" ".join(command)) if command else "none"
    if keeps_running(command):
        return [f"command: [] # its own keeps running: {own}"]
    return [
        f"# A container that exits never counts as running. The image's own command may: {own}.",
        "command: [sleep, infinity] # the image must have `sleep`; else name what keeps it running",
    ]


def parts(reference: str) -> tuple[str, str, str, str]:
    """Host, path, tag and digest ("" for none); a tag or digest is there."""
    found = _REFERENCE.fullmatch(reference)
    if found is None or not (found["tag"] or found["digest"]):
        raise ConfigError(
            f"'{reference}' is not registry/repository:tag",
            hint="for example myregistry.azurecr.io/pytorch:2.3",
        )
    host, _, path = found["path"].partition("/")
    # distribution/reference: a first part without '.' or port is no host.
    if not path or not ("." in host or ":" in host or host == "localhost"):
        host, path = DOCKER_HUB, found["path"]
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return host, path, found["tag"] or "", found["digest"] or ""


def _not_found(repository: Repository, tag: str, digest: str) -> ConfigError:
    try:
        tags = repository.tags()
    except Missing:
        return ConfigError(
            f"registry {repository.host} has no repository {repository.repository}",
            hint="check image.reference, and push the image",
        )
    except (EngineUnavailable, EngineFailed):
        tags = []  # to list them may be forbidden where to pull is not
    near = get_close_matches(tag, tags, n=3, cutoff=0.3) or sorted(tags)[-3:]
    return ConfigError(
        f"{repository.host}/{repository.repository} has no {digest or f'tag {tag}'}",
        hint=f"it has {', '.join(near)}" if near else "check image.reference, and push the image",
    )


def _check_manifest(named: str, manifest: dict[str, Any]) -> None:
    if not {"config", "layers"} <= manifest.keys():
        raise ConfigError(
            f"{named} has a manifest of schema {manifest.get('schemaVersion')}, type "
            f"{manifest.get('mediaType', 'not said')}, which has no layers and configuration",
            hint="push it again with a current docker, or name a container image",
        )


def _offered(index: dict[str, Any]) -> dict[str, str]:
    """Digests by platform. Attestations have platform "unknown" (buildkit docs, attestations)."""
    found: dict[str, str] = {}
    for each in index["manifests"]:
        name = _platform_name(each.get("platform") or {})
        if "unknown" not in name:
            found.setdefault(name, each["digest"])
    return found


def _platform_name(described: dict[str, Any]) -> str:
    parts = [described.get("os") or "unknown", described.get("architecture") or "unknown"]
    return "/".join([*parts, *filter(None, [described.get("variant")])])


def _choose(named: str, platform: str, platforms: tuple[str, ...]) -> str:
    for each in platforms:
        if each == platform or each.startswith(f"{platform}/"):  # its variant was not asked for
            return each
    raise ConfigError(
        f"{named} is not there for {platform}, only for {', '.join(platforms) or 'nothing'}",
        hint=f"image.platform={platforms[0]}" if platforms else "push it again",
    )


def _config(repository: Repository, digest: str) -> dict[str, Any]:
    try:
        found = json.loads(repository.blob(digest))
    except (ValueError, Missing) as error:
        raise repository.broken(f"the configuration {digest} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _layers(
    repository: Repository, manifest: dict[str, Any], config: dict[str, Any], say: Say | None
) -> Iterator[RegistryLayer]:
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    described = manifest["layers"]
    if len(diff_ids) != len(described):
        raise repository.broken(f"{len(described)} layers, but {len(diff_ids)} diff IDs")
    for index, (layer, diff_id) in enumerate(zip(described, diff_ids, strict=True)):
        compression = _compression(repository, layer.get("mediaType", ""))
        unpacked = None
        if say:
            say(f"layer {index + 1} of {len(described)}, {layer['size']} bytes")
            unpacked = _unpacked_bytes(repository, layer["digest"], compression, diff_id)
        yield RegistryLayer(layer["digest"], diff_id, layer["size"], unpacked, compression)


def _compression(repository: Repository, media_type: str) -> str:
    for end, compression in _COMPRESSIONS:
        if media_type.endswith(end):
            return compression
    raise ConfigError(
        f"{repository.host}/{repository.repository} has a layer of type '{media_type}', which is "
        "no file system",
        hint="name a container image",
    )


def _unpacked_bytes(repository: Repository, digest: str, compression: str, diff_id: str) -> int:
    try:
        size, found = repository.streamed(digest, lambda chunks: _unpacked(chunks, compression))
    except (OSError, EOFError, zlib.error, _zstd().ZstdError, Missing) as error:
        raise repository.broken(f"layer {digest} cannot be unpacked: {error}") from error
    if found != diff_id:
        raise repository.broken(f"layer {digest} unpacks to {found}, not to {diff_id}")
    return size


def _unpacked(chunks: Iterator[bytes], compression: str) -> tuple[int, str]:
    """Size and diff ID of a layer's archive."""
    packed = io.BufferedReader(_Chunks(chunks), _CHUNK_BYTES)
    digest, size = hashlib.sha256(), 0
    with _opened(packed, compression) as archive:
        while chunk := archive.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    while packed.read(_CHUNK_BYTES):  # to its end, where its own digest is checked
        pass
    return size, f"sha256:{digest.hexdigest()}"


def _opened(packed: Any, compression: str) -> AbstractContextManager[Any]:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=packed)
    if compression == "zstd":
        opened: AbstractContextManager[Any] = _zstd().ZstdFile(packed)
        return opened
    return nullcontext(packed)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class _Chunks(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if not (chunk := next(self._chunks, None)):
                return 0
            self._rest = chunk
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)
