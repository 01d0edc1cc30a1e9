"""What kubelets tell through the API server: their settings, disks and metrics.

Hides the paths of the node proxy and the forms of the answers. A kubelet that does not answer, or
that the API server may not ask, is an ApiError beside its node's name.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imgpull.cluster.everywhere import everywhere
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.nodes import NODES

# The settings that steer pulls, by kubelet's own names, as schema.Kubelet has them.
PULL_SETTINGS = (
    "serializeImagePulls", "maxParallelImagePulls", "registryPullQPS", "registryBurst",
)  # fmt: skip
_METRICS_S = 20.0
_TYPE = b"# TYPE "


@dataclass(frozen=True)
class Disk:
    """The file system that holds a node's images, in bytes."""

    available_bytes: int
    capacity_bytes: int


def settings(kube: Kube, names: Iterable[str]) -> dict[str, Mapping[str, Any] | ApiError]:
    """Each kubelet's configuration (/configz), defaults filled in by kubelet."""

    def ask(name: str) -> Mapping[str, Any]:
        found = kube.get(f"{NODES}/{name}/proxy/configz").get("kubeletconfig")
        return found if isinstance(found, dict) else {}

    return everywhere(names, ask)


def disks(kube: Kube, names: Iterable[str]) -> dict[str, Disk | ApiError | None]:
    """The disk of each node's images (/stats/summary); None when kubelet does not tell it."""

    def ask(name: str) -> Disk | None:
        summary = kube.get(f"{NODES}/{name}/proxy/stats/summary")
        told = summary.get("node") or {}
        disk = (told.get("runtime") or {}).get("imageFs") or told.get("fs") or {}
        if "availableBytes" not in disk or "capacityBytes" not in disk:
            return None
        return Disk(int(disk["availableBytes"]), int(disk["capacityBytes"]))

    return everywhere(names, ask)


def metric_names(
    kube: Kube, names: Iterable[str], wanted: frozenset[str]
) -> dict[str, frozenset[str] | ApiError]:
    """Which of the wanted metrics each kubelet exposes."""
    return everywhere(names, lambda name: _exposed(kube, f"{NODES}/{name}/proxy/metrics", wanted))


def containerd_metric_names(
    kube: Kube, names: Iterable[str], port: int, wanted: frozenset[str]
) -> dict[str, frozenset[str] | ApiError]:
    """Which of the wanted metrics each node's containerd exposes on this port."""
    return everywhere(
        names, lambda name: _exposed(kube, f"{NODES}/{name}:{port}/proxy/v1/metrics", wanted)
    )


def _exposed(kube: Kube, path: str, wanted: frozenset[str]) -> frozenset[str]:
    """Reads no further than it must: of a thousand nodes that would be a gigabyte."""
    found: set[str] = set()
    with kube.stream(path, timeout_s=_METRICS_S) as lines:
        for line in lines:
            if line.startswith(_TYPE) and (name := line.split()[2].decode()) in wanted:
                found.add(name)
                if found == wanted:
                    break
    return frozenset(found)


def shown(value: Any) -> str:
    """A setting's value as it is written in conf/."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
