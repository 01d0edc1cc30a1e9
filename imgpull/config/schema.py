"""Every key that `conf/` and the command line may use, with type and default.

Hides OmegaConf's rules for structured configs. The dataclasses are frozen, because a Job keeps
them; Hydra gets a thawed copy to compose into. Sizes and durations stay text here ("15GB", "3m"):
`job.py` parses them once. Meaning of the root keys: docs/configuration.md.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf


class Cache(Enum):
    """What the measured nodes hold of the image when the load begins."""

    cold = "cold"
    warm = "warm"
    salted = "salted"
    as_is = "as_is"


class Until(Enum):
    """Where to stop."""

    render = "render"
    plan = "plan"
    run = "run"


class Order(Enum):
    """How trials of different cells interleave."""

    blocks = "blocks"
    shuffled = "shuffled"
    as_given = "as_given"


class Resume(Enum):
    """Whether an earlier sweep of the same matrix is continued."""

    off = "off"
    auto = "auto"


class Provision(Enum):
    """Where the cluster of a sweep comes from."""

    existing = "existing"
    terraform = "terraform"


class Compression(Enum):
    """How a layer is stored in the registry."""

    gzip = "gzip"
    zstd = "zstd"
    none = "none"


class TrackingKind(Enum):
    """Where results are logged."""

    local = "local"
    server = "server"
    none = "none"


@dataclass(frozen=True)
class Layer:
    """One image layer: sizes as text."""

    compressed_bytes: str = MISSING
    unpacked_bytes: str | None = None  # the simulator needs it
    compression: Compression = Compression.gzip
    digest: str | None = None  # names the content, so that images can share it


@dataclass(frozen=True)
class Image:
    """What is pulled. `layers` is needed by the simulator, optional for real engines."""

    name: str = MISSING
    reference: str = MISSING
    digest: str | None = None
    command: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    pull_secret: str | None = None
    platform: str = "linux/amd64"
    layers: list[Layer] = field(default_factory=list)


@dataclass(frozen=True)
class Toleration:
    """A Kubernetes toleration."""

    key: str = MISSING
    operator: str = "Equal"
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Node:
    """Hardware of the measured nodes, as the cloud's datasheet gives it; null is unknown."""

    vm_size: str = MISSING
    vcpus: int = MISSING
    memory_gib: float = MISSING
    nic_mbit_s: float | None = MISSING  # the simulator needs it
    os_disk: str = MISSING
    disk_write_mb_s: float | None = MISSING  # the simulator needs it
    disk_burst_mb_s: float | None = None
    disk_burst_minutes: float = 30
    max_pods: int = MISSING


@dataclass(frozen=True)
class Registry:
    """Where the image comes from."""

    server: str = MISSING
    sku: str = MISSING
    egress_mbit_s: float = MISSING
    connection_mb_s: float = MISSING
    first_byte_ms: float = MISSING
    requests_per_minute: float | None = None
    requests_burst: int = 1000
    zone_link_mbit_s: float | None = None


@dataclass(frozen=True)
class Kubelet:
    """kubelet settings that steer pulls, by kubelet's own names."""

    serializeImagePulls: bool = False  # noqa: N815
    maxParallelImagePulls: int | None = None  # noqa: N815
    registryPullQPS: float = 5  # noqa: N815
    registryBurst: int = 10  # noqa: N815


@dataclass(frozen=True)
class Containerd:
    """containerd settings that steer pulls, by containerd's own names."""

    max_concurrent_downloads: int = 3
    max_concurrent_unpacks: int = 1
    concurrent_layer_fetch_buffer: int = 0  # bytes
    image_pull_progress_timeout: str = "5m"


@dataclass(frozen=True)
class Azure:
    """What `imgpull cluster up` makes around the measured nodes: no part of what a cell is."""

    subscription: str | None = None  # None: az's current one
    resource_group: str | None = None  # None: imgpull-NAME
    owner: str | None = None  # None: who is logged in
    lifetime: str = "8h"
    registry: str = "create"  # or none, or a registry's resource id
    anonymous_pull: bool = False
    replica_regions: list[str] = field(default_factory=list)
    os_sku: str = "Ubuntu2204"
    sku_tier: str = "Free"
    system_vm_size: str = "Standard_D4as_v5"
    system_nodes: int = 1
    prometheus_vm_size: str = "Standard_D4as_v5"
    image_gc_high_percent: int | None = None
    image_gc_low_percent: int | None = None


@dataclass(frozen=True)
class Cluster:
    """One description, two uses: Terraform builds it, the simulator simulates it."""

    name: str = MISSING
    provider: str = MISSING
    region: str = MISSING
    kubernetes_version: str = MISSING
    containerd_version: str = MISSING
    node_prefix: str = MISSING
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Toleration] = field(default_factory=list)
    prometheus_node_selector: dict[str, str] = field(default_factory=dict)
    prometheus_storage_class: str | None = None
    prometheus_memory_gib: int = 10
    helper_image: str = MISSING
    zones: int = 1
    node: Node = field(default_factory=Node)
    registry: Registry = field(default_factory=Registry)
    kubelet: Kubelet = field(default_factory=Kubelet)
    containerd: Containerd = field(default_factory=Containerd)
    azure: Azure = field(default_factory=Azure)


@dataclass(frozen=True)
class PullShares:
    """Shares of PullImage calls that fail, by fault (simcluster.model.PULL_FAULTS)."""

    throttled: float = 0
    auth: float = 0
    not_found: float = 0
    network: float = 0
    disk_full: float = 0


@dataclass(frozen=True)
class BrownOut:
    """The registry gives only a share of its egress between two moments of the trial."""

    begin: str = MISSING
    end: str = MISSING
    egress_share: float = MISSING


@dataclass(frozen=True)
class Faults:
    """What the simulator lets go wrong on purpose; moments count from the trial's begin."""

    pull_shares: PullShares = field(default_factory=PullShares)
    slow_nodes: int = 0
    slow_factor: float = 0.25
    lost_nodes: int = 0
    lost_at: str = "1m"
    restarted_nodes: int = 0
    restarted_at: str = "1m"
    restart_takes: str = "20s"
    brown_outs: list[BrownOut] = field(default_factory=list)
    event_loss_share: float = 0


@dataclass(frozen=True)
class Held:
    """What simulated nodes hold of the image when cache=as_is."""

    snapshots: int = 0  # layers
    blobs: int = 0  # layers above those
    images: bool = False
    nodes_share: float = 1


@dataclass(frozen=True)
class SimEngine:
    """engine=sim: what of the simulated cluster no datasheet gives."""

    kind: str = "sim"
    rates: dict[str, float] = field(default_factory=dict)  # simcluster.model.Rates
    faults: Faults = field(default_factory=Faults)
    held: Held = field(default_factory=Held)
    images: dict[str, list[Layer]] = field(default_factory=dict)  # by the reference pods name


@dataclass(frozen=True)
class ReplayEngine:
    """engine=replay: a ClusterLoader2 report made elsewhere."""

    kind: str = "replay"
    report: str = MISSING


@dataclass(frozen=True)
class RealEngine:
    """What every engine that runs ClusterLoader2 on a real cluster is told."""

    kind: str = MISSING
    bundle: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    wait_for_cluster: str = "0s"
    containerd_port: int = 10257
    settle: str = "10s"
    keep_prometheus: bool = False
    salted_repository: str | None = None  # of cache=salted
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BinaryEngine(RealEngine):
    """engine=binary: a ClusterLoader2 executable on this machine."""

    kind: str = "binary"
    path: str = "clusterloader"


@dataclass(frozen=True)
class DockerEngine(RealEngine):
    """engine=docker: a ClusterLoader2 image, run on this machine."""

    kind: str = "docker"
    command: str = "docker"
    image: str = MISSING
    digest: str | None = None


@dataclass(frozen=True)
class InClusterEngine(RealEngine):
    """engine=incluster: a ClusterLoader2 image, run by the measured cluster itself."""

    kind: str = "incluster"
    image: str = MISSING
    digest: str | None = None


Engine = SimEngine | ReplayEngine | RealEngine

ENGINES: dict[str, type[Engine]] = {
    "sim": SimEngine,
    "replay": ReplayEngine,
    "binary": BinaryEngine,
    "docker": DockerEngine,
    "incluster": InClusterEngine,
}


@dataclass(frozen=True)
class Tracking:
    """Where results are logged besides their directories."""

    kind: TrackingKind = TrackingKind.local
    uri: str | None = None
    experiment: str = "imgpull"


@dataclass(frozen=True)
class Provisioning:
    """provision=terraform: how long it may take, and how long a plan reckons with.

    ASSUMPTION, all but `limit`: never timed on Azure.
    """

    create: str = "12m"  # cluster and pools
    pool: str = "8m"  # the measured pool anew, of other machines
    resize: str = "5m"  # another number of nodes
    destroy: str = "10m"
    limit: str = "2h"  # of one command of terraform


@dataclass(frozen=True)
class Config:
    """The root: defaults are those of the standard image pull test."""

    deployments: int = 10
    replicas: int = 1
    qps: float = 10
    nodes: int = 10
    image: Image = field(default_factory=Image)
    cluster: Cluster = field(default_factory=Cluster)
    engine: Any = None  # one of ENGINES, checked by job.py: the kinds have different keys
    tracking: Tracking = field(default_factory=Tracking)
    until: Until = Until.run
    cache: Cache = Cache.cold
    trials: int = 1
    trial: int = 1
    pod_startup_threshold: str = "3m"
    wait_timeout: str = "30m"
    metrics_wait: str = "10m"
    containerd_scrape_interval: str = "15s"
    seed: int = 0
    order: Order = Order.blocks
    exclude: list[str] = field(default_factory=list)
    resume: Resume = Resume.off
    on_failure: str = "continue"
    retries: int = 0
    max_hours: float | None = None
    max_cost: float | None = None
    trial_limit: str = "2h"
    target_effect: str | None = None
    provision: Provision = Provision.existing
    provisioning: Provisioning = field(default_factory=Provisioning)
    keep: bool = False
    yes: bool = False
    allow: list[str] = field(default_factory=list)


def register() -> None:
    """Give Hydra the schema under the name `schema`, first in conf/config.yaml's defaults."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=open_schema(Config))
    # Hydra copies its whole store for every group that `--help` lists (0.4 s); what it loads from
    # it, it copies anyway.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def open_schema(kind: type) -> DictConfig:
    """A typed, empty configuration of one of these classes that values can be merged into."""
    config: DictConfig = OmegaConf.structured(kind)
    _thaw(config)
    return config


def _thaw(config: Any) -> None:
    """Frozen dataclasses become read-only configs; Hydra must merge into this one."""
    OmegaConf.set_readonly(config, None)
    if isinstance(config, DictConfig):
        for key in config:
            child = config._get_node(key)
            if OmegaConf.is_config(child) and not OmegaConf.is_missing(config, key):
                _thaw(child)
