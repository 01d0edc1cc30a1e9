"""`imgpull doctor | janitor | cluster describe | image inspect` as a user types them."""

from pathlib import Path

import pytest
from acting import FITS, Acting, kubeconfig
from apiserver import ApiServer
from commands import Ended, imgpull
from standins import clusterloader

from imgpull.cluster.ownership import Owner, ensure_system_namespace, make_namespace


@pytest.fixture
def cluster(apiserver: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Acting:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return Acting(apiserver)


def doctor(cluster: Acting, directory: Path, *overrides: str) -> Ended:
    program = clusterloader(directory / "bin", act="nothing")
    access = kubeconfig(cluster.api, directory, "a-token")
    return imgpull(
        directory, "doctor", "engine=binary", f"engine.path={program.path}",
        f"engine.kubeconfig={access}", *FITS, *overrides,
    )  # fmt: skip


def test_doctor_says_ok_where_a_sweep_would_run(cluster: Acting, tmp_path: Path) -> None:
    ran = doctor(cluster, tmp_path)
    assert ran.status == 0, ran.out + ran.err
    assert "ok       nodes: " in ran.out
    assert ran.out.splitlines()[-1].startswith("0 failed")


def test_doctor_names_every_failure_with_its_fix_and_ends_with_2(
    cluster: Acting, tmp_path: Path
) -> None:
    ran = doctor(cluster, tmp_path, "cluster.region=nowhere", "nodes=9")
    assert ran.status == 2
    failed = [line for line in ran.out.splitlines() if line.startswith("FAILED")]
    assert any("nowhere" in line for line in failed)
    assert "allow=[cluster.region]" in ran.out


def test_doctor_refuses_a_typo_as_run_py_does(cluster: Acting, tmp_path: Path) -> None:
    ran = doctor(cluster, tmp_path, "replica=5")
    assert ran.status == 2
    assert "replica" in ran.err


def test_janitor_lists_and_then_removes(cluster: Acting, tmp_path: Path) -> None:
    kube = cluster.api.kube("a-token")
    ensure_system_namespace(kube)
    make_namespace(kube, "ip0000000000-1", Owner("dead-sweep", "cell-t1"))
    kube.close()
    access = kubeconfig(cluster.api, tmp_path, "a-token")
    told = ("janitor", f"--kubeconfig={access}", "--docker=no-such-program")
    listed = imgpull(tmp_path, *told, "--dry-run")
    assert "ip0000000000-1" in listed.out
    assert cluster.leftovers() != []
    assert imgpull(tmp_path, *told).status == 0
    assert cluster.leftovers() == []
    assert "nothing of ours is left" in imgpull(tmp_path, *told).out


def test_describe_prints_a_description(cluster: Acting, tmp_path: Path) -> None:
    access = kubeconfig(cluster.api, tmp_path, "a-token")
    ran = imgpull(tmp_path, "cluster", "describe", f"--kubeconfig={access}", "--name=here")
    assert ran.status == 0, ran.err
    assert "name: here" in ran.out
    assert "Standard_D4s_v3" in ran.out
