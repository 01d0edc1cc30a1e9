"""kill -9 at any moment of a real trial leaves nothing that the janitor does not find."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from acting import FITS, Acting, kubeconfig
from apiserver import ApiServer
from commands import run_py
from standins import REPORTS, clusterloader, eventually

from imgpull.cluster import janitor, lease

ROOT = Path(__file__).parents[1]
KILLS = 20


def started(cluster: Acting, directory: Path, nth: int) -> subprocess.Popen[bytes]:
    """A sweep of one trial whose ClusterLoader2 hangs."""
    program = clusterloader(directory / "bin", act="hang")
    access = kubeconfig(cluster.api, directory, "a-token-of-this-test")
    command = [
        sys.executable, str(ROOT / "run.py"), "engine=binary", f"engine.path={program.path}",
        f"engine.kubeconfig={access}", "tracking=none", f"hydra.sweep.dir={directory}/sweep-{nth}",
        "engine.settle=200ms", *FITS,
    ]  # fmt: skip
    return subprocess.Popen(
        command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def told(directory: Path, nth: int) -> list[str]:
    """The events of its ledger."""
    path = directory / f"sweep-{nth}" / "ledger.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [json.loads(line)["event"] for line in lines]


def killed(cluster: Acting, directory: Path, nth: int, event: str, after_s: float) -> str:
    """Start a sweep, kill it so long after an event of its ledger, and say what it was doing.

    Without an event the seconds count from the start.
    """
    process = started(cluster, directory, nth)
    until_s = time.monotonic() + 120
    while event and event not in told(directory, nth):
        assert process.poll() is None, "it ended by itself"
        assert time.monotonic() < until_s
        time.sleep(0.02)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    events = told(directory, nth)
    if "started" in events:
        return "in the trial"
    return "between" if "held" in events else "in start-up"


@pytest.mark.slow
def test_kill_leaves_nothing_that_the_janitor_does_not_find(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    cluster, draw = Acting(apiserver), random.Random(4)
    hits: Counter[str] = Counter()
    left: Counter[str] = Counter()
    kube = apiserver.kube("a-token-of-this-test")
    for nth in range(KILLS):
        # Most in the trial, however slow the machine is to begin it.
        event = ("", "held", "started", "started", "started")[nth % 5]
        after_s = draw.uniform(0, 2.5) if event else draw.uniform(0.5, 4)
        hits[killed(cluster, tmp_path, nth, event, after_s)] += 1
        time.sleep(0.7)  # what was under way at the API server ends
        left.update(each.split()[0] for each in cluster.leftovers())
        expire(apiserver)
        found = janitor.leftovers(kube)
        assert janitor.remove(kube, found, lambda _: None) == []
        assert cluster.leftovers() == [], f"kill {nth}"
        assert janitor.leftovers(kube) == []
    kube.close()
    print(f"hits: {dict(hits)}; left behind before the janitor: {dict(left)}")
    assert hits["in the trial"] > KILLS / 2
    assert left["Namespace"], "no kill hit a trial while it had something on the cluster"
    assert left["node"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_without_the_janitor_and_another_is_told_of_it(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    cluster, program = Acting(apiserver), tmp_path / "bin"
    process = started(cluster, tmp_path, 1)
    assert eventually(lambda: any("Namespace" in each for each in cluster.leftovers()), 120)
    process.kill()
    process.wait()
    assert cluster.leftovers()
    cluster.count = lambda: 4
    # Without the names of the recorded test's own namespaces.
    report = shutil.copytree(
        REPORTS / "own-2026-two-nodes", tmp_path / "recorded",
        ignore=shutil.ignore_patterns("generatedConfig*"),
    )  # fmt: skip
    clusterloader(program, act="replay", report=str(report))
    access = kubeconfig(cluster.api, tmp_path, "a-token-of-this-test")
    own = ("engine=binary", f"engine.path={program}/clusterloader", "engine.settle=1ms",
           f"engine.kubeconfig={access}", "tracking=none", *FITS)  # fmt: skip
    other = run_py(tmp_path, *own)
    assert other.status == 2
    assert "left by an earlier sweep" in other.err
    assert "imgpull janitor" in other.err
    assert cluster.leftovers(), "what is another sweep's is not touched"
    again = run_py(tmp_path, *own, f"hydra.sweep.dir={tmp_path}/sweep-1", "resume=auto")
    assert again.status == 0, again.err
    assert [record.counts for record in again.records] == [True]
    assert cluster.leftovers() == []


def expire(apiserver: ApiServer) -> None:
    """Make the dead holder's lease look as old as it would be a minute later."""
    found = apiserver.get(lease.PATH)
    if found is not None:
        found["spec"] |= {"renewTime": "2026-01-01T00:00:00.000000Z", "holderIdentity": ""}
        apiserver.put(found)
