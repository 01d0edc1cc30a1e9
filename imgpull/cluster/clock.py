"""How far clocks differ: the API server's from ours, and kubelets' from the API server's.

Hides that neither tells its clock outright. The server's is in whole seconds, so that several
answers are needed to come closer; a kubelet's is in the lease that it renews, beside the time at
which the server stored it.
"""

import time
from collections.abc import Iterable
from datetime import datetime

from imgpull.cluster.kube import Kube, Object

_CLOSE_S = 1.2  # a second, and the time an answer takes
_ANSWERS, _PAUSE_S = 4, 0.23  # together about a second: one of them is near the second's turn
_NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
# A kubelet's request is under way for less than this.
_UNDER_WAY_S = 1.0


def clock_skew_s(kube: Kube) -> float | None:
    """Seconds by which the API server's clock is ahead of ours; None if it does not tell.

    0 where they may be the same, known to a second; else to about 0.2 s.
    """
    low_s, high_s = -float("inf"), float("inf")
    for answer in range(_ANSWERS):
        if answer:
            time.sleep(_PAUSE_S)
        sent_s = time.time()
        told_s = kube.server_time_s()
        received_s = time.time()
        if told_s is None:
            return None
        low_s, high_s = max(low_s, told_s - received_s), min(high_s, told_s + 1 - sent_s)
        if low_s <= 0 <= high_s and high_s - low_s < _CLOSE_S:
            return 0.0  # as far as whole seconds can tell
    return 0.0 if low_s <= 0 <= high_s else (low_s + high_s) / 2


def node_skews_s(kube: Kube, names: Iterable[str]) -> dict[str, float]:
    """Seconds by which nodes' clocks are ahead of the API server's: 0 where they may be the same.

    Known to a second or so; a node whose lease does not tell is left out.
    """
    wanted = set(names)
    skews = {
        lease["metadata"]["name"]: skew_s
        for lease in kube.items(_NODE_LEASES)
        if lease["metadata"]["name"] in wanted and (skew_s := _skew_s(lease)) is not None
    }
    return dict(sorted(skews.items()))


def _skew_s(lease: Object) -> float | None:
    renewed = (lease.get("spec") or {}).get("renewTime")
    stored = [each.get("time") for each in lease["metadata"].get("managedFields") or ()]
    if not renewed or not stored or not all(stored):
        return None
    try:
        told_s = datetime.fromisoformat(renewed).timestamp()
        stored_s = max(datetime.fromisoformat(each).timestamp() for each in stored)
    except ValueError:
        return None
    # Stored in whole seconds, rounded down, and most often at once.
    ahead_s = told_s - stored_s
    return 0.0 if -_UNDER_WAY_S <= ahead_s <= 1 else ahead_s - 0.5
