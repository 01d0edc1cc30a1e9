"""A pull as data: the row of `pulls.csv`, its words, and the grammar of kubelet's messages.

Hides every wording that kubelet has used for a pull. The simulator writes its events with these
functions and results read them back, so one parser serves simulated and real trials alike.
Wording: kubernetes 1.36 pkg/kubelet/images/image_manager.go and its history since 1.19.
"""

import re
from dataclasses import dataclass, fields

from imgpull import units

OUTCOMES = ("pulled", "present", "failed", "censored", "unknown")
TEMPERATURES = ("cold", "partial", "warm", "unknown")
FAILURES = (
    "throttled", "auth", "not_found", "network", "tls", "disk_full", "unpack", "qps_exceeded",
    "timeout", "other",
)  # fmt: skip
# What a busy registry, network or kubelet causes: it passes, and costs time.
PASSING = frozenset({"throttled", "qps_exceeded", "network", "timeout"})
SOURCES = ("event", "status", "sim")

# Events that a simulator wrote carry this word, so that no simulated number goes without it.
SIMULATED_COMPONENT = "kubelet-simulated"
SIMULATED_UID = "simulated-"  # and so begins a pod's


@dataclass(frozen=True)
class Pull:
    """One (pod, container) that needed its image. None is unknown, never 0. Columns: design 4.3."""

    namespace: str
    pod: str
    pod_uid: str | None
    container: str
    node: str | None
    image: str
    digest: str | None
    requested_at: float | None  # s since the trial began
    pull_s: float | None  # runtime asked -> image ready, download and unpack
    wait_s: float | None  # queueing before that
    size_bytes: int | None  # compressed, as kubelet reports it
    fetched_bytes: int | None  # moved over the network for this row
    leader: bool | None  # the one row per node and digest that moved the bytes
    temperature: str
    outcome: str
    failure: str | None
    attempts: int | None
    message: str | None
    source: str
    pull_at_least_s: float | None = None  # what the pull_s of a censored pull cannot undercut


COLUMNS = tuple(field.name for field in fields(Pull))


# A pull that moved this share of the image's compressed bytes is cold; below the lower one it moved
# nothing that counts. Between: some layers were there.
COLD_SHARE, WARM_SHARE = 0.9, 0.02


def temperature(fetched_bytes: int | None, size_bytes: int | None) -> str:
    """The temperature of a pull that moves so much of an image's compressed bytes."""
    if fetched_bytes is None or not size_bytes:
        return "unknown"
    share = fetched_bytes / size_bytes
    if share >= COLD_SHARE:
        return "cold"
    return "warm" if share <= WARM_SHARE else "partial"


@dataclass(frozen=True)
class Message:
    """What one kubelet event says about a pull. `kind`: pulling, pulled, present, failed, back_off,
    error (the container start path's echo) or refused (the name or policy forbids a pull)."""

    kind: str
    image: str | None = None
    pull_s: float | None = None
    total_s: float | None = None  # including waiting
    size_bytes: int | None = None
    failure: str | None = None
    text: str | None = None


_COMBINED = "(combined from similar events): "
_PULLING = re.compile(r'Pulling image "([^"]+)"')
_PULLED = re.compile(
    r'Successfully pulled image "([^"]+)"'
    r"(?: in (\S+?)(?: \((\S+) including waiting\))?)?"
    r"(?:\. Image size: (\d+) bytes\.)?"
)
_PRESENT = re.compile(
    r'Container image "([^"]+)" already present on machine(?: and can be accessed by the pod)?'
)
_FAILED = re.compile(r'Failed to pull image "([^"]+)": (.*)', re.DOTALL)
_BACK_OFF = re.compile(r'Back-off pulling image "([^"]+)"(?:: (.*))?', re.DOTALL)
_REFUSED = re.compile(
    r'(?:Failed to (?:inspect image|apply default image tag) "([^"]+)": (.*)'
    r'|Container image "([^"]+)" is not present with pull policy of Never)',
    re.DOTALL,
)
# The waiting reasons that a pull ends in; others (CreateContainerError) are not about pulls.
_REASONS = (
    r"(ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|ImageInspectError"
    r"|RegistryUnavailable|SignatureValidationFailed)"
)
_ERROR = re.compile(f"Error: {_REASONS}")
_WAITING = re.compile(rf"{_REASONS}(?:: (.*))?", re.DOTALL)


def parse_message(reason: str, message: str) -> Message | None:
    """What a kubelet event says about a pull; None when it is about something else."""
    text = message.removeprefix(_COMBINED).strip()
    if reason == "Pulling" and (match := _PULLING.fullmatch(text)):
        return Message("pulling", match[1])
    if reason == "Pulled":
        return _parse_pulled(text)
    if reason == "Failed":
        return _parse_failed(text)
    if reason == "BackOff" and (match := _BACK_OFF.fullmatch(text)):
        return Message("back_off", match[1], text=match[2])
    if reason in ("InspectFailed", "ErrImageNeverPull") and (match := _REFUSED.fullmatch(text)):
        return Message("refused", match[1] or match[3], failure="other", text=text)
    return None


def _parse_pulled(text: str) -> Message | None:
    if match := _PRESENT.fullmatch(text):
        return Message("present", match[1])
    match = _PULLED.fullmatch(text)
    if match is None:
        return None
    pull, total, size = match[2], match[3], match[4]
    if total is None:
        # Before 1.27 the one figure included the queue: how much of it was waiting is unknown.
        pull, total = None, pull
    try:
        pull_s = units.parse_duration(pull) if pull else None
        total_s = units.parse_duration(total) if total else None
    except ValueError:
        return None
    return Message(
        "pulled",
        match[1],
        pull_s=pull_s,
        total_s=total_s,
        # kubelet prints 0 when it could not look the size up.
        size_bytes=int(size) if size and int(size) else None,
    )


def _parse_failed(text: str) -> Message | None:
    if match := _FAILED.fullmatch(text):
        return Message(
            "failed", match[1], failure=classify_failure(match[2], match[1]), text=match[2]
        )
    if match := _ERROR.fullmatch(text):
        return Message("error", text=match[1])
    return None


def parse_waiting(waiting: str, image: str = "") -> Message | None:
    """What a container's "REASON: message" says about its pull; None when it is about else."""
    match = _WAITING.fullmatch(waiting)
    if match is None:
        return None
    text = match[2] or match[1]
    return Message("error", image or None, failure=classify_failure(text, image), text=text)


# First match wins: the most specific cause stands before the general one.
_FAILURE_WORDS = (
    ("qps_exceeded", r"pull QPS exceeded"),
    # Azure Storage, where ACR's blobs are, says 503 ServerBusy (its common REST API error codes).
    ("throttled", r"\b429\b|toomanyrequests|too many requests|throttl|server is busy|serverbusy"),
    ("disk_full", r"no space left on device|disk quota exceeded"),
    ("auth", r"\b401\b|\b403\b|unauthorized|forbidden|authorization failed|access denied|denied:"),
    ("timeout", r"DeadlineExceeded|deadline exceeded|context canceled|timed out|\btimeout\b"),
    ("tls", r"x509|tls:|certificate|server gave HTTP response to HTTPS client"),
    ("not_found", r"\b404\b|NotFound|not found|manifest unknown|name unknown"),
    ("unpack", r"failed to extract layer|failed to unpack|archive/tar"),
    (
        "network",
        r"connection re(?:set|fused)|no such host|\bEOF\b|broken pipe|network is unreachable"
        r"|no route to host|\b50[0234]\b|dial tcp",
    ),
)
_FAILURE_PATTERNS = tuple((word, re.compile(p, re.IGNORECASE)) for word, p in _FAILURE_WORDS)
_NAMES = re.compile(r'"[^"]*"|https?://\S+')


def classify_failure(error: str, image: str = "") -> str:
    """One of FAILURES for kubelet's error text about this image."""
    # What a registry or an image is called says nothing about why its pull failed.
    registry = image.partition("/")[0]
    for name in (image, registry if "." in registry else ""):
        error = error.replace(name, "") if name else error
    text = _NAMES.sub("", error)
    return next((word for word, pattern in _FAILURE_PATTERNS if pattern.search(text)), "other")


def pulling_message(image: str) -> str:
    """The text of a Pulling event."""
    return f'Pulling image "{image}"'


def pulled_message(image: str, pull_s: float, total_s: float, size_bytes: int) -> str:
    """The text of a Pulled event after a pull, as kubelet 1.30 and later write it."""
    pull, total = units.go_duration(pull_s), units.go_duration(total_s)
    return (
        f'Successfully pulled image "{image}" in {pull} ({total} including waiting). '
        f"Image size: {size_bytes} bytes."
    )


def present_message(image: str, kubelet_version: tuple[int, ...]) -> str:
    """The text of a Pulled event without a pull; 1.35 checks credentials and says so."""
    tail = " and can be accessed by the pod" if kubelet_version >= (1, 35) else ""
    return f'Container image "{image}" already present on machine{tail}'


def failed_message(image: str, error: str) -> str:
    """The text of a Failed event of a pull."""
    return f'Failed to pull image "{image}": {error}'


def back_off_message(image: str) -> str:
    """The text of a BackOff event."""
    return f'Back-off pulling image "{image}"'
