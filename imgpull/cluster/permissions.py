"""What a real trial does to a cluster, as permissions: the table that preflight checks.

Hides the form of access reviews. ClusterLoader2 acts with the same credential (engine=binary and
docker): its part is read from perf-tests, clusterloader2/pkg (August 2026), and it ran with no
more. In the cluster (engine=incluster) it acts with rights that are given to its Job.
docs/real-clusters.md shows this table, and that Job's role is made from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from imgpull.cluster.everywhere import everywhere
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.ownership import SYSTEM_NAMESPACE

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_RBAC, _CRDS, _OPERATOR = (
    "rbac.authorization.k8s.io",
    "apiextensions.k8s.io",
    "monitoring.coreos.com",
)

Who = Literal["imgpull", "clusterloader", "incluster", "pull secret"]


@dataclass(frozen=True)
class Permission:
    """Verbs on a resource, or on a path of the server's, that somebody needs.

    An empty namespace is all of them.
    """

    who: Who
    verbs: tuple[str, ...]
    resource: str  # with its part: nodes/proxy
    why: str
    group: str = ""
    namespace: str = ""

    def where(self) -> str:
        """The resource with its group, as kubectl names it, and the namespace."""
        if self.resource.startswith("/"):
            return self.resource
        resource, _, part = self.resource.partition("/")
        named = f"{resource}.{self.group}" if self.group else resource
        return (
            f"{named}{f'/{part}' if part else ''}{f' in {self.namespace}' * bool(self.namespace)}"
        )


def _rows(
    who: Who, why: str, *rows: tuple[str, str] | tuple[str, str, str], namespace: str = ""
) -> Iterator[Permission]:
    for verbs, resource, *group in rows:
        told = tuple(verbs.split())
        yield Permission(who, told, resource, why, group[0] if group else "", namespace)


PERMISSIONS: tuple[Permission, ...] = (
    *_rows("imgpull", "choose and label the measured nodes", ("list patch", "nodes")),
    *_rows("imgpull", "kubelets' settings, disks and metrics", ("get", "nodes/proxy")),
    *_rows(
        "imgpull", "watch the test's pods and events",
        ("list watch", "pods"), ("list watch", "events"),
    ),
    *_rows(
        "imgpull", "namespaces of the test, of helpers, of Prometheus",
        ("get list create patch delete", "namespaces"),
    ),
    *_rows(
        "imgpull", "one sweep at a time", ("get create update", "leases", "coordination.k8s.io"),
        namespace=SYSTEM_NAMESPACE,
    ),
    *_rows(
        "imgpull", "helpers that empty the nodes' image caches",
        ("get list create delete", "daemonsets", "apps"),
        namespace=SYSTEM_NAMESPACE,
    ),
    *_rows(
        "imgpull", "find what a trial left",
        ("get list delete", "pods"), ("get list delete", "jobs", "batch"),
        ("get list delete", "configmaps"),
        ("get list delete", "secrets"), ("get list delete", "serviceaccounts"),
        namespace=SYSTEM_NAMESPACE,
    ),
    *_rows(
        "imgpull", "remove what ClusterLoader2 leaves",
        ("get patch delete", "customresourcedefinitions", _CRDS),
        ("get list patch delete", "clusterroles", _RBAC),
        ("get list patch delete", "clusterrolebindings", _RBAC),
        ("get patch delete", "storageclasses", "storage.k8s.io"),
    ),
    *_rows(
        "imgpull", "remove what ClusterLoader2 leaves",
        ("get patch delete", "services"), ("get patch delete", "endpoints"),
        namespace="kube-system",
    ),
    *_rows("imgpull", "remove what ClusterLoader2 leaves", ("get patch delete", "serviceaccounts"),
           namespace="default"),
    *_rows(
        "imgpull", "ask its Prometheus", ("get", "services/proxy"), ("get", "secrets"),
        namespace="monitoring",
    ),
    *_rows("pull secret", "read the pull secret", ("get", "secrets"), namespace="default"),
    *_rows("pull secret", "copy it into the test's namespace", ("create update", "secrets")),
    *_rows(
        "clusterloader", "the test",
        ("get create list watch update patch delete", "deployments", "apps"),
        ("list watch", "replicasets", "apps"), ("list watch", "pods"), ("list watch", "nodes"),
        ("list", "events"), ("get list create delete", "namespaces"),
        ("list watch", "persistentvolumes"),
    ),
    *_rows(
        "clusterloader", "its Prometheus",
        ("create", "customresourcedefinitions", _CRDS), ("create", "clusterroles", _RBAC),
        ("create", "clusterrolebindings", _RBAC),
        ("create delete", "storageclasses", "storage.k8s.io"),
    ),
    *_rows(
        "clusterloader", "its Prometheus",
        # Its binding comes before the role, which only who may `bind` any can do.
        ("create bind", "roles", _RBAC), ("create", "rolebindings", _RBAC),
        ("create", "deployments", "apps"), ("create", "services"), ("create", "endpoints"),
        ("create", "configmaps"), ("create", "serviceaccounts"), ("create", "resourcequotas"),
        ("get create update", "secrets"), ("get create", "services/proxy"),
        ("create", "prometheuses", _OPERATOR), ("create", "servicemonitors", _OPERATOR),
        ("create", "podmonitors", _OPERATOR), ("create", "prometheusrules", _OPERATOR),
        namespace="monitoring",
    ),
    *_rows("clusterloader", "its Prometheus", ("create", "services"), namespace="kube-system"),
    *_rows(
        "clusterloader", "its Prometheus",
        ("get create", "serviceaccounts"), ("create", "serviceaccounts/token"),
        ("get", "endpoints"),
        namespace="default",
    ),
    # Who makes a role must have what it gives (Kubernetes docs, RBAC: privilege escalation).
    *_rows(
        "clusterloader", "to be given on to prometheus-operator",
        ("*", "*", _OPERATOR), ("*", "statefulsets", "apps"), ("*", "configmaps"),
        ("*", "secrets"), ("get create update delete", "services"),
        ("get create update delete", "services/finalizers"),
        ("get create update delete", "endpoints"), ("list delete", "pods"),
        ("get list watch", "namespaces"), ("create patch", "events", "events.k8s.io"),
        ("get list watch", "ingresses", "networking.k8s.io"),
        ("get", "storageclasses", "storage.k8s.io"),
    ),
    *_rows(
        "clusterloader", "to be given on to Prometheus",
        ("get list watch", "nodes/metrics"), ("get list watch", "services"),
        ("get list watch", "endpoints"), ("get list watch", "pods"), ("get", "/metrics"),
    ),
    *_rows(
        "incluster", "run ClusterLoader2 as a Job",
        ("get list create delete", "jobs", "batch"), ("get create delete", "configmaps"),
        ("get create delete", "serviceaccounts"), ("get list watch patch", "pods"),
        ("get", "pods/log"),
        namespace=SYSTEM_NAMESPACE,
    ),
    *_rows(
        "incluster", "give that Job its rights, and take them back",
        ("get create delete bind escalate", "clusterroles", _RBAC),
        ("get create delete", "clusterrolebindings", _RBAC),
    ),
)  # fmt: skip


def table() -> str:
    """All of them as a table in Markdown, as docs/real-clusters.md shows them."""
    lines = ["| Who | Resource | Verbs | Why |", "|---|---|---|---|"]
    for each in PERMISSIONS:
        verbs = ", ".join(each.verbs).replace("*", "all")
        lines.append(f"| {each.who} | `{each.where()}` | {verbs} | {each.why} |")
    return "\n".join(lines) + "\n"


def needed(engine: str, *, pull_secret: bool) -> list[Permission]:
    """The permissions that a trial of this engine needs."""
    who = {"imgpull", "incluster" if engine == "incluster" else "clusterloader"}
    who |= {"pull secret"} if pull_secret else set()
    return [each for each in PERMISSIONS if each.who in who]


def rules() -> list[Object]:
    """The rules of a ClusterRole for ClusterLoader2: its part of the table, in all namespaces."""
    verbs: dict[tuple[str, str], dict[str, None]] = {}
    for each in PERMISSIONS:
        if each.who == "clusterloader":
            verbs.setdefault((each.group, each.resource), {}).update(dict.fromkeys(each.verbs))
    return [
        {"nonResourceURLs": [resource], "verbs": list(told)}
        if resource.startswith("/")
        else {"apiGroups": [group], "resources": [resource], "verbs": list(told)}
        for (group, resource), told in verbs.items()
    ]


def denied(kube: Kube, permissions: list[Permission]) -> list[tuple[Permission, str]]:
    """What this credential may not do, with the verb; ApiError when that cannot be asked."""
    asked = {
        f"{index} {verb}": (each, verb)
        for index, each in enumerate(permissions)
        for verb in each.verbs
    }
    answers = everywhere(asked, lambda key: _allowed(kube, *asked[key]))
    found = []
    for key, allowed in answers.items():
        if isinstance(allowed, ApiError):
            raise allowed
        if not allowed:
            found.append(asked[key])
    return found


def _allowed(kube: Kube, permission: Permission, verb: str) -> bool:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": _asked(permission, verb),
    }
    status = kube.create(_REVIEWS, review).get("status") or {}
    return bool(status.get("allowed"))


def _asked(permission: Permission, verb: str) -> dict[str, dict[str, str]]:
    if permission.resource.startswith("/"):
        return {"nonResourceAttributes": {"verb": verb, "path": permission.resource}}
    resource, _, part = permission.resource.partition("/")
    wanted = {
        "verb": verb, "group": permission.group, "resource": resource, "subresource": part,
        "namespace": permission.namespace,
    }  # fmt: skip
    return {"resourceAttributes": {key: value for key, value in wanted.items() if value}}
