"""A node's containerd: an image is resolved, fetched layer by layer, unpacked, and known.

Hides what a pull does with registry, disk and cores, and what it finds already there. containerd
2.3 core/unpack/unpacker.go: unpacked[i] = max(unpacked[i-1], fetched[i]) + apply[i]; a layer whose
snapshot is there is not even fetched; two pulls of one layer lock each other out (since 1.7).
Simplifications: what a failed pull had completed stays; pulls of one image follow its first one.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from imgpull import exporters
from imgpull.simcluster import failures
from imgpull.simcluster.disk import Disk
from imgpull.simcluster.model import PULL_FAULTS, Attempt, Layer, PodTrace, Segment

if TYPE_CHECKING:
    from imgpull.simcluster.physics import Play

_RESOLVE_REQUESTS = 4  # HEAD manifest, GET index, manifest and config
Answer = Callable[[float, PodTrace, Attempt, str], None]


@dataclass(slots=True, eq=False)
class _Call:
    """One PullImage call of kubelet; `answer` gets "" or the error."""

    pod: PodTrace
    attempt: Attempt
    answer: Answer
    fault: str  # one of PULL_FAULTS, or ""


@dataclass(slots=True, eq=False)
class _Unpacking:
    """A layer being applied: `left_s` seconds of undisturbed work at `at_s`, writing `bytes_s`."""

    pull: "_Pull"
    position: int
    left_s: float
    bytes_s: float
    at_s: float
    speed: float = 0.0
    plan: int = 0  # counts replannings: what was planned before one is void


class Runtime:
    """containerd on the node of this index."""

    def __init__(self, play: "Play", index: int, slow_factor: float) -> None:
        self.play, self.index, world = play, index, play.world
        sigma, containerd = world.rates.node_spread_sigma, world.containerd
        version = exporters.version_tuple(containerd.version)
        self.connection_bytes_s = min(
            world.registry.connection_bytes_s
            * play.registry_luck
            * play.luck.factor("connection", index, sigma),
            world.rates.hash_bytes_s,
        )
        self.core_speed = play.luck.factor("unpack", index, sigma) * slow_factor
        self.nic_bytes_s = world.node.nic_bytes_s * slow_factor
        burst = world.node.disk_burst_bytes_s
        disk_factor = play.disk_luck * slow_factor
        self.disk = Disk(
            world.node.disk_write_bytes_s * disk_factor,
            None if burst is None else burst * disk_factor,
            world.node.disk_burst_s,
            world.rates.dirty_share * world.node.memory_bytes,
        )
        self.shared_slots = version >= (2, 1)
        self.free_slots = containerd.max_concurrent_downloads
        self.most_unpacks = containerd.max_concurrent_unpacks if version >= (2, 2) else 1
        self.chunk_bytes = containerd.concurrent_layer_fetch_buffer if version >= (2, 1) else 0
        self.images: set[str] = set()
        self.blobs: set[str] = set()  # digests
        self.snapshots: set[int] = set()  # chain ids: a layer on all that are below it
        self.fetching: dict[str, list[_Pull]] = {}  # digest -> pulls that wait for it too
        self.applying: dict[int, list[_Pull]] = {}  # chain id -> pulls that wait for it too
        self.pulls: dict[str, _Pull] = {}
        self.unpackings: list[_Unpacking] = []
        self.segments: list[Segment] = []
        self.life = 0  # counts restarts: calls of an earlier life get no answer
        self._disk_plan = 0
        self._noted_s, self._noted_bytes = 0.0, 0.0
        self._noted_emptying, self._noted_cores = 0.0, 0.0

    def hold(self, snapshots: Iterable[str], blobs: Iterable[str], images: Iterable[str]) -> None:
        """What is there when the trial begins."""
        unpacked = set(snapshots)
        self.blobs = unpacked | set(blobs)
        self.images = set(images)
        for image, layers in self.play.world.images.items():
            for chain, layer in zip(self.play.chains(image), layers, strict=True):
                if layer.digest not in unpacked:
                    break
                self.snapshots.add(chain)

    # ------------------------------------------------------------------ a PullImage call

    def pull(self, now_s: float, pod: PodTrace, attempt: Attempt, answer: Answer) -> None:
        """kubelet calls PullImage; `answer` is called when it returns."""
        play, nth = self.play, len(pod.attempts)
        call = _Call(pod, attempt, answer, play.pull_fault(pod.request.index, nth))
        if not play.take_requests(now_s, _RESOLVE_REQUESTS):
            call.fault = "throttled"
        resolve_s = play.world.rates.resolve_s * play.jitter("resolve", pod.request.index)
        play.at(now_s + resolve_s, self._resolved, call, self.life)

    def _resolved(self, now_s: float, call: _Call, life: int) -> None:
        if life != self.life:
            return
        image = call.pod.request.image
        fault = call.fault if image in self.play.world.images else "not_found"
        if fault in ("throttled", "auth", "not_found"):
            error = failures.resolving(fault, image, self.play.world.containerd.version)
            call.answer(now_s, call.pod, call.attempt, error)
        elif image in self.images:
            self._answer_present(now_s, call)
        elif image in self.pulls:
            self.pulls[image].followers.append(call)
        else:
            if not self.pulls:
                self.settle(now_s)  # idle until now
            pull = self.pulls[image] = _Pull(self, image)
            pull.lead(now_s, call)

    def _answer_present(self, now_s: float, call: _Call) -> None:
        present_s = self.play.world.rates.present_s
        present_s *= self.play.jitter("present", call.pod.request.index)
        self.play.at(now_s + present_s, self._answer_later, call, self.life)

    def _answer_later(self, now_s: float, call: _Call, life: int) -> None:
        if life == self.life:
            call.answer(now_s, call.pod, call.attempt, "")

    # ------------------------------------------------------------------ what pulls share

    def fetch_more(self, now_s: float) -> None:
        """A download slot that all pulls share is free."""
        for pull in list(self.pulls.values()):
            pull.fetch(now_s)

    def settle(self, now_s: float) -> None:
        """Something changed: find anew how fast unpacking, disk and downloads go on."""
        self.note(now_s)
        pulling, active = bool(self.pulls), self.unpackings
        cores = min(1.0, self.play.world.node.vcpus / len(active)) if active else 1.0
        offered = sum(unpacking.bytes_s for unpacking in active) * cores
        self.disk.offer(now_s, offered, pulling=pulling)
        speed = cores * self.disk.slowed
        for unpacking in active:
            if unpacking.speed != speed:
                self._replan(now_s, unpacking, speed)
        self._noted_emptying = self.disk.emptying_bytes_s
        self._noted_cores = speed * len(active)
        self.play.downloads.cap(
            self.index,
            self.connection_bytes_s,
            min(self.nic_bytes_s, self.disk.left_bytes_s),
            now_s,
        )
        self._disk_plan += 1
        change_s = self.disk.next_change_s(pulling=pulling)
        if change_s < float("inf"):
            self.play.at(change_s, self._disk_changes, self._disk_plan)

    def _disk_changes(self, now_s: float, plan: int) -> None:
        if plan == self._disk_plan:
            self.settle(now_s)

    def _replan(self, now_s: float, unpacking: _Unpacking, speed: float) -> None:
        unpacking.left_s -= unpacking.speed * (now_s - unpacking.at_s)
        unpacking.at_s, unpacking.speed = now_s, speed
        unpacking.plan += 1
        end_s = now_s + max(0.0, unpacking.left_s) / speed
        self.play.at(end_s, self._applied, unpacking, unpacking.plan)

    def _applied(self, now_s: float, unpacking: _Unpacking, plan: int) -> None:
        if plan == unpacking.plan:
            self.unpackings.remove(unpacking)
            unpacking.pull.applied(now_s, unpacking.position)

    def note(self, now_s: float) -> None:
        """Close the segment that ends now: called whenever anything changes on this node."""
        received = self.play.downloads.received_bytes(self.index, now_s)
        elapsed_s = now_s - self._noted_s
        if elapsed_s > 0.0:
            if received > self._noted_bytes or self._noted_emptying or self._noted_cores:
                rate = max(0.0, received - self._noted_bytes) / elapsed_s
                cores = self._noted_cores + rate / self.play.world.rates.hash_bytes_s
                write = rate + self._noted_emptying
                self.segments.append(Segment(self._noted_s, now_s, rate, write, cores))
            self._noted_s, self._noted_bytes = now_s, received

    # ------------------------------------------------------------------ accidents and the end

    def stop(self, now_s: float) -> None:
        """containerd is gone, with every pull: what was complete stays, nobody gets an answer."""
        self.cut(now_s)
        self.life += 1
        for unpacking in self.unpackings:
            unpacking.plan += 1
        self.unpackings = []
        self.pulls, self.fetching, self.applying = {}, {}, {}
        self.free_slots = self.play.world.containerd.max_concurrent_downloads
        self.settle(now_s)

    def cut(self, now_s: float) -> None:
        """What has arrived of unfinished layers has arrived."""
        self.note(now_s)
        for pull in self.pulls.values():
            pull.cut(now_s)


class _Pull:
    """One image coming to one node."""

    def __init__(self, runtime: Runtime, image: str) -> None:
        self._runtime, self._play, self._image = runtime, runtime.play, image
        self._layers: Sequence[Layer] = self._play.world.images[image]
        self._chains = self._play.chains(image)
        self._slots = self._play.world.containerd.max_concurrent_downloads
        self._queue: deque[Layer] = deque()
        self._arriving: list[str] = []  # digests that this pull fetches now
        self._lead: _Call | None = None
        self._fault_at = -1  # how many layers arrive or are applied before the fault
        self._era = 0  # counts leaders: what an earlier one planned is void
        self._undone: list[int] = []  # positions, in order; the first few may be applied
        self._begun: set[int] = set()
        self.followers: deque[_Call] = deque()

    def lead(self, now_s: float, call: _Call) -> None:
        """This call moves the bytes from now on."""
        runtime = self._runtime
        self._lead = call
        self._era += 1
        self._undone = [
            position
            for position, chain in enumerate(self._chains)
            if chain not in runtime.snapshots
        ]
        missing = {
            self._layers[position].digest: self._layers[position] for position in self._undone
        }
        self._queue = deque(
            layer for digest, layer in missing.items() if digest not in runtime.blobs
        )
        self._begun = set()
        self._slots = self._play.world.containerd.max_concurrent_downloads
        place = self._play.luck.share("fault place", call.pod.request.index)
        count = len(self._queue) if call.fault == "network" else len(self._undone)
        self._fault_at = int(place * count) if call.fault in PULL_FAULTS and count else -1
        if not self._undone:
            self._complete(now_s)
            return
        call.attempt.leader = True
        self.fetch(now_s)
        self.unpack(now_s, changed=True)

    def fetch(self, now_s: float) -> None:
        """Ask for further layers while there are download slots."""
        runtime, queue, era = self._runtime, self._queue, self._era
        while queue and era == self._era:
            free = runtime.free_slots if runtime.shared_slots else self._slots
            if free <= 0:
                return
            layer = queue.popleft()
            if layer.digest in runtime.blobs:
                continue
            if layer.digest in runtime.fetching:
                runtime.fetching[layer.digest].append(self)
                continue
            chunked = 0 < runtime.chunk_bytes < layer.compressed_bytes
            # Chunks of the front layer take whatever slots are free.
            chunks = -(-layer.compressed_bytes // runtime.chunk_bytes) if chunked else 1
            taken = min(free, chunks)
            if not self._play.take_requests(now_s, chunks):
                self._fail(now_s, self._error("throttled", layer.digest))
                return
            self._take_slots(taken)
            runtime.fetching[layer.digest] = []
            self._arriving.append(layer.digest)
            rates, registry = self._play.world.rates, self._play.world.registry
            # fsync and rename come last; their time is spent here, which saves an event a layer.
            # Each chunk waits for its own first byte.
            wait_s = registry.first_byte_s * -(-chunks // taken) + rates.blob_commit_s
            self._play.at(now_s + wait_s, self._receive, layer, taken, era)

    def _take_slots(self, count: int) -> None:
        self._slots -= count
        self._runtime.free_slots -= count

    def _receive(self, now_s: float, layer: Layer, slots: int, era: int) -> None:
        if era == self._era:
            self._runtime.note(now_s)
            arrival = partial(self._arrived, layer, slots)
            self._play.downloads.open(
                self._runtime.index, layer.compressed_bytes, arrival, now_s, slots, self
            )

    def _arrived(self, layer: Layer, slots: int, now_s: float) -> None:
        runtime, lead = self._runtime, self._lead
        assert lead is not None
        lead.attempt.fetched_bytes += layer.compressed_bytes
        self._arriving.remove(layer.digest)
        self._take_slots(-slots)
        waiting = runtime.fetching.pop(layer.digest)
        if lead.fault == "network":
            if self._fault_at == 0:
                self._queue.appendleft(layer)
                self._fail(now_s, self._error("network", layer.digest))
                self._wake(now_s, waiting)
                return
            self._fault_at -= 1
        runtime.blobs.add(layer.digest)
        if runtime.shared_slots and len(runtime.pulls) > 1:
            runtime.fetch_more(now_s)
        else:
            self.fetch(now_s)
        self.unpack(now_s)
        self._wake(now_s, waiting)

    def _wake(self, now_s: float, waiting: "list[_Pull]") -> None:
        """Pulls of other images waited for a layer of this one: they look again."""
        for pull in waiting:
            if pull._lead is not None:
                pull.look_again(now_s)

    def look_again(self, now_s: float) -> None:
        """A layer that another pull had locked is there, or given up."""
        runtime = self._runtime
        queued = {layer.digest for layer in self._queue}
        for position in self._undone:
            layer = self._layers[position]
            there = layer.digest in runtime.blobs or self._chains[position] in runtime.snapshots
            if not there and layer.digest not in queued and layer.digest not in self._arriving:
                self._queue.append(layer)
                queued.add(layer.digest)
        self.fetch(now_s)
        self.unpack(now_s)

    def unpack(self, now_s: float, *, changed: bool = False) -> None:
        """Apply what may be applied: the layers next in order whose blobs are there.

        `changed`: a layer has just been applied.
        """
        runtime, undone = self._runtime, self._undone
        while undone and self._chains[undone[0]] in runtime.snapshots:
            undone.pop(0)
        if not undone:
            self._complete(now_s)
            return
        for position in undone[: runtime.most_unpacks]:
            layer, chain = self._layers[position], self._chains[position]
            if position in self._begun or layer.digest not in runtime.blobs:
                continue
            if chain in runtime.applying:
                self._begun.add(position)
                runtime.applying[chain].append(self)
                continue
            if runtime.most_unpacks > 1 and len(runtime.unpackings) >= runtime.most_unpacks:
                break
            if self._lead is not None and self._lead.fault == "disk_full":
                if self._fault_at == 0:
                    self._fail(now_s, failures.unpacking("disk_full", self._image, layer.digest))
                    return
                self._fault_at -= 1
            self._begun.add(position)
            runtime.applying[chain] = []
            changed = True
            core_bytes_s = self._play.core_bytes_s(layer) * runtime.core_speed
            work_s = layer.unpacked_bytes / core_bytes_s + self._play.world.rates.layer_commit_s
            bytes_s = layer.unpacked_bytes / work_s if work_s else 0.0
            runtime.unpackings.append(_Unpacking(self, position, work_s, bytes_s, now_s))
        if changed:
            runtime.settle(now_s)

    def applied(self, now_s: float, position: int) -> None:
        """A layer is unpacked: its snapshot is there."""
        chain = self._chains[position]
        self._runtime.snapshots.add(chain)
        waiting = self._runtime.applying.pop(chain)
        if position in self._undone:
            self._undone.remove(position)
        self.unpack(now_s, changed=True)
        for pull in waiting:
            pull._begun.discard(position)
            if pull._lead is not None:
                pull.unpack(now_s)

    def _complete(self, now_s: float) -> None:
        """The last layer is unpacked: who led has the image, and so have those who waited."""
        runtime, lead = self._runtime, self._lead
        assert lead is not None
        del runtime.pulls[self._image]
        self._lead = None
        self._era += 1
        runtime.settle(now_s)
        runtime.images.add(self._image)
        if lead.attempt.leader:
            lead.answer(now_s, lead.pod, lead.attempt, "")
        else:
            runtime._answer_present(now_s, lead)
        for call in self.followers:
            call.answer(now_s, call.pod, call.attempt, "")

    def _fail(self, now_s: float, error: str) -> None:
        """The leader's call fails."""
        lead = self._lead
        assert lead is not None
        self._step_down(now_s)
        lead.answer(now_s, lead.pod, lead.attempt, error)

    def _step_down(self, now_s: float) -> None:
        """The leader's call is over; who waited longest goes on from what is there."""
        runtime = self._runtime
        self.cut(now_s)
        self._era += 1
        mine = [unpacking for unpacking in runtime.unpackings if unpacking.pull is self]
        released: list[_Pull] = []
        for unpacking in mine:
            unpacking.plan += 1
            runtime.unpackings.remove(unpacking)
            released += runtime.applying.pop(self._chains[unpacking.position])
        for digest in self._arriving:
            released += runtime.fetching.pop(digest)
        runtime.free_slots += self._play.world.containerd.max_concurrent_downloads - self._slots
        self._slots = self._play.world.containerd.max_concurrent_downloads
        self._arriving = []
        self._lead = None
        if self.followers:
            self.lead(now_s, self.followers.popleft())
        else:
            del runtime.pulls[self._image]
        runtime.settle(now_s)
        for pull in released:
            pull._begun &= {u.position for u in runtime.unpackings if u.pull is pull}
        self._wake(now_s, released)

    def _error(self, kind: str, digest: str) -> str:
        version = self._play.world.containerd.version
        return failures.fetching(kind, self._image, digest, version)

    def stalled(self, now_s: float) -> None:
        """No byte came for as long as containerd waits: the pull is cancelled."""
        if self._lead is not None and self._arriving:
            self._fail(now_s, self._error("timeout", self._arriving[0]))

    def cut(self, now_s: float) -> None:
        """Streams end here: the leader has what came."""
        came = self._play.downloads.drop(self._runtime.index, self, now_s)
        if self._lead is not None:
            self._lead.attempt.fetched_bytes += round(came)
