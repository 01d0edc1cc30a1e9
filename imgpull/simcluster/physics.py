"""What happens when pods of one image land on a cluster: created, placed, pulled, started.

Hides the model and each of its simplifications; the door is `simulate`. Plain events in virtual
time: the control plane paces pods, kubelet queues and rejects pulls, containerd fetches a few
layers at a time and unpacks them one by one, `network.py` shares the links among all in flight.

Simplifications. One image a world. All pods spread as one group, and no pod ever leaves. Unpacking
writes to the page cache, so the disk serves it first and downloads (each fsync'ed) get what is
left: a layer's unpack time is a constant, and a faster link cannot delay an unpack. No dirty-page
limit, no disk burst credits, no limit of registry operations, no garbage collection.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from imgpull.errors import ConfigError
from imgpull.simcluster.delays import Luck, TokenBucket
from imgpull.simcluster.model import Layer, PodRequest, PodTrace, Segment, Trace, World
from imgpull.simcluster.network import Downloads

CREATION_S = 0.03  # assumption: Deployment, ReplicaSet, Pod: three writes of about 10 ms
BINDING_S = 0.005  # assumption: one scheduling cycle; scheduler_perf's floor of 270 pods/s is 4 ms
FOLLOWER_LAG_S = 0.003  # assumption: who waited for the layers finds them all there
HASH_BYTES_S = 1.5e9  # assumption: sha256 with SHA-NI, one core
BACK_OFF_S, BACK_OFF_LIMIT_S = 10.0, 300.0  # kubernetes 1.36 pkg/kubelet/kubelet.go
QPS_EXCEEDED = "pull QPS exceeded"  # kubernetes 1.36 pkg/kubelet/images/helpers.go


def simulate(world: World, pods: Sequence[PodRequest], until_s: float = math.inf) -> Trace:
    """Play one trial up to `until_s`; pure, and the same for the same arguments.

    What would happen after `until_s` is None, a pod that would be created after it is left out, and
    a leader cut while pulling has fetched what had arrived. Pods created later never change what
    happened before their creation. ConfigError for an image or compression the world has not.
    """
    luck = Luck(world.seed, world.trial)
    traces = [pod for pod in _placed(world, luck, pods) if pod.created_s <= until_s]
    play = _Play(world, luck)
    for pod in traces:
        if pod.node is not None and pod.sandbox_s is not None:
            play.at(pod.sandbox_s, play.nodes[pod.node].want_image, pod)
    play.run(until_s)
    for pod in traces:
        _forget_after(until_s, pod)
    segments = {name: tuple(node.segments()) for name, node in play.nodes.items()}
    return Trace(tuple(traces), segments)


def _forget_after(until_s: float, pod: PodTrace) -> None:
    for moment in ("scheduled_s", "sandbox_s", "container_s", "started_s", "ready_s"):
        if (getattr(pod, moment) or 0.0) > until_s:
            setattr(pod, moment, None)
    if pod.scheduled_s is None:
        pod.node = None
    if pod.sandbox_s is None:
        pod.network_setup_s = pod.network_teardown_s = None


def _placed(world: World, luck: Luck, pods: Sequence[PodRequest]) -> list[PodTrace]:
    """Pods in creation order, each on its node with sandbox and network ready."""
    rates, sigma = world.rates, world.rates.event_jitter_sigma
    controller = TokenBucket(rates.controller_pods_s, rates.controller_burst)
    traces: list[PodTrace] = []
    for request in sorted(pods, key=lambda pod: (pod.owner_created_s, pod.index)):
        delay_s = CREATION_S * luck.factor("creation", request.index, sigma)
        traces.append(PodTrace(request, controller.wait(request.owner_created_s) + delay_s))
    traces.sort(key=lambda pod: (pod.created_s, pod.request.index))

    scheduler = TokenBucket(rates.scheduler_pods_s, rates.scheduler_burst)
    emptiest: list[str] = []  # nodes that hold one pod fewer than the others
    for nth, pod in enumerate(traces):
        index = pod.request.index
        turn_s = scheduler.wait(pod.created_s)
        if nth >= len(world.node_names) * world.node.max_pods:
            continue  # no node has room, and no pod ever leaves
        emptiest = emptiest or list(world.node_names)
        pod.node = emptiest.pop(int(luck.share("spread", index) * len(emptiest)))
        pod.scheduled_s = turn_s + BINDING_S * luck.factor("binding", index, sigma)
        pod.sandbox_s = pod.scheduled_s + rates.sandbox_s * luck.factor("sandbox", index, sigma)
        if not pod.request.host_network:
            pod.network_setup_s = rates.network_setup_s * luck.factor("cni add", index, sigma)
            pod.network_teardown_s = rates.network_teardown_s * luck.factor("cni del", index, sigma)
            pod.sandbox_s += pod.network_setup_s
    return traces


class _Play:
    """The clock: events at known times, and downloads that end when the network says so."""

    def __init__(self, world: World, luck: Luck) -> None:
        self.world, self.luck = world, luck
        sigma = world.rates.trial_spread_sigma
        # A registry that is slow in this trial is so per connection and as a whole.
        self.registry_luck = luck.factor("trial registry", 0, sigma)
        self.disk_luck = luck.factor("trial disk", 0, sigma)
        egress_bytes_s = world.registry.egress_bytes_s * self.registry_luck
        self.downloads = Downloads(len(world.node_names), egress_bytes_s)
        self.nodes = {name: _Node(self, index) for index, name in enumerate(world.node_names)}
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._planned = 0

    def at(self, when_s: float, action: Callable[..., None], *arguments: object) -> None:
        """Call `action(when_s, *arguments)` then; equal times keep the order of planning."""
        self._planned += 1
        heapq.heappush(self._events, (when_s, self._planned, action, arguments))

    def run(self, until_s: float) -> None:
        """Play every event up to `until_s`, then close the books there."""
        now_s = 0.0
        while True:
            arrival_s, node = self.downloads.next_end(now_s)
            event_s = self._events[0][0] if self._events else math.inf
            now_s = min(arrival_s, event_s)
            if now_s > until_s or now_s == math.inf:
                break
            if arrival_s <= event_s:
                self.downloads.close(node, now_s)(now_s)
            else:
                _, _, action, arguments = heapq.heappop(self._events)
                action(now_s, *arguments)
        for each in self.nodes.values():
            if each.pull is not None and not each.present:
                each.pull.cut(until_s)

    def jitter(self, purpose: str, index: int) -> float:
        """The luck of one small delay."""
        return self.luck.factor(purpose, index, self.world.rates.event_jitter_sigma)


class _Node:
    """kubelet's image manager: is it there, whose turn is it, is it too much, start.

    kubernetes 1.36 pkg/kubelet/images: image_manager.go, puller.go, helpers.go.
    """

    def __init__(self, play: _Play, index: int) -> None:
        self.play, self.index = play, index
        self.present = play.world.image_present
        self.pull: _Pull | None = None
        kubelet = play.world.kubelet
        parallel = 1 if kubelet.serialize_image_pulls else kubelet.max_parallel_image_pulls
        self._turns = float(parallel or math.inf)
        self._queue: deque[PodTrace] = deque()
        self._limited = kubelet.registry_pull_qps > 0
        self._bucket = TokenBucket(kubelet.registry_pull_qps, kubelet.registry_burst)

    def segments(self) -> Sequence[Segment]:
        """What moved on this node."""
        return self.pull.segments if self.pull else ()

    def want_image(self, now_s: float, pod: PodTrace) -> None:
        """The pod's sandbox is ready, or its back-off is over: it needs its image."""
        world = self.play.world
        if pod.request.image != world.image_reference:
            raise ConfigError(
                f"pod {pod.request.name} wants image '{pod.request.image}', but the simulated "
                f"world has only '{world.image_reference}'",
                hint="use the image of the `image` group for every pod of the test",
            )
        if self.present and pod.request.pull_policy != "Always":
            pod.present = True
            self._start(now_s, pod)
            return
        if pod.pulling_s is None:
            pod.pulling_s = now_s
        self._queue.append(pod)
        self._give_turns(now_s)

    def image_complete(self, now_s: float, pull: "_Pull") -> None:
        """The last layer is unpacked: the leader has its image, and so have those who waited."""
        self.present = True
        self._pulled(now_s, pull.leader)
        for pod in pull.followers:
            self._follow(now_s, pod)

    def _give_turns(self, now_s: float) -> None:
        while self._queue and self._turns > 0:
            pod = self._queue.popleft()
            if self._limited and not self._bucket.try_take(now_s):
                self._reject(now_s, pod)
                continue
            self._turns -= 1
            pod.pull_began_s = now_s
            resolve_s = self.play.world.rates.resolve_s
            resolve_s *= self.play.jitter("resolve", pod.request.index)
            if self.present or self.pull is not None:
                self.play.at(now_s + resolve_s, self._follow, pod)
            else:
                self.pull = _Pull(self, pod)
                self.play.at(now_s + resolve_s, self.pull.begin)

    def _reject(self, now_s: float, pod: PodTrace) -> None:
        attempt = len(pod.failures)
        pod.failures.append((now_s, QPS_EXCEEDED))
        back_off_s = min(BACK_OFF_S * 2.0**attempt, BACK_OFF_LIMIT_S)
        # Never sooner: the sync that tries again can only come late.
        late = max(1.0, self.play.jitter(f"retry {attempt}", pod.request.index))
        self.play.at(now_s + back_off_s * late, self.want_image, pod)

    def _follow(self, now_s: float, pod: PodTrace) -> None:
        """The pod's pull knows its layers: all there, or another pull holds their locks."""
        if not self.present and self.pull is not None:
            self.pull.followers.append(pod)
            return
        lag_s = FOLLOWER_LAG_S * self.play.jitter("follower", pod.request.index)
        self.play.at(now_s + lag_s, self._pulled, pod)

    def _pulled(self, now_s: float, pod: PodTrace) -> None:
        pod.pulled_s = now_s
        self._start(now_s, pod)
        self._turns += 1
        self._give_turns(now_s)

    def _start(self, now_s: float, pod: PodTrace) -> None:
        rates, index = self.play.world.rates, pod.request.index
        start_s = rates.container_start_s * self.play.jitter("container", index)
        pod.container_s = now_s + start_s / 2  # assumption: creating takes as long as starting
        pod.started_s = now_s + start_s
        pod.ready_s = pod.started_s + rates.watch_lag_s * self.play.jitter("watch", index)


class _Pull:
    """containerd moving one image to one node: layers fetched in order, unpacked one by one.

    containerd 2.3 core/unpack/unpacker.go: unpacked[i] = max(unpacked[i-1], fetched[i]) + apply[i].
    One image a node: the limit of downloads is the same per pull (to 2.0) and per containerd (2.1).
    """

    def __init__(self, node: _Node, leader: PodTrace) -> None:
        self._node, self._play, self._world = node, node.play, node.play.world
        self.leader, self.followers = leader, list[PodTrace]()
        leader.leader = True
        sigma = self._world.rates.node_spread_sigma
        connection_luck = self._play.luck.factor("connection", node.index, sigma)
        connection_bytes_s = self._world.registry.connection_bytes_s
        self._connection_bytes_s = connection_bytes_s * self._play.registry_luck * connection_luck
        self._core_luck = self._play.luck.factor("unpack", node.index, sigma)
        self._disk_bytes_s = self._world.node.disk_write_bytes_s * self._play.disk_luck
        # A blob that two layers share is fetched once, and applied twice.
        self._wanted = deque({layer.digest: layer for layer in self._world.layers}.values())
        self._slots = self._world.containerd.max_concurrent_downloads
        self._fetched: set[str] = set()
        self._unpacked = 0  # layers
        self._unpack_bytes_s = 0.0  # while a layer is being unpacked
        self._unpack_cores = 0.0
        self.segments: list[Segment] = []
        self._noted_s, self._noted_bytes = 0.0, 0.0

    def begin(self, now_s: float) -> None:
        """The registry has named the layers."""
        self._noted_s = now_s
        self._fetch(now_s)
        self._unpack(now_s)

    def cut(self, until_s: float) -> None:
        """The trial ends during this pull: what has arrived has arrived."""
        self._note(until_s)
        self.leader.fetched_bytes = round(self._noted_bytes)

    def _fetch(self, now_s: float) -> None:
        while self._wanted and self._slots > 0:
            self._slots -= 1
            first_byte_s = now_s + self._world.registry.first_byte_s
            self._play.at(first_byte_s, self._receive, self._wanted.popleft())

    def _receive(self, now_s: float, layer: Layer) -> None:
        self._note(now_s)
        arrival = partial(self._arrived, layer)
        self._play.downloads.open(self._node.index, layer.compressed_bytes, arrival, now_s)
        self._leave_to_downloads()

    def _arrived(self, layer: Layer, now_s: float) -> None:
        self._note(now_s)
        self._fetched.add(layer.digest)
        self.leader.fetched_bytes += layer.compressed_bytes
        self._slots += 1
        self._fetch(now_s)
        self._unpack(now_s)

    def _unpack(self, now_s: float) -> None:
        """Apply the next layer, if it is there and no other is being applied."""
        if self._unpack_bytes_s:
            return
        if self._unpacked == len(self._world.layers):
            self._node.image_complete(now_s, self)
            return
        layer = self._world.layers[self._unpacked]
        if layer.digest not in self._fetched:
            return
        self._note(now_s)
        core_bytes_s = _core_bytes_s(self._world, layer) * self._core_luck
        self._unpack_bytes_s = min(core_bytes_s, self._disk_bytes_s)
        self._unpack_cores = self._unpack_bytes_s / core_bytes_s
        self._leave_to_downloads()
        self._play.at(now_s + layer.unpacked_bytes / self._unpack_bytes_s, self._applied)

    def _applied(self, now_s: float) -> None:
        self._note(now_s)
        self._unpacked += 1
        self._unpack_bytes_s = self._unpack_cores = 0.0
        self._leave_to_downloads()
        self._unpack(now_s)

    def _leave_to_downloads(self) -> None:
        """Downloads may take the wire, and of the disk what unpacking leaves."""
        disk_bytes_s = self._disk_bytes_s - self._unpack_bytes_s
        node_bytes_s = min(self._world.node.nic_bytes_s, disk_bytes_s)
        self._play.downloads.cap(self._node.index, self._connection_bytes_s, node_bytes_s)

    def _note(self, now_s: float) -> None:
        """Close the segment that ends now: called whenever anything changes on this node."""
        received = self._play.downloads.received_bytes(self._node.index, now_s)
        if now_s > self._noted_s and (self._unpack_bytes_s or received > self._noted_bytes):
            receive_bytes_s = (received - self._noted_bytes) / (now_s - self._noted_s)
            write_bytes_s = receive_bytes_s + self._unpack_bytes_s
            cores = self._unpack_cores + receive_bytes_s / HASH_BYTES_S
            self.segments.append(
                Segment(self._noted_s, now_s, receive_bytes_s, write_bytes_s, cores)
            )
        self._noted_s, self._noted_bytes = now_s, received


def _core_bytes_s(world: World, layer: Layer) -> float:
    """How fast one core unpacks this layer, in unpacked bytes."""
    rates = world.rates
    speeds = {
        "gzip": rates.gzip_unpack_bytes_s,
        "zstd": rates.zstd_unpack_bytes_s,
        "none": rates.plain_unpack_bytes_s,
    }
    if layer.compression not in speeds:
        raise ConfigError(
            f"layer {layer.digest} has compression '{layer.compression}'",
            hint=f"write one of {', '.join(speeds)}",
        )
    return speeds[layer.compression]
