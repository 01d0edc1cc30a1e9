"""Ctrl-C and TERM, of which none is lost and none tears a half-drawn screen.

Hides how Python delivers them: KeyboardInterrupt may be raised in a callback of the garbage
collector, where Python prints and forgets it.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN_S = 0.05
_holding: list[bool] = []  # one for each `held` that is open: whether it was interrupted


@contextmanager
def caught() -> Iterator[None]:
    """While this lasts TERM is Ctrl-C: what was made on a cluster is removed on the way out.

    A terminal that is closed ends nothing.
    """
    forgotten = sys.unraisablehook
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in handled}

    def deliver_again(what: Any) -> None:
        if what.exc_type is KeyboardInterrupt:  # later: this very callback would forget it too
            again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            forgotten(what)

    sys.unraisablehook = deliver_again
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if before[signal.SIGINT] is not signal.SIG_IGN:  # in the background of a shell without jobs
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        sys.unraisablehook = forgotten
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """The first Ctrl-C in here is raised at its end; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone is interrupted
        return
    _holding.append(False)
    try:
        yield
    finally:
        interrupted = _holding.pop()
    if interrupted:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _holding and not _holding[-1]:
        _holding[-1] = True
    else:
        raise KeyboardInterrupt
