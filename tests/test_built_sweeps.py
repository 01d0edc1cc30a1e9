"""Laws of sweeps whose cluster is built for them: once a shape, given back, and never forgotten."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acting import IMAGE
from apiserver import ApiServer
from clouds import SECRET, Azure
from commands import Ended, database, run_py
from fleets import Fleet
from standins import REPORTS, clusterloader, docker

Sweep = Callable[..., Ended]
CL2 = "127.0.0.1:9/clusterloader:1"
FITS = (
    "cluster=aks_d4ds_v5", "provision=terraform", "engine=docker", f"engine.image={CL2}",
    "engine.settle=1ms", f"image.reference={IMAGE}", "image.layers=[]", "deployments=4",
    "metrics_wait=auto", "allow=[image,cluster]", "tracking=none",
)  # fmt: skip


@pytest.fixture
def azure(apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure without anything of ours, whose nodes join the API stand-in."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    made = Azure(tmp_path, apiserver, monkeypatch)
    with Fleet(apiserver, made):
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    (made / "mlflow.db").write_bytes(database())
    return made


@pytest.fixture
def sweep(azure: Azure, root: Path, tmp_path: Path) -> Sweep:
    """Run a command whose cluster is built."""
    report = shutil.copytree(
        REPORTS / "own-2026-two-nodes", tmp_path / "recorded",
        ignore=shutil.ignore_patterns("generatedConfig*"),
    )  # fmt: skip
    program = clusterloader(tmp_path / "cl2", act="replay", report=str(report))
    docker(tmp_path / "bin", program.path, images=[CL2])
    return lambda *arguments: run_py(root, *arguments, *FITS)


def test_each_shape_is_built_once_in_order_and_all_of_it_is_given_back(
    sweep: Sweep, azure: Azure
) -> None:
    ran = sweep("-m", "nodes=10,20", "trials=2", "yes=true")
    assert ran.status == 0, ran.out + ran.err
    assert azure.commands() == [
        "init", "plan", "apply", "init", "plan", "apply", "state list", "destroy",
    ]  # fmt: skip
    assert azure.groups == {}
    kinds = [e["event"] for e in ran.events]
    assert kinds.count("provisioned") == 2
    told = [e for e in ran.events if e["event"] == "provisioned"]
    assert [e["done"] for e in told] == ["created", "changed"]
    assert told[1]["changes"] == ["update azurerm_kubernetes_cluster_node_pool.measured"]
    assert {e["shape"] for e in told} == {"10 x Standard_D4ds_v5", "20 x Standard_D4ds_v5"}
    (back,) = [e for e in ran.events if e["event"] == "given back" and "cluster" in e]
    assert back["done"] == "destroyed"
    nodes = [r.factors["nodes"] for r in sorted(ran.records, key=lambda r: r.position)]
    assert nodes in ([10, 10, 20, 20], [20, 20, 10, 10])
    assert len({r.block for r in ran.records}) == 4
    for event in told:
        values = json.loads((ran.sweep / event["variables"]).read_text())
        assert f"{values['measured_node_count']} x" in event["shape"]
    assert azure.files_with(SECRET) == []
    assert "nodes cannot be told from the order of provisioning" in ran.out
    assert "nodes cannot be told from" in (ran.sweep / "report.md").read_text()
