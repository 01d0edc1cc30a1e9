"""The same matrix on every engine: the same files and columns, and no credential in any of them."""

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from acting import FITS, Acting, kubeconfig
from apiserver import ApiServer
from commands import Ended, database, run_py
from jobpods import JobPods
from standins import REPORTS, clusterloader, docker

from imgpull.results.record import job_directories, read_record

pytestmark = pytest.mark.slow
TOKEN = "a-planted-token-that-nobody-may-write-down"
IMAGE = "127.0.0.1:9/clusterloader:1"
MATRIX = ("-m", "replicas=1,2", "qps=5,10")
Sweep = Callable[..., Ended]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A working directory with a store in it; making one takes seconds."""
    made = tmp_path / "root"
    made.mkdir()
    (made / "mlflow.db").write_bytes(database())
    return made


@pytest.fixture(params=["binary", "docker", "incluster"])
def sweep(
    request: pytest.FixtureRequest, apiserver: ApiServer, root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Sweep]:  # fmt: skip
    """Run a command on one real engine."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    cluster = Acting(apiserver)
    cluster.count = lambda: asked_pods(root)
    report = shutil.copytree(
        REPORTS / "own-2026-two-nodes", tmp_path / "recorded",
        ignore=shutil.ignore_patterns("generatedConfig*"),
    )  # fmt: skip
    program = clusterloader(tmp_path / "bin", act="replay", report=str(report))
    access = kubeconfig(apiserver, tmp_path, TOKEN)
    kind = request.param
    own = {
        "binary": [f"engine.path={program.path}"],
        "docker": [
            f"engine.command={docker(tmp_path / 'docker', program.path, images=[IMAGE]).path}",
            f"engine.image={IMAGE}",
        ],
        "incluster": [f"engine.image={IMAGE}"],
    }[kind]
    with ExitStack() as stack:
        if kind == "incluster":
            stack.enter_context(JobPods(apiserver, tmp_path / "pods", program.path))

        def run(*arguments: str) -> Ended:
            return run_py(
                root, *arguments, f"engine={kind}", *own, f"engine.kubeconfig={access}",
                "engine.settle=1ms", *FITS,
            )  # fmt: skip

        yield run


def asked_pods(root: Path) -> int:
    """How many pods the test asks for that began last."""
    bundles = sorted(root.rglob("bundle/image-pull.yaml"), key=lambda path: path.stat().st_mtime)
    text = bundles[-1].read_text("utf-8")
    replicas = yaml.safe_load(bundles[-1].with_name("deployment.yaml").read_text("utf-8"))
    most = max(int(n) for n in re.findall(r"replicasPerNamespace: (\d+)", text))
    return most * int(replicas["spec"]["replicas"])


def header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


def test_the_matrix_leaves_the_files_that_the_simulator_leaves(
    sweep: Sweep, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "sim").mkdir()
    simulated = run_py(
        tmp_path / "sim", *MATRIX, "nodes=2", "deployments=4", "image=resource_consumer",
        "tracking=none",
    )  # fmt: skip
    real = sweep(*MATRIX, "tracking=none")
    assert real.status == 0, real.err
    assert len(real.records) == len(simulated.records) == 4
    assert {record.engine for record in real.records} != {"sim"}
    for theirs, ours in zip(
        job_directories(simulated.sweep), job_directories(real.sweep), strict=True
    ):
        assert {path.name for path in theirs.iterdir()} == {path.name for path in ours.iterdir()}
        for name in ("pods.csv", "pulls.csv", "series.csv", "measurements.csv"):
            assert header(theirs / name) == header(ours / name)
        assert (ours / "events.jsonl").stat().st_size
        rows = list(csv.DictReader((ours / "pulls.csv").read_text("utf-8").splitlines()))
        assert {row["source"] for row in rows} == {"event"}
        assert read_record(ours).virtual_s is None
    assert header(simulated.sweep / "summary.csv") == header(real.sweep / "summary.csv")


def test_no_credential_is_in_directories_logs_or_mlflow(sweep: Sweep, root: Path) -> None:
    ran = sweep()
    assert ran.status == 0, ran.err
    assert TOKEN not in ran.out + ran.err
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {"mlflow.db", "run.log", "job.json", "ledger.jsonl"} <= {path.name for path in files}
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []


def test_the_ledger_tells_what_the_sweep_held(sweep: Sweep) -> None:
    ran = sweep("-m", "replicas=1,2", "tracking=none")
    told = [event["event"] for event in ran.events]
    assert told.count("held") == told.count("given back") == 1
    stacks = [event["done"] for event in ran.events if event["event"] == "prometheus"]
    # The stand-in's Prometheus never becomes healthy, so the second trial makes it anew.
    assert stacks == ["created", "rebuilt", "torn down"]
