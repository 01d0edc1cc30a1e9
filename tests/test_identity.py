"""Laws of identity: a cell's name is what it does to the measured nodes, and nothing else."""

import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull.config import job as jobs

Compose = Callable[..., dict[str, Any]]
Changed = Callable[[dict[str, Any]], dict[str, Any]]
MakeJob = Callable[..., jobs.Job]


# One changed value for each field that makes a cell what it is.
PHYSICAL: dict[str, Any] = {
    "deployments": 11, "replicas": 2, "qps": 9.5, "nodes": 11, "cache": "warm",
    "pod_startup_threshold": "4m", "wait_timeout": "31m", "metrics_wait": "auto",
    "containerd_scrape_interval": "16s", "cluster.name": "other", "cluster.provider": "eks",
    "cluster.region": "westeurope", "cluster.kubernetes_version": "1.35",
    "cluster.containerd_version": "2.3.3", "cluster.node_selector": {"pool": "other"},
    "cluster.tolerations": [{"key": "a", "value": "b"}], "cluster.node.vm_size": "other",
    "cluster.node.vcpus": 5, "cluster.node.memory_gib": 17.0, "cluster.node.nic_mbit_s": 1000.0,
    "cluster.node.os_disk": "other", "cluster.node.disk_write_mb_s": 251.0,
    "cluster.node.max_pods": 111, "cluster.registry.server": "other.azurecr.io",
    "cluster.registry.sku": "Basic", "cluster.registry.egress_mbit_s": 1.0,
    "cluster.registry.connection_mb_s": 1.0, "cluster.registry.first_byte_ms": 1.0,
    "cluster.kubelet.serializeImagePulls": True, "cluster.kubelet.maxParallelImagePulls": 2,
    "cluster.kubelet.registryPullQPS": 6.0, "cluster.kubelet.registryBurst": 11,
    "cluster.containerd.max_concurrent_downloads": 4,
    "cluster.containerd.image_pull_progress_timeout": "6m", "cluster.zones": 3,
    "cluster.node.disk_burst_mb_s": 1200.0, "cluster.node.disk_burst_minutes": 31.0,
    "cluster.registry.requests_per_minute": 10000.0, "cluster.registry.requests_burst": 1001,
    "cluster.registry.zone_link_mbit_s": 10000.0,
    "image.layers[0].digest": "base", "image.reference": "reg.io/other:1",
    "image.digest": "sha256:" + "0" * 64, "image.platform": "linux/arm64",
    "image.layers[0].compressed_bytes": "31MB", "image.layers[0].unpacked_bytes": "79MB",
    "image.layers[0].compression": "zstd", "engine.rates.sandbox_s": 9.0,
    "engine.faults.pull_shares.throttled": 0.1, "engine.faults.pull_shares.auth": 0.1,
    "engine.faults.pull_shares.not_found": 0.1, "engine.faults.pull_shares.network": 0.1,
    "engine.faults.pull_shares.disk_full": 0.1, "engine.faults.slow_nodes": 1,
    "engine.faults.slow_factor": 0.5, "engine.faults.lost_nodes": 1, "engine.faults.lost_at": "2m",
    "engine.faults.restarted_nodes": 1, "engine.faults.restarted_at": "2m",
    "engine.faults.restart_takes": "21s", "engine.faults.event_loss_share": 0.1,
    "engine.faults.brown_outs": [{"begin": "1m", "end": "2m", "egress_share": 0.0}],
    "engine.images": {"reg.io/b:1": [{"compressed_bytes": "1MB", "unpacked_bytes": "2MB"}]},
}  # fmt: skip

# What nodes hold beforehand is the cell's own with cache=as_is, and says nothing otherwise.
HELD: dict[str, Any] = {
    "engine.held.snapshots": 1, "engine.held.blobs": 1, "engine.held.images": True,
    "engine.held.nodes_share": 0.5,
}  # fmt: skip

# The same, where an older containerd does not know the key.
OF_CONTAINERD_2: dict[str, Any] = {
    "cluster.containerd.max_concurrent_unpacks": 2,
    "cluster.containerd.concurrent_layer_fetch_buffer": 8388608,
}

# What says how a trial is run, named, logged or ordered, and changes no result.
NOT_PHYSICAL: dict[str, Any] = {
    "seed": 7, "trial": 3, "trials": 5, "until": "render", "order": "shuffled", "resume": "auto",
    "on_failure": "stop", "tracking.kind": "none", "tracking.uri": "http://mlflow:5000",
    "tracking.experiment": "other", "cluster.helper_image": "reg.io/pause:1",
    "cluster.prometheus_node_selector": {"a": "b"}, "cluster.node_prefix": "other-",
    "image.name": "other", "image.command": ["sh"], "image.args": ["-c"],
    "image.pull_secret": "secret", "trial_limit": "3h", "allow": ["cluster.region"],
    "cluster.prometheus_storage_class": "managed-csi", "cluster.prometheus_memory_gib": 30,
    "cluster.azure.subscription": "x", "cluster.azure.resource_group": "x",
    "cluster.azure.owner": "x", "cluster.azure.lifetime": "1h", "cluster.azure.registry": "none",
    "cluster.azure.anonymous_pull": True, "cluster.azure.replica_regions": ["westeurope"],
    "cluster.azure.os_sku": "Ubuntu", "cluster.azure.sku_tier": "Standard",
    "cluster.azure.system_vm_size": "Standard_D8s_v5", "cluster.azure.system_nodes": 3,
    "cluster.azure.prometheus_vm_size": "Standard_D8s_v5",
    "cluster.azure.image_gc_high_percent": 90, "cluster.azure.image_gc_low_percent": 70,
}  # fmt: skip


# The sweep's own.
OF_THE_SWEEP = {
    "exclude", "retries", "max_hours", "max_cost", "target_effect", "provision", "keep", "yes",
    "provisioning.create", "provisioning.pool", "provisioning.resize", "provisioning.destroy",
    "provisioning.limit",
}  # fmt: skip


def leaves(values: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Every key with a value of its own; maps and lists of the schema count as one."""
    found: set[str] = set()
    for key, value in values.items():
        whole = key in ("node_selector", "prometheus_node_selector", "rates", "layers", "images")
        if isinstance(value, Mapping) and not whole:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found.add(f"{prefix}{key}")
    return found


def test_every_key_is_known_to_be_physical_or_not(compose: Compose) -> None:
    physical = {**PHYSICAL, **HELD, **OF_CONTAINERD_2}
    named = {re.sub(r"\[0\]\.\w+|(?<=rates)\.\w+", "", key) for key in physical}
    assert not named & set(NOT_PHYSICAL)
    assert leaves(compose()) == named | set(NOT_PHYSICAL) | OF_THE_SWEEP | {"engine.kind"}


@pytest.mark.parametrize("key", PHYSICAL)
def test_a_physical_field_changes_the_cell(changed: Changed, job: MakeJob, key: str) -> None:
    other = jobs.job_from(changed({key: PHYSICAL[key]}))
    assert jobs.cell_id(other) != jobs.cell_id(job())


@pytest.mark.parametrize("key", OF_CONTAINERD_2)
def test_a_setting_of_a_newer_containerd_changes_the_cell(changed: Changed, key: str) -> None:
    newer = {"cluster.containerd_version": "2.3.3"}
    plain, other = (
        jobs.job_from(changed(newer | more)) for more in ({}, {key: OF_CONTAINERD_2[key]})
    )
    assert jobs.cell_id(plain) != jobs.cell_id(other)


@pytest.mark.parametrize("key", HELD)
def test_what_nodes_hold_changes_the_cell_where_the_cache_is_left_as_it_is(
    changed: Changed, key: str
) -> None:
    def cell(cache: str, **more: Any) -> str:
        return jobs.cell_id(jobs.job_from(changed({"cache": cache} | more)))

    assert cell("as_is") != cell("as_is", **{key: HELD[key]})
    assert cell("cold") == cell("cold", **{key: HELD[key]})


def test_a_cell_without_faults_has_the_name_it_had_before_there_were_any(changed: Changed) -> None:
    bare = changed({})
    for group in ("faults", "held", "images"):
        del bare["engine"][group]
    assert jobs.cell_id(jobs.job_from(bare)) == jobs.cell_id(jobs.job_from(changed({})))
    content = jobs.physical(jobs.job_from(bare))
    assert set(content["engine"]) == {"kind", "rates"}
    assert set(content["image"]["layers"][0]) == {
        "compressed_bytes", "unpacked_bytes", "compression",
    }  # fmt: skip


@pytest.mark.parametrize("key", NOT_PHYSICAL)
def test_how_a_trial_is_run_and_logged_does_not_change_the_cell(
    changed: Changed, job: MakeJob, key: str
) -> None:
    other = jobs.job_from(changed({key: NOT_PHYSICAL[key]}))
    assert jobs.cell_id(other) == jobs.cell_id(job())


def test_the_engine_is_part_of_the_cell(job: MakeJob) -> None:
    replayed = job("engine=replay", "engine.report=somewhere")
    assert jobs.cell_id(replayed) != jobs.cell_id(job())


def test_spelling_does_not_change_the_cell(changed: Changed, job: MakeJob) -> None:
    otherwise = {"wait_timeout": "1800s", "metrics_wait": "0h10m", "qps": 10}
    otherwise["image.layers[0].compressed_bytes"] = "30000000"
    otherwise["cluster.containerd.image_pull_progress_timeout"] = "300s"
    otherwise |= {"engine.faults.lost_at": "60s", "engine.faults.restart_takes": "0m20s"}
    assert jobs.cell_id(jobs.job_from(changed(otherwise))) == jobs.cell_id(job())


@given(st.randoms())
def test_the_order_of_keys_does_not_change_the_cell(random: Any) -> None:
    content = {"a": {"x": 1, "y": [2, {"p": 3, "q": 4}]}, "b": None, "c": 0.5}

    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return [shuffled(item) for item in value] if isinstance(value, list) else value
        keys = random.sample(list(value), len(value))
        return {key: shuffled(value[key]) for key in keys}

    assert jobs.content_id(shuffled(content)) == jobs.content_id(content)


def test_the_order_of_a_configuration_s_keys_does_not_change_the_cell(
    compose: Compose, job: MakeJob
) -> None:
    def reverse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: reverse(value[key]) for key in reversed(list(value))}

    assert jobs.cell_id(jobs.job_from(reverse(compose()))) == jobs.cell_id(job())


def test_a_cell_s_name_is_the_same_on_every_machine(job: MakeJob) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", jobs.cell_id(job()))
    assert jobs.content_id({"a": 1, "b": [None, 0.5, "x"]}) == "16cebd460832"


def test_a_job_cannot_be_changed(job: MakeJob) -> None:
    frozen = job()
    for thing, name in (
        (frozen, "replicas"),
        (frozen.image, "reference"),
        (frozen.image.layers[0], "compressed_bytes"),
        (frozen.cluster, "region"),
        (frozen.cluster.node, "vcpus"),
        (frozen.engine, "kind"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, "x")


def test_factors_are_the_levels_that_a_cell_stands_for(job: MakeJob) -> None:
    assert jobs.factors(job("qps=5", "replicas=3", "image=vllm")) == {
        "deployments": 10, "replicas": 3, "qps": 5, "nodes": 10, "image": "vllm",
        "cluster": "aks_d4ds_v5", "cache": "cold",
    }  # fmt: skip
    assert jobs.factors(replace(job(), qps=0.5))["qps"] == 0.5


def test_room_for_two_scrapes_follows_the_slowest_target(job: MakeJob) -> None:
    assert jobs.scrape_room_s(job()) == 2 * jobs.KUBELET_SCRAPE_INTERVAL_S
    assert jobs.scrape_room_s(job("containerd_scrape_interval=45s")) == 90
