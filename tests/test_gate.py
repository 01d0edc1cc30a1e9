"""Laws of `imgpull gate`: what stops a release, what does not, and who may say so."""

import itertools
import json
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from builders import write_trial
from commands import imgpull
from test_compare import REAL, add_sweep

from imgpull.analysis.acknowledging import Acknowledged, read_acknowledged
from imgpull.analysis.comparison_text import as_json, markdown
from imgpull.analysis.gating import Gate, Limits, beyond_chance, gate
from imgpull.analysis.sides import PRIMARY, read_side
from imgpull.analysis.statistics import Ratio
from imgpull.errors import ConfigError
from imgpull.units import parse_share

OPTIONS = ("--max-regression", "--min-effect", "--spread")
TODAY = date(2026, 6, 1)
GRID = {"nodes": (10, 20)}


def judged(a: Path, b: Path, **options: Any) -> Gate:
    limits = options.pop("limits", Limits(0.10))
    plain: dict[str, Any] = {"measurement": PRIMARY, "today": TODAY}
    return gate(read_side(a), read_side(b), limits=limits, **(plain | options))


def slower(times: float, at: int = 20) -> Any:
    return lambda chosen: 100.0 * (times if chosen["nodes"] == at else 1.0)


@pytest.mark.parametrize(
    ("times", "status", "outcomes"),
    [
        (1.0, 0, ["ok", "ok"]),
        (1.3, 3, ["ok", "regression"]),
        (1.07, 0, ["ok", "ok"]),  # slower, but within the limit
        (0.7, 0, ["ok", "ok"]),
    ],
)
def test_a_slowdown_above_the_limit_stops_and_none_below(
    tmp_path: Path, times: float, status: int, outcomes: list[str]
) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", GRID, slower(times), luck=2)
    found = judged(a, b)
    assert [cell.outcome for cell in found.cells] == outcomes
    assert found.status == status


def test_a_lower_rate_is_a_slowdown_too(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", GRID, slower(1.3), luck=2)
    found = judged(a, b, measurement="node_throughput_mib_s/p50")
    assert [cell.outcome for cell in found.cells] == ["ok", "regression"]
    back = judged(b, a, measurement="node_throughput_mib_s/p50")
    assert back.status == 0


def test_a_slowdown_must_be_shown_to_be_above_the_minimum_effect(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", GRID, slower(1.06), luck=2)
    assert judged(a, b, limits=Limits(0.0, 0.0)).status == 3
    assert judged(a, b, limits=Limits(0.0, 0.05)).status == 0


def test_noise_larger_than_the_limit_is_no_regression(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID, noise=0.3)
    b = add_sweep(tmp_path / "b", GRID, slower(1.15), noise=0.3, luck=2)
    found = judged(a, b)
    assert found.status == 0
    assert all("would miss" in cell.message for cell in found.cells)


def test_too_few_trials_cannot_tell(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID, trials=3)
    b = add_sweep(tmp_path / "b", GRID, slower(9.0), trials=3, luck=2)
    found = judged(a, b)
    assert found.status == 4
    assert all("too few trials to tell" in cell.message for cell in found.cells)


@pytest.mark.parametrize("gone", ["cell", "verdict"])
def test_a_cell_without_numbers_on_the_other_side_does_not_pass(tmp_path: Path, gone: str) -> None:
    a, b = add_sweep(tmp_path / "a", GRID), add_sweep(tmp_path / "b", {"nodes": (10,)}, luck=2)
    if gone == "verdict":
        for trial in range(1, 6):
            write_trial(
                b / str(10 + trial), cell="20", trial=trial, verdict="failed",
                factors=read_side(a).trials[1].levels, **REAL,
            )  # fmt: skip
    found = judged(a, b)
    assert found.status == 4
    assert [cell.outcome for cell in found.cells] == ["ok", "cannot tell"]


def test_a_new_cell_is_named_and_not_judged(tmp_path: Path) -> None:
    a, b = add_sweep(tmp_path / "a", {"nodes": (10,)}), add_sweep(tmp_path / "b", GRID, luck=2)
    found = judged(a, b)
    assert found.status == 0
    assert any("nodes 20" in remark for remark in found.remarks)


def test_a_regression_wins_over_what_cannot_be_told(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", {"nodes": (20,)}, slower(1.5), luck=2)
    assert judged(a, b).status == 3


def test_a_censored_side_is_a_regression_and_a_censored_baseline_is_none(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", GRID, lambda chosen: 1800.0, luck=2, censored=lambda chosen: True)
    assert judged(a, b).status == 3
    assert judged(b, a).status == 0
    assert judged(b, b).status == 4


# ---- Acknowledged ----------------------------------------------------------------------------


def entry(**changed: Any) -> Acknowledged:
    plain: dict[str, Any] = {
        "cell": {"nodes": 20}, "measurement": None, "up_to": None, "reason": "moved, see #12",
        "expires": TODAY,
    }  # fmt: skip
    return Acknowledged(**(plain | changed))


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 0),  # counts through its last day
        ({"expires": date(2026, 5, 31)}, 3),
        ({"cell": {"nodes": 10}}, 3),
        ({"cell": {"nodes": 20.0, "image": "pytorch_large"}}, 0),
        ({"measurement": "image_pull_s/p99"}, 3),
        ({"measurement": PRIMARY}, 0),
        ({"measurement": "image_pull/p50"}, 0),  # as the command line takes it
        ({"up_to": 0.2}, 3),
        ({"up_to": 0.5}, 0),
    ],
)
def test_an_acknowledged_regression_passes_only_as_it_was_acknowledged(
    tmp_path: Path, changed: dict[str, Any], status: int
) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", GRID, slower(1.3), luck=2)
    found = judged(a, b, acknowledged=[entry(**changed)])
    assert found.status == status
    text = "\n".join([*found.remarks, *(cell.message for cell in found.cells)])
    assert "moved, see #12" in text
    assert ("expired, counts no more" in text) == (changed.get("expires", TODAY) < TODAY)
    if status == 3 and "expires" not in changed:
        assert "acknowledges no regression found here" in text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1", "is no list"),
        ("- [1]", "no mapping"),
        ("- {cell: {nodes: 20}, expires: 2026-12-31}", "no reason"),
        ("- {cell: {nodes: 20}, reason: r}", "is no date"),
        ("- {cell: {nodes: 20}, reason: r, expires: soon}", "is no date"),
        (
            "- {cell: {nodes: 20}, reason: r, expires: 2026-13-31}",
            "entry 1: .*2026-13-31 is no date",
        ),
        ("- {cell: {nodes: 20}, reason: r, expires: 2026-12-31, up_to: 30}", "write 30%"),
        ("- {reason: r, expires: 2026-12-31}", "names no cell"),
        ("- {cell: {nodes: 20}, reason: r, expires: 2026-12-31, until: 1}", "'until' is no key"),
        ("- {cell: {nodes: 20}, reason: r, expires: 2026-12-31, up_to: much}", "up_to"),
        ("- {", "not YAML"),
    ],
)
def test_an_entry_that_says_too_little_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "acknowledged.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=word):
        read_acknowledged(path)


# ---- The command -----------------------------------------------------------------------------


def test_ci_sees_a_test_case_for_each_cell(tmp_path: Path) -> None:
    grid = {"nodes": (10, 20, 30)}
    a = add_sweep(tmp_path / "a", grid)
    b = add_sweep(
        tmp_path / "b", grid, lambda c: {10: 100.0, 20: 140.0, 30: 150.0}[c["nodes"]], luck=2
    )
    accepted = tmp_path / "acknowledged.yaml"
    accepted.write_text(
        "- {cell: {nodes: 30}, reason: 'bigger <base> image', expires: 2999-01-01}\n"
        "- {cell: {nodes: 20}, reason: 'long ago', expires: 2001-01-01}\n",
        "utf-8",
    )
    junit = tmp_path / "out" / "gate.xml"
    ended = imgpull(
        tmp_path, "gate", "--baseline", str(a), str(b), "--max-regression", "10%",
        "--acknowledged", str(accepted), "--junit", str(junit),
    )  # fmt: skip
    assert ended.status == 3
    assert "expired, counts no more: nodes 20 (until 2001-01-01: long ago)" in ended.out
    assert ended.out.splitlines()[-1].startswith("gate: regression (image pull p50: 1 regression")
    suite = ElementTree.parse(junit).getroot()
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {"nodes 10": ["system-out"], "nodes 20": ["failure"], "nodes 30": ["skipped"]}


def test_unlike_sides_cannot_be_told_and_ci_sees_why(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    b = add_sweep(tmp_path / "b", GRID, luck=2, fingerprint={**REAL["fingerprint"], "vm_size": "X"})
    junit = tmp_path / "gate.xml"
    arguments = ("gate", "--baseline", str(a), str(b), "--junit", str(junit))
    ended = imgpull(tmp_path, *arguments)
    assert ended.status == 4
    assert "vm_size D4 -> X" in ended.err
    (error,) = ElementTree.parse(junit).getroot().iter("error")
    assert "vm_size" in str(error.get("message"))
    assert imgpull(tmp_path, *arguments, "--allow", "cluster").status == 0


def test_a_factor_that_differs_between_the_sides_needs_leave_too(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", {"nodes": (10,)})
    b = add_sweep(tmp_path / "b", {"nodes": (20,)}, luck=2)
    plain = ("gate", "--baseline", str(a), str(b))
    assert imgpull(tmp_path, *plain).status == 4
    assert imgpull(tmp_path, *plain, "--allow", "nodes").status == 0


def test_what_is_no_share_is_refused(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", {"nodes": (10,)}, trials=1)
    for option, word in itertools.product(OPTIONS, ("-5%", "ten", "10")):
        ended = imgpull(tmp_path, "gate", "--baseline", str(a), str(a), option, word)
        assert ended.status == 2
        assert option in ended.err


def test_a_share_above_one_needs_its_sign() -> None:
    assert [parse_share(one) for one in ("10%", "0.1", 1, "1000 %")] == [0.1, 0.1, 1, 10]
    with pytest.raises(ValueError, match="'10' would be 1000%; write 10% or 1000%"):
        parse_share("10")


def test_what_has_no_direction_is_not_gated(tmp_path: Path) -> None:
    grid, ready = {"nodes": (10,)}, ("validity", "pods_ready")
    a = add_sweep(tmp_path / "a", grid, also=lambda chosen: {ready: 50.0})
    b = add_sweep(tmp_path / "b", grid, also=lambda chosen: {ready: 25.0}, luck=2)
    with pytest.raises(ConfigError, match="neither slower nor faster") as refused:
        judged(a, b, measurement="validity/pods_ready")
    assert "image_pull/p50" in refused.value.hint
    assert "validity" not in refused.value.hint


@pytest.mark.parametrize("why", ["no trial counts", "no common cell"])
def test_sides_without_a_number_in_common_cannot_be_told(tmp_path: Path, why: str) -> None:
    counted = why != "no trial counts"
    record = {} if counted else {"verdict": "failed"}
    a = add_sweep(tmp_path / "a", GRID, **record)
    b = add_sweep(tmp_path / "b", {"nodes": (30, 40)} if counted else GRID, **record)
    junit = tmp_path / "gate.xml"
    ended = imgpull(tmp_path, "gate", "--baseline", str(a), str(b), "--junit", str(junit))
    assert ended.status == 4, ended.err
    assert ended.err.startswith("cannot tell: no ")
    (error,) = ElementTree.parse(junit).getroot().iter("error")
    assert str(error.get("message")) in ended.err


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", GRID)
    ended = imgpull(tmp_path, "gate", "--baseline", str(a), str(a), "--junit", str(tmp_path))
    assert ended.status == 2
    assert f"cannot write {tmp_path}" in ended.err
    assert "gate: passed" in ended.out


def test_throttled_and_censored_pulls_and_missed_limits_stand_beside_the_numbers(
    tmp_path: Path,
) -> None:
    seen = {
        ("validity", "pulls"): 7.0,
        ("validity", "throttled"): 4.0,
        ("validity", "censored"): 1.0,
    }
    a = add_sweep(tmp_path / "a", {"nodes": (10,)})
    b = add_sweep(
        tmp_path / "b", {"nodes": (10,)}, also=lambda chosen: seen, luck=2, slo="missed",
        verdict="degraded",
    )  # fmt: skip
    line = (
        "B: of 40 pulls 20 throttled, 5 not over at the deadline; 5 trials missed a limit; "
        "5 trials degraded"
    )
    junit = tmp_path / "gate.xml"
    ended = imgpull(tmp_path, "gate", "--baseline", str(a), str(b), "--junit", str(junit))
    assert ended.out.splitlines()[3] == line
    assert line in str(ElementTree.parse(junit).getroot().findtext("system-out"))
    found = judged(a, b).comparison
    assert markdown(found).count("- B: of 40 pulls 20 throttled") == 1
    incidents = json.loads(as_json(found))["incidents"]
    assert incidents["after"] == {
        "pulls": 40, "throttled": 20, "failed": 0, "censored": 5, "slo_missed": 5, "degraded": 5,
    }  # fmt: skip
    assert not any(incidents["before"].values())
    assert not any(line.startswith("A: of") for line in ended.out.splitlines())


def told(ratio: float, p: float, trials: int = 8) -> Ratio:
    """A slowdown with its two-sided p."""
    return Ratio(ratio, 1.0, 2.0, trials, trials, False, p)


@pytest.mark.parametrize(
    ("ratio", "p", "limits", "stops"),
    [
        (1.11, 0.02, Limits(0.1), False),  # 8 trials of 10 % show +12.4 % once in a hundred
        (1.13, 0.02, Limits(0.1), True),
        (1.13, 0.02, Limits(0.1, spread=0.2), False),
        (1.11, 0.0005, Limits(0.1), True),  # no doubt by their own spread
        (1.11, 0.02, Limits(0.1, min_effect=0.05), True),
        (1.11, 0.0005, Limits(0.1, min_effect=0.2), False),
        (1.13, 0.12, Limits(0.1), False),  # one-sided 6 %
        (0.8, 0.001, Limits(0.1), False),  # faster
    ],
)
def test_a_slowdown_counts_when_neither_its_trials_nor_chance_explain_it(
    ratio: float, p: float, limits: Limits, stops: bool
) -> None:
    assert beyond_chance([told(ratio, p)], limits) == [stops]


def test_more_cells_ask_for_a_larger_slowdown_and_more_trials_for_a_smaller() -> None:
    limits = Limits(0.1)
    one, many = (beyond_chance([told(1.13, 0.004)] * count, limits) for count in (1, 20))
    assert (one, any(many)) == ([True], False)
    least = [limits.least(told(1.2, 0.01, trials)) for trials in (4, 5, 8, 20, 100)]
    assert least == sorted(least, reverse=True)
    assert limits.least(told(1.2, 0.01, 8), family=5) > limits.least(told(1.2, 0.01, 8))
