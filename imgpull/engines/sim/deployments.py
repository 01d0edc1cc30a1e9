"""A Deployment's manifest as far as the simulator plays it, and label selectors over it.

Hides Kubernetes' shape of both and its defaults. A field that changes what happens to pods is
played or refused by name, file and line; what changes nothing here (environment, command, ports
without a host port, ...) is let through.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from imgpull import cl2
from imgpull.cl2.places import Place, read_yaml

# apimachinery pkg/labels: the equality-based part of the selector language.
_EQUALITY = re.compile(r"([\w./-]+)\s*==?\s*([\w.-]+)")
# apimachinery pkg/api/resource: quantities.
_QUANTITY = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i|)")
_SUFFIXES = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3,
    **{prefix: 1000.0**power for power, prefix in enumerate("MGTPE", 2)},
    **{prefix + "i": 1024.0**power for power, prefix in enumerate("KMGTPE", 1)},
}  # fmt: skip

# Fields that change nothing that is simulated.
_DEPLOYMENT = ("strategy", "revisionHistoryLimit", "progressDeadlineSeconds")
_POD = (
    "automountServiceAccountToken", "enableServiceLinks", "nodeSelector", "tolerations",
    "securityContext", "serviceAccountName", "serviceAccount", "imagePullSecrets", "dnsPolicy",
    "dnsConfig", "hostAliases", "hostname", "subdomain", "hostPID", "hostIPC",
    "shareProcessNamespace",
)  # fmt: skip
_CONTAINER = (
    "name", "command", "args", "env", "workingDir", "securityContext", "stdin", "stdinOnce", "tty",
    "terminationMessagePath", "terminationMessagePolicy", "volumeMounts",
)  # fmt: skip
# Those that ClusterLoader2 calls stateless (pod_startup_latency.go isPodStateless).
_VOLUMES = ("emptyDir", "downwardAPI", "configMap", "secret", "projected")


@dataclass(frozen=True)
class Deployment:
    """What the simulator needs of a Deployment and of its one container."""

    replicas: int | None  # None: not said, so 1 when created and unchanged when patched
    labels: Mapping[str, str]
    pod_labels: Mapping[str, str]
    image: str
    image_line: str  # where the image stands
    pull_policy: str
    host_network: bool
    grace_s: float
    cpu_cores: float
    memory_bytes: float
    node_selector: Mapping[str, str]
    spread: str | None  # as a label selector
    max_skew: int
    rest: Mapping[str, Any]  # the whole manifest but for its replicas


def deployment(bundled: cl2.ObjectBundle, index: int, namespace: str) -> Deployment:
    """The Deployment that CL2 would send; RenderError, with the line, for what is not played."""
    text = cl2.object_text(bundled, index, namespace)
    return _deployment(text, bundled.file, namespace)


@lru_cache(maxsize=4096)  # the same objects are in every cell of a matrix
def _deployment(text: str, file: str, namespace: str) -> Deployment:
    place = read_yaml(text, file)
    data = place.mapping()
    kind = data.get("apiVersion"), data.get("kind")
    top = _fields(place, "apiVersion", "kind", "metadata", "spec")
    if kind != ("apps/v1", "Deployment"):
        raise top["kind"].error(
            f"the simulator creates Deployments of apps/v1, not {kind[1]} of {kind[0]}",
            hint="use a real engine for other kinds",
        )
    metadata = _fields(top["metadata"], "name", "namespace", "labels", "annotations")
    if metadata["namespace"].text(namespace) != namespace:
        raise metadata["namespace"].error(
            f"the phase creates it in {namespace}, which the API server would refuse",
            hint="leave the namespace to ClusterLoader2",
        )
    spec = _fields(top["spec"], "replicas", "selector", "template", *_DEPLOYMENT)
    template = _fields(spec["template"], "metadata", "spec")
    pod_labels = _labels(_fields(template["metadata"], "labels", "annotations")["labels"])
    selector = _labels(_fields(spec["selector"], "matchLabels")["matchLabels"])
    if not selector or not selector.items() <= pod_labels.items():
        raise spec["selector"].error(
            "does not select the template's labels, which the API server would refuse",
            hint="give spec.selector.matchLabels labels of the template",
        )
    data.get("spec", {}).pop("replicas", None)
    return Deployment(
        replicas=spec["replicas"].whole() if spec["replicas"].present else None,
        labels=_labels(metadata["labels"]),
        pod_labels=pod_labels,
        rest=data,
        **_pod(template["spec"], pod_labels),
    )


def _pod(place: Place, labels: Mapping[str, str]) -> dict[str, Any]:
    pod = _fields(
        place, "containers", "hostNetwork", "terminationGracePeriodSeconds", "restartPolicy",
        "schedulerName", "topologySpreadConstraints", "volumes", *_POD,
    )  # fmt: skip
    for name, value in (("restartPolicy", "Always"), ("schedulerName", "default-scheduler")):
        if pod[name].text(value) != value:
            raise pod[name].error(f"the simulator knows only {value}", hint=f"write {value}")
    for volume in pod["volumes"].items():
        _fields(volume, "name", *_VOLUMES)
    containers = pod["containers"].items()
    if len(containers) != 1:
        raise pod["containers"].error(
            f"the simulator plays one container a pod, not {len(containers)}",
            hint="keep one, or use a real engine",
        )
    spread, max_skew = _spread(pod["topologySpreadConstraints"], labels)
    return {
        "host_network": pod["hostNetwork"].flag(),
        "grace_s": pod["terminationGracePeriodSeconds"].number(30),
        "node_selector": _labels(pod["nodeSelector"]),
        "spread": spread,
        "max_skew": max_skew,
        **_container(containers[0], pod["hostNetwork"].flag()),
    }


def _container(place: Place, host_network: bool) -> dict[str, Any]:
    fields = _fields(place, "image", "imagePullPolicy", "ports", "resources", *_CONTAINER)
    image = fields["image"].text()
    if not image:
        raise fields["image"].error("a container needs an image", hint="name one")
    # kubernetes pkg/apis/core/v1 SetDefaults_Container: the policy follows from the tag.
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    fixed = tag not in ("", "latest") or (digest and not tag)
    policy = fields["imagePullPolicy"].text("IfNotPresent" if fixed else "Always")
    if policy not in ("IfNotPresent", "Always"):
        raise fields["imagePullPolicy"].error(
            f"the simulator knows no policy {policy}", hint="write IfNotPresent or Always"
        )
    for port in fields["ports"].items():
        known = _fields(port, "name", "containerPort", "protocol")
        if host_network:
            raise known["containerPort"].error(
                "a port on the host's network lets one such pod on a node, which is not simulated",
                hint="leave ports out: they change nothing else",
            )
    resources = _fields(fields["resources"], "requests", "limits")
    requests, limits = (
        _fields(resources[name], "cpu", "memory") for name in ("requests", "limits")
    )
    cpu_cores, memory_bytes = (
        # What has a limit alone requests as much (SetDefaults_Pod).
        _quantity(requests[name] if requests[name].present else limits[name])
        for name in ("cpu", "memory")
    )
    return {
        "image": image,
        "image_line": f"{place.file}:{fields['image'].line}",
        "pull_policy": policy,
        "cpu_cores": cpu_cores,
        "memory_bytes": memory_bytes,
    }


def _spread(place: Place, labels: Mapping[str, str]) -> tuple[str | None, int]:
    """The one binding constraint; a mere preference is what the scheduler prefers anyway."""
    bound = []
    for constraint in place.items():
        fields = _fields(constraint, "maxSkew", "topologyKey", "whenUnsatisfiable", "labelSelector")
        if fields["topologyKey"].text() != "kubernetes.io/hostname":
            raise fields["topologyKey"].error(
                "the simulator spreads over kubernetes.io/hostname alone",
                hint="use that key, or a real engine",
            )
        selector = _labels(_fields(fields["labelSelector"], "matchLabels")["matchLabels"])
        if not selector or not selector.items() <= labels.items():
            raise constraint.error(
                "its labelSelector does not select the pod itself", hint="name the pod's labels"
            )
        unsatisfiable = fields["whenUnsatisfiable"].text()
        if unsatisfiable not in ("DoNotSchedule", "ScheduleAnyway"):
            raise fields["whenUnsatisfiable"].invalid(
                unsatisfiable, "is no such policy", hint="write DoNotSchedule or ScheduleAnyway"
            )
        if unsatisfiable == "DoNotSchedule":
            text = ",".join(f"{key}={selector[key]}" for key in sorted(selector))
            bound.append((text, fields["maxSkew"].whole(1)))
    if len(bound) > 1:
        raise place.error(
            "the simulator knows one constraint that is DoNotSchedule a pod", hint="keep one"
        )
    return bound[0] if bound else (None, 1)


def _fields(place: Place, *known: str) -> dict[str, Place]:
    refusal = "the simulator does not play this field, and will not ignore it"
    return place.fields(*known, exact=True, unknown=refusal)


def _labels(place: Place) -> dict[str, str]:
    return {str(key): str(value) for key, value in place.mapping().items()}


def _quantity(place: Place) -> float:
    """A Kubernetes quantity; 0 when absent."""
    text = str(place.data() or "0")
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise place.invalid(text, "is no quantity", hint="write it like 250m, 1.5 or 64Mi")
    if match[2][:1] in ("e", "E") and len(match[2]) > 1:
        return float(match[0])
    return float(match[1]) * _SUFFIXES[match[2]]


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches, as CL2 asks the API; ValueError for set-based ones."""
    wanted = {}
    for part in filter(None, map(str.strip, selector.split(","))):
        match = _EQUALITY.fullmatch(part)
        if match is None:
            raise ValueError(f"'{part}' is no KEY=VALUE")
        wanted[match[1]] = match[2]
    return all(key in labels and str(labels[key]) == value for key, value in wanted.items())
