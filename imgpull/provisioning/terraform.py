"""The program `terraform` in one cluster's folder.

Hides its commands, its output and its state's form. No value of the state is asked for: resources
are listed by address, changes by what happens to them, so that no credential passes through here.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgpull.errors import EngineFailed, EngineUnavailable
from imgpull.provisioning.azure_words import fix_of, terraform_error
from imgpull.provisioning.place import Place, state_root
from imgpull.provisioning.running import (
    Ended,
    Limits,
    Redact,
    Say,
    ask,
    find,
    redact_environment,
    stream,
)

OLDEST = (1, 9)  # a validation that looks at another variable
INSTALL = "install Terraform 1.9 or newer: developer.hashicorp.com/terraform/install"

_PLAN = "proposed.tfplan"
_NOTE = "terraform_data.measured_shape"  # the module's note to itself: nothing in Azure
# What would move the state elsewhere, or write credentials into a log.
_NOT_PASSED = ("TF_DATA_DIR", "TF_WORKSPACE", "TF_LOG", "TF_LOG_CORE", "TF_LOG_PROVIDER",
               "TF_LOG_PATH", "TF_STATE_PERSIST_INTERVAL")  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What a plan does to one resource: create, update, delete or replace."""

    address: str
    action: str


class Terraform:
    """Terraform's commands for one place."""

    def __init__(self, place: Place, limits: Limits = Limits()) -> None:  # noqa: B008
        self._place, self._limits = place, limits
        self._redact: Redact = redact_environment()

    def init(self, say: Say) -> None:
        """Get the provider; EngineFailed or EngineUnavailable with the fix."""
        self._must(self._run(["init", "-input=false", "-no-color"], _quiet(say)), "init")

    def plan(self, say: Say) -> list[Change]:
        """What the proposed variables would change."""
        arguments = [
            "plan", "-input=false", "-json", f"-out={_PLAN}", f"-var-file={self._place.planned}",
        ]  # fmt: skip
        reader = _PlanReader(say)
        ended = self._run(arguments, reader.take)
        self._must(ended, "plan", reader.errors)
        # A plan holds what the state holds.
        self._place.directory.joinpath(_PLAN).chmod(0o600)
        return reader.changes

    def apply(self, say: Say) -> None:
        """Make what was planned. KeyboardInterrupt after Terraform itself has ended."""
        try:
            ended = self._run(["apply", "-input=false", "-no-color", _PLAN], say)
            self._must(ended, "apply")
        finally:
            self._tidy()

    def destroy(self, say: Say) -> None:
        """Remove everything in the state."""
        if not (self._place.directory / ".terraform").exists():
            self.init(say)
        try:
            ended = self._run(["destroy", "-auto-approve", "-input=false", "-no-color"], say)
            self._must(ended, "destroy")
        finally:
            self._tidy()

    def resources(self) -> list[str]:
        """Addresses of what the state knows; none when there is no state."""
        if not (self._place.directory / "terraform.tfstate").exists():
            return []
        text = self._ask(["state", "list"])
        return [line for line in text.split() if line != _NOTE]

    def _tidy(self) -> None:
        """Plans and states are for their owner alone; Terraform asks the umask."""
        (self._place.directory / _PLAN).unlink(missing_ok=True)
        for path in self._place.directory.glob("*.tfstate*"):
            path.chmod(0o600)

    def _run(self, arguments: Sequence[str], on_line: Say) -> Ended:
        old = os.umask(0o077)
        try:
            return stream(
                self._command(arguments), on_line, redact=self._redact, environment=_environment(),
                limit_s=self._limits.terraform_s, grace_s=self._limits.grace_s, log=self._place.log,
            )  # fmt: skip
        finally:
            os.umask(old)

    def _ask(self, arguments: Sequence[str]) -> str:
        code, out, errors = ask(
            self._command(arguments), environment=_environment(), limit_s=self._limits.az_s
        )
        if code != 0:
            words = self._redact(terraform_error((errors or out).splitlines()))
            raise EngineFailed(
                f"terraform {' '.join(arguments[:2])}: {words}",
                hint=fix_of(words, f"look into {self._place.directory}"),
            )
        return out

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [find("terraform", INSTALL), f"-chdir={self._place.directory}", *arguments]

    def _must(self, ended: Ended, command: str, errors: Sequence[str] = ()) -> None:
        """EngineFailed unless it went well; KeyboardInterrupt when the user ended it."""
        if ended.interrupted:
            raise KeyboardInterrupt
        if ended.code == 0:
            return
        words = "; ".join(errors) or terraform_error(ended.tail)
        if ended.code is None:
            raise EngineFailed(
                f"terraform {command} was stopped after {self._limits.terraform_s / 60:.0f} min: "
                f"{words}",
                hint="imgpull cluster up … --limit 3h gives it longer",
            )
        raise EngineFailed(
            f"terraform {command} failed: {words}", hint=fix_of(words, f"see {self._place.log}")
        )


def version(limits: Limits) -> tuple[int, ...]:
    """The program's version; EngineUnavailable when it is not there or tells none."""
    program = find("terraform", INSTALL)
    code, out, errors = ask(
        [program, "version", "-json"],
        environment={**os.environ, "CHECKPOINT_DISABLE": "1"},
        limit_s=limits.az_s,
    )
    try:
        told = str(json.loads(out)["terraform_version"])
        return tuple(int(part) for part in told.partition("-")[0].split("."))
    except (ValueError, KeyError) as error:
        words = " ".join((errors or out).split())[:200]
        raise EngineUnavailable(
            f"{program} does not tell its version (exit {code}): {words}", hint=INSTALL
        ) from error


def _environment() -> dict[str, str]:
    passed = {key: value for key, value in os.environ.items() if key not in _NOT_PASSED}
    # Providers are some hundred MiB: once for all clusters.
    cache = state_root() / ".plugins"
    if "TF_PLUGIN_CACHE_DIR" not in passed and not _has_cache_configured():
        cache.mkdir(parents=True, exist_ok=True)
        passed["TF_PLUGIN_CACHE_DIR"] = str(cache)
        # Without a lock file in the module, Terraform would fetch them again all the same.
        passed["TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE"] = "1"
    return {**passed, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}


def _has_cache_configured() -> bool:
    told = os.environ.get("TF_CLI_CONFIG_FILE")
    file = Path(told) if told else Path.home() / ".terraformrc"
    try:
        return "plugin_cache_dir" in file.read_text("utf-8")
    except OSError:
        return False


def _quiet(say: Say) -> Say:
    """Of init only what is being fetched."""

    def take(line: str) -> None:
        if line.startswith(("- Installing", "- Installed", "- Finding")):
            say(line.removeprefix("- "))

    return take


class _PlanReader:
    """The machine-readable messages of `terraform plan -json`."""

    def __init__(self, say: Say) -> None:
        self.changes: list[Change] = []
        self.errors: list[str] = []
        self._say = say

    def take(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return  # a warning about Terraform's own configuration
        kind = told.get("type") if isinstance(told, dict) else None
        if kind == "planned_change":
            address = told["change"]["resource"]["addr"]
            if address != _NOTE:
                self.changes.append(Change(address, told["change"]["action"]))
        elif kind == "diagnostic" and told["diagnostic"]["severity"] == "error":
            found = told["diagnostic"]
            detail = " ".join(found.get("detail", "").split())
            self.errors.append(f"{found['summary']}: {detail}" if detail else found["summary"])
        elif kind == "diagnostic":
            self._say(f"warning: {told['diagnostic']['summary']}")
