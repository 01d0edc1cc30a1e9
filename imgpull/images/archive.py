"""A layer's archive (tar) as a plan: headers, and how much content follows each.

Hides tar, and how files are made to add up to the size that was asked for. Nothing of this machine
gets in: no time, no owner, names in order.
"""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from imgpull.images.shape import LayerShape

_BLOCK = 512
_END_BLOCKS = 2  # of zeros
_FILES_A_DIRECTORY = 1000


@dataclass(frozen=True)
class Part:
    """What comes next: bytes as they are, then this much content."""

    head: bytes
    content_bytes: int = 0


def parts(shape: LayerShape, program: tuple[str, bytes] | None = None) -> Iterator[Part]:
    """The parts of an archive, each a multiple of 512 bytes; `program` is (path, bytes)."""
    if program:
        path, body = program
        yield Part(_header(path, len(body), 0o755) + body + bytes(-len(body) % _BLOCK))
    sizes = _sizes(shape, _program_blocks(program))
    # Named by what is in it, so that the layers of an image do not hide each other's files.
    top = hashlib.sha256(shape.content.encode()).hexdigest()[:8]
    for index, blocks in enumerate(sizes):
        folder, name = divmod(index, _FILES_A_DIRECTORY)
        path = f"imgpull/{top}/{folder:03d}/{name:03d}"
        yield Part(_header(path, blocks * _BLOCK, 0o644), blocks * _BLOCK)
    yield Part(bytes(_END_BLOCKS * _BLOCK))


def archive_bytes(shape: LayerShape, program: tuple[str, bytes] | None = None) -> int:
    """The size of the archive: what was asked for, to the nearest block, at least one file."""
    sizes = _sizes(shape, _program_blocks(program))
    return (sum(sizes) + len(sizes) + _program_blocks(program) + _END_BLOCKS) * _BLOCK


def _program_blocks(program: tuple[str, bytes] | None) -> int:
    return 1 + -(-len(program[1]) // _BLOCK) if program else 0


def _sizes(shape: LayerShape, program_blocks: int) -> list[int]:
    """Blocks of content of each file."""
    room = max(2, round(shape.unpacked_bytes / _BLOCK) - _END_BLOCKS - program_blocks)
    files = max(1, min(shape.files, room // 2))
    each, more = divmod(room - files, files)
    return [each + (index < more) for index in range(files)]


def _header(path: str, size_bytes: int, mode: int) -> bytes:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size_bytes, mode
    # Of tar's formats the one whose sizes have no limit without a second header.
    return entry.tobuf(tarfile.GNU_FORMAT)
