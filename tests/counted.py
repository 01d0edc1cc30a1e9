"""How much work something is, whatever the machine: calls of functions, Python's and C's."""

import itertools
import sys
from collections.abc import Callable


def calls(action: Callable[[], object]) -> int:
    """Calls and returns while `action` runs."""
    count, before = itertools.count(), sys.getprofile()
    sys.setprofile(lambda *_: next(count))
    try:
        action()
    finally:
        sys.setprofile(before)
    return next(count)
