"""What a simulated cluster is made of and what it tells: plain data, in seconds and bytes.

Hides nothing but names: the physics (`physics.py`) turns a World and PodRequests into a Trace, the
exporters (`scrape.py`) turn a Trace into series. Times are virtual seconds since the trial began.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


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
    disk_burst_bytes_s: float | None = None  # None: the disk does not burst
    disk_burst_s: float = 0.0  # how long its credits last, used up while an image is pulled


@dataclass(frozen=True)
class BrownOut:
    """The registry gives only a share of its egress between two moments."""

    begin_s: float
    end_s: float
    egress_share: float  # 0 is a standstill


@dataclass(frozen=True)
class Registry:
    """Where the bytes come from: shared egress, a cap per connection, time to first byte."""

    egress_bytes_s: float
    connection_bytes_s: float
    first_byte_s: float
    requests_s: float | None = None  # requests beyond this rate are answered 429; None: no limit
    requests_burst: int = 1
    zones: int = 1  # nodes belong to zones in turn
    zone_link_bytes_s: float = math.inf  # between the registry and all nodes of one zone


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
    max_concurrent_downloads: int = 3  # per pull up to 2.0, per containerd from 2.1 on
    max_concurrent_unpacks: int = 1  # from 2.2 on
    concurrent_layer_fetch_buffer: int = 0  # bytes; 0: a layer is one request; from 2.1 on
    image_pull_progress_timeout_s: float = 300.0


@dataclass(frozen=True)
class Rates:
    """Speeds and overheads that no datasheet gives; sources stand in conf/engine/sim.yaml."""

    gzip_unpack_bytes_s: float  # of unpacked output, one core
    zstd_unpack_bytes_s: float
    plain_unpack_bytes_s: float
    hash_bytes_s: float  # one core: a layer's bytes are hashed by one goroutine as they come
    dirty_share: float  # of memory that unpacked bytes may fill before writers wait for the disk
    blob_commit_s: float  # fsync and rename of a fetched layer
    layer_commit_s: float  # snapshot of a layer: prepare, mount, commit
    scheduler_pods_s: float
    scheduler_burst: int
    binding_s: float
    controller_pods_s: float
    controller_burst: int
    api_call_s: float
    pod_sync_s: float  # kubelet's watch tells of a pod, its first sync begins
    sandbox_s: float
    network_setup_s: float
    network_teardown_s: float
    container_create_s: float
    container_start_s: float
    watch_lag_s: float
    resolve_s: float
    present_s: float  # a pull that finds everything there, once resolved
    event_jitter_sigma: float  # log-normal, each small delay
    node_spread_sigma: float  # log-normal, each node's unpack and connection speed
    trial_spread_sigma: float  # log-normal, registry and disk of a whole trial


# How a PullImage call can be made to fail, in the words of `pulls.FAILURES`.
PULL_FAULTS = ("throttled", "auth", "not_found", "network", "disk_full")


@dataclass(frozen=True)
class Faults:
    """What goes wrong on purpose; by default nothing does. Node indexes count from 0."""

    pull_shares: Mapping[str, float] = field(default_factory=dict)  # of PullImage calls, by fault
    slow_nodes: int = 0  # the first so many nodes in an order drawn by luck
    slow_factor: float = 1.0  # of their NIC, disk and cores
    lost_nodes: int = 0  # the last so many nodes of that order
    lost_s: float = math.inf
    restarted_nodes: int = 0  # those before them: kubelet and containerd start afresh
    restarted_s: float = math.inf
    restart_takes_s: float = 20.0
    brown_outs: tuple[BrownOut, ...] = ()
    event_loss_share: float = 0.0  # of Kubernetes events, as a recorder misses them


@dataclass(frozen=True)
class Held:
    """What nodes hold when the trial begins: the digests of layers, with every layer below them."""

    snapshots: frozenset[str] = frozenset()  # unpacked
    blobs: frozenset[str] = frozenset()  # fetched, not unpacked
    images: frozenset[str] = frozenset()  # references of whole images, known to the runtime
    nodes_share: float = 1.0  # of the nodes, in an order drawn by luck


@dataclass(frozen=True)
class World:
    """Everything that stays as it is during a trial."""

    node_names: tuple[str, ...]
    node: Node
    registry: Registry
    kubelet: Kubelet
    containerd: Containerd
    rates: Rates
    images: Mapping[str, tuple[Layer, ...]]  # the registry's content, by reference
    seed: int
    trial: int
    held: Held = Held()
    faults: Faults = Faults()

    def image_bytes(self, reference: str) -> int:
        """The compressed size that kubelet and containerd tell; 0 if there is no such image."""
        return sum(layer.compressed_bytes for layer in self.images.get(reference, ()))


@dataclass(frozen=True)
class PodRequest:
    """A pod that a Deployment asks for. `index` is its place among all pods: it names its luck."""

    index: int
    namespace: str
    name: str
    owner: str  # the Deployment, as namespace/name
    owner_created_s: float  # when its Deployment (or its further replicas) was asked for
    image: str
    pull_policy: str = "IfNotPresent"  # IfNotPresent | Always
    host_network: bool = False
    spread: str | None = None  # pods of one name differ by at most `max_skew` between nodes
    max_skew: int = 1
    cpu_cores: float = 0.0  # requested
    memory_bytes: float = 0.0  # requested
    grace_s: float = 1.0  # the process ignores TERM: it is killed after this
    deleted_s: float = math.inf  # when its deletion was asked for


@dataclass
class Attempt:
    """One try of kubelet to have the image: Pulling event, its turn, answer."""

    asked_s: float  # the Pulling event
    began_s: float | None = None  # the puller gave it its turn: PullImage was called
    ended_s: float | None = None
    error: str = ""  # kubelet's text; empty when it worked, or is not over
    leader: bool = False  # this call moved the bytes; others on the node waited for it
    fetched_bytes: int = 0

    @property
    def worked(self) -> bool:
        return self.ended_s is not None and not self.error


@dataclass
class PodTrace:
    """What happened to one pod, in the order it happened; None where it never came to that."""

    request: PodRequest
    created_s: float
    node: str | None = None
    scheduled_s: float | None = None
    synced_s: float | None = None  # kubelet begins: RunPodSandbox is called
    network_setup_s: float | None = None  # how long CNI ADD took (a duration)
    sandbox_s: float | None = None  # sandbox and network ready
    present_s: float | None = None  # kubelet found the image on the node: no pull
    attempts: list[Attempt] = field(default_factory=list)
    container_s: float | None = None  # container created
    started_s: float | None = None  # container running
    ready_s: float | None = None  # a watcher saw Running and Ready
    stopped_s: float | None = None  # deleted: its container, if any, is gone
    network_teardown_s: float | None = None  # how long each CNI DEL takes (a duration)
    gone_s: float | None = None  # deleted from the API; its place on the node is free

    @property
    def pulled_s(self) -> float | None:
        """When the image was there after a pull; None: not pulled, or not yet."""
        last = self.attempts[-1] if self.attempts else None
        return last.ended_s if last is not None and last.worked else None


class Segment(NamedTuple):
    """A node's mean rates between two moments."""

    begin_s: float
    end_s: float
    receive_bytes_s: float
    write_bytes_s: float
    cpu_cores: float


@dataclass(frozen=True)
class NodeTrace:
    """One node's rates over time (in order, gaps mean idle) and its accidents."""

    segments: tuple[Segment, ...] = ()
    lost_s: float = math.inf  # from then on nothing is heard of it
    restarted_s: float = math.inf  # its programs' counters began at zero again


@dataclass(frozen=True)
class Trace:
    """One trial as it happened: pods in creation order, and the nodes by name."""

    pods: tuple[PodTrace, ...]
    nodes: dict[str, NodeTrace]
