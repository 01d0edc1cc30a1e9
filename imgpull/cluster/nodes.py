"""The nodes of a real cluster: what they say of themselves, and which of them a trial measures.

Hides the form of Node objects and how a choice is marked. Exactly as many nodes as a trial asks for
carry our label, which the test's pods select, so that cluster size is swept without provisioning.
The cluster's lease is held meanwhile: a label of another sweep is one that a dead one left.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from imgpull import units
from imgpull.cluster.everywhere import everywhere, first_error, some
from imgpull.cluster.kube import Kube, Object
from imgpull.cluster.ownership import MEASURED_BY, MEASURED_SELECTOR, Owner
from imgpull.config import schema
from imgpull.config.job import MEASURED_LABEL
from imgpull.errors import ConfigError, EngineFailed

NODES = "/api/v1/nodes"
_SHUT_OUT = ("NoSchedule", "NoExecute")  # a PreferNoSchedule taint keeps nobody out
# kubelet and the node controller set these; what they tell is told by NotReady and cordoned.
_OF_STATE = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")


class Taint(NamedTuple):
    """A taint of a node, written as kubectl does."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}{f'={self.value}' if self.value else ''}:{self.effect}"


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself. Text it does not say is empty; sizes are its whole capacity."""

    name: str
    address: str
    vm_size: str
    region: str
    zone: str
    provider_id: str
    kubelet_version: str  # 1.34.1
    runtime: str  # as told: containerd://1.7.24
    os_image: str
    kernel: str
    architecture: str
    vcpus: float
    memory_bytes: int
    allocatable_memory_bytes: int
    ephemeral_bytes: int
    max_pods: int
    ready: bool
    ready_since: str  # when it became Ready, or stopped being it
    schedulable: bool
    boot_id: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    taints: tuple[Taint, ...]
    images: frozenset[str]  # names of the largest images it holds, as kubelet last told

    @property
    def containerd_version(self) -> str:
        """1.7.24; empty where another runtime runs containers."""
        kind, _, version = self.runtime.partition("://")
        # 2.1.9+unknown, as Debian builds it
        return version.partition("+")[0].removeprefix("v") if kind == "containerd" else ""

    def matches(self, selector: Mapping[str, str]) -> bool:
        """Whether it carries all these labels."""
        return all(self.labels.get(key) == value for key, value in selector.items())


def facts_of(node: Object) -> NodeFacts:
    """The facts of a Node object of the API."""
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    info: Mapping[str, str] = status.get("nodeInfo") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    capacity: Mapping[str, str] = status.get("capacity") or {}
    allocatable: Mapping[str, str] = status.get("allocatable") or {}
    addresses = {each["type"]: each["address"] for each in status.get("addresses") or ()}
    conditions: Mapping[str, Mapping[str, str]] = {
        each["type"]: each for each in status.get("conditions") or ()
    }
    ready = conditions.get("Ready", {})
    return NodeFacts(
        name=meta["name"],
        address=addresses.get("InternalIP", ""),
        vm_size=labels.get("node.kubernetes.io/instance-type", ""),
        region=labels.get("topology.kubernetes.io/region", ""),
        zone=labels.get("topology.kubernetes.io/zone", ""),
        provider_id=spec.get("providerID", ""),
        kubelet_version=info.get("kubeletVersion", "").removeprefix("v"),
        runtime=info.get("containerRuntimeVersion", ""),
        os_image=info.get("osImage", ""),
        kernel=info.get("kernelVersion", ""),
        architecture=info.get("architecture", ""),
        vcpus=_cpus(capacity.get("cpu", "0")),
        memory_bytes=units.parse_size(capacity.get("memory", "0")),
        allocatable_memory_bytes=units.parse_size(allocatable.get("memory", "0")),
        ephemeral_bytes=units.parse_size(capacity.get("ephemeral-storage", "0")),
        max_pods=int(capacity.get("pods", "0")),
        ready=ready.get("status") == "True",
        ready_since=ready.get("lastTransitionTime", ""),
        schedulable=not spec.get("unschedulable", False),
        boot_id=info.get("bootID", ""),
        uid=meta.get("uid", ""),
        labels=labels,
        annotations=meta.get("annotations") or {},
        taints=tuple(
            Taint(x["key"], x.get("value", ""), x["effect"]) for x in spec.get("taints") or ()
        ),
        images=frozenset(
            name for image in status.get("images") or () for name in image.get("names") or ()
        ),
    )


def _cpus(quantity: str) -> float:
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def node_facts(kube: Kube, selector: Mapping[str, str] | str = "") -> list[NodeFacts]:
    """The nodes that a selector selects (labels, or a label selector as text), by name."""
    if not isinstance(selector, str):
        selector = ",".join(f"{key}={value}" for key, value in selector.items())
    found = (facts_of(node) for node in kube.items(NODES, labelSelector=selector))
    return sorted(found, key=lambda node: node.name)


def candidates(nodes: Iterable[NodeFacts], cluster: schema.Cluster) -> list[NodeFacts]:
    """Those that may be measured once they are well: of the pool, and not Prometheus's own."""
    mine, other = cluster.node_selector, cluster.prometheus_node_selector
    # Where every measured node is one for Prometheus too, that is what was asked for.
    apart = bool(other) and not other.items() <= mine.items()
    return [x for x in nodes if x.matches(mine) and not (apart and x.matches(other))]


def obstacles(node: NodeFacts, tolerations: Sequence[schema.Toleration]) -> list[str]:
    """Why the test's pods would not run on this node: nothing when they would."""
    found = [] if node.ready else ["NotReady"]
    if not node.schedulable:
        found.append("cordoned")
    found += [
        f"taint {taint} not tolerated"
        for taint in node.taints
        if taint.effect in _SHUT_OUT
        and not (found and taint.key.startswith(_OF_STATE))
        and not any(_tolerates(each, taint) for each in tolerations)
    ]
    return found


def _tolerates(toleration: schema.Toleration, taint: Taint) -> bool:
    """As the scheduler decides it (k8s.io/component-helpers scheduling/corev1)."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value


def pick(
    nodes: Sequence[NodeFacts], cluster: schema.Cluster, count: int, sweep: str = ""
) -> list[NodeFacts]:
    """The `count` nodes that a trial measures: those that the sweep has already, then by name.

    ConfigError, with the reason why each other one does not count, when there are fewer.
    """
    pool = candidates(nodes, cluster)
    usable = [node for node in pool if not obstacles(node, cluster.tolerations)]
    if len(usable) < count:
        raise _too_few(nodes, pool, len(usable), cluster, count)
    usable.sort(key=lambda node: (not (sweep and _measured_by(node) == sweep), node.name))
    return sorted(usable[:count], key=lambda node: node.name)


def select(kube: Kube, cluster: schema.Cluster, count: int, owner: Owner) -> list[NodeFacts]:
    """Label exactly `count` nodes as measured and return them, by name.

    ConfigError when the pool has fewer, EngineFailed when labels do not become what they should.
    """
    nodes = node_facts(kube)
    chosen = pick(nodes, cluster, count, owner.sweep)
    names = {node.name for node in chosen}
    surplus = [x.name for x in nodes if MEASURED_LABEL in x.labels and x.name not in names]
    missing = [node.name for node in chosen if _measured_by(node) != owner.sweep]
    _mark(kube, surplus, None, None)
    _mark(kube, missing, "true", owner.sweep)
    labelled = node_facts(kube, MEASURED_SELECTOR)
    if {node.name for node in labelled} != names:
        strange = some(sorted({node.name for node in labelled} ^ names))
        raise EngineFailed(
            f"label {MEASURED_LABEL} did not stay where it was put: {strange}",
            hint=f"another program changes labels of nodes; kubectl get nodes -L {MEASURED_LABEL}",
        )
    return labelled


def release(kube: Kube, sweep: str | None = None) -> list[str]:
    """Take our label off the nodes of a sweep (None: of all) and return their names.

    EngineFailed names nodes on which it stays.
    """
    names = [node.name for node in _marked(kube, sweep)]
    _mark(kube, names, None, None)
    if left := [node.name for node in _marked(kube, sweep) if node.name in names]:
        raise EngineFailed(
            f"label {MEASURED_LABEL} could not be taken off {some(left)}",
            hint=f"kubectl label nodes {' '.join(left)} {MEASURED_LABEL}-",
        )
    return names


def changed(before: Iterable[NodeFacts], after: Iterable[NodeFacts]) -> list[str]:
    """What happened to these nodes in between, a sentence each; nodes that came are not told."""
    now = {node.name: node for node in after}
    found: list[str] = []
    for node in before:
        found += _changes(node, now.get(node.name))
    return found


def _changes(was: NodeFacts, now: NodeFacts | None) -> Iterable[str]:
    name = was.name
    if now is None:
        yield f"node {name} is gone"
        return
    if was.uid != now.uid:
        yield f"node {name} was deleted and made anew"
    elif was.boot_id != now.boot_id:
        yield f"node {name} was rebooted"
    if not now.ready:
        yield f"node {name} is not Ready any more"
    elif was.ready and was.uid == now.uid and was.ready_since != now.ready_since:
        yield f"node {name} was not Ready for a while, until {now.ready_since}"
    if was.schedulable and not now.schedulable:
        yield f"node {name} was cordoned"
    for what, old, new in (
        ("kubelet", was.kubelet_version, now.kubelet_version),
        ("container runtime", was.runtime, now.runtime),
    ):
        if old != new:
            yield f"node {name}: its {what} went from {old} to {new}"


def _measured_by(node: NodeFacts) -> str | None:
    return node.annotations.get(MEASURED_BY, "") if MEASURED_LABEL in node.labels else None


def _marked(kube: Kube, sweep: str | None) -> list[NodeFacts]:
    nodes = node_facts(kube, MEASURED_LABEL)
    return [node for node in nodes if sweep is None or _measured_by(node) == sweep]


def _mark(kube: Kube, names: Sequence[str], label: str | None, sweep: str | None) -> None:
    """Label and annotate nodes; None takes off. A node that has gone meanwhile is no error."""
    body: dict[str, Any] = {
        "metadata": {"labels": {MEASURED_LABEL: label}, "annotations": {MEASURED_BY: sweep}}
    }
    answers = everywhere(names, lambda name: kube.patch(f"{NODES}/{name}", body))
    gone = {name for name, error in answers.items() if getattr(error, "is_missing", False)}
    error = first_error({name: each for name, each in answers.items() if name not in gone})
    if error is not None:
        raise error


def _too_few(
    nodes: Sequence[NodeFacts],
    pool: Sequence[NodeFacts],
    usable: int,
    cluster: schema.Cluster,
    count: int,
) -> ConfigError:
    wanted = ",".join(f"{key}={value}" for key, value in cluster.node_selector.items()) or "none"
    if not pool:
        return ConfigError(
            f"nodes={count}, but none of the cluster's {len(nodes)} nodes can be measured: "
            f"cluster.node_selector is {wanted}",
            hint="choose labels (kubectl get nodes --show-labels), then: imgpull cluster describe "
            "--selector KEY=VALUE > conf/cluster/mine.yaml",
        )
    reasons: dict[str, list[str]] = {}
    for node in pool:
        if found := obstacles(node, cluster.tolerations):
            reasons.setdefault(" and ".join(found), []).append(node.name)
    told = "; ".join(f"{len(names)} {why} ({some(names)})" for why, names in reasons.items())
    return ConfigError(
        f"nodes={count}, but {usable} of the {len(pool)} nodes that match cluster.node_selector "
        f"({wanted}) can be measured{f': {told}' if told else ''}",
        hint=_mend(pool, cluster, usable),
    )


def _mend(pool: Sequence[NodeFacts], cluster: schema.Cluster, usable: int) -> str:
    """The action that brings most nodes back."""
    taints: dict[Taint, int] = {}
    for node in pool:
        for taint in node.taints:
            if f"taint {taint} not tolerated" in obstacles(node, cluster.tolerations):
                taints[taint] = taints.get(taint, 0) + 1
    if taints:
        taint = max(taints, key=lambda each: taints[each])
        return (
            "if the test's pods may run there: 'cluster.tolerations=[{key: "
            f"{taint.key}, operator: Exists, effect: {taint.effect}}}]'"
        )
    cordoned = [node.name for node in pool if node.ready and not node.schedulable]
    if cordoned:
        return f"kubectl uncordon {' '.join(cordoned[:10])}"
    if any(not node.ready for node in pool):
        return f"kubectl get nodes; wait until they are Ready, or use nodes={max(1, usable)}"
    return f"use nodes={max(1, usable)}, or add nodes to the pool"
