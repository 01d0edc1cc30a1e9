"""The engine's door: a bundle goes in, a directory of files comes out.

Hides what runs a bundle. Nothing above may ask which engine ran: what an engine knows about its
trial it says in a Subject, what it did in an Outcome, and everything measured is in the files.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from imgpull.config import job as jobs
from imgpull.config.job import Job
from imgpull.render import Bundle

# Told the step that an engine is at, for the progress line.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What a trial is about, as far as it is known: None is unknown, never a default."""

    cell_id: str
    label: str  # what to call it where nothing differs
    factors: Mapping[str, Any]
    deployments: int | None = None
    replicas: int | None = None
    nodes: int | None = None
    cache: str | None = None
    image_reference: str | None = None
    image_digest: str | None = None
    layers: tuple[tuple[int, int | None], ...] = ()  # (compressed, unpacked) bytes
    nic_mbit_s: float | None = None
    disk_ceiling_mb_s: float | None = None  # no write is faster, burst included
    wait_timeout_s: float | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pods(self) -> int | None:
        """How many pods were asked for."""
        if self.deployments is None or self.replicas is None:
            return None
        return self.deployments * self.replicas

    def deadline_s(self, created_s: float | None) -> float:
        """When the wait for a pod created then ended; infinite when nobody knows."""
        if self.wait_timeout_s is None or created_s is None:
            return math.inf
        return created_s + self.wait_timeout_s

    @property
    def compressed_bytes(self) -> int | None:
        """What a cold pull moves over the network."""
        return sum(compressed for compressed, _ in self.layers) if self.layers else None

    @property
    def unpacked_bytes(self) -> int | None:
        """What a cold pull writes into the snapshotter."""
        sizes = [unpacked for _, unpacked in self.layers]
        return sum(size or 0 for size in sizes) if sizes and None not in sizes else None


@dataclass(frozen=True)
class Remark:
    """Something an engine saw that bears on the trial's verdict; `verdict` as in docs 4.5."""

    verdict: str  # valid: worth saying, no more
    text: str


@dataclass(frozen=True)
class Outcome:
    """What an engine did. `started_at` is what the files' seconds count from."""

    measured_by: str
    started_at: datetime | None
    virtual_s: float | None = None  # None where time was real
    versions: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str | None] = field(default_factory=dict)
    # Node -> cold, partial or warm: what it was seen to hold of the image before the load.
    held: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()
    observed: Mapping[str, Any] = field(default_factory=dict)  # of the real cluster, for job.json


@dataclass(frozen=True)
class Execution:
    """Which attempt of which trial of which sweep: names what an engine makes elsewhere."""

    sweep: str
    trial_id: str
    attempt: int = 1


class Engine(Protocol):
    """Runs one rendered bundle and leaves the files of docs/design.md 4.2.

    `renders` is False where no bundle is run (a recorded report). Whatever `run` creates outside
    `out` it removes, on Ctrl-C too.
    """

    subject: Subject
    renders: bool

    def check(self) -> None:
        """Raise EngineUnavailable or ConfigError, with the fix, if this engine cannot run here."""

    def validate(self, files: Mapping[str, str]) -> None:
        """Raise RenderError if this engine could not run a bundle of these texts by file name."""

    def run(self, bundle: Bundle | None, out: Path, say: Say) -> Outcome:
        """Run once, leaving report/, events.jsonl, pods.csv, series.csv in `out`.

        Raises EngineFailed, with the log's tail, if it breaks.
        """


# Told what happened to what a sweep's trials share, for the ledger: an event and its data.
Tell = Callable[..., None]


class Session(Protocol):
    """What the trials of one sweep share: a held cluster, its Prometheus; nothing, if simulated."""

    def engine(self, job: Job, execution: Execution) -> Engine:
        """The engine that runs this execution of a job."""

    def require_healthy(self, job: Job) -> None:
        """EngineUnavailable or ConfigError when what the trials share could run no further one."""


def subject_of(job: Job, **measured: Any) -> Subject:
    """The subject of a job that runs as configured; `measured` adds to the fingerprint."""
    cluster, node, is_ours = job.cluster, job.cluster.node, job.ready_made is None
    load = f" r{job.replicas}" if is_ours else ""
    return Subject(
        cell_id=jobs.cell_id(job),
        label=f"{job.image.name} n{job.nodes}{load}",
        factors=jobs.factors(job),
        deployments=job.deployments if is_ours else None,
        replicas=job.replicas if is_ours else None,
        nodes=job.nodes,
        cache=job.cache,
        image_reference=job.image.pinned_reference,
        image_digest=job.image.digest,
        layers=tuple((x.compressed_bytes, x.unpacked_bytes) for x in job.image.layers),
        nic_mbit_s=node.nic_mbit_s,
        disk_ceiling_mb_s=node.disk_burst_mb_s or node.disk_write_mb_s,
        wait_timeout_s=job.wait_timeout_s if is_ours else None,
        fingerprint={
            "engine": job.engine.kind,
            "vm_size": node.vm_size,
            "disk": node.os_disk,
            "kubernetes": ".".join(cluster.kubernetes_version.split(".")[:2]),
            "containerd": cluster.containerd_version,
            "registry": cluster.registry.sku,
            "region": cluster.region,
            "image_layers": jobs.content_id(
                {str(i): (x.compressed_bytes, x.unpacked_bytes, x.compression)
                 for i, x in enumerate(job.image.layers)}
            ),
            **measured,
        },
    )  # fmt: skip
