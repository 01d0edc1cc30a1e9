"""What happens when pods land on a cluster: the clock that moves them through their lives.

Hides how time passes. A pod's life, in reading order: `controlplane.py` creates and places it,
`kubelet.py` gives it a sandbox and asks for its image, `containerd.py` and `pull.py` bring it over
`network.py` and `disk.py`, `kubelet.py` starts it and, once deleted, stops it. The door is
`simulate`.
"""

import gc
import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush

from imgpull.errors import ConfigError
from imgpull.simcluster import controlplane
from imgpull.simcluster.containerd import Runtime
from imgpull.simcluster.delays import Luck, TokenBucket
from imgpull.simcluster.kubelet import Kubelet
from imgpull.simcluster.model import Layer, NodeTrace, PodRequest, PodTrace, Trace, World
from imgpull.simcluster.network import Downloads

Action = Callable[..., None]


def simulate(world: World, pods: Sequence[PodRequest], until_s: float = math.inf) -> Trace:
    """Play one trial up to `until_s`; pure, and the same for the same arguments.

    What would happen after `until_s` is None, a pod that would be created after it is left out, and
    so is one whose deletion comes before its creation; a leader cut while pulling has fetched what
    had arrived. What is created or deleted later never changes what happened before. ConfigError
    for a compression that the world has no rate for.
    """
    play = Play(world)
    traces = [
        pod for pod in controlplane.created(world, play.luck, pods) if pod.created_s <= until_s
    ]
    for pod in traces:
        play.at(pod.created_s, play.come, pod)
        if pod.request.deleted_s < math.inf:
            play.at(controlplane.deletion_s(world, pod.request), play.delete, pod)
    play.run(until_s)
    for pod in traces:
        lost_s = play.lost_s.get(pod.node or "", math.inf)
        _forget_after(min(until_s, lost_s), pod)
    return Trace(
        tuple(traces),
        {
            name: NodeTrace(
                tuple(kubelet.runtime.segments),
                play.lost_s.get(name, math.inf),
                play.restarted_s.get(name, math.inf),
            )
            for name, kubelet in play.kubelets.items()
        },
    )


def _forget_after(until_s: float, pod: PodTrace) -> None:
    """What lies after `until_s` was only foreseen; a deleted pod does not get any further."""
    begun_s = until_s
    if pod.stopped_s is not None:
        begun_s = min(until_s, pod.stopped_s)
    for moment in ("scheduled_s", "synced_s", "sandbox_s", "present_s", "container_s", "started_s",
                   "ready_s"):  # fmt: skip
        if (getattr(pod, moment) or 0.0) > begun_s:
            setattr(pod, moment, None)
    for moment in ("stopped_s", "gone_s"):
        if (getattr(pod, moment) or 0.0) > until_s:
            setattr(pod, moment, None)
    if pod.scheduled_s is None:
        pod.node = None
    if pod.sandbox_s is None:
        pod.network_setup_s = None
    if pod.stopped_s is None:
        pod.network_teardown_s = None


class Play:
    """One trial being played: the clock, the luck, and what all nodes share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.luck = luck = Luck(world.seed, world.trial)
        rates, registry, faults = world.rates, world.registry, world.faults
        # A registry that is slow in this trial is so per connection and as a whole.
        self.registry_luck = luck.factor("trial registry", 0, rates.trial_spread_sigma)
        self.disk_luck = luck.factor("trial disk", 0, rates.trial_spread_sigma)
        self._egress_bytes_s = registry.egress_bytes_s * self.registry_luck
        self.downloads = Downloads(
            len(world.node_names), self._egress_bytes_s, registry.zones, registry.zone_link_bytes_s
        )
        self._requests = (
            None
            if registry.requests_s is None
            else TokenBucket(registry.requests_s, registry.requests_burst)
        )
        self._events: list[tuple[float, int, Action, tuple[object, ...]]] = []
        self._planned = 0
        self._chains: dict[str, tuple[int, ...]] = {}
        self._chain_ids: dict[tuple[int, str], int] = {}
        self._speeds = {
            "gzip": rates.gzip_unpack_bytes_s,
            "zstd": rates.zstd_unpack_bytes_s,
            "none": rates.plain_unpack_bytes_s,
        }
        self.scheduler = controlplane.Scheduler(world, luck, self._bound)
        accidents = luck.order("accident", len(world.node_names))
        slow = set(accidents[: faults.slow_nodes])
        self.kubelets = {
            name: Kubelet(self, Runtime(self, index, faults.slow_factor if index in slow else 1.0))
            for index, name in enumerate(world.node_names)
        }
        self.lost_s: dict[str, float] = {}
        self.restarted_s: dict[str, float] = {}
        self._plan_accidents(accidents)
        self._fill_nodes()

    def _plan_accidents(self, order: list[int]) -> None:
        faults, names = self.world.faults, self.world.node_names
        lost = faults.lost_nodes
        for index in order[len(order) - lost :]:
            self.lost_s[names[index]] = faults.lost_s
            self.at(faults.lost_s, self._stop, names[index], math.inf)
        for index in order[len(order) - lost - faults.restarted_nodes : len(order) - lost]:
            self.restarted_s[names[index]] = faults.restarted_s
            back_s = faults.restarted_s + faults.restart_takes_s
            self.at(faults.restarted_s, self._stop, names[index], back_s)
        for brown_out in faults.brown_outs:
            self.at(brown_out.begin_s, self._egress, brown_out.egress_share)
            self.at(brown_out.end_s, self._egress, 1.0)

    def _fill_nodes(self) -> None:
        held, kubelets = self.world.held, list(self.kubelets.values())
        if held.snapshots or held.blobs or held.images:
            order = self.luck.order("held", len(kubelets))
            for index in order[: round(held.nodes_share * len(kubelets))]:
                kubelets[index].runtime.hold(held.snapshots, held.blobs, held.images)

    # ------------------------------------------------------------------ the clock

    def at(self, when_s: float, action: Action, *arguments: object) -> None:
        """Call `action(when_s, *arguments)` then; equal times keep the order of planning."""
        self._planned += 1
        heappush(self._events, (when_s, self._planned, action, arguments))

    def run(self, until_s: float) -> None:
        """Play every event up to `until_s`, then close the books there."""
        collecting = gc.isenabled()
        gc.disable()  # a trial makes millions of tuples and drops no cycle: a quarter of its time
        try:
            end_s = self._run(until_s)
        finally:
            if collecting:
                gc.enable()
        for kubelet in self.kubelets.values():
            kubelet.runtime.cut(end_s)

    def _run(self, until_s: float) -> float:
        """The loop; returns when it ended."""
        events, downloads = self._events, self.downloads
        now_s = 0.0
        while True:
            arrival_s, flow = downloads.next_end(now_s)
            event_s = events[0][0] if events else math.inf
            next_s = min(arrival_s, event_s)
            if next_s > until_s or next_s == math.inf:
                break
            now_s = max(now_s, next_s)
            if flow is not None and arrival_s <= event_s:
                downloads.close(flow, now_s)(now_s)
            else:
                _, _, action, arguments = heappop(events)
                action(now_s, *arguments)
        return now_s if until_s == math.inf else until_s

    # ------------------------------------------------------------------ a pod's way

    def come(self, now_s: float, pod: PodTrace) -> None:
        """The pod exists: the scheduler gets to it in its turn."""
        self.at(self.scheduler.turn_s(now_s, pod), self.scheduler.place, pod)

    def _bound(self, now_s: float, pod: PodTrace) -> None:
        assert pod.node is not None
        self.kubelets[pod.node].admit(now_s, pod)

    def delete(self, now_s: float, pod: PodTrace) -> None:
        """The pod's deletion has reached it."""
        if pod.node is None:
            pod.stopped_s = pod.gone_s = now_s
            return
        self.kubelets[pod.node].delete(now_s, pod)

    def gone(self, now_s: float, pod: PodTrace) -> None:
        """A deleted pod has left its node: whoever waited for room may have it."""
        for waiting in self.scheduler.leave(pod):
            self.at(now_s + controlplane.RETRY_S, self.scheduler.place, waiting)

    # ------------------------------------------------------------------ accidents

    def _stop(self, now_s: float, node: str, until_s: float) -> None:
        self.kubelets[node].stop(now_s, until_s)

    def _egress(self, now_s: float, share: float) -> None:
        self.downloads.egress(self._egress_bytes_s * share, now_s)
        if share == 0.0:
            timeout_s = self.world.containerd.image_pull_progress_timeout_s
            self.at(now_s + timeout_s, self._stalled, now_s)

    def _stalled(self, now_s: float, since_s: float) -> None:
        """The registry has been silent for containerd's progress timeout: pulls are cancelled."""
        if any(b.begin_s <= since_s and now_s < b.end_s for b in self.world.faults.brown_outs):
            for kubelet in self.kubelets.values():
                for pull in list(kubelet.runtime.pulls.values()):
                    pull.stalled(now_s)

    # ------------------------------------------------------------------ what nodes ask

    def jitter(self, purpose: str, index: int) -> float:
        """The luck of one small delay."""
        return self.luck.factor(purpose, index, self.world.rates.event_jitter_sigma)

    def take_requests(self, now_s: float, count: int) -> bool:
        """Whether the registry answers so many requests now, or says 429."""
        return self._requests is None or self._requests.try_take(now_s, count)

    def pull_fault(self, pod_index: int, nth: int) -> str:
        """What is to go wrong with this PullImage call, if anything."""
        shares = self.world.faults.pull_shares
        if not shares:
            return ""
        drawn = self.luck.share(f"fault {nth}", pod_index)
        for kind, share in shares.items():
            drawn -= share
            if drawn < 0:
                return kind
        return ""

    def chains(self, image: str) -> tuple[int, ...]:
        """A number for each layer on top of those below it: equal for equal content."""
        if image not in self._chains:
            found, below = [], 0
            for layer in self.world.images[image]:
                below = self._chain_ids.setdefault((below, layer.digest), len(self._chain_ids) + 1)
                found.append(below)
            self._chains[image] = tuple(found)
        return self._chains[image]

    def core_bytes_s(self, layer: Layer) -> float:
        """How fast one core unpacks this layer, in unpacked bytes."""
        if layer.compression not in self._speeds:
            raise ConfigError(
                f"layer {layer.digest} has compression '{layer.compression}'",
                hint=f"write one of {', '.join(self._speeds)}",
            )
        return self._speeds[layer.compression]
