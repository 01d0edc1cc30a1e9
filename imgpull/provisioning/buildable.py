"""What AKS builds as described, and what it would build otherwise: that is refused beforehand.

Hides AKS's own limits and settings that nobody can change.
"""

import json
from dataclasses import asdict

from imgpull import exporters, units
from imgpull.cluster import vm_sizes
from imgpull.config import schema
from imgpull.config.job import Job, prometheus_gib
from imgpull.errors import ConfigError

_FREE_NODES = 1000  # AKS docs, Pricing tiers
_SYSTEM_VCPUS = 4  # the least of a system pool's machine (AKS docs, Use system node pools)
_USABLE_SHARE = 0.75  # of a machine's memory, after what AKS reserves (AKS docs, Node resources)


def check_buildable(job: Job) -> None:
    """ConfigError for a cluster that terraform/ would not build as it is described."""
    cluster, azure = job.cluster, job.cluster.azure
    if cluster.provider != "aks":
        raise ConfigError(
            f"cluster.provider={cluster.provider}: terraform/ builds AKS only",
            hint="choose one of conf/cluster/aks_*.yaml, or use the cluster that you have",
        )
    _check_defaults(cluster)
    _check_sizes(job)
    if not cluster.prometheus_node_selector:
        raise ConfigError(
            "cluster.prometheus_node_selector is empty: Prometheus would run on a measured node",
            hint="""'++cluster.prometheus_node_selector={prometheus: "true"}'""",
        )
    for key, choices in (
        ("os_sku", ("AzureLinux", "AzureLinux3", "Ubuntu", "Ubuntu2204", "Ubuntu2404")),
        ("sku_tier", ("Free", "Standard", "Premium")),
    ):
        if getattr(azure, key) not in choices:
            raise ConfigError(
                f"cluster.azure.{key}={getattr(azure, key)} is unknown",
                hint=f"choose one of: {', '.join(choices)}",
            )


def _check_defaults(cluster: schema.Cluster) -> None:
    """A cluster with another setting than AKS's own cannot be built: its cells would be others'."""
    # AKS docs, Improve image pulls: parallel from 1.31 on.
    serial = exporters.version_tuple(cluster.kubernetes_version)[:2] < (1, 31)
    for group, built in (
        ("kubelet", asdict(schema.Kubelet(serializeImagePulls=serial))),
        ("containerd", asdict(schema.Containerd())),
    ):
        for key, value in built.items():
            wanted = getattr(getattr(cluster, group), key)
            if wanted != value:
                raise ConfigError(
                    f"cluster.{group}.{key}={_yaml(wanted)}, but AKS gives no way to set it: "
                    f"every pool has {_yaml(value)}",
                    hint=f"cluster.{group}.{key}={_yaml(value)}, or engine=sim",
                )


def _check_sizes(job: Job) -> None:
    cluster, azure = job.cluster, job.cluster.azure
    nodes = job.nodes + azure.system_nodes + 1
    if azure.sku_tier == "Free" and nodes > _FREE_NODES:
        raise ConfigError(
            f"nodes={job.nodes} makes {nodes} nodes in all; AKS's Free tier ends at {_FREE_NODES}",
            hint="cluster.azure.sku_tier=Standard, which costs by the hour",
        )
    system = vm_sizes.SIZES.get(azure.system_vm_size)
    if system is not None and system.vcpus < _SYSTEM_VCPUS:
        raise ConfigError(
            f"cluster.azure.system_vm_size={azure.system_vm_size} has {system.vcpus} vCPU; AKS "
            f"asks for {_SYSTEM_VCPUS} or more",
            hint=f"cluster.azure.system_vm_size={schema.Azure.system_vm_size}",
        )
    needed_gib = prometheus_gib(cluster.prometheus_memory_gib, job.nodes)
    size = vm_sizes.SIZES.get(azure.prometheus_vm_size)
    if size is not None and needed_gib > _USABLE_SHARE * size.memory_gib:
        raise ConfigError(
            f"cluster.azure.prometheus_vm_size={azure.prometheus_vm_size} has {size.memory_gib:g} "
            f"GiB, and Prometheus asks for {needed_gib} GiB at nodes={job.nodes}",
            hint=f"cluster.azure.prometheus_vm_size={_larger(needed_gib)}",
        )


def _larger(needed_gib: float) -> str:
    """The smallest machine of our table with that much memory to give."""
    fitting = (
        (size.memory_gib, size.vcpus, name)
        for name, size in vm_sizes.SIZES.items()
        if name.startswith(("Standard_D", "Standard_E"))
        and size.memory_gib * _USABLE_SHARE >= needed_gib
        and size.vcpus >= _SYSTEM_VCPUS
    )
    return min(fitting, default=(0, 0, "a larger one"))[2]


def _yaml(value: object) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def check_new_registry(cluster: schema.Cluster) -> None:
    """ConfigError for a registry that Azure would not make."""
    sku, azure = cluster.registry.sku, cluster.azure
    if sku not in ("Basic", "Standard", "Premium"):
        raise ConfigError(
            f"cluster.registry.sku={sku}: which tier shall the registry have?",
            hint="cluster.registry.sku=Premium, or cluster.azure.registry=none",
        )
    if azure.anonymous_pull and sku == "Basic":
        raise ConfigError(
            "cluster.azure.anonymous_pull=true needs more than a Basic registry",
            hint="cluster.registry.sku=Standard",
        )
    if azure.replica_regions and (sku != "Premium" or cluster.region in azure.replica_regions):
        raise ConfigError(
            f"cluster.azure.replica_regions needs a Premium registry (this one: {sku}) and regions "
            f"other than its own ({cluster.region})",
            hint="cluster.registry.sku=Premium, or cluster.azure.replica_regions=[]",
        )


def lifetime_s(cluster: schema.Cluster) -> float:
    """How long a cluster may stay; ConfigError when that is no duration."""
    text = cluster.azure.lifetime
    try:
        seconds = units.parse_duration(text)
    except ValueError as error:
        raise ConfigError(
            f"cluster.azure.lifetime: {error}", hint="cluster.azure.lifetime=8h"
        ) from error
    if seconds < 600:
        raise ConfigError(
            f"cluster.azure.lifetime={text} ends before a cluster is ready",
            hint="cluster.azure.lifetime=8h",
        )
    return seconds
