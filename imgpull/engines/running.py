"""One run of ClusterLoader2: what it is given and what came of it, whoever starts the program.

Hides CL2's command line, and how upstream and Azure's fork differ in it: their flags are probed by
`--help`, and a flag that a program does not have is never passed. Sources: perf-tests
clusterloader2/cmd/clusterloader.go, pkg/prometheus/prometheus.go and manifests/ at 4b341544
(upstream, 2026-08) and f1933d032 (Azure's fork, image v20250513).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Literal, Protocol

from imgpull.config.job import prometheus_gib
from imgpull.engines.door import Say
from imgpull.errors import (
    ConfigError,
    EngineFailed,
    EngineUnavailable,
    ImgpullError,
    RenderError,
)
from imgpull.render import OVERRIDES, TEST_CONFIG

Redact = Callable[[str], str]

# Files that CL2 reads besides the bundle; see `extra_files`.
DIALECT_OVERRIDES = "dialect.yaml"
MONITORS = "monitors"

# The whole report of a failed flag, a dry run, or a failed start is in what CL2 prints.
COMPILED = "Test config successfully dumped"
DRY_RUN_ENDED = "Dry run mode enabled"


@dataclass(frozen=True)
class Stack:
    """CL2's own Prometheus: what it needs and what it watches besides kubelets."""

    containerd_port: int
    memory_gib: int
    storage_class: str | None = None  # None: no volume, samples live as long as the pod
    # File name -> ServiceMonitors that stand in for the scraping of containerd upstream lacks.
    monitors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One run of CL2. Paths are this machine's."""

    bundle: Path
    report: Path  # what CL2 reports goes here; exists, empty
    log: Path  # appended to, redacted
    kubeconfig: Path | None  # with its credential resolved; None only inside the cluster
    provider: str
    nodes: int
    namespace_prefix: str
    limit_s: float  # the whole run, no matter what hangs
    redact: Redact
    stack: Stack | None  # None: without Prometheus
    flags: Sequence[str] = ()  # the user's, last
    labels: Mapping[str, str] = field(default_factory=dict)  # of what a runner makes
    salted_image: str | None = None  # what pods pull with cache=salted


@dataclass(frozen=True)
class Dialect:
    """Which CL2 a program is, as far as it can be told."""

    name: Literal["upstream", "azure"]
    flags: frozenset[str]  # without their dashes
    version: str = ""
    digest: str = ""  # sha256:… of the executable or the image
    # What PodStartupLatency means: "watch" (upstream since 2026-05-26), "mixed" (before, and
    # Azure's v20250513), or "" where the program does not tell; its report then does.
    pod_startup_semantics: str = ""

    @property
    def scrapes_containerd(self) -> bool:
        """Whether it scrapes containerd by itself."""
        return "prometheus-scrape-containerd" in self.flags

    def with_semantics(self, meaning: str) -> "Dialect":
        """The same, now that the meaning of PodStartupLatency is known."""
        return replace(self, pod_startup_semantics=meaning)


@dataclass(frozen=True)
class Ended:
    """How a run ended. The exit code cannot tell a missed threshold from a broken run."""

    exit_code: int | None  # None when it was stopped or never began
    wall_s: float
    timed_out: bool
    step: str  # the last one that began; empty before the first
    said: str  # what CL2 gave as the reason, redacted; empty when it gave none
    tail: str  # its last lines, redacted

    def story(self) -> str:
        """One sentence for an error's message."""
        at = f" in step '{self.step}'" if self.step else " before the first step"
        if self.timed_out:
            return f"clusterloader was stopped after {self.wall_s:.0f} s{at}" + _because(self.said)
        code = "was stopped" if self.exit_code is None else f"exited {self.exit_code}"
        return f"clusterloader {code} after {self.wall_s:.0f} s{at}" + _because(self.said)


def _because(said: str) -> str:
    return f": {said}" if said else ""


def pinned(image: str, digest: str | None) -> str:
    """How an image is named where its digest is known: without its tag, which podman refuses."""
    if digest is None:
        return image
    name, slash, last = image.rpartition("/")
    return f"{name}{slash}{last.partition('@')[0].partition(':')[0]}@{digest}"


def silent(step: str) -> None:
    """Tell nobody."""


def not_compiled(ended: Ended, log: Path) -> ImgpullError:
    """Why a dry run did not come to its end."""
    words = ended.said.removeprefix("Test compilation failed: ")
    if words != ended.said or "Test context creation failed" in words:
        return RenderError(
            f"clusterloader does not take the test: {words}", hint="correct templates/"
        )
    return EngineFailed(
        f"the dry run failed: {ended.story()}\n{ended.tail}".rstrip(), hint=f"full log: {log}"
    )


class Runner(Protocol):
    """Starts CL2 somewhere, follows it, and leaves nothing of it behind, on Ctrl-C too.

    `is_here`: on this machine, where it needs a kubeconfig and compiles a test without a cluster.
    """

    is_here: bool

    def check(self, say: Say = ...) -> None:
        """EngineUnavailable, with the fix, when the program cannot be had."""

    def probe(self) -> Dialect:
        """Which CL2 it is; asked once."""

    def dry_run(self, request: Request) -> None:
        """EngineFailed, in CL2's words, when the test does not compile. Touches no cluster."""

    def run(self, request: Request, say: Say) -> Ended:
        """Run once; steps and waiting pods go to `say`. EngineFailed when it cannot be started."""


def dialect_of(help_text: str, who: str, **known: str) -> Dialect:
    """The dialect of a program by what it prints on --help; `known` is its version and digest.

    EngineUnavailable when it is no CL2 at all.
    """
    flags = frozenset(re.findall(r"(?m)^\s+(?:-\w, )?--([a-z][\w-]*)", help_text))
    if not {"testconfig", "report-dir", "provider"} <= flags:
        words = " ".join(help_text.split())[-300:] or "nothing"
        raise EngineUnavailable(
            f"{who} is no ClusterLoader2: its --help says {words}",
            hint="engine.path or engine.image must be a ClusterLoader2 (docs/real-clusters.md)",
        )
    name: Literal["upstream", "azure"] = (
        "azure" if "prometheus-scrape-containerd" in flags else "upstream"
    )
    known.setdefault("pod_startup_semantics", _semantics(flags))
    return Dialect(name, flags, **known)


def _semantics(flags: frozenset[str]) -> str:
    """By flags that came shortly after, and half a year before, PodStartupLatency changed."""
    if "prometheus-scrape-apiserver-only" in flags:  # b6c390a8d, 2026-06-03
        return "watch"
    return "" if "master-endpoint" in flags else "mixed"  # 67b2a7a9b, 2026-01-20


@dataclass(frozen=True)
class Places:
    """Where the program that runs sees what it is given."""

    bundle: PurePath
    extra: PurePath  # a directory with what extra_files() tells
    report: PurePath
    kubeconfig: PurePath | None  # None: the pod's own service account


def extra_files(request: Request, dialect: Dialect) -> dict[str, str]:
    """Name -> text of what CL2 reads besides the bundle."""
    files = {DIALECT_OVERRIDES: _yaml(_overrides(request, dialect))}
    if request.stack and not dialect.scrapes_containerd:
        files |= {f"{MONITORS}/{name}": text for name, text in request.stack.monitors.items()}
    return files


def _overrides(request: Request, dialect: Dialect) -> dict[str, object]:
    """What manifests of the test and of CL2's Prometheus are filled with, besides the bundle's own.

    Only overrides reach kube-proxy's and the masters' targets: of these flags the first is
    overwritten by the provider's default, and the fork lacks the second.
    """
    salted = {} if request.salted_image is None else {"CL2_SALTED_IMAGE": request.salted_image}
    if request.stack is None:
        return dict(salted)
    factor = request.stack.memory_gib  # manifests multiply it by the begun thousands of nodes
    # One target that is down keeps Prometheus from being ready.
    overrides: dict[str, object] = {
        "PROMETHEUS_SCRAPE_KUBE_PROXY": False,
        "PROMETHEUS_SCRAPE_APISERVER_ONLY": True,
        "CL2_PROMETHEUS_TOLERATE_MASTER": True,  # it may be the only pool that is not measured
        "CL2_PROMETHEUS_PVC_ENABLED": request.stack.storage_class is not None,
        **salted,
    }
    if dialect.name == "azure":
        # Its limit is this even where the request is --prometheus-memory-request: with the
        # default of 2 the request of 10 GiB is above the limit, and the pod is refused.
        overrides["CL2_PROMETHEUS_MEMORY_LIMIT_FACTOR"] = factor
        overrides["CL2_PROMETHEUS_MEMORY_SCALE_FACTOR"] = factor
        overrides["CONTAINERD_METRICS_PORT"] = str(request.stack.containerd_port)
    else:
        overrides["CL2_PROMETHEUS_KUBELET_MEMORY_SCALE_FACTOR"] = factor
    return overrides


def _yaml(values: Mapping[str, object]) -> str:
    """A flat mapping as YAML, which takes JSON values."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()) or "{}\n"


def arguments(
    request: Request, dialect: Dialect, places: Places, *, dry: bool = False
) -> list[str]:
    """CL2's command line without the program; ConfigError for a flag that it does not have."""
    stack = request.stack
    flags = [
        f"--provider={request.provider}",
        f"--nodes={request.nodes}",
        f"--report-dir={places.report}",
        f"--testconfig={places.bundle / TEST_CONFIG}",
        f"--testoverrides={places.bundle / OVERRIDES}",
        f"--testoverrides={places.extra / DIALECT_OVERRIDES}",
        f"--overwrite-test-config=Namespace.Prefix={request.namespace_prefix}",
        # The namespace is made beforehand, labelled, and removed by whoever made it.
        "--overwrite-test-config=Namespace.EnableExistingNamespaces=true",
        "--overwrite-test-config=Namespace.DeleteAutomanagedNamespaces=false",
        "--overwrite-test-config=Namespace.DeleteStaleNamespaces=false",
        "--enable-exec-service=false",  # it would pull an image on the measured nodes
        f"--enable-prometheus-server={_word(stack is not None)}",
        "--tear-down-prometheus-server=false",
        "--v=2",
        f"--kubeconfig={places.kubeconfig}" if places.kubeconfig else "--run-from-cluster=true",
    ]
    if stack is not None:
        flags += _stack_flags(stack, request.nodes, dialect, places)
    _check_own_flags(request.flags, dialect, flags)
    if dry:
        flags += ["--dry-run=true", "--skip-cluster-verification=true"]
    known = [flag for flag in flags if _name(flag) in dialect.flags or _name(flag) == "v"]
    return known + list(request.flags)


def _stack_flags(stack: Stack, nodes: int, dialect: Dialect, places: Places) -> list[str]:
    flags = [
        "--prometheus-scrape-kubelets=true",
        "--prometheus-scrape-kube-proxy=false",
        "--prometheus-scrape-apiserver-only=true",
    ]
    if dialect.name == "azure":
        flags += [
            "--prometheus-scrape-containerd=true",
            f"--prometheus-memory-request={prometheus_gib(stack.memory_gib, nodes)}Gi",
        ]
    elif stack.monitors:
        flags.append(f"--prometheus-additional-monitors-path={places.extra / MONITORS}")
    if stack.storage_class is not None:
        flags.append(f"--prometheus-pvc-storage-class={stack.storage_class}")
    return flags


def _check_own_flags(asked: Sequence[str], dialect: Dialect, ours: Sequence[str]) -> None:
    """The user's flags exist, and none of them takes what the run depends on from us."""
    taken = {_name(flag) for flag in ours} | {"kubeconfig", "run-from-cluster", "testsuite"}
    taken |= {"dry-run"}
    taken -= {"v", "testoverrides", "overwrite-test-config", "prometheus-memory-request"}
    for flag in (flag for flag in asked if flag.startswith("--")):
        name = _name(flag)
        if name in taken:
            raise ConfigError(
                f"engine.flags: --{name} is decided by imgpull",
                hint=f"leave --{name} out of engine.flags",
            )
        if name not in dialect.flags and name != "v":
            close = get_close_matches(name, sorted(dialect.flags), n=1)
            raise ConfigError(
                f"engine.flags: this clusterloader ({dialect.name}) has no flag --{name}",
                hint=f"did you mean '--{close[0]}'?" if close else "see clusterloader --help",
            )


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]


def _word(value: bool) -> str:
    return "true" if value else "false"


# What CL2 may take from the environment. All else stays out: CL2_* overrides the test (or, for a
# key of both with unlike types, ends the run), and nearly every flag has a variable of its own,
# like DELETE_STALE_NAMESPACES (perf-tests clusterloader2/pkg/flags, config/template_provider.go).
_PASSED = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|SSL_CERT_(FILE|DIR)|GO(DEBUG|MAXPROCS|MEMLIMIT|TRACEBACK)"
    r"|((HTTPS?|NO|ALL)_PROXY)|((https?|no|all)_proxy)|SYSTEMROOT|LD_LIBRARY_PATH"
)
_BENT = re.compile(
    r"CL2_.*|KUBECONFIG|RUN_FROM_CLUSTER|PROVIDER(_CONFIGS)?|NUM_NODES|KUBELET_PORT|K8S_CLIENTS_NUMBER"
    r"|ETCD_\w+|DELETE_(STALE|AUTOMANAGED)_NAMESPACES|MASTER_(NAME|IP|INTERNAL_IP|DNS_ENDPOINT)"
    r"|APISERVER_PPROF_BY_CLIENT_ENABLED|KUBEMARK_ROOT_KUBECONFIG|REGISTRY_K8S_REPO|PROJECT"
    r"|(ENABLE|TEAR_DOWN)_PROMETHEUS_SERVER|PROMETHEUS_\w+|ENABLE_EXEC_SERVICE|NODE_PRELOAD_\w+"
)


def environment(own: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment that CL2 gets, and the names left out of it that would have bent the run."""
    passed = {name: value for name, value in own.items() if _PASSED.fullmatch(name)}
    return passed, tuple(sorted(name for name in own if _BENT.fullmatch(name)))
