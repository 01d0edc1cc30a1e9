"""Is the real cluster the one that conf/cluster describes? Each field that is not, by its name.

Hides where a field can be seen, and how closely it must fit. What the API does not show (rates of
disk and NIC, containerd's settings, whether an OS disk is a managed one) is unknown, never wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from imgpull import exporters, units
from imgpull.cluster import kubelets
from imgpull.cluster.everywhere import some
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.nodes import NodeFacts
from imgpull.cluster.vm_sizes import size_fits
from imgpull.config import schema
from imgpull.errors import ConfigError

Value = TypeVar("Value")

# Of a machine's memory the kernel sees less: 0.97 of 8 GiB and 0.98 of 16 GiB on AKS nodes.
_MEMORY_SHARES = (0.92, 1.01)
# ClusterLoader2's providers by the cloud that a node's providerID names; `local` fits everywhere.
CLOUDS = {
    "azure": ("aks",),
    "aws": ("eks", "aws"),
    "gce": ("gke", "gce", "autopilot"),
    "kind": ("kind",),
}
NOT_A_CLOUDS = "unknown"  # a vm_size, region or disk that nobody sells


@dataclass(frozen=True)
class Mismatch:
    """A field of conf/, by its key, that the cluster does not fit."""

    field: str
    described: str
    found: str

    def __str__(self) -> str:
        return f"{self.field} is {self.described}, found {self.found}"


@dataclass(frozen=True)
class Seen:
    """What the API shows of a cluster and its measured nodes."""

    server_version: str  # 1.34.1
    nodes: tuple[NodeFacts, ...]
    kubelet: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # configz by node

    def record(self) -> dict[str, Any]:
        """Plain data for job.json; where nodes differ, every value."""
        nodes = self.nodes
        return {
            "nodes": len(nodes),
            "kubernetes": self.server_version,
            "kubelet": _all_of(node.kubelet_version for node in nodes),
            "runtime": _all_of(node.runtime for node in nodes),
            "vm_size": _all_of(node.vm_size for node in nodes),
            "region": _all_of(node.region for node in nodes),
            "zone": _all_of(node.zone for node in nodes),
            "os_image": _all_of(node.os_image for node in nodes),
            "node_image": _all_of(node.labels.get(_NODE_IMAGE, "") for node in nodes),
            "kernel": _all_of(node.kernel for node in nodes),
            "architecture": _all_of(node.architecture for node in nodes),
            "provider": _all_of(cloud(node) for node in nodes),
            "vcpus": _all_of(node.vcpus for node in nodes),
            "memory_gib": _all_of(round(node.memory_bytes / units.GIB, 1) for node in nodes),
            "disk_gib": _all_of(round(node.ephemeral_bytes / units.GIB, 1) for node in nodes),
            "max_pods": _all_of(node.max_pods for node in nodes),
            "kubelet_settings": {
                key: _all_of(told.get(key) for told in self.kubelet.values())
                for key in (*kubelets.PULL_SETTINGS, *_RECORDED_SETTINGS)
            },
        }


_NODE_IMAGE = "kubernetes.azure.com/node-image-version"
_RECORDED_SETTINGS = (
    "imageGCHighThresholdPercent", "imageGCLowThresholdPercent", "eventRecordQPS",
)  # fmt: skip


# What nodes should share, though conf/ does not describe it, or not so closely.
_TOLD_APART: Mapping[str, Callable[[NodeFacts], str]] = {
    "kubelet": lambda node: node.kubelet_version,
    "container runtime": lambda node: node.runtime,
    "node image": lambda node: node.labels.get(_NODE_IMAGE, ""),
    "operating system": lambda node: node.os_image,
    "kernel": lambda node: node.kernel,
    "architecture": lambda node: node.architecture,
}


def look(kube: Kube, nodes: Sequence[NodeFacts]) -> Seen:
    """All that the API shows of these nodes; kubelets that do not answer are left out."""
    told = kubelets.settings(kube, (node.name for node in nodes))
    known = {name: each for name, each in told.items() if not isinstance(each, ApiError)}
    return Seen(server_version(kube), tuple(nodes), known)


def server_version(kube: Kube) -> str:
    """The API server's version: 1.34.1."""
    return str(kube.get("/version").get("gitVersion", "")).removeprefix("v")


def observed(kube: Kube, nodes: Sequence[NodeFacts]) -> dict[str, Any]:
    """What the API shows of these nodes, as plain data for job.json."""
    return look(kube, nodes).record()


def mismatches(cluster: schema.Cluster, seen: Seen) -> list[Mismatch]:
    """Every field of the description that the cluster, or one of its nodes, does not fit."""
    return [*_of_versions(cluster, seen), *_of_nodes(cluster, seen), *_of_kubelets(cluster, seen)]


def unlike(nodes: Sequence[NodeFacts]) -> list[str]:
    """How nodes differ in what conf/ does not describe, or not so closely; a sentence each."""
    found = []
    for what, of in _TOLD_APART.items():
        values = {node.name: of(node) for node in nodes}
        if len(set(values.values())) > 1:
            found.append(f"their {what} differs: {_tally(values)}")
    return found


def accept(
    found: Iterable[Mismatch], allow: Sequence[str]
) -> tuple[list[Mismatch], list[Mismatch]]:
    """The mismatches refused, and those that `allow` names or names a group of.

    ConfigError for a name in `allow` that no field has.
    """
    known = _names(schema.Cluster, "cluster") | _names(schema.Image, "image")
    for name in allow:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4) or ["cluster"]
            raise ConfigError(
                f"allow: '{name}' is no key of the cluster or image",
                hint=f"did you mean allow=[{near[0]}]?",
            )
    refused: list[Mismatch] = []
    allowed: list[Mismatch] = []
    for each in found:
        (allowed if is_allowed(each.field, allow) else refused).append(each)
    return refused, allowed


def is_allowed(key: str, allow: Sequence[str]) -> bool:
    """Whether `allow` names a key, or a group that it is in."""
    return any(f"{key}.".startswith(f"{name}.") for name in allow)


def cloud(node: NodeFacts) -> str:
    """Who runs the machine: azure, aws, gce, kind, …; empty when it does not say."""
    kind, separator, _ = node.provider_id.partition("://")
    return kind if separator else ""


def zones_of(nodes: Iterable[NodeFacts]) -> set[str]:
    """The availability zones that nodes are in.

    Where a machine is in none, Azure's label is its fault domain, a mere number
    (cloud-provider-azure pkg/provider/azure_zones.go).
    """
    return {node.zone for node in nodes if node.zone and not node.zone.isdigit()}


def _of_versions(cluster: schema.Cluster, seen: Seen) -> Iterator[Mismatch]:
    described = cluster.kubernetes_version
    versions = {"the API server": seen.server_version}
    versions |= {node.name: node.kubelet_version for node in seen.nodes}
    wrong = {who: x for who, x in versions.items() if x and _minor(x) != _minor(described)}
    if wrong:
        yield Mismatch("cluster.kubernetes_version", described, _tally(wrong))
    yield from _compare(
        seen.nodes,
        "cluster.containerd_version",
        cluster.containerd_version,
        lambda node: node.containerd_version or node.runtime or None,
        lambda value: _generation(value) == _generation(cluster.containerd_version),
        _generation,
    )


def _minor(version: str) -> tuple[int, ...]:
    return exporters.version_tuple(version)[:2]


def _generation(version: str) -> tuple[object, ...]:
    """What two containerd versions must share: the minor version, and the names of its metrics."""
    return (
        _minor(version),
        exporters.image_metric_prefix(version),
        exporters.network_plugin_metric(version),
    )


def _of_nodes(cluster: schema.Cluster, seen: Seen) -> Iterator[Mismatch]:
    nodes, node = seen.nodes, cluster.node
    yield from _compare(
        nodes, "cluster.node.vm_size", node.vm_size, lambda x: x.vm_size or None,
        lambda value: node.vm_size in (value, NOT_A_CLOUDS),
    )  # fmt: skip
    yield from _compare(
        nodes, "cluster.node.vcpus", f"{node.vcpus}", lambda x: x.vcpus or None,
        lambda value: value == node.vcpus, show=lambda value: f"{value:g}",
    )  # fmt: skip
    yield from _compare(
        nodes, "cluster.node.memory_gib", f"{node.memory_gib:g}",
        lambda x: x.memory_bytes / units.GIB or None,
        lambda value: _MEMORY_SHARES[0] <= value / node.memory_gib <= _MEMORY_SHARES[1],
        round, lambda value: f"{value:.1f}",
    )  # fmt: skip
    yield from _compare(
        nodes, "cluster.node.max_pods", f"{node.max_pods}", lambda x: x.max_pods or None,
        lambda value: value == node.max_pods,
    )  # fmt: skip
    yield from _compare(
        nodes, "cluster.node.os_disk", node.os_disk, lambda x: x.ephemeral_bytes or None,
        lambda value: size_fits(node.os_disk, value), lambda value: round(value / units.GIB / 4),
        lambda value: f"a file system of {value / units.GIB:.0f} GiB",
    )  # fmt: skip
    yield from _of_places(cluster, seen)


def _of_places(cluster: schema.Cluster, seen: Seen) -> Iterator[Mismatch]:
    nodes = seen.nodes
    yield from _compare(
        nodes, "cluster.region", cluster.region, lambda x: x.region or None,
        lambda value: cluster.region in (value, NOT_A_CLOUDS),
    )  # fmt: skip
    zones = zones_of(nodes)
    if any(node.zone for node in nodes):
        most = min(cluster.zones, len(nodes))
        if max(1, len(zones)) != most:
            told = ", ".join(sorted(zones)) or "none"
            yield Mismatch("cluster.zones", f"{cluster.zones}", f"{max(1, len(zones))} ({told})")
    yield from _compare(
        nodes, "cluster.provider", cluster.provider, lambda x: cloud(x) or None,
        lambda value: _is_of_cloud(cluster.provider, value),
    )  # fmt: skip
    strange = [node.name for node in nodes if not node.name.startswith(cluster.node_prefix)]
    if strange:
        yield Mismatch("cluster.node_prefix", cluster.node_prefix, some(strange))


def _is_of_cloud(provider: str, found: str) -> bool:
    known = [name for name, providers in CLOUDS.items() if provider in providers]
    return not known or found not in CLOUDS or found in known


def _of_kubelets(cluster: schema.Cluster, seen: Seen) -> Iterator[Mismatch]:
    for key in kubelets.PULL_SETTINGS:
        described = getattr(cluster.kubelet, key)
        values = {name: kubelets.shown(told.get(key)) for name, told in seen.kubelet.items()}
        if key == "maxParallelImagePulls":  # one at a time is one at a time, however it is said
            values = {
                name: value
                for name, value in values.items()
                if not (cluster.kubelet.serializeImagePulls and value in ("1", "null"))
            }
        if any(not _same_setting(value, described) for value in values.values()):
            yield Mismatch(f"cluster.kubelet.{key}", kubelets.shown(described), _tally(values))


def _same_setting(found: str, described: Any) -> bool:
    return found == kubelets.shown(described)


def _compare(
    nodes: Sequence[NodeFacts],
    key: str,
    described: str,
    of: Callable[[NodeFacts], Value | None],
    fits: Callable[[Value], bool],
    like: Callable[[Value], object] = lambda value: value,
    show: Callable[[Value], str] = str,
) -> Iterator[Mismatch]:
    """A mismatch where a node does not fit, or where nodes are not like one another."""
    values = {node.name: value for node in nodes if (value := of(node)) is not None}
    alike = len({like(value) for value in values.values()}) <= 1
    if not alike or not all(map(fits, values.values())):
        yield Mismatch(key, described, _tally({name: show(x) for name, x in values.items()}))


def _tally(values: Mapping[str, str]) -> str:
    """The value of all; else each value and who has it, the rarest last."""
    holders: dict[str, list[str]] = {}
    for name, value in values.items():
        holders.setdefault(value or "nothing", []).append(name)
    if len(holders) == 1:
        return next(iter(holders))
    ordered = sorted(holders.items(), key=lambda each: -len(each[1]))
    return "; ".join(f"{value} on {some(names)}" for value, names in ordered)


def _all_of(values: Iterable[Any]) -> Any:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found[0] if len(found) == 1 else sorted(found, key=str) or None


def _names(kind: Any, path: str) -> set[str]:
    """A group's key and those below it."""
    found = {path}
    for item in fields(kind):
        below = f"{path}.{item.name}"
        found |= _names(item.type, below) if is_dataclass(item.type) else {below}
    return found
