"""Preflight of the measured nodes: their disks, and the metrics that the test is going to read.

Hides what a kubelet or containerd that does not answer means. ClusterLoader2's Prometheus is ready
only when every target is up, so one closed port ends a trial after 15 minutes; here it takes one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from imgpull import exporters, units
from imgpull.cluster import kubelets
from imgpull.cluster.everywhere import some
from imgpull.cluster.findings import Finding, failed, ok, warning
from imgpull.cluster.fingerprint import Seen
from imgpull.cluster.image_need import ImageNeed
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.kubelets import Disk
from imgpull.cluster.nodes import NodeFacts

_GC = "imageGCHighThresholdPercent"
_DEFAULT_GC_PERCENT = 85  # kubernetes pkg/kubelet/apis/config/v1beta1/defaults.go
_PERCENT = re.compile(r"([0-9.]+)%")
_PULLS_SINCE = (1, 30)  # kubernetes PR 121719
_KUBELET_PULLS = frozenset({exporters.KUBELET_IMAGE_PULL, exporters.KUBELET_RUNTIME_OPERATIONS})


def disks(kube: Kube, seen: Seen, need: ImageNeed | None) -> Iterator[Finding]:
    """Room for the image on each node, and whether kubelet would react to it."""
    check = "disk"
    told = kubelets.disks(kube, (node.name for node in seen.nodes))
    silent = [name for name, disk in told.items() if not isinstance(disk, Disk)]
    if silent:
        yield warning(check, f"kubelet does not tell the free space of {some(silent)}")
    known = {name: disk for name, disk in told.items() if isinstance(disk, Disk)}
    if not known:
        return
    least = min(known, key=lambda name: known[name].available_bytes)
    free = f"{units.format_size(known[least].available_bytes)} free on {least}, the least"
    if need is None:
        yield warning(
            check, f"the image's size is not known; {free}",
            fix="imgpull image inspect REFERENCE writes it to conf/image/",
        )  # fmt: skip
        return
    troubles = [
        (node.name, trouble)
        for node in seen.nodes
        if node.name in known and not need.is_held_by(node)
        and (trouble := _trouble(known[node.name], need, seen.kubelet.get(node.name) or {}))
    ]  # fmt: skip
    yield from _of_troubles(check, troubles, need)
    if not troubles:
        yield ok(check, f"{need} fits: {free}")


def _of_troubles(
    check: str, troubles: Sequence[tuple[str, tuple[str, str]]], need: ImageNeed
) -> Iterator[Finding]:
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for name, (kind, text) in troubles:
        by_kind.setdefault(kind, []).append((name, text))
    for kind, found in by_kind.items():
        names = some([name for name, _ in found])
        message = f"{need}, but on {names} {found[0][1]}"
        if kind == "warning":
            yield warning(check, message)
        else:
            yield failed(
                check, message, "kubectl debug node/NAME … to make room, or use nodes with larger "
                "OS disks, or a smaller image",
            )  # fmt: skip


def _trouble(disk: Disk, need: ImageNeed, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    left = disk.available_bytes - need.total_bytes
    free, size = (units.format_size(x) for x in (disk.available_bytes, disk.capacity_bytes))
    if left <= 0:
        return "failed", f"only {free} of {size} are free"
    if left < (least := _eviction_bytes(disk, settings)):
        return "failed", (
            f"that leaves {units.format_size(left)} of {size}, and kubelet evicts pods below "
            f"{units.format_size(least)}"
        )
    high = float(settings.get(_GC) or _DEFAULT_GC_PERCENT)
    used_percent = 100 * (1 - left / disk.capacity_bytes)
    if used_percent >= high:
        return "warning", (
            f"that fills the disk to {used_percent:.0f} %, and kubelet removes unused images from "
            f"{_GC}={high:g} on"
        )
    return None


def _eviction_bytes(disk: Disk, settings: Mapping[str, Any]) -> float:
    """Below how much free space kubelet evicts pods."""
    told = settings.get("evictionHard") or {}
    found = 0.0
    for signal in ("imagefs.available", "nodefs.available"):
        text = str(told.get(signal, "0"))
        if percent := _PERCENT.fullmatch(text):
            found = max(found, disk.capacity_bytes * float(percent[1]) / 100)
        else:
            found = max(found, float(units.parse_size(text)))
    return found


def kubelet_metrics(
    kube: Kube, measured: Sequence[NodeFacts], scraped: Sequence[NodeFacts]
) -> Iterator[Finding]:
    """Whether every scraped kubelet's metrics answer, and those of measured nodes tell of pulls."""
    check, names = "kubelet metrics", _names(measured, scraped)
    told = kubelets.metric_names(kube, names, _KUBELET_PULLS)
    yield from _silent(
        check, told, "kubelets do not answer",
        "kubectl get --raw /api/v1/nodes/{node}/proxy/metrics; a node that is not Ready must go "
        "(kubectl delete node {node}), for ClusterLoader2's Prometheus waits for all of them",
    )  # fmt: skip
    answers = {name: each for name, each in told.items() if not isinstance(each, ApiError)}
    # Without a label's first value there is no series: a kubelet that never pulled tells nothing.
    old = [x.name for x in measured if exporters.version_tuple(x.kubelet_version) < _PULLS_SINCE]
    empty = [node.name for node in measured if answers.get(node.name) == frozenset()]
    if old:
        yield warning(
            check, f"{some(old)} tell no {exporters.KUBELET_IMAGE_PULL}, which came with "
            "Kubernetes 1.30: that measurement will be missing",
        )  # fmt: skip
    if empty:
        yield warning(check, f"{some(empty)} answer, but tell nothing of the container runtime")
    elif answers:
        yield ok(check, f"{len(answers)} kubelets answer")


def containerd_metrics(
    kube: Kube,
    measured: Sequence[NodeFacts],
    scraped: Sequence[NodeFacts],
    port: int,
    version: str,
) -> Iterator[Finding]:
    """Whether every scraped containerd's metrics answer.

    Those of measured nodes under the names of the version described.
    """
    check, wanted = "containerd metrics", _from_start(version)
    names = _names(measured, scraped)
    told = kubelets.containerd_metric_names(kube, names, port, wanted)
    yield from _silent(
        check, told, f"port {port} does not answer",
        "AKS has it open; else: [metrics] address = \"0.0.0.0:" f"{port}" "\" in the nodes' "
        "/etc/containerd/config.toml, or another engine.containerd_port",
    )  # fmt: skip
    answers = {name: each for name, each in told.items() if not isinstance(each, ApiError)}
    without = [
        node.name for node in measured if node.name in answers and answers[node.name] != wanted
    ]
    if without:
        missing = ", ".join(sorted(wanted - answers[without[0]]))
        yield failed(
            check, f"{some(without)} expose no {missing}, as containerd {version} does",
            "describe the containerd that runs: cluster.containerd_version",
            field="cluster.containerd_version",
        )  # fmt: skip
    elif answers and exporters.image_metric_prefix(version) is None:
        yield warning(check, f"containerd {version} has no pull metrics (since 1.7.14)")
    elif answers:
        yield ok(check, f"port {port} answers on {len(answers)} nodes")


def _names(measured: Sequence[NodeFacts], scraped: Sequence[NodeFacts]) -> list[str]:
    return list(dict.fromkeys(node.name for node in (*measured, *scraped)))


def _from_start(version: str) -> frozenset[str]:
    """Histograms that this containerd exposes before its first pull, but for idle twins."""
    return frozenset(
        family.name
        for what, family in exporters.families(version).items()
        if family.target == "containerd" and family.from_start and not what.startswith("idle")
    )


def _silent(check: str, told: Mapping[str, object], what: str, fix: str) -> Iterator[Finding]:
    """What a node's missing answer means: refused by the API server, or not there."""
    errors = {name: each for name, each in told.items() if isinstance(each, ApiError)}
    refused = {name: each for name, each in errors.items() if each.status in (400, 401, 403)}
    if refused:
        error = next(iter(refused.values()))
        yield warning(check, f"the API server does not let us ask {some(refused)}: {error.message}")
    silent = [name for name in errors if name not in refused]
    if silent:
        reason = errors[silent[0]].message
        yield failed(check, f"{what} on {some(silent)}: {reason}", fix.format(node=silent[0]))
