"""A matrix from one command to one directory, end to end; which trials run, and in which order."""

import csv
import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import hydra.core.utils
import pytest
import yaml
from commands import Ended, copy_project, python, run_py
from hypothesis import given
from hypothesis import strategies as st

from imgpull.config.job import Job
from imgpull.results.record import read_measurements, read_record
from imgpull.sweep.plan import (
    Cell,
    Planned,
    factor_levels,
    matrix_id,
    names,
    order_trials,
    plan_trials,
)
from imgpull.sweep.resume import Done, Earlier
from imgpull.tracking.content import read_trial

# The order of trials


def cell(cell_id: str, **factors: Any) -> Cell:
    return Cell((), cell_id, "one cell", cast(Job, None), {}, factors, None)


cells = st.integers(1, 8).map(lambda n: [cell(f"c{i}") for i in range(n)])
counts = st.integers(1, 4).map(lambda n: range(1, n + 1))
orders = st.sampled_from(["blocks", "shuffled", "as_given"])
seeds = st.integers(0, 5)


def ids(ordered: list[tuple[int, int, Cell]]) -> list[tuple[str, int]]:
    return [(cell.cell_id, trial) for _, trial, cell in ordered]


@given(cells, counts, orders, seeds)
def test_every_order_runs_each_trial_of_each_cell_once(
    cells: list[Cell], trials: range, order: str, seed: int
) -> None:
    found = ids(order_trials(cells, trials, order, seed))
    assert Counter(found) == Counter((c.cell_id, trial) for c in cells for trial in trials)


@given(cells, counts, seeds)
def test_a_block_is_one_trial_of_each_cell_and_blocks_do_not_mix(
    cells: list[Cell], trials: range, seed: int
) -> None:
    ordered = order_trials(cells, trials, "blocks", seed)
    assert [block for block, _, _ in ordered] == [t for t in trials for _ in cells]
    for number in trials:
        block = [c.cell_id for found, _, c in ordered if found == number]
        assert sorted(block) == sorted(c.cell_id for c in cells)


@given(cells, counts, st.integers(0, 3), seeds)
def test_asking_for_more_trials_keeps_the_order_of_the_earlier_blocks(
    cells: list[Cell], trials: range, more: int, seed: int
) -> None:
    longer = range(1, len(trials) + more + 1)
    first, all_of_them = (ids(order_trials(cells, t, "blocks", seed)) for t in (trials, longer))
    assert all_of_them[: len(first)] == first


@given(cells, counts, orders, seeds)
def test_an_order_is_its_seeds_alone(
    cells: list[Cell], trials: range, order: str, seed: int
) -> None:
    assert order_trials(cells, trials, order, seed) == order_trials(cells, trials, order, seed)


@pytest.mark.parametrize("order", ["blocks", "shuffled"])
def test_seeds_and_blocks_differ_in_their_order(order: str) -> None:
    eight = [cell(f"c{i}") for i in range(8)]
    zero, one = (order_trials(eight, [1, 2], order, seed) for seed in (0, 1))
    assert ids(zero) != ids(one)
    first, second = ([c for c, trial in ids(zero) if trial == n] for n in (1, 2))
    assert first != second


def test_as_given_runs_a_cell_at_a_time_in_the_order_of_the_command() -> None:
    a, b = cell("a"), cell("b")
    ordered = order_trials([b, a], [1, 2], "as_given", 0)
    assert ids(ordered) == [("b", 1), ("b", 2), ("a", 1), ("a", 2)]
    assert {block for block, _, _ in ordered} == {1}  # not interleaved: one block


# The plan


def plan(cells: list[Cell], trials: range, earlier: Earlier | None = None) -> list[Planned]:
    return plan_trials(cells, trials, "blocks", 0, earlier)


@given(cells, counts)
def test_positions_and_directories_count_up(cells: list[Cell], trials: range) -> None:
    planned = plan(cells, trials)
    assert [one.position for one in planned] == list(range(1, len(planned) + 1))
    # Numbered as the matrix was given, whatever the order of running.
    as_given = sorted(planned, key=lambda one: (one.trial, cells.index(one.cell)))
    assert [one.directory for one in as_given] == [str(n) for n in range(len(planned))]


@given(cells, counts, st.data())
def test_a_continued_sweep_runs_exactly_what_does_not_count_yet(
    cells: list[Cell], trials: range, data: st.DataObject
) -> None:
    whole = plan(cells, trials)
    before = data.draw(st.lists(st.sampled_from(whole), unique_by=lambda one: one.trial_id))
    counted = {one.trial_id: data.draw(st.booleans()) for one in before}
    done = {one.trial_id: Done(one.directory, 2, counted[one.trial_id]) for one in before}
    taken = frozenset(int(one.directory) for one in before) | {100}
    earlier = Earlier(Path(), done, taken, positions=50, parent=None, unlogged=(), ended=False)
    left = plan(cells, trials, earlier)
    todo = [one for one in whole if not counted.get(one.trial_id)]
    assert [one.trial_id for one in left] == [one.trial_id for one in todo]
    assert [one.position for one in left] == list(range(51, 51 + len(left)))
    again = {one.trial_id: one for one in left if one.trial_id in counted}
    for one in before:
        if not counted[one.trial_id]:
            assert again[one.trial_id].attempt == 2
            assert again[one.trial_id].directory == f"{one.directory}/attempt-2"
    planned = {one.trial_id: one.directory for one in whole}
    new = [one for one in left if one.trial_id not in counted]
    assert all(one.directory == planned[one.trial_id] for one in new)


def test_no_directory_is_used_twice() -> None:
    pair = [cell("a"), cell("b")]
    cut_off = Earlier(Path(), {}, frozenset({0, 5}), 1, None, (), False)  # 0 left no job.json
    assert {one.cell.cell_id: one.directory for one in plan(pair, range(1, 2), cut_off)} == {
        "a": "6", "b": "1",
    }  # fmt: skip


def test_a_sweep_is_the_same_by_its_cells_and_seed_not_by_their_order() -> None:
    a, b = cell("a"), cell("b")
    assert matrix_id([a, b], 0) == matrix_id([b, a], 0)
    assert matrix_id([a, b], 0) != matrix_id([a, b], 1)
    assert matrix_id([a, b], 0) != matrix_id([a], 0)


def test_a_name_says_what_differs_and_nothing_else() -> None:
    both = [
        cell("a", replicas=1, qps=10, image="x", **{"cluster.node.nic_mbit_s": 1000}),
        cell("b", replicas=5, qps=10, image="y", **{"cluster.node.nic_mbit_s": 2000}),
    ]
    assert names(both) == {"a": "r1 x nic_mbit_s=1000", "b": "r5 y nic_mbit_s=2000"}
    assert names(both[:1]) == {"a": "one cell"}


def test_levels_of_a_factor_are_listed_once_in_the_order_given() -> None:
    found = factor_levels([{"qps": 5, "image": "x"}, {"qps": 1}, {"qps": 5, "image": "x"}])
    assert found == {"qps": [5, 1], "image": ["x", None]}


# End to end, in a copy of the project

MATRIX = ("-m", "replicas=1,5", "qps=5,10")
JOB_FILES = {
    ".hydra", "bundle", "config.resolved.yaml", "events.jsonl", "flags.csv", "job.json",
    "measurements.csv", "pods.csv", "pulls.csv", "report", "run.log", "series.csv",
}  # fmt: skip
SWEEP_FILES = {
    "0", "1", "2", "3", "multirun.yaml", "ledger.jsonl", "summary.csv", "cells.csv", "plots",
    "report.html", "report.md",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("end-to-end"))


@pytest.fixture(scope="module")
def standard(project: Path) -> Ended:
    """The sweep of the README, from nothing."""
    ended = python(project, "run.py", *MATRIX)
    assert ended.status == 0, ended.err
    return ended


def rows(sweep: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((sweep / "summary.csv").read_text().splitlines()))


def test_a_sweep_is_one_directory_with_one_complete_directory_a_trial(
    project: Path, standard: Ended
) -> None:
    assert {path.name for path in project.iterdir()} >= {"multirun", "mlflow.db"}
    assert [path.name for path in (project / "multirun").iterdir()] == [standard.sweep.name]
    assert {path.name for path in standard.sweep.iterdir()} == SWEEP_FILES
    for number in "0123":
        job = standard.sweep / number
        assert {path.name for path in job.iterdir()} == JOB_FILES
        assert {path.name for path in read_trial(job).files} == JOB_FILES - {".hydra"}  # to MLflow
        assert {path.name for path in (job / ".hydra").iterdir()} == {
            "config.yaml", "hydra.yaml", "overrides.yaml",
        }  # fmt: skip
        overrides = yaml.safe_load((job / ".hydra/overrides.yaml").read_text())
        assert {one.split("=")[0] for one in overrides} == {"replicas", "qps", "trial"}
        assert (job / "report/junit.xml").exists()
    assert list((standard.sweep / "plots").glob("*.png"))
    assert yaml.safe_load((standard.sweep / "multirun.yaml").read_text())["hydra"]


def test_output_is_the_table_and_ends_with_the_summary(standard: Ended) -> None:
    first, *_, last = standard.out.splitlines()
    assert "startup" in first
    table = [line.split() for line in standard.out.splitlines() if line.endswith("valid")]
    table = table or [line.split() for line in standard.out.splitlines() if " valid" in line]
    assert [row[:2] for row in table] == [["1", "5"], ["1", "10"], ["5", "5"], ["5", "10"]]
    assert last == f"summary:  {standard.sweep / 'summary.csv'}"
    assert "mlflow ui --backend-store-uri sqlite:///" in standard.out
    assert "SIMULATED" in standard.out


def test_without_a_terminal_progress_is_one_plain_line_a_trial(standard: Ended) -> None:
    lines = standard.told
    assert len(lines) == 4
    for number, line in enumerate(lines, 1):
        trial = rf"{number}/4  r[15] q(5|10)  trial 1  valid, .* in [\d.]+ s"
        assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  {trial}", line)


def test_the_ledger_tells_the_sweep_from_plan_to_end(standard: Ended) -> None:
    told = [event["event"] for event in standard.events]
    each = ["started", "finished", "logged"]
    assert told == ["sweep", *["planned"] * 4, "forecast", "parent", *each * 4, "ended"]
    assert standard.events[0]["arguments"] == list(MATRIX)
    planned = [event["trial_id"] for event in standard.events if event["event"] == "planned"]
    in_order = sorted(standard.records, key=lambda record: record.position)
    assert planned == [record.trial_id for record in in_order]
    assert standard.events[-1]["status"] == 0
    assert standard.events[-1]["left"] == []
    sweep, first = standard.events[0], standard.records[0]
    assert sweep["settings"] == {
        "order": "blocks", "seed": 0, "trials": 1, "first_trial": 1, "retries": 0,
        "stop_after": None, "max_hours": None, "max_cost": None,
    }  # fmt: skip
    assert {cell["cell_id"] for cell in sweep["cells"]} == {r.cell_id for r in standard.records}
    finished = {e["trial_id"]: e for e in standard.events if e["event"] == "finished"}
    assert finished[first.trial_id]["position"] == first.position
    assert finished[first.trial_id]["wall_s"] == first.wall_s


def test_the_summary_has_a_row_for_each_trial(standard: Ended) -> None:
    table = rows(standard.sweep)
    assert {(row["replicas"], row["qps"]) for row in table} == {
        ("1", "5"), ("1", "10"), ("5", "5"), ("5", "10"),
    }  # fmt: skip
    assert {row["verdict"] for row in table} == {"valid"}


def numbers(standard: Ended) -> dict[tuple[int, int], Mapping[tuple[str, str], float]]:
    """(replicas, qps) -> whole-cluster measurements."""
    found: dict[tuple[int, int], Mapping[tuple[str, str], float]] = {}
    for number in "0123":
        job = standard.sweep / number
        factors = read_record(job).factors
        whole = {(m.measurement, m.statistic): m.value for m in read_measurements(job)
                 if not m.subject}  # fmt: skip
        found[factors["replicas"], factors["qps"]] = whole
    return found


def test_cells_differ_as_physics_says(standard: Ended) -> None:
    measured = numbers(standard)
    for qps in (5, 10):
        one, five = measured[1, qps], measured[5, qps]
        # A node pulls an image once, however many of its pods want it.
        assert one["data", "total"] == five["data", "total"] > 0
        assert (one["pod_startup", "n"], five["pod_startup", "n"]) == (10, 50)
        assert one["image_pull", "n"] == five["image_pull", "n"] == 10
        assert five["image_pull", "p50"] == pytest.approx(one["image_pull", "p50"], rel=0.05)
        # Later pods of a node wait for the first one's pull: none is ready before it is over.
        assert five["pod_startup", "p50"] > 0.9 * five["image_pull", "p50"]


def test_mlflow_has_one_parent_and_a_child_a_trial_whose_params_differ_as_asked(
    project: Path, standard: Ended
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("imgpull")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["imgpull.kind"] == "sweep"]
    children = [run for run in runs if run is not parent]
    assert len(children) == 4
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    params = [run.data.params for run in children]
    asked = {(p["replicas"], p["qps"]) for p in params}
    assert asked == {("1", "5"), ("1", "10"), ("5", "5"), ("5", "10")}
    differing = {key for key in params[0] if len({p.get(key) for p in params}) > 1}
    assert differing == {"replicas", "qps"}
    measured = numbers(standard)
    for run in children:
        whole = measured[int(run.data.params["replicas"]), int(run.data.params["qps"])]
        assert run.data.metrics["image_pull_s/p50"] == whole["image_pull", "p50"]
        assert run.data.metrics["data_gib/total"] == whole["data", "total"] / 2**30
    assert parent.data.metrics["trials/valid"] == parent.data.metrics["cells/total"] == 4
    assert "one trial a cell is not evidence" in parent.data.tags["mlflow.note.content"]
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} >= {
        "summary.csv", "cells.csv", "plots", "ledger.jsonl", "report.html", "report.md", "tables",
    }  # fmt: skip


# Same seed, same bytes


def contents(sweep: Path) -> dict[str, bytes]:
    """What of a sweep depends on nothing but its request, by name."""
    kept = ("pulls.csv", "measurements.csv", "pods.csv", "series.csv", "events.jsonl")
    found = {"summary.csv": sweep / "summary.csv"}
    for number in "0123":
        job = sweep / number
        paths = [*(job / name for name in kept), *job.glob("report/*"), *job.glob("bundle/*")]
        found |= {str(path.relative_to(sweep)): path for path in paths}
    return {name: path.read_bytes() for name, path in found.items()}


def test_the_same_command_leaves_the_same_bytes(standard: Ended, tmp_path: Path) -> None:
    again = run_py(tmp_path, *MATRIX, "tracking=none")
    assert contents(again.sweep) == contents(standard.sweep)
    assert len(contents(again.sweep)) > 4 * 15


def test_another_seed_is_another_draw(standard: Ended, tmp_path: Path) -> None:
    other = run_py(tmp_path, "qps=5", "seed=1", "tracking=none")
    (same_cell,) = [
        standard.sweep / str(number)
        for number, record in enumerate(standard.records)
        if record.cell_id == other.records[0].cell_id
    ]
    pulls = [(job / "pulls.csv").read_text() for job in (same_cell, other.sweep / "0")]
    assert pulls[0] != pulls[1]


def test_sweeps_started_in_the_same_second_have_directories_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    class Stopped:
        @staticmethod
        def now() -> datetime:
            return datetime(2026, 11, 23, 10, 20, 30)

    tails = iter(["aaaa", "aaaa", "aaaa", "bbbb"])  # even when chance gives both the same tail
    monkeypatch.setattr(hydra.core.utils, "datetime", Stopped)
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(tails))
    for _ in range(2):
        run_py(tmp_path, "until=render")
    assert {path.name for path in (tmp_path / "multirun").iterdir()} == {
        "2026-11-23_10-20-30_aaaa", "2026-11-23_10-20-30_bbbb",
    }  # fmt: skip


# Trials


def test_each_trial_of_a_cell_is_a_draw_of_its_own_in_randomised_blocks(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "-m", "replicas=1,2", "trials=3", "tracking=none")
    assert ended.status == 0
    records = ended.records
    assert sorted(record.position for record in records) == [1, 2, 3, 4, 5, 6]
    assert [record.block for record in records] == [record.trial for record in records]
    for block in (1, 2, 3):
        inside = [record for record in records if record.block == block]
        assert sorted(record.name for record in inside) == ["r1", "r2"]
    assert len({record.trial_id for record in records}) == 6
    assert len({record.bundle_sha256 for record in records}) == 2  # a bundle names no trial
    pulls = {(ended.sweep / str(number) / "pulls.csv").read_text() for number in range(6)}
    assert len(pulls) == 6
    configs = [ended.sweep / str(n) / "config.resolved.yaml" for n in range(6)]
    asked = [yaml.safe_load(path.read_text())["trial"] for path in configs]
    assert asked == [record.trial for record in records]


def test_a_swept_key_that_is_no_standing_factor_becomes_one(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "-m", "cluster.node.nic_mbit_s=200,400", "tracking=none")
    assert {record.name for record in ended.records} == {"nic_mbit_s=200", "nic_mbit_s=400"}
    slow, fast = sorted(rows(ended.sweep), key=lambda row: float(row["cluster.node.nic_mbit_s"]))
    # Half the bandwidth, and the NIC is what a pull waits for: it shows where it should.
    assert float(slow["image_pull_p50_s"]) > 1.3 * float(fast["image_pull_p50_s"])
    assert slow["data_total_gib"] == fast["data_total_gib"]
    written = json.loads((ended.sweep / "0/job.json").read_text())["factors"]
    assert written["cluster.node.nic_mbit_s"] in (200, 400)  # a number, as composed


def test_a_single_run_is_a_sweep_of_one(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "tracking=none")
    assert ended.status == 0
    assert {path.name for path in ended.sweep.iterdir()} >= {"0", "summary.csv", "ledger.jsonl"}
    assert [record.name for record in ended.records] == ["pytorch_large n10 r1"]


def test_a_recorded_report_is_one_trial_however_often_it_is_read(tmp_path: Path) -> None:
    report = Path(__file__).parent / "data/cl2-reports/own-2021-two-nodes"
    ended = run_py(tmp_path, "engine=replay", f"engine.report={report}", "trials=2")
    assert ended.status == 2
    assert "a recorded report is one trial" in ended.err
    assert list(tmp_path.iterdir()) == []
