"""Downloads in flight, as one fluid: who gets how much of the registry and of its own node.

Hides the max-min arithmetic and when it must be redone. The streams of one node run alike, so a
node is one number (bytes that each of its streams has got); while the registry has enough for all,
an event on one node touches that node only. Rates change at events only: the fluid is exact.
"""

import heapq
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Arrival = Callable[[float], None]  # what happens when a stream has ended, told when

# A thousandth of a byte is rounding, not data: a stream this close to its end has ended.
_ROUNDING_BYTES = 1e-3


def fair_level(streams: Floats, limits: Floats, capacity: float) -> float:
    """The max-min level: each stream gets min(its limit, level); infinite when capacity suffices.

    `streams[n]` streams share `capacity` under the same `limits[n]` each (progressive filling:
    Bertsekas and Gallager, Data Networks, 6.5.2, with every stream's own limit as a link).
    """
    if streams @ limits <= capacity:
        return math.inf
    order = limits.argsort()
    limits, streams = limits[order], streams[order]
    taken = np.concatenate(([0.0], np.cumsum(streams * limits)[:-1]))  # by streams of lower limit
    hungry = np.cumsum(streams[::-1])[::-1]  # streams of this limit and above
    with np.errstate(divide="ignore", invalid="ignore"):
        level = (capacity - taken) / hungry
    return float(level[np.argmax((hungry > 0) & (level <= limits))])


class Downloads:
    """Every stream from the registry to a node; the caller says the time, which never goes back."""

    def __init__(self, nodes: int, egress_bytes_s: float) -> None:
        self._egress_bytes_s = egress_bytes_s
        self._stream_cap = [math.inf] * nodes
        self._node_cap = [math.inf] * nodes
        self._goals: list[list[tuple[float, int, Arrival]]] = [[] for _ in range(nodes)]
        self._streams = np.zeros(nodes)
        self._limit = np.zeros(nodes)  # bytes/s that its node allows one stream
        self._rate = np.zeros(nodes)  # bytes/s that one stream gets
        self._got = np.zeros(nodes)  # bytes that a stream open since the beginning would have got
        self._goal = np.full(nodes, math.inf)  # `got` at which the node's next stream ends
        self._received = np.zeros(nodes)  # bytes, all streams of the node together
        self._since = np.zeros(nodes)  # when `got` and `received` were last brought up to date
        self._end = np.full(nodes, math.inf)  # when the node's next stream ends
        self._changed: set[int] = set()
        self._scarce = False  # the registry, not the nodes, sets somebody's rate
        self._opened = 0

    def cap(self, node: int, stream_bytes_s: float, node_bytes_s: float) -> None:
        """Say what one stream, and all streams together, may take on this node from now on."""
        self._stream_cap[node], self._node_cap[node] = stream_bytes_s, node_bytes_s
        self._changed.add(node)

    def open(self, node: int, size_bytes: float, arrival: Arrival, now_s: float) -> None:
        """Start one more stream to this node; `arrival` is handed back when it ends."""
        self._settle(slice(node, node + 1), now_s)
        self._opened += 1
        goal = float(self._got[node]) + size_bytes
        heapq.heappush(self._goals[node], (goal, self._opened, arrival))
        self._restart(node)

    def close(self, node: int, now_s: float) -> Arrival:
        """End the node's next stream, which is due, and hand back what is to happen now."""
        self._settle(slice(node, node + 1), now_s)
        _, _, arrival = heapq.heappop(self._goals[node])
        self._restart(node)
        return arrival

    def next_end(self, now_s: float) -> tuple[float, int]:
        """When and on which node the next stream ends, at the rates that hold from now on."""
        if not len(self._end):
            return math.inf, 0
        if self._changed:
            self._share(now_s)
        node = int(self._end.argmin())
        return float(self._end[node]), node

    def received_bytes(self, node: int, now_s: float) -> float:
        """Bytes that came to this node so far."""
        self._settle(slice(node, node + 1), now_s)
        return float(self._received[node])

    def _restart(self, node: int) -> None:
        goals = self._goals[node]
        self._streams[node] = len(goals)
        self._goal[node] = goals[0][0] if goals else math.inf
        self._changed.add(node)

    def _settle(self, nodes: slice, now_s: float) -> None:
        elapsed_s = now_s - self._since[nodes]
        if not elapsed_s.any():
            return
        grown = self._rate[nodes] * elapsed_s
        self._got[nodes] += grown
        self._received[nodes] += grown * self._streams[nodes]
        self._since[nodes] = now_s

    def _share(self, now_s: float) -> None:
        for node in self._changed:
            streams = len(self._goals[node])
            fair = self._node_cap[node] / max(streams, 1)
            self._limit[node] = min(self._stream_cap[node], fair) if streams else 0.0
        level = fair_level(self._streams, self._limit, self._egress_bytes_s)
        if self._scarce or level < math.inf:
            self._set_rates(slice(None), level, now_s)
        else:
            for node in self._changed:
                self._set_rates(slice(node, node + 1), level, now_s)
        self._changed.clear()
        self._scarce = level < math.inf

    def _set_rates(self, nodes: slice, level: float, now_s: float) -> None:
        self._settle(nodes, now_s)
        self._rate[nodes] = rate = np.minimum(self._limit[nodes], level)
        left = self._goal[nodes] - self._got[nodes]
        with np.errstate(divide="ignore", invalid="ignore"):
            wait = left / rate
        wait[left <= _ROUNDING_BYTES] = 0.0
        self._end[nodes] = now_s + wait
