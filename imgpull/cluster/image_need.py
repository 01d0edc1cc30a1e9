"""How much room an image needs on a node that pulls it.

Hides that containerd keeps the compressed layers beside the unpacked ones, and what is assumed
where nobody knows how large they unpack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from imgpull import units
from imgpull.cluster.nodes import NodeFacts
from imgpull.config.image import Image

# ASSUMPTION, on the safe side: images of conf/image unpack to 2.1 to 2.5 times their size.
UNPACKED_SHARE = 3.0


@dataclass(frozen=True)
class ImageNeed:
    """Bytes that an image takes, compressed and unpacked, and the names that nodes know it by."""

    compressed_bytes: int
    unpacked_bytes: int
    is_assumed: bool
    names: frozenset[str]

    @property
    def total_bytes(self) -> int:
        """What a pull takes from the disk."""
        return self.compressed_bytes + self.unpacked_bytes

    def is_held_by(self, node: NodeFacts) -> bool:
        """Whether a node has it already, so that a cold trial begins by freeing as much."""
        return not self.names.isdisjoint(node.images)

    def __str__(self) -> str:
        compressed = units.format_size(self.compressed_bytes)
        how = f"ASSUMPTION {UNPACKED_SHARE:g} times that" if self.is_assumed else "as described"
        return (
            f"the image needs {units.format_size(self.total_bytes)} ({compressed} compressed, "
            f"unpacked {how})"
        )


def image_need(image: Image, found: Sequence[int] = ()) -> ImageNeed | None:
    """The need of an image, by its layer table or the compressed sizes `found` in its registry.

    None when neither is there.
    """
    compressed = sum(found) if found else image.compressed_bytes
    if compressed is None:
        return None
    unpacked = image.unpacked_bytes
    repository = image.reference.rpartition(":")[0]
    names = {image.reference} | ({f"{repository}@{image.digest}"} if image.digest else set())
    return ImageNeed(
        compressed,
        round(compressed * UNPACKED_SHARE) if unpacked is None else unpacked,
        unpacked is None,
        frozenset(names),
    )
