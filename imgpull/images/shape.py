"""The shape of an image that is to be made: its layers' sizes, files and compression.

Hides where a shape comes from: an image of conf/image, or figures on the command line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from imgpull import units
from imgpull.config.image import Image
from imgpull.errors import ConfigError

# ASSUMPTION: the mean size of a file in an image of machine learning (10^4 to 10^5 files).
_BYTES_A_FILE = 256 * 1024
# ASSUMPTION: unpacked over compressed, within the 2.0 to 2.9 that were seen (docs/simulator.md).
RATIO = 2.4
# What gzip and zstd can be brought to: nothing shrinks below the first, random bytes grow so much.
_LEAST_SHARE, _MOST_SHARE = 0.02, 1.001
_SLACK_BYTES = 4096  # of headers and padding
_PLATFORM = "linux/amd64"  # of the program that keeps a container running


@dataclass(frozen=True)
class LayerShape:
    """One layer; `content` names what is in it, so that two of one name are the same."""

    compressed_bytes: int
    unpacked_bytes: int  # of its archive
    compression: str
    files: int
    content: str


@dataclass(frozen=True)
class Shape:
    """An image. `command` is what its pods will start; empty: its own."""

    layers: tuple[LayerShape, ...]
    command: tuple[str, ...] = ()

    @property
    def compressed_bytes(self) -> int:
        """What crosses the network in a cold pull."""
        return sum(layer.compressed_bytes for layer in self.layers)

    @property
    def unpacked_bytes(self) -> int:
        """What lands in the snapshotter."""
        return sum(layer.unpacked_bytes for layer in self.layers)


def like(image: Image, *, files: int | None = None, compression: str | None = None) -> Shape:
    """The shape of an image of conf/image; ConfigError where it does not say, or cannot be."""
    if not image.layers:
        raise ConfigError(
            f"image {image.name} has no layer table",
            hint=f"imgpull image inspect {image.reference}",
        )
    if image.platform != _PLATFORM:
        raise ConfigError(
            f"image {image.name} is for {image.platform}, and images are made for {_PLATFORM} only",
            hint=f"image.platform={_PLATFORM}",
        )
    sizes: list[tuple[int, int]] = []
    for number, layer in enumerate(image.layers, 1):
        if layer.unpacked_bytes is None:
            raise ConfigError(
                f"image {image.name}: the unpacked size of layer {number} is not known",
                hint=f"imgpull image inspect --download --force {image.reference}",
            )
        sizes.append((layer.compressed_bytes, layer.unpacked_bytes))
    counts = _file_counts([unpacked for _, unpacked in sizes], files)
    layers = [
        LayerShape(
            size[1] if (how := compression or layer.compression) == "none" else size[0],
            size[1], how, count, layer.digest or f"layer {number}",
        )
        for number, (layer, size, count) in enumerate(
            zip(image.layers, sizes, counts, strict=True), 1
        )
    ]  # fmt: skip
    return _checked(Shape(tuple(layers), image.command), f"image {image.name}")


def even(
    compressed_bytes: int,
    layers: int,
    *,
    ratio: float = RATIO,
    files: int | None = None,
    compression: str = "gzip",
) -> Shape:
    """A shape of equal layers; `ratio` is unpacked over compressed."""
    if layers < 1 or compressed_bytes < layers:
        raise ConfigError(
            f"--size {compressed_bytes} in --layers {layers} is no image",
            hint="for example --size 2GB --layers 10",
        )
    share = compressed_bytes // layers
    unpacked = share if compression == "none" else round(share * ratio)
    counts = _file_counts([unpacked] * layers, files)
    made = [
        LayerShape(share, unpacked, compression, count, f"layer {number}")
        for number, count in enumerate(counts, 1)
    ]
    return _checked(Shape(tuple(made)), f"--ratio {ratio:g}")


def _file_counts(unpacked: Sequence[int], files: int | None) -> list[int]:
    """How many files each layer has: in proportion to its size, at least one."""
    if files is None:
        return [max(1, round(size / _BYTES_A_FILE)) for size in unpacked]
    if files < len(unpacked):
        raise ConfigError(
            f"--files {files} is fewer than the image's {len(unpacked)} layers",
            hint=f"--files {len(unpacked)} or more: each layer has one",
        )
    total, left = sum(unpacked), files - len(unpacked)
    return [1 + math.floor(left * size / total) for size in unpacked]


def _checked(shape: Shape, what: str) -> Shape:
    for number, layer in enumerate(shape.layers, 1):
        least = _LEAST_SHARE * layer.unpacked_bytes - _SLACK_BYTES
        most = _MOST_SHARE * layer.unpacked_bytes + _SLACK_BYTES
        if layer.compression != "none" and not least <= layer.compressed_bytes <= most:
            raise ConfigError(
                f"{what}: {units.format_size(layer.unpacked_bytes)} unpacked cannot be "
                f"{units.format_size(layer.compressed_bytes)} in {layer.compression} "
                f"(layer {number})",
                hint="unpacked over compressed is from 1 to 50; real images have 2 to 3",
            )
    return shape
