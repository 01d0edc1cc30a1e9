"""The user's prices, `conf/prices.yaml`: what a machine and a gigabyte cost, and when.

Hides the file's format. It is no group of Hydra's, so that a price never changes what a cell is. It
is empty until the user fills it in; what has no price is unknown (None), never free.
"""

import datetime as dt
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from imgpull.config.compose import CONF
from imgpull.config.job import Job
from imgpull.errors import ConfigError

PRICES = CONF / "prices.yaml"
GB = 10**9
_OLD_DAYS = 90
_EXAMPLE = "see the comments in conf/prices.yaml"


@dataclass(frozen=True)
class Prices:
    """What is paid; amounts are in `currency`."""

    date: dt.date | None = None
    currency: str | None = None
    vm_hour: Mapping[str, float] = field(default_factory=dict)  # VM_SIZE or REGION/VM_SIZE
    egress_gb: float | None = None

    def of_node(self, job: Job) -> float | None:
        """What one measured node costs an hour; None when nobody said."""
        cluster = job.cluster
        size = cluster.node.vm_size
        return self.vm_hour.get(f"{cluster.region}/{size}", self.vm_hour.get(size))

    def of_bytes(self, count: float) -> float:
        """What so many bytes out of the registry cost: nothing is counted without a price."""
        return count / GB * (self.egress_gb or 0.0)

    def notes(self, today: dt.date | None = None) -> tuple[str, ...]:
        """What a reader of a cost should know of these prices."""
        if self.date is None:
            return ()
        age_days = ((today or dt.datetime.now(dt.UTC).date()) - self.date).days
        if age_days <= _OLD_DAYS:
            return ()
        return (f"the prices of {self.date} are {age_days} days old: look them up again",)


def read_prices(path: Path = PRICES) -> Prices:
    """The prices in a file, none when it is not there; ConfigError names file, key and fix."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Prices()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="mend or remove it") from error
    return _parsed(text, str(path))


@functools.lru_cache(maxsize=8)
def _parsed(text: str, path: str) -> Prices:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}", hint="correct the YAML") from error
    if values is None:
        return Prices()
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no mapping of keys", hint=_EXAMPLE)
    _check_keys(values, path)
    prices = Prices(
        date=_date(values.get("date"), path),
        currency=_currency(values.get("currency"), path),
        vm_hour=_vm_hour(values.get("vm_hour"), path),
        egress_gb=_amount(values.get("egress_gb"), f"{path}: egress_gb"),
    )
    if prices.vm_hour or prices.egress_gb is not None:
        for key in ("date", "currency"):
            if getattr(prices, key) is None:
                raise ConfigError(
                    f"{path}: prices without {key}",
                    hint=f"add {key}: {'2026-11-20' if key == 'date' else 'USD'}",
                )
    return prices


def _check_keys(values: Mapping[Any, Any], path: str) -> None:
    known = [item.name for item in fields(Prices)]
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            raise ConfigError(
                f"{path}: unknown key '{key}'",
                hint=f"did you mean '{close[0]}'?" if close else f"keys: {', '.join(known)}",
            )


def _date(value: Any, path: str) -> dt.date | None:
    if value is None:
        return None
    try:
        # YAML makes a date of 2026-11-20, and a moment of a date with a time.
        found = dt.date.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigError(
            f"{path}: date '{value}' is no date", hint="write date: 2026-11-20"
        ) from error
    today = dt.datetime.now(dt.UTC).date()
    if (found - today).days > 1:  # a time zone may be a day ahead
        raise ConfigError(
            f"{path}: date {found} is in the future", hint="the day the prices were looked up"
        )
    return found


def _currency(value: Any, path: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > 8:
        raise ConfigError(f"{path}: currency {value!r} is none", hint="write currency: USD")
    return value.strip()


def _vm_hour(values: Any, path: str) -> dict[str, float]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: vm_hour is {values!r}, not a mapping",
            hint="write vm_hour: {Standard_D4ds_v5: 0.23}, with your price",
        )
    found: dict[str, float] = {}
    for size, value in values.items():
        amount = _amount(value, f"{path}: vm_hour.{size}")
        if amount is not None:
            found[str(size)] = amount
    return found


def _amount(value: Any, where: str) -> float | None:
    """None stays unknown; 0 is a price, of a machine that is one's own."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}={value!r} is no number", hint="write it like 0.226")
    if not 0 <= value < math.inf:
        raise ConfigError(f"{where}={value} is no price", hint="write it like 0.226")
    return float(value)
