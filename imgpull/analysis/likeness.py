"""Whether two sides may be compared: which fields of their fingerprints differ, and who allows it.

Hides what a fingerprint is made of. Nobody knows from two directories which difference was meant,
so every one must be allowed by name; `cluster` stands for all that a cluster is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from imgpull.analysis.sides import Trial
from imgpull.analysis.wording import level_text
from imgpull.errors import ConfigError

_IMAGE_FIELDS = frozenset({"image_layers"})
# How it was measured: no property of the cluster, so `cluster` does not allow them.
_METHOD_FIELDS = frozenset({"engine", "pod_startup_semantics", "clusterloader"})
_GROUPS = ("cluster", "image")

Pair = tuple[Sequence[Trial], Sequence[Trial]]


class Unlike(ConfigError):
    """Two sides differ in what nobody allowed them to differ in."""


@dataclass(frozen=True)
class Difference:
    """A field whose values are not the same on both sides."""

    field: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.field} {self.before} -> {self.after}"


def unlike(pairs: Iterable[Pair]) -> list[Difference]:
    """The fields of the fingerprints that differ between trials that would be compared."""
    return _differences(pairs, lambda trial: trial.record.fingerprint)


def other_versions(pairs: Iterable[Pair]) -> list[Difference]:
    """Whether another imgpull made the trials: said, not refused."""
    own = ("imgpull",)
    return _differences(
        pairs, lambda trial: {f"{name} version": trial.record.versions.get(name) for name in own}
    )


def require_alike(
    differences: Sequence[Difference], allow: Collection[str], fields: Collection[str]
) -> None:
    """Unlike names the differences that are not allowed; ConfigError a name that no field has."""
    known = {*fields, *_GROUPS, *_METHOD_FIELDS, *_IMAGE_FIELDS}
    for name in allow:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.4) or ["cluster"]
            raise ConfigError(
                f"--allow: no field is called '{name}'", hint=f"did you mean --allow {near[0]}?"
            )
    refused = [one for one in differences if not _allowed(one.field, allow)]
    if refused:
        names = ",".join(dict.fromkeys([*allow, *(one.field for one in refused)]))
        raise Unlike(
            f"the two are unlike: {'; '.join(map(str, refused))}",
            hint=f"if that is what you compare: --allow {names}",
        )


def _allowed(field: str, allow: Collection[str]) -> bool:
    if field in allow:
        return True
    if field in _METHOD_FIELDS:
        return False
    return _group(field) in allow


def _group(field: str) -> str:
    if field in _IMAGE_FIELDS:
        return "image"
    return field.partition(".")[0] if "." in field else "cluster"


def _differences(pairs: Iterable[Pair], facts: Any) -> list[Difference]:
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for before, after in pairs:
        sides: tuple[list[Mapping[str, Any]], ...] = (
            [facts(trial) for trial in before],
            [facts(trial) for trial in after],
        )
        for name in dict.fromkeys(name for side in sides for one in side for name in one):
            own = [dict.fromkeys(level_text(one.get(name)) for one in side) for side in sides]
            if own[0].keys() != own[1].keys():
                kept = found.setdefault(name, ({}, {}))
                kept[0].update(own[0])
                kept[1].update(own[1])
    return [
        Difference(name, " or ".join(sorted(first)), " or ".join(sorted(second)))
        for name, (first, second) in found.items()
    ]
