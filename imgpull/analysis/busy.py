"""How busy each limit was while images were pulled: `series.csv` against the description.

Hides what makes a share of busy time from rates: bytes over what the limit could have moved in the
seconds of the pull (utilisation; Gregg, Systems Performance, 2.5.9). Of stages that work one after
the other the slower is busy longer; of stages that overlap the slower is always busy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgpull.analysis.limits import HASH_BYTES_S, Limits
from imgpull.analysis.stages import Window
from imgpull.errors import ReportError

Floats = NDArray[np.float64]

# A disk that writes this share of what it can is full: it may hold others up.
_FULL = 0.9
ENOUGH = 8  # intervals of a series in a pull, to tell what went on
# A described rate is right to this: a plateau within it is taken for the limit itself.
PLATEAU = 0.85


@dataclass(frozen=True)
class Series:
    """One node's rates: means over (begin, end]."""

    begin_s: Floats
    end_s: Floats
    receive_bytes_s: Floats
    write_bytes_s: Floats
    cpu_cores: Floats


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


def read_series(path: Path) -> dict[str, Series]:
    """The rates in series.csv by node; {} when nobody recorded any. ReportError for another file.

    A rate is the mean since the node's row before it, so the first row of a node only begins one.
    """
    if not path.exists():
        return {}
    columns = ["receive_bytes_per_s", "write_bytes_per_s", "containerd_cpu_cores"]
    try:
        frame = pd.read_csv(path, dtype={"node": str}, usecols=["at_s", "node", *columns])
    except ValueError as error:
        raise ReportError(
            f"{path} is not what an engine leaves: {error}", hint="run the trial again"
        ) from error
    frame = frame[frame["node"].notna()]
    numbers = frame[["at_s", *columns]].to_numpy(np.float64)
    nodes = frame["node"].to_numpy(str)
    order = np.lexsort((numbers[:, 0], nodes))
    names, starts = np.unique(nodes[order], return_index=True)
    numbers = numbers[order]
    found = {}
    # A groupby takes three times as long, and a large sweep has hundreds of these files.
    for node, rows in zip(names, np.split(numbers, starts[1:]), strict=True):
        at_s, *rates = rows.T
        if len(at_s) > 1 and not np.isnan(rates[0][1:]).all():
            found[str(node)] = Series(at_s[:-1], at_s[1:], *(rate[1:] for rate in rates))
    return found


def busy(
    series: Mapping[str, Series], pulling: Mapping[str, Sequence[Window]], limits: Limits,
    images: int,
) -> dict[str, Busy]:  # fmt: skip
    """How busy each limit was on each node that pulled and has a series."""
    total = _Total(series, [window for windows in pulling.values() for window in windows])
    return {
        node: _busy(series[node], windows, limits, total, images)
        for node, windows in pulling.items()
        if node in series
    }


class _Total:
    """Bytes that all nodes together had received by any moment, and seconds in which one pulled."""

    def __init__(self, series: Mapping[str, Series], windows: Sequence[Window]) -> None:
        edges = [np.concatenate([each.begin_s, each.end_s]) for each in series.values()]
        self._at_s = np.unique(np.concatenate(edges)) if edges else np.zeros(1)
        self._bytes = np.zeros_like(self._at_s)
        for each in series.values():
            grown = np.nancumsum(each.receive_bytes_s * (each.end_s - each.begin_s))
            ends = np.concatenate([each.begin_s[:1], each.end_s])
            self._bytes += np.interp(self._at_s, ends, np.concatenate([[0.0], grown]))

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
    overlap_s = np.zeros_like(series.begin_s)
    for begin_s, end_s in windows:
        shared = np.minimum(series.end_s, end_s) - np.maximum(series.begin_s, begin_s)
        overlap_s = np.maximum(overlap_s, np.clip(shared, 0.0, None))
    inside = overlap_s > 0.0
    length_s = (series.end_s - series.begin_s)[inside]
    # Nothing but pulls moves bytes: what an interval holds was moved in its part of the pull.
    squeeze = length_s / overlap_s[inside]
    part_s = overlap_s[inside]
    seconds = float(part_s.sum())
    receive = np.nan_to_num(series.receive_bytes_s[inside]) * squeeze
    write = series.write_bytes_s[inside] * squeeze
    cpu = series.cpu_cores[inside] * squeeze
    everyone = total.rates(series.begin_s[inside], series.end_s[inside])
    received = float((receive * part_s).sum())

    cores = min(limits.vcpus, limits.unpacks * images)
    unpacking = np.clip(cpu - receive / HASH_BYTES_S, 0.0, None)
    one_core = np.clip(unpacking, 0.0, 1.0)
    wire = _highest(_over(receive, limits.nic_bytes_s), _over(everyone, limits.egress_bytes_s))
    elapsed_s = series.begin_s[inside] - min(begin_s for begin_s, _ in windows)
    disk = np.array([limits.disk_at(at_s) or np.nan for at_s in elapsed_s])
    filled = write / disk
    alone_s = limits.alone_s(received / images)

    def mean(share: Floats | None) -> float | None:
        if share is None or not seconds or np.isnan(share).all():
            return None
        return float(np.nansum(share * part_s)) / seconds

    unpack = mean(unpacking / cores)
    if unpack is not None and cores > 1:
        # Layers that are unpacked side by side: one alone may hold up the end.
        unpack = max(unpack, mean(one_core * (1.0 - np.clip(wire, 0.0, 1.0))) or 0.0)
    others = np.maximum(np.nan_to_num(one_core), np.clip(wire, 0.0, 1.0))
    holding = np.where(filled >= _FULL * PLATEAU, np.clip(filled, 0, 1) * (others < _FULL), 0.0)
    top = float(np.nanmax(receive)) if len(receive) else 0.0
    flowing = (receive > 0.3 * top) & (np.nan_to_num(one_core) < 0.5)
    return Busy(
        seconds=seconds,
        intervals=len(part_s),
        received_bytes=received,
        nic=mean(_over(receive, limits.nic_bytes_s)),
        egress=mean(_over(everyone, limits.egress_bytes_s)),
        zone=mean(_over(everyone / limits.zones, limits.zone_link_bytes_s)),
        connection=None if alone_s is None or not seconds else alone_s / seconds,
        disk=mean(np.where(np.isnan(filled), np.nan, holding)),
        disk_written=mean(filled),
        unpack=unpack,
        arriving=(mean(flowing.astype(np.float64)) or 0.0) if len(part_s) >= ENOUGH else 0.0,
    )


def _over(rate: Floats, limit: float | None) -> Floats | None:
    return None if limit is None else rate / limit


def _highest(*shares: Floats | None) -> Floats:
    known = [share for share in shares if share is not None]
    return np.max(known, axis=0) if known else np.zeros(1)
