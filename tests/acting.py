"""A healthy AKS cluster that acts: DaemonSets get pods that answer, a test's namespace gets pods.

Hides controllers, kubelets and node scripts, as far as a whole trial of a real engine meets them.
The load is not ClusterLoader2's (a stand-in makes no Deployments): pods of the standard test appear
in each namespace of ours, each with the events of one cold pull.
"""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aks import Aks
from apiserver import ApiServer

from imgpull import pulls

IMAGE = "127.0.0.1:9/app:1"  # a port that refuses at once: no registry can be asked
SIZE_BYTES = 264_056_486
FITS = (
    "cluster=aks_d4s_v3", "cluster.region=westeurope", f"image.reference={IMAGE}",
    "image.layers=[]", "nodes=2", "deployments=4", "metrics_wait=auto", "allow=[image]",
)  # fmt: skip


class Acting(Aks):
    """The cluster. `said` is what node scripts say; `count` how many pods a test gets."""

    def __init__(self, api: ApiServer, nodes: int = 3, pods: int = 4) -> None:
        super().__init__(api, nodes)
        self.count = lambda: pods
        self.said = (
            "images\nfreed 500000000\nknown registry\nlayers 5\nsnapshots\nblobs\nunder_way 0\n"
            "waited 0\npage-cache dropped\nend\n"
        )
        self._lock = threading.Lock()
        api.on_create("DaemonSet", self._run_on_nodes)
        api.on_delete("DaemonSet", self._stop_on_nodes)
        api.on_create("Namespace", self._load)
        api.handle(
            "GET",
            r"/api/v1/namespaces/monitoring/services/.*/proxy/api/v1/query(_range)?",
            (200, {"status": "success", "data": {"resultType": "matrix", "result": []}}),
        )

    @property
    def measured(self) -> list[str]:
        """Nodes that carry our label now."""
        selector = "imgpull.dev/measured"
        found = self.api.all("/api/v1/nodes")
        return [x["metadata"]["name"] for x in found if selector in x["metadata"]["labels"]]

    def leftovers(self) -> list[str]:
        """What of ours is still there, besides the system namespace and the released lease."""
        found = [f"node label on {name}" for name in self.measured]
        for collection in (
            "/api/v1/namespaces", "/apis/apps/v1/daemonsets", "/api/v1/pods", "/api/v1/configmaps",
            "/api/v1/secrets", "/apis/batch/v1/jobs",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        ):  # fmt: skip
            for each in self.api.all(collection):
                labels = each["metadata"].get("labels") or {}
                ours = labels.get("app.kubernetes.io/managed-by") == "imgpull"
                if ours and each["metadata"]["name"] != "imgpull-system":
                    found.append(f"{each['kind']} {each['metadata']['name']}")
        return found

    def _run_on_nodes(self, made: dict[str, Any]) -> None:
        meta, template = made["metadata"], made["spec"]["template"]
        wanted = template["spec"].get("nodeSelector") or {}
        ended = {"terminated": {"exitCode": 0, "message": self.said}}
        status = {
            "phase": "Running",
            "initContainerStatuses": [{"name": "node", "state": ended, "imageID": "x"}],
            "containerStatuses": [{"name": "done", "ready": True, "imageID": "x"}],
        }
        for node in self.api.all("/api/v1/nodes"):
            labels = node["metadata"]["labels"]
            if all(labels.get(key) == value for key, value in wanted.items()):
                name = f"{meta['name']}-{node['metadata']['name'][-2:]}"
                self.api.put(
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {
                            "name": name,
                            "namespace": meta["namespace"],
                            "labels": template["metadata"]["labels"],
                            "ownerReferences": [
                                {
                                    "kind": "DaemonSet",
                                    "name": meta["name"],
                                    "uid": meta["uid"],
                                }
                            ],
                        },
                        "spec": {"nodeName": node["metadata"]["name"]},
                        "status": status,
                    }
                )

    def _stop_on_nodes(self, gone: dict[str, Any]) -> None:
        for pod in self.api.all(f"/api/v1/namespaces/{gone['metadata']['namespace']}/pods"):
            owners = pod["metadata"].get("ownerReferences") or []
            if any(owner["name"] == gone["metadata"]["name"] for owner in owners):
                where = f"/api/v1/namespaces/{gone['metadata']['namespace']}/pods"
                self.api.remove(f"{where}/{pod['metadata']['name']}")

    def _load(self, made: dict[str, Any]) -> None:
        name = made["metadata"]["name"]
        if not name.startswith("ip"):
            return
        time.sleep(0.3)  # watches are open by then, or list it
        nodes = self.measured or self.names
        for index in range(self.count()):
            node = nodes[index % len(nodes)]
            self._pod(name, f"imgpull-{index}-x", node)

    def _pod(self, namespace: str, name: str, node: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "PodReadyToStartContainers", "ContainersReady", "Ready")
        ]
        running = {
            "name": "image", "ready": True, "image": IMAGE,
            "imageID": f"127.0.0.1:9/app@sha256:{'a' * 64}",
            "state": {"running": {"startedAt": now}},
        }  # fmt: skip
        self.api.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name, "namespace": namespace, "creationTimestamp": now,
                    "uid": f"uid-{name}",
                },
                "spec": {"nodeName": node, "containers": [{"name": "image", "image": IMAGE}]},
                "status": {
                    "phase": "Running", "conditions": ready, "containerStatuses": [running],
                },
            }
        )  # fmt: skip
        for number, (reason, message) in enumerate(
            (
                ("Pulling", pulls.pulling_message(IMAGE)),
                ("Pulled", pulls.pulled_message(IMAGE, 2.6, 2.6, SIZE_BYTES)),
            )
        ):
            about = {"kind": "Pod", "namespace": namespace, "name": name, "uid": f"uid-{name}"}
            self.api.put(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": f"{name}.{number}", "namespace": namespace},
                    "reason": reason, "message": message, "type": "Normal", "count": 1,
                    "firstTimestamp": now, "lastTimestamp": now,
                    "involvedObject": {**about, "fieldPath": "spec.containers{image}"},
                    "source": {"component": "kubelet", "host": node},
                }
            )  # fmt: skip


def kubeconfig(api: ApiServer, directory: Path, token: str) -> Path:
    """A kubeconfig whose token no file may hold."""
    api.tokens = {token}
    return api.kubeconfig(directory / "kubeconfig", token)
