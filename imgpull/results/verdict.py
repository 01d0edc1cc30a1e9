"""Did we measure what we said? (Never: did we like the result.)

Hides the judgement: what makes a trial invalid does not depend on speed, and slowness is a result.
Each reason is a sentence with its figures. The rules: docs/design.md 4.5.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imgpull import cl2, units
from imgpull.cluster.series import received_against
from imgpull.engines import Remark, Subject
from imgpull.pulls import Pull
from imgpull.results.flags import TOLERANCE, Flag, ceiling_of, flags, leader_rate
from imgpull.results.measure import cold_share, ready_in_time, seen_share
from imgpull.results.record import VERDICTS, Measurement
from imgpull.results.seen import PodRow, Rates

# Up to this share of pulls may be unseen or unknown before a trial no longer counts.
UNSEEN_LIMIT = 0.05


@dataclass
class Verdict:
    """valid, degraded, invalid or failed; whether the limits were met; and why."""

    verdict: str = "valid"
    slo: str = "unknown"
    flags: list[Flag] = field(default_factory=list)  # what is so of single pulls
    _said: list[tuple[str, str]] = field(default_factory=list)  # (verdict, reason)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason, the gravest first."""
        said = sorted(self._said, key=lambda each: VERDICTS.index(each[0]), reverse=True)
        return tuple(reason for _, reason in said)

    def lower_to(self, verdict: str, reason: str) -> None:
        """Never better than before."""
        self.verdict = max(self.verdict, verdict, key=VERDICTS.index)
        self._said.append((verdict, reason))

    def miss(self, reason: str) -> None:
        """A limit was missed: a result, no fault."""
        self.slo = "missed"
        self._said.append(("valid", reason))


@dataclass(frozen=True)
class _Trial:
    """All that a verdict is about."""

    subject: Subject
    report: cl2.Report
    rows: Sequence[Pull]
    pods: Sequence[PodRow]
    found: Sequence[Measurement]


def judge(
    subject: Subject,
    report: cl2.Report,
    rows: Sequence[Pull],
    pods: Sequence[PodRow],
    found: Sequence[Measurement],
    remarks: Sequence[Remark] = (),
    rates: Rates | None = None,
) -> Verdict:
    """The verdict on one trial; `remarks` are what its engine saw that no file tells."""
    verdict = Verdict(flags=flags(subject, rows, pods))
    for remark in remarks:
        verdict.lower_to(remark.verdict, remark.text)
    _judge_received(verdict, rows, rates)
    if report.junit is None:
        verdict.lower_to(
            "failed", "no junit.xml: ClusterLoader2 stopped before the test (set-up or compilation)"
        )
        return verdict
    trial = _Trial(subject, report, rows, pods, found)
    for text in report.failures:
        _judge_failure(verdict, trial, text)
    _judge_pods(verdict, trial)
    _judge_temperature(verdict, trial)
    _judge_unseen(verdict, trial)
    _judge_leaders(verdict, trial)
    _judge_repeated(verdict)
    _judge_refused(verdict, trial)
    _judge_means(verdict, trial)
    if verdict.slo == "unknown" and report.pod_startup:
        verdict.slo = "met"
    return verdict


def _judge_received(verdict: Verdict, rows: Sequence[Pull], rates: Rates | None) -> None:
    """What pulls account for against what nodes received: a reason to look, no more."""
    if rates is None:
        return
    pulled: dict[str, float] = {}
    for row in rows:
        if row.leader and row.node and row.size_bytes and row.outcome == "pulled":
            pulled[row.node] = pulled.get(row.node, 0.0) + row.size_bytes
    received = {node: sum(count for *_, count in told) for node, told in rates.points.items()}
    if difference := received_against(pulled, received):
        verdict.lower_to("valid", difference)


_SLOW = re.compile(r"pod startup: too high latency (\S+) percentile: got (\S+) expected: (\S+)")
_THRESHOLD = re.compile(r"sample (?:above|below) threshold")
_METRIC = re.compile(r"error: (.+?): \[")
_NO_SAMPLES = re.compile(r"([^\s\[]+): query returned no samples for ")
_SERIES = re.compile(r"\b(\w+_\w+?(?:_bucket|_sum|_count|_total)?)\{")
_TIMED_OUT = re.compile(r"objects timed out|incorrect objects number")


def _judge_failure(verdict: Verdict, trial: _Trial, text: str) -> None:
    """CL2's failures: slowness is a result, an absent metric invalid, anything else a failure."""
    absent, threshold = _NO_SAMPLES.findall(text), _THRESHOLD.search(text)
    if slow := _SLOW.search(text):
        verdict.miss(f"pod startup {slow[1]} percentile {slow[2]}, limit {slow[3]}")
    elif _TIMED_OUT.search(text) and _only_slow(trial):
        verdict.miss(_lateness(trial))
    elif "too many samples" in text or not (absent or threshold):
        verdict.lower_to("failed", text + _broken_pulls(trial))
    else:
        if absent:
            _judge_absent(verdict, trial, text, absent)
        if threshold:
            verdict.miss(text)


def _judge_absent(verdict: Verdict, trial: _Trial, text: str, queries: Sequence[str]) -> None:
    named = _METRIC.search(text)
    metric = named[1] if named else ""
    # Where no pull ended in time there is no pull metric either: that is slowness again.
    if trial.rows and not any(row.outcome == "pulled" for row in trial.rows):
        text_of = trial.report.query_text
        queries = [query for query in queries if "pull" not in (text_of(metric, query) or "")]
    if queries:
        names = ", ".join(f"{metric}/{query}" for query in queries)
        texts = (trial.report.query_text(metric, query) or "" for query in queries)
        asked = dict.fromkeys(name for text in texts for name in _SERIES.findall(text))
        which = f" (nothing was found under {' or '.join(asked)})" if asked else ""
        verdict.lower_to("invalid", f"required samples are absent: {names}{which}")


def _only_slow(trial: _Trial) -> bool:
    """Whether every pod that was late was still waiting for its image, or came up later."""
    late = _late(trial)
    pulls = {(row.namespace, row.pod): row for row in trial.rows}
    return bool(late) and all(
        pod.ready is not None or _waited(pulls.get((pod.namespace, pod.pod))) for pod in late
    )


# What CL2 need not have seen before it gave up: it looks each 5 s, and times may be whole seconds.
_UNSEEN_S = cl2.CONTROLLED_POLL_S + 1.0


def _late(trial: _Trial) -> list[PodRow]:
    """The pods that CL2 need not have seen ready; its clock is their Deployment's."""
    begun_s: dict[tuple[str, str], float] = {}
    for pod in trial.pods:
        if pod.created is not None:
            controller = _controller(pod)
            begun_s[controller] = min(begun_s.get(controller, math.inf), pod.created)

    def seen(pod: PodRow) -> bool:
        deadline_s = trial.subject.deadline_s(begun_s.get(_controller(pod)))
        return pod.ready is not None and pod.ready <= deadline_s - _UNSEEN_S

    return [pod for pod in trial.pods if not seen(pod)]


def _controller(pod: PodRow) -> tuple[str, str]:
    """A pod is named after what made it."""
    return pod.namespace, pod.pod.rpartition("-")[0]


def _lateness(trial: _Trial) -> str:
    late = _late(trial)
    text = f"{len(late)} of {len(trial.pods)} pods not ready when the wait ended"
    just = sum(ready_in_time(trial.subject, pod) for pod in late)
    if not just:
        return text
    return f"{text}, or too late for ClusterLoader2's last look at them ({just})"


def _waited(row: Pull | None) -> bool:
    """Whether a pod's image was still to come, as far as anybody knows."""
    return row is not None and (
        row.outcome == "censored" or (row.outcome == "failed" and row.failure is None)
    )


def _broken_pulls(trial: _Trial) -> str:
    broken = [row for row in trial.rows if row.outcome == "failed" and row.failure]
    return f" ({len(broken)} pulls failed: {broken[0].failure})" if broken else ""


def _judge_pods(verdict: Verdict, trial: _Trial) -> None:
    subject, pods = trial.subject, trial.pods
    if not pods:
        return
    if subject.pods is not None and len(pods) < subject.pods:
        verdict.lower_to("invalid", f"{len(pods)} pods were created, {subject.pods} asked for")
    nodes = {row.node for row in pods if row.node}
    if subject.nodes is not None and len(nodes) > subject.nodes:
        verdict.lower_to("invalid", f"pods ran on {len(nodes)} nodes, {subject.nodes} asked for")


def _judge_temperature(verdict: Verdict, trial: _Trial) -> None:
    cache, rows = trial.subject.cache, trial.rows
    if cache not in ("cold", "salted", "warm"):
        return
    ended = [row for row in rows if row.outcome in ("pulled", "present")]
    unknown = sum(row.temperature == "unknown" for row in ended)
    if unknown:
        verdict.lower_to(
            "degraded",
            f"temperature of {unknown} of {len(ended)} pulls is unknown: no receive rates",
        )
    share = cold_share(rows)
    if cache in ("cold", "salted") and share is not None and share < 1:
        verdict.lower_to(
            "invalid",
            f"cache={cache}, but {1 - share:.0%} of nodes had the image or part of it already",
        )
    fetched = {row.node for row in rows if row.leader and row.temperature in ("cold", "partial")}
    if cache == "warm" and fetched:
        verdict.lower_to(
            "invalid", f"cache=warm, but {len(fetched)} nodes fetched the image or part of it"
        )


def _judge_unseen(verdict: Verdict, trial: _Trial) -> None:
    cache = trial.subject.cache
    if not trial.pods and not trial.rows:
        if cache in ("cold", "salted", "warm"):
            verdict.lower_to("invalid", f"no pull was seen: cache={cache} cannot be verified")
        else:
            verdict.lower_to("degraded", "no pull events: pulls are unknown")
        return
    share = seen_share(trial.subject, trial.rows, trial.pods)
    unseen = 0.0 if share is None else 1 - share
    if unseen > UNSEEN_LIMIT + 1e-9:  # 19 of 20 is still within 5 %
        verdict.lower_to("invalid", f"{unseen:.0%} of pulls were not seen")
    elif unseen > 0:
        verdict.lower_to("degraded", f"{unseen:.1%} of pulls were not seen")


def _judge_leaders(verdict: Verdict, trial: _Trial) -> None:
    """No leader pull is faster than the hardware."""
    ceiling, what = ceiling_of(trial.subject)
    rated = ((leader_rate(trial.subject, row), row) for row in trial.rows)
    too_fast = [(rate, row) for rate, row in rated if rate and rate > ceiling * TOLERANCE]
    if too_fast:
        _, row = max(too_fast, key=lambda each: each[0])
        size = row.size_bytes or trial.subject.compressed_bytes or 0
        verdict.lower_to(
            "invalid",
            f"{row.pod} pulled {units.format_size(size)} in {row.pull_s:.3g} s on {row.node}: "
            f"more than {what} can do ({units.format_size(ceiling)}/s){_more(too_fast)}",
        )


def _judge_repeated(verdict: Verdict) -> None:
    """A node that fetches an image again adds no independent pull, and had to lose it before."""
    again = [flag for flag in verdict.flags if flag.kind == "duplicate"]
    if again:
        nodes = len({flag.node for flag in again})
        verdict.lower_to(
            "degraded",
            f"{_pulls(len(again))} on {nodes} node{'s' if nodes > 1 else ''} fetched an image that "
            "the node had fetched before: left out of the pull figures",
        )


_REFUSALS = {
    "throttled": "by the registry (HTTP 429)",
    "qps_exceeded": "by kubelet's registryPullQPS",
}


def _judge_refused(verdict: Verdict, trial: _Trial) -> None:
    """Refusals by rate are results, each kind by its name: which of them to change is the point."""
    counts = Counter(flag.kind for flag in verdict.flags if flag.kind in _REFUSALS)
    if counts:
        kinds = ", ".join(f"{counts[kind]} {_REFUSALS[kind]}" for kind in counts)
        told = f"{_pulls(counts.total())} of {len(trial.rows)} refused at first: {kinds}"
        verdict.lower_to("valid", told)


def _pulls(count: int) -> str:
    return f"{count} pull{'' if count == 1 else 's'}"


def _judge_means(verdict: Verdict, trial: _Trial) -> None:
    """No mean over leaders is faster than the hardware.

    Followers return at once: containerd's mean speaks of leaders only when it counted no other.
    """
    counted = {row.statistic: row.value for row in trial.found if row.measurement == _PULLS}
    leaders = sum(bool(row.leader) and row.pull_s is not None for row in trial.rows)
    if trial.rows and round(counted.get("success", -1)) != leaders:
        return
    ceiling, what = ceiling_of(trial.subject)
    too_fast = [row for row in _mean_throughputs(trial.found) if row.value > ceiling * TOLERANCE]
    if too_fast:
        worst = max(too_fast, key=lambda row: row.value)
        where = f" on {worst.subject}" if worst.subject else ""
        verdict.lower_to(
            "invalid",
            f"{worst.measurement} {worst.statistic}{where} is "
            f"{worst.value / units.MIB:,.0f} MiB/s: more than {what} can do "
            f"({ceiling / units.MIB:,.0f} MiB/s), so the node was warm{_more(too_fast)}",
        )


_PULLS = "containerd_pulls"


def _mean_throughputs(found: Sequence[Measurement]) -> Iterator[Measurement]:
    for row in found:
        queried = row.source.startswith("GenericPrometheusQuery")
        rate = row.unit == "bytes/s" and "throughput" in row.measurement
        if queried and rate and not re.fullmatch(r"p\d+.*", row.statistic):
            yield row


def _more(found: Sequence[object]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
