"""Stand-ins for the programs that real engines start, each test's in a folder of its own.

Hides where the programs of tests/programs find what they shall do, and what they tell of having
been started.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
REPORTS = Path(__file__).parent / "data" / "cl2-reports"


@dataclass(frozen=True)
class ClusterLoader:
    """A stand-in `clusterloader`."""

    directory: Path

    @property
    def path(self) -> Path:
        """The executable."""
        return self.directory / "clusterloader"

    @property
    def starts(self) -> list[dict[str, Any]]:
        """How it was started, --help aside: argv, names of its environment, pid."""
        text = (self.directory / "seen.jsonl").read_text("utf-8")
        seen = [json.loads(line) for line in text.splitlines()]
        return [each for each in seen if each["argv"] != ["--help"]]

    def behave(self, **behaviour: Any) -> None:
        """Change what it does from now on."""
        (self.directory / "behaviour.json").write_text(json.dumps(behaviour), encoding="utf-8")

    def child_pid(self) -> int:
        """The process that it left behind."""
        return int((self.directory / "child.pid").read_text("utf-8"))


def clusterloader(directory: Path, **behaviour: Any) -> ClusterLoader:
    """A stand-in in a folder; `behaviour` as in tests/programs/clusterloader."""
    made = ClusterLoader(directory)
    install("clusterloader", directory)
    made.behave(**behaviour)
    return made


@dataclass(frozen=True)
class Docker:
    """A stand-in `docker`."""

    directory: Path

    @property
    def path(self) -> Path:
        """The executable."""
        return self.directory / "docker"

    @property
    def commands(self) -> list[list[str]]:
        """What it was asked, in order."""
        log = self.directory / "docker.log"
        text = log.read_text("utf-8") if log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    @property
    def containers(self) -> list[str]:
        """Names of its containers."""
        folder = self.directory / "containers"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def set(self, entrypoint: Path, **settings: Any) -> None:
        """Change what it does from now on."""
        told = {"entrypoint": str(entrypoint), "images": [], **settings}
        (self.directory / "docker.json").write_text(json.dumps(told), encoding="utf-8")


def docker(directory: Path, entrypoint: Path, **settings: Any) -> Docker:
    """A stand-in in a folder; `settings` as in tests/programs/docker."""
    made = Docker(directory)
    install("docker", directory)
    made.set(entrypoint, **settings)
    return made


def install(name: str, directory: Path) -> None:
    """Copy a program, to be run by this Python without its site: it starts in no time."""
    directory.mkdir(parents=True, exist_ok=True)
    _, _, code = (PROGRAMS / name).read_text("utf-8").partition("\n")
    (directory / name).write_text(f"#!{sys.executable} -IS\n{code}", encoding="utf-8")
    (directory / name).chmod(0o755)


class Terminal(io.StringIO):
    """Somebody who types this."""

    def isatty(self) -> bool:
        return True


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
