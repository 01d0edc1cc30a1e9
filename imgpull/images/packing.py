"""Compression that ends at just the size that is asked for.

Hides gzip and zstd, and what fills the last bytes: empty blocks (RFC 1951, 3.2.4) and a skippable
frame (RFC 8878, 3.1.2), which every decoder passes over.
"""

import struct
import sys
import zlib
from typing import Any, Protocol

# As docker and buildkit compress by default, or nearly: gzip's 6 shrinks these bytes no further
# than 1 does, and takes longer.
GZIP_LEVEL = 1
ZSTD_LEVEL = 3


class Packer(Protocol):
    """Compresses a stream; what `add` was given is wholly in what it returned."""

    closing_bytes: int  # what `end` adds beside the filling

    def add(self, data: bytes | memoryview) -> bytes:
        """What these bytes become."""

    def end(self, room_bytes: int) -> bytes:
        """The end, which is this long where that can be; at least it is `closing_bytes`."""


def packer(compression: str) -> Packer:
    """The packer for a compression as layer tables name it."""
    kinds: dict[str, type[Packer]] = {"gzip": _Gzip, "zstd": _Zstd, "none": _Plain}
    return kinds[compression]()


class _Plain:
    closing_bytes = 0

    def add(self, data: bytes | memoryview) -> bytes:
        return bytes(data)

    def end(self, room_bytes: int) -> bytes:
        return b""


class _Gzip:
    closing_bytes = 10
    # Without name and time; made on no system that is told.
    _HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    _STORED = b"\0\0\0\xff\xff"  # an empty stored block
    _FIXED_STORED = b"\x02\0\0\0\xff\xff"  # an empty block of fixed codes, then a stored one

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc, self._size, self._head = 0, 0, self._HEADER

    def add(self, data: bytes | memoryview) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        head, self._head = self._head, b""
        packed = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return head + packed if head else packed

    def end(self, room_bytes: int) -> bytes:
        filling = self._filling(room_bytes - self.closing_bytes)
        trailer = struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
        return filling + self._deflate.flush(zlib.Z_FINISH) + trailer

    def _filling(self, size_bytes: int) -> bytes:
        """Blocks of 5 and 6 bytes: every size from 20 on, the next smaller one below that."""
        for size in range(max(0, size_bytes), -1, -1):
            fives, sixes = size // 5 - size % 5, size % 5
            if fives >= 0:
                return self._STORED * fives + self._FIXED_STORED * sixes
        raise AssertionError  # 0 is one


class _Zstd:
    closing_bytes = 3
    _SKIPPED, _SKIPPED_HEADER = 0x184D2A50, 8

    def __init__(self) -> None:
        self._zstd = _zstd().ZstdCompressor(ZSTD_LEVEL)

    def add(self, data: bytes | memoryview) -> bytes:
        packed: bytes = self._zstd.compress(data, self._zstd.FLUSH_BLOCK)
        return packed

    def end(self, room_bytes: int) -> bytes:
        last: bytes = self._zstd.flush(self._zstd.FLUSH_FRAME)
        filling = room_bytes - len(last) - self._SKIPPED_HEADER
        if filling < 0:
            return last
        return last + struct.pack("<II", self._SKIPPED, filling) + bytes(filling)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
