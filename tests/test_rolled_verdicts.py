"""Verdicts roll up from pulls to trials, cells and the sweep, and nothing is counted twice."""

from pathlib import Path

import pytest
from benchmarked import benchmark
from builders import write_trial
from commands import imgpull
from counted import calls
from hypothesis import given
from hypothesis import strategies as st
from rows import pod, pull
from test_verdict import ABSENT, PODS, PULLS, STARTUP, SUBJECT, verdict_on

from imgpull.analysis.verdicts import roll_up
from imgpull.analysis.wording import ranged
from imgpull.cl2 import Junit, Report
from imgpull.results.flags import Flag, read_flags, write_flags
from imgpull.results.verdict import judge

ROOT = Path(__file__).parents[1]


def flagged(place: Path, *kinds: str) -> None:
    rows = [Flag("ns", f"p{k}", "c", "n", kind, "made") for k, kind in enumerate(kinds)]
    write_flags(place / "flags.csv", rows)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two cells: one of a valid and a slow trial, one of an invalid trial that was run again."""
    flagged(write_trial(tmp_path / "0", cell="a", name="a"))
    slow = ("9 pulls of 10 refused at first: 9 by the registry (HTTP 429)",)
    place = write_trial(tmp_path / "1", cell="a", name="a", trial=2, reasons=slow, slo="missed")
    flagged(place, *["throttled"] * 9)
    warm = ("cache=cold, but 25% of nodes had the image or part of it already",)
    first = {"cell": "b", "name": "b", "verdict": "invalid"}
    flagged(write_trial(tmp_path / "2", **first, reasons=warm), "warm", "warm")  # type: ignore[arg-type]
    again = tmp_path / "2" / "attempt-2"
    warm = ("cache=cold, but 50% of nodes had the image or part of it already",)
    flagged(write_trial(again, **first, attempt=2, reasons=warm), "warm", "duplicate")  # type: ignore[arg-type]
    return tmp_path


def test_a_sweep_is_the_sum_of_its_cells_and_a_cell_of_its_trials(sweep: Path) -> None:
    rolled = roll_up(sweep)
    assert [each.level for each in rolled] == ["sweep", "cell", "trial", "trial", "cell", "trial"]
    whole, a, a1, a2, b, b1 = rolled
    assert whole.verdicts == {"valid": 2, "invalid": 1}
    assert (whole.attempts, whole.counted, whole.slo_missed) == (4, 2, 1)
    for level, parts in ((whole, (a, b)), (a, (a1, a2)), (b, (b1,))):
        for field in ("verdicts", "flags"):
            kinds = {kind for part in parts for kind in getattr(part, field)}
            summed = {k: sum(getattr(p, field).get(k, 0) for p in parts) for k in kinds}
            assert summed == getattr(level, field)


def test_only_the_last_attempt_of_a_trial_is_counted(sweep: Path) -> None:
    b = roll_up(sweep)[-1]
    assert b.flags == {"warm": 1, "duplicate": 1}
    assert b.reasons[0][0].startswith("cache=cold, but 50%")


def test_a_reason_that_differs_in_its_figures_only_is_one(tmp_path: Path) -> None:
    for k in range(3):
        reasons = (f"pod startup 99th percentile {k}m3s, limit 3m0s", "another")
        write_trial(tmp_path / str(k), trial=k + 1, reasons=reasons)
    found = roll_up(tmp_path)[0].reasons
    assert found == (("pod startup 99th percentile 0m3s to 2m3s, limit 3m0s", 3), ("another", 3))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_a_reason_of_several_trials_says_from_least_to_most(counts: list[int]) -> None:
    told = [
        f"{n} pull{'s' * (n > 1)} of 50 refused: {n} by the registry (HTTP 429)" for n in counts
    ]
    least, most = min(counts), max(counts)
    n = f"{least}" if least == most else f"{least} to {most}"
    assert (
        ranged(told) == f"{n} pull{'s' * (most > 1)} of 50 refused: {n} by the registry (HTTP 429)"
    )


def test_names_that_differ_have_no_range() -> None:
    told = ["p1 pulled 1 GB in 0.4 s on n1", "p2 pulled 1 GB in 0.5 s on n2"]
    assert ranged(told) == told[0]
    assert ranged([told[0], "p1 pulled 1 GB"]) == told[0]


def test_one_pull_and_several_are_one_reason(tmp_path: Path) -> None:
    for k, said in enumerate(("3 pulls of 5 refused (30%)", "1 pull of 5 refused (9%)")):
        write_trial(tmp_path / str(k), trial=k + 1, reasons=(said,))
    assert roll_up(tmp_path)[0].reasons == (("1 to 3 pulls of 5 refused (9% to 30%)", 2),)


def test_flags_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [Flag("ns", "p", "c", "n", "warm", 'a "quoted", reason\nof two lines')]
    write_flags(tmp_path / "flags.csv", rows)
    assert read_flags(tmp_path / "flags.csv") == rows
    assert read_flags(tmp_path / "none.csv") == []


def test_explain_says_what_counts_why_and_where_the_time_went(sweep: Path) -> None:
    ended = imgpull(sweep.parent, "explain", str(sweep))
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].endswith(": 2 valid, 1 invalid; 1 missed a limit")
    assert "  pulls flagged: 9 throttled" in lines
    assert "  1 x cache=cold, but 50% of nodes had the image or part of it already" in lines
    assert sum("where the time went: cannot tell (not sure)" in line for line in lines) == 2
    empty = imgpull(sweep.parent, "explain", str(sweep / "0"))
    assert empty.status == 2
    assert "holds no finished trial" in empty.err


# What a trial's verdict makes of flags


def test_refusals_are_told_by_kind_and_are_no_fault() -> None:
    rows = [
        pull(0, failure="throttled", attempts=3),
        pull(1, failure="throttled", attempts=2),
        pull(2, failure="qps_exceeded", attempts=2),
        PULLS[3],
    ]
    found = verdict_on(rows=rows)
    assert (found.verdict, found.slo) == ("valid", "met")
    assert found.reasons == (
        "3 pulls of 4 refused at first: 2 by the registry (HTTP 429), "
        "1 by kubelet's registryPullQPS",
    )


def test_a_second_pull_of_a_node_is_a_warning() -> None:
    rows = [*PULLS, pull(4, node="n0", requested_at=100.0)]
    found = verdict_on(rows=rows, pods=[*PODS, pod(4, node="n0")])
    assert found.verdict == "degraded"
    assert found.reasons == (
        "1 pull on 1 node fetched an image that the node had fetched before: "
        "left out of the pull figures",
    )
    assert [(flag.pod, flag.kind) for flag in found.flags] == [("p4", "duplicate")]


def test_an_absent_sample_names_the_metrics_that_were_asked_for() -> None:
    query = 'histogram_quantile(0.5, a_seconds_bucket{x="y"} or b_seconds_bucket{x="y"})'
    steps = [
        {"measurements": [{"params": {
            "metricName": "M", "queries": [{"name": q, "query": query} for q in ("p50", "p99")],
        }}]}
    ]  # fmt: skip
    report = Report(
        "test", Junit("test", "", 0.0, 0.0, (ABSENT.format("M"),)), STARTUP,
        generated={"steps": steps},
    )  # fmt: skip
    (reason,) = judge(SUBJECT, report, PULLS, PODS, []).reasons
    assert reason.endswith("(nothing was found under a_seconds_bucket or b_seconds_bucket)")


# Speed


def calls_for(pods: int, directory: Path) -> int:
    """What reading, judging and summarising a valid trial takes."""
    results = benchmark("results")
    steps = results.steps(directory, results.write_trial(directory, pods))
    return calls(lambda: [step() for _, step in steps])


def test_twice_the_pulls_are_read_judged_and_summarised_with_twice_the_work(tmp_path: Path) -> None:
    """How many seconds that is: benchmarks/results.py."""
    (tmp_path / "warmed").mkdir()
    calls_for(100, tmp_path / "warmed")  # imports and caches
    counts = []
    for pods in (500, 1000, 2000):
        (tmp_path / str(pods)).mkdir()
        counts.append(calls_for(pods, tmp_path / str(pods)))
    assert 1.9 < counts[2] / counts[1] < 2.1, counts
    assert 1.9 < counts[1] / counts[0] < 2.1, counts
