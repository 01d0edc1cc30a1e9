"""Did we measure what we said? (Never: did we like the result.)

Hides the judgement: what makes a trial invalid does not depend on speed, and slowness is a result.
Each reason is a sentence with its figures. The rules: docs/design.md 4.5.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from imgpull import cl2, units
from imgpull.engines import Subject
from imgpull.pulls import Pull
from imgpull.results.measure import cold_share, seen_share
from imgpull.results.pull_rows import PodRow
from imgpull.results.record import Measurement

# Up to this share of pulls may be unseen or unknown before a trial no longer counts.
UNSEEN_LIMIT = 0.05

# One pull's tar stream is hashed on one core: sha256 with SHA-NI does at most about 2 GB/s of
# unpacked bytes (ASSUMPTION, image-pull literature), and packed ones are never more than those.
ONE_PULL_BYTES_S = 2.0e9
# Durations are truncated to milliseconds and datasheets rounded.
_TOLERANCE = 1.05


@dataclass
class Verdict:
    """valid, degraded, invalid or failed, with the reasons for it."""

    verdict: str = "valid"
    reasons: list[str] = field(default_factory=list)
    slo: str = "unknown"

    def lower_to(self, verdict: str, reason: str) -> None:
        """Never better than before."""
        order = ("valid", "degraded", "invalid", "failed")
        self.verdict = max(self.verdict, verdict, key=order.index)
        self.reasons.append(reason)


def judge(
    subject: Subject,
    report: cl2.Report,
    rows: Sequence[Pull],
    pods: Sequence[PodRow],
    found: Sequence[Measurement],
) -> Verdict:
    """The verdict on one trial."""
    verdict = Verdict()
    if report.junit is None:
        verdict.lower_to(
            "failed", "no junit.xml: ClusterLoader2 stopped before the test (set-up or compilation)"
        )
        return verdict
    _judge_failures(verdict, report.failures, rows, pods)
    _judge_pods(verdict, subject, pods)
    _judge_temperature(verdict, subject, rows)
    _judge_unseen(verdict, subject, rows, pods)
    _judge_rates(verdict, subject, rows, found)
    if verdict.slo == "unknown" and report.pod_startup:
        verdict.slo = "met"
    return verdict


_SLOW = re.compile(r"pod startup: too high latency (\S+) percentile: got (\S+) expected: (\S+)")
_THRESHOLD = re.compile(r"sample (?:above|below) threshold")
_NO_SAMPLES = re.compile(r"(\S+): query returned no samples for ([^\]\s]+)")
_TIMED_OUT = re.compile(r"objects timed out|incorrect objects number")


def _judge_failures(
    verdict: Verdict, failures: Iterable[str], rows: Sequence[Pull], pods: Sequence[PodRow]
) -> None:
    """CL2's failures: slowness is a result, an absent metric invalid, anything else a failure."""
    for text in failures:
        if slow := _SLOW.search(text):
            verdict.slo = "missed"
            verdict.reasons.append(f"pod startup {slow[1]} percentile {slow[2]}, limit {slow[3]}")
        elif absent := _NO_SAMPLES.findall(text):
            _judge_absent(verdict, absent, rows)
        elif _THRESHOLD.search(text):
            verdict.slo = "missed"
            verdict.reasons.append(text)
        elif _TIMED_OUT.search(text) and _only_slow(pods):
            verdict.slo = "missed"
            late = sum(row.ready is None for row in pods)
            verdict.reasons.append(f"{late} of {len(pods)} pods not ready when the wait ended")
        else:
            verdict.lower_to("failed", text)


def _judge_absent(
    verdict: Verdict, absent: Sequence[tuple[str, str]], rows: Sequence[Pull]
) -> None:
    # A trial in which no pull ended has no pull metric either: that is slowness again.
    if rows and not any(row.outcome == "pulled" for row in rows):
        return
    names = ", ".join(f"{metric}/{query}" for query, metric in absent)
    verdict.lower_to("invalid", f"required samples are absent: {names}")


def _only_slow(pods: Sequence[PodRow]) -> bool:
    """Whether every pod that is late had a node: then it was its image that was late."""
    late = [row for row in pods if row.ready is None]
    return bool(late) and all(row.scheduled is not None for row in late)


def _judge_pods(verdict: Verdict, subject: Subject, pods: Sequence[PodRow]) -> None:
    if not pods:
        return
    if subject.pods is not None and len(pods) < subject.pods:
        verdict.lower_to("invalid", f"{len(pods)} pods were created, {subject.pods} asked for")
    nodes = {row.node for row in pods if row.node}
    if subject.nodes is not None and len(nodes) > subject.nodes:
        verdict.lower_to("invalid", f"pods ran on {len(nodes)} nodes, {subject.nodes} asked for")


def _judge_temperature(verdict: Verdict, subject: Subject, rows: Sequence[Pull]) -> None:
    if subject.cache not in ("cold", "warm") or not rows:
        return
    share = cold_share(rows)
    ended = [row for row in rows if row.outcome in ("pulled", "present")]
    unknown = [row for row in ended if row.temperature == "unknown"]
    if unknown:
        verdict.lower_to(
            "degraded",
            f"temperature of {len(unknown)} of {len(ended)} pulls is unknown: no receive rates",
        )
    if share is None:
        return
    if subject.cache == "cold" and share < 1:
        verdict.lower_to(
            "invalid",
            f"cache=cold, but {1 - share:.0%} of nodes had the image or part of it already",
        )
    if subject.cache == "warm" and share > 0:
        verdict.lower_to("invalid", f"cache=warm, but {share:.0%} of nodes fetched the image")


def _judge_unseen(
    verdict: Verdict, subject: Subject, rows: Sequence[Pull], pods: Sequence[PodRow]
) -> None:
    if not pods and not rows:
        if subject.cache in ("cold", "warm"):
            verdict.lower_to(
                "invalid", f"no pull was seen: cache={subject.cache} cannot be verified"
            )
        else:
            verdict.lower_to("degraded", "no pull events: pulls are unknown")
        return
    unseen = 1 - seen_share(rows, pods)
    if unseen > UNSEEN_LIMIT:
        verdict.lower_to("invalid", f"{unseen:.0%} of pulls were not seen")
    elif unseen > 0:
        verdict.lower_to("degraded", f"{unseen:.1%} of pulls were not seen")


def _judge_rates(
    verdict: Verdict, subject: Subject, rows: Sequence[Pull], found: Sequence[Measurement]
) -> None:
    """No leader pull, and no mean over leaders, is faster than the hardware."""
    ceiling, what = _ceiling(subject)
    leaders = [row for row in rows if row.leader and row.pull_s]
    for row in leaders:
        size = row.size_bytes or subject.compressed_bytes
        if size and row.pull_s and size / row.pull_s > ceiling * _TOLERANCE:
            verdict.lower_to(
                "invalid",
                f"{row.pod} pulled {units.format_size(size)} in {row.pull_s:.3g} s on {row.node}: "
                f"more than {what} can do ({units.format_size(ceiling)}/s)",
            )
            break
    # Followers return at once: containerd's mean speaks of leaders only when it counted no other.
    counted = {row.statistic: row.value for row in found if row.measurement == "containerd_pulls"}
    if rows and round(counted.get("success", -1)) != len(leaders):
        return
    for measured in found:
        if _is_mean_throughput(measured) and measured.value > ceiling * _TOLERANCE:
            where = f" on {measured.subject}" if measured.subject else ""
            verdict.lower_to(
                "invalid",
                f"{measured.measurement} {measured.statistic}{where} is "
                f"{measured.value / units.MIB:,.0f} MiB/s: more than {what} can do "
                f"({ceiling / units.MIB:,.0f} MiB/s); the node was warm",
            )


def _is_mean_throughput(measured: Measurement) -> bool:
    return (
        measured.unit == "bytes/s"
        and "throughput" in measured.measurement
        and measured.source.startswith("GenericPrometheusQuery")
        and not re.fullmatch(r"p\d+.*", measured.statistic)
    )


def _ceiling(subject: Subject) -> tuple[float, str]:
    """Bytes per second that one pull on one node cannot exceed, and what forbids it."""
    limits = [(ONE_PULL_BYTES_S, "a single pull's hashing and unpacking")]
    if subject.nic_mbit_s is not None:
        limits.append((subject.nic_mbit_s * 1e6 / 8, "the node's NIC"))
    if subject.disk_ceiling_mb_s is not None:
        limits.append((subject.disk_ceiling_mb_s * 1e6, "the node's disk"))
    return min(limits)
