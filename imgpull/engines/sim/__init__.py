"""engine=sim: reads a rendered bundle as ClusterLoader2 would and leaves what CL2 would leave.

Hides virtual time. The test (Deployments, pacing, waits, queries) is taken from the bundle alone;
only the world (cluster, what its registry has, its nodes hold and goes wrong, seed, trial) comes
from the job. Nothing here is a measurement, and every file says so.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from imgpull import __version__, exporters, render, units
from imgpull.config import schema
from imgpull.config.image import Layer
from imgpull.config.job import Job
from imgpull.engines.door import Outcome, Say, subject_of
from imgpull.engines.sim.subset import require_playable
from imgpull.errors import ConfigError, RenderError
from imgpull.render import OVERRIDES, Bundle
from imgpull.simcluster import model


class SimEngine:
    """A simulated cluster in virtual time; see imgpull.simcluster for the physics."""

    renders = True

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: model.World | None = None
        # Pod startup as CL2 measures it since 2026-05: from watch events alone.
        self.subject = subject_of(job, pod_startup_semantics="watch")

    def _world(self) -> model.World:
        if self._made is None:
            self._made = _world(self._job)
        return self._made

    def check(self) -> None:
        """ConfigError when the world cannot be simulated."""
        if not self._job.image.layers:
            raise ConfigError(
                f"image '{self._job.image.name}' has no layer table, which the simulator needs",
                hint="add image.layers (see conf/image/pytorch_large.yaml)",
            )
        self._world()

    def validate(self, files: Mapping[str, str]) -> None:
        """RenderError when the bundle asks for what the simulator does not know."""
        require_playable(render.load(files), self._world())
        _scrape_interval_s(files)

    def run(self, bundle: Bundle | None, out: Path, say: Say) -> Outcome:
        """Simulate the bundle and leave CL2's report, events, pods and series."""
        # Checking a matrix needs neither.
        from imgpull.engines.sim.gathered import EPOCH
        from imgpull.engines.sim.interpreter import Interpreter

        if bundle is None:
            raise RenderError("the simulator was given no bundle", hint="this is a bug: report it")
        files = render.read(bundle)
        test = render.load(files)
        run = Interpreter(self._world(), test, _scrape_interval_s(files))
        for step in test.steps:
            say(step.name)
            run.step(step)
        run.finish(out)
        return Outcome(
            measured_by=f"imgpull {__version__} simulator (simulated, not measured)",
            started_at=EPOCH,
            virtual_s=run.clock_s,
            versions={
                "kubernetes": self._job.cluster.kubernetes_version,
                "containerd": self._job.cluster.containerd_version,
            },
        )


def _world(job: Job) -> model.World:
    cluster, node, engine = job.cluster, job.cluster.node, job.engine
    assert isinstance(engine, schema.SimEngine)
    assert node.nic_mbit_s is not None  # config.job refuses a simulation without these
    assert node.disk_write_mb_s is not None
    tables = {job.image.pinned_reference: job.image.layers, **job.further_images}
    return model.World(
        node_names=tuple(f"{cluster.node_prefix}{index:06d}" for index in range(job.nodes)),
        node=model.Node(
            vcpus=node.vcpus,
            memory_bytes=round(node.memory_gib * units.GIB),
            nic_bytes_s=node.nic_mbit_s * 1e6 / 8,
            disk_write_bytes_s=node.disk_write_mb_s * 1e6,
            max_pods=node.max_pods,
            disk_burst_bytes_s=node.disk_burst_mb_s and node.disk_burst_mb_s * 1e6,
            disk_burst_s=node.disk_burst_minutes * 60 if node.disk_burst_mb_s else 0.0,
        ),
        registry=_registry(cluster),
        kubelet=model.Kubelet(
            version=cluster.kubernetes_version,
            serialize_image_pulls=cluster.kubelet.serializeImagePulls,
            max_parallel_image_pulls=cluster.kubelet.maxParallelImagePulls,
            registry_pull_qps=cluster.kubelet.registryPullQPS,
            registry_burst=cluster.kubelet.registryBurst,
        ),
        containerd=_containerd(cluster),
        rates=_rates(engine),
        images={reference: _layers(reference, table) for reference, table in tables.items()},
        seed=job.seed,
        trial=job.trial,
        held=_held(job, engine),
        faults=_faults(engine.faults),
    )


def _registry(cluster: schema.Cluster) -> model.Registry:
    told = cluster.registry
    link_mbit_s = math.inf if told.zone_link_mbit_s is None else told.zone_link_mbit_s
    return model.Registry(
        egress_bytes_s=told.egress_mbit_s * 1e6 / 8,
        connection_bytes_s=told.connection_mb_s * 1e6,
        first_byte_s=told.first_byte_ms / 1e3,
        requests_s=told.requests_per_minute and told.requests_per_minute / 60,
        requests_burst=told.requests_burst,
        zones=cluster.zones,
        zone_link_bytes_s=link_mbit_s * 1e6 / 8,
    )


def _containerd(cluster: schema.Cluster) -> model.Containerd:
    told = cluster.containerd
    timeout_s = units.parse_duration(told.image_pull_progress_timeout)
    # It came with 1.7; containerd v2.3.4 internal/cri/server/images: 0 starts no watch.
    watched = timeout_s > 0 and exporters.version_tuple(cluster.containerd_version) >= (1, 7)
    return model.Containerd(
        version=cluster.containerd_version,
        max_concurrent_downloads=told.max_concurrent_downloads,
        max_concurrent_unpacks=told.max_concurrent_unpacks,
        concurrent_layer_fetch_buffer=told.concurrent_layer_fetch_buffer,
        image_pull_progress_timeout_s=timeout_s if watched else math.inf,
    )


def _layers(reference: str, table: Iterable[Layer]) -> tuple[model.Layer, ...]:
    layers: list[model.Layer] = []
    for index, layer in enumerate(table):
        if layer.unpacked_bytes is None:
            raise ConfigError(
                f"image.layers[{index}].unpacked_bytes of {reference} is not known, and the "
                "simulator needs it",
                hint="imgpull image inspect REFERENCE --download measures it, or choose a real "
                "engine",
            )
        digest = layer.digest or f"{reference}#{index}"
        layers.append(
            model.Layer(digest, layer.compressed_bytes, layer.unpacked_bytes, layer.compression)
        )
    return tuple(layers)


def _held(job: Job, engine: schema.SimEngine) -> model.Held:
    """What `cache` promises, or as_is what engine.held says."""
    promised = {"cold": schema.Held(), "salted": schema.Held(), "warm": schema.Held(images=True)}
    told = promised.get(job.cache, engine.held)
    reference = job.image.pinned_reference
    digests = [layer.digest for layer in _layers(reference, job.image.layers)]
    unpacked = len(digests) if told.images else told.snapshots
    return model.Held(
        snapshots=frozenset(digests[:unpacked]),
        blobs=frozenset(digests[unpacked : unpacked + told.blobs]),
        images=frozenset({reference} if told.images else ()),
        nodes_share=told.nodes_share,
    )


def _faults(told: schema.Faults) -> model.Faults:
    seconds = units.parse_duration
    return model.Faults(
        pull_shares={fault: share for fault, share in asdict(told.pull_shares).items() if share},
        slow_nodes=told.slow_nodes,
        slow_factor=told.slow_factor,
        lost_nodes=told.lost_nodes,
        lost_s=seconds(told.lost_at),
        restarted_nodes=told.restarted_nodes,
        restarted_s=seconds(told.restarted_at),
        restart_takes_s=seconds(told.restart_takes),
        brown_outs=tuple(
            model.BrownOut(seconds(each.begin), seconds(each.end), each.egress_share)
            for each in told.brown_outs
        ),
        event_loss_share=told.event_loss_share,
    )


# A spread or a short step may be left out; without any other the model would divide by zero or
# stand still.
_MAY_BE_ZERO = ("_sigma", "_commit_s", "present_s")


def _rates(engine: schema.SimEngine) -> model.Rates:
    known = {item.name: item.type for item in fields(model.Rates)}
    for name, value in engine.rates.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise ConfigError(
                f"unknown key 'engine.rates.{name}'",
                hint=f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(known)}",
            )
        _check_rate(name, value, whole=known[name] is int)
    missing = [name for name in known if name not in engine.rates]
    if missing:
        raise ConfigError(
            f"engine.rates.{missing[0]} has no value", hint="see conf/engine/sim.yaml"
        )
    values: dict[str, Any] = {
        name: int(value) if known[name] is int else value for name, value in engine.rates.items()
    }
    return model.Rates(**values)


def _check_rate(name: str, value: float, *, whole: bool) -> None:
    zero = value == 0 and name.endswith(_MAY_BE_ZERO)
    if not (0 < value < math.inf or zero):
        wrong = "below zero" if name.endswith(_MAY_BE_ZERO) else "not above zero"
    elif whole and value != int(value):
        wrong = "no whole number"
    elif name.endswith("_share") and value > 1:
        wrong = "no share: above 1"
    else:
        return
    raise ConfigError(f"engine.rates.{name}={value} is {wrong}", hint="see conf/engine/sim.yaml")


def _scrape_interval_s(files: Mapping[str, str]) -> float:
    # 30 s is the default of Azure's CL2, which knows this key.
    written = render.overrides(files).get("CONTAINERD_SCRAPE_INTERVAL", "30s")
    try:
        interval_s = units.parse_duration(written)
    except (TypeError, ValueError) as error:
        raise RenderError(f"{OVERRIDES}: {error}", hint=f"correct templates/{OVERRIDES}") from error
    if interval_s <= 0:
        raise RenderError(
            f"{OVERRIDES}: CONTAINERD_SCRAPE_INTERVAL is not above zero", hint="write 15s"
        )
    return interval_s
