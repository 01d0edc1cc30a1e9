"""Sweeps that build their cluster, in processes of their own: interrupted, killed, priced."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acting import IMAGE
from apiserver import ApiServer
from clouds import SECRET, Azure
from commands import ROOT, copy_project
from fleets import Fleet
from standins import REPORTS, clusterloader, docker, eventually

pytestmark = pytest.mark.slow
CL2 = "127.0.0.1:9/clusterloader:1"
PRICES = "date: 2026-11-01\ncurrency: EUR\nvm_hour: {Standard_D4ds_v5: 36, Standard_D4as_v5: 18}\n"


class Project:
    """A copy of the project whose sweep builds its cluster in a made-up Azure."""

    def __init__(self, directory: Path, azure: Azure) -> None:
        self.root = copy_project(directory)
        shutil.copytree(ROOT / "terraform", self.root / "terraform",
                        ignore=shutil.ignore_patterns("state", ".terraform"))  # fmt: skip
        self.azure = azure
        report = shutil.copytree(
            REPORTS / "own-2026-two-nodes", directory / "recorded",
            ignore=shutil.ignore_patterns("generatedConfig*"),
        )  # fmt: skip
        self.program = clusterloader(directory / "cl2", act="replay", report=str(report))
        docker(directory / "bin", self.program.path, images=[CL2])

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                sys.executable, "run.py", "-m", "cluster=aks_d4ds_v5", "provision=terraform",
                "engine=docker", f"engine.image={CL2}", "engine.settle=1ms", "yes=true",
                f"image.reference={IMAGE}", "image.layers=[]", "deployments=4", "tracking=none",
                "metrics_wait=auto", "allow=[image,cluster]", "provisioning.limit=20s", *arguments,
            ],
            cwd=self.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(os.environ), stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=120)
        return process.returncode, out

    @property
    def sweep(self) -> Path:
        """The only one."""
        (found,) = (self.root / "multirun").glob("*")
        return found

    def events(self) -> list[dict[str, Any]]:
        found = list(self.root.glob("multirun/*/ledger.jsonl"))
        return [json.loads(line) for line in found[0].read_text().splitlines()] if found else []

    def measures(self) -> bool:
        """Whether ClusterLoader2 was started, and not to compile, and the load is there."""
        if not (self.program.directory / "seen.jsonl").exists():
            return False
        pods = [x["metadata"]["name"] for x in self.azure.api.all("/api/v1/pods")]
        return sum(name.startswith("imgpull-") for name in pods) == 4 and any(
            "--dry-run=true" not in each["argv"] for each in self.program.starts
        )

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["event"] == kind]

    def resume(self) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "imgpull.cli", "resume", str(self.sweep)], cwd=self.root,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture
def project(
    apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    azure = Azure(tmp_path, apiserver, monkeypatch)
    with Fleet(apiserver, azure):
        yield Project(tmp_path, azure)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_cut_off_finds_its_cluster_again_and_does_not_build_it_twice(
    project: Project, number: signal.Signals
) -> None:
    project.program.behave(act="hang")
    process = project.start("nodes=2,3")
    assert eventually(project.measures, within_s=60)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -9), out
    assert len(project.azure.groups) == 1
    if number == signal.SIGINT:
        assert "nothing ends it by itself" in out
        assert "end it:  imgpull cluster down" in out
        assert "go on:   imgpull resume" in out
    report = project.root.parent / "recorded"
    project.program.behave(act="replay", report=str(report))
    code, out = project.resume()
    assert code == 0, out
    assert project.azure.groups == {}
    assert [event["done"] for event in project.told("provisioned")] == [
        "created", "found", "changed"
    ]  # fmt: skip
    assert project.azure.files_with(SECRET) == []


def test_max_cost_ends_a_sweep_by_what_the_cluster_costs_and_gives_it_back(
    project: Project,
) -> None:
    (project.root / "conf" / "prices.yaml").write_text(PRICES)
    # 4 machines at 108 an hour: 0.03 a second, so that some seconds of standing are too much.
    code, out = project.run("nodes=2", "trials=30", "max_cost=0.5")
    assert code == 1, out
    assert "stopped: max_cost=0.5" in out
    assert project.azure.groups == {}
    (back,) = [e for e in project.told("given back") if "done" in e]
    assert back["done"] == "destroyed"
    trials = sum(event["cost"] for event in project.told("finished"))
    assert back["node_hours"] * 108 / 4 > trials  # it stood between them too
    assert "EUR |" in (project.sweep / "report.md").read_text()
