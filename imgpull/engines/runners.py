"""Which runner an engine's key stands for, and what PodStartupLatency meant in what it ran.

Hides the choice: a binary on this machine, an image in docker, a Job in the cluster.
"""

from pathlib import Path

from imgpull import cl2
from imgpull.cluster.kube import Kube
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines.running import Dialect, Runner


def build(job: Job, kube: Kube | None) -> Runner:
    """The runner of a job; the one inside the cluster starts nothing without `kube`."""
    engine = job.engine
    if isinstance(engine, schema.BinaryEngine):
        from imgpull.engines.process import BinaryRunner

        return BinaryRunner(engine.path)
    if isinstance(engine, schema.DockerEngine):
        from imgpull.engines.process import DockerRunner

        return DockerRunner(engine.command, engine.image, engine.digest)
    assert isinstance(engine, schema.InClusterEngine)
    from imgpull.engines.incluster import JobRunner

    return JobRunner(kube, engine.image, engine.digest, job.cluster)


# Only CL2 from 2026-05-26 on (perf-tests 09a6a61de) reports this transition.
_WATCHED = "create_to_run"


def startup_semantics(dialect: Dialect, report: Path) -> str:
    """`watch`, `mixed` (docs/real-clusters.md), or `unknown` where nothing was reported."""
    reported = cl2.read_report(report).pod_startup
    if reported:
        return "watch" if _WATCHED in reported else "mixed"
    return dialect.pod_startup_semantics or "unknown"
