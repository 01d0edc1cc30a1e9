"""The group `image`, and every other image of the simulated registry, with sizes in bytes.

Hides how sizes are written and what makes two layers one: the digest that both name.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imgpull import units
from imgpull.config import schema
from imgpull.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    """One image layer, sizes in bytes. `digest` names its content; None: no other layer has it."""

    compressed_bytes: int
    unpacked_bytes: int | None  # None: unknown
    compression: str
    digest: str | None = None


@dataclass(frozen=True)
class Image:
    """What is pulled. Without a layer table its sizes are unknown (None)."""

    name: str
    reference: str
    digest: str | None
    command: tuple[str, ...]
    args: tuple[str, ...]
    pull_secret: str | None
    platform: str
    layers: tuple[Layer, ...]

    @property
    def compressed_bytes(self) -> int | None:
        """What crosses the network in a cold pull."""
        return sum(layer.compressed_bytes for layer in self.layers) if self.layers else None

    @property
    def unpacked_bytes(self) -> int | None:
        """What lands in the snapshotter."""
        sizes = [layer.unpacked_bytes for layer in self.layers]
        return sum(size or 0 for size in sizes) if sizes and None not in sizes else None

    @property
    def pinned_reference(self) -> str:
        """The reference that pods name: by digest when one is given."""
        return f"{self.reference}@{self.digest}" if self.digest else self.reference


def image_from(image: schema.Image) -> Image:
    """The image with its sizes in bytes."""
    return Image(
        name=image.name,
        reference=image.reference,
        digest=image.digest,
        command=tuple(image.command),
        args=tuple(image.args),
        pull_secret=image.pull_secret,
        platform=image.platform,
        layers=layers_from(image.layers, "image.layers"),
    )


def layers_from(layers: Sequence[schema.Layer], where: str) -> tuple[Layer, ...]:
    """A layer table with its sizes in bytes; ConfigError names the key under `where`."""
    return tuple(
        Layer(
            _size(layer.compressed_bytes, f"{where}[{index}].compressed_bytes"),
            None
            if layer.unpacked_bytes is None
            else _size(layer.unpacked_bytes, f"{where}[{index}].unpacked_bytes"),
            layer.compression.name,
            layer.digest,
        )
        for index, layer in enumerate(layers)
    )


def check_digests(tables: Iterable[tuple[Layer, ...]]) -> None:
    """ConfigError when two layers of one digest, in any of these tables, are not alike."""
    known: dict[str, Layer] = {}
    for layer in (layer for table in tables for layer in table):
        if layer.digest is not None and known.setdefault(layer.digest, layer) != layer:
            raise ConfigError(
                f"two layers have digest '{layer.digest}', but not the same sizes and compression",
                hint="give each content a digest of its own, or layers[].digest=null",
            )


def _size(text: str, key: str) -> int:
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}", hint=f"edit {key}") from error
