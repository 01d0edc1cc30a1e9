"""What `until=plan` predicts of real trials, beside what they took.

    python benchmarks/predictions.py

Hides how a recorded trial is described to the simulator: by what its record says (load, versions,
layers), and by assumption what it does not. Rates are those of conf/engine/sim.yaml, not tuned to
these trials. docs/how-to.md holds the table that this prints, and a test compares the two.

Wall times are not an independent test: what imgpull spends around ClusterLoader2 is predicted by
constants that come from these very trials. Of ClusterLoader2's time most are sleeps that the bundle
names: the figure without them is the one that can be wrong.
"""

import functools
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from imgpull import cl2, engines, render, results  # noqa: E402
from imgpull.config import job as jobs  # noqa: E402
from imgpull.config.compose import composed_job  # noqa: E402
from imgpull.config.job import Job  # noqa: E402
from imgpull.engines import Outcome  # noqa: E402
from imgpull.engines.sim.rehearsal import sleeps_s  # noqa: E402
from imgpull.results.record import read_measurements  # noqa: E402
from imgpull.results.seen import read_pods  # noqa: E402
from imgpull.sweep.forecasting.predicting import predict, rehearsed, simulated_job  # noqa: E402
from imgpull.sweep.plan import Cell  # noqa: E402

TRIALS = ROOT / "tests" / "data" / "trials"

# Compressed as recorded. ASSUMPTION: unpacked as the image was built, half of it random bytes; the
# first layer holds a small userland too.
LAYERS = ((22_366_277, 44), (31_497_967, 60), (41_997_749, 80), (62_995_744, 120),
          (104_992_045, 200))  # fmt: skip

# Two nodes on one machine of two processors; containerd 1.7.24 and 2.1.9. ASSUMPTION: disk 1 GB/s,
# loopback without a limit, 130 MB/s a connection, as in benchmarks/published.py.
LAB = (
    "nodes=2", "metrics_wait=auto", "cluster.containerd_version=1.7.24",
    "cluster.kubernetes_version='1.36'", "cluster.node.vcpus=2",
    "cluster.node.memory_gib=24", "cluster.node.nic_mbit_s=1000000",
    "cluster.node.disk_write_mb_s=1000", "cluster.registry.connection_mb_s=130",
    "image.layers=["
    + ",".join(f"{{compressed_bytes:{c},unpacked_bytes:{u}MB}}" for c, u in LAYERS)
    + "]",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One real trial: how it was asked for, and what it took (seconds)."""

    name: str
    overrides: tuple[str, ...]
    wall_s: float  # all stages of imgpull
    pull_p50_s: float
    test_s: float | None = None  # ClusterLoader2's junit.xml

    @property
    def job(self) -> Job:
        """What it asked for, as a Job."""
        return composed_job([*LAB, *self.overrides])


# Of 2026-11-25, not recorded: figures of docs/real-clusters.md, "What was tried".
DOCUMENTED = (
    Case("binary, one replica", ("engine=binary", "deployments=2"), 215.0, 2.3),
    Case("binary, two replicas", ("engine=binary", "deployments=2", "replicas=2"), 214.0, 2.5),
)


@dataclass(frozen=True)
class Score:
    """One figure, predicted and measured."""

    trial: str
    what: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Above 1: predicted too long."""
        return self.predicted / self.measured


def cases() -> Iterator[Case]:
    """Every recorded trial under tests/data/trials."""
    for directory in sorted(path for path in TRIALS.iterdir() if path.is_dir()):
        told = json.loads((directory / "seen.json").read_text("utf-8"))
        pods = read_pods(directory / "pods.csv")
        overrides = (f"engine={told['fingerprint']['engine']}", f"deployments={len(pods)}",
                     f"engine.settle={told['observed']['settle']}")  # fmt: skip
        report = cl2.read_report(directory / "report")
        assert report.junit is not None
        job = composed_job([*LAB, *overrides])
        yield Case(
            name=directory.name,
            overrides=overrides,
            test_s=report.junit.overall_s,
            wall_s=sum(told["observed"]["stages_s"].values()),
            pull_p50_s=_measured_p50_s(job, directory, told),
        )


def _measured_p50_s(job: Job, directory: Path, told: Mapping[str, Any]) -> float:
    held = {node: cache["state"] for node, cache in told["observed"]["cache"].items()}
    outcome = Outcome("recorded", datetime.fromisoformat(told["started_at"]), held=held)
    pods = read_pods(directory / "pods.csv")
    subject = replace(
        engines.build(job).subject,
        image_reference=pods[0].containers[0].image,
        image_digest=None,
    )
    with tempfile.TemporaryDirectory() as scratch:
        copied = Path(shutil.copytree(directory, Path(scratch) / "trial"))
        results.assess(copied, subject, outcome)
        return _p50_s(copied)


def _p50_s(directory: Path) -> float:
    (found,) = (
        row.value
        for row in read_measurements(directory)
        if (row.measurement, row.statistic, row.subject) == ("image_pull", "p50", "")
    )
    return found


def _predicted_p50_s(job: Job) -> float:
    """Of the whole simulated trial, read as a real one is."""
    simulated = simulated_job(job)
    engine = engines.build(simulated)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        bundle = render.write(render.render(simulated), out / "bundle")
        results.assess(out, engine.subject, engine.run(bundle, out, lambda _: None))
        return _p50_s(out)


@functools.cache
def scores() -> list[Score]:
    """Every figure of every trial."""
    found = []
    for case in (*cases(), *DOCUMENTED):
        job, files = case.job, render.render(case.job)
        cell = Cell((), jobs.cell_id(job), case.name, job, {}, {}, files)
        wall_s = predict([cell], [], lambda _: None)[cell.cell_id].wall_s
        assert wall_s is not None
        played, asleep_s = rehearsed(job, files), sleeps_s(files)
        found.append(Score(case.name, "whole trial", wall_s, case.wall_s))
        if case.test_s is not None:
            found += [
                Score(case.name, "ClusterLoader2's test", played.virtual_s, case.test_s),
                Score(
                    case.name,
                    "test without sleeps",
                    played.virtual_s - asleep_s,
                    case.test_s - asleep_s,
                ),
            ]
        found.append(Score(case.name, "image pull p50", _predicted_p50_s(job), case.pull_p50_s))
    return found


def table() -> list[str]:
    """The scores as Markdown, a line a figure."""
    lines = [
        "| Trial | Figure | Predicted (s) | Measured (s) | Ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for each in scores():
        lines.append(
            f"| {each.trial} | {each.what} | {each.predicted:.1f} | {each.measured:.1f} "
            f"| {each.ratio:.2f} |"
        )
    return lines


def summary() -> list[str]:
    """The median ratio of each figure, with its n."""
    found = scores()
    lines = []
    for what in dict.fromkeys(each.what for each in found):
        ratios = [each.ratio for each in found if each.what == what]
        middle, spread = statistics.median(ratios), f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"{what}: median ratio {middle:.2f} ({spread}), n={len(ratios)}")
    return lines


def main() -> None:
    print("\n".join(table()))
    print("\nPredicted over measured; above 1 is too long. One image on one machine: far too few")
    print("trials to speak of other clusters, of larger images, or of Prometheus' bring-up.")
    print("\n".join(summary()))


if __name__ == "__main__":
    main()
