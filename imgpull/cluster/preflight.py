"""Could a trial run on this cluster, and would its numbers be what conf/ says? Asked before it.

Hides the order of the checks: what explains later failures comes first, and no check of one thing
keeps the others from being looked at. Nothing is changed on the cluster.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from imgpull.cluster import (
    fingerprint,
    inspect_cluster,
    inspect_image,
    inspect_nodes,
    nodes,
    permissions,
)
from imgpull.cluster.clock import clock_skew_s as clock_skew_s
from imgpull.cluster.everywhere import some
from imgpull.cluster.findings import Finding as Finding
from imgpull.cluster.findings import failed, of_error, ok, warning
from imgpull.cluster.findings import require as require
from imgpull.cluster.fingerprint import Mismatch, Seen
from imgpull.cluster.image_need import image_need
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.nodes import NodeFacts
from imgpull.cluster.registry import ImageInfo
from imgpull.cluster.registry_login import Logins
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.errors import ConfigError, ImgpullError

_RIGHTS = (
    "an administrator can bind them: docs/real-clusters.md, or kubectl create clusterrolebinding "
    "imgpull --clusterrole=cluster-admin --user=YOU"
)


def inspect(kube: Kube, job: Job, *, held: bool = False) -> Iterator[Finding]:
    """Every finding, as soon as it is found; a check that breaks is a finding too.

    `held` leaves out who holds the cluster and what was left on it: a sweep sees to both when it
    takes the cluster, and removes there what it left itself.
    """
    return _Inspection(kube, job, held).findings()


def leftovers(kube: Kube) -> Iterator[Finding]:
    """What other sweeps left, to be asked by who holds the cluster."""
    return _guarded("leftovers", lambda: inspect_cluster.leftovers(kube))


@dataclass
class _Inspection:
    """One look; what a check learns, later ones use."""

    kube: Kube
    job: Job
    held: bool
    server_version: str = ""
    nodes: list[NodeFacts] = field(default_factory=list)
    measured: list[NodeFacts] = field(default_factory=list)
    seen: Seen = Seen("", ())  # noqa: RUF009
    logins: Logins | None = None
    image: ImageInfo | None = None

    def findings(self) -> Iterator[Finding]:
        """All of them, in the order in which they explain one another."""
        yield from self._api()
        if not self.server_version:
            return  # nothing else could be asked
        for check, look in (
            ("request", self._allow),
            ("permissions", self._permissions),
            ("nodes", self._nodes),
            ("fingerprint", self._fingerprint),
            ("pull secret", self._pull_secret),
            ("image", self._image),
            ("disk", self._disk),
            ("kubelet metrics", self._kubelets),
            ("containerd metrics", self._containerds),
            ("monitoring", self._monitoring),
            ("Prometheus node", self._prometheus),
            *(() if self.held else (("leftovers", self._leftovers), ("lease", self._lease))),
            ("clocks", self._clocks),
        ):
            for found in _guarded(check, look):
                yield self._unless_allowed(found)

    def _api(self) -> Iterator[Finding]:
        try:
            self.server_version = fingerprint.server_version(self.kube) or "unknown"
        except ApiError as error:
            yield of_error("API server", error, "kubectl version shows more")
            return
        yield ok("API server", f"{self.kube.context}: Kubernetes {self.server_version}")

    def _allow(self) -> Iterator[Finding]:
        fingerprint.accept((), self.job.allow)  # a name that no field has would allow nothing
        yield from ()

    def _unless_allowed(self, found: Finding) -> Finding:
        """A failed finding about a field that `allow` names is no more than a warning."""
        if found.state != "failed" or not fingerprint.is_allowed(found.field, self.job.allow):
            return found
        return warning(found.check, f"{found.message}; allowed", field=found.field)

    def _permissions(self) -> Iterator[Finding]:
        engine, secret = self.job.engine.kind, self.job.image.pull_secret is not None
        wanted = permissions.needed(engine, pull_secret=secret)
        missing = permissions.denied(self.kube, wanted)
        by_who: dict[str, dict[str, None]] = {}
        for permission, verb in missing:
            who = "clusterloader" if permission.who == "clusterloader" else "imgpull"
            by_who.setdefault(who, {})[f"{verb} {permission.where()}"] = None
        for who, lacking in by_who.items():
            message = f"{who} needs what this credential may not do: {some(lacking, 6)}"
            yield failed("permissions", message, _RIGHTS)
        if not missing:
            yield ok("permissions", f"all {sum(len(x.verbs) for x in wanted)} that are needed")

    def _nodes(self) -> Iterator[Finding]:
        cluster, count = self.job.cluster, self.job.nodes
        self.nodes = nodes.node_facts(self.kube)
        pool = nodes.candidates(self.nodes, cluster)
        try:
            self.measured = nodes.pick(self.nodes, cluster, count)
        except ConfigError as error:
            yield of_error("nodes", error, "use fewer nodes", "nodes")
            well = [node for node in pool if not nodes.obstacles(node, cluster.tolerations)]
            self.measured = well or pool
        else:
            yield ok("nodes", f"{count} of the {len(pool)} that match cluster.node_selector")

    def _fingerprint(self) -> Iterator[Finding]:
        check = "fingerprint"
        if not self.measured:
            return
        self.seen = fingerprint.look(self.kube.impatient(), self.measured)
        silent = [node.name for node in self.measured if node.name not in self.seen.kubelet]
        if silent:
            yield warning(check, f"kubelets' settings cannot be seen on {some(silent)}")
        found = fingerprint.mismatches(self.job.cluster, self.seen)
        yield from (_described(check, each) for each in found)
        if not found:
            yield ok(check, f"as cluster={self.job.cluster.name} describes them")
        told = {each.field for each in found}
        for sentence in fingerprint.unlike(self.measured):
            if not ("runtime" in sentence and "cluster.containerd_version" in told):
                yield warning(check, sentence, "upgrade the pool: az aks nodepool upgrade "
                              "--node-image-only")  # fmt: skip

    def _pull_secret(self) -> Iterator[Finding]:
        self.logins = yield from inspect_image.pull_secret(self.kube, self.job.image)

    def _image(self) -> Iterator[Finding]:
        image = self.job.image
        if self.job.cache == "salted":  # made for each trial, by whoever looks where it goes
            yield from inspect_image.platform(image, self.measured)
            return
        self.image, differs = yield from inspect_image.in_registry(image, self.logins)
        yield from (_described("image", each) for each in differs)
        yield from inspect_image.platform(image, self.measured)
        yield from inspect_image.command(image, self.image)

    def _disk(self) -> Iterator[Finding]:
        sizes = [layer.compressed_bytes for layer in self.image.layers] if self.image else []
        need = image_need(self.job.image, sizes)
        yield from inspect_nodes.disks(self.kube.impatient(), self.seen, need)

    def _kubelets(self) -> Iterator[Finding]:
        # All are scraped, those that are not measured too.
        yield from inspect_nodes.kubelet_metrics(self.kube.impatient(), self.measured, self.nodes)

    def _containerds(self) -> Iterator[Finding]:
        engine, version = self.job.engine, self.job.cluster.containerd_version
        assert isinstance(engine, schema.RealEngine)
        prefix = self.job.cluster.node_prefix  # what the additional monitor selects by
        yield from inspect_nodes.containerd_metrics(
            self.kube.impatient(),
            self.measured,
            [node for node in self.nodes if node.name.startswith(prefix)],
            engine.containerd_port,
            version,
        )

    def _monitoring(self) -> Iterator[Finding]:
        yield from inspect_cluster.monitoring(self.kube)

    def _prometheus(self) -> Iterator[Finding]:
        if not self.nodes:
            return
        yield from inspect_cluster.prometheus_pool(self.job.cluster, self.nodes, self.measured)

    def _leftovers(self) -> Iterator[Finding]:
        yield from inspect_cluster.leftovers(self.kube)

    def _lease(self) -> Iterator[Finding]:
        yield from inspect_cluster.holder(self.kube)

    def _clocks(self) -> Iterator[Finding]:
        yield from inspect_cluster.clocks(self.kube, self.measured)


def _described(check: str, mismatch: Mismatch) -> Finding:
    describe = "imgpull cluster describe > conf/cluster/mine.yaml"
    if mismatch.field.startswith("image."):
        describe = "imgpull image inspect REFERENCE --force"
    fix = f"describe it as it is ({describe}), or allow=[{mismatch.field}]"
    return failed(check, str(mismatch), fix, mismatch.field)


def _guarded(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; what breaks it is one of them."""
    try:
        yield from look()
    except ImgpullError as error:
        yield of_error(check, error, "kubectl get --raw /readyz, then imgpull doctor again")
