"""A node's disk as unpacking and downloads see it: page cache, burst credits, what is left.

Hides how writes reach the disk. Unpacked files are not fsync'ed: they fill the page cache, which
the disk empties, until dirty pages reach their limit and writers are slowed to the disk's pace
(Linux vm.dirty_ratio). Fetched blobs are fsync'ed and get what emptying leaves (a simplification
that keeps a law: a faster link never delays an unpack). Burst credits are used up while pulling.
"""

import math


class Disk:
    """Rates hold until the next call of `offer`, which must come by `next_change_s`."""

    __slots__ = (
        "_at_s", "_base_bytes_s", "_burst_s", "_dirty_bytes", "_limit_bytes", "_offered",
        "_write_bytes_s", "emptying_bytes_s", "left_bytes_s", "slowed",
    )  # fmt: skip

    def __init__(
        self, base_bytes_s: float, burst_bytes_s: float | None, burst_s: float, limit_bytes: float
    ) -> None:
        self._base_bytes_s = base_bytes_s
        self._burst_s = burst_s if burst_bytes_s is not None else 0.0
        self._write_bytes_s = burst_bytes_s if burst_bytes_s and burst_s else base_bytes_s
        self._limit_bytes = limit_bytes
        self._dirty_bytes = 0.0
        self._offered = 0.0  # bytes/s that unpacking would write if nothing held it
        self._at_s = 0.0
        self.slowed = 1.0  # the share of its speed that unpacking keeps
        self.emptying_bytes_s = 0.0  # what the disk writes of unpacked files
        self.left_bytes_s = self._write_bytes_s  # for blobs

    def offer(self, now_s: float, bytes_s: float, *, pulling: bool) -> None:
        """Unpacking would write so much from now on; `pulling`: an image was, until now."""
        elapsed_s = now_s - self._at_s
        self._at_s = now_s
        grown = (self._offered - self._write_bytes_s) * elapsed_s
        if grown or self._dirty_bytes:
            dirty = self._dirty_bytes + grown
            # A millionth of a second's worth is rounding.
            slack = 1e-6 * self._write_bytes_s
            self._dirty_bytes = 0.0 if dirty < slack else min(dirty, self._limit_bytes)
            if self._limit_bytes - self._dirty_bytes < slack:
                self._dirty_bytes = self._limit_bytes
        if self._burst_s and pulling:
            self._burst_s -= elapsed_s
            if self._burst_s <= 1e-9:
                self._burst_s, self._write_bytes_s = 0.0, self._base_bytes_s
        self._offered = bytes_s
        full = bytes_s > self._write_bytes_s and self._dirty_bytes >= self._limit_bytes
        self.slowed = self._write_bytes_s / bytes_s if full else 1.0
        emptying = self._dirty_bytes > 0.0
        self.emptying_bytes_s = self._write_bytes_s
        if not emptying and bytes_s < self._write_bytes_s:
            self.emptying_bytes_s = bytes_s
        self.left_bytes_s = self._write_bytes_s - self.emptying_bytes_s

    def next_change_s(self, *, pulling: bool) -> float:
        """When these rates end by themselves."""
        change_s = self._burst_s if self._burst_s and pulling else math.inf
        growth = self._offered - self._write_bytes_s
        if growth > 0.0 and self._dirty_bytes < self._limit_bytes:
            change_s = min(change_s, (self._limit_bytes - self._dirty_bytes) / growth)
        elif growth < 0.0 and self._dirty_bytes > 0.0:
            change_s = min(change_s, self._dirty_bytes / -growth)
        return self._at_s + change_s
