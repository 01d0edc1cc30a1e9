"""A whole image: its layers one after the other, then what describes them.

Hides the formats of OCI (image-spec: config, manifest), and what is done when a registry loses a
layer half-way.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from imgpull import units
from imgpull.errors import EngineUnavailable
from imgpull.images import layer as layers
from imgpull.images.layer import MadeLayer
from imgpull.images.program import path_for, sleeper
from imgpull.images.pushing import LostBlob
from imgpull.images.shape import LayerShape, Shape

_OCI = "application/vnd.oci.image"
MANIFEST = f"{_OCI}.manifest.v1+json"
_LAYER_TYPES = {"gzip": ".tar+gzip", "zstd": ".tar+zstd", "none": ".tar"}
_MADE_AGAIN = 3  # times, of one layer
SALT_LABEL = "dev.imgpull.salt"

# Told how far it is: bytes that went out, and all that will.
Progress = Callable[[int, int], None]


class Blob(Protocol):
    """Where one blob goes."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None: ...
    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def finish(self, digest: str) -> None:
        """All was written."""


class Target(Protocol):
    """Where an image goes: a registry, or a layout on this machine."""

    reference: str

    def blob(self) -> Blob:
        """Begin a blob."""

    def finish(self, manifest: bytes, media_type: str, digest: str) -> None:
        """Have the manifest, and be done."""


@dataclass(frozen=True)
class Built:
    """An image that was made and is where it should be."""

    reference: str
    digest: str
    config_digest: str
    layers: tuple[MadeLayer, ...]
    wall_s: float

    @property
    def compressed_bytes(self) -> int:
        """What crosses the network in a cold pull."""
        return sum(layer.compressed_bytes for layer in self.layers)

    @property
    def unpacked_bytes(self) -> int:
        """What lands in the snapshotter."""
        return sum(layer.unpacked_bytes for layer in self.layers)


def build(
    shape: Shape, salt: str, target: Target, progress: Progress = lambda done, of: None
) -> Built:
    """Make an image and have it at its target. No layer of one salt is one of another."""
    begun = time.monotonic()
    program = path_for(shape.command), sleeper()
    made: list[MadeLayer] = []
    sent = 0
    for layer in shape.layers:
        made.append(_layer(layer, salt, target, program if not made else None, _Counted(
            sent, shape.compressed_bytes, progress)))  # fmt: skip
        sent += made[-1].compressed_bytes
    config = _config(made, salt, program[0])
    config_digest = _digest(config)
    _whole(target, config, config_digest)
    manifest = _manifest(made, config, config_digest)
    digest = _digest(manifest)
    target.finish(manifest, MANIFEST, digest)
    return Built(target.reference, digest, config_digest, tuple(made), time.monotonic() - begun)


@dataclass
class _Counted:
    """What went out, all layers together."""

    before: int
    of: int
    progress: Progress
    sent: int = 0

    def add(self, data: bytes) -> None:
        self.sent += len(data)
        self.progress(self.before + self.sent, self.of)


def _layer(
    shape: LayerShape,
    salt: str,
    target: Target,
    program: tuple[str, bytes] | None,
    counted: _Counted,
) -> MadeLayer:
    def take(data: bytes) -> None:
        blob.write(data)
        counted.add(data)

    for _ in range(_MADE_AGAIN):
        counted.sent = 0
        try:
            with target.blob() as blob:
                made = layers.make(shape, salt, take, program)
                blob.finish(made.digest)
        except LostBlob:
            continue
        return made
    raise EngineUnavailable(
        f"{target.reference}: the registry lost a layer of "
        f"{units.format_size(shape.compressed_bytes)} {_MADE_AGAIN} times",
        hint="is it one of several that share no storage? Its log says; then build it again",
    )


def _whole(target: Target, content: bytes, digest: str) -> None:
    """A small blob."""
    for _ in range(_MADE_AGAIN):
        try:
            with target.blob() as blob:
                blob.write(content)
                blob.finish(digest)
        except LostBlob:
            continue
        return
    raise EngineUnavailable(
        f"{target.reference}: the registry lost the image's configuration {_MADE_AGAIN} times",
        hint="see the registry's log, then build it again",
    )


def _config(made: list[MadeLayer], salt: str, program: str) -> bytes:
    return _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": [f"/{program}", "infinity"],
                "Labels": {SALT_LABEL: salt},
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in made]},
        }
    )


def _manifest(made: list[MadeLayer], config: bytes, config_digest: str) -> bytes:
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": f"{_OCI}.config.v1+json",
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": f"{_OCI}.layer.v1{_LAYER_TYPES[layer.compression]}",
                    "digest": layer.digest,
                    "size": layer.compressed_bytes,
                }
                for layer in made
            ],
        }
    )


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
