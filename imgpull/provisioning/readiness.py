"""A new cluster is ready when its measured nodes are: as many as asked for, Ready, and alike.

Hides the waiting. An API server that does not answer yet is waited for like a node.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from imgpull.cluster import fingerprint
from imgpull.cluster.everywhere import some
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import NodeFacts, node_facts, obstacles
from imgpull.config import schema
from imgpull.errors import EngineFailed, EngineUnavailable, ImgpullError
from imgpull.provisioning.running import Limits, Say
from imgpull.provisioning.variables import Variables

_POOL = "kubernetes.azure.com/agentpool"
_ALIKE_S = 120.0  # nodes that an older pool had may still be listed


def wait_ready(
    kubeconfig: Path, context: str, values: Variables, say: Say, limits: Limits
) -> list[NodeFacts]:
    """The measured nodes, once they are Ready; EngineFailed says which are not.

    Nodes that differ in what should be equal are told of, and kept.
    """
    wanted: int = values["measured_node_count"]
    tolerated = [_toleration(taint) for taint in values["measured_node_taints"]]
    end = time.monotonic() + limits.nodes_s
    told, alike_by = "", None
    while True:
        nodes, trouble = _look(kubeconfig, context, values["measured_pool_name"])
        trouble = trouble or _not_ready(nodes, wanted, tolerated)
        now = time.monotonic()
        if not trouble:
            differences = fingerprint.unlike(nodes)
            alike_by = alike_by or min(now + _ALIKE_S, end)
            if not differences or now > alike_by:
                for each in differences:
                    say(f"warning: measured nodes are not alike: {each}")
                say(f"{len(nodes)} measured nodes are Ready")
                return nodes
        elif now > end:
            raise EngineFailed(
                f"measured nodes were not Ready within {limits.nodes_s / 60:.0f} min: {trouble}",
                hint="kubectl describe nodes; az aks nodepool show tells its provisioningState",
            )
        if trouble and trouble != told:
            say(f"waiting for nodes: {trouble}")
            told = trouble
        time.sleep(limits.poll_s)


def _look(kubeconfig: Path, context: str, pool: str) -> tuple[list[NodeFacts], str]:
    """The nodes of the pool, and why they cannot be seen."""
    try:
        kube = Kube.open(kubeconfig, context)
    except ImgpullError as error:
        return [], error.message
    try:
        return node_facts(kube.impatient(), {_POOL: pool}), ""
    except (EngineFailed, EngineUnavailable) as error:
        return [], error.message
    finally:
        kube.close()


def _not_ready(
    nodes: Sequence[NodeFacts], wanted: int, tolerated: Sequence[schema.Toleration]
) -> str:
    """Why the pool is not as asked for; empty when it is."""
    bad = [(node.name, found) for node in nodes if (found := obstacles(node, tolerated))]
    if bad:
        names = [f"{name} {' and '.join(found)}" for name, found in bad]
        return f"{len(nodes) - len(bad)} of {wanted} are Ready; {some(names)}"
    return "" if len(nodes) == wanted else f"{len(nodes)} of {wanted} are there"


def _toleration(taint: str) -> schema.Toleration:
    pair, _, effect = taint.rpartition(":")
    key, _, value = pair.partition("=")
    return schema.Toleration(key=key, operator="Equal", value=value, effect=effect)
