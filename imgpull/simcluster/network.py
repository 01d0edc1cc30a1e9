"""Downloads in flight, as one fluid: who gets how much of the registry, its zone and its own node.

Hides the max-min arithmetic (progressive filling: Bertsekas and Gallager, Data Networks, 6.5.2) and
how it stays cheap. A node's streams run alike, so a node is one number: bytes that each of its
streams has got. Nodes held back by themselves run on the clock; nodes held back by their zone or by
the registry all run at one rate, its level, so they share one counter and an event touches only the
node that it happens on, and the few that its new level frees or catches. Rates change at events
only: the fluid is exact.
"""

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush

Arrival = Callable[[float], None]  # what happens when a stream has ended, told when

# A thousandth of a byte is rounding, not data.
_ROUNDING_BYTES = 1e-3
_ROUNDING = 1e-12


class _Flow:
    """One node's streams: each gets the same rate."""

    __slots__ = (
        "at_s", "changed", "fill", "goals", "got", "limit", "node_cap", "plan", "planned", "pool",
        "received", "scarce", "stream_cap", "weight",
    )  # fmt: skip

    def __init__(self, pool: "_Pool") -> None:
        self.pool = pool
        self.stream_cap = self.node_cap = math.inf  # bytes/s of one stream, of all together
        self.goals: list[tuple[float, int, float, float, Arrival, object]] = []
        self.weight = 0.0  # streams, or connections that one stream uses
        self.limit = 0.0  # bytes/s that the node allows each
        self.scarce = False  # the pool's level, not the node, sets the rate
        self.got = self.received = 0.0  # bytes a stream got, bytes of all: at `at_s` and `fill`
        self.at_s = self.fill = 0.0
        self.plan = 0  # counts changes: what was planned before one is void
        self.planned = self.changed = False  # takes part in sharing, waits to be put back


class _Pool:
    """A zone: the nodes behind one link; `level` is what its scarce nodes' streams get each."""

    __slots__ = (
        "at_s", "bound", "capacity", "fill", "fixed", "fixed_count", "high", "level", "low",
        "next_fill", "weight",
    )  # fmt: skip

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.bound = False  # the zone's own link sets the level, not the registry
        self.level = math.inf
        self.fill, self.at_s = 0.0, 0.0  # bytes a scarce stream would have got since the beginning
        self.fixed, self.fixed_count = 0.0, 0  # bytes/s of the nodes that are not scarce
        self.weight = 0.0  # streams of scarce nodes
        self.high: list[tuple[float, int, int, _Flow]] = []  # not scarce, highest limit first
        self.low: list[tuple[float, int, int, _Flow]] = []  # scarce, lowest limit first
        self.next_fill: list[tuple[float, int, int, _Flow]] = []  # scarce, next end first

    def advance(self, now_s: float) -> None:
        if now_s > self.at_s:
            if self.weight:
                self.fill += self.level * (now_s - self.at_s)
            self.at_s = now_s

    def alone(self, capacity: float) -> float:
        """The level at which this pool would use just `capacity`, sets as they are."""
        if self.weight:
            return max(0.0, capacity - self.fixed) / self.weight
        return math.inf if self.fixed <= capacity * (1 + _ROUNDING) else 0.0


class Downloads:
    """Every stream from the registry to a node; the caller says the time, which never goes back."""

    def __init__(
        self, nodes: int, egress_bytes_s: float, zones: int = 1, zone_link_bytes_s: float = math.inf
    ) -> None:
        # Of one link after the other the narrower one counts.
        self._most_bytes_s = zone_link_bytes_s if zones == 1 else math.inf
        self._egress_bytes_s = min(egress_bytes_s, self._most_bytes_s)
        self._pools = [_Pool(zone_link_bytes_s) for _ in range(zones)]
        self._flows = [_Flow(self._pools[index % zones]) for index in range(nodes)]
        self._ends: list[tuple[float, int, int, _Flow]] = []  # of nodes that are not scarce
        self._opened = 0  # numbers that break ties in the order of events
        self._changed: list[_Flow] = []  # out of the sharing until levels are found
        self._dirty = False  # something changed since levels were found

    def egress(self, bytes_s: float, now_s: float) -> None:
        """The registry gives this much from now on."""
        self._egress_bytes_s = min(bytes_s, self._most_bytes_s)
        self._dirty = True
        self._level(now_s)

    def cap(self, node: int, stream_bytes_s: float, node_bytes_s: float, now_s: float) -> None:
        """Say what one stream, and all streams together, may take on this node from now on."""
        flow = self._flows[node]
        if flow.stream_cap == stream_bytes_s and flow.node_cap == node_bytes_s:
            return
        flow.stream_cap, flow.node_cap = stream_bytes_s, node_bytes_s
        if flow.weight:
            self._change(flow, now_s)

    def open(
        self,
        node: int,
        size_bytes: float,
        arrival: Arrival,
        now_s: float,
        weight: float = 1.0,
        owner: object = None,
    ) -> None:
        """Start one more stream to this node, of `weight` connections; `arrival` at its end."""
        flow = self._flows[node]
        self._change(flow, now_s, weight)
        self._opened += 1
        goal = flow.got + size_bytes / weight
        heappush(flow.goals, (goal, self._opened, weight, size_bytes, arrival, owner))

    def close(self, flow: _Flow, now_s: float) -> Arrival:
        """End the flow's next stream, which is due, and hand back what is to happen now."""
        goal, _, weight, _, arrival, _ = heappop(flow.goals)
        self._change(flow, now_s, -weight)
        # Rounding of the clock must neither lose nor make a byte.
        flow.received += (goal - flow.got) * weight
        return arrival

    def drop(self, node: int, owner: object, now_s: float) -> float:
        """Cut the owner's streams to this node; returns the bytes that had come through them."""
        flow = self._flows[node]
        cut = [goal for goal in flow.goals if goal[5] is owner]
        flow.goals = [goal for goal in flow.goals if goal[5] is not owner]
        heapify(flow.goals)
        self._change(flow, now_s, -sum(weight for _, _, weight, *_ in cut))
        return sum(size - (goal - flow.got) * weight for goal, _, weight, size, _, _ in cut)

    def received_bytes(self, node: int, now_s: float) -> float:
        """Bytes that came to this node so far."""
        flow = self._flows[node]
        if flow.weight:
            self._settle(flow, now_s)
        return flow.received

    def rate_bytes_s(self, node: int, now_s: float) -> float:
        """What all streams of this node get together now."""
        self._level(now_s)
        flow = self._flows[node]
        return flow.weight * (flow.pool.level if flow.scarce else flow.limit)

    def next_end(self, now_s: float) -> tuple[float, _Flow | None]:
        """When and on which node the next stream ends, at the rates that hold from now on."""
        if self._dirty:
            self._level(now_s)
        ends = self._ends
        while ends and ends[0][2] != ends[0][3].plan:
            heappop(ends)
        when_s, flow = (ends[0][0], ends[0][3]) if ends else (math.inf, None)
        for pool in self._pools:
            queue = pool.next_fill
            while queue and queue[0][2] != queue[0][3].plan:
                heappop(queue)
            if not queue or pool.level <= 0.0:
                continue
            missing = queue[0][0] - pool.fill
            due_s = pool.at_s + missing / pool.level if missing > _ROUNDING_BYTES else now_s
            if due_s < when_s:
                when_s, flow = max(due_s, now_s), queue[0][3]
        return when_s, flow

    def _settle(self, flow: _Flow, now_s: float) -> None:
        """Bring what the flow has got up to date."""
        if flow.scarce:
            pool = flow.pool
            pool.advance(now_s)
            grown = pool.fill - flow.fill
            flow.fill = pool.fill
        else:
            grown = flow.limit * (now_s - flow.at_s)
        flow.at_s = now_s
        if grown > 0.0:
            flow.got += grown
            flow.received += grown * flow.weight

    def _change(self, flow: _Flow, now_s: float, more: float = 0.0) -> None:
        """The flow's weight or caps change: out it goes until levels are found anew."""
        self._settle(flow, now_s)
        if flow.planned:
            self._take_out(flow)
            flow.planned, flow.scarce, flow.limit = False, False, 0.0
            flow.plan += 1
        flow.weight += more
        if not flow.changed:
            flow.changed = True
            self._changed.append(flow)
        self._dirty = True

    def _replan(self) -> None:
        """Put back what was changed, as it now is."""
        for flow in self._changed:
            flow.changed = False
            if not flow.goals:
                flow.weight = 0.0
                continue
            flow.planned = True
            flow.limit = min(flow.stream_cap, flow.node_cap / flow.weight)
            self._put_in(flow, flow.limit > flow.pool.level)
        self._changed.clear()

    def _take_out(self, flow: _Flow) -> None:
        pool = flow.pool
        if flow.scarce:
            pool.weight -= flow.weight
        else:
            pool.fixed_count -= 1
            # What is left of a sum of floats when nothing is summed is rounding.
            pool.fixed = pool.fixed - flow.weight * flow.limit if pool.fixed_count else 0.0

    def _put_in(self, flow: _Flow, scarce: bool) -> None:
        """Plan the next end of a settled flow, as one that is scarce or not."""
        pool = flow.pool
        flow.plan += 1
        flow.scarce = scarce
        missing = flow.goals[0][0] - flow.got
        self._opened += 1
        order = self._opened
        if scarce:
            flow.fill = pool.fill
            pool.weight += flow.weight
            heappush(pool.low, (flow.limit, order, flow.plan, flow))
            heappush(pool.next_fill, (pool.fill + missing, order, flow.plan, flow))
            return
        pool.fixed_count += 1
        pool.fixed += flow.weight * flow.limit
        heappush(pool.high, (-flow.limit, order, flow.plan, flow))
        if flow.limit > 0.0:
            wait_s = missing / flow.limit if missing > _ROUNDING_BYTES else 0.0
            heappush(self._ends, (flow.at_s + wait_s, order, flow.plan, flow))

    def _level(self, now_s: float) -> None:
        """Find every pool's level anew, moving nodes in and out of scarcity as it goes up."""
        if not self._dirty:
            return
        self._dirty = False
        for pool in self._pools:
            pool.advance(now_s)
        self._replan()
        moved = True
        while moved:
            moved = self._bind_zones() if len(self._pools) > 1 else False
            level = self._registry_level()
            for pool in self._pools:
                pool.level = pool.alone(pool.capacity) if pool.bound else level
                moved = self._move_one(pool, now_s) or moved

    def _registry_level(self) -> float:
        """What each scarce stream behind no narrower link gets."""
        left, weight = self._egress_bytes_s, 0.0
        for pool in self._pools:
            if pool.bound:
                left -= pool.capacity
            else:
                left -= pool.fixed
                weight += pool.weight
        if weight:
            return max(0.0, left) / weight
        return math.inf if left >= -_ROUNDING * self._egress_bytes_s else 0.0

    def _bind_zones(self) -> bool:
        """A zone whose streams would take more than its link is bound by it; say if one changed."""
        level = self._registry_level()
        for pool in self._pools:
            own = pool.alone(pool.capacity)
            if pool.bound and own > level * (1 + _ROUNDING):
                pool.bound = False
                return True
            if not pool.bound and own < level * (1 - _ROUNDING):
                pool.bound = True
                return True
        return False

    def _move_one(self, pool: _Pool, now_s: float) -> bool:
        """Move the node that is farthest on the wrong side of the level; False if there is none.

        Each move raises the level (it takes from nobody who is below it), so moving ends.
        """
        low, high = pool.low, pool.high
        while low and low[0][2] != low[0][3].plan:
            heappop(low)
        if low and low[0][0] < pool.level * (1 - _ROUNDING):
            flow = heappop(low)[3]
        else:
            while high and high[0][2] != high[0][3].plan:
                heappop(high)
            if not high or -high[0][0] <= pool.level * (1 + _ROUNDING):
                return False
            flow = heappop(high)[3]
        self._settle(flow, now_s)
        self._take_out(flow)
        self._put_in(flow, not flow.scarce)
        return True
