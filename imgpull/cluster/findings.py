"""What a look at the cluster finds, before anything runs: fine, doubtful or in the way.

Hides how many findings become one error.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from imgpull.errors import ConfigError, EngineUnavailable, ImgpullError


@dataclass(frozen=True)
class Finding:
    """A check's outcome; a failed one has a fix: one action. `field` is the key of conf/ meant."""

    check: str
    state: Literal["ok", "warning", "failed"]
    message: str
    fix: str = ""
    field: str = ""


def ok(check: str, message: str) -> Finding:
    """A finding that all is well."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, fix: str = "", field: str = "") -> Finding:
    """A finding that a trial may go on with."""
    return Finding(check, "warning", message, fix, field)


def failed(check: str, message: str, fix: str, field: str = "") -> Finding:
    """A finding that no trial should begin with."""
    return Finding(check, "failed", message, fix, field)


def of_error(check: str, error: ImgpullError, fix: str, field: str = "") -> Finding:
    """The failed finding that an error is; its own hint counts before `fix`."""
    return failed(check, error.message, error.hint or fix, field)


def require(findings: Iterable[Finding]) -> None:
    """Raise an error that lists every failed finding with its fix; nothing when none failed.

    ConfigError when all of them are keys of conf/, else EngineUnavailable.
    """
    bad = [each for each in findings if each.state == "failed"]
    if not bad:
        return
    kind = ConfigError if all(each.field for each in bad) else EngineUnavailable
    if len(bad) == 1:
        raise kind(f"{bad[0].check}: {bad[0].message}", hint=bad[0].fix)
    told = "\n".join(f"  {each.check}: {each.message}\n    {each.fix}" for each in bad)
    raise kind(
        f"{len(bad)} checks of the cluster failed:\n{told}",
        hint="after each fix: imgpull doctor, with the same overrides",
    )
