"""Several clusters side by side: each runs its own trials, and what breaks one stops no other."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from acting import FITS, Acting
from apiserver import ApiServer
from commands import Ended, copy_project, python
from standins import REPORTS, clusterloader
from trials import MakeJob

from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.sweep.lanes import lanes_of
from imgpull.sweep.plan import Cell, Planned

NAMES = ("east", "west")


# Which trials a lane has


def trial(job: Job, number: int) -> Planned:
    cell = Cell((), f"c{number}", "", job, {}, {}, None)
    return Planned(cell, f"c{number}", str(number), 1, 1, number, 1)


def test_a_lane_has_the_trials_of_one_cluster_in_the_order_of_the_plan(job: MakeJob) -> None:
    east, west = (replace(job(), engine=schema.BinaryEngine(context=name)) for name in NAMES)
    plan = [trial(made, n) for n, made in enumerate([east, west, west, east])]
    lanes = lanes_of(plan)
    assert lanes == {(None, "east"): [plan[0], plan[3]], (None, "west"): plan[1:3]}
    assert lanes_of(plan[1:3]) == {None: plan[1:3]}
    assert lanes_of([trial(job(), 0), plan[0]]) == {None: [trial(job(), 0), plan[0]]}


# Sweeps

slow = pytest.mark.slow


@dataclass
class Two:
    """Two clusters, a project that describes them, and a kubeconfig that reaches both."""

    project: Path
    clusters: dict[str, Acting]
    program: Any
    kubeconfig: Path

    def arguments(self, *further: str) -> list[str]:
        return [
            "run.py", "-m", "engine=binary", f"engine.path={self.program.path}",
            f"engine.kubeconfig={self.kubeconfig}", "engine.context=${cluster.name}",
            "engine.settle=1ms", "tracking=none",
            *(each for each in FITS if not each.startswith("cluster=")),
            f"cluster={','.join(NAMES)}", *further,
        ]  # fmt: skip

    def sweep(self, *further: str) -> Ended:
        return python(self.project, *self.arguments(*further))

    def start(self, *further: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *self.arguments(*further)], cwd=self.project, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def events(self) -> list[dict[str, Any]]:
        """What the ledger of the only sweep tells so far."""
        found = list(self.project.glob("multirun/*/ledger.jsonl"))
        lines = found[0].read_text("utf-8").splitlines() if found else []
        return [json.loads(line) for line in lines]

    def wait_for(self, happened: Callable[[list[dict[str, Any]]], bool]) -> None:
        until_s = time.monotonic() + 60
        while not happened(self.events()):
            assert time.monotonic() < until_s, self.events()
            time.sleep(0.05)

    def require_nothing_left(self) -> None:
        assert {name: each.leftovers() for name, each in self.clusters.items()} == {
            name: [] for name in NAMES
        }


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    project = copy_project(tmp_path)
    described = (project / "conf/cluster/aks_d4s_v3.yaml").read_text("utf-8")
    report = shutil.copytree(
        REPORTS / "own-2026-two-nodes", tmp_path / "recorded",
        ignore=shutil.ignore_patterns("generatedConfig*"),
    )  # fmt: skip
    program = clusterloader(tmp_path / "bin", act="replay", report=str(report))
    with ApiServer() as east, ApiServer() as west:
        clusters, access = {}, {"apiVersion": "v1", "kind": "Config"}
        for name, server in zip(NAMES, (east, west), strict=True):
            clusters[name] = Acting(server)
            one = described.replace("name: aks_d4s_v3", f"name: {name}")
            (project / f"conf/cluster/{name}.yaml").write_text(one, "utf-8")
            told = yaml.safe_load(server.kubeconfig(tmp_path / name).read_text("utf-8"))
            for key in ("clusters", "users", "contexts"):
                access.setdefault(key, []).extend({**each, "name": name} for each in told[key])  # type: ignore[attr-defined]
        for context in access["contexts"]:
            context["context"] = {"cluster": context["name"], "user": context["name"]}  # type: ignore[index]
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(access), "utf-8")
        yield Two(project, clusters, program, path)
        assert east.errors == west.errors == []


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent = stat.read_text("utf-8").rpartition(")")[2].split()[1]
            found += [int(stat.parent.name)] * (int(parent) == pid)
    return found


def spans(events: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """trial_id -> from when to when it ran, by the machine's clock."""
    begun = {e["trial_id"]: e["clock_s"] for e in events if e["event"] == "started"}
    return {
        e["trial_id"]: (begun[e["trial_id"]], e["clock_s"])
        for e in events
        if e["event"] == "finished"
    }


def cluster_of(ended: Ended) -> dict[str, str]:
    return {record.trial_id: record.factors["cluster"] for record in ended.records}


@slow
def test_clusters_run_side_by_side_and_each_one_trial_at_a_time(two: Two) -> None:
    ended = two.sweep("trials=2")
    assert ended.status == 0, ended.out + ended.err
    where = cluster_of(ended)
    assert sorted(where.values()) == ["east", "east", "west", "west"]
    ran = spans(ended.events)
    for name in NAMES:
        first, second = sorted(ran[trial_id] for trial_id in where if where[trial_id] == name)
        assert first[1] <= second[0]
    east, west = ([ran[t] for t in where if where[t] == name] for name in NAMES)
    assert any(a[0] < b[1] and b[0] < a[1] for a in east for b in west), "none overlapped"
    assert sorted(e["position"] for e in ended.events if e["event"] == "started") == [1, 2, 3, 4]
    held = [
        (e["event"], e["context"]) for e in ended.events if e["event"] in ("held", "given back")
    ]
    assert sorted(held) == sorted((event, n) for event in ("held", "given back") for n in NAMES)
    assert all(name in ended.out for name in NAMES)
    two.require_nothing_left()


@slow
def test_the_trials_leave_what_one_cluster_alone_leaves(two: Two) -> None:
    both = two.sweep()
    alone = python(two.project, *two.arguments()[:-1], "cluster=east")
    assert (both.status, alone.status) == (0, 0), both.err + alone.err
    files = [sorted(p.name for p in (each.sweep / "0").rglob("*")) for each in (both, alone)]
    assert files[0] == files[1]


@slow
def test_a_cluster_that_cannot_be_had_leaves_nothing_and_gives_the_other_back(two: Two) -> None:
    server = two.clusters["west"].api
    server.handle("GET", "/api/v1/namespaces/imgpull-system", (403, {"message": "no"}))
    ended = two.sweep()
    assert ended.status == 2, ended.out + ended.err
    assert list((two.project / "multirun").glob("*")) == []
    two.require_nothing_left()


@slow
def test_a_lane_that_is_killed_stops_no_other_and_the_rest_can_be_resumed(two: Two) -> None:
    process = two.start("trials=2")
    two.wait_for(lambda events: sum(e["event"] == "started" for e in events) >= 2)
    lanes = children(process.pid)
    assert len(lanes) == 2
    os.kill(lanes[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    (lost,) = [e for e in two.events() if e["event"] == "lost"]
    other = ({"east", "west"} - {lost["context"]}).pop()
    done = [e for e in two.events() if e["event"] == "finished"]
    assert len(done) >= 2
    assert len(lost["left"]) in (1, 2)
    assert f"{lost['context']}: its process ended with status -9" in said
    assert two.clusters[other].leftovers() == []


@slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_ends_early_leaves_no_cluster_held(two: Two, how: signal.Signals) -> None:
    two.program.behave(act="hang")
    process = two.start()
    two.wait_for(lambda events: sum(e["event"] == "started" for e in events) == 2)
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == (-9 if how is signal.SIGKILL else 130), said
    two.wait_for(lambda events: sum(e["event"] == "given back" for e in events) == 2)
    two.require_nothing_left()
