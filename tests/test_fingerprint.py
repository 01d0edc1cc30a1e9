"""Laws of the fingerprint: what fits is silent, what does not is named by its key, or allowed."""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from aks import DATA, FITS, GIB, Aks, node
from apiserver import ApiServer
from hypothesis import given
from hypothesis import strategies as st

from imgpull.cluster import fingerprint, nodes, vm_sizes
from imgpull.cluster.fingerprint import Mismatch, Seen, accept, mismatches
from imgpull.cluster.kube import Kube
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.errors import ConfigError

MakeJob = Callable[..., Job]
SETTINGS = {"serializeImagePulls": False, "registryPullQPS": 5, "registryBurst": 10}


@pytest.fixture
def cluster(job: MakeJob) -> schema.Cluster:
    return job(*FITS).cluster


def seen(*changes: dict[str, Any], server: str = "1.34.2", **settings: Any) -> Seen:
    """Two nodes as they should be, and one more for each set of changes."""
    made = [node(index, **change) for index, change in enumerate(({}, {}, *changes))]
    facts = tuple(map(nodes.facts_of, made))
    return Seen(server, facts, {each.name: SETTINGS | settings for each in facts})


def only(found: list[Mismatch]) -> Mismatch:
    (mismatch,) = found
    return mismatch


# --------------------------------------------------------------------------------- mismatches


def test_the_cluster_that_is_described_fits(cluster: schema.Cluster) -> None:
    assert mismatches(cluster, seen()) == []
    assert fingerprint.unlike(seen().nodes) == []


@pytest.mark.parametrize(
    ("change", "key", "found"),
    [
        ({"metadata__labels": {"node.kubernetes.io/instance-type": "Standard_D8s_v3"}},
         "cluster.node.vm_size", "Standard_D8s_v3 on aks-measured-38601234-vmss000002"),
        ({"status__capacity": {"cpu": "8"}}, "cluster.node.vcpus", "8 on aks-"),
        ({"status__capacity": {"memory": "32000000Ki"}}, "cluster.node.memory_gib", "30.5 on aks-"),
        ({"status__capacity": {"pods": "30"}}, "cluster.node.max_pods", "30 on aks-"),
        ({"status__capacity": {"ephemeral-storage": "60000000Ki"}},
         "cluster.node.os_disk", "a file system of 57 GiB on aks-"),
        ({"status__nodeInfo": {"kubeletVersion": "v1.33.5"}},
         "cluster.kubernetes_version", "1.33.5"),
        ({"status__nodeInfo": {"containerRuntimeVersion": "containerd://2.1.4"}},
         "cluster.containerd_version", "2.1.4 on aks-"),
        # The pull metrics came with 1.7.14: the minor version is not all there is to it.
        ({"status__nodeInfo": {"containerRuntimeVersion": "containerd://1.7.13"}},
         "cluster.containerd_version", "1.7.13 on aks-"),
        ({"status__nodeInfo": {"containerRuntimeVersion": "cri-o://1.34.0"}},
         "cluster.containerd_version", "cri-o://1.34.0 on aks-"),
        ({"metadata__labels": {"topology.kubernetes.io/region": "eastus"}},
         "cluster.region", "eastus on aks-"),
        ({"metadata__labels": {"topology.kubernetes.io/zone": "westeurope-1"}}, "", ""),
        ({"spec__providerID": "aws:///eu-west-1a/i-0abc"}, "cluster.provider", "aws on aks-"),
        ({"metadata__name": "gpu-1"}, "cluster.node_prefix", "gpu-1"),
    ],
)  # fmt: skip
def test_one_node_that_differs_is_named_with_the_key_and_what_was_found(
    cluster: schema.Cluster, change: dict[str, Any], key: str, found: str
) -> None:
    told = mismatches(cluster, seen(change))
    if not key:
        assert told == []
        return
    assert only(told).field == key
    assert found in only(told).found


@pytest.mark.parametrize(
    ("setting", "value", "found"),
    [
        ("serializeImagePulls", True, "true"),
        ("maxParallelImagePulls", 3, "3"),
        ("registryPullQPS", 10, "10"),
        ("registryBurst", 20, "20"),
    ],
)
def test_kubelet_settings_that_differ_are_named(
    cluster: schema.Cluster, setting: str, value: Any, found: str
) -> None:
    assert only(mismatches(cluster, seen(**{setting: value}))) == Mismatch(
        f"cluster.kubelet.{setting}",
        {"serializeImagePulls": "false", "maxParallelImagePulls": "null"}.get(
            setting, "5" if setting == "registryPullQPS" else "10"
        ),
        found,
    )


def test_pulls_one_at_a_time_are_the_same_however_kubelet_says_it(cluster: schema.Cluster) -> None:
    serial = replace(cluster, kubelet=schema.Kubelet(serializeImagePulls=True))
    for most in (None, 1):
        told = seen(serializeImagePulls=True, maxParallelImagePulls=most)
        assert mismatches(serial, told) == []


def test_two_sizes_in_one_pool_are_told_even_where_the_description_names_none(
    cluster: schema.Cluster,
) -> None:
    anything = replace(cluster, node=replace(cluster.node, vm_size="unknown"))
    assert mismatches(anything, seen()) == []
    other = {"metadata__labels": {"node.kubernetes.io/instance-type": "Standard_D8s_v3"}}
    told = only(mismatches(anything, seen(other)))
    assert told.field == "cluster.node.vm_size"
    assert told.found.startswith("Standard_D4s_v3 on aks-measured-38601234-vmss000000, aks-")
    assert "; Standard_D8s_v3 on aks-measured-38601234-vmss000002" in told.found


def test_an_api_server_of_another_minor_version_is_told(cluster: schema.Cluster) -> None:
    assert mismatches(cluster, seen(server="1.34.9")) == []
    assert only(mismatches(cluster, seen(server="1.35.0"))) == Mismatch(
        "cluster.kubernetes_version", "1.34", "1.35.0"
    )


def test_what_the_api_does_not_show_is_no_mismatch(cluster: schema.Cluster) -> None:
    blank = node(
        0, metadata__labels=None, spec__providerID=None, status__capacity=None,
        status__nodeInfo={"kubeletVersion": "v1.34.0"},
    )  # fmt: skip
    told = mismatches(cluster, Seen("1.34.0", (nodes.facts_of(blank),)))
    assert told == []


def test_rates_and_containerd_s_settings_are_never_judged(cluster: schema.Cluster) -> None:
    other = replace(
        cluster,
        node=replace(cluster.node, nic_mbit_s=1, disk_write_mb_s=1, disk_burst_mb_s=None),
        containerd=schema.Containerd(max_concurrent_downloads=20),
        registry=replace(cluster.registry, server="another", sku="another"),
    )
    assert mismatches(other, seen()) == []


@pytest.mark.parametrize(
    ("zones", "described", "found"),
    [
        (["0", "1", "0"], 1, None),  # fault domains of machines in no zone
        (["we-1", "we-2", "we-3"], 3, None),
        (["we-1", "we-2", "we-3"], 1, "3 (we-1, we-2, we-3)"),
        (["we-1", "we-1", "we-1"], 3, "1 (we-1)"),
        (["we-1", "we-2"], 3, None),  # two nodes cannot be in three
        (["0", "0", "0"], 3, "1 (none)"),
    ],
)
def test_zones_are_counted(
    cluster: schema.Cluster, zones: list[str], described: int, found: str | None
) -> None:
    label = "topology.kubernetes.io/zone"
    facts = tuple(
        nodes.facts_of(node(index, metadata__labels={label: zone}))
        for index, zone in enumerate(zones)
    )
    told = mismatches(replace(cluster, zones=described), Seen("1.34.2", facts))
    assert [each.found for each in told] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("provider", "provider_id", "fits"),
    [
        ("aks", "azure:///x", True), ("eks", "aws:///x", True), ("aws", "aws:///x", True),
        ("gke", "gce://x", True), ("kind", "kind://x", True), ("local", "azure:///x", True),
        ("aks", "openstack:///x", True),  # nobody knows
        ("aks", "kind://x", False), ("eks", "azure:///x", False), ("kind", "gce://x", False),
    ],
)  # fmt: skip
def test_the_provider_is_that_of_the_machines(
    cluster: schema.Cluster, provider: str, provider_id: str, fits: bool
) -> None:
    facts = nodes.facts_of(node(0, spec__providerID=provider_id))
    told = mismatches(replace(cluster, provider=provider), Seen("1.34.2", (facts,)))
    assert (told == []) == fits


def test_every_mismatch_names_a_key_that_allow_takes(cluster: schema.Cluster) -> None:
    strange = schema.Cluster(
        name="x", provider="eks", region="mars", kubernetes_version="1.20",
        containerd_version="1.6.0", node_prefix="zz", zones=2,
        node=schema.Node(
            vm_size="x", vcpus=1, memory_gib=1, nic_mbit_s=1, os_disk="x_1gib",
            disk_write_mb_s=1, max_pods=1,
        ),
        kubelet=schema.Kubelet(True, 1, 1, 1),
    )  # fmt: skip
    found = mismatches(strange, seen(maxParallelImagePulls=7))
    assert len(found) == 15
    assert len({each.field for each in found}) == 15
    refused, allowed = accept(found, [each.field for each in found])
    assert (refused, allowed) == ([], found)


def test_nodes_that_differ_in_what_is_not_described_are_told_apart() -> None:
    other = {"status__nodeInfo": {"kernelVersion": "6.8.0", "kubeletVersion": "v1.34.3"}}
    told = fingerprint.unlike(seen(other).nodes)
    assert len(told) == 2
    assert told[0].startswith("their kubelet differs: 1.34.2 on aks-measured-38601234-vmss000000, ")
    assert "6.8.0 on aks-measured-38601234-vmss000002" in told[1]


# -------------------------------------------------------------------------------------- allow

VM_SIZE = Mismatch("cluster.node.vm_size", "a", "b")
VCPUS = Mismatch("cluster.node.vcpus", "1", "2")
REGION = Mismatch("cluster.region", "a", "b")
LAYERS = Mismatch("image.layers", "a", "b")


@pytest.mark.parametrize(
    ("allow", "refused"),
    [
        ([], [VM_SIZE, VCPUS, REGION, LAYERS]),
        (["cluster.node.vm_size"], [VCPUS, REGION, LAYERS]),
        (["cluster.node"], [REGION, LAYERS]),
        (["cluster"], [LAYERS]),
        (["image.layers", "cluster"], []),
        (["cluster.node.vcpus", "cluster.region"], [VM_SIZE, LAYERS]),
        (["cluster.node_prefix", "cluster.node.nic_mbit_s"], [VM_SIZE, VCPUS, REGION, LAYERS]),
    ],
)
def test_allow_takes_a_field_or_a_group(allow: list[str], refused: list[Mismatch]) -> None:
    every = [VM_SIZE, VCPUS, REGION, LAYERS]
    found = accept(every, allow)
    assert found == (refused, [each for each in every if each not in refused])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("cluster.node.vmsize", "cluster.node.vm_size"),
        ("vm_size", "cluster.node.vm_size"),
        ("cluster.nodes", "cluster.node"),
        ("kubelet.registryBurst", "cluster.kubelet.registryBurst"),
        ("zzzz", "cluster"),
    ],
)
def test_a_name_that_no_field_has_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        accept([], [name])
    assert name in caught.value.message
    assert caught.value.hint == f"did you mean allow=[{near}]?"


def keys(kind: Any, path: str) -> list[str]:
    return [path] + [
        key
        for item in fields(kind)
        for key in (
            keys(item.type, f"{path}.{item.name}")
            if is_dataclass(item.type)
            else [f"{path}.{item.name}"]
        )
    ]


@given(st.sampled_from(keys(schema.Cluster, "cluster") + keys(schema.Image, "image")))
def test_every_key_of_the_groups_may_be_allowed(key: str) -> None:
    assert accept([Mismatch(key, "a", "b")], [key])[0] == []


# ----------------------------------------------------------------------------------- observed


def test_what_is_observed_is_plain_data_that_tells_where_nodes_differ(
    apiserver: ApiServer, kube: Kube
) -> None:
    cluster = Aks(apiserver, 2)
    facts = nodes.node_facts(kube, {"agentpool": "measured"})
    told = fingerprint.observed(kube, facts)
    assert json.loads(json.dumps(told)) == told
    assert told["kubernetes"] == "1.34.1"
    assert told["runtime"] == "containerd://1.7.30-1"
    assert told["vm_size"] == "Standard_D4s_v3"
    assert told["node_image"] == "AKSUbuntu-2204gen2containerd-202602.13.5"
    assert told["provider"] == "azure"
    assert told["kubelet_settings"]["registryBurst"] == 10
    assert told["kubelet_settings"]["maxParallelImagePulls"] is None
    other = node(1, status__nodeInfo={"kernelVersion": "6.8.0"})
    apiserver.put(other)
    cluster.of_node(cluster.names[0], "configz", (403, {"reason": "Forbidden"}))
    told = fingerprint.observed(kube, nodes.node_facts(kube, {"agentpool": "measured"}))
    assert told["kernel"] == ["5.15.0-1102-azure", "6.8.0"]
    assert told["kubelet_settings"]["registryBurst"] == 10


def test_recorded_nodes_are_compared_too(job: MakeJob) -> None:
    recorded = json.loads((DATA / "nodes" / "own-1.36.2.json").read_text())
    settings = json.loads((DATA / "nodes" / "own-1.36.2-configz.json").read_text())
    facts = tuple(map(nodes.facts_of, recorded))
    told = Seen("1.36.2", facts, {each.name: settings["kubeletconfig"] for each in facts})
    found = {each.field: each.found for each in mismatches(job().cluster, told)}
    assert found["cluster.containerd_version"] == "1.7.24 on node1; 2.1.9 on node2"
    assert found["cluster.kubelet.maxParallelImagePulls"] == "4"
    assert "cluster.node.vm_size" not in found  # no label tells it


# ------------------------------------------------------------------------------------ VM sizes


def test_described_clusters_and_the_table_of_vm_sizes_agree(job: MakeJob) -> None:
    for name in ("aks_d2s_v3", "aks_d4s_v3", "aks_d4ds_v5", "aks_d8ds_v5", "aks_d16ds_v5"):
        described = job(f"cluster={name}").cluster.node
        size = vm_sizes.SIZES[described.vm_size]
        assert (size.vcpus, size.memory_gib) == (described.vcpus, described.memory_gib)
        assert size.nic_mbit_s == described.nic_mbit_s
        disk_gib = int(described.os_disk.split("_")[-1].removesuffix("gib"))
        found = vm_sizes.os_disk(described.vm_size, round(disk_gib * 0.968 * GIB))
        assert found[:3] == (
            described.os_disk, described.disk_write_mb_s, described.disk_burst_mb_s,
        )  # fmt: skip


@given(st.sampled_from(sorted(vm_sizes.SIZES)), st.floats(0.9, 1.0))
def test_a_disk_s_rates_are_unknown_or_those_of_a_name_that_fits_its_size(
    vm_size: str, share: float
) -> None:
    for disk_gib in (30, 64, 128, 150, 256, 300, 512, 600, 1024):
        size_bytes = round(disk_gib * share * GIB)
        disk = vm_sizes.os_disk(vm_size, size_bytes)
        assert vm_sizes.size_fits(disk.name, size_bytes)
        if disk.write_mb_s is None:
            assert disk.burst_mb_s is None
        else:
            assert disk.burst_mb_s is None or disk.burst_mb_s > disk.write_mb_s


def test_a_disk_that_may_be_of_two_kinds_has_no_rates() -> None:
    # 128 GiB: a P10, or a part of the local disk of 150 GiB.
    assert vm_sizes.os_disk("Standard_D4ds_v5", 124 * GIB)[:3] == ("unknown_128gib", None, None)
    assert vm_sizes.os_disk("Standard_D4s_v5", 124 * GIB)[:3] == ("managed_p10_128gib", 100, 170)


def test_a_size_in_no_table_has_no_rates() -> None:
    assert "m5.large" not in vm_sizes.SIZES
    assert vm_sizes.os_disk("m5.large", 80 * GIB)[:3] == ("unknown_80gib", None, None)


def test_a_name_without_a_size_fits_every_disk() -> None:
    assert vm_sizes.size_fits("nvme", 5 * GIB)
    assert not vm_sizes.size_fits("nvme_500gib", 5 * GIB)
