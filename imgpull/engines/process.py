"""CL2 as a program on this machine: an executable, or an image that docker runs.

Hides how the program is found, given its files, and its report had back.
"""

import functools
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from imgpull.engines import gobuild, supervised
from imgpull.engines.containers import Container, Containers
from imgpull.engines.door import Say
from imgpull.engines.following import Follower
from imgpull.engines.running import (
    Dialect,
    Ended,
    Places,
    Request,
    arguments,
    dialect_of,
    environment,
    extra_files,
    not_compiled,
    pinned,
    silent,
)
from imgpull.errors import EngineUnavailable

_GRACE_S = 10.0  # from TERM to KILL
_DRY_RUN_S = 300.0  # of which it may wait half a minute for an API server that is not there
_HELP_S = 60.0
# A literal of CL2's since PodStartupLatency tells what a watch saw (perf-tests 09a6a61de).
_WATCHED = b"create_to_run"


class BinaryRunner:
    """An executable, found by its path or on PATH."""

    is_here = True

    def __init__(self, program: str, *, grace_s: float = _GRACE_S) -> None:
        self._name, self._grace_s = program, grace_s

    def check(self, say: Say = silent) -> None:
        """EngineUnavailable when there is no such program, or it is no CL2."""
        self.probe()

    def probe(self) -> Dialect:
        """Which CL2 it is."""
        path = self._path()
        state = path.stat()
        return _probed(path, state.st_mtime_ns, state.st_size)

    def dry_run(self, request: Request) -> None:
        """RenderError or EngineFailed, in CL2's words, when the test does not compile."""
        with tempfile.TemporaryDirectory(prefix="imgpull-report-") as report:
            follower, ended = self._execute(request, Path(report), silent, dry=True)
        if not (follower.compiled and follower.ended_dry):
            raise not_compiled(ended, request.log)

    def run(self, request: Request, say: Say) -> Ended:
        """Run CL2 to its end or its limit; nothing of it runs on after that."""
        return self._execute(request, request.report, say, dry=False)[1]

    def _execute(
        self, request: Request, report: Path, say: Say, *, dry: bool
    ) -> tuple[Follower, Ended]:
        dialect, path = self.probe(), self._path()
        passed, left_out = environment(os.environ)
        with (
            tempfile.TemporaryDirectory(prefix="imgpull-") as extra,
            Follower(request.log, request.redact, say) as follower,
        ):
            for name, text in extra_files(request, dialect).items():
                (Path(extra) / name).parent.mkdir(exist_ok=True)
                (Path(extra) / name).write_text(text, encoding="utf-8")
            kubeconfig = request.kubeconfig.resolve() if request.kubeconfig else None
            places = Places(request.bundle.resolve(), Path(extra), report.resolve(), kubeconfig)
            command = [str(path), *arguments(request, dialect, places, dry=dry)]
            _announce(follower, command, left_out)
            ended = supervised.run(
                command, follower.feed, grace_s=self._grace_s, environment=passed,
                limit_s=min(request.limit_s, _DRY_RUN_S) if dry else request.limit_s,
                tied=True,
            )  # fmt: skip
            return follower, follower.ended(
                ended.code, ended.wall_s, timed_out=ended.timed_out
            )  # fmt: skip

    def _path(self) -> Path:
        name = str(Path(self._name).expanduser()) if os.sep in self._name else self._name
        if found := shutil.which(name):
            return Path(found).resolve()
        if Path(name).is_file():
            raise EngineUnavailable(
                f"engine.path={self._name} is not executable", hint=f"chmod +x {name}"
            )
        where = "is not on PATH" if os.sep not in name else "does not exist"
        raise EngineUnavailable(
            f"engine.path={self._name} {where}",
            hint="set engine.path=/path/to/clusterloader (docs/real-clusters.md: where from), or "
            "use engine=docker",
        )


@functools.lru_cache(maxsize=8)
def _probed(path: Path, changed_ns: int, size: int) -> Dialect:
    """What a program is, once for each content that it has had."""
    passed, _ = environment(os.environ)
    printed = supervised.output([str(path), "--help"], limit_s=_HELP_S, environment=passed)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    dialect = dialect_of(
        printed.errors + printed.text,
        str(path),
        version=gobuild.version_text(gobuild.build_info(path)),
        digest=f"sha256:{digest}",
    )
    if gobuild.contains(path, _WATCHED):
        return dialect.with_semantics("watch")
    return dialect


def _announce(follower: Follower, command: Sequence[str], left_out: Sequence[str]) -> None:
    follower.note(" ".join(command))
    if left_out:
        follower.note(f"left out of its environment: {', '.join(left_out)}")


# Where the container sees its files.
_ROOT = PurePosixPath("/imgpull")


class DockerRunner:
    """An image, run by docker or podman on the host's network, as root of the container."""

    is_here = True

    def __init__(
        self, command: str, image: str, digest: str | None, *, grace_s: float = _GRACE_S
    ) -> None:
        self._docker, self._grace_s = Containers(command), grace_s
        self.reference = pinned(image, digest)
        self._dialect: Dialect | None = None

    def check(self, say: Say = silent) -> None:
        """EngineUnavailable when docker does not answer or the image cannot be had."""
        self._docker.check()
        if self._docker.image(self.reference) is None:
            self._docker.pull(self.reference, say)
        self.probe()

    def probe(self) -> Dialect:
        """Which CL2 the image holds."""
        if self._dialect is None:
            found = self._docker.image(self.reference)
            if found is None:
                raise EngineUnavailable(
                    f"{self._docker.command} has no image {self.reference}",
                    hint=f"{self._docker.command} pull {self.reference}",
                )
            self._dialect = self._ask(found)
        return self._dialect

    def dry_run(self, request: Request) -> None:
        """RenderError or EngineFailed, in CL2's words, when the test does not compile."""
        follower, ended = self._execute(request, silent, dry=True)
        if not (follower.compiled and follower.ended_dry):
            raise not_compiled(ended, request.log)

    def run(self, request: Request, say: Say) -> Ended:
        """Run CL2 to its end or its limit; the container is gone after that."""
        return self._execute(request, say, dry=False)[1]

    def leftovers(self) -> list[Container]:
        """Containers of ours whose imgpull does not run any more."""
        return self._docker.leftovers()

    def remove_leftovers(self) -> list[Container]:
        """Remove them; returns those still there."""
        return self._docker.remove_leftovers()

    def _execute(self, request: Request, say: Say, *, dry: bool) -> tuple[Follower, Ended]:
        dialect = self.probe()
        places = Places(_ROOT / "bundle", _ROOT / "extra", _ROOT / "report", _ROOT / "kubeconfig")
        command = arguments(request, dialect, places, dry=dry)
        limit_s = min(request.limit_s, _DRY_RUN_S) if dry else request.limit_s
        with (
            Follower(request.log, request.redact, say) as follower,
            self._docker.container(self.reference, command, request.labels) as name,
        ):
            follower.note(f"{self._docker.command} {self.reference} {' '.join(command)}")
            self._docker.give(name, _files(request, dialect), folders=[f"{_ROOT.name}/report"])
            ended = self._docker.attach(name, follower.feed, limit_s=limit_s)
            code = self._exit_code(name, follower, ended)
            if not dry:
                told = self._docker.take(name, _ROOT / "report", request.report)
                if told:
                    follower.note(f"no report came back: {told}")
            return follower, follower.ended(code, ended.wall_s, timed_out=ended.timed_out)

    def _exit_code(self, name: str, follower: Follower, ended: supervised.Exit) -> int | None:
        """The container's, stopped if it still runs."""
        state = self._docker.state(name)
        if ended.timed_out or state.get("Running"):
            if not ended.timed_out:
                follower.note("the connection to the container was lost; it is stopped")
            self._docker.stop(name, self._grace_s)
            return None
        if state.get("OOMKilled"):
            follower.note("the container ran out of memory")
        code = state.get("ExitCode")
        return code if isinstance(code, int) else ended.code

    def _ask(self, image: Mapping[str, Any]) -> Dialect:
        if not (image.get("Config") or {}).get("Entrypoint"):
            raise EngineUnavailable(
                f"{self.reference} has no entrypoint that would be ClusterLoader2",
                hint="engine.image=ghcr.io/azure/clusterloader2:v20250513",
            )
        printed = bytearray()
        with self._docker.container(self.reference, ["--help"], {}) as name:
            self._docker.attach(name, printed.extend, limit_s=_HELP_S)
        return dialect_of(
            printed.decode("utf-8", "replace"),
            self.reference,
            version=_image_version(image, self.reference),
            digest=_image_digest(image),
        )


def _files(request: Request, dialect: Dialect) -> dict[str, bytes]:
    """What the container is given, by its path there."""
    root = _ROOT.name
    files = {f"{root}/bundle/{path.name}": path.read_bytes()
             for path in sorted(request.bundle.iterdir()) if path.is_file()}  # fmt: skip
    files |= {
        f"{root}/extra/{path}": text.encode()
        for path, text in extra_files(request, dialect).items()
    }
    if request.kubeconfig is not None:
        files[f"{root}/kubeconfig"] = request.kubeconfig.read_bytes()
    return files


def _image_version(image: Mapping[str, Any], reference: str) -> str:
    labels = (image.get("Config") or {}).get("Labels") or {}
    for key in ("org.opencontainers.image.version", "org.opencontainers.image.revision"):
        if told := labels.get(key):
            return f"{reference} ({told})"
    return reference


def _image_digest(image: Mapping[str, Any]) -> str:
    """By which a registry knows it; of an image that was never in one, its own id."""
    for name in image.get("RepoDigests") or ():
        return str(name).partition("@")[2]
    known = str(image.get("Id", ""))
    return known if known.startswith("sha256:") or not known else f"sha256:{known}"
