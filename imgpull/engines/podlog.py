"""What a container in the cluster prints, read through the API server without gaps or doubles.

Hides that such a connection breaks: an API server that restarts, a balancer that ends what is
quiet. Every line carries its time, by which reading goes on where it stopped.
"""

import re
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from imgpull.cluster.kube import ApiError, Kube

# A connection that is silent for so long is opened anew: it may be dead.
_SILENT_S = 30.0
# As kubelet writes it, in the node's zone (kubernetes pkg/kubelet/types RFC3339NanoFixed).
_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) (.*)", re.S)

_Time = tuple[int, int]  # seconds and nanoseconds


class LogReader:
    """One container's log, each line of it once. `pod` is the pod's path."""

    def __init__(self, kube: Kube, pod: str, container: str) -> None:
        self._kube, self._pod, self._container = kube, pod, container
        self._newest: _Time = (0, 0)
        self._of_newest = 0  # how many lines of that time were taken
        self._failed_since: float | None = None
        self._came_to_its_end = False  # the last reading; else it broke

    @property
    def failed_s(self) -> float:
        """For how long it could not be read at all."""
        return 0.0 if self._failed_since is None else time.monotonic() - self._failed_since

    def follow(self, limit_s: float) -> Iterator[bytes]:
        """Lines as they come, until the limit, or the stream ends, breaks or is silent.

        To be called again to go on.
        """
        yield from self._read("true", max(0.01, limit_s))

    def rest(self, limit_s: float) -> Iterator[bytes]:
        """What is there of a container that has ended and was not taken yet."""
        until = time.monotonic() + limit_s
        while (left_s := until - time.monotonic()) > 0:
            count = 0
            for line in self._read("false", left_s):
                count += 1
                yield line
            if self._came_to_its_end and not count:
                return

    def _read(self, follow: str, limit_s: float) -> Iterator[bytes]:
        """ApiError when the pod is not there any more."""
        self._came_to_its_end = False
        try:
            with self._kube.stream(
                f"{self._pod}/log", timeout_s=_SILENT_S, container=self._container,
                follow=follow, timestamps="true", sinceTime=self._since(),
            ) as stream:  # fmt: skip
                end = threading.Timer(limit_s, stream.close)  # a reader waits for the next line
                end.daemon = True
                end.start()
                try:
                    yield from self._new(stream)
                finally:
                    end.cancel()
            self._came_to_its_end = True
        except ApiError as error:
            if error.is_missing:
                raise
            if error.reason != "Broken":
                self._failed_since = self._failed_since or time.monotonic()

    def _new(self, stream: Iterable[bytes]) -> Iterator[bytes]:
        newest, taken = self._newest, self._of_newest
        for line in stream:
            self._failed_since = None
            stamped = _LINE.fullmatch(line)
            if stamped is None:  # a long line that the runtime has cut goes on
                yield line
                continue
            at = _time(stamped)
            if at < newest:
                continue
            if at == newest and taken > 0:
                taken -= 1
                continue
            self._of_newest = self._of_newest + 1 if at == self._newest else 1
            self._newest = at
            yield stamped[4]
        self._failed_since = None

    def _since(self) -> str:
        """The API takes whole seconds."""
        if self._newest == (0, 0):
            return ""
        return f"{datetime.fromtimestamp(self._newest[0], UTC):%Y-%m-%dT%H:%M:%SZ}"


def _time(line: re.Match[bytes]) -> _Time:
    zone = "+00:00" if line[3] == b"Z" else line[3].decode()
    at = datetime.fromisoformat(line[1].decode() + zone)
    return int(at.timestamp()), int((line[2] or b"0").ljust(9, b"0"))
