"""Laws of what a sweep asks of provisioning: a cluster of this shape now, and given back after."""

from dataclasses import replace

import pytest
from apiserver import ApiServer
from clouds import SECRET, Azure

from imgpull import provisioning
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import node_facts
from imgpull.config.compose import composed_job
from imgpull.config.job import Job
from imgpull.errors import ConfigError
from imgpull.provisioning.place import Place

GROUP = "imgpull-aks-d4ds-v5"


@pytest.fixture(scope="module")
def job() -> Job:
    return composed_job(["cluster=aks_d4ds_v5", "nodes=3"])


def quiet(_: str) -> None:
    """Nobody listens."""


def test_a_cluster_of_the_asked_shape_can_be_spoken_to(azure: Azure, job: Job) -> None:
    made = provisioning.ensure(job, quiet, sweep="2026-11-25_ab12")
    kube = Kube.open(made.kubeconfig, made.context)
    assert len(node_facts(kube, {"kubernetes.azure.com/agentpool": "measured"})) == 3
    kube.close()
    assert made.is_new
    assert azure.groups[GROUP]["tags"]["sweep"] == "2026-11-25_ab12"
    assert SECRET not in made.variables.read_text()


def test_the_next_shape_changes_the_measured_pool_and_no_tag(
    azure: Azure, job: Job, apiserver: ApiServer
) -> None:
    provisioning.ensure(job, quiet, sweep="s1")
    tags = azure.groups[GROUP]["tags"]
    name = apiserver.all("/api/v1/nodes")[0]["metadata"]["name"]
    apiserver.kube(SECRET).delete(f"/api/v1/nodes/{name}")
    said: list[str] = []
    again = provisioning.ensure(replace(job, nodes=2), said.append, sweep="s2")
    assert not again.is_new
    assert azure.groups[GROUP]["tags"] == tags
    created = [line for line in said if "Creating..." in line]
    assert created == ["azurerm_kubernetes_cluster_node_pool.measured: Creating..."]


def test_an_expiry_that_is_near_is_renewed(azure: Azure, job: Job) -> None:
    short, long = (
        replace(job, cluster=replace(job.cluster, azure=replace(job.cluster.azure, lifetime=each)))
        for each in ("20m", "10h")
    )
    provisioning.ensure(short, quiet)
    before = azure.groups[GROUP]["tags"]["expiry"]
    provisioning.ensure(long, quiet)
    assert azure.groups[GROUP]["tags"]["expiry"] > before


def test_what_is_given_back_is_gone(azure: Azure, job: Job) -> None:
    provisioning.ensure(job, quiet)
    provisioning.give_back("aks_d4ds_v5", quiet)
    assert azure.groups == {}
    assert not Place("aks_d4ds_v5").directory.exists()


def test_another_region_is_another_cluster(azure: Azure, job: Job) -> None:
    provisioning.ensure(job, quiet)
    moved = replace(job, cluster=replace(job.cluster, region="westeurope"))
    with pytest.raises(ConfigError, match=r"was made with cluster\.region=eastus"):
        provisioning.ensure(moved, quiet)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 40])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Place(name)


def test_an_error_of_this_machine_tells_what_exists_and_how_to_remove_it(
    azure: Azure, job: Job
) -> None:
    said: list[str] = []

    def full(line: str) -> None:
        said.append(line)
        if line.startswith("azurerm_kubernetes_cluster.this: Creation complete"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        provisioning.ensure(job, full)
    told = next(line for line in said if "what exists:" in line)
    assert "azurerm_kubernetes_cluster.this" in told
    assert any("imgpull cluster down aks_d4ds_v5 --yes" in line for line in said)
    provisioning.give_back("aks_d4ds_v5", quiet)
    assert azure.groups == {}
