"""A node's containerd: what it holds, the calls it answers, and what its pulls share.

Hides how calls become pulls (`pull.py`) and how cores, disk and download slots are divided among
them. Pulls of one image follow the first one; of the registry they ask what `network.py` gives.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from imgpull import exporters
from imgpull.simcluster import failures
from imgpull.simcluster.disk import Disk
from imgpull.simcluster.model import Attempt, PodTrace, Segment
from imgpull.simcluster.pull import Answer, Call, Pull, Unpacking

if TYPE_CHECKING:
    from imgpull.simcluster.physics import Play

_RESOLVE_REQUESTS = 4  # HEAD manifest, GET index, manifest and config


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
        self.fetching: dict[str, list[Pull]] = {}  # digest -> pulls that wait for it too
        self.applying: dict[int, list[Pull]] = {}  # chain id -> pulls that wait for it too
        self.pulls: dict[str, Pull] = {}
        self.unpackings: list[Unpacking] = []
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
        call = Call(pod, attempt, answer, play.pull_fault(pod.request.index, nth))
        if not play.take_requests(now_s, _RESOLVE_REQUESTS):
            call.fault = "throttled"
        resolve_s = play.world.rates.resolve_s * play.jitter("resolve", pod.request.index)
        play.at(now_s + resolve_s, self._resolved, call, self.life)

    def _resolved(self, now_s: float, call: Call, life: int) -> None:
        if life != self.life:
            return
        image = call.pod.request.image
        fault = call.fault if image in self.play.world.images else "not_found"
        if fault in ("throttled", "auth", "not_found"):
            error = failures.resolving(fault, image, self.play.world.containerd.version)
            call.answer(now_s, call.pod, call.attempt, error)
        elif image in self.images:
            self.answer_present(now_s, call)
        elif image in self.pulls:
            self.pulls[image].followers.append(call)
        else:
            if not self.pulls:
                self.settle(now_s)  # idle until now
            pull = self.pulls[image] = Pull(self, image)
            pull.lead(now_s, call)

    def answer_present(self, now_s: float, call: Call) -> None:
        present_s = self.play.world.rates.present_s
        present_s *= self.play.jitter("present", call.pod.request.index)
        self.play.at(now_s + present_s, self._answer_later, call, self.life)

    def _answer_later(self, now_s: float, call: Call, life: int) -> None:
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
        cores, offered = 1.0, 0.0
        if active:
            cores = min(1.0, self.play.world.node.vcpus / len(active))
            for unpacking in active:
                offered += unpacking.bytes_s * cores
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

    def _replan(self, now_s: float, unpacking: Unpacking, speed: float) -> None:
        unpacking.left_s -= unpacking.speed * (now_s - unpacking.at_s)
        unpacking.at_s, unpacking.speed = now_s, speed
        unpacking.plan += 1
        end_s = now_s + max(0.0, unpacking.left_s) / speed
        self.play.at(end_s, self._applied, unpacking, unpacking.plan)

    def _applied(self, now_s: float, unpacking: Unpacking, plan: int) -> None:
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
        self.note(now_s)
        for pull in self.pulls.values():
            pull.stop(now_s)
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
