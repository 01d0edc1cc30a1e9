"""The command line of docker, or of podman, as far as both have it.

Hides how a container is made, fed, watched, emptied and removed. Nothing is shared with it: files
go in and come out through `cp`, so what comes back is the user's own whatever user the image wants,
and a docker on another machine serves as well. A container that a killed imgpull left holds a
credential: it is known by its labels, and by the process that made it.
"""

import json
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from imgpull.engines import archive, supervised
from imgpull.engines.door import Say
from imgpull.errors import EngineFailed, EngineUnavailable, ImgpullError

_LIMIT_S = 60.0  # one command that moves little
_PULL_S = 1800.0
_MANAGED = "app.kubernetes.io/managed-by", "imgpull"
_HOST, _PROCESS = "imgpull.dev/host", "imgpull.dev/process"


@dataclass(frozen=True)
class Container:
    """A container of ours that is still there."""

    name: str
    state: str
    labels: Mapping[str, str]


class Containers:
    """Containers of one docker."""

    def __init__(self, command: str) -> None:
        self.command = command

    def check(self) -> None:
        """EngineUnavailable when docker does not answer."""
        told = self._call("ps", "--quiet")
        if told.code != 0:
            raise EngineUnavailable(
                f"{self.command} does not answer: {told.words}",
                hint=f"start it, and see that you may use it: {self.command} ps",
            )

    def image(self, reference: str) -> Mapping[str, Any] | None:
        """What is known of an image that is here."""
        told = self._call("image", "inspect", reference)
        found = json.loads(told.text) if told.code == 0 else []
        return found[0] if found else None

    def pull(self, reference: str, say: Say) -> None:
        """Fetch an image; EngineUnavailable when it cannot be had."""
        printed = bytearray()

        def progress(data: bytes) -> None:
            printed.extend(data)
            lines = bytes(printed[-2000:]).decode("utf-8", "replace").split("\n")
            say(f"pulling {reference}: {(lines[-1].strip() or lines[-2:][0].strip())[:80]}")

        say(f"pulling {reference}")
        command = [self._program(), "pull", reference]
        ended = supervised.run(command, progress, limit_s=_PULL_S, grace_s=1.0)
        if ended.code != 0:
            words = " ".join(printed.decode("utf-8", "replace").split())[-500:]
            raise EngineUnavailable(
                f"{self.command} cannot pull {reference}: {words or 'no answer'}",
                hint=f"{self.command} login, then: {self.command} pull {reference}",
            )

    @contextmanager
    def container(
        self, reference: str, command: Sequence[str], labels: Mapping[str, str]
    ) -> Iterator[str]:
        """The name of a container that is made, not started, and gone afterwards.

        EngineFailed when it cannot be made, or removed.
        """
        name = f"imgpull-{secrets.token_hex(5)}"
        told = {**labels, _MANAGED[0]: _MANAGED[1], _HOST: platform.node(), _PROCESS: _identity()}
        options = [item for pair in told.items() for item in ("--label", "=".join(pair))]
        for proxy in sorted(key for key in os.environ if key.lower().endswith("_proxy")):
            options += ["--env", proxy]  # by name: the value may hold a password
        try:
            # Root, because the home of the published image is closed to all others.
            self._do(
                "create", "--name", name, "--network", "host", "--user", "0:0", *options,
                reference, *command,
            )  # fmt: skip
            yield name
        except BaseException:
            with suppress(ImgpullError):
                self._remove(name)
            raise
        self._remove(name)

    def give(self, name: str, files: Mapping[str, bytes], folders: Iterable[str]) -> None:
        """Put files and empty folders into a container, by their paths from its root."""
        parents = {str(above) for path in files for above in PurePosixPath(path).parents[:-1]}
        self._do("cp", "-", f"{name}:/", given=archive.pack(files, sorted({*parents, *folders})))

    def attach(
        self, name: str, on_output: Callable[[bytes], None], *, limit_s: float
    ) -> supervised.Exit:
        """Start a container and follow what it prints; past the limit it may still run."""
        command = [self._program(), "start", "--attach", name]
        return supervised.run(command, on_output, limit_s=limit_s, grace_s=1.0)

    def state(self, name: str) -> Mapping[str, Any]:
        """What docker says of a container; empty when it says nothing."""
        told = self._call("inspect", "--format", "{{json .State}}", name)
        try:
            found = json.loads(told.text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def stop(self, name: str, grace_s: float) -> None:
        """TERM, and KILL after the grace."""
        seconds = str(max(1, round(grace_s)))
        self._call("stop", "-t", seconds, name, limit_s=grace_s + _LIMIT_S)

    def take(self, name: str, folder: PurePosixPath, into: Path) -> str:
        """Copy the files of a folder out of a container; returns why none came, or nothing."""
        told = self._call("cp", f"{name}:{folder}", "-")
        if told.code != 0:
            return told.words
        archive.unpack(told.out, into, folder.name)
        return ""

    def leftovers(self) -> list[Container]:
        """Containers of ours whose imgpull does not run any more."""
        told = self._call("ps", "--all", "--quiet", "--filter", f"label={'='.join(_MANAGED)}")
        if told.code != 0:
            raise EngineUnavailable(
                f"{self.command} ps: {told.words}", hint=f"start it: {self.command} ps"
            )
        if not told.text.split():
            return []
        found = json.loads(self._call("inspect", *told.text.split()).text or "[]")
        ours = [
            Container(
                each["Name"].lstrip("/"),
                each["State"]["Status"],
                each["Config"].get("Labels") or {},
            )
            for each in found
        ]
        return [each for each in ours if not _is_wanted(each)]

    def remove_leftovers(self) -> list[Container]:
        """Remove them; returns those still there."""
        found = self.leftovers()
        for container in found:
            self._call("rm", "--force", "--volumes", container.name)
        names = {container.name for container in found}
        return [container for container in self.leftovers() if container.name in names]

    def _remove(self, name: str) -> None:
        """EngineFailed when it is still there."""
        told = self._call("rm", "--force", "--volumes", name)
        if told.code == 0:
            return
        left = self._call("ps", "--all", "--quiet", "--filter", f"name=^/?{name}$")
        if left.code != 0 or left.text.strip():
            raise EngineFailed(
                f"the container {name} could not be removed: {told.words}",
                hint=f"{self.command} rm --force {name}",
            )

    def _do(self, *arguments: str, given: bytes = b"") -> None:
        told = self._call(*arguments, given=given)
        if told.code != 0:
            raise EngineFailed(
                f"{self.command} {arguments[0]}: {told.words}",
                hint=f"try by hand what it is not allowed: {self.command} {arguments[0]}",
            )

    def _program(self) -> str:
        if found := shutil.which(self.command):
            return found
        raise EngineUnavailable(
            f"engine.command={self.command} is not on PATH",
            hint="install docker or podman (engine.command=podman), or use engine=binary",
        )

    def _call(
        self, *arguments: str, given: bytes = b"", limit_s: float = _LIMIT_S
    ) -> supervised.Printed:
        return supervised.output([self._program(), *arguments], limit_s=limit_s, given=given)


def _is_wanted(container: Container) -> bool:
    """Whether the imgpull that made a container may still want it."""
    if container.labels.get(_HOST) != platform.node():
        return container.state == "running"  # of another machine that shares this docker
    made_by = container.labels.get(_PROCESS, "")
    return made_by != "" and _identity(made_by.partition("-")[0]) == made_by


def _identity(process: str = "") -> str:
    """A process's number and, where /proc tells it, when it began; empty when there is none."""
    number = process or str(os.getpid())
    try:
        # proc(5): the 22nd field; the second one, in parentheses, may hold spaces.
        stat = Path(f"/proc/{number}/stat").read_text("utf-8", "replace")
        return f"{number}-{stat.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        pass
    try:
        os.kill(int(number), 0)
    except (OSError, ValueError, OverflowError) as error:
        return number if isinstance(error, PermissionError) else ""
    return number
