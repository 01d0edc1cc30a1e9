"""A node's kubelet: a pod's sandbox, whose turn it is to pull, what is too much, start and stop.

Hides kubelet's image manager and its back-off (kubernetes 1.36 pkg/kubelet/images:
image_manager.go, puller.go, helpers.go). Simplifications: sandboxes and containers do not slow each
other; pods of a lost node are not replaced.
"""

import math
from collections import deque
from typing import TYPE_CHECKING

from imgpull.simcluster.containerd import Runtime
from imgpull.simcluster.delays import TokenBucket
from imgpull.simcluster.failures import QPS_EXCEEDED
from imgpull.simcluster.model import Attempt, PodTrace

if TYPE_CHECKING:
    from imgpull.simcluster.physics import Play

# kubernetes 1.36 pkg/kubelet/kubelet.go: a failed pull may be tried again after its back-off, by
# the first sync from then on; pod_workers.go: syncs after an error are 10 s and up to half apart.
BACK_OFF_S, BACK_OFF_LIMIT_S = 10.0, 300.0
SYNC_S, SYNC_LATE = 10.0, 0.5


class Kubelet:
    """kubelet on one node, over its containerd."""

    def __init__(self, play: "Play", runtime: Runtime) -> None:
        self.runtime = runtime
        self._play = play
        settings = play.world.kubelet
        parallel = 1 if settings.serialize_image_pulls else settings.max_parallel_image_pulls
        self._most = self._turns = float(parallel or math.inf)
        self._queue: deque[PodTrace] = deque()
        self._limited = settings.registry_pull_qps > 0
        self._bucket = TokenBucket(settings.registry_pull_qps, settings.registry_burst)
        self._pods: list[PodTrace] = []
        self.down_until_s = 0.0  # infinite: the node is lost

    def admit(self, now_s: float, pod: PodTrace) -> None:
        """The pod was bound to this node: sandbox and network first."""
        if self.down_until_s == math.inf:
            return
        rates, index = self._play.world.rates, pod.request.index
        self._pods.append(pod)
        seen_s = max(now_s, self.down_until_s)
        pod.synced_s = seen_s + rates.pod_sync_s * self._play.jitter("sync", index)
        ready_s = pod.synced_s + rates.sandbox_s * self._play.jitter("sandbox", index)
        if not pod.request.host_network:
            pod.network_setup_s = rates.network_setup_s * self._play.jitter("cni add", index)
            ready_s += pod.network_setup_s
        pod.sandbox_s = ready_s
        self._play.at(ready_s, self.want_image, pod)

    def want_image(self, now_s: float, pod: PodTrace) -> None:
        """The pod's sandbox is ready, or its back-off is over: it needs its image."""
        if now_s < self.down_until_s or pod.request.deleted_s <= now_s or pod.started_s is not None:
            return
        if pod.request.pull_policy != "Always" and pod.request.image in self.runtime.images:
            pod.present_s = now_s
            self._start(now_s, pod)
            return
        pod.attempts.append(Attempt(now_s))
        self._queue.append(pod)
        self._give_turns(now_s)

    def _give_turns(self, now_s: float) -> None:
        while self._queue and self._turns > 0:
            pod = self._queue.popleft()
            attempt = pod.attempts[-1]
            if self._limited and not self._bucket.try_take(now_s):
                attempt.ended_s, attempt.error = now_s, QPS_EXCEEDED
                self._back_off(now_s, pod)
                continue
            self._turns -= 1
            attempt.began_s = now_s
            self.runtime.pull(now_s, pod, attempt, self._answered)

    def _answered(self, now_s: float, pod: PodTrace, attempt: Attempt, error: str) -> None:
        attempt.ended_s, attempt.error = now_s, error
        self._turns += 1
        if error:
            self._back_off(now_s, pod)
        else:
            self._start(now_s, pod)
        self._give_turns(now_s)

    def _back_off(self, now_s: float, pod: PodTrace) -> None:
        if pod.request.deleted_s <= now_s:
            self.delete(now_s, pod)
            return
        failed = sum(1 for attempt in pod.attempts if attempt.error)
        back_off_s = min(BACK_OFF_S * 2.0 ** min(failed - 1, 10), BACK_OFF_LIMIT_S)
        sync_s, syncs = 0.0, 0
        while sync_s < back_off_s:
            late = self._play.luck.share(f"sync {failed}/{syncs}", pod.request.index)
            sync_s += SYNC_S * (1.0 + SYNC_LATE * late)
            syncs += 1
        self._play.at(now_s + sync_s, self.want_image, pod)

    def _start(self, now_s: float, pod: PodTrace) -> None:
        if pod.request.deleted_s <= now_s:
            self.delete(now_s, pod)
            return
        rates, index, jitter = self._play.world.rates, pod.request.index, self._play.jitter
        pod.container_s = now_s + rates.container_create_s * jitter("create", index)
        pod.started_s = pod.container_s + rates.container_start_s * jitter("start", index)
        pod.ready_s = pod.started_s + rates.watch_lag_s * jitter("watch", index)

    def delete(self, now_s: float, pod: PodTrace) -> None:
        """The pod's deletion has come: stop its container, tear its network down.

        A pull goes on to its end and the pod with it (kubelet.go runs SyncPod without
        cancellation): then this is called again.
        """
        pulling = bool(pod.attempts) and pod.attempts[-1].ended_s is None
        if pulling or self.down_until_s == math.inf:
            return
        request, rates = pod.request, self._play.world.rates
        seen_s = max(now_s, self.down_until_s)
        running = pod.started_s is not None and pod.started_s <= now_s
        # The process ignores TERM: it is killed when its grace is over.
        gone_s = seen_s + (request.grace_s if running else 0.0)
        pod.stopped_s = gone_s
        if pod.network_setup_s is not None and pod.sandbox_s is not None and pod.sandbox_s <= now_s:
            factor = self._play.jitter("cni del", request.index)
            pod.network_teardown_s = rates.network_teardown_s * factor
            gone_s += pod.network_teardown_s
        pod.gone_s = gone_s + rates.api_call_s
        self._play.at(pod.gone_s, self._play.gone, pod)

    def stop(self, now_s: float, until_s: float) -> None:
        """kubelet and containerd are down until then: every pull is given up, containers run on."""
        self.down_until_s = until_s
        self.runtime.stop(now_s)
        self._queue.clear()
        self._turns = self._most
        if until_s == math.inf:
            return
        for pod in self._pods:
            done = pod.present_s is not None or pod.pulled_s is not None
            if not done and pod.request.deleted_s > now_s and pod.sandbox_s is not None:
                pod.sandbox_s = pod.sandbox_s if pod.sandbox_s <= now_s else until_s
                again_s = self._play.world.rates.pod_sync_s
                again_s *= self._play.jitter("sync again", pod.request.index)
                self._play.at(until_s + again_s, self.want_image, pod)
