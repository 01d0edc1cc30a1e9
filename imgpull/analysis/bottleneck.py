"""What held a cell's pods up: one call a cell, with its evidence, or that it cannot be told.

Hides how shares of time become a call: the limit that accounts for most of the time from asking to
running, sure only where the next one is clearly smaller in every trial. Checked on simulated cells;
on real clusters it is untested (docs/analysis.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from imgpull.analysis.busy import ENOUGH, Busy, busy
from imgpull.analysis.limits import Limits, read_limits
from imgpull.analysis.series import read_series
from imgpull.analysis.stages import Stages, stages
from imgpull.analysis.wording import plural, ranged
from imgpull.results.pulls_file import read_pulls
from imgpull.results.record import JobRecord, read_records
from imgpull.results.seen import read_pods

LIMITS = (
    "registry", "nic", "disk", "unpack", "kubelet_queue", "control_plane", "throttled",
    "cannot_tell",
)  # fmt: skip

PULLING = LIMITS[:4]  # what a pull itself runs into

# A limit that accounts for less of the time is not worth a name.
LEAST_SHARE = 0.2
# How much larger the first must be than the second. Trials of one cell differ by their luck, and
# a described rate is right to some percent: two limits within 5 % must never be told apart.
CLEARLY = 2.0
# A page cache hides what a full disk costs until it is full itself: one that wrote for so much of
# the pulls' time, and held others up for some of it, may be what a faster core would meet next.
_WRITTEN, _HELD_UP = 0.75, 0.05
# Without a series only what pulls and pods prove by themselves.
PROVEN_SHARE = 0.5


@dataclass(frozen=True)
class Call:
    """What held one cell up. `share` is the part of the time that `limit` accounts for."""

    cell_id: str
    name: str
    limit: str  # one of LIMITS
    sure: bool
    evidence: tuple[str, ...]
    share: float
    also: tuple[str, ...] = ()  # limits that may be it as well


@dataclass(frozen=True)
class _Account:
    """One trial: the share of its time that each limit accounts for, and why."""

    shares: dict[str, float]
    pull_share: float
    seen: bool  # whether there were rates of nodes
    evidence: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()  # limits of which the description says nothing
    coarse: bool = False  # too few points of the series in a pull
    guessed: bool = False  # bytes came more slowly than any described limit
    disk_full: bool = False  # it wrote nearly all the time, and sometimes held others up


def calls(sweep_dir: Path) -> list[Call]:
    """One call for each cell of a sweep, in the order of its first trial."""
    cells: dict[tuple[str, str], list[tuple[Path, JobRecord]]] = {}
    last: dict[Path, tuple[Path, JobRecord]] = {}
    for place, record in read_records(sweep_dir)[0]:
        last[sweep_dir / place.relative_to(sweep_dir).parts[0]] = place, record
    for place, record in last.values():
        cells.setdefault((record.cell_id, record.name), []).append((place, record))
    found = []
    for (cell_id, name), trials in cells.items():
        counted = [trial for trial in trials if trial[1].counts]
        # A cell is one description: its trials' configurations differ in their number alone.
        limits = read_limits(counted[0][0] / "config.resolved.yaml") if counted else Limits()
        found.append(_call(cell_id, name, [_account(*trial, limits) for trial in counted]))
    return found


def _account(place: Path, record: JobRecord, limits: Limits) -> _Account:
    """Divide one trial's time among the limits."""
    pods, pulls = read_pods(place / "pods.csv"), read_pulls(place / "pulls.csv")
    spent = stages(pods, pulls, limits, real=record.engine != "sim")
    total_s = spent.total_s
    if total_s <= 0:
        return _Account({}, 0.0, seen=False)
    shares = {
        "control_plane": spent.control_plane_s / total_s,
        "throttled": spent.throttled_s / total_s,
        "kubelet_queue": spent.kubelet_queue_s / total_s,
    }
    evidence, disk_full, guessed = _stage_evidence(spent, shares), False, False
    found = busy(read_series(place / "series.csv"), spent.pulling, limits, spent.images)
    if found:
        measured, said, guessed = _pull_shares(found, spent, limits)
        disk_full = measured["disk"] >= _HELD_UP and any(
            (each.disk_written or 0.0) >= _WRITTEN for each in found.values()
        )
        shares |= measured
        evidence |= said
    unknown = tuple(
        name
        for name, limit in (
            ("nic", limits.nic_bytes_s),
            ("disk", limits.disk_bytes_s),
            ("registry", limits.egress_bytes_s),
        )
        if limit is None
    )
    coarse = bool(found) and max(each.intervals for each in found.values()) < ENOUGH
    return _Account(
        shares, spent.pull_s / total_s, bool(found), evidence, unknown, coarse, guessed, disk_full
    )


def _stage_evidence(spent: Stages, shares: dict[str, float]) -> dict[str, str]:
    kinds = ", ".join(
        f"{plural(count, 'pull')} {_KINDS[kind]}" for kind, count in sorted(spent.refusals.items())
    )
    texts = {
        "control_plane": "went by before pods were created and bound to a node",
        "throttled": f"was back-off after refusals ({kinds})",
        "kubelet_queue": "was waiting for kubelet's turn while no pull of the own image went on",
    }
    return {
        limit: f"{shares[limit]:.0%} of the time from asking to running {text}"
        for limit, text in texts.items()
    }


_KINDS = {
    "throttled": "that the registry answered with 429",
    "qps_exceeded": "beyond kubelet's registryPullQPS",
}


def _pull_shares(
    found: dict[str, Busy], spent: Stages, limits: Limits
) -> tuple[dict[str, float], dict[str, str], bool]:
    """Of the time in pulls what each limit was busy, nodes weighted by the pods that waited.

    With the evidence, and whether the registry is only what remains when nothing else was busy.
    """
    weights = {node: spent.pull_s_of.get(node, 0.0) for node in found}
    weighed = sum(weights.values()) or 1.0

    def over(name: str) -> float:
        return sum((getattr(found[n], name) or 0.0) * w for n, w in weights.items()) / weighed

    ways = {
        "egress to all nodes": over("egress"),
        "link to the node's zone": over("zone"),
        "rate of single connections": over("connection"),
    }
    way = max(ways, key=lambda name: ways[name])
    pull = spent.pull_s / spent.total_s
    used = {
        "registry": ways[way],
        "nic": over("nic"),
        "disk": over("disk"),
        "unpack": over("unpack"),
    }
    if max(used.values()) < over("arriving") * _SLOWER_THAN_SAID:
        way, used["registry"] = "", over("arriving")
    rate = sum(each.received_bytes for each in found.values()) / sum(
        each.seconds for each in found.values()
    )
    said = {
        "registry": f"the registry's {way} was busy {used['registry']:.0%} of the pulls' time"
        if way
        else f"bytes came during {used['registry']:.0%} of the pulls' time, more slowly than any "
        "described limit: the registry, or the way to it, gives less than is described",
        "nic": f"nodes received {rate / 1e6:.0f} MB/s while pulling, "
        f"{used['nic']:.0%} of what their NIC can",
        "disk": f"the disk was full and nothing else was for {used['disk']:.0%} of the pulls' time "
        f"(written: {over('disk_written'):.0%} of what it can)",
        "unpack": f"unpacking kept its core{'s' if limits.unpacks > 1 else ''} busy "
        f"{used['unpack']:.0%} of the pulls' time",
    }
    return {name: share * pull for name, share in used.items()}, said, not way


# Where bytes come for so much longer than any limit is busy, a described limit is not the true one.
_SLOWER_THAN_SAID = 0.7


def _call(cell_id: str, name: str, trials: Sequence[_Account]) -> Call:
    """The call on a cell from its trials that count."""
    trials = [trial for trial in trials if trial.shares]
    if not trials:
        why = "no trial that counts saw when its pods were asked for and ran"
        return Call(cell_id, name, "cannot_tell", False, (why,), 0.0)
    mean = {limit: fmean(trial.shares.get(limit, 0.0) for trial in trials) for limit in LIMITS[:-1]}
    first, *others = sorted(mean, key=lambda limit: mean[limit], reverse=True)
    share = mean[first]
    told = ranged(
        [
            f"{trial.pull_share:.0%} of the time from asking to running was the image's pull"
            for trial in trials
        ]
    )
    seen = all(trial.seen for trial in trials)
    if share < (LEAST_SHARE if seen else PROVEN_SHARE):
        why = f"no limit accounts for more than {share:.0%} of the time"
        if not seen:
            why = "nobody recorded the nodes' rates (series.csv): what held pulls up is not known"
        return Call(cell_id, name, "cannot_tell", False, (why, told), share)
    full = first in PULLING and any(trial.disk_full for trial in trials)
    rivals = tuple(
        limit for limit in others if mean[limit] * CLEARLY > share or (limit == "disk" and full)
    )
    evidence = [
        ranged([trial.evidence[limit] for trial in trials if trial.shares.get(limit)])
        for limit in (first, *rivals)
    ]
    unknown = sorted({limit for trial in trials for limit in trial.unknown}) if seen else []
    if unknown:
        evidence.append(f"not described, so not judged: {', '.join(unknown)}")
    coarse = first in PULLING and any(trial.coarse for trial in trials)
    if coarse:
        evidence.append(f"series.csv has fewer than {ENOUGH} points in a pull: too few to be sure")
    guessed = first == "registry" and any(trial.guessed for trial in trials)
    ahead = all(_leads(trial.shares, first) for trial in trials)
    sure = ahead and not (rivals or unknown or guessed or coarse)
    return Call(cell_id, name, first, sure, (*evidence, told), share, rivals)


def _leads(shares: dict[str, float], first: str) -> bool:
    """Whether this limit is clearly ahead in a trial."""
    others = [share for limit, share in shares.items() if limit != first]
    return shares.get(first, 0.0) >= CLEARLY * max(others, default=0.0)
