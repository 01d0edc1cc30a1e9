"""What a real trial takes besides its test: constants, each measured or assumed, and said to be.

Hides where they come from. Measured ones are from three trials of ours on Kubernetes 1.36.2, two
nodes, an image of 264 MB (docs/real-clusters.md, "What was tried"; two are tests/data/trials). A
sweep's own earlier trials, where there are any, replace all of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from imgpull import units
from imgpull.config import schema
from imgpull.config.job import Job


@dataclass(frozen=True)
class Overhead:
    """One step around the test, and how its length is known."""

    name: str
    took_s: float
    source: str


# Seconds. `stages_s` are job.json's `observed.stages_s` of the two recorded trials.
PURGE = Overhead("image cache emptied", 7.0, "5.5, 6.6 and 10 s measured, n=3")
# ASSUMPTION: one helper pod a node, as for a purge, and nothing removed.
LOOK = Overhead("image cache looked at", 5.0, "assumed: less than a purge")
START = Overhead("clusterloader starts and ends", 6.0, "5.8 s measured, n=1: its wall time - test")
READ = Overhead("late events and series", 2.0, "1.3 and 3.6 s measured, n=2")
REMOVE = Overhead("namespace removed", 6.0, "5.5 and 5.7 s measured, n=2")
JOB = Overhead("clusterloader as a Job", 5.0, "about 5 s measured, n=1")
# ASSUMPTION: ClusterLoader2 looks every 30 s whether all targets are up (perf-tests
# clusterloader2/pkg/prometheus/prometheus.go), and images of the operator, Prometheus and Grafana
# are pulled before: two looks. In our trials the lab's Prometheus stood in for it.
PROMETHEUS = Overhead("Prometheus brought up", 60.0, "assumed: two of its 30 s looks")


def overheads(job: Job, *, brings_prometheus_up: bool = False) -> tuple[Overhead, ...]:
    """The steps of a real trial around its test; none where no cluster is held."""
    if not isinstance(job.engine, schema.RealEngine):
        return ()
    settle_s = units.parse_duration(job.engine.settle)
    return (
        PURGE if job.cache == "cold" else LOOK,
        Overhead("engine.settle", settle_s, "configured"),
        *([PROMETHEUS] if brings_prometheus_up else []),
        START,
        *([JOB] if isinstance(job.engine, schema.InClusterEngine) else []),
        READ,
        REMOVE,
    )


def bring_ups(jobs: Iterable[Job]) -> list[bool]:
    """Of trials in running order: whether each must wait for a Prometheus to be brought up.

    One does at the begin of a sweep on each cluster, and where its settings are not those of the
    trial before.
    """
    standing: dict[object, object] = {}
    found = []
    for job in jobs:
        engine = job.engine
        if not isinstance(engine, schema.RealEngine):
            found.append(False)
            continue
        where = engine.kubeconfig, engine.context
        settings = _stack(job, engine)
        found.append(standing.get(where) != settings)
        standing[where] = settings
    return found


def _stack(job: Job, engine: schema.RealEngine) -> object:
    """What ClusterLoader2's Prometheus is made of, as engines/trial.py hashes it."""
    cluster = job.cluster
    return repr((
        engine.kind, engine.containerd_port, job.containerd_scrape_interval_s,
        cluster.prometheus_memory_gib, cluster.prometheus_storage_class,
        dict(cluster.prometheus_node_selector), job.nodes // 1000, list(engine.flags),
    ))  # fmt: skip
