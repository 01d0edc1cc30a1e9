"""What a simulated cluster is made of and what it tells: plain data, in seconds and bytes.

Hides nothing but names: the physics (`physics.py`) turns a World and PodRequests into a Trace, the
exporters (`scrape.py`) turn a Trace into series. Times are virtual seconds since the trial began.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """One image layer; `digest` names its content: two alike are fetched once a node."""

    digest: str
    compressed_bytes: int
    unpacked_bytes: int
    compression: str = "gzip"  # gzip | zstd | none


@dataclass(frozen=True)
class Node:
    """The hardware of every measured node."""

    vcpus: int
    memory_bytes: int
    nic_bytes_s: float
    disk_write_bytes_s: float
    max_pods: int


@dataclass(frozen=True)
class Registry:
    """Where the bytes come from: shared egress, a cap per connection, time to first byte."""

    egress_bytes_s: float
    connection_bytes_s: float
    first_byte_s: float


@dataclass(frozen=True)
class Kubelet:
    """Settings that steer pulls, in kubelet's own words."""

    version: str
    serialize_image_pulls: bool = False
    max_parallel_image_pulls: int | None = None
    registry_pull_qps: float = 5.0
    registry_burst: int = 10


@dataclass(frozen=True)
class Containerd:
    """Settings that steer pulls, in containerd's own words."""

    version: str
    max_concurrent_downloads: int = 3


@dataclass(frozen=True)
class Rates:
    """Speeds and overheads that no datasheet gives; sources stand in conf/engine/sim.yaml."""

    gzip_unpack_bytes_s: float  # of unpacked output, one core
    zstd_unpack_bytes_s: float
    plain_unpack_bytes_s: float
    scheduler_pods_s: float
    scheduler_burst: int
    controller_pods_s: float
    controller_burst: int
    sandbox_s: float
    network_setup_s: float
    network_teardown_s: float
    container_start_s: float
    watch_lag_s: float
    resolve_s: float
    event_jitter_sigma: float  # log-normal, each small delay
    node_spread_sigma: float  # log-normal, each node's unpack and connection speed
    trial_spread_sigma: float  # log-normal, registry and disk of a whole trial


@dataclass(frozen=True)
class World:
    """Everything that stays as it is during a trial."""

    node_names: tuple[str, ...]
    node: Node
    registry: Registry
    kubelet: Kubelet
    containerd: Containerd
    rates: Rates
    image_reference: str
    layers: tuple[Layer, ...]
    image_present: bool  # cache=warm: every node holds the image when the trial begins
    seed: int
    trial: int


@dataclass(frozen=True)
class PodRequest:
    """A pod that a Deployment asks for. `index` is its place among all pods: it names its luck."""

    index: int
    namespace: str
    name: str
    owner: str  # the Deployment
    owner_created_s: float
    image: str
    pull_policy: str = "IfNotPresent"  # IfNotPresent | Always
    host_network: bool = False


@dataclass
class PodTrace:
    """What happened to one pod, in the order it happened; None where it never came to that."""

    request: PodRequest
    created_s: float
    node: str | None = None
    scheduled_s: float | None = None
    sandbox_s: float | None = None  # sandbox and network ready
    network_setup_s: float | None = None  # how long CNI ADD took (a duration)
    network_teardown_s: float | None = None  # how long CNI DEL will take (a duration)
    present: bool = False  # the image was on the node: no pull
    pulling_s: float | None = None  # kubelet's Pulling event
    pull_began_s: float | None = None  # the puller gave this request its turn
    pulled_s: float | None = None
    leader: bool = False  # this pod's pull moved the bytes; others on the node waited for it
    fetched_bytes: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)  # (when, kubelet's error text)
    container_s: float | None = None  # container created
    started_s: float | None = None  # container running
    ready_s: float | None = None  # a watcher saw Running and Ready


@dataclass(frozen=True)
class Segment:
    """A node's mean rates between two moments."""

    begin_s: float
    end_s: float
    receive_bytes_s: float
    write_bytes_s: float
    cpu_cores: float


@dataclass(frozen=True)
class Trace:
    """One trial as it happened: pods in creation order, and each node's rates over time."""

    pods: tuple[PodTrace, ...]
    segments: dict[str, tuple[Segment, ...]]  # by node name, in time order, gaps mean idle
