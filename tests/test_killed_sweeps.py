"""kill -9 at random moments: a sweep resumed until it is done is the sweep that nobody killed."""

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from commands import copy_project, python

from imgpull.results.record import job_directories, read_record
from imgpull.sweep.ledger import Ledger, sessions

pytestmark = pytest.mark.slow

# Twelve trials, in blocks, each some tenths of a second.
MATRIX = (
    "-m", "replicas=1,2", "qps=5,10", "trials=3", "nodes=2", "deployments=2",
    "image=resource_consumer",
)  # fmt: skip
TRIALS = 12
SEED = 20261123
# Where the kills of one sweep are aimed at; every sweep begins with no database.
AIMS = ("start", "database", "trial", "trial", "trial", "trial", "trial", "trial", "trial", "end")
SWEEPS = 5
assert len(AIMS) * SWEEPS == 50


@dataclass
class Killed:
    """One sweep that was killed over and over: in which project, and where the kills hit."""

    project: Path
    hits: list[str] = field(default_factory=list)

    @property
    def sweeps(self) -> list[Path]:
        """Directories of sweeps in which anything was planned."""
        found = (self.project / "multirun").iterdir()
        return [path for path in sorted(found) if Ledger(path).read()]

    @property
    def events(self) -> list[dict[str, Any]]:
        (sweep,) = self.sweeps
        return Ledger(sweep).read()


def lines(project: Path) -> list[dict[str, Any]]:
    """The ledger's events so far; none while there is no sweep."""
    ledgers = list((project / "multirun").glob("*/ledger.jsonl"))
    return [event for path in ledgers for event in Ledger(path.parent).read()]


def hit(project: Path, begun: int) -> str:
    """What a process was at when it died, from what it left: `begun` lines were there before."""
    ours = [event["event"] for event in lines(project)[begun:]]
    if not (project / "mlflow.db").exists():
        making = (project / ".mlflow.db.new").exists()
        return "making the database" if making else "starting"
    if "sweep" not in ours:
        return "starting"
    if "ended" in ours:
        return "after the end"
    started, finished = ours.count("started"), ours.count("finished")
    if started > finished:
        return "in a trial"
    told = lines(project)
    done = {event["trial_id"] for event in told if event["event"] == "finished"}
    if len(done) == TRIALS:
        return "in the end step"
    return "logging or between trials" if started else "opening tracking"


def until(process: subprocess.Popen[bytes], ready: Any) -> None:
    """Wait until something is so, or the process has ended by itself."""
    while process.poll() is None and not ready():
        time.sleep(0.02)


def aim(process: subprocess.Popen[bytes], project: Path, at: str, dice: random.Random) -> None:
    """Wait for a random moment of this kind."""
    begun = len(lines(project))

    def ours(kind: str) -> int:
        return sum(event["event"] == kind for event in lines(project)[begun:])

    if at == "start":
        time.sleep(dice.uniform(0, 2.5))
    elif at == "database":
        until(process, lambda: (project / ".mlflow.db.new").exists() or ours("sweep"))
        time.sleep(dice.uniform(0, 1.5))
    elif at == "trial":
        until(process, lambda: ours("started"))
        time.sleep(dice.uniform(0, 0.3))
    else:
        done = {event["trial_id"] for event in lines(project) if event["event"] == "finished"}
        until(process, lambda: ours("finished") + len(done) >= TRIALS)
        time.sleep(dice.uniform(0, 2.0))


def kill_and_resume(project: Path, seed: int) -> Killed:
    """Kill a sweep at each of the aims and resume it; then let it come to its end."""
    dice = random.Random(seed)
    killed = Killed(project)
    for at in AIMS:
        begun = len(lines(project))
        with subprocess.Popen(
            [sys.executable, "run.py", *MATRIX, "resume=auto"],
            cwd=project, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            aim(process, project, at, dice)
            over = process.poll() is not None
            if not over:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in (-signal.SIGKILL, 0)
        killed.hits.append("after the end" if over else hit(project, begun))
    for _ in range(2):  # the second has nothing to do
        ended = python(project, "run.py", *MATRIX, "resume=auto", timeout_s=300)
        assert ended.status == 0, ended.err
    assert "nothing to do" in ended.out
    return killed


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that nobody killed."""
    project = copy_project(tmp_path_factory.mktemp("unbroken"))
    ended = python(project, "run.py", *MATRIX, timeout_s=300)
    assert ended.status == 0, ended.err
    return ended.sweep


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Killed]:
    """Fifty kills, ten to a sweep, two sweeps at once."""
    projects = [copy_project(tmp_path_factory.mktemp(f"killed-{n}")) for n in range(SWEEPS)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(kill_and_resume, projects, range(SEED, SEED + SWEEPS)))


def test_the_kills_hit_where_it_matters(killed: list[Killed]) -> None:
    hits = Counter(where for each in killed for where in each.hits)
    print("\n50 kills hit:", ", ".join(f"{count} {where}" for where, count in hits.most_common()))
    assert sum(hits.values()) == 50
    # How many of them hit a trial, and how many its logging, is the machine's speed.
    assert hits["in a trial"] >= 8
    assert hits["in a trial"] + hits["logging or between trials"] >= 20
    assert hits["starting"] + hits["opening tracking"] >= 2
    assert hits["making the database"] >= 1
    assert hits["in the end step"] >= 2
    assert hits["after the end"] <= 5


def test_the_summary_is_that_of_an_unbroken_run(killed: list[Killed], unbroken: Path) -> None:
    wanted = (unbroken / "summary.csv").read_text()
    assert len(list(csv.DictReader(wanted.splitlines()))) == TRIALS
    for each in killed:
        (sweep,) = each.sweeps
        assert (sweep / "summary.csv").read_text() == wanted


def test_every_trial_has_its_files_and_no_other_s(killed: list[Killed], unbroken: Path) -> None:
    for each in killed:
        (sweep,) = each.sweeps
        for theirs in job_directories(unbroken):
            ours = sweep / theirs.name
            there = {path.name for path in ours.iterdir() if not path.name.startswith("cut-off-")}
            assert there == {path.name for path in theirs.iterdir()}
            for name in ("pulls.csv", "pods.csv", "measurements.csv", "events.jsonl"):
                assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_no_valid_trial_is_run_twice(killed: list[Killed]) -> None:
    for each in killed:
        done: set[str] = set()
        for event in each.events:
            if event["event"] == "started":
                assert event["trial_id"] not in done
            elif event["event"] == "finished" and event["verdict"] == "valid":
                assert event["trial_id"] not in done
                done.add(event["trial_id"])
        assert len(done) == TRIALS


def test_the_ledger_and_the_records_agree(killed: list[Killed]) -> None:
    for each in killed:
        (sweep,) = each.sweeps
        finished = [e for e in each.events if e["event"] == "finished"]
        records = {record.trial_id: record for record in map(read_record, job_directories(sweep))}
        assert {event["trial_id"]: event["position"] for event in finished} == {
            trial_id: record.position for trial_id, record in records.items()
        }
        assert sorted(record.position for record in records.values()) == list(range(1, 13))
        assert Ledger(sweep).examine().broken == ()
        assert len(sessions(each.events)) > 5


def test_mlflow_has_one_finished_run_a_trial_below_one_parent(killed: list[Killed]) -> None:
    for each in killed:
        (sweep,) = each.sweeps
        runs = mlflow_runs(each.project / "mlflow.db")
        parents = [run for run in runs if run["imgpull.kind"] == "sweep"]
        trials = [run for run in runs if run["imgpull.kind"] == "trial"]
        assert [run["status"] for run in parents] == ["FINISHED"]
        assert {run["status"] for run in trials} == {"FINISHED"}
        assert {run["mlflow.parentRunId"] for run in trials} == {parents[0]["run"]}
        ids = {read_record(path).trial_id for path in job_directories(sweep)}
        assert Counter(run["imgpull.trial_id"] for run in trials) == Counter(ids)
        assert all(run["metrics"] > 10 for run in trials)


def mlflow_runs(database: Path) -> list[dict[str, Any]]:
    """Runs with their tags and how many metrics they have; sound, or it raises."""
    with sqlite3.connect(database) as store:
        assert store.execute("pragma integrity_check").fetchone() == ("ok",)
        found = []
        for run, status in store.execute("select run_uuid, status from runs").fetchall():
            tags = store.execute("select key, value from tags where run_uuid = ?", (run,))
            count = store.execute("select count(*) from latest_metrics where run_uuid = ?", (run,))
            found.append(
                {**dict(tags.fetchall()), "run": run, "status": status,
                 "metrics": count.fetchone()[0]}
            )  # fmt: skip
    store.close()
    return found


def test_what_a_killed_sweep_was_told_is_told_again(killed: list[Killed]) -> None:
    for each in killed:
        for event in each.events:
            if event["event"] == "sweep":
                assert json.dumps(event["settings"], sort_keys=True) == json.dumps(
                    each.events[0]["settings"], sort_keys=True
                )
