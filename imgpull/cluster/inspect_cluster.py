"""Preflight of the cluster as a whole: monitoring, leftovers, who holds it, clocks.

Hides what of other people's a sweep would disturb, and what of earlier sweeps would disturb it.
"""

from collections.abc import Iterator, Sequence

from imgpull import units
from imgpull.cluster import clock, janitor, lease, prometheus
from imgpull.cluster.everywhere import some
from imgpull.cluster.findings import Finding, failed, ok, warning
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.nodes import NodeFacts, obstacles
from imgpull.cluster.ownership import IMGPULL, MANAGED_BY, MANAGED_SELECTOR, SYSTEM_NAMESPACE
from imgpull.config import schema
from imgpull.config.job import prometheus_gib

_SKEW_S = 1.0  # beyond it a trial is degraded
_STACK_PATHS = (f"/api/v1/namespaces/{prometheus.NAMESPACE}", *prometheus.CL2_LEFTOVERS)
# CL2's Prometheus and operator tolerate this taint (clusterloader2 pkg/prometheus/manifests).
_PROMETHEUS_TOLERATES = (schema.Toleration(key="monitoring", operator="Exists"),)


def monitoring(kube: Kube) -> Iterator[Finding]:
    """What ClusterLoader2 would take over or destroy though it is not ours."""
    check = "monitoring"
    found = prometheus.foreign(kube)
    for sentence in found:
        what, _, fix = sentence.partition("; ")
        yield failed(check, what, fix or "use another cluster")
    if not found:
        yield ok(check, "ClusterLoader2 takes nobody else's Prometheus")


def prometheus_pool(
    cluster: schema.Cluster, nodes: Sequence[NodeFacts], measured: Sequence[NodeFacts]
) -> Iterator[Finding]:
    """A node for ClusterLoader2's Prometheus, large enough and not a measured one."""
    check, selector = "Prometheus node", cluster.prometheus_node_selector
    names = {node.name for node in measured}
    spare = next((node.name for node in nodes if node.name not in names and node.ready), "NAME")
    wanted = ",".join(f"{key}={value}" for key, value in selector.items())
    if not selector:
        yield warning(
            check, "cluster.prometheus_node_selector is empty: Prometheus may run on a measured "
            "node, pull its images there and take its bandwidth",
            f"kubectl label node {spare} prometheus=true; then "
            "'cluster.prometheus_node_selector={prometheus: \"true\"}'",
        )  # fmt: skip
        return
    pool = [node for node in nodes if node.matches(selector)]
    fix = f"kubectl label node {spare} {wanted.replace(',', ' ')}"
    if not pool:
        yield failed(check, f"no node matches cluster.prometheus_node_selector ({wanted})", fix)
        return
    usable = [node for node in pool if not obstacles(node, _PROMETHEUS_TOLERATES)]
    if not usable:
        why = "; ".join(f"{x.name}: {' and '.join(obstacles(x, _PROMETHEUS_TOLERATES))}"
                        for x in pool[:3])  # fmt: skip
        yield failed(check, f"none of the nodes that match {wanted} takes Prometheus: {why}", fix)
        return
    need_gib = prometheus_gib(cluster.prometheus_memory_gib, len(measured))
    most = max(usable, key=lambda node: node.allocatable_memory_bytes)
    if most.allocatable_memory_bytes < need_gib * units.GIB:
        yield failed(
            check, f"Prometheus asks for {need_gib} GiB, and {most.name}, the largest node that "
            f"matches {wanted}, can give {most.allocatable_memory_bytes / units.GIB:.1f}",
            f"{fix}, or a lower cluster.prometheus_memory_gib",
        )  # fmt: skip
        return
    if shared := [node.name for node in usable if node.name in names]:
        yield warning(
            check, f"{some(shared)} may run Prometheus, and is measured: Prometheus's images and "
            "scrapes take its bandwidth", fix,
        )  # fmt: skip
        return
    yield ok(check, f"{some(node.name for node in usable)}")


def leftovers(kube: Kube) -> Iterator[Finding]:
    """What an earlier sweep left, and whether our namespace is ours."""
    check = "leftovers"
    space = kube.find(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}")
    labels = ((space or {}).get("metadata") or {}).get("labels") or {}
    if space is not None and labels.get(MANAGED_BY) != IMGPULL:
        yield failed(
            check, f"namespace {SYSTEM_NAMESPACE} exists and is not imgpull's",
            f"rename it, or, if it is: kubectl label namespace {SYSTEM_NAMESPACE} "
            f"{MANAGED_SELECTOR}",
        )  # fmt: skip
        return
    found = janitor.leftovers(kube)
    stack = [each for each in found if each.path.startswith(_STACK_PATHS)]
    others = [each for each in found if each not in stack]
    if stack:  # may have been kept on purpose
        yield warning(
            check, "ClusterLoader2's Prometheus of an earlier sweep is there: it is used again, or "
            "made anew where its settings differ", "to be rid of it: imgpull janitor",
        )  # fmt: skip
    if others:
        names = some([f"{each.kind} {each.name}" for each in others])
        yield failed(check, f"{names} left by an earlier sweep", "imgpull janitor")
    elif not stack:
        yield ok(check, "nothing of an earlier sweep is there")


def holder(kube: Kube) -> Iterator[Finding]:
    """Who holds the cluster, if somebody alive does."""
    check = "lease"
    found = lease.look(kube)
    if found is None:
        yield ok(check, "no other sweep holds the cluster")
        return
    yield warning(
        check, f"{found.identity} has held the cluster since {found.since}",
        "wait for it: engine.wait_for_cluster=30m",
    )  # fmt: skip


def clocks(kube: Kube, measured: Sequence[NodeFacts]) -> Iterator[Finding]:
    """Whether the clocks that write the times of a trial agree."""
    check = "clocks"
    skew_s = clock.clock_skew_s(kube)
    if skew_s is None:
        yield warning(check, "the API server does not tell its time")
    elif abs(skew_s) > _SKEW_S:
        yield warning(
            check, f"the API server's clock is {skew_s:+.1f} s from this machine's: trials will be "
            "degraded", "set this machine's clock: chronyc makestep",
        )  # fmt: skip
    else:
        yield ok(check, f"the API server's and ours differ by {abs(skew_s):.1f} s")
    try:
        off = clock.node_skews_s(kube, (node.name for node in measured))
    except ApiError as error:  # nice to know, and no reason to ask for another permission
        yield warning(check, f"clocks of nodes cannot be judged: {error.message}")
        return
    off = {name: ahead_s for name, ahead_s in off.items() if abs(ahead_s) > _SKEW_S}
    if off:
        worst = max(off, key=lambda name: abs(off[name]))
        yield warning(
            check, f"clocks of nodes differ from the API server's: {some(off)}; most on {worst}, "
            f"{off[worst]:+.1f} s", f"look at its time service: kubectl debug node/{worst} -it "
            f"--image=busybox -- chroot /host timedatectl",
        )  # fmt: skip
