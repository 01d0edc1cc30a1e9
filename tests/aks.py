"""A healthy AKS cluster in the API stand-in, for tests that then break one thing of it.

Hides what a real cluster tells besides its objects: kubelets and containerds behind the node proxy.
It fits `cluster=aks_d4s_v3` with the overrides of FITS.
"""

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apiserver import ApiServer, Request

DATA = Path(__file__).parent / "data"
_NODE = json.loads((DATA / "nodes" / "aks-d4s-v3.json").read_text())
_SETTINGS = json.loads((DATA / "nodes" / "own-1.36.2-configz.json").read_text())["kubeletconfig"]
_LEASE = json.loads((DATA / "nodes" / "own-1.36.2-lease.json").read_text())
KUBELET_METRICS = (DATA / "metrics" / "kubelet-1.36.2.prom").read_text()

FITS = ("cluster=aks_d4s_v3", "cluster.region=westeurope")
GIB = 1024**3


def node(index: int = 0, *, pool: str = "measured", **changes: Any) -> dict[str, Any]:
    """A Node; a change is a path with dots for __ and the value there, None takes it out.

    node(1, spec__unschedulable=True, metadata__labels={"added": "label"})
    """
    made = copy.deepcopy(_NODE)
    name = changes.get("metadata__name", f"aks-{pool}-38601234-vmss{index:06d}")
    made["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    made["metadata"]["labels"] |= {
        "agentpool": pool, "kubernetes.azure.com/agentpool": pool, "kubernetes.io/hostname": name,
    }  # fmt: skip
    made["status"]["nodeInfo"]["bootID"] = f"boot-{name}"
    for path, value in changes.items():
        *parts, last = path.split("__")
        place = made
        for part in parts:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last, None)
        elif isinstance(value, Mapping):
            place[last] = {**place.get(last, {}), **value}
        else:
            place[last] = value
    return made


def not_ready(since: str = "2026-02-21T00:00:00Z") -> list[dict[str, str]]:
    """Conditions of a node whose kubelet is silent."""
    return [{"type": "Ready", "status": "Unknown", "lastTransitionTime": since}]


class Aks:
    """The cluster: `nodes` measured nodes and one for Prometheus. Change it at any time."""

    def __init__(self, api: ApiServer, nodes: int = 3) -> None:
        self.api = api
        self.names = [node(index)["metadata"]["name"] for index in range(nodes)]
        self.settings: dict[str, Any] = {
            **_SETTINGS, "maxPods": 110, "imageGCHighThresholdPercent": 85,
            "imageGCLowThresholdPercent": 80, "eventRecordQPS": 0,
        }  # fmt: skip
        del self.settings["maxParallelImagePulls"]
        self.available_bytes, self.capacity_bytes = 100 * GIB, 124 * GIB
        self.kubelet_metrics = KUBELET_METRICS
        self.containerd_metrics = (DATA / "metrics" / "containerd-1.7.24.prom").read_text()
        for index in range(nodes):
            api.put(node(index))
        api.put(
            node(
                0, pool="prom", metadata__labels={"prometheus": "true"},
                status__capacity={"memory": "32880000Ki"},
                status__allocatable={"memory": "28880000Ki"},
            )
        )  # fmt: skip
        for name in self.names:
            self.lease(name)
        self._answer("configz", lambda _: (200, {"kubeletconfig": self.settings}))
        self._answer("stats/summary", lambda _: (200, self._summary()))
        self._answer("metrics", lambda _: (200, self.kubelet_metrics))
        self.api.handle(
            "GET", r"/api/v1/nodes/[^/]*:10257/proxy/v1/metrics",
            lambda _: (200, self.containerd_metrics),
        )  # fmt: skip

    def lease(self, name: str, ahead_s: float = 0.0) -> None:
        """Have a kubelet renew its lease now, by a clock that is ahead of the API server's."""
        now = datetime.now(UTC)
        lease = copy.deepcopy(_LEASE)
        lease["metadata"] |= {"name": name, "uid": f"lease-{name}"}
        lease["metadata"]["managedFields"][0]["time"] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        told = now + timedelta(seconds=ahead_s)
        lease["spec"] |= {
            "holderIdentity": name, "renewTime": told.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }  # fmt: skip
        self.api.put(lease)

    def of_node(self, name: str, path: str, reply: Any) -> None:
        """Have one node answer otherwise."""
        self.api.handle("GET", rf"/api/v1/nodes/{name}/proxy/{path}", reply)

    def _answer(self, path: str, answer: Any) -> None:
        self.api.handle("GET", rf"/api/v1/nodes/[^/:]*/proxy/{path}", answer)

    def _summary(self) -> dict[str, Any]:
        disk = {"availableBytes": self.available_bytes, "capacityBytes": self.capacity_bytes}
        return {"node": {"fs": disk, "runtime": {"imageFs": disk}}}


def paths(requests: list[Request], method: str) -> list[str]:
    """What was asked for with a method, in turn."""
    return [request.path for request in requests if request.method == method]
