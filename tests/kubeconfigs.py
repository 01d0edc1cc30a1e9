"""Kubeconfig files and the programs that they name.

Hides their spelling: a test says what differs from one cluster, one user and one context.
"""

import base64
import json
import stat
import sys
from pathlib import Path
from typing import Any

import yaml


def write(
    path: Path,
    server: str = "http://127.0.0.1:1",
    *,
    cluster: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    context: str = "test",
    current: str | None = "test",
) -> Path:
    """A kubeconfig at this path."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": f"c-{context}", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": f"u-{context}", "user": user or {}}],
        "contexts": [
            {"name": context, "context": {"cluster": f"c-{context}", "user": f"u-{context}"}}
        ],
    }
    if current:
        content["current-context"] = current
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def jwt(**claims: Any) -> str:
    """A JSON web token of nobody."""
    parts = (json.dumps({"alg": "none"}), json.dumps(claims), "no signature")
    return ".".join(base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts)


V1 = "client.authentication.k8s.io/v1"


def answer(version: str = V1, **status: Any) -> str:
    """What an exec plugin prints."""
    return json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})


def program(path: Path, code: str) -> Path:
    """An executable of Python code, `sys`, `os`, `json` and `time` at hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def plugin(command: Path | str, **more: Any) -> dict[str, Any]:
    """A kubeconfig's user who logs in by a program."""
    return {"exec": {"apiVersion": V1, "command": str(command), "interactiveMode": "Never", **more}}
