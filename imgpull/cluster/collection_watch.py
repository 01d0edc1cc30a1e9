"""One collection, listed and then watched for as long as it is wanted.

Hides everything that ends a watch: its own time limit, broken and silent connections, refusals
that pass, versions that are too old. Whoever listens hears each state that was there to be heard,
some of them twice; where something may have gone unheard, `Lapse` says for how long.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imgpull.cluster.kube import ApiError, Kube, Object, Stream

# Short, so that a connection that died in silence is noticed 30 s after (a read's time-out).
_WATCH_S = 60
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0
_STEADY_S = 1.0  # a watch that lasted longer was none that is refused again and again
_JOIN_S = 5.0
# What may pass; anything else, met at the beginning, will not.
_PASSING = frozenset({0, 408, 410, 429, 500, 502, 503, 504})

# Told what happened (ADDED, MODIFIED, DELETED; LISTED: it is there) and to which object.
Take = Callable[[str, Object], None]


@dataclass(frozen=True)
class Lapse:
    """A time without a watch that only a list could bridge. Seconds of time.monotonic()."""

    begin_s: float
    length_s: float


class CollectionWatch:
    """Calls `take`, in a thread of its own, with every change of a collection."""

    def __init__(self, kube: Kube, path: str, take: Take) -> None:
        self.path = path
        self.lapses: list[Lapse] = []
        self.troubles: list[str] = []  # disks that are full, objects of a shape nobody knows
        self.failed: ApiError | None = None  # it never came to a watch, and will not
        self.lists = self.resumed = 0
        self.longest_break_s = 0.0  # at most: from the last word before it
        self._kube, self._take = kube, take
        self._stopping, self._ready = threading.Event(), threading.Event()
        self._stream: Stream | None = None
        self._version = ""
        self._heard_s: float | None = None  # when the server was last known to talk to us
        self._failures, self._broken = 0, False
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        """Begin to list."""
        self._thread.start()

    def wait_until_open(self, limit_s: float) -> bool:
        """Wait until the list is done and the watch is open, or never will be (`failed`)."""
        return self._ready.wait(limit_s)

    def stop(self) -> None:
        """End the watch. A request that hangs is left behind, and what it brings is not heard."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.close()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def list(self) -> None:
        """Take everything that is there now; ApiError when it cannot be listed."""
        version = ""
        for page in self._kube.pages(self.path):
            for item in page.get("items") or ():
                self._tell("LISTED", item)
            version = (page.get("metadata") or {}).get("resourceVersion") or ""
        self.lists += 1
        self._version = version

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._go_on()
                self._failures = 0
            except ApiError as error:
                if self._never_opens(error):
                    return
                self._broken = True
                if error.is_gone:
                    self._version = ""
                self._pause()
            except Exception as error:  # a trial does not end because its recorder broke
                self.troubles.append(f"{type(error).__name__}: {error}")
                self._pause()

    def _go_on(self) -> None:
        """List if need be, then watch until the stream ends."""
        if not self._version:
            listed_s = time.monotonic()  # all its pages are of the moment of the first
            self.list()
            if self._heard_s is not None:
                self.lapses.append(Lapse(self._heard_s, listed_s - self._heard_s))
        before_s, opened_s = self._heard_s, time.monotonic()
        with self._kube.watch(self.path, version=self._version, timeout_s=_WATCH_S) as stream:
            self._stream = stream
            if self._stopping.is_set():
                return
            self._heard_s = opened_s
            if before_s is not None and self._broken:
                self.longest_break_s = max(self.longest_break_s, opened_s - before_s)
            self._broken = False
            self.resumed += self._ready.is_set()
            self._ready.set()
            try:
                for line in stream:
                    if _is_gone(line):  # so it opened, but not to where we were
                        self._heard_s = before_s
                    self._take_line(line)
                    before_s = self._heard_s = time.monotonic()
            finally:
                if time.monotonic() - opened_s > _STEADY_S:
                    self._failures = 0
        if not self._stopping.is_set() and time.monotonic() - opened_s < _STEADY_S:
            raise ApiError(0, "Closed", f"{self.path}: the watch was closed at once")

    def _take_line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            event: Any = json.loads(line)
            kind, content = event["type"], event["object"]
            version = (content.get("metadata") or {}).get("resourceVersion")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ApiError(0, "Garbage", f"{self.path}: a watch's line is not JSON") from error
        if kind == "ERROR":
            status = int(content.get("code") or 0)
            raise ApiError(status, str(content.get("reason")), str(content.get("message")))
        if kind != "BOOKMARK":
            self._tell(kind, content)
        self._version = version or self._version
        self._failures = 0

    def _tell(self, kind: str, content: Object) -> None:
        try:
            self._take(kind, content)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Heard again it would be no better: the rest counts.
            self.troubles.append(f"{type(error).__name__}: {error}")

    def _never_opens(self, error: ApiError) -> bool:
        if self._ready.is_set() or error.status in _PASSING:
            return False
        self.failed = error
        self._ready.set()
        return True

    def _pause(self) -> None:
        pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._stopping.wait(pause_s * random.uniform(0.7, 1.3))


def _is_gone(line: bytes) -> bool:
    return b'"ERROR"' in line[:200] and b"410" in line
