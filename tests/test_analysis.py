"""Laws of what a sweep says: its summary, table, notes and plots, from directories on disk."""

import csv
import io
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from builders import FACTORS, pull, write_trial
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from imgpull.analysis import draw_plots, notes, print_table, read_sweep, write_summary
from imgpull.analysis.cells import cells, factors, levels, varied
from imgpull.analysis.findings import VISIBLE
from imgpull.analysis.layout import MAX_SLOTS
from imgpull.analysis.plots import MAX_DOTS, figures
from imgpull.analysis.summary import NUMBERS
from imgpull.analysis.wording import change, number
from imgpull.errors import ReportError
from imgpull.results.record import Failure
from imgpull.units import GIB, MIB

SIZE = 6_442_450_944  # 6 GiB
DEMO = {"replicas": (1, 5), "qps": (5.0, 10.0)}
POD_COLUMNS = (
    "namespace", "pod", "node", "created", "scheduled", "sandbox", "pulling", "pulled", "started",
    "ready",
)  # fmt: skip


def add_trial(
    sweep: Path,
    job: int,
    *,
    pull_s: float | None = 184.0,
    startup_s: float | None = 190.0,
    n: int = 10,
    where: str | None = None,
    levels: Mapping[str, Any] | None = None,
    values: Mapping[tuple[str, str], float] | None = None,
    verdict: str = "valid",
    **record: Any,
) -> None:
    """A trial in which every pull and every pod took the same time."""
    numbers: dict[tuple[str, str], float] = {("validity", "cold_share"): 1.0}
    directory = sweep / (where or str(job))
    directory.mkdir(parents=True)
    if pull_s is not None:
        numbers |= {("image_pull", "p50"): pull_s, ("image_pull", "p99"): pull_s + 9}
        numbers |= {("image_pull", "n"): n, ("image_pull_wait", "p99"): 0.04}
        numbers |= {("node_throughput", "p50"): SIZE / pull_s, ("data", "total"): n * SIZE}
        numbers |= {("image_pull_wait", "n"): n}
    if startup_s is not None:
        numbers |= {("pod_startup", "p50"): startup_s, ("pod_startup", "p99"): startup_s + 9}
        numbers |= {("pod_startup", "n"): n}
        with (directory / "pods.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(POD_COLUMNS)
            out.writerows([("ns", "pod", "node", 1, 1, 1, "", "", "", 1 + startup_s)] * n)
    chosen = {**FACTORS, **(levels or {})}
    write_trial(
        directory,
        cell=record.pop("cell", "-".join(map(str, chosen.values()))),
        factors=chosen,
        values=numbers | dict(values or {}),
        pulls=[pull(i, pull_s, size_bytes=SIZE) for i in range(n)] if pull_s else (),
        verdict=verdict,
        **record,
    )


def add_sweep(
    sweep: Path, grid: Mapping[str, Sequence[Any]], *, trials: int = 1, **trial: Any
) -> pd.DataFrame:
    """Every combination of levels, every trial of it, in blocks; read back."""
    combinations = [
        dict(zip(grid, found, strict=True)) for found in itertools.product(*grid.values())
    ]
    for job, (block, chosen) in enumerate(itertools.product(range(1, trials + 1), combinations)):
        add_trial(sweep, job, levels=chosen, trial=block, block=block, **trial)
    return read_sweep(sweep)


def printed(frame: pd.DataFrame, width: int = 80, *, terminal: bool = False) -> str:
    file = io.StringIO()
    print_table(frame, Console(file=file, width=width, force_terminal=terminal, no_color=True))
    return file.getvalue()


def said(frame: pd.DataFrame, **asked: object) -> str:
    return "\n".join(notes(frame, asked=asked))


# ---- Summary ---------------------------------------------------------------------------------


def test_importing_analysis_loads_no_heavy_library() -> None:
    heavy = "{'pandas', 'seaborn', 'matplotlib', 'rich', 'numpy'}"
    code = f"import sys, imgpull.analysis; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_attempt_is_a_row_and_only_the_last_counts(tmp_path: Path) -> None:
    add_trial(tmp_path, 0, verdict="degraded")
    add_trial(tmp_path, 0, where="0/attempt-2", attempt=2, pull_s=200.0)
    add_trial(tmp_path, 10, verdict="degraded", trial=2)
    add_trial(tmp_path, 2, verdict="invalid", trial=3)
    frame = read_sweep(tmp_path)
    assert list(frame["job"]) == [0, 0, 2, 10]
    assert list(frame["counts"]) == [False, True, False, True]
    (cell,) = cells(frame).to_dict("records")
    assert cell["verdicts"] == "1 valid, 1 degraded, 1 invalid"
    assert cell["n_trials"] == 2


def test_numbers_are_in_the_units_of_their_names(tmp_path: Path) -> None:
    add_trial(tmp_path, 0, pull_s=192.0, n=10)
    (row,) = read_sweep(tmp_path).to_dict("records")
    assert row["node_throughput_p50_mib_s"] == pytest.approx(SIZE / 192 / MIB)
    assert row["data_total_gib"] == pytest.approx(10 * SIZE / GIB)
    assert (row["pods"], row["pulls"], row["cold_share"]) == (10, 10, 1)


def test_unknown_stays_empty_in_the_summary_and_is_never_zero(tmp_path: Path) -> None:
    unknown = dict.fromkeys(FACTORS)
    add_trial(tmp_path, 0, pull_s=None, startup_s=None, levels=unknown, engine="replay")
    with write_summary(tmp_path).open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    known = {name for name in (*FACTORS, *NUMBERS) if row[name] != ""}
    assert known == {"cold_share"}
    assert row["counts"] == "true"


def test_two_equal_sweeps_have_equal_summaries(tmp_path: Path) -> None:
    files = []
    for number_, sweep in enumerate((tmp_path / "2026-01-01_aaaa", tmp_path / "2026-01-02_bbbb")):
        add_sweep(sweep, DEMO, trials=2, wall_s=float(number_), host={"name": f"host{number_}"})
        broken = f"no file {sweep}/9/report/junit.xml,\nsee multirun/{sweep.name}/9/run.log"
        add_trial(
            sweep, 9, pull_s=None, verdict="failed", error=Failure("ReportError", broken),
            started_at=f"2026-01-0{number_ + 1}T00:00:00Z",
        )  # fmt: skip
        files.append(write_summary(sweep).read_bytes())
    assert files[0] == files[1]
    assert b"no file 9/report/junit.xml, see 9/run.log" in files[0]
    assert b"\r" not in files[0]


def test_a_sweep_without_trials_has_a_summary_of_only_a_header(tmp_path: Path) -> None:
    text = write_summary(tmp_path).read_text("utf-8")
    assert text.startswith("job,cell_id,trial_id")
    assert text.count("\n") == 1


def test_a_further_swept_key_is_a_factor(tmp_path: Path) -> None:
    key = "cluster.node.nic_mbit_s"
    frame = add_sweep(tmp_path, {key: (5000, 12500), "image.layers": ([1], [1, 2])})
    assert factors(frame) == [*FACTORS, key, "image.layers"]
    assert varied(frame) == [key, "image.layers"]
    assert len(cells(frame)) == 4


# ---- Cells -----------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1, 2000), st.sampled_from(["valid", "degraded", "invalid", "failed"])),
        min_size=1,
        max_size=5,
    )
)
def test_a_cell_is_the_geometric_mean_of_its_counted_trials_alone(
    found: list[tuple[float, str]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for job, (pull_s, verdict) in enumerate(found):
            add_trial(Path(directory), job, pull_s=pull_s, verdict=verdict, trial=job, n=1)
        (cell,) = cells(read_sweep(Path(directory))).to_dict("records")
    counted = [pull_s for pull_s, verdict in found if verdict in ("valid", "degraded")]
    assert cell["n_trials"] == len(counted)
    if counted:
        assert cell["image_pull_p50_s"] == pytest.approx(statistics.geometric_mean(counted))
    else:
        assert pd.isna(cell["image_pull_p50_s"])


@pytest.mark.parametrize(
    ("p99s", "text"),
    [
        ((100.0, 110.0, None), "over 271"),  # a mean with a bound in it is a bound
        ((100.0, None), "over 424"),
        ((None, None), "over 1800"),
        ((None,), "over 1800"),
    ],
)
def test_a_censored_p99_is_over_its_bound_and_never_dropped(
    tmp_path: Path, p99s: Sequence[float | None], text: str
) -> None:
    for job, p99 in enumerate(p99s):
        key = ("image_pull", "p99_at_least" if p99 is None else "p99")
        values = {("image_pull", "p50"): 90.0, key: p99 or 1800.0}
        add_trial(tmp_path, job, pull_s=None, trial=job, values=values)
    assert f" {text} " in row_of(printed(read_sweep(tmp_path)))


def test_the_startup_of_pods_that_never_ran_is_over_its_bound_and_never_dropped(
    tmp_path: Path,
) -> None:
    for job, statistic in enumerate(("p99", "p99_at_least")):
        values = {("pod_startup", statistic): 100.0 * 4**job}
        add_trial(tmp_path, job, startup_s=None, trial=job, values=values)
    (_, cell), *_ = cells(read_sweep(tmp_path)).iterrows()
    assert pd.isna(cell["pod_startup_p99_s"])
    assert cell["pod_startup_p99_at_least_s"] == pytest.approx(200)
    assert " over 200 " in row_of(printed(read_sweep(tmp_path)))


def test_numeric_levels_ascend_and_words_keep_the_order_first_seen() -> None:
    assert levels(pd.Series([10.0, 1, 5, 1], dtype=object)) == [1, 5, 10.0]
    assert levels(pd.Series(["vllm", None, "small", "vllm"], dtype=object)) == [
        "vllm",
        "small",
        None,
    ]


def test_a_sweep_over_a_key_that_is_not_physical_still_has_its_cells(tmp_path: Path) -> None:
    for seed in (1, 2):
        add_trial(tmp_path, seed, levels={"seed": seed}, cell="same")
    assert list(cells(read_sweep(tmp_path))["seed"]) == [1, 2]


# ---- Table -----------------------------------------------------------------------------------


def test_what_differs_stands_first_and_what_is_shared_is_said_once(tmp_path: Path) -> None:
    text = printed(add_sweep(tmp_path, DEMO))
    assert text.splitlines()[1].split()[:2] == ["replicas", "qps"]
    body = [line.split()[:2] for line in text.splitlines()[3:7]]
    assert body == [["1", "5"], ["1", "10"], ["5", "5"], ["5", "10"]]
    for shared in (
        "10 deployments",
        "10 nodes",
        "image pytorch_large",
        "cluster aks_d4ds_v5",
        "cold;",
    ):
        assert " ".join(text.split()).count(shared) == 1


def test_the_standard_table_fits_eighty_columns(tmp_path: Path) -> None:
    frame = add_sweep(tmp_path, DEMO, slo="missed")
    assert max(map(len, printed(frame).splitlines())) <= 80


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_narrow_terminal_loses_columns_but_no_digits(tmp_path: Path, width: int) -> None:
    grid = {**DEMO, "image": ("pytorch_large", "vllm"), "cluster.node.nic_mbit_s": (5000, 12500)}
    frame = add_sweep(tmp_path, grid, pull_s=1234.0, startup_s=1300.0)
    file = printed(frame, width)
    screen = Text.from_ansi(printed(frame, width, terminal=True)).plain
    for text in (file, screen):
        assert "…" not in text
        assert text.count(" 1230 ") == text.count(" 12500 ") * 2 == 16
    assert max(map(len, screen.splitlines())) <= width
    assert ("too narrow here for" in screen) == (width < 107)
    assert "too narrow" not in file


@pytest.mark.parametrize(("n", "word"), [(99, "max"), (100, "p99")])
def test_a_p99_of_fewer_than_a_hundred_is_called_max(tmp_path: Path, n: int, word: str) -> None:
    header = " ".join(printed(add_sweep(tmp_path, DEMO, n=n)).splitlines()[1].split())
    other = {"max": "p99", "p99": "max"}[word]
    assert header.count(f"{word} s") == 3
    assert other not in header


def test_a_p99_of_an_unknown_count_keeps_its_name(tmp_path: Path) -> None:
    values = {("pod_startup", "p50"): 50.0, ("pod_startup", "p99"): 90.0}
    add_trial(tmp_path, 0, pull_s=None, startup_s=None, values=values)
    assert "max" not in printed(read_sweep(tmp_path))


def test_a_failed_cell_keeps_its_row_with_dashes(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    add_trial(tmp_path, 1, levels={"replicas": 5}, verdict="failed")
    line = next(line for line in printed(read_sweep(tmp_path)).splitlines() if "failed" in line)
    assert line.split() == ["5", *["-"] * 8, "failed"]


def test_a_missed_threshold_is_marked_and_explained(tmp_path: Path) -> None:
    add_trial(tmp_path, 0, slo="missed")
    add_trial(tmp_path, 1, levels={"replicas": 5})
    text = printed(read_sweep(tmp_path))
    assert text.count("valid*") == 1
    assert "* slo missed" in text


def test_simulated_is_said_where_and_only_where_a_simulator_ran(tmp_path: Path) -> None:
    sim = add_sweep(tmp_path / "sim", DEMO)
    real = add_sweep(tmp_path / "real", DEMO, engine="docker")
    for text, simulated in ((printed(sim), True), (said(sim), True), (printed(real), False)):
        assert ("simulated" in text.lower()) is simulated
    assert "simulated" not in said(real)
    assert "engine docker" in " ".join(printed(real).split())


def test_rows_of_unlike_engines_name_their_engine(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    add_trial(tmp_path, 1, engine="docker", cell="real")
    text = printed(read_sweep(tmp_path))
    assert text.splitlines()[1].split()[0] == "engine"
    assert "rows of engine sim are SIMULATED" in " ".join(text.split())


# ---- Notes -----------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_no_visible_difference_is_said_below_the_threshold_alone(a: float, b: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sweep = Path(directory)
        add_trial(sweep, 0, n=1, pull_s=200.0, startup_s=100.0)
        add_trial(
            sweep, 1, n=1, levels={"replicas": 5}, pull_s=200 * (1 + a), startup_s=100 * (1 + b)
        )
        frame = read_sweep(sweep)
        text = said(frame)
    row = cells(frame)
    ratios = [
        abs(row[name][1] / row[name][0] - 1)
        for name in ("image_pull_p50_s", "pod_startup_p50_s", "pod_startup_p99_s")
    ]
    if max(ratios) < VISIBLE:
        assert "replicas: 1 or 5 makes no visible difference" in text
    else:
        assert "replicas 1 -> 5: " in text
        assert "no visible" not in text


def test_a_creation_rate_is_held_against_the_pull_that_dwarfs_it(tmp_path: Path) -> None:
    text = said(add_sweep(tmp_path, {"qps": (5.0, 10.0)}))
    assert "qps: 5 or 10 makes no visible difference (image pull p50 184 s and 184 s" in text
    assert "it moves creation of 10 Deployments by 1.0 s, a pull takes 184 s" in text


def test_qps_with_one_deployment_is_called_inert(tmp_path: Path) -> None:
    inert = said(add_sweep(tmp_path / "one", {"qps": (5.0, 10.0), "deployments": (1,)}))
    assert "qps does nothing with 1 Deployment" in inert
    assert "no visible" not in inert
    assert "does nothing" not in said(add_sweep(tmp_path / "ten", {"qps": (5.0, 10.0)}))


def test_the_effect_of_a_factor_is_seen_at_every_level_of_the_others(tmp_path: Path) -> None:
    for job, (image, replicas) in enumerate(itertools.product(("a", "b"), (1, 5))):
        slower = {("a", 5): 20.0, ("b", 5): 60.0}.get((image, replicas), 0.0)
        add_trial(
            tmp_path, job, levels={"image": image, "replicas": replicas},
            startup_s=200 + slower, n=100,
        )  # fmt: skip
    text = said(read_sweep(tmp_path))
    assert "replicas 1 -> 5: image pull p50 +0 %, pod startup p50 +10 % to +30 %" in text


def test_of_three_levels_the_two_that_differ_most_are_named(tmp_path: Path) -> None:
    for job, (qps, pull_s) in enumerate(((1.0, 200.0), (5.0, 300.0), (10.0, 210.0))):
        add_trial(tmp_path, job, levels={"qps": qps}, pull_s=pull_s)
    assert "qps 1 -> 5: image pull p50 +50 %" in said(read_sweep(tmp_path))


def test_factors_that_only_change_together_are_not_told_apart(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    add_trial(tmp_path, 1, levels={"replicas": 5, "qps": 5.0}, pull_s=400.0)
    text = said(read_sweep(tmp_path))
    assert "replicas and qps (always together) 1 -> 5: image pull p50" in text
    assert "\nqps" not in text


def test_a_factor_that_never_changes_alone_has_no_effect_to_tell(tmp_path: Path) -> None:
    for job, (replicas, qps) in enumerate([(1, 5.0), (5, 10.0), (10, 10.0)]):
        add_trial(
            tmp_path, job, levels={"replicas": replicas, "qps": qps}, pull_s=100.0 * (job + 1)
        )
    text = said(read_sweep(tmp_path))
    assert "qps: no two cells differ in it alone" in text
    assert "always together" not in text


def repeated(
    sweep: Path,
    factor: Mapping[tuple[int, int], float],
    pulls_too: bool = True,
    **record: Any,
) -> pd.DataFrame:
    """Five trials of replicas x nodes; what multiplies 200 s in each, and a spread of 2 %."""
    for job, (trial, cell) in enumerate(itertools.product(range(1, 6), factor)):
        wobble = 1 + 0.02 * ((job * 7) % 5 - 2) / 2
        chosen = dict(zip(("replicas", "nodes"), cell, strict=True))
        seconds = 200.0 * factor[cell] * wobble
        pull_s = seconds if pulls_too else 200.0 * wobble
        add_trial(
            sweep, job, levels=chosen, trial=trial, block=trial, pull_s=pull_s,
            startup_s=seconds + 5, **record,
        )  # fmt: skip
    return read_sweep(sweep)


def test_repeated_trials_give_every_effect_its_interval(tmp_path: Path) -> None:
    grows = {(1, 10): 1.0, (1, 20): 1.3, (5, 10): 1.0, (5, 20): 1.3}
    text = said(repeated(tmp_path, grows, engine="docker"))
    (line,) = re.findall(r"^nodes 10 -> 20: .*", text, re.M)
    found = re.search(r"image pull p50 \+(\d+) % \[(\d+), (\d+)\]", line)
    assert found
    assert 28 <= int(found[2]) <= int(found[1]) <= int(found[3]) <= 32
    assert line.endswith("(5 trials a cell, paired)")
    assert "replicas: no visible difference; 1 -> 5: image pull p50" in text
    assert "interact" not in text
    assert "random numbers" not in text


def test_shared_luck_is_said_where_it_makes_the_pairs(tmp_path: Path) -> None:
    grows = {(1, 10): 1.0, (1, 20): 1.3}
    assert "paired by common random numbers" in said(repeated(tmp_path, grows))


def test_an_interaction_is_said_and_its_cells_named(tmp_path: Path) -> None:
    grows = {(1, 10): 1.0, (1, 20): 1.0, (5, 10): 1.0, (5, 20): 1.6}
    text = said(repeated(tmp_path, grows, engine="docker"))
    assert "replicas and nodes interact: replicas 1 -> 5 is" in text
    assert "against replicas 1, nodes 10 (Holm over 3 cells): replicas 5, nodes 20 +6" in text


def test_an_interaction_of_what_is_no_pull_is_said_too(tmp_path: Path) -> None:
    grows = {(1, 10): 1.0, (1, 20): 1.0, (5, 10): 1.0, (5, 20): 1.6}
    text = said(repeated(tmp_path, grows, pulls_too=False, engine="docker"))
    assert "pod startup p50: replicas and nodes interact: replicas 1 -> 5 is" in text
    assert "pod startup p50 against replicas 1, nodes 10 (Holm over 3 cells): replicas 5" in text
    assert "image pull p50: replicas and nodes interact" not in text


def test_three_trials_are_too_few_to_tell_two_cells_apart(tmp_path: Path) -> None:
    for job, (trial, nodes) in enumerate(itertools.product((1, 2, 3), (10, 20))):
        add_trial(
            tmp_path, job, levels={"nodes": nodes}, trial=trial, block=trial,
            pull_s=10.0 * nodes + trial + job / 7,
        )  # fmt: skip
    text = said(read_sweep(tmp_path))
    (line,) = [line for line in text.splitlines() if line.startswith("nodes")]
    assert "too few trials to tell" in line


def row_of(table: str) -> str:
    """The first cell's line: below the rule."""
    lines = table.splitlines()
    return lines[next(place for place, line in enumerate(lines) if line.startswith("─")) + 1]


def test_only_repeated_trials_have_an_interval_in_the_table(tmp_path: Path) -> None:
    grows = {(1, 10): 1.0, (1, 20): 1.3}
    one = printed(add_sweep(tmp_path / "one", DEMO))
    many = printed(repeated(tmp_path / "many", grows), 120)
    assert "±" not in one
    assert "±%" in many.splitlines()[1] + many.splitlines()[2]
    assert "mean" not in one
    assert many.splitlines()[2].split().count("mean") == 7  # in each column that has one
    interval = row_of(many).split()[4]  # after nodes, startups and the pull itself
    assert 0.5 < float(interval) < 5
    assert max(map(len, many.splitlines()[:5])) <= 90


def test_a_censored_mean_is_over_its_bound(tmp_path: Path) -> None:
    for job in range(3):
        values = {("image_pull", "p50_at_least"): 1800.0}
        add_trial(tmp_path, job, pull_s=None, trial=job, values=values)
    assert " over 1800 " in row_of(printed(read_sweep(tmp_path)))


def test_an_invalid_trial_is_in_no_comparison_and_its_reason_is_given(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    reasons = ("10 cold pulls promised, 0 seen", "second")
    add_trial(tmp_path, 1, levels={"replicas": 5}, pull_s=2.0, verdict="invalid", reasons=reasons)
    text = said(read_sweep(tmp_path))
    assert "1 trial invalid, in no figure: 10 cold pulls promised, 0 seen (job 1)" in text
    assert "replicas" not in text


@pytest.mark.parametrize(
    ("trials", "asked", "expected"),
    [
        (1, {}, "one trial a cell is not evidence; add trials=5 resume=auto"),
        (1, {"resume": "auto"}, "one trial a cell is not evidence; add trials=5"),
        (2, {"trials": 2}, "varies 10 % across 2 trials (replicas 1); add trials=5 resume=auto"),
        (5, {"trials": 5}, "varies 10 % across 5 trials (replicas 1)"),
    ],
)
def test_only_what_was_not_yet_asked_is_advised(
    tmp_path: Path, trials: int, asked: dict[str, object], expected: str
) -> None:
    for job in range(2 * trials):
        even = job % 2 == 0
        pull_s = 190.0 if even and job == 0 else 210.0 if even and job == 2 else 200.0
        chosen = {"replicas": 1 if even else 5}
        add_trial(tmp_path, job, levels=chosen, trial=job // 2 + 1, pull_s=pull_s)
    assert any(line.endswith(expected) for line in notes(read_sweep(tmp_path), asked=asked))


def test_pods_and_pulls_that_quantiles_leave_out_are_counted(tmp_path: Path) -> None:
    counts = {"pods_asked": 12.0, "censored": 1.0, "throttled": 3.0}
    values = {("validity", name): count for name, count in counts.items()}
    text = said(add_sweep(tmp_path, {"replicas": (1,)}, values=values))
    assert "2 pods never became ready" in text
    assert "1 pull not over at the deadline" in text
    assert "3 pulls throttled by the registry or by registryPullQPS" in text


# ---- Plots -----------------------------------------------------------------------------------


def offsets(figure: Any) -> int:
    """How many marks of pulls or pods a figure holds, legend and diamonds apart."""
    axes = figure.axes[0]
    return sum(len(dots.get_offsets()) for dots in axes.collections if dots.get_zorder() == 2)


def texts(figure: Any) -> str:
    axes = figure.axes[0]
    return " ".join(
        [
            axes.get_title(loc="left"),
            figure.get_supxlabel(),
            *(text.get_text() for text in axes.texts),
        ]
    ).replace("\n", " ")


def test_every_title_of_simulated_trials_says_so(tmp_path: Path) -> None:
    found = figures(tmp_path / "sim", add_sweep(tmp_path / "sim", DEMO))
    assert list(found) == ["image_pull", "pod_startup", "node_throughput", "heat_map"]
    for figure in found.values():
        assert "simulated" in figure.axes[0].get_title(loc="left")
        assert "10 deployments" in texts(figure)
        assert "engine sim" in texts(figure)
    real = figures(tmp_path / "real", add_sweep(tmp_path / "real", {}, engine="docker"))
    assert not any("simulated" in texts(figure) for figure in real.values())


def test_axes_carry_units_and_begin_at_zero(tmp_path: Path) -> None:
    found = figures(tmp_path, add_sweep(tmp_path, DEMO))
    for name, unit in (("image_pull", ", s"), ("pod_startup", ", s"), ("node_throughput", "MiB/s")):
        axes = found[name].axes[0]
        assert unit in axes.get_ylabel()
        assert axes.get_ylim()[0] == 0
        assert axes.get_xlabel().startswith("replicas")


def test_unlike_engines_share_no_axis_and_the_refusal_names_them(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    add_trial(tmp_path, 1, engine="docker", cell="real")
    with pytest.raises(ReportError, match=r"differ in engine \(docker, sim\)"):
        draw_plots(tmp_path, read_sweep(tmp_path))


def test_invalid_trials_are_not_drawn_and_the_caption_says_so(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    add_trial(tmp_path, 1, levels={"replicas": 5}, pull_s=2.0, verdict="invalid")
    figure = figures(tmp_path, read_sweep(tmp_path))["image_pull"]
    assert offsets(figure) == 10
    assert "Not drawn: 1 invalid trial (replicas 5)" in texts(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "5"]


def test_only_leaders_are_pulls(tmp_path: Path) -> None:
    rows = [pull(i, 100.0, leader=i < 4, size_bytes=SIZE) for i in range(10)]
    write_trial(tmp_path / "0", values={("image_pull", "p50"): 100.0}, pulls=rows)
    found = figures(tmp_path, read_sweep(tmp_path))
    assert {name: offsets(figure) for name, figure in found.items()} == {
        "image_pull": 4,
        "node_throughput": 4,
    }


def test_dots_are_bounded_and_the_caption_says_so(tmp_path: Path) -> None:
    figure = figures(tmp_path, add_sweep(tmp_path, {"replicas": (1,)}, n=3 * MAX_DOTS))[
        "pod_startup"
    ]
    assert offsets(figure) == MAX_DOTS
    assert f"At most {MAX_DOTS} dots a trial" in texts(figure)


def test_a_hundred_cells_stay_on_one_page(tmp_path: Path) -> None:
    grid = {"replicas": range(1, 26), "image": ("small", "medium", "large", "huge")}
    figure = figures(tmp_path, add_sweep(tmp_path, grid, n=2))["image_pull"]
    axes = figure.axes[0]
    assert len(axes.get_yticklabels()) == MAX_SLOTS // 4
    assert "The first 15 of 25 positions" in texts(figure)
    assert figure.get_figheight() < 20


@pytest.mark.parametrize("labels", [("pytorch_large", "vllm"), ("a" * 40, "b" * 40, "c" * 40)])
def test_labels_do_not_overlap(tmp_path: Path, labels: Sequence[str]) -> None:
    figure = figures(tmp_path, add_sweep(tmp_path, {"image": labels}))["image_pull"]
    figure.canvas.draw()
    axes = figure.axes[0]
    ticks = axes.get_xticklabels() + axes.get_yticklabels()
    boxes = [tick.get_window_extent() for tick in ticks if tick.get_text()]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_plots_are_equal_files_for_equal_sweeps(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        frame = add_sweep(tmp_path / name, {"replicas": (1,)})
        drawn.append([path.read_bytes() for path in draw_plots(tmp_path / name, frame)])
    assert len(drawn[0]) == 3
    assert drawn[0] == drawn[1]


def test_little_or_nothing_does_not_crash(tmp_path: Path) -> None:
    add_trial(tmp_path / "failed", 0, pull_s=None, startup_s=None, verdict="failed")
    add_trial(tmp_path / "no_numbers", 0, pull_s=None, startup_s=None)
    add_trial(tmp_path / "unknown", 0, levels=dict.fromkeys(FACTORS), name="", engine="replay")
    for name, plots in (("none", 0), ("failed", 0), ("no_numbers", 0), ("unknown", 3)):
        (tmp_path / name).mkdir(exist_ok=True)
        frame = read_sweep(tmp_path / name)
        assert len(draw_plots(tmp_path / name, frame)) == plots
        assert printed(frame).strip()
        notes(frame, asked={})


# ---- Wording ---------------------------------------------------------------------------------


@given(st.floats(0.01, 1e7))
def test_a_number_keeps_three_figures_and_no_exponent(value: float) -> None:
    text = number(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, rel=0.005, abs=0.005)
    assert len(text.lstrip("0.").replace(".", "").rstrip("0")) <= 3


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0, "+0 %"), (-1e-9, "+0 %"), (0.004, "+0.4 %"), (0.031, "+3 %"), (-0.368, "-37 %")],
)
def test_a_change_carries_its_sign(ratio: float, text: str) -> None:
    assert change(ratio) == text
