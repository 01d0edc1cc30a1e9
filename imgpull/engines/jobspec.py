"""What a run of ClusterLoader2 inside the cluster is made of, as Kubernetes objects.

Hides manifests, the rights that CL2 needs, and how its report leaves the pod: a second container,
which keeps running when CL2 has ended, writes the report into its own log, a slice whenever the
pod's annotation asks for one. So nothing is assumed of CL2's image but its entrypoint, and a slice
that was lost (logs rotate at 10 MiB) is asked for again.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imgpull.cluster import permissions
from imgpull.cluster.kube import Object
from imgpull.cluster.ownership import SYSTEM_NAMESPACE
from imgpull.config.job import MEASURED_LABEL
from imgpull.errors import ConfigError

CL2, REPORT = "clusterloader", "report"  # containers
ASKED = "imgpull.dev/report-slice"  # annotation of the pod: which slice is asked for
SLICE_BYTES = 2**20  # in base64 far below what a kubelet keeps of a log
ROOT = "/imgpull"
_GRACE_S = 10
_CONFIG_BYTES = 2**20 - 2**14  # of a ConfigMap, with room for its own names

# Kubelet renews the file of annotations as soon as they change (a downwardAPI volume).
_SCRIPT = f"""
trap 'exit 0' TERM
done=
while :; do
  asked=$(sed -n 's,^{ASKED}="\\(.*\\)"$,\\1,p' {ROOT}/pod/annotations)
  if [ -n "$asked" ] && [ "$asked" != "$done" ]; then
    done=$asked
    [ -f /tmp/report.tgz ] || tar -C {ROOT} -czf /tmp/report.tgz report
    dd if=/tmp/report.tgz of=/tmp/slice bs={SLICE_BYTES} skip="${{asked%%-*}}" count=1 2>/dev/null
    echo "begin $asked"
    base64 /tmp/slice
    echo "end $asked $(sha256sum </tmp/slice | cut -d' ' -f1) $(wc -c </tmp/report.tgz)"
  fi
  sleep 0.2 2>/dev/null || sleep 1
done
"""


@dataclass(frozen=True)
class Pod:
    """What the pod of a Job runs, and where."""

    image: str
    arguments: Sequence[str]
    helper_image: str | None  # None: no report is had back
    node_selector: Mapping[str, str]
    limit_s: float


def rights(name: str, labels: Mapping[str, str]) -> list[tuple[str, Object]]:
    """Collection and object of all that gives CL2 its rights."""
    meta = {"name": name, "labels": dict(labels)}
    rbac = "rbac.authorization.k8s.io"
    return [
        (
            f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/serviceaccounts",
            {"apiVersion": "v1", "kind": "ServiceAccount",
             "metadata": {**meta, "namespace": SYSTEM_NAMESPACE}},
        ),
        (
            f"/apis/{rbac}/v1/clusterroles",
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": meta,
             "rules": permissions.rules()},
        ),
        (
            f"/apis/{rbac}/v1/clusterrolebindings",
            {
                "apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": meta,
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name,
                              "namespace": SYSTEM_NAMESPACE}],
            },
        ),
    ]  # fmt: skip


def config_map(
    name: str, labels: Mapping[str, str], files: Mapping[str, bytes]
) -> tuple[str, Object]:
    """Collection and object that hold files by their path below ROOT; ConfigError over 1 MiB."""
    total = sum(map(len, files.values()))
    if total > _CONFIG_BYTES:
        largest = max(files, key=lambda path: len(files[path]))
        raise ConfigError(
            f"the bundle of {total} bytes does not fit into a ConfigMap of 1 MiB; its largest file "
            f"is {largest}",
            hint="use engine=binary or engine=docker, or a smaller template",
        )
    text: dict[str, str] = {}
    other: dict[str, str] = {}
    for path, data in files.items():
        try:
            text[_key(path)] = data.decode()
        except UnicodeDecodeError:
            other[_key(path)] = base64.b64encode(data).decode()
    return f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps", {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": dict(labels)},
        "data": text,
        "binaryData": other,
    }


def job(name: str, labels: Mapping[str, str], pod: Pod, paths: Sequence[str]) -> tuple[str, Object]:
    """Collection and object of the Job; `paths` are those of the files in its ConfigMap.

    Without files it has no rights either.
    """
    containers: list[Object] = [_cl2_container(pod, has_files=bool(paths))]
    if pod.helper_image is not None:
        # First, so that it has been started when CL2 is.
        containers.insert(0, _report_container(pod.helper_image))
    spec: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": bool(paths),
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux", **pod.node_selector},
        "affinity": _APART,
        "tolerations": _TOLERATIONS,
        "containers": containers,
        "volumes": _volumes(name, paths),
    }
    if paths:
        spec["serviceAccountName"] = name
    return f"/apis/batch/v1/namespaces/{SYSTEM_NAMESPACE}/jobs", {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": dict(labels)},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": max(1, round(pod.limit_s)),
            "ttlSecondsAfterFinished": 600,  # where nobody is left to remove it
            "template": {"metadata": {"labels": dict(labels)}, "spec": spec},
        },
    }


# Not beside the pulls that are measured, where there is another place.
_APART = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "preference": {
                    "matchExpressions": [{"key": MEASURED_LABEL, "operator": "DoesNotExist"}]
                },
            }
        ]
    }
}
# What CL2's own Prometheus tolerates, whose nodes it shares (manifests/prometheus-prometheus.yaml).
_TOLERATIONS = [
    {"key": "monitoring", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node-role.kubernetes.io/master", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
]


def _cl2_container(pod: Pod, *, has_files: bool) -> Object:
    mounts = [{"name": "report", "mountPath": f"{ROOT}/report"}]
    if has_files:
        mounts.append({"name": "config", "mountPath": f"{ROOT}/config"})
    return {
        "name": CL2,
        "image": pod.image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(pod.arguments),
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}},
        "volumeMounts": mounts,
    }


def _report_container(image: str) -> Object:
    return {
        "name": REPORT,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", _SCRIPT],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [
            {"name": "report", "mountPath": f"{ROOT}/report", "readOnly": True},
            {"name": "pod", "mountPath": f"{ROOT}/pod"},
            {"name": "scratch", "mountPath": "/tmp"},
        ],
    }


def _volumes(name: str, paths: Sequence[str]) -> list[Object]:
    annotations = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
    volumes: list[Object] = [
        {"name": "report", "emptyDir": {}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "pod", "downwardAPI": {"items": [annotations]}},
    ]
    if paths:
        items = [{"key": _key(path), "path": path} for path in paths]
        volumes.append({"name": "config", "configMap": {"name": name, "items": items}})
    return volumes


def _key(path: str) -> str:
    """A path as a key of a ConfigMap, which may hold no slash."""
    return path.replace("/", "--")
