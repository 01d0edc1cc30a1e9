"""The nodes of a made-up Azure: those of its measured pool stand in the API stand-in.

Hides how: a thread looks what the stand-in terraform has made, as Azure's own nodes would join.
"""

import json
import threading
from typing import Any

from acting import Acting
from aks import node
from apiserver import ApiServer
from clouds import SECRET, Azure


class Fleet(Acting):
    """The cluster that Terraform makes; enter it to have it follow the made-up Azure."""

    def __init__(self, api: ApiServer, azure: Azure, pods: int = 4) -> None:
        super().__init__(api, nodes=0, pods=pods)
        self._azure, self._client = azure, api.kube(SECRET)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Fleet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _follow(self) -> None:
        while not self._over.wait(0.02):
            pools = self._pools()
            wanted = {
                f"aks-measured-{pool['vmSize'].lower().replace('_', '')}-vmss{index:06d}": pool
                for pool in pools
                for index in range(pool["count"])
            }
            for name in set(self.names) - set(wanted):
                self._client.delete(f"/api/v1/nodes/{name}")
            for name in sorted(set(wanted) - set(self.names)):
                size = {"node.kubernetes.io/instance-type": wanted[name]["vmSize"]}
                self.api.put(node(0, metadata__name=name, metadata__labels=size))
                self.lease(name)
            self.names = sorted(wanted)

    def _pools(self) -> list[dict[str, Any]]:
        try:
            groups = self._azure.groups.values()
        except (OSError, json.JSONDecodeError):
            return []
        return [p for group in groups for p in group["pools"] if p["name"] == "measured"]
