"""How busy each limit was while images were pulled: `series.csv` against the description.

Hides what makes a share of busy time from rates: bytes over what the limit could have moved in the
seconds of the pull (utilisation; Gregg, Systems Performance, 2.5.9). Of stages that work one after
the other the slower is busy longer; of stages that overlap the slower is always busy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imgpull.analysis.limits import HASH_BYTES_S, Limits
from imgpull.analysis.series import Series
from imgpull.analysis.stages import Window
from imgpull.analysis.statistics import Floats

# A disk that writes this share of what it can is full: it may hold others up.
_FULL = 0.9
ENOUGH = 8  # intervals of a series in a pull, to tell what went on
# A described rate is right to this: a plateau within it is taken for the limit itself.
PLATEAU = 0.85


@dataclass(frozen=True)
class Busy:
    """Shares of a node's pulling time; None where a limit or its rates are unknown."""

    seconds: float
    intervals: int  # of the series; of a few nobody can say what went on in them
    received_bytes: float
    nic: float | None
    egress: float | None  # the registry's to all nodes
    zone: float | None  # its link to this node's zone
    connection: float | None  # what one download may take
    disk: float | None  # full, and holding up what else had room
    disk_written: float | None  # written over writable
    unpack: float | None
    arriving: float  # bytes came, though unpacking was idle


def busy(
    series: Mapping[str, Series], pulling: Mapping[str, Sequence[Window]], limits: Limits,
    images: int,
) -> dict[str, Busy]:  # fmt: skip
    """How busy each limit was on each node that pulled and has a series."""
    seen = {
        node: each for node, each in series.items() if not np.isnan(each.receive_bytes_s[1:]).all()
    }
    total = _Total(seen, [window for windows in pulling.values() for window in windows])
    return {
        node: _busy(seen[node], windows, limits, total, images)
        for node, windows in pulling.items()
        if node in seen
    }


class _Total:
    """Bytes that all nodes together had received by any moment, and seconds in which one pulled."""

    def __init__(self, series: Mapping[str, Series], windows: Sequence[Window]) -> None:
        every = [each.at_s for each in series.values()]
        self._at_s = np.unique(np.concatenate(every)) if every else np.zeros(1)
        self._bytes = np.zeros_like(self._at_s)
        for each in series.values():
            grown = np.nancumsum(each.receive_bytes_s[1:] * np.diff(each.at_s))
            self._bytes += np.interp(self._at_s, each.at_s, np.concatenate([[0.0], grown]))

        edges_s, covered_s = [0.0], [0.0]
        for begin_s, end_s in sorted(windows):
            begin_s = max(begin_s, edges_s[-1])
            edges_s += [begin_s, max(begin_s, end_s)]
            covered_s += [covered_s[-1], covered_s[-1] + edges_s[-1] - begin_s]
        self._edges_s, self._covered_s = edges_s, covered_s

    def rates(self, begin_s: Floats, end_s: Floats) -> Floats:
        """Mean rates between moments, over the seconds in which some node pulled."""
        moved, pulled_s = (
            np.interp(end_s, at_s, counted) - np.interp(begin_s, at_s, counted)
            for at_s, counted in ((self._at_s, self._bytes), (self._edges_s, self._covered_s))
        )
        return np.asarray(moved / np.maximum(pulled_s, 1e-9))


def _busy(
    series: Series, windows: Sequence[Window], limits: Limits, total: _Total, images: int
) -> Busy:
    begin_s, end_s = series.at_s[:-1], series.at_s[1:]
    overlap_s = np.zeros_like(begin_s)
    for from_s, to_s in windows:
        shared = np.minimum(end_s, to_s) - np.maximum(begin_s, from_s)
        overlap_s = np.maximum(overlap_s, np.maximum(shared, 0.0))
    inside = overlap_s > 0.0
    begin_s, end_s, part_s = begin_s[inside], end_s[inside], overlap_s[inside]
    # Nothing but pulls moves bytes: what an interval holds was moved in its part of the pull.
    squeeze = (end_s - begin_s) / part_s
    seconds = float(part_s.sum())
    rates = (series.receive_bytes_s, series.write_bytes_s, series.cpu_cores)
    receive, write, cpu = (rate[1:][inside] * squeeze for rate in rates)
    receive = _known_or_0(receive)
    everyone = total.rates(begin_s, end_s)
    received = float((receive * part_s).sum())

    cores = min(limits.vcpus, limits.unpacks * images)
    unpacking = np.maximum(cpu - receive / HASH_BYTES_S, 0.0)
    one_core = _share(unpacking)
    nic, egress = receive / _or_nan(limits.nic_bytes_s), everyone / _or_nan(limits.egress_bytes_s)
    wire = _share(_known_or_0(np.fmax(nic, egress)))
    disk = limits.disk_at(begin_s - min(from_s for from_s, _ in windows))
    filled = write / disk
    alone_s = limits.alone_s(received / images)
    others = np.maximum(_known_or_0(one_core), wire)
    holding = np.where(filled >= _FULL * PLATEAU, _share(filled) * (others < _FULL), 0.0)
    top = float(np.nanmax(receive)) if len(receive) else 0.0
    flowing = (receive > 0.3 * top) & (_known_or_0(one_core) < 0.5)
    shares = {
        "nic": nic,
        "egress": egress,
        "zone": everyone / limits.zones / _or_nan(limits.zone_link_bytes_s),
        "disk": np.where(np.isnan(filled), np.nan, holding),
        "disk_written": filled,
        "unpack": unpacking / cores,
        "alone": one_core * (1.0 - wire),
        "arriving": flowing,
    }
    mean = dict(zip(shares, _means(np.array(list(shares.values())), part_s), strict=True))
    if mean["unpack"] is not None and cores > 1:
        # Layers that are unpacked side by side: one alone may hold up the end.
        mean["unpack"] = max(mean["unpack"], mean["alone"] or 0.0)
    return Busy(
        seconds=seconds,
        intervals=len(part_s),
        received_bytes=received,
        nic=mean["nic"],
        egress=mean["egress"],
        zone=mean["zone"],
        connection=None if alone_s is None or not seconds else alone_s / seconds,
        disk=mean["disk"],
        disk_written=mean["disk_written"],
        unpack=mean["unpack"],
        arriving=(mean["arriving"] or 0.0) if len(part_s) >= ENOUGH else 0.0,
    )


def _means(shares: Floats, part_s: Floats) -> list[float | None]:
    """The mean of each row over the seconds of the pull; None where nothing is known."""
    seconds = float(part_s.sum())
    if not seconds:
        return [None] * len(shares)
    means = _known_or_0(shares * part_s).sum(axis=1) / seconds
    unknown = np.all(np.isnan(shares), axis=1)
    return [None if no else float(mean) for mean, no in zip(means, unknown, strict=True)]


def _known_or_0(values: Floats) -> Floats:
    return np.where(np.isnan(values), 0.0, values)  # nan_to_num takes five times as long


def _share(values: Floats) -> Floats:
    return np.minimum(np.maximum(values, 0.0), 1.0)  # clip takes three times as long


def _or_nan(limit: float | None) -> float:
    return np.nan if limit is None else limit
