"""Bytes that nobody else has, which shrink just as much as they are asked to.

Hides what they are: random bytes, words drawn from a small dictionary, and zeros, of which the
first shrink not at all and the last to nothing. To be faster than any compressor, one supply of
each is made at the begin, and used again and again under another mask. All comes from one key: the
same key gives the same bytes on every machine (only raw draws are used: numpy keeps them, NEP 19).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

# Random bytes and words alternate this often: within the window of gzip (32 KiB).
_STRETCH_BYTES = 16 * 1024
_UNIT = 8  # bytes of a number
_WORD_UNITS = 2
_WORDS = 1024  # 16 KiB of them: gzip still sees most when it meets them again
_SUPPLY_UNITS = 2**20 // _UNIT
# What words shrink to (measured); what is off by some percent, the layer's loop evens out.
_WORDS_SHARE = {"gzip": 0.28, "zstd": 0.14, "none": 0.5}


class Content:
    """The bytes of one layer, in order."""

    def __init__(self, key: str, compression: str) -> None:
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
        random = np.random.SFC64(np.random.SeedSequence(seed))
        words = random.random_raw(_WORDS * _WORD_UNITS).reshape(_WORDS, _WORD_UNITS)
        drawn = random.random_raw(_SUPPLY_UNITS // _WORD_UNITS) % _WORDS
        self._noise = _Supply(random, random.random_raw(_SUPPLY_UNITS))
        self._prose = _Supply(random, words[drawn].reshape(-1))
        self._words_share = _WORDS_SHARE[compression]

    def fill(self, room: NDArray[np.uint8], share: float, *, is_short: bool = False) -> None:
        """Put the next bytes there, which shrink to about this share of their size.

        Room is a multiple of 512 bytes, at most 1 MiB. `is_short`: too few for words to come again.
        """
        words = 1.0 if is_short else self._words_share
        units = room.view(np.uint64)
        full = len(room) // _STRETCH_BYTES
        cut = full * _STRETCH_BYTES // _UNIT
        if full:
            self._fill(units[:cut].reshape(full, -1), share, words)
        if cut < len(units):
            self._fill(units[cut:].reshape(1, -1), share, words)

    def _fill(self, rows: NDArray[np.uint64], share: float, words: float) -> None:
        """In each row hard bytes, then easy ones: words if less than `words` is not asked for."""
        is_dense = words < min(share, 1.0)
        part = (share - words) / (1 - words) if is_dense else share
        units = rows.shape[1]
        # However compressible, a word of each row is nobody else's.
        hard = min(units, max(1, round(part * units)))
        self._noise.fill(rows[:, :hard])
        if is_dense:
            self._prose.fill(rows[:, hard:])
        else:
            rows[:, hard:] = 0


class _Supply:
    """Numbers that are given out in order, then again under a mask that they never had."""

    def __init__(self, random: np.random.SFC64, numbers: NDArray[np.uint64]) -> None:
        self._random, self._numbers = random, numbers
        self._mask, self._at = random.random_raw(1), 0

    def fill(self, rows: NDArray[np.uint64]) -> None:
        """Put the next numbers there."""
        if self._at + rows.size > len(self._numbers):
            self._mask, self._at = self._random.random_raw(1), 0
        found = self._numbers[self._at : self._at + rows.size].reshape(rows.shape)
        self._at += rows.size
        np.bitwise_xor(found, self._mask, out=rows)
