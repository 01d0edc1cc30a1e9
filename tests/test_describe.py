"""Laws of a described cluster: it loads, it has every key, and the cluster it is of fits it."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aks import DATA, Aks, node
from apiserver import ApiServer
from hydra import compose, initialize_config_dir

from imgpull.cluster import fingerprint, nodes, vm_sizes
from imgpull.cluster.describe import HELPER_IMAGE, describe
from imgpull.cluster.kube import Kube
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
POOL = {"kubernetes.azure.com/agentpool": "measured"}
Load = Callable[..., jobs.Job]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """The Job of conf/ with this text as conf/cluster/mine.yaml, as `cluster=mine` gives it."""

    def loaded(text: str, *overrides: str) -> jobs.Job:
        conf = tmp_path / "conf"
        shutil.copytree(CONF, conf, dirs_exist_ok=True)
        (conf / "cluster" / "mine.yaml").write_text(text)
        schema.register()
        with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
            composed = compose(
                "config", overrides=["engine=binary", "cluster=mine", "nodes=1", *overrides]
            )
            return jobs.job_from(jobs.resolve(composed))

    return loaded


def keys(kind: Any) -> dict[str, Any]:
    return {x.name: keys(x.type) if is_dataclass(x.type) else None for x in fields(kind)}


def shape(values: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    return {
        key: shape(value, like[key]) if like.get(key) else None for key, value in values.items()
    }


def plain(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)
    return found


# ------------------------------------------------------------------------------- what it says


def test_a_described_cluster_loads_and_is_the_one_that_it_describes(
    apiserver: ApiServer, kube: Kube, load: Load
) -> None:
    Aks(apiserver)
    text = describe(kube, "mine", POOL, registry="my.azurecr.io")
    cluster = load(text).cluster
    assert (cluster.name, cluster.provider, cluster.region) == ("mine", "aks", "westeurope")
    assert (cluster.kubernetes_version, cluster.containerd_version) == ("1.34", "1.7.30-1")
    assert cluster.node == schema.Node(
        vm_size="Standard_D4s_v3", vcpus=4, memory_gib=16, nic_mbit_s=2000,
        os_disk="managed_p10_128gib", disk_write_mb_s=96, disk_burst_mb_s=170,
        disk_burst_minutes=30, max_pods=110,
    )  # fmt: skip
    assert cluster.node_prefix == "aks-measured-"
    assert cluster.node_selector == POOL
    assert cluster.prometheus_node_selector == {"prometheus": "true"}
    assert cluster.registry.server == "my.azurecr.io"
    seen = fingerprint.look(kube, nodes.pick(nodes.node_facts(kube), cluster, 3))
    assert fingerprint.mismatches(cluster, seen) == []
    load(text, "engine=sim")  # a VM size of the table can be simulated too


def test_every_key_of_the_schema_is_written(apiserver: ApiServer, kube: Kube) -> None:
    Aks(apiserver)
    wanted = keys(schema.Cluster)
    assert shape(plain(describe(kube, "mine", POOL)), wanted) == wanted


def test_the_helper_image_is_that_of_the_descriptions_that_come_with_imgpull() -> None:
    for path in (CONF / "cluster").glob("aks_*.yaml"):
        assert yaml.safe_load(path.read_text())["helper_image"] == HELPER_IMAGE


def test_every_figure_that_the_api_does_not_show_has_its_source(
    apiserver: ApiServer, kube: Kube
) -> None:
    Aks(apiserver)
    lines = describe(kube, "mine", POOL).splitlines()
    for key in ("nic_mbit_s", "disk_write_mb_s", "memory_gib", "egress_mbit_s", "connection_mb_s",
                "first_byte_ms", "requests_per_minute"):  # fmt: skip
        (line,) = [line for line in lines if line.strip().startswith(f"{key}:")]
        assert re.search(r"# .*(Azure docs|ASSUMPTION)", line), line


def test_each_vm_size_of_the_table_is_described_so_that_it_fits(
    apiserver: ApiServer, kube: Kube
) -> None:
    for vm_size, size in vm_sizes.SIZES.items():
        for disk_gib in {size.temp_gib or 64, 128}:
            capacity = {
                "cpu": str(size.vcpus), "pods": "110",
                "memory": f"{round(size.memory_gib * 0.975 * 2**20)}Ki",
                "ephemeral-storage": f"{round(disk_gib * 0.968 * 2**20)}Ki",
            }  # fmt: skip
            label = {"node.kubernetes.io/instance-type": vm_size}
            apiserver.put(node(0, metadata__labels=label, status__capacity=capacity))
            found = plain(describe(kube, "mine", POOL))
            assert found["node"]["nic_mbit_s"] == size.nic_mbit_s
            assert found["node"]["memory_gib"] == size.memory_gib
            groups = {"node": schema.Node(**found["node"]), "kubelet": schema.Kubelet(),
                      "registry": schema.Registry(), "containerd": schema.Containerd()}  # fmt: skip
            facts = nodes.node_facts(kube)
            seen = fingerprint.Seen("1.34.1", tuple(facts))
            assert fingerprint.mismatches(schema.Cluster(**{**found, **groups}), seen) == []


@pytest.mark.parametrize(
    ("provider_id", "provider"),
    [("azure:///x", "aks"), ("aws:///eu-1a/i-0", "eks"), ("gce://p/z/n", "gke"),
     ("kind://docker/kind/n", "kind"), ("openstack:///x", "local"), (None, "local")],
)  # fmt: skip
def test_a_cluster_elsewhere_is_described_with_what_is_not_known_left_unknown(
    apiserver: ApiServer, kube: Kube, load: Load, provider_id: str | None, provider: str
) -> None:
    for index in range(2):
        apiserver.put(
            node(
                index, spec__providerID=provider_id, metadata__labels=None,
                status__nodeInfo={"containerRuntimeVersion": "containerd://2.1.4"},
            )
        )  # fmt: skip
    text = describe(kube)
    cluster = load(text).cluster
    assert (cluster.provider, cluster.region) == (provider, "unknown")
    assert cluster.node.vm_size == "unknown"
    assert cluster.node.nic_mbit_s is None
    assert cluster.node.disk_write_mb_s is None
    assert cluster.node_selector == {}
    seen = fingerprint.look(kube, nodes.node_facts(kube))
    assert fingerprint.mismatches(cluster, seen) == []
    with pytest.raises(ConfigError, match=r"cluster\.node\.nic_mbit_s is not known"):
        load(text, "engine=sim")


def test_recorded_nodes_are_described(apiserver: ApiServer, kube: Kube, load: Load) -> None:
    for each in json.loads((DATA / "nodes" / "own-1.36.2.json").read_text()):
        apiserver.put(each)
    apiserver.version = "v1.36.2"
    text = describe(kube, "mine")
    cluster = load(text).cluster
    assert (cluster.kubernetes_version, cluster.node_prefix) == ("1.36", "node")
    assert cluster.node_selector == {"agentpool": "measured"}
    assert "# NOTE: their container runtime differs: containerd://1.7.24 on node1" in text
    assert 'containerd_version: "1.7.24" # NOTE: not on all: 2.1.9 on 1' in text
    assert "ASSUMPTION: the defaults; /configz does not answer" in text
    assert cluster.kubelet.serializeImagePulls  # kubelet's default


# ------------------------------------------------------------------------------------- choice


def test_the_largest_user_pool_is_guessed(apiserver: ApiServer, kube: Kube) -> None:
    system = {"kubernetes.azure.com/mode": "system"}
    for index in range(3):
        apiserver.put(node(index, pool="system", metadata__labels=system))
    apiserver.put(node(0, pool="gpu"))
    for index in range(2):
        apiserver.put(node(index, pool="big"))
    for index in range(4):
        apiserver.put(node(index, pool="prom", metadata__labels={"prometheus": "true"}))
    found = plain(describe(kube))
    assert found["node_selector"] == {"kubernetes.azure.com/agentpool": "big"}
    assert found["node_prefix"] == "aks-big-"
    assert found["prometheus_node_selector"] == {"prometheus": "true"}


def test_without_a_node_for_prometheus_the_system_pool_is_meant(
    apiserver: ApiServer, kube: Kube
) -> None:
    apiserver.put(node(0))
    assert plain(describe(kube))["prometheus_node_selector"] == {}
    apiserver.put(node(0, pool="s", metadata__labels={"kubernetes.azure.com/mode": "system"}))
    found = plain(describe(kube))
    assert found["node_selector"] == POOL
    assert found["prometheus_node_selector"] == {"kubernetes.azure.com/mode": "system"}


def test_the_pool_s_own_taints_are_tolerated_and_those_of_a_node_s_state_are_not(
    apiserver: ApiServer, kube: Kube, load: Load
) -> None:
    own = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"},
           {"key": "only", "effect": "NoExecute"}]  # fmt: skip
    state = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    apiserver.put(node(0, spec__taints=own))
    apiserver.put(node(1, spec__taints=[*own, state], spec__unschedulable=True))
    cluster = load(describe(kube)).cluster
    assert cluster.tolerations == [
        schema.Toleration("only", "Exists", "", "NoExecute"),
        schema.Toleration("sku", "Equal", "gpu", "NoSchedule"),
    ]
    assert len(nodes.pick(nodes.node_facts(kube), cluster, 1)) == 1


def test_control_plane_nodes_are_not_described_where_no_label_tells_pools(
    apiserver: ApiServer, kube: Kube
) -> None:
    taint = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    plane = node(9, metadata__labels=None, spec__taints=taint, status__capacity={"cpu": "64"})
    apiserver.put(plane)
    apiserver.put(node(0, metadata__labels=None))
    found = plain(describe(kube))
    assert (found["node_selector"], found["tolerations"]) == ({}, [])
    assert found["node"]["vcpus"] == 4


def test_settings_are_those_of_the_kubelets(apiserver: ApiServer, kube: Kube) -> None:
    cluster = Aks(apiserver, 3)
    cluster.settings |= {"serializeImagePulls": True, "registryPullQPS": 20}
    cluster.of_node(cluster.names[1], "configz", (200, {"kubeletconfig": {
        **cluster.settings, "registryPullQPS": 5}}))  # fmt: skip
    text = describe(kube, "mine", POOL)
    assert plain(text)["kubelet"] == {
        "serializeImagePulls": True, "maxParallelImagePulls": None,
        "registryPullQPS": 20, "registryBurst": 10,
    }  # fmt: skip
    assert "registryPullQPS: 20 # NOTE: not on all: 5 on 1" in text


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["aks-a-1-vmss000000", "aks-a-1-vmss000001"], "aks-a-"),
        (["aks-a-1-vmss000000"], "aks-a-"),
        (["node1", "node2"], "node"),
        (["ip-10-0-1-5.ec2.internal", "ip-10-0-2-7.ec2.internal"], "ip-10-0-"),
        (["kind-worker"], "kind-"),
        (["worker"], "worker"),
        (["7a", "7b"], "7"),
    ],
)
def test_the_prefix_is_what_all_names_begin_with(
    apiserver: ApiServer, kube: Kube, names: list[str], prefix: str
) -> None:
    for name in names:
        apiserver.put(node(0, metadata__name=name))
    text = describe(kube)
    assert plain(text)["node_prefix"] == prefix
    assert "no common start" not in text


def test_names_without_a_common_start_are_told(apiserver: ApiServer, kube: Kube) -> None:
    for name in ("alpha", "beta"):
        apiserver.put(node(0, metadata__name=name))
    assert "no common start: allow=[cluster.node_prefix]" in describe(kube)


# ------------------------------------------------------------------------------------ refusals


def test_what_cannot_be_described_is_refused_with_the_fix(apiserver: ApiServer, kube: Kube) -> None:
    with pytest.raises(ConfigError, match="has no nodes to describe"):
        describe(kube)
    apiserver.put(node(0, status__nodeInfo={"containerRuntimeVersion": "cri-o://1.34.1"}))
    with pytest.raises(ConfigError, match="and imgpull measures containerd"):
        describe(kube)
    with pytest.raises(ConfigError, match="none of the cluster's 1 nodes carries a=b"):
        describe(kube, "mine", {"a": "b"})
    with pytest.raises(ConfigError, match="is no name of a file"):
        describe(kube, "../x")


def test_names_that_yaml_would_read_as_something_else_are_quoted(
    apiserver: ApiServer, kube: Kube
) -> None:
    apiserver.put(node(0, metadata__labels={"pool": "true", "n": "12"}))
    found = plain(describe(kube, "on", {"pool": "true", "n": "12"}))
    assert found["node_selector"] == {"pool": "true", "n": "12"}
    assert found["name"] == "on"
