"""A live cluster described as conf/cluster/NAME.yaml, every figure with where it came from.

Hides how a pool of nodes is recognised and how YAML is written. What the API does not tell is from
the table of VM sizes, or said to be an ASSUMPTION, or null: unknown.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, TypeVar

from imgpull import __version__, units
from imgpull.cluster import fingerprint, vm_sizes
from imgpull.cluster.everywhere import some
from imgpull.cluster.fingerprint import CLOUDS, NOT_A_CLOUDS, Seen
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import NodeFacts, Taint, node_facts, obstacles
from imgpull.config import schema
from imgpull.errors import ConfigError

T = TypeVar("T")

# conf/cluster/*.yaml have the same.
HELPER_IMAGE = "mcr.microsoft.com/azurelinux/busybox:1.36"
_POOL_LABELS = (
    "kubernetes.azure.com/agentpool", "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool", "agentpool",
)  # fmt: skip
_MODE = "kubernetes.azure.com/mode"  # AKS: user or system
_PROMETHEUS = {"prometheus": "true"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(?::[0-9][A-Za-z0-9_.-]*)?")
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True)
class _Pool:
    """The nodes described, and how they are told from others."""

    selector: Mapping[str, str]
    why: str
    nodes: Sequence[NodeFacts]


def describe(
    kube: Kube,
    name: str = "mine",
    selector: Mapping[str, str] | None = None,
    *,
    registry: str | None = None,
) -> str:
    """The text of conf/cluster/NAME.yaml for the nodes that carry the selector's labels.

    Without a selector the largest pool is meant. ConfigError when there are no such nodes, or when
    they do not run containerd.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name of a file in conf/cluster", hint="--name mine")
    nodes = node_facts(kube)
    pool = _guessed(nodes) if selector is None else _given(nodes, selector)
    others = [node.runtime for node in pool.nodes if not node.containerd_version]
    if others:
        raise ConfigError(
            f"the nodes run {others[0] or 'no known runtime'}, and imgpull measures containerd",
            hint="choose nodes that run it: --selector KEY=VALUE",
        )
    seen = fingerprint.look(kube, pool.nodes)
    lines = _Description(name, kube.context, pool, nodes, seen, registry).lines()
    return "\n".join(lines) + "\n"


def _given(nodes: Sequence[NodeFacts], selector: Mapping[str, str]) -> _Pool:
    found = [node for node in nodes if node.matches(selector)]
    if not found:
        told = ",".join(f"{key}={value}" for key, value in selector.items())
        raise ConfigError(
            f"none of the cluster's {len(nodes)} nodes carries {told}",
            hint="kubectl get nodes --show-labels",
        )
    return _Pool(selector, "as asked for", found)


def _guessed(nodes: Sequence[NodeFacts]) -> _Pool:
    """The largest pool of user nodes, or, where no label tells pools, the nodes without taints."""
    free = [node for node in nodes if not node.matches(_PROMETHEUS)]
    for label in _POOL_LABELS:
        pools: dict[str, list[NodeFacts]] = {}
        for node in free:
            if label in node.labels:
                pools.setdefault(node.labels[label], []).append(node)
        # A pool for users before one for the system, then the largest, then by name.
        ordered = sorted(
            pools.items(),
            key=lambda pool: (pool[1][0].labels.get(_MODE) == "system", -len(pool[1]), pool[0]),
        )
        if ordered:
            name, found = ordered[0]
            why = f"the largest of {len(pools)} pools" if len(pools) > 1 else "the only pool"
            return _Pool({label: name}, f"{why}; others: --selector KEY=VALUE", found)
    found = [node for node in free if not obstacles(node, ())] or free
    if not found:
        raise ConfigError("the cluster has no nodes to describe", hint="kubectl get nodes")
    return _Pool({}, "every node without a taint: no label tells pools apart", found)


@dataclass(frozen=True)
class _Description:
    """What is to be said of the cluster, line by line."""

    name: str
    context: str
    pool: _Pool
    others: Sequence[NodeFacts]
    seen: Seen
    registry: str | None

    def lines(self) -> Iterator[str]:
        """The file."""
        nodes, server = self.pool.nodes, self.seen.server_version
        provider = _provider(nodes)
        yield (
            f"# {len(nodes)} nodes of the live cluster {self.context}, described by imgpull "
            f"{__version__}. Figures without another source are the API's."
        )
        yield from (f"# NOTE: {text}." for text in fingerprint.unlike(nodes))
        yield f"name: {_text(self.name)}"
        yield f"provider: {provider} # by the nodes' providerID"
        yield self._most("region", _region, _text)
        yield f'kubernetes_version: "{".".join(server.split(".")[:2])}" # {server}'
        yield self._most("containerd_version", lambda node: node.containerd_version, json.dumps)
        yield f"node_prefix: {_text(_prefix([x.name for x in nodes]))}{self._prefix_note()}"
        yield f"node_selector: {_flow(self.pool.selector)} # {self.pool.why}"
        yield f"tolerations: [{', '.join(_toleration(x) for x in self._taints())}]"
        yield from self._prometheus()
        yield f"helper_image: {HELPER_IMAGE} # needs sh and chroot; mirror it where nodes need that"
        yield f"zones: {max(1, len(fingerprint.zones_of(nodes)))}"
        yield from self._node()
        yield from _registry(self.registry, provider)
        yield from self._kubelet(provider)
        yield from _CONTAINERD
        yield from _azure(self.pool.nodes[0])

    def _prefix_note(self) -> str:
        names = [node.name for node in self.pool.nodes]
        prefix = _prefix(names)
        if all(name.startswith(prefix) for name in names):
            return ""
        return " # NOTE: names of nodes have no common start: allow=[cluster.node_prefix]"

    def _taints(self) -> list[Taint]:
        """The pool's own: those of all its nodes that would keep pods out."""
        shared = set.intersection(*(set(node.taints) for node in self.pool.nodes))
        keep_out = [taint for taint in shared if f"taint {taint} not tolerated" in obstacles(
            self.pool.nodes[0], ())]  # fmt: skip
        return sorted(keep_out)

    def _prometheus(self) -> Iterator[str]:
        names = {node.name for node in self.pool.nodes}
        spare = [node for node in self.others if node.name not in names]
        systems = [node for node in spare if node.labels.get(_MODE) == "system"]
        if any(node.matches(_PROMETHEUS) for node in spare):
            yield 'prometheus_node_selector: {prometheus: "true"} # nodes that carry it are there'
        elif systems:
            selector = _flow({_MODE: "system"})
            yield f"prometheus_node_selector: {selector} # ASSUMPTION: AKS's system pool has room"
        else:
            yield (
                "prometheus_node_selector: {} # NOTE: it may run on a measured node; better: "
                'kubectl label node NAME prometheus=true, and {prometheus: "true"} here'
            )
        yield "prometheus_storage_class: null # its data stays in its pod"
        yield "prometheus_memory_gib: 10 # for each begun thousand nodes; ClusterLoader2's own"

    def _node(self) -> Iterator[str]:
        vm_size, _ = _most_common(node.vm_size or NOT_A_CLOUDS for node in self.pool.nodes)
        alike = [node for node in self.pool.nodes if (node.vm_size or NOT_A_CLOUDS) == vm_size]
        node, size = alike[0], vm_sizes.SIZES.get(vm_size)
        disk = vm_sizes.os_disk(vm_size, node.ephemeral_bytes)
        unknown = "unknown, so no rate is judged by it; engine=sim needs it"
        seen_gib = node.memory_bytes / units.GIB
        yield "node:"
        yield self._most("  vm_size", lambda node: node.vm_size or NOT_A_CLOUDS, _text)
        yield f"  vcpus: {node.vcpus:g}"
        if size and vm_sizes.memory_fits(size, node.memory_bytes):
            yield f"  memory_gib: {size.memory_gib:g} # {size.source}; {seen_gib:.1f} is seen"
        else:
            yield f"  memory_gib: {seen_gib:.1f} # what the kernel sees of it"
        if size:
            yield f"  nic_mbit_s: {size.nic_mbit_s:g} # {size.source}; a maximum"
        else:
            yield f"  nic_mbit_s: null # {unknown}"
        disk_gib = node.ephemeral_bytes / units.GIB
        yield f"  os_disk: {disk.name} # a file system of {disk_gib:.0f} GiB"
        if disk.write_mb_s is None:
            yield f"  disk_write_mb_s: null # {disk.why}; engine=sim needs it"
            yield "  disk_burst_mb_s: null"
        else:
            burst = "null" if disk.burst_mb_s is None else f"{disk.burst_mb_s:g}"
            yield f"  disk_write_mb_s: {disk.write_mb_s:g} # {disk.why}"
            yield f"  disk_burst_mb_s: {burst}"
        yield "  disk_burst_minutes: 30 # Azure docs, Managed disk bursting"
        yield f"  max_pods: {node.max_pods}"

    def _kubelet(self, provider: str) -> Iterator[str]:
        """Settings as kubelets tell them, else kubelet's defaults (AKS: parallel from 1.31 on)."""
        defaults: dict[str, Any] = {
            "serializeImagePulls": provider != "aks", "maxParallelImagePulls": None,
            "registryPullQPS": 5, "registryBurst": 10,
        }  # fmt: skip
        told = list(self.seen.kubelet.values())
        yield (
            "kubelet:" if told else "kubelet: # ASSUMPTION: the defaults; /configz does not answer"
        )
        for key, default in defaults.items():
            if told:
                value, note = _most_common(json.dumps(each.get(key)) for each in told)
                yield f"  {key}: {value}{note}"
            else:
                yield f"  {key}: {json.dumps(default)}"

    def _most(self, key: str, of: Callable[[NodeFacts], str], write: Callable[[str], str]) -> str:
        value, note = _most_common(of(node) for node in self.pool.nodes)
        return f"{key}: {write(value)}{note}"


def _registry(server: str | None, provider: str) -> Iterator[str]:
    example = "example.azurecr.io" if provider == "aks" else "registry.example.com"
    yield "registry: # but for its name and tier only the simulator asks: ASSUMPTIONS throughout"
    if server:
        yield f"  server: {_text(server)} # as asked for"
    else:
        yield f"  server: {example} # yours: cluster.registry.server=NAME"
    yield "  sku: unknown # of ACR: Basic, Standard or Premium; not visible from the cluster"
    yield "  egress_mbit_s: 50000 # ASSUMPTION: one storage account's default egress (Azure docs)"
    yield "  connection_mb_s: 100 # ASSUMPTION 50-200"
    yield "  first_byte_ms: 40 # ASSUMPTION 20-60 in region"
    yield "  requests_per_minute: null # ASSUMPTION: no limit"
    yield "  requests_burst: 1000 # says nothing without a limit"
    yield "  zone_link_mbit_s: null # ASSUMPTION: no limit"


_CONTAINERD = (
    "containerd: # ASSUMPTION: its defaults; the API does not show them",
    "  max_concurrent_downloads: 3",
    "  max_concurrent_unpacks: 1",
    "  concurrent_layer_fetch_buffer: 0",
    "  image_pull_progress_timeout: 5m",
)


def _azure(node: NodeFacts) -> Iterator[str]:
    """What `imgpull cluster up` would build a cluster like this one with."""
    plain = asdict(schema.Azure(os_sku=_os_sku(node.os_image)))
    yield "azure: # what imgpull cluster up makes around these nodes; nothing else asks"
    for key, value in plain.items():
        yield f"  {key}: {json.dumps(value)}"


def _os_sku(os_image: str) -> str:
    """AKS's name of a node's OS ("Ubuntu 22.04.5 LTS"); its default for what is not known."""
    for start, name in _OS_SKUS.items():
        if os_image.startswith(start):
            return name
    return schema.Azure.os_sku


_OS_SKUS = {
    "Ubuntu 22.04": "Ubuntu2204",
    "Ubuntu 24.04": "Ubuntu2404",
    "Microsoft Azure Linux 3": "AzureLinux3",
    "Microsoft Azure Linux": "AzureLinux",
    "CBL-Mariner": "AzureLinux",
}


def _provider(nodes: Sequence[NodeFacts]) -> str:
    found, _ = _most_common(fingerprint.cloud(node) for node in nodes)
    return CLOUDS.get(found, ("local",))[0]


def _region(node: NodeFacts) -> str:
    return node.region or NOT_A_CLOUDS


def _most_common(values: Iterable[T]) -> tuple[T, str]:
    """The value of most, and a note when there are others."""
    counts = Counter(values).most_common()
    value = counts[0][0]
    others = some([f"{other} on {count}" for other, count in counts[1:]])
    return value, f" # NOTE: not on all: {others}" if others else ""


def _prefix(names: Sequence[str]) -> str:
    """What the names begin with, to the last separator in it; the first name's if nothing."""
    first, last = min(names), max(names)
    same = (a == b for a, b in zip(first, last, strict=False))
    shared = "".join(letter for letter, _ in zip(first, takewhile(bool, same), strict=False))
    # aks-pool-12345678-vmss000003: what follows the pool's name changes when it is made anew
    aks = re.match(r"aks-[a-z0-9]+-", shared)
    if aks:
        return aks[0]
    cut = re.match(r".*[-.]|[a-z-]+", shared)
    return cut[0] if cut else shared or names[0]


def _toleration(taint: Taint) -> str:
    value = {"operator": "Equal", "value": taint.value} if taint.value else {"operator": "Exists"}
    return _flow({"key": taint.key, **value, "effect": taint.effect})


def _flow(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_text(key)}: {_text(value)}" for key, value in values.items()) + "}"


def _text(value: str) -> str:
    """A string as YAML: in quotes where it could be read as something else."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS
    return value if is_plain else json.dumps(value)
