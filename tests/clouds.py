"""A made-up Azure with stand-ins for `terraform` and `az` on PATH, in a folder of the test's own.

Hides where the stand-ins keep what exists, what they shall do and what they were asked.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from apiserver import ApiServer
from commands import Ended, imgpull
from standins import install

SECRET = "planted-secret-0123456789abcdef"
# A cluster that three nodes of the stand-in match.
FITS = ("cluster=aks_d4ds_v5", "nodes=3", "cluster.region=westeurope")
SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"


class Azure:
    """What exists there, and what the programs were asked."""

    def __init__(self, directory: Path, api: ApiServer, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.api = api
        self.fleet: Any = None  # whose nodes join, where a test has one
        api.tokens = {SECRET}
        for name in ("terraform", "az"):
            install(name, directory / "bin")
        self.save({"groups": {}})
        self.behave()
        patch.setenv("PATH", f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("IMGPULL_STATE", str(self.state))
        patch.setenv("ARM_CLIENT_SECRET", f"arm-{SECRET}")

    def behave(self, **behaviour: Any) -> None:
        """Change what goes wrong from now on."""
        told = {"secret": SECRET, "server": self.api.url, **behaviour}
        (self.directory / "bin" / "behaviour.json").write_text(json.dumps(told))

    @property
    def groups(self) -> dict[str, Any]:
        """What exists."""
        found = json.loads((self.directory / "bin" / "azure.json").read_text())
        return dict(found["groups"])

    @property
    def all(self) -> dict[str, Any]:
        """What exists, with registries and roles."""
        return dict(json.loads((self.directory / "bin" / "azure.json").read_text()))

    def save(self, content: dict[str, Any]) -> None:
        """Make something exist."""
        (self.directory / "bin" / "azure.json").write_text(json.dumps(content))

    @property
    def calls(self) -> list[list[str]]:
        """How the programs were called."""
        file = self.directory / "bin" / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def commands(self, program: str = "terraform") -> list[str]:
        """The commands of one program, in order."""
        found = [call[1:] for call in self.calls if call[0] == program]
        plain = [[each for each in call if not each.startswith("-chdir")] for call in found]
        return [" ".join(each for each in call[:2] if not each.startswith("-")) for call in plain]

    def forget_calls(self) -> None:
        """Look at what follows only."""
        (self.directory / "bin" / "calls.jsonl").unlink(missing_ok=True)

    def files_with(self, text: str) -> list[str]:
        """Files of the test's folder that hold a text, but the stand-ins' own."""
        return sorted(
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.is_file() and "bin" not in path.relative_to(self.directory).parts[:1]
            and text.encode() in path.read_bytes()
        )  # fmt: skip


def up(azure: Azure, *more: str) -> Ended:
    """`imgpull cluster up` of that cluster, agreed to beforehand."""
    return imgpull(azure.directory, "cluster", "up", *FITS, "--yes", *more)
