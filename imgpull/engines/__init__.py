"""The engines, and the choice of one: what is above sees only the door they share."""

from pathlib import Path

from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines.door import Engine, Outcome, Say, Subject, subject_of

__all__ = ["Engine", "Outcome", "Say", "Subject", "build", "subject_of"]


def build(job: Job) -> Engine:
    """The engine that a job asks for."""
    if isinstance(job.engine, schema.ReplayEngine):
        from imgpull.engines.replay import ReplayEngine

        return ReplayEngine(Path(job.engine.report))
    from imgpull.engines.sim import SimEngine

    return SimEngine(job)
