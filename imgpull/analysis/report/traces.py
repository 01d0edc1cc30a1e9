"""What the script of the page draws: each trial's pods and rates over time, small enough to carry.

Hides the down-sampling, whose rule `Budget.rule` says in the report: fewer pods a trial, evenly by
rank, and means over equal stretches of time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from imgpull.analysis.cells import last_attempts
from imgpull.analysis.series import Series
from imgpull.analysis.statistics import Floats
from imgpull.analysis.trial_files import Limits, Row, TrialFiles
from imgpull.analysis.wording import plural
from imgpull.tables import number
from imgpull.units import MIB

MAX_TRIALS = 240  # with a timeline of their own
POD_ROWS = 16_000  # of all trials together: about a megabyte
MAX_PODS = 150  # of one trial: more lines are thinner than a hair
RATE_NUMBERS = 120_000  # of all trials together: about 0.7 MB
MOST_BINS, FEWEST_BINS = 120, 20
_RATES = 2  # of each line: receive and write
_SEVERAL, _FEW = 12, 4  # nodes with a line of their own

_MARKS = ("created", "scheduled", "pulling", "pulled", "started", "ready")
_LED, _WAITED, _PRESENT, _FAILED, _CENSORED, _UNKNOWN = range(6)  # how a pod came by its image


@dataclass(frozen=True)
class Budget:
    """How much is kept of a sweep's trials; smaller where many share the page."""

    jobs: frozenset[int]  # the trials that can be chosen
    trials: int
    pods: int
    nodes: int
    bins: int

    @property
    def rule(self) -> str:
        """What was left out, in words."""
        left = (
            f"Of {self.trials} trials {len(self.jobs)} can be chosen here: of each cell the one in "
            "the middle by image pull p50. "
            if len(self.jobs) < self.trials
            else ""
        )
        return (
            f"{left}At most {plural(self.pods, 'pod')} a trial, evenly by rank of the time to "
            f"ready, both ends kept. Rates are means over at most {self.bins} equal stretches of "
            "the time in which pods started, so that no byte is lost but a short peak is lower; "
            "the sum covers all nodes, at most "
            f"{plural(self.nodes, 'node')} have a line of their own, evenly by rank of bytes."
        )


def budget(frame: pd.DataFrame, scale: float = 1.0) -> Budget:
    """What fits of all last attempts; `scale` below 1 keeps that share of it."""
    trials = last_attempts(frame)
    shown = _shown(trials)
    count = max(len(shown), 1)
    nodes = _SEVERAL if count <= MAX_TRIALS // 4 else _FEW
    numbers = RATE_NUMBERS * scale / count / _RATES / (nodes + 1)
    return Budget(
        frozenset(int(job) for job in shown["job"]),
        len(trials),
        min(MAX_PODS, max(5, int(POD_ROWS * scale) // count)),
        nodes,
        int(min(MOST_BINS, max(FEWEST_BINS, numbers))),
    )


def _shown(trials: pd.DataFrame) -> pd.DataFrame:
    """All trials, or of each cell the one in the middle where there are too many."""
    if len(trials) <= MAX_TRIALS:
        return trials
    ranked = trials.sort_values(["image_pull_p50_s", "job"], kind="stable")
    middle = [group.index[len(group) // 2] for _, group in ranked.groupby("cell_id", sort=False)]
    return trials.loc[sorted(middle)[:MAX_TRIALS]]


def trace(files: TrialFiles, limits: Limits, kept: Budget) -> dict[str, Any]:
    """A trial's pods, rates and limits as the script takes them: plain lists and numbers."""
    return {
        "limits": {"nic": limits.nic, "disk": limits.disk, "registry": limits.registry},
        **_pods(files, kept.pods),
        "rates": _rates(files, kept),
    }


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _pods(files: TrialFiles, most: int) -> dict[str, Any]:
    """Pods as [name, node, created, scheduled, pulling, waited until, pulled, started, ready, how].

    Moments are whole milliseconds since the trial began; None never came or is not known.
    """
    pulls: dict[tuple[str, str], Row] = {}
    for row in files.pulls:
        key = row.get("namespace", ""), row.get("pod", "")
        if key not in pulls or row.get("leader") == "true":  # of several containers, the leader
            pulls[key] = row
    pods = [row for row in files.pods if number(row.get("created")) is not None]
    pods.sort(key=_to_ready)
    kept = [pods[place] for place in evenly(len(pods), most)]
    nodes = sorted({row.get("node") or "" for row in kept})
    rows = [
        _pod(row, nodes, pulls.get((row.get("namespace", ""), row.get("pod", "")), {}))
        for row in sorted(kept, key=lambda row: (number(row["created"]) or 0.0, row["pod"]))
    ]
    return {"of": len(pods), "nodes": nodes, "pods": rows}


def _to_ready(row: Row) -> tuple[float, str]:
    created, ready = number(row.get("created")), number(row.get("ready"))
    known = created is not None and ready is not None
    return (ready - created if known else np.inf, row.get("pod", ""))  # type: ignore[operator]


def _pod(row: Row, nodes: list[str], pull: Row) -> list[Any]:
    times = {name: number(row.get(name)) for name in _MARKS}
    waited = number(pull.get("wait_s"))
    begun = times["pulling"]
    until = begun + waited if begun is not None and waited is not None else None
    pull_s = number(pull.get("pull_s"))
    if (number(pull.get("attempts")) or 1) > 1 and pull_s is not None and times["pulled"]:
        until = times["pulled"] - pull_s  # earlier attempts failed: back-off until the last one
    marks = (
        times["created"], times["scheduled"], begun, until,
        times["pulled"], times["started"], times["ready"],
    )  # fmt: skip
    written = [None if mark is None else round(mark * 1000) for mark in marks]
    return [row.get("pod", ""), nodes.index(row.get("node") or ""), *written, _how(pull)]


def _how(pull: Row) -> int:
    outcome = pull.get("outcome")
    if outcome == "pulled":
        return _WAITED if pull.get("leader") == "false" else _LED
    known = {"present": _PRESENT, "failed": _FAILED, "censored": _CENSORED}
    return known.get(outcome or "", _UNKNOWN)


def _rates(files: TrialFiles, kept: Budget) -> dict[str, Any] | None:
    """Receive and write rates over the time in which pods started; None without series."""
    curves = {
        "receive": _moved(files, lambda series: series.receive_bytes_s),
        "write": _moved(files, lambda series: series.write_bytes_s),
    }
    seen = [moments for found in curves.values() for moments, _ in found.values()]
    if not seen:
        return None
    begin, end = _window(files, seen)
    finest = max(float(np.median(np.concatenate([np.diff(moments) for moments in seen]))), 1e-3)
    edges = np.linspace(begin, end, 1 + max(1, min(kept.bins, round((end - begin) / finest))))
    told: dict[str, Any] = {"begin_s": round(begin, 3), "step_s": float(edges[1] - edges[0])}
    received = curves["receive"] or curves["write"]
    ranked = sorted(received, key=lambda node: (float(received[node][1][-1]), node))
    lines = sorted(ranked[place] for place in evenly(len(ranked), kept.nodes))
    told["nodes"] = lines
    for rate, found in curves.items():
        means = {node: _means(*curve, edges) for node, curve in found.items()}
        total = np.nansum(list(means.values()), axis=0) if means else np.array([])
        told[rate] = {
            "seen": len(means),
            "total": _written(total),
            "lines": [_written(means[node]) if node in means else [] for node in lines],
        }
    return told


def _moved(
    files: TrialFiles, rate_of: Callable[[Series], Floats]
) -> dict[str, tuple[Floats, Floats]]:
    """Node -> (moments, bytes moved until then), where its rate is known."""
    curves = {}
    for node, series in files.series.items():
        rates = rate_of(series)
        known = ~np.isnan(rates)
        moments, rates = series.at_s[known], rates[known]
        if len(moments) > 1:
            moved = np.concatenate([[0.0], np.cumsum(rates[1:] * np.diff(moments))])
            curves[node] = moments, moved
    return curves


def _window(files: TrialFiles, moments: Sequence[Any]) -> tuple[float, float]:
    """From the first pod's creation to the last one's start, as far as there are series."""
    first = min(float(found[0]) for found in moments)
    last = max(float(found[-1]) for found in moments)
    known = [number(row.get(name)) for row in files.pods for name in ("created", "pulled", "ready")]
    seen = [value for value in known if value is not None]
    if not seen:
        return first, last
    begin, end = max(first, min(seen) - 1), min(last, max(seen) + 1)
    return (begin, end) if end > begin else (first, last)


def _means(moments: Floats, moved: Floats, edges: Floats) -> Floats:
    """Mean rates between the edges, MiB/s; NaN outside of what was seen."""
    inside = (edges[1:] > moments[0]) & (edges[:-1] < moments[-1])
    rates = np.diff(np.interp(edges, moments, moved)) / np.diff(edges) / MIB
    return np.where(inside, rates, np.nan)


def _written(values: Floats) -> list[float | None]:
    """Three significant figures: a picture shows no more."""
    return [None if math.isnan(value) else float(f"{value:.3g}") for value in values.tolist()]
