"""Why things take a little longer than they should: luck, and queues for a rate limit.

Hides how random streams are keyed. Luck is drawn by name and index, never in sequence, so the luck
of pod 7 or node 3 is the same however many others there are, and cells can share it.
"""

import math
import random


class Luck:
    """The random factors of one trial."""

    def __init__(self, seed: int, trial: int) -> None:
        self._prefix = f"{seed}/{trial}"

    def factor(self, purpose: str, index: int, sigma: float) -> float:
        """A log-normal factor of median 1; exactly 1 when sigma is 0."""
        return math.exp(self._stream(purpose, index).gauss(0.0, sigma)) if sigma else 1.0

    def share(self, purpose: str, index: int) -> float:
        """A uniform number in [0, 1)."""
        return self._stream(purpose, index).random()

    def _stream(self, purpose: str, index: int) -> random.Random:
        return random.Random(f"{self._prefix}/{purpose}/{index}")


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

    def try_take(self, now_s: float) -> bool:
        """Take a token if there is one now."""
        self._refill(now_s)
        if self._tokens < 1.0 - 1e-9:  # rounding must not reject who is just in time
            return False
        self._tokens -= 1.0
        return True

    def _refill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s += elapsed_s
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._rate)
