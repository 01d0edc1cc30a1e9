"""One layer made as a stream: content, archive, compression, hashes, all at once.

Hides how the layer comes out at its compressed size: after each batch it is known what is left to
fill, and the next batch is made as compressible as that asks for; batches get smaller towards the
end. And hides the threads: the hashes and whoever takes the layer work beside the compressor.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from imgpull.images.archive import Part, archive_bytes, parts
from imgpull.images.content import Content
from imgpull.images.packing import packer
from imgpull.images.shape import LayerShape

_BATCH_BYTES, _LEAST_BATCH_BYTES = 2**20, 4096
_SHORT_BYTES = 256 * 1024
_QUEUED = 16  # batches on their way to each thread; a chunk of an upload holds several
_RESERVED_SHARE, _RESERVED_BYTES = 0.0005, 4096

T = TypeVar("T")
Take = Callable[[bytes], object]


@dataclass(frozen=True)
class MadeLayer:
    """A layer as it went out."""

    digest: str
    diff_id: str  # of its archive
    compressed_bytes: int
    unpacked_bytes: int
    compression: str


def make(
    shape: LayerShape,
    salt: str,
    take: Take,
    program: tuple[str, bytes] | None = None,
) -> MadeLayer:
    """Make a layer and hand its compressed bytes to `take`, in order, from another thread.

    What `take` raises ends it. The same shape and salt give the same layer, as long as
    zlib and libzstd are the same.
    """
    content = Content(f"{salt}\0{shape.content}", shape.compression)
    archive, packed = hashlib.sha256(), hashlib.sha256()
    pack, out_bytes, left_bytes = packer(shape.compression), 0, archive_bytes(shape, program)
    unpacked_bytes = left_bytes
    # Aimed at a little less, which is filled up at the end.
    reserved = min(_RESERVED_BYTES, int(_RESERVED_SHARE * shape.compressed_bytes)) + 40
    aim_bytes = shape.compressed_bytes - pack.closing_bytes - reserved

    def out(data: bytes) -> None:
        packed.update(data)
        take(data)

    with _beside(archive.update) as hash_archive, _beside(out) as hand_out:
        source = _Batches(parts(shape, program), content)
        while left_bytes:
            share = max(0.0, aim_bytes - out_bytes) / left_bytes
            size = min(_BATCH_BYTES, max(_LEAST_BATCH_BYTES, left_bytes // 1024 * 512))
            batch = source.take(size, share)
            left_bytes -= len(batch)
            hash_archive(batch)
            compressed = pack.add(batch)
            out_bytes += len(compressed)
            hand_out(compressed)
        end = pack.end(shape.compressed_bytes - out_bytes)
        out_bytes += len(end)
        hand_out(end)
    return MadeLayer(
        f"sha256:{packed.hexdigest()}", f"sha256:{archive.hexdigest()}", out_bytes, unpacked_bytes,
        shape.compression,
    )  # fmt: skip


class _Batches:
    """An archive cut into batches; content is made when its batch is."""

    def __init__(self, planned: Iterator[Part], content: Content) -> None:
        self._planned, self._content = planned, content
        self._head, self._owed = b"", 0

    def take(self, size_bytes: int, share: float) -> memoryview:
        """The next `size_bytes`, or what is left; what content there is shrinks to this share."""
        found, filled = np.empty(size_bytes, np.uint8), 0
        is_short = size_bytes < _SHORT_BYTES
        while filled < size_bytes:
            if not self._head and not self._owed:
                part = next(self._planned, None)
                if part is None:
                    break
                self._head, self._owed = part.head, part.content_bytes
            size = min(len(self._head) or self._owed, size_bytes - filled)
            room = found[filled : filled + size]
            if self._head:
                room[:] = np.frombuffer(self._head[:size], np.uint8)
                self._head = self._head[size:]
            else:
                self._content.fill(room, share, is_short=is_short)
                self._owed -= size
            filled += size
        return found[:filled].data


@contextmanager
def _beside(work: Callable[[T], object]) -> Iterator[Callable[[T], None]]:
    """Have a thread of its own do `work` on what it is given, in order, a few at a time.

    At the end all is done; what `work` raised comes out here, at once.
    """
    todo: queue.Queue[T | None] = queue.Queue(_QUEUED)
    raised: list[BaseException] = []

    def run() -> None:
        while (data := todo.get()) is not None:
            if not raised:
                try:
                    work(data)
                except BaseException as error:
                    raised.append(error)

    def give(data: T) -> None:
        if raised:
            raise raised[0]
        todo.put(data)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield give
    finally:
        todo.put(None)
        thread.join()
    if raised:
        raise raised[0]
