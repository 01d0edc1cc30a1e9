"""What the trials of one sweep share on a real cluster, for as long as the sweep lasts.

Hides how a cluster is held and given back: the lease, ClusterLoader2's Prometheus, labels on nodes.
Whatever way a sweep ends, `open_clusters` gives all of it back; what a killed process left is found
by its labels (imgpull janitor), and removed here when the same sweep goes on.
"""

import getpass
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgpull import units
from imgpull.cluster import lease, nodes, ownership, preflight, prometheus
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import NodeFacts
from imgpull.cluster.ownership import Owner
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines.door import Engine, Execution, Say, Tell
from imgpull.errors import EngineFailed

_TIDY_S = 600.0  # as long as ClusterLoader2 itself waits for a namespace

Where = tuple[str | None, str | None]  # kubeconfig, context


def where(engine: schema.RealEngine) -> Where:
    """Which cluster an engine means."""
    return engine.kubeconfig, engine.context


def kubeconfig_of(engine: schema.RealEngine) -> Path | None:
    """The kubeconfig that an engine names; None is the user's own."""
    return Path(engine.kubeconfig) if engine.kubeconfig else None


def connect(engine: schema.RealEngine) -> Kube:
    """The API server that an engine means; EngineUnavailable when there is no access."""
    return Kube.open(kubeconfig_of(engine), engine.context)


@dataclass
class HeldCluster:
    """One cluster while a sweep holds it."""

    kube: Kube
    sweep: str
    lease: lease.Lease
    tell: Tell
    keep_prometheus: bool
    compiled: set[str] = field(
        default_factory=set
    )  # bundles that ClusterLoader2 took in the cluster
    is_built: bool = False  # for this sweep: it was not there when bundles were checked
    prometheus_hash: str | None = None  # of the stack that this sweep brought up or took over

    def choose_nodes(self, job: Job, owner: Owner) -> list[NodeFacts]:
        """Label exactly as many nodes as the job asks for."""
        return nodes.select(self.kube, job.cluster, job.nodes, owner)

    def prepare_prometheus(self, settings: Mapping[str, Any], say: Say) -> str:
        """Make room for ClusterLoader2's Prometheus of these settings, or keep the one there is.

        Returns what was done: reused, created or rebuilt.
        """
        wanted = prometheus.settings_hash(settings)
        labels = Owner(self.sweep).labels()
        done = prometheus.prepare(self.kube, wanted, labels, say)
        if self.prometheus_hash != wanted or done != "reused":
            self.tell("prometheus", done=done, settings_hash=wanted, settings=dict(settings))
        self.prometheus_hash = wanted
        return done

    def adopt_prometheus(self) -> None:
        """Mark as ours what ClusterLoader2 has made outside its namespace since it started."""
        if self.prometheus_hash is not None:
            prometheus.adopt(self.kube, self.prometheus_hash)

    def give_back(self, say: Say) -> None:
        """Remove what the sweep made; EngineFailed names what could not be removed."""
        failed: list[str] = []
        for what, undo in (
            ("nodes", lambda: nodes.release(self.kube, self.sweep)),
            ("Prometheus", lambda: self._leave_prometheus(say)),
            ("trials", lambda: ownership.remove_trials(self.kube, self.sweep, _TIDY_S)),
        ):
            say(f"giving the cluster back: {what}")
            try:
                undo()
            except EngineFailed as error:
                failed.append(f"{what}: {error.message}")
        if failed:
            raise EngineFailed("; ".join(failed), hint="later: imgpull janitor")

    def _leave_prometheus(self, say: Say) -> None:
        if self.prometheus_hash is None or self.keep_prometheus:
            return
        prometheus.tear_down(self.kube, say)
        self.tell("prometheus", done="torn down", settings_hash=self.prometheus_hash)
        self.prometheus_hash = None


class Clusters:
    """The session of a sweep on real clusters."""

    def __init__(self, held: Mapping[Where, HeldCluster]) -> None:
        self._held = held

    def engine(self, job: Job, execution: Execution) -> Engine:
        """The engine of a job, on its held cluster."""
        from imgpull.engines.real import RealEngine

        assert isinstance(job.engine, schema.RealEngine)
        return RealEngine(job, self._held[where(job.engine)], execution)

    def require_healthy(self, job: Job) -> None:
        """Preflight again, and the lease: is it worth another trial?"""
        from imgpull.engines.real import RealEngine

        assert isinstance(job.engine, schema.RealEngine)
        self._held[where(job.engine)].lease.check()
        preflight.require(RealEngine(job).findings(held=True))


@contextmanager
def open_clusters(jobs: Sequence[Job], sweep: str, tell: Tell, say: Say) -> Iterator[Clusters]:
    """Hold every cluster that these jobs name; EngineUnavailable when another sweep does."""
    asked: dict[Where, schema.RealEngine] = {}
    for job in jobs:
        if isinstance(job.engine, schema.RealEngine):
            asked.setdefault(where(job.engine), job.engine)
    with ExitStack() as stack:
        held = {
            place: stack.enter_context(hold(engine, sweep, tell, say))
            for place, engine in asked.items()
        }
        yield Clusters(held)


@contextmanager
def hold(engine: schema.RealEngine, sweep: str, tell: Tell, say: Say) -> Iterator[HeldCluster]:
    """Hold one cluster; EngineUnavailable when another sweep does."""
    kube = connect(engine)
    try:
        say(f"taking the lease of {kube.context}")
        ownership.ensure_system_namespace(kube)
        wait_s = units.parse_duration(engine.wait_for_cluster)
        with lease.held(kube, _holder(), sweep, wait_s, say) as taken:
            cluster = HeldCluster(kube, sweep, taken, tell, engine.keep_prometheus)
            tell("held", context=kube.context, server=kube.server)
            begun = time.monotonic()
            try:
                say("removing what an earlier process of this sweep left")
                _end_abandoned(engine)
                ownership.remove_trials(kube, sweep, _TIDY_S)
                nodes.release(kube, sweep)
                preflight.require(preflight.leftovers(kube))
                yield cluster
            finally:
                cluster.give_back(say)
                tell("given back", context=kube.context, held_s=round(time.monotonic() - begun, 1))
    finally:
        kube.close()


def _end_abandoned(engine: schema.RealEngine) -> None:
    """In a container ClusterLoader2 outlives an imgpull that was killed, and goes on."""
    if isinstance(engine, schema.DockerEngine):
        from imgpull.engines.containers import Containers

        Containers(engine.command).remove_leftovers()


def _holder() -> str:
    """Who holds the cluster, for the person who is told to wait."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        user = str(os.getuid())
    return f"{user}@{platform.node()} pid {os.getpid()}"
