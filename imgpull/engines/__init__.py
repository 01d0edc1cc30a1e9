"""The engines, and the choice of one: what is above sees only the door they share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines.building import Building
from imgpull.engines.door import (
    Engine,
    Execution,
    Outcome,
    Remark,
    Say,
    Session,
    Subject,
    Tell,
    subject_of,
)

Place = tuple[str | None, str | None]

__all__ = [
    "Apart",
    "Building",
    "Engine",
    "Execution",
    "Outcome",
    "Place",
    "Remark",
    "Say",
    "Session",
    "Subject",
    "Tell",
    "build",
    "check_unbuilt",
    "is_real",
    "place",
    "session",
    "subject_of",
]


def build(job: Job) -> Engine:
    """The engine that a job asks for, outside any sweep: it can check, and say its subject."""
    if isinstance(job.engine, schema.ReplayEngine):
        from imgpull.engines.replay import ReplayEngine

        return ReplayEngine(Path(job.engine.report))
    if isinstance(job.engine, schema.RealEngine):
        from imgpull.engines.real import RealEngine

        return RealEngine(job)
    from imgpull.engines.sim import SimEngine

    return SimEngine(job)


def check_unbuilt(job: Job) -> None:
    """What can be known of a job whose cluster the sweep builds; ConfigError, EngineUnavailable."""
    if is_real(job):
        from imgpull.engines.built import check_unbuilt as check

        check(job)


def is_real(job: Job) -> bool:
    """Whether a job holds a real cluster, so that its trials run one at a time."""
    return isinstance(job.engine, schema.RealEngine)


def place(job: Job) -> Place | None:
    """The real cluster that a job holds, as (kubeconfig, context); None where it holds none."""
    engine = job.engine
    return (engine.kubeconfig, engine.context) if isinstance(engine, schema.RealEngine) else None


class Apart:
    """The session of trials that share nothing."""

    def engine(self, job: Job, execution: Execution) -> Engine:
        """The engine of a job."""
        return build(job)

    def require_healthy(self, job: Job) -> None:
        """Nothing is shared that could break."""


@contextmanager
def session(
    jobs: Sequence[Job], sweep: str, tell: Tell, say: Say, building: Building | None = None
) -> Iterator[Session]:
    """While this lasts, the trials of these jobs can run; what they share is given back at the end.

    `sweep` names what is made on a cluster; `building` has one built for it. EngineUnavailable when
    the cluster cannot be had.
    """
    if not any(is_real(job) for job in jobs):
        yield Apart()
        return
    if building is not None:
        from imgpull.engines.built import open_built

        with open_built(jobs, sweep, tell, say, building) as built:
            yield built
        return
    from imgpull.engines.held import open_clusters

    with open_clusters(jobs, sweep, tell, say) as shared:
        yield shared
