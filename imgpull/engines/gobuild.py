"""What a Go program says of its own making, without running it.

Hides the layout of Go's build information inside an executable (Go src/debug/buildinfo, inline
format of Go 1.18 and later). Programs without it have no version, not a wrong one.
"""

import mmap
import re
from collections.abc import Mapping
from pathlib import Path

_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
_INLINE = 2  # flag: the strings follow the header
_SENTINEL = 16  # bytes around the module text


def build_info(program: Path) -> Mapping[str, str]:
    """Keys such as go, path, vcs.revision, vcs.time, vcs.modified; empty when it tells nothing."""
    with program.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                return _parsed(memory)
        except (ValueError, IndexError):  # an empty file, or one cut short
            return {}


def contains(program: Path, text: bytes) -> bool:
    """Whether a text stands literally in a program."""
    with program.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                return memory.find(text) >= 0
        except ValueError:
            return False


def version_text(info: Mapping[str, str]) -> str:
    """One line for people: "perf-tests 4b3415444f4c 2026-08-07, go1.26"."""
    parts = []
    if revision := info.get("vcs.revision"):
        changed = "+changes" if info.get("vcs.modified") == "true" else ""
        parts.append(f"perf-tests {revision[:12]}{changed} {info.get('vcs.time', '')[:10]}".strip())
    elif (module := info.get("mod.version", "")) not in ("", "(devel)"):
        parts.append(f"perf-tests {module}")
    elif client := info.get("client-go"):  # built outside a checkout: this tells its age
        parts.append(f"client-go {client}")
    parts += [info["go"]] if "go" in info else []
    return ", ".join(parts)


def _parsed(memory: mmap.mmap) -> dict[str, str]:
    at = memory.find(_MAGIC)
    if at < 0 or not memory[at + len(_MAGIC) + 1] & _INLINE:
        return {}
    go, at = _string(memory, at + _HEADER)
    module, _ = _string(memory, at)
    info = {"go": go.decode("utf-8", "replace")}
    text = module[_SENTINEL:-_SENTINEL].decode("utf-8", "replace")
    info |= dict(re.findall(r"(?m)^build\t([^=\n]+)=(.*)$", text))
    if path := re.search(r"(?m)^path\t(.+)$", text):
        info["path"] = path[1]
    if own := re.search(r"(?m)^mod\t\S+\t(\S+)", text):
        info["mod.version"] = own[1]
    if client := re.search(r"(?m)^dep\tk8s\.io/client-go\t(\S+)", text):
        info["client-go"] = client[1]
    return info


def _string(memory: mmap.mmap, at: int) -> tuple[bytes, int]:
    """A string that its length precedes, seven bits a byte, and where it ends."""
    length = shift = 0
    while True:
        byte = memory[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return memory[at : at + length], at + length
