"""A Job's cluster as the variables of terraform/: the one place where the two descriptions meet.

Hides which key becomes which variable. A key that no variable takes is descriptive, with the
reason; where AKS would build something else than a descriptive key says, that is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from imgpull.cluster import vm_sizes
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.errors import ConfigError
from imgpull.provisioning.buildable import check_buildable, check_new_registry

Variables = Mapping[str, Any]

MANAGED_BY, IMGPULL = "managed-by", "imgpull"
ID, OWNER, SWEEP, EXPIRY = "imgpull-id", "owner", "sweep", "expiry"

# The key of cluster.* and the variables that are made from it.
MAPPED: Mapping[str, tuple[str, ...]] = {
    "name": ("cluster_name",),
    "region": ("location",),
    "kubernetes_version": ("kubernetes_version",),
    "node_selector": ("measured_pool_name", "measured_node_labels"),
    "tolerations": ("measured_node_taints",),
    "prometheus_node_selector": ("prometheus_node_labels",),
    "zones": ("measured_zones",),
    "node.vm_size": ("measured_vm_size",),
    "node.os_disk": ("measured_os_disk_type", "measured_os_disk_size_gb"),
    "node.max_pods": ("measured_max_pods",),
    "registry.server": ("registry_name",),
    "registry.sku": ("registry_sku",),
    "azure.subscription": ("subscription_id",),
    "azure.resource_group": ("resource_group_name",),
    "azure.owner": ("tags",),
    "azure.lifetime": ("tags",),
    "azure.registry": ("registry_name", "registry_id"),
    "azure.anonymous_pull": ("registry_anonymous_pull",),
    "azure.replica_regions": ("registry_replica_locations",),
    "azure.os_sku": ("os_sku",),
    "azure.sku_tier": ("sku_tier",),
    "azure.system_vm_size": ("system_vm_size",),
    "azure.system_nodes": ("system_node_count",),
    "azure.prometheus_vm_size": ("prometheus_vm_size",),
    "azure.image_gc_high_percent": ("image_gc_high_threshold",),
    "azure.image_gc_low_percent": ("image_gc_low_threshold",),
}

_HARDWARE = "follows from node.vm_size and node.os_disk"
_REGISTRY = "a model of the registry for the simulator: nothing sets it"
_KUBELET = "AKS exposes none of kubelet's pull settings: only its default can be built"
_CONTAINERD = "AKS exposes no setting of containerd: only its default can be built"

# The key of cluster.* that no variable takes, and why.
DESCRIPTIVE: Mapping[str, str] = {
    "provider": "terraform/ builds AKS only: another provider is refused",
    "containerd_version": "follows from kubernetes_version and azure.os_sku; doctor compares it",
    "node_prefix": "AKS names nodes aks-POOL-…: another prefix is refused",
    "prometheus_storage_class": "a class of AKS's own; nothing has to be made for it",
    "prometheus_memory_gib": "checked to fit azure.prometheus_vm_size",
    "helper_image": "pulled from where it is",
    "node.vcpus": _HARDWARE,
    "node.memory_gib": _HARDWARE,
    "node.nic_mbit_s": _HARDWARE,
    "node.disk_write_mb_s": _HARDWARE,
    "node.disk_burst_mb_s": _HARDWARE,
    "node.disk_burst_minutes": _HARDWARE,
    "registry.egress_mbit_s": _REGISTRY,
    "registry.connection_mb_s": _REGISTRY,
    "registry.first_byte_ms": _REGISTRY,
    "registry.requests_per_minute": _REGISTRY,
    "registry.requests_burst": _REGISTRY,
    "registry.zone_link_mbit_s": _REGISTRY,
    "kubelet.serializeImagePulls": _KUBELET,
    "kubelet.maxParallelImagePulls": _KUBELET,
    "kubelet.registryPullQPS": _KUBELET,
    "kubelet.registryBurst": _KUBELET,
    "containerd.max_concurrent_downloads": _CONTAINERD,
    "containerd.max_concurrent_unpacks": _CONTAINERD,
    "containerd.concurrent_layer_fetch_buffer": _CONTAINERD,
    "containerd.image_pull_progress_timeout": _CONTAINERD,
}

# What comes from elsewhere than cluster.*: the Job's size, and who asks.
FURTHER: Mapping[str, str] = {"measured_node_count": "nodes", "tags": "sweep, cluster.azure"}

PLACEHOLDER = "example.azurecr.io"
_ACR = re.compile(r"([a-z0-9]{5,50})\.azurecr\.io")
_ACR_ID = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.ContainerRegistry/registries/"
    r"[^/]+"
)
_POOL_LABELS = ("kubernetes.azure.com/agentpool", "agentpool")  # AKS sets both itself
_DISK = re.compile(r"(?:(ephemeral)|managed(?:_(p[0-9]+))?)_([0-9]+)gib")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,35}")


@dataclass(frozen=True)
class Asked:
    """Who builds a cluster, under which name, and until when it may stay."""

    name: str  # of the folder with its state
    subscription: str
    owner: str
    identity: str  # tells this cluster from all others of the name
    expiry: datetime
    sweep: str = ""


def variables(job: Job, asked: Asked) -> dict[str, Any]:
    """terraform.tfvars.json for this Job; ConfigError for what cannot be built as described."""
    cluster, azure = job.cluster, job.cluster.azure
    check_buildable(job)
    pool, labels = _pool(cluster)
    disk = _disk(cluster.node)
    registry_name, registry_id = _registry(cluster)
    return {
        "subscription_id": asked.subscription,
        "location": cluster.region,
        "resource_group_name": azure.resource_group or f"imgpull-{_hyphens(asked.name)}",
        "cluster_name": _hyphens(asked.name),
        "kubernetes_version": cluster.kubernetes_version.removeprefix("v"),
        "sku_tier": azure.sku_tier,
        "os_sku": azure.os_sku,
        "system_vm_size": azure.system_vm_size,
        "system_node_count": azure.system_nodes,
        "prometheus_vm_size": azure.prometheus_vm_size,
        "prometheus_node_labels": dict(cluster.prometheus_node_selector),
        "measured_pool_name": pool,
        "measured_vm_size": cluster.node.vm_size,
        "measured_node_count": job.nodes,
        "measured_os_disk_type": disk.kind,
        "measured_os_disk_size_gb": disk.size_gib,
        "measured_max_pods": cluster.node.max_pods,
        "measured_zones": [str(zone + 1) for zone in range(cluster.zones)] * (cluster.zones > 1),
        "measured_node_labels": labels,
        "measured_node_taints": _taints(cluster),
        "image_gc_high_threshold": azure.image_gc_high_percent,
        "image_gc_low_threshold": azure.image_gc_low_percent,
        "registry_name": registry_name,
        "registry_id": registry_id,
        "registry_sku": cluster.registry.sku if registry_name else "Basic",
        "registry_anonymous_pull": azure.anonymous_pull and registry_name is not None,
        "registry_replica_locations": list(azure.replica_regions) if registry_name else [],
        "tags": tags(asked),
    }


def tags(asked: Asked) -> dict[str, str]:
    """What everything of a cluster carries."""
    return {
        MANAGED_BY: IMGPULL,
        ID: asked.identity,
        OWNER: asked.owner,
        SWEEP: asked.sweep or "none",
        EXPIRY: asked.expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def check_name(name: str) -> None:
    """ConfigError for a name that no folder and no cluster could have."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' is no name of a cluster",
            hint="--name with up to 36 letters, digits, '-' and '_'",
        )


def _hyphens(name: str) -> str:
    """A name as Azure takes it."""
    return name.lower().replace("_", "-").strip("-")


def _pool(cluster: schema.Cluster) -> tuple[str, dict[str, str]]:
    """The measured pool's name, and the labels that AKS does not set by itself."""
    named = {cluster.node_selector[key] for key in _POOL_LABELS if key in cluster.node_selector}
    if len(named) > 1:
        raise ConfigError(
            f"cluster.node_selector names two pools: {', '.join(sorted(named))}",
            hint=f"keep {_POOL_LABELS[0]} alone",
        )
    pool = next(iter(named), "measured")
    if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", pool) or pool in ("system", "prometheus"):
        raise ConfigError(
            f"cluster.node_selector: '{pool}' is no name for the measured pool",
            hint="up to 12 lower-case letters and digits, and not system or prometheus",
        )
    if cluster.node_prefix != f"aks-{pool}-":
        raise ConfigError(
            f"cluster.node_prefix={cluster.node_prefix}, but AKS would name the nodes of the pool "
            f"{pool} aks-{pool}-…",
            hint=f"cluster.node_prefix=aks-{pool}-",
        )
    labels = {k: v for k, v in cluster.node_selector.items() if k not in _POOL_LABELS}
    reserved = [key for key in labels if key.split("/")[0].endswith(("kubernetes.io", "azure.com"))
                and "/" in key]  # fmt: skip
    if reserved:
        raise ConfigError(
            f"cluster.node_selector: AKS lets nobody set the label {reserved[0]}",
            hint="choose a label of your own, or kubernetes.azure.com/agentpool alone",
        )
    return pool, labels


def _taints(cluster: schema.Cluster) -> list[str]:
    """What the test's pods tolerate is what keeps others away."""
    return [
        f"{each.key}={each.value or 'true'}:{each.effect}"
        for each in cluster.tolerations
        if each.key and each.effect
    ]


class _Disk(NamedTuple):
    kind: str
    size_gib: int


def _disk(node: schema.Node) -> _Disk:
    found = _DISK.fullmatch(node.os_disk)
    if found is None:
        raise ConfigError(
            f"cluster.node.os_disk={node.os_disk} does not say what to build",
            hint="for example ephemeral_150gib or managed_p10_128gib",
        )
    ephemeral, tier, size = found[1], found[2], int(found[3])
    if tier is not None and vm_sizes.premium_tier(size) != tier:
        raise ConfigError(
            f"cluster.node.os_disk={node.os_disk}: a premium SSD of {size} GiB is "
            f"{vm_sizes.premium_tier(size)}, not {tier}",
            hint=f"cluster.node.os_disk=managed_{vm_sizes.premium_tier(size)}_{size}gib",
        )
    known = vm_sizes.SIZES.get(node.vm_size)
    if ephemeral and known is not None and size > known.local_gib:
        raise ConfigError(
            f"cluster.node.os_disk={node.os_disk}, but {node.vm_size} has {known.local_gib} GiB of "
            "its own",
            hint="a smaller one, or managed_p10_128gib",
        )
    return _Disk("Ephemeral" if ephemeral else "Managed", size)


def _registry(cluster: schema.Cluster) -> tuple[str | None, str | None]:
    """Name of a registry to make, or id of one to use; neither with the placeholder."""
    wanted, server = cluster.azure.registry, cluster.registry.server
    if wanted == "none":
        return None, None
    if wanted != "create":
        if not _ACR_ID.fullmatch(wanted):
            raise ConfigError(
                f"cluster.azure.registry={wanted} is neither create, none nor a registry's id",
                hint="az acr show --name NAME --query id --output tsv",
            )
        return None, wanted
    found = _ACR.fullmatch(server)
    if found is None or server == PLACEHOLDER:
        return None, None
    check_new_registry(cluster)
    return found[1], None


@dataclass(frozen=True)
class Machines:
    """So many machines of one size."""

    what: str
    vm_size: str
    count: int


def machines(values: Variables) -> list[Machines]:
    """What a cluster consists of, by its variables."""
    return [
        Machines("measured", values["measured_vm_size"], values["measured_node_count"]),
        Machines("system", values["system_vm_size"], values["system_node_count"]),
        Machines("Prometheus", values["prometheus_vm_size"], 1),
    ]


def machines_of(job: Job) -> list[Machines]:
    """What a cluster as this Job describes it would consist of."""
    azure = job.cluster.azure
    return [
        Machines("measured", job.cluster.node.vm_size, job.nodes),
        Machines("system", azure.system_vm_size, azure.system_nodes),
        Machines("Prometheus", azure.prometheus_vm_size, 1),
    ]


def missing_registry(cluster: schema.Cluster) -> bool:
    """Whether no registry is made only because its name is the placeholder."""
    return cluster.azure.registry == "create" and cluster.registry.server == PLACEHOLDER
