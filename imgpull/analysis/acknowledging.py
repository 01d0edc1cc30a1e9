"""Regressions that somebody has accepted for a while, from a YAML file under review.

Hides its format. An entry without a reason or an end is refused: what nobody looks at again is no
acknowledgement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from imgpull.analysis.sides import Quantity
from imgpull.analysis.wording import level_text
from imgpull.errors import ConfigError
from imgpull.units import parse_share

_KEYS = ("cell", "measurement", "up_to", "reason", "expires")
_EXAMPLE = "{cell: {nodes: 20}, reason: 'registry moved, #12', expires: 2026-12-31, up_to: 30%}"


@dataclass(frozen=True)
class Acknowledged:
    """An accepted regression: of the cells at these levels, of any measurement if none is named."""

    cell: Mapping[str, Any]
    measurement: str | None
    up_to: float | None  # a larger one is not accepted
    reason: str
    expires: date  # the last day on which it counts

    @property
    def text(self) -> str:
        """ "nodes 20 (until 2026-12-31: registry moved)"."""
        cell = ", ".join(f"{key} {level_text(level)}" for key, level in self.cell.items())
        return f"{cell or 'every cell'} (until {self.expires}: {self.reason})"

    def covers(self, levels: Mapping[str, Any], what: Quantity, slowdown: float) -> bool:
        """Whether it is about this cell and quantity, and the slowdown no larger than said."""
        same = all(
            level_text(levels.get(key)) == level_text(level) for key, level in self.cell.items()
        )
        named = self.measurement is None or what.named(self.measurement)
        return same and named and (self.up_to is None or slowdown <= self.up_to)


def read_acknowledged(path: Path) -> list[Acknowledged]:
    """The entries of the file; ConfigError names the entry that is none."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Dates as text: YAML's own reading of one breaks on a thirteenth month."""

    Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))
    try:
        found = yaml.load(path.read_text("utf-8"), Loader)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="name a file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}", hint=f"- {_EXAMPLE}") from error
    if found is None:
        return []
    if not isinstance(found, list):
        raise ConfigError(f"{path} is no list", hint=f"begin each entry with a dash: - {_EXAMPLE}")
    return [_entry(path, place, raw) for place, raw in enumerate(found, start=1)]


def _entry(path: Path, place: int, raw: Any) -> Acknowledged:
    where = f"{path}, entry {place}"
    if not isinstance(raw, dict):
        raise ConfigError(f"{where} is no mapping", hint=f"write it like {_EXAMPLE}")
    unknown = [str(key) for key in raw if key not in _KEYS]
    if unknown:
        raise ConfigError(f"{where}: '{unknown[0]}' is no key", hint=f"use {', '.join(_KEYS)}")
    reason, expires, cell = raw.get("reason"), raw.get("expires"), raw.get("cell")
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigError(f"{where} gives no reason", hint="reason: 'why it is accepted'")
    try:
        last_day = date.fromisoformat(str(expires))
    except ValueError as error:
        hint = "expires: 2026-12-31"
        raise ConfigError(f"{where}: expires={expires} is no date", hint=hint) from error
    if not isinstance(cell, dict) or not cell:
        raise ConfigError(f"{where} names no cell", hint="cell: {nodes: 20}")
    try:
        up_to = None if raw.get("up_to") is None else parse_share(raw["up_to"])
    except ValueError as error:
        raise ConfigError(f"{where}: up_to: {error}", hint="up_to: 30%") from error
    return Acknowledged(cell, raw.get("measurement"), up_to, reason.strip(), last_day)
