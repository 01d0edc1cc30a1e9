"""One image coming to one node: layers fetched in order, unpacked one on the other.

Hides which layer may be fetched or applied next, who leads and who follows, and what a failure
leaves. containerd 2.3 core/unpack/unpacker.go: unpacked[i] = max(unpacked[i-1], fetched[i]) +
apply[i]; a layer whose snapshot is there is not even fetched; two pulls of one layer lock each
other out (since 1.7). What a failed pull had completed goes with its lease, unless
others wait for it (ASSUMPTION: garbage is collected within the back-off).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from imgpull.simcluster import failures
from imgpull.simcluster.model import PULL_FAULTS, Attempt, Layer, PodTrace

if TYPE_CHECKING:
    from imgpull.simcluster.containerd import Runtime

Answer = Callable[[float, PodTrace, Attempt, str], None]


@dataclass(slots=True, eq=False)
class Call:
    """One PullImage call of kubelet; `answer` gets "" or the error."""

    pod: PodTrace
    attempt: Attempt
    answer: Answer
    fault: str  # one of PULL_FAULTS, or ""


@dataclass(slots=True, eq=False)
class Unpacking:
    """A layer being applied: `left_s` seconds of undisturbed work at `at_s`, writing `bytes_s`."""

    pull: "Pull"
    position: int
    left_s: float
    bytes_s: float
    at_s: float
    speed: float = 0.0
    plan: int = 0  # counts replannings: what was planned before one is void


class Pull:
    """One image coming to one node."""

    def __init__(self, runtime: "Runtime", image: str) -> None:
        self._runtime, self._play, self._image = runtime, runtime.play, image
        self._layers: Sequence[Layer] = self._play.world.images[image]
        self._chains = self._play.chains(image)
        self._slots = self._play.world.containerd.max_concurrent_downloads
        self._queue: deque[Layer] = deque()
        self._arriving: list[str] = []  # digests that this pull fetches now
        self._lead: Call | None = None
        self._fault_at = -1  # how many layers arrive or are applied before the fault
        self._era = 0  # counts leaders: what an earlier one planned is void
        self._undone: list[int] = []  # positions, in order; the first few may be applied
        self._begun: set[int] = set()
        self._brought: set[str] = set()  # digests
        self._applied: set[int] = set()  # chain ids
        self.followers: deque[Call] = deque()

    def lead(self, now_s: float, call: Call) -> None:
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
        while self._lead is not None and queue and era == self._era:
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
        self._brought.add(layer.digest)
        if runtime.shared_slots and len(runtime.pulls) > 1:
            runtime.fetch_more(now_s)
        else:
            self.fetch(now_s)
        self.unpack(now_s)
        self._wake(now_s, waiting)

    def _wake(self, now_s: float, waiting: "list[Pull]") -> None:
        """Pulls of other images waited for a layer of this one: they look again."""
        for pull in waiting:
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
        if self._lead is None:  # given up meanwhile
            return
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
            if self._finds_disk_full():
                self._fail(now_s, failures.unpacking("disk_full", self._image, layer.digest))
                return
            self._begun.add(position)
            runtime.applying[chain] = []
            changed = True
            core_bytes_s = self._play.core_bytes_s(layer) * runtime.core_speed
            work_s = layer.unpacked_bytes / core_bytes_s + self._play.world.rates.layer_commit_s
            bytes_s = layer.unpacked_bytes / work_s if work_s else 0.0
            runtime.unpackings.append(Unpacking(self, position, work_s, bytes_s, now_s))
        if changed:
            runtime.settle(now_s)

    def _finds_disk_full(self) -> bool:
        """Whether this is the layer for which there is no room."""
        if self._lead is None or self._lead.fault != "disk_full":
            return False
        self._fault_at -= 1
        return self._fault_at < 0

    def applied(self, now_s: float, position: int) -> None:
        """A layer is unpacked: its snapshot is there."""
        chain = self._chains[position]
        self._runtime.snapshots.add(chain)
        self._applied.add(chain)
        waiting = self._runtime.applying.pop(chain)
        if position in self._undone:
            self._undone.remove(position)
        self.unpack(now_s, changed=True)
        for pull in waiting:
            pull._begun.discard(position)
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
            runtime.answer_present(now_s, lead)
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
        released: list[Pull] = []
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
            self._collect_garbage()
        runtime.settle(now_s)
        for pull in released:
            pull._begun &= {u.position for u in runtime.unpackings if u.pull is pull}
        self._wake(now_s, released)

    def _error(self, kind: str, digest: str) -> str:
        version = self._play.world.containerd.version
        return failures.fetching(kind, self._image, digest, version)

    def _collect_garbage(self) -> None:
        """Nothing refers to what this pull brought, unless another one is at work."""
        runtime = self._runtime
        if not runtime.pulls:
            runtime.blobs -= self._brought
            runtime.snapshots -= self._applied

    def stalled(self, now_s: float) -> None:
        """No byte came for as long as containerd waits: the pull is cancelled."""
        if self._lead is not None and self._arriving:
            self._fail(now_s, self._error("timeout", self._arriving[0]))

    def stop(self, now_s: float) -> None:
        """containerd is gone: what was asked of the registry for this pull comes to nobody."""
        self.cut(now_s)
        self._lead = None
        self._era += 1

    def cut(self, now_s: float) -> None:
        """Streams end here: the leader has what came."""
        came = self._play.downloads.drop(self._runtime.index, self, now_s)
        if self._lead is not None:
            self._lead.attempt.fetched_bytes += round(came)
