"""ClusterLoader2's Prometheus stack: whose it is, when it is made anew, and that it goes whole.

Hides what CL2 does to a cluster beside its tests: it takes namespace `monitoring` for its own, makes
what is not there (so what is there stays as it was), replaces StorageClass `ssd`, and at its end
removes that namespace and nothing else. Ours is the namespace that carries our annotation: we make it
before CL2 does. Read in perf-tests of August 2026, clusterloader2/pkg/prometheus/prometheus.go and
its manifests; Azure's fork makes the same objects.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.errors import EngineFailed, EngineUnavailable

NAMESPACE = "monitoring"
ANNOTATION = "imgpull.dev/prometheus"  # on what is ours: the hash of the settings it was made with
# On the namespace: what was there before CL2 came, and so is not ours to remove.
_KEPT = "imgpull.dev/prometheus-kept"

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
_RBAC = "/apis/rbac.authorization.k8s.io/v1/"
_SPACE = f"/api/v1/namespaces/{NAMESPACE}"
_STORAGE_CLASS = "/apis/storage.k8s.io/v1/storageclasses/ssd"
_OPERATOR_CRDS = tuple(
    f"{_CRDS}{plural}.monitoring.coreos.com"
    for plural in (
        "alertmanagerconfigs", "alertmanagers", "podmonitors", "probes", "prometheuses",
        "prometheusrules", "servicemonitors", "thanosrulers",
    )
)  # fmt: skip

# What CL2 leaves outside its namespace, in the order in which it can go.
CL2_LEFTOVERS = (
    f"{_RBAC}clusterrolebindings/prometheus-operator",
    f"{_RBAC}clusterrolebindings/prometheus-k8s",
    f"{_RBAC}clusterrolebindings/metrics-viewer-binding",
    f"{_RBAC}clusterroles/prometheus-operator",
    f"{_RBAC}clusterroles/prometheus-k8s",
    f"{_RBAC}clusterroles/metrics-viewer",
    "/api/v1/namespaces/default/serviceaccounts/monitoringserviceaccount",
    "/api/v1/namespaces/kube-system/services/kube-proxy",
    # Made by the operator (--kubelet-service), without an owner.
    "/api/v1/namespaces/kube-system/services/kubelet",
    "/api/v1/namespaces/kube-system/endpoints/kubelet",
    _STORAGE_CLASS,
    *_OPERATOR_CRDS,
)
