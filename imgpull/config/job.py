"""A composed configuration becomes a Job: frozen, typed, checked, and named by its content.

Hides parsing and checking: nothing above this file sees a DictConfig, a size as text or a value
that cannot be. What is wrong raises ConfigError; what is allowed but likely a mistake is a note.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from imgpull import units
from imgpull.config import checks, readymade, schema
from imgpull.config.engine import check_fit, check_real, engine_from
from imgpull.config.image import Image, Layer, check_digests, image_from, layers_from
from imgpull.config.sweeping import settings_of
from imgpull.config.typed import Shared, no_value, typed
from imgpull.errors import ConfigError

# Values of `cache` with which nodes hold nothing of the image when the load begins.
EMPTY = ("cold", "salted")


@dataclass(frozen=True)
class Job:
    """One trial of one cell, ready to render. Names without a unit count things."""

    deployments: int
    replicas: int
    qps: float
    nodes: int
    image: Image
    cluster: schema.Cluster
    engine: schema.Engine
    further_images: Mapping[str, tuple[Layer, ...]]  # of the simulated registry, by reference
    cache: str
    trial: int
    pod_startup_threshold_s: float
    wait_timeout_s: float
    metrics_wait_s: float | None  # None: auto
    containerd_scrape_interval_s: float
    seed: int
    trial_limit_s: float
    allow: tuple[str, ...]  # fields whose mismatch with the real cluster is accepted
    # A test that the user brings, by file name: it decides on its load and its waits itself.
    ready_made: Mapping[str, str] | None = None

    @property
    def pods(self) -> int:
        """How many pods the Deployments ask for."""
        return self.deployments * self.replicas


# What the pods of every test select besides `cluster.node_selector`: a real engine puts it on
# exactly as many nodes as are asked for, so that one pool serves every level of `nodes`.
MEASURED_LABEL = "imgpull.dev/measured"


def resolve(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain data: no interpolation, no `hydra`, nothing missing."""
    plain: dict[str, Any] = {}
    try:
        # Key by key: a copy without `hydra` would lose the parent of the interpolations.
        for key in (str(key) for key in config if key != "hydra"):
            node = config._get_node(key)
            plain[key] = (
                OmegaConf.to_container(node, resolve=True, throw_on_missing=True, enum_to_str=True)
                if OmegaConf.is_config(node)
                else _plain(config[key])
            )
    except MissingMandatoryValue as error:
        raise no_value(str(getattr(error, "full_key", None) or "a key")) from error
    except OmegaConfBaseException as error:
        where = f" (at {error.full_key})" if getattr(error, "full_key", None) else ""
        raise ConfigError(
            f"{str(error).splitlines()[0]}{where}", hint="edit conf/ or the command line"
        ) from error
    return plain


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value


def job_from(values: Mapping[str, Any], shared: Shared | None = None) -> Job:
    """The Job that a resolved configuration asks for; ConfigError names the key and the fix.

    `shared` is what other cells of its matrix have in common with it.
    """
    shared = shared or Shared()
    config: schema.Config = typed(values, schema.Config, shared=shared)
    image = shared.made("Image", config.image, _image)
    engine = shared.made("Engine", config.engine, engine_from)
    job = Job(
        deployments=config.deployments,
        replicas=config.replicas,
        qps=config.qps,
        nodes=config.nodes,
        image=image,
        cluster=shared.made("Cluster", config.cluster, checks.checked_cluster),
        engine=engine,
        further_images=shared.made("Images", engine, _further_images),
        cache=config.cache.name,
        trial=config.trial,
        pod_startup_threshold_s=_duration(config, "pod_startup_threshold"),
        wait_timeout_s=_duration(config, "wait_timeout"),
        metrics_wait_s=None if config.metrics_wait == "auto" else _duration(config, "metrics_wait"),
        containerd_scrape_interval_s=_duration(config, "containerd_scrape_interval"),
        seed=config.seed,
        trial_limit_s=_duration(config, "trial_limit"),
        allow=tuple(config.allow),
        ready_made=_ready_made(engine),
    )
    settings_of(config)
    _check(job)
    return job


def _image(image: schema.Image) -> Image:
    checks.check_image(image)
    return image_from(image)


def _ready_made(engine: schema.Engine) -> dict[str, str] | None:
    if not isinstance(engine, schema.RealEngine) or engine.bundle is None:
        return None
    return readymade.read_test(Path(engine.bundle))


def _further_images(engine: Any) -> dict[str, tuple[Layer, ...]]:
    if not isinstance(engine, schema.SimEngine):
        return {}
    further: dict[str, tuple[Layer, ...]] = {}
    for reference, layers in engine.images.items():
        key = f"engine.images.{reference}"
        checks.check_pinned_reference(reference, "engine.images")
        if not layers:
            raise ConfigError(f"{key} has no layers", hint="give it a table like image.layers")
        further[reference] = layers_from(layers, key)
    return further


def _duration(config: schema.Config, key: str) -> float:
    return checks.duration_s(getattr(config, key), key)


def _check(job: Job) -> None:
    for key in ("deployments", "replicas", "qps", "nodes", "trial"):
        if not 0 < getattr(job, key) < math.inf:
            raise ConfigError(f"{key}={getattr(job, key)} is not above zero", hint=f"use {key}=1")
    most = job.cluster.node.max_pods
    room = job.nodes * most
    if job.pods > room:
        raise ConfigError(
            f"deployments={job.deployments} x replicas={job.replicas} = {job.pods} pods cannot fit "
            f"nodes={job.nodes}: {job.nodes} nodes x {most} pods = {room}",
            hint=f"use fewer replicas or nodes={math.ceil(job.pods / most)}",
        )
    check_digests([job.image.layers, *job.further_images.values()])
    if job.image.pinned_reference in job.further_images:
        raise ConfigError(
            f"engine.images: '{job.image.pinned_reference}' is the image of the group image",
            hint="leave it out there: image.layers says what it is made of",
        )
    if isinstance(job.engine, schema.SimEngine):
        check_fit(job.engine, job.nodes, len(job.image.layers))
        _check_simulated(job.cluster.node)
    if isinstance(job.engine, schema.RealEngine):
        check_real(job.engine, job.cluster)
        _check_salted(job, job.engine)
        _check_limit(job)
    _check_scrapes(job)


def _check_salted(job: Job, engine: schema.RealEngine) -> None:
    """A salted image has a place to go, and a test that names it."""
    if job.cache != "salted":
        return
    if engine.salted_repository is None:
        raise ConfigError(
            "cache=salted pushes an image for each trial, and engine.salted_repository is null",
            hint="engine.salted_repository=REGISTRY/REPOSITORY, one that nothing else is kept in",
        )
    if job.ready_made is not None:
        raise ConfigError(
            "cache=salted makes another image for each trial, and the test of engine.bundle names "
            "its own",
            hint="use cache=cold, or engine.bundle=null",
        )


def _check_simulated(node: schema.Node) -> None:
    """A machine of unknown rates can be measured, not simulated."""
    for key in ("nic_mbit_s", "disk_write_mb_s"):
        if getattr(node, key) is None:
            raise ConfigError(
                f"cluster.node.{key} is not known, and engine=sim needs it",
                hint=f"give cluster.node.{key} the value of the datasheet",
            )


def _check_limit(job: Job) -> None:
    """A limit that a healthy trial would hit is a mistake."""
    least_s = 3 * scrape_room_s(job) + (job.metrics_wait_s or 0.0) + job.pod_startup_threshold_s
    if job.trial_limit_s < least_s:
        raise ConfigError(
            f"trial_limit={units.format_duration(job.trial_limit_s)} is shorter than the waits of "
            f"one trial ({units.format_duration(least_s)}: scrapes, metrics_wait and "
            "pod_startup_threshold)",
            hint="use trial_limit=2h",
        )


def _check_scrapes(job: Job) -> None:
    interval_s = job.containerd_scrape_interval_s
    if interval_s != int(interval_s):
        raise ConfigError(
            f"containerd_scrape_interval={units.format_duration(interval_s)} is no whole number of "
            "seconds, which Prometheus asks for",
            hint=f"for example containerd_scrape_interval={math.ceil(interval_s)}s",
        )
    if job.metrics_wait_s is not None and job.metrics_wait_s < scrape_room_s(job):
        raise ConfigError(
            f"metrics_wait={units.format_duration(job.metrics_wait_s)} leaves no two scrapes of "
            f"the slowest target after the load ({units.format_duration(scrape_room_s(job))})",
            hint="use metrics_wait=auto or a longer one",
        )


# ClusterLoader2's Prometheus scrapes kubelets every 30 s, fixed.
KUBELET_SCRAPE_INTERVAL_S = 30.0


def scrape_room_s(job: Job) -> float:
    """Time for two scrapes of the slowest target: the room kept before and after the load."""
    return 2 * max(KUBELET_SCRAPE_INTERVAL_S, job.containerd_scrape_interval_s)


def prometheus_gib(per_thousand_gib: int, nodes: int) -> int:
    """What Prometheus asks for: its manifests multiply by the begun thousands of nodes."""
    return per_thousand_gib * (1 + nodes // 1000)


def fastest_pull_s(job: Job) -> float | None:
    """No cold pull of this image on this node ends sooner: its bytes over NIC and disk.

    Compressed bytes cross the NIC and are fsynced to disk (containerd
    plugins/content/local/writer.go); unpacked ones may stay in the page cache. None: sizes or
    rates unknown.
    """
    compressed = job.image.compressed_bytes
    if compressed is None:
        return None
    node = job.cluster.node
    nic_mb_s = None if node.nic_mbit_s is None else node.nic_mbit_s / 8
    rates_mb_s = [nic_mb_s, node.disk_burst_mb_s or node.disk_write_mb_s]
    return max((compressed / (rate * 1e6) for rate in rates_mb_s if rate is not None), default=None)


def notes(job: Job) -> tuple[str, ...]:
    """What is allowed but likely a mistake, each with the figure that says so."""
    if job.ready_made is not None:
        return ()  # they are about the keys of the load
    found: list[str] = []
    fastest_s = fastest_pull_s(job)
    if job.cache in EMPTY and fastest_s is not None and fastest_s > job.pod_startup_threshold_s:
        found.append(
            f"pod_startup_threshold={units.format_duration(job.pod_startup_threshold_s)} cannot be "
            f"met: {units.format_size(job.image.compressed_bytes or 0)} compressed needs at least "
            f"{fastest_s:.0f} s on this node's NIC and disk"
        )
    if job.deployments == 1:
        found.append(f"deployments=1 makes qps={job.qps:g} inert: it paces Deployments, not pods")
    holds = isinstance(job.engine, schema.SimEngine) and job.engine.held != schema.Held()
    if holds and job.cache != "as_is":
        found.append(f"engine.held says nothing with cache={job.cache}: it is for cache=as_is")
    if rejected := _pulls_beyond_the_burst(job):
        found.append(rejected)
    return tuple(found)


# kube-controller-manager's clientConnection, so the pods it can create a second, and at once
# (kubernetes pkg/controller/apis/config/v1alpha1; a cloud may tune them).
_CONTROLLER = {"controller_pods_s": 20.0, "controller_burst": 30.0}


def _pulls_beyond_the_burst(job: Job) -> str | None:
    """The note on pods that arrive on a node faster than kubelet's pull tokens come back."""
    kubelet = job.cluster.kubelet
    parallel = 1 if kubelet.serializeImagePulls else kubelet.maxParallelImagePulls
    paced = parallel is not None and parallel <= kubelet.registryBurst
    if job.cache == "warm" or paced or not kubelet.registryPullQPS:
        return None
    told = job.engine.rates if isinstance(job.engine, schema.SimEngine) else {}
    controller = _CONTROLLER | {key: told[key] for key in _CONTROLLER if key in told}
    queued = job.pods - controller["controller_burst"]
    arriving_s = max((job.deployments - 1) / job.qps, queued / controller["controller_pods_s"])
    per_node = math.ceil(job.pods / job.nodes)
    if per_node - kubelet.registryPullQPS * arriving_s <= kubelet.registryBurst:
        return None
    return (
        f"{per_node} pods a node within {max(1, math.ceil(arriving_s))} s exceed kubelet's "
        f"registryBurst={kubelet.registryBurst} and registryPullQPS={kubelet.registryPullQPS:g}: "
        "pulls beyond it are rejected ('pull QPS exceeded') and wait 10 s or more"
    )


# The measurements that the templates take; part of a cell's identity.
MEASUREMENTS = ("pod_startup", "kubelet_image_pull", "containerd_throughput", "network_plugin")


def _physical_test(job: Job) -> dict[str, Any]:
    """What the load is made from: the keys that the templates take, or a ready-made test."""
    if job.ready_made is not None:
        return {"bundle": content_id(job.ready_made)}
    return {
        "deployments": job.deployments,
        "replicas": job.replicas,
        "qps": job.qps,
        "pod_startup_threshold_s": job.pod_startup_threshold_s,
        "wait_timeout_s": job.wait_timeout_s,
        "metrics_wait_s": job.metrics_wait_s,
    }


def physical(job: Job) -> dict[str, Any]:
    """The fields that make a cell what it is, as its id is made of them."""
    found: dict[str, Any] = json.loads(_content_text(_physical(job)))
    return found


def _physical(job: Job) -> dict[str, Any]:
    """Named one by one: a new option changes no old id."""
    return {
        **_physical_test(job),
        "nodes": job.nodes,
        "cache": job.cache,
        "containerd_scrape_interval_s": job.containerd_scrape_interval_s,
        "cluster": {
            key: getattr(job.cluster, key)
            for key in (
                "name", "provider", "region", "kubernetes_version", "containerd_version",
                "node_selector", "tolerations", "zones", "node", "registry", "kubelet",
                "containerd",
            )
        },
        "image": {
            "reference": job.image.reference,
            "digest": job.image.digest,
            "platform": job.image.platform,
            "layers": _physical_layers(job.image.layers),
        },
        "engine": _physical_engine(job),
        "measurements": MEASUREMENTS,
    }  # fmt: skip


def _physical_engine(job: Job) -> dict[str, Any]:
    """The simulator's physics; of what may happen on purpose, only what does."""
    engine = job.engine
    found: dict[str, Any] = {"kind": engine.kind}
    if isinstance(engine, schema.SimEngine):
        found["rates"] = dict(engine.rates)
        if engine.faults != schema.Faults():
            found["faults"] = engine.faults
        if job.cache == "as_is" and engine.held != schema.Held():
            found["held"] = engine.held
        if job.further_images:
            further = job.further_images.items()
            found["images"] = {name: _physical_layers(layers) for name, layers in further}
    return found


def _physical_layers(layers: tuple[Layer, ...]) -> list[dict[str, Any]]:
    """A digest only where one is given."""
    return [
        {key: value for key, value in vars(layer).items() if value is not None} for layer in layers
    ]


def content_id(content: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name this content, whatever the order of its keys."""
    return hashlib.sha256(_content_text(content).encode()).hexdigest()[:12]


def _content_text(content: Mapping[str, Any]) -> str:
    # asdict() would copy each leaf, and take most of the time.
    return json.dumps(
        content,
        sort_keys=True,
        separators=(",", ":"),
        default=lambda value: vars(value) if is_dataclass(value) else str(value),
    )


def cell_id(job: Job) -> str:
    """The cell's name: equal for every trial of it, on every machine."""
    return content_id(_physical(job))


FACTORS: Mapping[str, Callable[[Job], Any]] = {
    "deployments": lambda job: job.deployments,
    "replicas": lambda job: job.replicas,
    "qps": lambda job: int(job.qps) if job.qps == int(job.qps) else job.qps,
    "nodes": lambda job: job.nodes,
    "image": lambda job: job.image.name,
    "cluster": lambda job: job.cluster.name,
    "cache": lambda job: job.cache,
}


def factors(job: Job) -> dict[str, Any]:
    """The level of each standing factor; further swept keys are added by the sweep."""
    found = {name: level(job) for name, level in FACTORS.items()}
    if job.ready_made is None:
        return found
    assert isinstance(job.engine, schema.RealEngine)
    load = {name: level for name, level in found.items() if name not in OF_THE_LOAD}
    return {"bundle": Path(job.engine.bundle or "").name, **load}


# What a ready-made test decides itself.
OF_THE_LOAD = ("deployments", "replicas", "qps")
