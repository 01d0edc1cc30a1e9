"""Laws of kubelet's messages: every form is read, what we write is read back, causes are named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull import pulls
from imgpull.pulls import Message, classify_failure, parse_message
from imgpull.units import parse_duration

EVENTS = sorted((Path(__file__).parent / "data" / "kube-events").glob("*.json"))
R = "reg.io/bench/big:v1"
COMBINED = "(combined from similar events): "

# What kubelet puts in the reasons that pulls are told in; others are never about a pull.
REASONS = {"Pulling", "Pulled", "Failed", "BackOff", "InspectFailed", "ErrImageNeverPull"}

# A reference has no quotes, blanks or control characters (distribution/reference).
references = st.from_regex(r"[a-z0-9.:-]{1,20}/[a-z0-9_/.-]{1,30}:[\w.-]{1,20}", fullmatch=True)
seconds = st.floats(0, 1e5)


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    assert found
    return found


@pytest.mark.parametrize("prefix", ["", COMBINED])
@pytest.mark.parametrize(
    ("reason", "text", "message"),
    [
        ("Pulling", f'Pulling image "{R}"', Message("pulling", R)),
        ("Pulled", f'Successfully pulled image "{R}"', Message("pulled", R)),
        (  # before 1.27 the one figure includes the queue
            "Pulled",
            f'Successfully pulled image "{R}" in 1m55.516263773s',
            Message("pulled", R, total_s=parse_duration("1m55.516263773s")),
        ),
        (
            "Pulled",
            f'Successfully pulled image "{R}" in 1.395595053s (2.628318726s including waiting)',
            Message("pulled", R, pull_s=1.395595053, total_s=2.628318726),
        ),
        (
            "Pulled",
            f'Successfully pulled image "{R}" in 796ms (1.594s including waiting). '
            "Image size: 543804759 bytes.",
            Message("pulled", R, pull_s=0.796, total_s=1.594, size_bytes=543804759),
        ),
        (  # kubelet prints 0 when it could not look the size up
            "Pulled",
            f'Successfully pulled image "{R}" in 15.2µs (0s including waiting). '
            "Image size: 0 bytes.",
            Message("pulled", R, pull_s=parse_duration("15.2us"), total_s=0.0),
        ),
        (
            "Pulled",
            f'Container image "{R}" already present on machine',
            Message("present", R),
        ),
        (
            "Pulled",
            f'Container image "{R}" already present on machine and can be accessed by the pod',
            Message("present", R),
        ),
        (
            "Failed",
            f'Failed to pull image "{R}": pull QPS exceeded',
            Message("failed", R, failure="qps_exceeded", text="pull QPS exceeded"),
        ),
        ("Failed", "Error: ErrImagePull", Message("error", text="ErrImagePull")),
        ("Failed", "Error: ImagePullBackOff", Message("error", text="ImagePullBackOff")),
        ("BackOff", f'Back-off pulling image "{R}"', Message("back_off", R)),
        (
            "BackOff",
            f'Back-off pulling image "{R}": ErrImagePull: pull QPS exceeded',
            Message("back_off", R, text="ErrImagePull: pull QPS exceeded"),
        ),
        (
            "InspectFailed",
            f'Failed to inspect image "{R}": rpc error: code = Unavailable',
            Message(
                "refused",
                R,
                failure="other",
                text=f'Failed to inspect image "{R}": rpc error: code = Unavailable',
            ),
        ),
        (
            "ErrImageNeverPull",
            f'Container image "{R}" is not present with pull policy of Never',
            Message(
                "refused",
                R,
                failure="other",
                text=f'Container image "{R}" is not present with pull policy of Never',
            ),
        ),
    ],
)
def test_every_form_of_kubelet_s_messages_is_read(
    prefix: str, reason: str, text: str, message: Message
) -> None:
    assert parse_message(reason, prefix + text) == message


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("Created", "Container created"),
        ("BackOff", "Back-off restarting failed container c in pod p_default(uid)"),
        ("Failed", "Error: failed to create containerd task: no such file or directory"),
        ("Failed", "Error: CreateContainerConfigError"),
        ("Pulled", f'Successfully pulled image "{R}" in a while'),
        ("Pulled", f'Successfully pulled image "{R}" in 3s (soon including waiting)'),
        ("Pulling", "Pulling image"),
        ("Scheduled", f'Pulling image "{R}"'),
    ],
)
def test_a_message_about_something_else_is_nothing(reason: str, text: str) -> None:
    assert parse_message(reason, text) is None


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_every_recorded_event_about_a_pull_is_read_and_no_other(path: Path) -> None:
    for event in events(path):
        message = parse_message(event["reason"], event["message"])
        assert (message is not None) == (event["reason"] in REASONS), event


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_recorded_messages_carry_their_image_and_figures(path: Path) -> None:
    told = [(event, parse_message(event["reason"], event["message"])) for event in events(path)]
    kinds = {message.kind for _, message in told if message}
    assert kinds == {"pulling", "pulled", "present", "failed", "back_off", "error", "refused"}
    for event, message in told:
        if message is None or message.kind == "error":
            continue
        assert message.image is not None
        assert f'"{message.image}"' in event["message"]
        if message.kind == "pulled":
            assert message.pull_s is not None
            assert message.total_s is not None
            assert 0 < message.pull_s <= message.total_s < 10
            assert message.size_bytes in (16_137_644, 264_056_486)
        if message.kind == "failed":
            assert message.failure == "not_found"


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_what_kubelet_wrote_is_what_we_would_write(path: Path) -> None:
    for event in events(path):
        message = parse_message(event["reason"], event["message"])
        if message is None or message.image is None:
            continue
        image, pull_s, total_s = message.image, message.pull_s or 0, message.total_s or 0
        written = {
            "pulling": pulls.pulling_message(image),
            "pulled": pulls.pulled_message(image, pull_s, total_s, message.size_bytes or 0),
            "present": pulls.present_message(image, (1, 36)),
            "failed": pulls.failed_message(image, message.text or ""),
            "back_off": pulls.back_off_message(image),
            "refused": message.text,
        }
        assert event["message"] == written[message.kind]


@given(references, seconds, seconds, st.integers(1, 10**12))
def test_a_written_pull_is_read_back_to_the_millisecond(
    image: str, pull_s: float, wait_s: float, size_bytes: int
) -> None:
    text = pulls.pulled_message(image, pull_s, pull_s + wait_s, size_bytes)
    message = parse_message("Pulled", text)
    assert message is not None
    assert (message.kind, message.image, message.size_bytes) == ("pulled", image, size_bytes)
    for read, meant in ((message.pull_s, pull_s), (message.total_s, pull_s + wait_s)):
        assert read is not None
        assert meant - 0.001 - 1e-9 < read <= meant + 2e-9


@given(references, st.text(min_size=1).filter(lambda text: text == text.strip()))
def test_written_words_are_read_back(image: str, error: str) -> None:
    assert parse_message("Pulling", pulls.pulling_message(image)) == Message("pulling", image)
    assert parse_message("BackOff", pulls.back_off_message(image)) == Message("back_off", image)
    for version in ((1, 34), (1, 35)):
        text = pulls.present_message(image, version)
        assert parse_message("Pulled", text) == Message("present", image)
        assert text.endswith("by the pod") == (version == (1, 35))
    failed = parse_message("Failed", pulls.failed_message(image, error))
    assert failed == Message("failed", image, failure=classify_failure(error, image), text=error)


@pytest.mark.parametrize(
    ("waiting", "failure"),
    [
        (f'ErrImagePull: failed to pull image "{R}": 429 Too Many Requests', "throttled"),
        (
            "ErrImagePull: unexpected status code https://x.blob.core.windows.net/y: "
            "503 Server is busy.",
            "throttled",
        ),
        (f'ImagePullBackOff: Back-off pulling image "{R}": ErrImagePull: not found', "not_found"),
        (f'ImagePullBackOff: Back-off pulling image "{R}"', "other"),
        ("InvalidImageName: couldn't parse image name", "other"),
        ("ErrImageNeverPull", "other"),
        ("SignatureValidationFailed: no signature", "other"),
    ],
)
def test_a_container_s_waiting_reason_tells_a_failure(waiting: str, failure: str) -> None:
    message = pulls.parse_waiting(waiting, R)
    assert message is not None
    assert (message.kind, message.image, message.failure) == ("error", R, failure)


@pytest.mark.parametrize(
    "waiting", ["", "ContainerCreating", "CreateContainerError: 404 not found"]
)
def test_a_container_that_waits_for_something_else_tells_of_no_pull(waiting: str) -> None:
    assert pulls.parse_waiting(waiting, R) is None


UNKNOWN = f'rpc error: code = Unknown desc = failed to pull and unpack image "{R}": '
NOT_FOUND = UNKNOWN.replace("Unknown", "NotFound")
RESOLVE = f'failed to resolve reference "{R}": '
HEAD = f'{RESOLVE}failed to do request: Head "https://reg.io/v2/bench/big/manifests/v1": '
COPY = "failed to copy: httpReadSeeker: failed open: "
EXTRACT = "failed to extract layer sha256:4f5: "

# As containerd 1.7 and 2.x word them.
REAL_ERRORS = [
    (
        "throttled",
        f"{UNKNOWN}{COPY}unexpected status code https://reg.io/v2/bench/big/manifests/sha256:4f5: "
        "429 Too Many Requests - Server message: toomanyrequests: You have reached your limit",
    ),
    (
        "auth",
        f"{UNKNOWN}{RESOLVE}failed to authorize: failed to fetch anonymous token: unexpected "
        "status from GET request to https://reg.io/oauth2/token?scope=x%3Apull&service=reg.io: "
        "401 Unauthorized",
    ),
    (
        "auth",
        f"{UNKNOWN}{RESOLVE}pull access denied, repository does not exist or may require "
        "authorization: server message: insufficient_scope: authorization failed",
    ),
    (
        "tls",
        f"{UNKNOWN}{HEAD}tls: failed to verify certificate: x509: certificate signed by unknown "
        "authority",
    ),
    ("tls", f"{UNKNOWN}{HEAD}http: server gave HTTP response to HTTPS client"),
    (
        "disk_full",
        f"{UNKNOWN}{EXTRACT}write /var/lib/containerd/tmpmounts/containerd-mount1/libtorch.so: no "
        "space left on device: unknown",
    ),
    (
        "network",
        f'{UNKNOWN}{COPY}failed to do request: Get "https://reg.io/v2/": read tcp '
        "10.0.0.4:48712->20.1.2.3:443: read: connection reset by peer",
    ),
    ("network", f"{UNKNOWN}{HEAD}dial tcp: lookup reg.io on 10.0.0.10:53: no such host"),
    (
        "network",
        f"{UNKNOWN}{COPY}unexpected status code https://reg.io/v2/: 503 Service Unavailable",
    ),
    ("timeout", f"{UNKNOWN}context deadline exceeded".replace("Unknown", "DeadlineExceeded")),
    ("timeout", f"{UNKNOWN}{COPY}context canceled"),
    ("timeout", f"{UNKNOWN}{HEAD}dial tcp 20.1.2.3:443: i/o timeout"),
    ("timeout", f"{UNKNOWN}{HEAD}net/http: TLS handshake timeout"),
    ("not_found", f"{NOT_FOUND}{RESOLVE}{R}: not found"),  # containerd 1.x
    ("not_found", f"{NOT_FOUND}failed to resolve image: {R}: not found"),  # containerd 2.x
    ("unpack", f"{UNKNOWN}{EXTRACT}mount callback failed on /tmp/m1: unexpected EOF: unknown"),
    ("qps_exceeded", "pull QPS exceeded"),
    ("other", f"{UNKNOWN}something new"),
]


@pytest.mark.parametrize(("word", "error"), REAL_ERRORS)
def test_the_cause_of_a_failed_pull_is_named(word: str, error: str) -> None:
    assert classify_failure(error, R) == word


def test_every_word_for_a_failure_is_given_to_some_real_error() -> None:
    assert {word for word, _ in REAL_ERRORS} == set(pulls.FAILURES)


@pytest.mark.parametrize(("word", "error"), REAL_ERRORS)
@pytest.mark.parametrize(
    "name",
    ["throttle.io/429/not-found:401", "x509.io/no-space/timeout:503", "denied.io/eof:v403-404"],
)
def test_the_cause_does_not_depend_on_what_the_image_is_called(
    name: str, word: str, error: str
) -> None:
    renamed = error.replace(R, name).replace("reg.io", name.split("/")[0])
    assert classify_failure(renamed, name) == word


@given(st.text())
def test_any_error_has_one_of_the_documented_words(error: str) -> None:
    assert classify_failure(error) in pulls.FAILURES


def test_the_cause_does_not_depend_on_where_a_registry_sends_its_clients() -> None:
    moved = 'Get "https://throttle.cdn.example/401/x509?sig=429": read: connection reset by peer'
    assert classify_failure(moved, R) == "network"
    assert classify_failure(moved.replace('"', ""), R) == "network"


def test_a_digest_full_of_status_codes_is_no_cause() -> None:
    assert classify_failure("unexpected commit digest sha256:a429b401c404d500e403") == "other"


def test_the_columns_are_those_of_the_documented_table() -> None:
    documented = """namespace pod pod_uid container node image digest requested_at pull_s wait_s
        size_bytes fetched_bytes leader temperature outcome failure attempts message source
        pull_at_least_s"""
    assert tuple(re.findall(r"\w+", documented)) == pulls.COLUMNS
