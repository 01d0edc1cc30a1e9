"""Why things take a little longer than they should: luck, and queues for a rate limit.

Hides how random streams are keyed. Luck is drawn by name and index, never in the order of events,
so the luck of pod 7 or node 3 is the same however many others there are, and cells can share it.
"""

import math
from hashlib import sha256

import numpy as np

_FIRST_DRAW = 256  # indexes drawn at once; twice as many whenever a higher one is asked for


class Luck:
    """The random factors of one trial."""

    def __init__(self, seed: int, trial: int) -> None:
        self._prefix = f"{seed}/{trial}"
        self._normals: dict[str, list[float]] = {}
        self._shares: dict[str, list[float]] = {}

    def factor(self, purpose: str, index: int, sigma: float) -> float:
        """A log-normal factor of median 1; exactly 1 when sigma is 0."""
        if not sigma:
            return 1.0
        known = self._normals.get(purpose, ())
        if index >= len(known):
            known = self._normals[purpose] = self._draw(purpose, index, normal=True)
        return math.exp(sigma * known[index])

    def share(self, purpose: str, index: int) -> float:
        """A uniform number in [0, 1)."""
        known = self._shares.get(purpose, ())
        if index >= len(known):
            known = self._shares[purpose] = self._draw(purpose, index, normal=False)
        return known[index]

    def order(self, purpose: str, count: int) -> list[int]:
        """The indexes below `count`, shuffled; a lower count leaves the others' order as it is."""
        return sorted(range(count), key=lambda index: self.share(purpose, index))

    def _draw(self, purpose: str, index: int, *, normal: bool) -> list[float]:
        # Drawn one after the other: more of them begin with the same ones.
        key = sha256(f"{self._prefix}/{purpose}".encode()).digest()
        stream = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "big")))
        count = max(_FIRST_DRAW, 1 << index.bit_length())
        drawn = stream.standard_normal(count) if normal else stream.random(count)
        return list(map(float, drawn))


class TokenBucket:
    """`rate` tokens a second, `burst` of them at first and at most; time must not go back."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at_s = self._burst, 0.0

    def wait(self, now_s: float) -> float:
        """Take a token as soon as there is one, after all who asked before; return when that is."""
        self._refill(now_s)
        self._tokens -= 1.0
        return self._at_s + max(0.0, -self._tokens / self._rate)

    def try_take(self, now_s: float, count: int = 1) -> bool:
        """Take so many tokens if they are there now."""
        self._refill(now_s)
        if self._tokens < count - 1e-9:  # rounding must not reject who is just in time
            return False
        self._tokens -= count
        return True

    def _refill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s += elapsed_s
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._rate)
