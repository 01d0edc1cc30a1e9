"""How downloads share links: by hand, against water filling, and against small steps of time."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgpull.simcluster.network import Downloads


def ended(_: float) -> None:
    """Nobody waits for this stream."""


def network(*flows: tuple[int, float, float], egress: float, **zones: float) -> Downloads:
    """A node for each (streams, cap of one, cap of all), with so many endless streams."""
    downloads = Downloads(len(flows), egress, **zones)  # type: ignore[arg-type]
    for node, (streams, stream_cap, node_cap) in enumerate(flows):
        downloads.cap(node, stream_cap, node_cap, 0.0)
        for _ in range(streams):
            downloads.open(node, 1e15, ended, 0.0)
    return downloads


def rates(downloads: Downloads, nodes: int) -> list[float]:
    return [downloads.rate_bytes_s(node, 0.0) for node in range(nodes)]


# by hand


def test_scarce_egress_is_split_equally_among_streams() -> None:
    assert rates(network((1, 100, 100), (1, 100, 100), egress=100), 2) == [50, 50]
    assert rates(network((3, 100, 400), (1, 100, 100), egress=100), 2) == [75, 25]


def test_who_cannot_take_its_share_leaves_the_rest_to_the_others() -> None:
    assert rates(network((1, 1e9, 20), (1, 1e9, 100), egress=100), 2) == [20, 80]


def test_a_zone_link_holds_its_own_nodes_only() -> None:
    """Nodes 0 and 2 are behind one link, node 1 behind the other."""
    flows = [(1, 100.0, 100.0)] * 3
    shared = network(*flows, egress=1000, zones=2, zone_link_bytes_s=60)
    assert rates(shared, 3) == [30, 60, 30]
    scarce = network(*flows, egress=75, zones=2, zone_link_bytes_s=40)
    assert rates(scarce, 3) == pytest.approx([20, 35, 20])


def test_one_zone_is_as_narrow_as_the_narrower_link() -> None:
    assert rates(network((2, 100, 200), egress=1000, zone_link_bytes_s=50), 1) == [50]


def test_who_has_all_its_bytes_leaves_its_share_to_the_others() -> None:
    downloads = Downloads(2, 100.0)
    for node, size_bytes in enumerate((50.0, 100.0)):
        downloads.cap(node, math.inf, 100.0, 0.0)
        downloads.open(node, size_bytes, ended, 0.0)
    when_s, flow = downloads.next_end(0.0)
    assert when_s == 1.0
    assert flow is not None
    downloads.close(flow, 1.0)
    assert downloads.next_end(1.0)[0] == 1.5
    assert downloads.received_bytes(0, 1.0) == 50.0


def test_a_stream_of_several_connections_gets_as_many_shares() -> None:
    downloads = Downloads(2, 100.0)
    for node, weight in enumerate((3.0, 1.0)):
        downloads.cap(node, 1e9, 1e9, 0.0)
        downloads.open(node, 300.0, ended, 0.0, weight)
    assert rates(downloads, 2) == [75, 25]
    assert downloads.next_end(0.0)[0] == 4.0


def test_streams_cut_leave_what_came_and_free_their_share() -> None:
    downloads = Downloads(1, 100.0)
    mine, other = object(), object()
    for owner in (mine, other):
        downloads.open(0, 500.0, ended, 0.0, owner=owner)
    downloads.next_end(0.0)
    assert downloads.drop(0, mine, 4.0) == pytest.approx(200.0)
    assert downloads.received_bytes(0, 4.0) == pytest.approx(400.0)
    assert downloads.next_end(4.0)[0] == pytest.approx(7.0)


def test_a_silent_registry_ends_nothing_until_it_speaks_again() -> None:
    downloads = network((1, 100, 100), egress=100)
    downloads.open(0, 100.0, ended, 0.0)
    downloads.egress(0.0, 1.0)
    assert downloads.next_end(1.0) == (math.inf, None)
    downloads.egress(100.0, 51.0)
    assert downloads.next_end(51.0)[0] == pytest.approx(52.0)


# against water filling, one drop at a time

flows = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([1.0, 7.0, 10.0, 10.0, 33.0]),
        st.sampled_from([5.0, 10.0, 20.0, 80.0]),
    ),
    min_size=1,
    max_size=7,
)
capacities = st.sampled_from([1.0, 9.0, 30.0, 61.5, 100.0, 1e4])


def water(streams: list[tuple[int, float]], links: list[tuple[set[int], float]]) -> list[float]:
    """Max-min by filling: streams (node, cap) rise together; a full link stops those on it."""
    rate = [0.0] * len(streams)
    rising = set(range(len(streams)))
    while rising:
        step = min(streams[i][1] - rate[i] for i in rising)
        for members, capacity in links:
            active = members & rising
            if active:
                step = min(step, (capacity - sum(rate[i] for i in members)) / len(active))
        for i in rising:
            rate[i] += step
        full = {i for i in rising if streams[i][1] - rate[i] < 1e-9}
        for members, capacity in links:
            if capacity - sum(rate[i] for i in members) < 1e-9:
                full |= members
        rising -= full
    return rate


@given(flows, capacities, st.integers(1, 3), capacities)
def test_shares_are_what_water_filling_gives(
    given_flows: list[tuple[int, float, float]], egress: float, zones: int, link: float
) -> None:
    streams = [
        (node, cap) for node, (count, cap, _) in enumerate(given_flows) for _ in range(count)
    ]
    everyone = range(len(streams))
    links = [(set(everyone), egress)]
    links += [({i for i in everyone if streams[i][0] % zones == z}, link) for z in range(zones)]
    links += [
        ({i for i in everyone if streams[i][0] == node}, node_cap)
        for node, (_, _, node_cap) in enumerate(given_flows)
    ]
    expected = [0.0] * len(given_flows)
    for (node, _), rate in zip(streams, water(streams, links), strict=True):
        expected[node] += rate
    found = network(*given_flows, egress=egress, zones=zones, zone_link_bytes_s=link)
    assert rates(found, len(given_flows)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


# against small steps of time


@dataclass
class Stepped:
    """The same fluid, by brute force: water filling again and again, a little later each time."""

    flows: list[tuple[float, float]]  # cap of one stream, of a node
    egress: float
    left: list[tuple[int, float]] = field(default_factory=list)  # node, bytes

    def play(self, arrivals: list[tuple[float, int, float]], step_s: float) -> list[float]:
        """When each of (when, node, size) has ended."""
        left = [size for _, _, size in arrivals]
        ends = [math.inf] * len(arrivals)
        now_s = 0.0
        while math.inf in ends:
            active = [
                i for i, (when_s, _, _) in enumerate(arrivals) if when_s <= now_s and left[i] > 0
            ]
            streams = [(arrivals[i][1], self.flows[arrivals[i][1]][0]) for i in active]
            links = [(set(range(len(streams))), self.egress)]
            links += [
                ({k for k, (node, _) in enumerate(streams) if node == n}, cap)
                for n, (_, cap) in enumerate(self.flows)
            ]
            for i, rate in zip(active, water(streams, links), strict=True):
                if left[i] <= rate * step_s:
                    ends[i] = now_s + left[i] / rate
                left[i] -= rate * step_s
            now_s += step_s
        return ends


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([4.0, 9.0, 25.0]), st.sampled_from([8.0, 20.0, 60.0])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([6.0, 20.0, 55.0, 1e3]),
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(0, 3), st.sampled_from([20.0, 50.0, 90.0, 200.0])),
        min_size=1,
        max_size=7,
    ),
)
@example([(4.0, 8.0)], 6.0, [(0.0, 0, 20.0), (1.0, 0, 20.0)])
def test_ends_are_those_of_a_brute_force_integration(
    nodes: list[tuple[float, float]], egress: float, given_arrivals: list[tuple[float, int, float]]
) -> None:
    arrivals = sorted((when_s, node % len(nodes), size) for when_s, node, size in given_arrivals)
    downloads = Downloads(len(nodes), egress)
    for node, (stream_cap, node_cap) in enumerate(nodes):
        downloads.cap(node, stream_cap, node_cap, 0.0)
    ends = [0.0] * len(arrivals)
    coming = list(enumerate(arrivals))
    now_s = 0.0
    while True:
        end_s, flow = downloads.next_end(now_s)
        if coming and coming[0][1][0] <= end_s:
            index, (now_s, node, size) = coming.pop(0)
            downloads.open(node, size, lambda at_s, i=index: ends.__setitem__(i, at_s), now_s)
        elif flow is not None:
            now_s = end_s
            downloads.close(flow, now_s)(now_s)
        else:
            break
    stepped = Stepped(nodes, egress).play(arrivals, 0.01)
    for exact_s, rough_s, (begun_s, _, _) in zip(ends, stepped, arrivals, strict=True):
        assert exact_s - begun_s == pytest.approx(rough_s - begun_s, rel=0.01, abs=0.03)
    received = sum(downloads.received_bytes(node, now_s) for node in range(len(nodes)))
    assert received == pytest.approx(sum(size for _, _, size in arrivals), rel=1e-9)
