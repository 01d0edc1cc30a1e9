"""What a registry, Kubernetes, kubelet and hardware take, for the groups `image` and `cluster`.

Hides the syntax and limits of other projects, so that a name they would refuse, or read as
something else, stops before anything runs. What spans groups is checked where the Job is made.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from imgpull import exporters, units
from imgpull.config import schema
from imgpull.errors import ConfigError

# distribution/reference: a first part without '.' or port is no host, as docker and containerd
# read it; a tag is asked for, so that "latest" is a choice.
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?:{_HOST}(?:\.{_HOST})+(?::[0-9]+)?|{_HOST}:[0-9]+|localhost)/)?"
    rf"{_PART}(?:/{_PART})*:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PINNED = re.compile(rf"{_REFERENCE.pattern}(?:@{_DIGEST.pattern})?")  # as pods name it

# kubernetes apimachinery pkg/util/validation: DNS-1123 subdomains, label keys and values.
_DNS_PART = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z){_DNS_PART}(?:\.{_DNS_PART})*")
_LABEL_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:{_DNS_PART}(?:\.{_DNS_PART})*/)?{_LABEL_NAME}")
_LABEL_VALUE = re.compile(rf"(?:{_LABEL_NAME})?")
_LABEL_HINT = "letters, digits, '-', '_' and '.', for example agentpool: measured"

_NODE_PREFIX = re.compile(r"[a-z0-9][a-z0-9.-]*")
# Two digits: a bare 1.30 reached us as the number 1.3.
_KUBERNETES_VERSION = re.compile(r"v?[0-9]+\.[0-9]{2,}(?:\.[0-9]+)?(?:[-+][0-9A-Za-z.+-]+)?")
_CONTAINERD_VERSION = re.compile(r"v?[0-9]+\.[0-9]+\.[0-9]+(?:[-+~][0-9A-Za-z.+~-]+)?")


def check_image(image: schema.Image) -> None:
    """ConfigError for a name that no registry or cluster takes."""
    if not _REFERENCE.fullmatch(image.reference):
        raise ConfigError(
            f"image.reference '{image.reference}' is not registry/repository:tag",
            hint="for example image.reference=myregistry.azurecr.io/pytorch:2.3 "
            "(a digest goes to image.digest)",
        )
    if image.digest is not None and not _DIGEST.fullmatch(image.digest):
        raise ConfigError(
            f"image.digest '{image.digest}' is not sha256: and 64 hexadecimal digits",
            hint="leave image.digest=null when it is not known",
        )
    if image.pull_secret is not None and not _DNS.fullmatch(image.pull_secret):
        raise ConfigError(
            f"image.pull_secret '{image.pull_secret}' is no name of a Secret",
            hint="lower-case letters, digits, '-' and '.', or image.pull_secret=null",
        )


def check_pinned_reference(reference: str, where: str) -> None:
    """ConfigError for a reference, with or without digest, that no pod could name."""
    if not _PINNED.fullmatch(reference):
        raise ConfigError(
            f"{where}: '{reference}' is not registry/repository:tag",
            hint="name it as the pods do, with its tag, and its digest if they give one",
        )


def check_repository(repository: str, key: str) -> None:
    """ConfigError for what is no registry/repository, or has a tag or digest."""
    host = repository.partition("/")[0]
    if not _REFERENCE.fullmatch(f"{repository}:tag") or not re.search("[.:]|^localhost$", host):
        raise ConfigError(
            f"{key} '{repository}' is not registry/repository",
            hint=f"without a tag, for example {key}=myregistry.azurecr.io/salted",
        )


def duration_s(text: str, key: str, *, least_s: float = 0.001) -> float:
    """Seconds of a duration; ConfigError for less than the bundle's resolution, or `least_s`."""
    try:
        seconds = units.parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}", hint=f"for example {key}=10m") from error
    if seconds < least_s:
        limit = "not above" if least_s else "below"
        raise ConfigError(f"{key}={text} is {limit} zero", hint=f"for example {key}=10m")
    return seconds


def checked_cluster(cluster: schema.Cluster) -> schema.Cluster:
    """The cluster, durations in their usual spelling; ConfigError for what cannot be."""
    _check_versions(cluster)
    _check_labels("node_selector", cluster.node_selector)
    _check_labels("prometheus_node_selector", cluster.prometheus_node_selector)
    for index, toleration in enumerate(cluster.tolerations):
        _check_toleration(f"cluster.tolerations[{index}]", toleration)
    if not _NODE_PREFIX.fullmatch(cluster.node_prefix):
        raise ConfigError(
            f"cluster.node_prefix '{cluster.node_prefix}' is no start of a node name",
            hint="lower-case letters, digits, '-' and '.', for example aks-measured-",
        )
    for key, value in _figures(cluster):
        if key in _MAY_BE_ZERO and not 0 <= value < math.inf:
            raise ConfigError(
                f"cluster.{key}={value} is below zero or no number", hint=f"use cluster.{key}=0"
            )
        if key not in _MAY_BE_ZERO and not 0 < value < math.inf:
            raise ConfigError(
                f"cluster.{key}={value} is not above zero",
                hint=f"give cluster.{key} the value of the datasheet",
            )
    _check_burst(cluster.node)
    _check_kubelet(cluster.kubelet)
    _check_containerd(cluster)
    key = "cluster.containerd.image_pull_progress_timeout"
    timeout_s = duration_s(cluster.containerd.image_pull_progress_timeout, key, least_s=0)
    timeout = units.format_duration(timeout_s)
    containerd = replace(cluster.containerd, image_pull_progress_timeout=timeout)
    return replace(cluster, containerd=containerd)


def _check_versions(cluster: schema.Cluster) -> None:
    for key, pattern, example in (
        ("kubernetes_version", _KUBERNETES_VERSION, "1.30"),
        ("containerd_version", _CONTAINERD_VERSION, "2.3.3"),  # what it tells changed in 1.7.14
    ):
        if not pattern.fullmatch(getattr(cluster, key)):
            raise ConfigError(
                f"cluster.{key} '{getattr(cluster, key)}' is no version",
                hint=f"""write it in quotes, for a shell: 'cluster.{key}="{example}"'""",
            )


def _check_labels(key: str, labels: Mapping[str, str]) -> None:
    for label, value in labels.items():
        if not _LABEL_KEY.fullmatch(label):
            raise ConfigError(f"cluster.{key}: '{label}' is no label", hint=_LABEL_HINT)
        if not _LABEL_VALUE.fullmatch(value):
            raise ConfigError(
                f"cluster.{key}: '{value}' is no value of a label ({label})", hint=_LABEL_HINT
            )


def _check_toleration(where: str, toleration: schema.Toleration) -> None:
    """What the API server would refuse, one Deployment at a time (core validation)."""
    everything = toleration.operator == "Exists" and not toleration.key
    if not everything and not _LABEL_KEY.fullmatch(toleration.key):
        raise ConfigError(f"{where}.key '{toleration.key}' is no taint's key", hint=_LABEL_HINT)
    if not _LABEL_VALUE.fullmatch(toleration.value):
        raise ConfigError(
            f"{where}.value '{toleration.value}' is no value of a taint", hint=_LABEL_HINT
        )
    for key, choices in (
        ("operator", ("Equal", "Exists")),
        ("effect", ("NoSchedule", "PreferNoSchedule", "NoExecute", "")),
    ):
        if getattr(toleration, key) not in choices:
            raise ConfigError(
                f"{where}.{key} '{getattr(toleration, key)}' is unknown",
                hint=f"choose one of: {', '.join(filter(None, choices))}",
            )
    if toleration.operator == "Exists" and toleration.value:
        raise ConfigError(
            f"{where}.value '{toleration.value}' stands beside operator Exists",
            hint="leave the value out, or use operator: Equal",
        )


_MAY_BE_ZERO = ("containerd.concurrent_layer_fetch_buffer",)


def _figures(cluster: schema.Cluster) -> Iterator[tuple[str, float]]:
    yield "zones", cluster.zones
    for name, section in (
        ("node", cluster.node), ("registry", cluster.registry), ("containerd", cluster.containerd)
    ):  # fmt: skip
        for key, value in asdict(section).items():
            if isinstance(value, int | float):
                yield f"{name}.{key}", value


def _check_burst(node: schema.Node) -> None:
    if node.disk_burst_mb_s is None:
        return
    if node.disk_write_mb_s is None:
        raise ConfigError(
            f"cluster.node.disk_burst_mb_s={node.disk_burst_mb_s:g} stands without disk_write_mb_s",
            hint="give both cluster.node.disk_write_mb_s and its burst, or cluster.node."
            "disk_burst_mb_s=null",
        )
    if node.disk_burst_mb_s <= node.disk_write_mb_s:
        raise ConfigError(
            f"cluster.node.disk_burst_mb_s={node.disk_burst_mb_s:g} is not above "
            f"disk_write_mb_s={node.disk_write_mb_s:g}",
            hint="cluster.node.disk_burst_mb_s=null is a disk that does not burst",
        )


# containerd v2.3.4 plugins/transfer/plugin.go, internal/cri/config: (key, its value when off, the
# release that brought it).
_SINCE = (
    ("max_concurrent_unpacks", 1, (2, 2)),
    ("concurrent_layer_fetch_buffer", 0, (2, 1)),
)


def _check_containerd(cluster: schema.Cluster) -> None:
    containerd, version = cluster.containerd, cluster.containerd_version
    for key, off, since in _SINCE:
        value = getattr(containerd, key)
        if value != off and exporters.version_tuple(version)[:2] < since:
            raise ConfigError(
                f"cluster.containerd.{key}={value} needs containerd {since[0]}.{since[1]} or "
                f"newer, and cluster.containerd_version is {version}",
                hint=f"use cluster.containerd.{key}={off}, or a newer cluster.containerd_version",
            )
    buffer = containerd.concurrent_layer_fetch_buffer
    if 0 < buffer < 512:  # containerd would read it as off
        raise ConfigError(
            f"cluster.containerd.concurrent_layer_fetch_buffer={buffer} is below 512 bytes",
            hint="for example cluster.containerd.concurrent_layer_fetch_buffer=8388608, or 0: off",
        )


def _check_kubelet(kubelet: schema.Kubelet) -> None:
    """As kubernetes pkg/kubelet/apis/config/validation, and no bucket that never lets a pull go."""
    most = kubelet.maxParallelImagePulls
    if most is not None and most < 1:
        raise ConfigError(
            f"cluster.kubelet.maxParallelImagePulls={most} is not above zero",
            hint="cluster.kubelet.maxParallelImagePulls=null is no limit",
        )
    if kubelet.serializeImagePulls and most is not None and most > 1:
        raise ConfigError(
            f"cluster.kubelet.maxParallelImagePulls={most} cannot stand beside "
            "serializeImagePulls=true: kubelet would not start",
            hint="use cluster.kubelet.serializeImagePulls=false",
        )
    if not 0 <= kubelet.registryPullQPS < math.inf:
        raise ConfigError(
            f"cluster.kubelet.registryPullQPS={kubelet.registryPullQPS} is below zero or no number",
            hint="cluster.kubelet.registryPullQPS=0 is no limit",
        )
    if kubelet.registryPullQPS and kubelet.registryBurst < 1:
        raise ConfigError(
            f"cluster.kubelet.registryBurst={kubelet.registryBurst} would let no pull begin",
            hint="kubelet's default is cluster.kubelet.registryBurst=10",
        )
