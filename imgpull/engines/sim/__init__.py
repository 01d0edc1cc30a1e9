"""engine=sim: reads a rendered bundle as ClusterLoader2 would and leaves what CL2 would leave.

Hides virtual time. The test (Deployments, pacing, waits, queries) is taken from the bundle alone;
only the world (cluster, nodes, the image's layers in its registry, cache, seed, trial) comes from
the job. Nothing here is a measurement, and every file says so.
"""

from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from imgpull import __version__, cl2, units
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines.door import Outcome, Say, subject_of
from imgpull.engines.sim.gathered import EPOCH
from imgpull.engines.sim.interpreter import Interpreter
from imgpull.engines.sim.subset import require_playable
from imgpull.errors import ConfigError, RenderError
from imgpull.render import OVERRIDES, Bundle
from imgpull.simcluster import model


class SimEngine:
    """A simulated cluster in virtual time; see imgpull.simcluster for the physics."""

    renders = True

    def __init__(self, job: Job) -> None:
        self._job = job
        # Pod startup as CL2 measures it since 2026-05: from watch events alone.
        self.subject = subject_of(job, pod_startup_semantics="watch")

    def check(self) -> None:
        """ConfigError when the world cannot be simulated."""
        if not self._job.image.layers:
            raise ConfigError(
                f"image '{self._job.image.name}' has no layer table, which the simulator needs",
                hint="add image.layers (see conf/image/pytorch_large.yaml)",
            )
        _world(self._job)

    def validate(self, bundle: Bundle) -> None:
        """RenderError when the bundle asks for what the simulator does not know."""
        require_playable(cl2.load_test(bundle.test_config), _world(self._job))
        _scrape_interval_s(bundle)

    def run(self, bundle: Bundle | None, out: Path, say: Say) -> Outcome:
        """Simulate the bundle and leave CL2's report, events, pods and series."""
        if bundle is None:
            raise RenderError("the simulator was given no bundle", hint="this is a bug: report it")
        test = cl2.load_test(bundle.test_config)
        run = Interpreter(_world(self._job), test, _scrape_interval_s(bundle))
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
    cluster, node, registry = job.cluster, job.cluster.node, job.cluster.registry
    assert isinstance(job.engine, schema.SimEngine)
    return model.World(
        node_names=tuple(f"{cluster.node_prefix}{index:06d}" for index in range(job.nodes)),
        node=model.Node(
            vcpus=node.vcpus,
            memory_bytes=round(node.memory_gib * units.GIB),
            nic_bytes_s=node.nic_mbit_s * 1e6 / 8,
            disk_write_bytes_s=node.disk_write_mb_s * 1e6,
            max_pods=node.max_pods,
        ),
        registry=model.Registry(
            egress_bytes_s=registry.egress_mbit_s * 1e6 / 8,
            connection_bytes_s=registry.connection_mb_s * 1e6,
            first_byte_s=registry.first_byte_ms / 1e3,
        ),
        kubelet=model.Kubelet(
            version=cluster.kubernetes_version,
            serialize_image_pulls=cluster.kubelet.serializeImagePulls,
            max_parallel_image_pulls=cluster.kubelet.maxParallelImagePulls,
            registry_pull_qps=cluster.kubelet.registryPullQPS,
            registry_burst=cluster.kubelet.registryBurst,
        ),
        containerd=model.Containerd(
            version=cluster.containerd_version,
            max_concurrent_downloads=cluster.containerd.max_concurrent_downloads,
        ),
        rates=_rates(job.engine),
        image_reference=job.image.pinned_reference,
        layers=tuple(
            model.Layer(
                f"{job.image.reference}#{index}",
                layer.compressed_bytes,
                layer.unpacked_bytes,
                layer.compression,
            )
            for index, layer in enumerate(job.image.layers)
        ),
        image_present=job.cache == "warm",
        seed=job.seed,
        trial=job.trial,
    )


def _rates(engine: schema.SimEngine) -> model.Rates:
    known = {item.name: item.type for item in fields(model.Rates)}
    for name, value in engine.rates.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise ConfigError(
                f"unknown key 'engine.rates.{name}'",
                hint=f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(known)}",
            )
        if value < 0 or (value == 0 and not name.endswith("_sigma")):
            raise ConfigError(
                f"engine.rates.{name}={value} is not above zero", hint="see conf/engine/sim.yaml"
            )
    missing = [name for name in known if name not in engine.rates]
    if missing:
        raise ConfigError(
            f"engine.rates.{missing[0]} has no value", hint="see conf/engine/sim.yaml"
        )
    values: dict[str, Any] = {
        name: int(value) if known[name] is int else value for name, value in engine.rates.items()
    }
    return model.Rates(**values)


def _scrape_interval_s(bundle: Bundle) -> float:
    path = bundle.directory / OVERRIDES
    try:
        overrides = yaml.safe_load(path.read_text("utf-8")) or {}
        # 30 s is the default of Azure's CL2, which knows this key.
        interval_s = units.parse_duration(overrides.get("CONTAINERD_SCRAPE_INTERVAL", "30s"))
    except (AttributeError, OSError, ValueError, yaml.YAMLError) as error:
        raise RenderError(f"{OVERRIDES}: {error}", hint=f"correct templates/{OVERRIDES}") from error
    if interval_s <= 0:
        raise RenderError(
            f"{OVERRIDES}: CONTAINERD_SCRAPE_INTERVAL is not above zero", hint="write 15s"
        )
    return interval_s
