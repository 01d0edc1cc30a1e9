"""Where a cluster that we made is kept: its state, variables and kubeconfig, in one private folder.

Hides names and modes. The state holds the cluster's credentials as Terraform writes them, so that
the folder is for its owner alone, and out of git.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable
from imgpull.provisioning.variables import check_name

MODULE = Path(__file__).resolve().parents[2] / "terraform"
STATE_ROOT = "IMGPULL_STATE"  # another folder than terraform/state, for example on a shared disk

_CODE, _LOCK = "*.tf", ".terraform.lock.hcl"
_LOG = "terraform.log"


def state_root() -> Path:
    """The folder of all clusters."""
    told = os.environ.get(STATE_ROOT)
    return Path(told).expanduser().resolve() if told else MODULE / "state"


def every() -> "list[Place]":
    """The places of all clusters that were made from here, by name."""
    root = state_root()
    if not root.is_dir():
        return []
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    return [Place(name) for name in names if Place(name).is_made]


@dataclass(frozen=True)
class Place:
    """The folder of one cluster."""

    name: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def directory(self) -> Path:
        """Also Terraform's working copy of the module."""
        return state_root() / self.name

    @property
    def kubeconfig(self) -> Path:
        """The cluster's access; mode 0600."""
        return self.directory / "kubeconfig"

    @property
    def variables(self) -> Path:
        """What was applied last."""
        return self.directory / "terraform.tfvars.json"

    @property
    def planned(self) -> Path:
        """What is proposed."""
        return self.directory / "planned.tfvars.json"

    @property
    def log(self) -> Path:
        """What Terraform said, redacted."""
        return self.directory / _LOG

    @property
    def is_made(self) -> bool:
        """Whether something was applied here."""
        return self.variables.exists()

    def values(self) -> dict[str, Any]:
        """The variables that were applied last; ConfigError when there are none."""
        try:
            values = json.loads(self.variables.read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"no cluster '{self.name}' was made from here ({state_root()})",
                hint="imgpull cluster status lists those that were",
            ) from error
        except (OSError, ValueError) as error:
            raise EngineFailed(
                f"{self.variables} cannot be read: {error}",
                hint="az group list --tag managed-by=imgpull --output table tells what exists",
            ) from error
        assert isinstance(values, dict)
        return values

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: one imgpull at a time changes a cluster."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.chmod(0o700)
        except OSError as error:
            raise EngineUnavailable(
                f"{self.directory} cannot be made: {error.strerror}",
                hint=f"{STATE_ROOT}=DIRECTORY names another",
            ) from error
        with (state_root() / f".{self.name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise EngineUnavailable(
                    f"another imgpull works on the cluster '{self.name}'",
                    hint="wait for it, or use another --name",
                ) from error
            yield

    def lay(self, values: Mapping[str, Any], module: Path = MODULE) -> None:
        """Copy the module here, with the proposed variables beside it."""
        if not any(module.glob("*.tf")):
            raise EngineUnavailable(
                f"{module} holds no Terraform module", hint="run imgpull from a checkout of it"
            )
        for old in self.directory.glob(_CODE):
            old.unlink()
        # The lock that init wrote here stays, unless the module brings one: the provider that began
        # a cluster changes it, too.
        for path in (*module.glob(_CODE), *module.glob(_LOCK)):
            shutil.copyfile(path, self.directory / path.name)
        write_private(self.planned, json.dumps(values, indent=2) + "\n")

    def adopt(self) -> None:
        """What was proposed is what is applied from now on."""
        self.planned.replace(self.variables)

    def forget(self, *, keep_log: bool = False) -> None:
        """Remove all of it: nothing of this cluster exists any more."""
        for path in sorted(self.directory.iterdir()) if self.directory.exists() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not (keep_log and path.name == _LOG):
                path.unlink()
        with contextlib.suppress(OSError):  # the log is in it
            self.directory.rmdir()


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    new.chmod(0o600)
    new.replace(path)


def identity(name: str, random: str) -> str:
    """What tells this cluster from all others, as a tag."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', name)}-{random}"
