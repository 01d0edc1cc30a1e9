"""What a real trial takes besides its test: constants, each measured or assumed, and said to be.

Hides where they come from. Measured ones are from trials of ours on Kubernetes 1.36.2, two nodes,
an image of 264 MB (docs/real-clusters.md, "What was tried"; two are tests/data/trials). A sweep's
own earlier trials, where there are any, replace all of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from imgpull import units
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.sweep.plan import Planned


@dataclass(frozen=True)
class Overhead:
    """One step around the test, and how its length is known."""

    name: str
    took_s: float
    source: str


# Seconds, medians of what stands beside them.
PURGE = Overhead("image cache emptied", 5.5, "4 to 10 s measured, n=5")
# ASSUMPTION: one helper pod a node, as for a purge, and nothing removed.
LOOK = Overhead("image cache looked at", 4.0, "assumed: less than a purge")
START = Overhead("clusterloader starts and ends", 6.0, "5.8 s measured, n=1: its wall time - test")
READ = Overhead("late events and series", 2.0, "1.3 and 3.6 s measured, n=2")
REMOVE = Overhead("namespace removed", 6.0, "5.5 and 5.7 s measured, n=2")
JOB = Overhead("clusterloader as a Job", 3.0, "about 3 s measured, n=2")
DRY_RUN = Overhead("a cell's dry run as a Job", 7.0, "measured, n=1")
# ASSUMPTION: ClusterLoader2 looks every 30 s whether all targets are up (perf-tests
# clusterloader2/pkg/prometheus/prometheus.go), and images of the operator, Prometheus and Grafana
# are pulled before: two looks. In our trials the lab's Prometheus stood in for it.
PROMETHEUS = Overhead("Prometheus brought up", 60.0, "assumed: two of its 30 s looks")


# Bytes of archive a second at which an image is built and pushed, by its layers' compression: 5 GB
# in 49 and 26 s, n=1, the registry on the same two processors (benchmarks/image_build.py). A slower
# way to the registry is not known here.
_BUILT_BYTES_S = {"gzip": 100e6, "zstd": 190e6, "none": 190e6}


def _salted(job: Job) -> Overhead:
    took_s = sum((x.unpacked_bytes or 0) / _BUILT_BYTES_S[x.compression] for x in job.image.layers)
    return Overhead("image built and pushed", took_s, "by its size; rates measured, n=1")


def overheads(job: Job) -> tuple[Overhead, ...]:
    """The steps of every real trial around its test; none where no cluster is held."""
    if not isinstance(job.engine, schema.RealEngine):
        return ()
    settle_s = units.parse_duration(job.engine.settle)
    nodes = {"cold": PURGE, "salted": _salted(job)}.get(job.cache, LOOK)
    return (
        nodes,
        Overhead("engine.settle", settle_s, "configured"),
        START,
        *([JOB] if isinstance(job.engine, schema.InClusterEngine) else []),
        READ,
        REMOVE,
    )


def occasional(plan: Iterable[Planned]) -> list[tuple[Overhead, ...]]:
    """Of trials in running order: what only some of them wait for.

    Prometheus is brought up at the begin of a sweep on each cluster, and where its settings are not
    those of the trial before; inside a cluster a bundle is compiled once a sweep.
    """
    standing: dict[object, object] = {}
    compiled: set[str] = set()
    found: list[tuple[Overhead, ...]] = []
    for planned in plan:
        job, engine, waits = planned.job, planned.job.engine, []
        if isinstance(engine, schema.RealEngine):
            where, settings = (engine.kubeconfig, engine.context), _stack(job, engine)
            waits += [PROMETHEUS] if standing.get(where) != settings else []
            standing[where] = settings
        if isinstance(engine, schema.InClusterEngine) and planned.cell.cell_id not in compiled:
            waits.append(DRY_RUN)
            compiled.add(planned.cell.cell_id)
        found.append(tuple(waits))
    return found


def _stack(job: Job, engine: schema.RealEngine) -> object:
    """What ClusterLoader2's Prometheus is made of, as engines/trial.py hashes it."""
    cluster = job.cluster
    return repr((
        engine.kind, engine.containerd_port, job.containerd_scrape_interval_s,
        cluster.prometheus_memory_gib, cluster.prometheus_storage_class,
        dict(cluster.prometheus_node_selector), job.nodes // 1000, list(engine.flags),
        cluster.node_prefix,
    ))  # fmt: skip
