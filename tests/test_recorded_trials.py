"""Whole trials that real engines left, read again: one code path, whatever ran (their README)."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from trials import MakeJob

from imgpull import cl2, engines, results
from imgpull.engines import Outcome, Subject
from imgpull.results.record import read_measurements
from imgpull.results.seen import read_pods

TRIALS = sorted(path for path in (Path(__file__).parent / "data" / "trials").iterdir()
                if path.is_dir())  # fmt: skip
LAYERS = ((22_366_277, None), (31_497_967, None), (41_997_749, None), (62_995_744, None),
          (104_992_045, None))  # fmt: skip


@pytest.fixture(params=TRIALS, ids=lambda path: path.name)
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    copied: Path = shutil.copytree(request.param, tmp_path / "trial")
    return copied


def seen(trial: Path) -> dict[str, Any]:
    return dict(json.loads((trial / "seen.json").read_text("utf-8")))


def assessed(trial: Path, job: MakeJob) -> results.Assessment:
    told, pods = seen(trial), read_pods(trial / "pods.csv")
    subject: Subject = replace(
        engines.build(job()).subject,
        deployments=len(pods), replicas=1, nodes=2, cache="cold",
        image_reference=pods[0].containers[0].image, image_digest=None,
        layers=LAYERS, nic_mbit_s=None, disk_ceiling_mb_s=None,
    )  # fmt: skip
    held = {node: cache["state"] for node, cache in told["observed"]["cache"].items()}
    outcome = Outcome("a test", datetime.fromisoformat(told["started_at"]), held=held)
    return results.assess(trial, subject, outcome)


def test_every_pod_and_pull_is_there(trial: Path, job: MakeJob) -> None:
    found = assessed(trial, job)
    assert found.verdict == "valid", found.reasons
    pods = read_pods(trial / "pods.csv")
    rows = (trial / "pulls.csv").read_text("utf-8").splitlines()[1:]
    assert len(rows) == len(pods) >= 2
    assert sum(",true,cold,pulled," in row for row in rows) == 2, "one leader a node"


def test_clusterloader_s_times_and_ours_are_of_the_same_pods(trial: Path, job: MakeJob) -> None:
    assessed(trial, job)
    numbers = {
        (row.measurement, row.statistic): row.value
        for row in read_measurements(trial)
        if not row.subject
    }
    # API stamps are whole seconds; CL2's watch sees a pod run a moment later.
    assert numbers["pod_startup", "p99"] == pytest.approx(numbers["pod_startup", "max"], abs=1.5)
    assert numbers["data", "total"] == 2 * 263_851_597
    # kubelet's histogram counts followers too.
    rows = list(csv.DictReader((trial / "pulls.csv").read_text("utf-8").splitlines()))
    exact = [float(row["pull_s"]) + float(row["wait_s"]) for row in rows]
    assert sum(exact) / len(exact) == pytest.approx(numbers["kubelet_image_pull", "mean"], rel=0.01)
    assert numbers["kubelet_image_pull", "n"] == len(rows)


def test_what_pulls_account_for_is_held_against_what_nodes_received(
    trial: Path, job: MakeJob
) -> None:
    assert any("received" in reason for reason in assessed(trial, job).reasons)


def test_it_tells_which_clusterloader_ran(trial: Path) -> None:
    told = seen(trial)
    assert told["observed"]["pod_startup_semantics"] == "watch"
    assert "create_to_run" in cl2.read_report(trial / "report").pod_startup
    assert told["digests"]["clusterloader"].startswith("sha256:")
    assert told["digests"]["image_run"].startswith("sha256:")
