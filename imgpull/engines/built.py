"""A cluster that is built for a sweep, and brought to each trial's shape before the trial.

Hides when Terraform is run: at the opening, at another shape, when the expiry comes near, and at
the end. A sweep that ended well gives the cluster back; one that did not keeps it, so that it can
be resumed: its name follows from the sweep's, so that it is found again.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from imgpull import provisioning
from imgpull.cluster import preflight
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines import runners
from imgpull.engines.building import Building
from imgpull.engines.door import Engine, Execution, Say, Tell
from imgpull.engines.held import HeldCluster, hold
from imgpull.engines.running import silent
from imgpull.errors import ConfigError, EngineFailed, ImgpullError
from imgpull.provisioning.lifecycle import Provisioned, Standing
from imgpull.provisioning.running import find, limits_of
from imgpull.provisioning.shapes import Shape, shape_of
from imgpull.provisioning.variables import PLACEHOLDER

VARIABLES = "provisioned"  # folder of the sweep's directory: the variables of each shape
_ROOM_S = 3600.0  # of the expiry, beyond what is predicted
_MORE = 1.5  # predictions are often too short


def check_unbuilt(job: Job) -> None:
    """ConfigError, EngineUnavailable: what can be known before there is a cluster."""
    engine = job.engine
    assert isinstance(engine, schema.RealEngine)
    for key in ("kubeconfig", "context"):
        if (value := getattr(engine, key)) is not None:
            raise ConfigError(
                f"engine.{key}={value} names a cluster that exists, and provision=terraform builds "
                "its own",
                hint=f"leave engine.{key} at null, or use provision=existing",
            )
    shape_of(job)
    check_image(job)
    for program, fix in provisioning.PROGRAMS.items():
        find(program, fix)
    runners.build(job, None).check(silent)


def check_image(job: Job) -> None:
    """ConfigError for an image in a registry that is made with the cluster: it would be empty."""
    cluster, host = job.cluster, job.image.reference.partition("/")[0]
    if cluster.azure.registry != "create" or host != cluster.registry.server:
        return
    if host == PLACEHOLDER or job.cache == "salted":  # none is made; or images are built into it
        return
    name = host.partition(".")[0]
    raise ConfigError(
        f"image.reference={job.image.reference}, but {host} is made with the cluster and holds no "
        "image then",
        hint="make the registry once, push to it, then cluster.azure.registry="
        f"$(az acr show --name {name} --query id -o tsv)",
    )


def cluster_name(sweep: str) -> str:
    """The name of a sweep's cluster: short, for Azure makes longer names of it."""
    told, _, digest = sweep.rpartition("-")
    plain = "".join(each if each.isalnum() or each in "-_" else "-" for each in told)
    return f"{plain[:16].strip('-_') or 'sweep'}-{digest}"


class BuiltCluster:
    """The cluster of one sweep, as Terraform has it."""

    def __init__(self, sweep: str, jobs: int, tell: Tell, say: Say, building: Building) -> None:
        self.name = cluster_name(sweep)
        self.shape: Shape | None = None  # None: unknown after a change that failed
        self.made: Provisioned | None = None
        self._sweep, self._jobs, self._tell, self._say = sweep, jobs, tell, say
        self._building = building
        self._limits = limits_of(building.limit_s)
        self._meter = _Meter()
        self._failed: dict[tuple[Shape, int], ImgpullError] = {}
        self._begun = 0  # trials
        self._opening = True

    def require_room(self, jobs: Sequence[Job]) -> None:
        """EngineUnavailable when a later shape would not fit: better known before the first."""
        largest: dict[str, Shape] = {}
        for shape in map(shape_of, jobs):
            known = largest.setdefault(shape.vm_size, shape)
            largest[shape.vm_size] = max(known, shape, key=lambda each: each.nodes)
        if len(set(map(shape_of, jobs))) > 1:
            self._say("looking whether the quota has room for every shape")
            machines = [shape.machines for shape in largest.values()]
            provisioning.require_room(self.name, jobs[0], machines, self._limits)

    def bring(self, job: Job, attempt: int = 1) -> None:
        """Have the shape that this Job wants, for as long as it may take.

        What a shape could not be had for is raised again for its other trials: each attempt may
        take hours. A further attempt of a trial tries anew.
        """
        wanted = shape_of(job)
        if before := self._failed.get((wanted, attempt)):
            raise before
        if wanted != self.shape or self._ends_too_soon(job):
            try:
                self._change(job, wanted)
            except ImgpullError as error:
                self._failed[wanted, attempt] = error
                raise
        self._begun += 1

    def _change(self, job: Job, wanted: Shape) -> None:
        before, self.shape = self.shape, None
        self._say(f"bringing the cluster {self.name} to {wanted.text}")
        begun = time.monotonic()
        self._meter.at(wanted)
        try:
            made = provisioning.ensure(
                job, self._say, name=self.name, sweep=self._sweep, limits=self._limits,
                until=self._until(job), lasting=self._building.announce,
            )  # fmt: skip
        except ImgpullError as error:
            if provisioning.standing(self.name) is None:
                self._meter.at(None)
            self._tell(
                "provisioning failed", cluster=self.name, why=error.message,
                left=provisioning.standing(self.name) is not None,
                **self._told(wanted, time.monotonic() - begun),
            )  # fmt: skip
            raise
        self._meter.at(wanted)
        self.made, self.shape = made, wanted
        self._note(made, wanted, before, time.monotonic() - begun)

    def _note(self, made: Provisioned, shape: Shape, before: Shape | None, seconds: float) -> None:
        """Keep the variables with the sweep, and tell the ledger."""
        folder = self._building.directory / VARIABLES
        folder.mkdir(exist_ok=True)
        copy = folder / f"{shape.name}.tfvars.json"
        shutil.copyfile(made.variables, copy)
        done = "created" if made.is_new else "found" if not made.changes else "changed"
        self._tell(
            "provisioned",
            cluster=self.name,
            done="extended" if shape == before and made.changes else done,
            changes=[f"{each.action} {each.address}" for each in made.changes],
            expiry=made.expiry.isoformat() if made.expiry else None,
            variables=f"{VARIABLES}/{copy.name}",
            **self._told(shape, seconds),
        )
        self._opening = False

    def _told(self, shape: Shape, seconds: float) -> dict[str, Any]:
        """What the ledger has of every change."""
        return {
            "opening": self._opening,
            "shape": shape.text,
            "seconds": round(seconds, 1),
            "node_hours": round(seconds * shape.all_nodes / 3600, 4),
            "machines": [[each.what, each.vm_size, each.count] for each in shape.machines],
            "region": shape.region,
        }

    def _ends_too_soon(self, job: Job) -> bool:
        """Whether the expiry may come before the end of a trial that begins now."""
        expiry = self.made.expiry if self.made else None
        return expiry is not None and expiry < _in(job.trial_limit_s)

    def _until(self, job: Job) -> datetime:
        """Until when the cluster is needed, with room."""
        left_s = job.trial_limit_s
        if self._building.lasts_s is not None:
            share = max(0.0, 1 - self._begun / self._jobs)
            left_s = max(left_s, self._building.lasts_s * share * _MORE)
        return _in(left_s + _ROOM_S)

    def placed(self, job: Job) -> Job:
        """The Job on this cluster."""
        assert self.made is not None
        assert isinstance(job.engine, schema.RealEngine)
        access, context = str(self.made.kubeconfig), self.made.context
        return replace(job, engine=replace(job.engine, kubeconfig=access, context=context))

    def leave(self, *, unused: bool = False) -> bool:
        """Give the cluster back when the sweep ended well, or nothing ran; else keep it.

        Returns whether it is gone. EngineFailed lists what could not be removed.
        """
        building, made = self._building, self.made
        well = building.done_with()
        if made is not None and ((unused and made.is_new) or (well and not building.keep)):
            self._destroy()
            return True
        standing = provisioning.standing(self.name)
        if standing is None:
            return True
        self._tell_kept(standing, well=well)
        return False

    def _destroy(self) -> None:
        begun = time.monotonic()
        told = {"cluster": self.name, "shape": self.shape.text if self.shape else None}
        self._say(f"destroying the cluster {self.name}")
        try:
            provisioning.give_back(self.name, self._say, limits=self._limits)
        except BaseException as error:
            self._building.announce(f"not all of the cluster {self.name} is destroyed")
            self._building.announce(f"end it:  imgpull cluster down {self.name}")
            why = error.message if isinstance(error, ImgpullError) else type(error).__name__
            self._tell("given back", **told, done="failed", why=why,
                       node_hours=self._meter.node_hours())  # fmt: skip
            raise
        self._meter.at(None)
        self._tell(
            "given back", **told, done="destroyed", seconds=round(time.monotonic() - begun, 1),
            node_hours=self._meter.node_hours(),
        )  # fmt: skip

    def _tell_kept(self, standing: Standing, *, well: bool) -> None:
        building = self._building
        until = f"{standing.expiry:%Y-%m-%d %H:%M} UTC"
        cost = building.cost(standing.machines, standing.region)
        building.announce(
            f"the cluster {self.name} is kept: {cost}; it expires at {until}, and nothing ends it "
            "by itself"
        )
        if not well and (building.directory / "multirun.yaml").exists():
            building.announce(f"go on:   imgpull resume {building.directory}")
        building.announce(f"end it:  imgpull cluster down {self.name}")
        building.announce("or, by cron, once it is expired: imgpull janitor --azure --yes")
        self._tell(
            "given back", cluster=self.name, shape=self.shape.text if self.shape else None,
            done="kept", seconds=0.0, node_hours=self._meter.node_hours(),
            expiry=standing.expiry.isoformat(),
        )  # fmt: skip


class BuiltSession:
    """The session of a sweep whose cluster is built for it."""

    def __init__(self, cluster: BuiltCluster, held: HeldCluster) -> None:
        self._cluster, self._held = cluster, held

    def engine(self, job: Job, execution: Execution) -> Engine:
        """The engine of a job, once the cluster has its shape."""
        from imgpull.engines import build
        from imgpull.engines.real import RealEngine

        if not isinstance(job.engine, schema.RealEngine):
            return build(job)
        self._cluster.bring(job, execution.attempt)
        placed = self._cluster.placed(job)
        RealEngine(placed).check()
        return RealEngine(placed, self._held, execution)

    def require_healthy(self, job: Job) -> None:
        """The lease, and preflight where the cluster has the job's shape now."""
        from imgpull.engines.real import RealEngine

        self._held.lease.check()
        if self._cluster.shape == shape_of(job):
            preflight.require(RealEngine(self._cluster.placed(job)).findings(held=True))


@contextmanager
def open_built(
    jobs: Sequence[Job], sweep: str, tell: Tell, say: Say, building: Building
) -> Iterator[BuiltSession]:
    """Have a cluster in the first job's shape; one that cannot be had is destroyed.

    EngineFailed at the end when something of it could not be removed.
    """
    real = [job for job in jobs if isinstance(job.engine, schema.RealEngine)]
    cluster = BuiltCluster(sweep, len(real), tell, say, building)
    opened = False
    try:
        cluster.require_room(real)
        cluster.bring(real[0])
        engine = cluster.placed(real[0]).engine
        assert isinstance(engine, schema.RealEngine)
        with hold(engine, sweep, tell, say) as held:
            held.is_built = opened = True
            yield BuiltSession(cluster, held)
    except EngineFailed:
        # What could not be tidied up is gone when the cluster is.
        if not cluster.leave(unused=not opened) or not opened:
            raise
    except BaseException:
        cluster.leave(unused=not opened)
        raise
    else:
        cluster.leave()


class _Meter:
    """Hours of all nodes, as the cluster goes from shape to shape."""

    def __init__(self) -> None:
        self._nodes, self._since, self._hours = 0, time.monotonic(), 0.0

    def at(self, shape: Shape | None) -> None:
        """From now on it has this shape."""
        now = time.monotonic()
        self._hours += self._nodes * (now - self._since) / 3600
        self._since, self._nodes = now, shape.all_nodes if shape else 0

    def node_hours(self) -> float:
        """Until now."""
        return round(self._hours + self._nodes * (time.monotonic() - self._since) / 3600, 4)


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
