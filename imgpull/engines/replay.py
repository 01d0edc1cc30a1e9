"""engine=replay: takes a recorded ClusterLoader2 report directory through the rest of the path.

Hides what a recorded report may lack. What the run was comes from `replay.yaml` in the directory,
else it is unknown: never guessed from the defaults, never compared on guesses. Events come from
`events.json` or `events.jsonl` in it, and only from inside the run's window.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from imgpull import cl2, units
from imgpull.config import job as jobs
from imgpull.engines.door import Outcome, Say, Subject
from imgpull.errors import ConfigError, ReportError
from imgpull.render import Bundle

DESCRIPTION = "replay.yaml"
_EVENT_FILES = ("events.json", "events.jsonl")
_CACHES = ("cold", "warm", "as_is")

# replay.yaml: key -> type. Everything is optional; what is missing is unknown.
_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "measured_by": str,
    "deployments": int,
    "replicas": int,
    "qps": (int, float),
    "nodes": int,
    "cache": str,
    "image": str,
    "image_reference": str,
    "image_digest": str,
    "layers": list,
    "cluster": str,
    "vm_size": str,
    "nic_mbit_s": (int, float),
    "disk": str,
    "kubernetes": str,
    "containerd": str,
    "registry": str,
    "region": str,
    "factors": dict,
}
_FACTORS = ("deployments", "replicas", "qps", "nodes", "image", "cluster", "cache")
_FINGERPRINT = ("vm_size", "disk", "kubernetes", "containerd", "registry", "region")


class ReplayEngine:
    """A report made elsewhere; nothing is rendered and nothing runs."""

    renders = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        if not directory.is_dir():
            raise ConfigError(
                f"engine.report={directory} is no directory",
                hint="name a ClusterLoader2 report directory: engine.report=DIR",
            )
        self._said = _description(directory)
        self.subject = self._subject()

    def _subject(self) -> Subject:
        said = self._said
        layers = tuple(
            (units.parse_size(x["compressed_bytes"]), units.parse_size(x["unpacked_bytes"]))
            for x in said.get("layers", ())
        )
        return Subject(
            cell_id=jobs.content_id({"engine": "replay", "report": _content(self._directory)}),
            label=self._directory.resolve().name,
            factors={
                **{name: said.get(name) for name in _FACTORS},
                **said.get("factors", {}),
                "report": self._directory.resolve().name,
            },
            image_reference=said.get("image_reference"),
            image_digest=said.get("image_digest"),
            layers=layers,
            fingerprint={"engine": "replay", **{name: said.get(name) for name in _FINGERPRINT}},
            **{
                name: said.get(name)
                for name in (
                    "deployments", "replicas", "nodes", "cache", "nic_mbit_s",
                )
            },
        )  # fmt: skip

    def check(self) -> None:
        """ConfigError or ReportError when it cannot be read or its events are not its own."""
        report = cl2.read_report(self._directory)
        if not report.junit and not report.queries and not report.pod_startup:
            raise ConfigError(
                f"{self._directory} holds no file that ClusterLoader2 reports",
                hint="name the directory that --report-dir named",
            )
        self._events(report)

    def validate(self, files: Mapping[str, str]) -> None:
        """Nothing is rendered, so there is nothing to refuse."""

    def run(self, bundle: Bundle | None, out: Path, say: Say) -> Outcome:
        """Copy the report and its events."""
        say("reading the recorded report")
        report = cl2.read_report(self._directory)
        shutil.copytree(
            self._directory,
            out / "report",
            ignore=shutil.ignore_patterns(*_EVENT_FILES),
            dirs_exist_ok=True,
        )
        events = self._events(report)
        if events is not None:
            with (out / "events.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(event, sort_keys=True) + "\n" for event in events)
        window = report.window()
        return Outcome(
            measured_by=self._said.get("measured_by", "unknown (a recorded report)"),
            started_at=window[0] if window else None,
            versions={
                name: self._said[name]
                for name in ("kubernetes", "containerd")
                if name in self._said
            },
            digests={"image": self._said.get("image_digest")},
        )

    def _events(self, report: cl2.Report) -> list[dict[str, Any]] | None:
        """The recorded events; None when there are none beside the report."""
        paths = [self._directory / name for name in _EVENT_FILES]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            return None
        events = _read_events(path)
        window = report.window()
        if window is None:
            raise ReportError(
                f"{path}: the report does not say when it ran, so its events cannot be placed",
                hint="keep junit.xml and the summaries with their names",
            )
        slack = timedelta(seconds=1)  # events are stamped in whole seconds
        for at in (at for event in events for at in _times(event, path)):
            if not window[0] - slack <= at <= window[1] + slack:
                raise ReportError(
                    f"{path}: an event of {at.isoformat()} lies outside the run's window "
                    f"({window[0].isoformat()} to {window[1].isoformat()})",
                    hint="keep only the events of this run in it",
                )
        return events


def _times(event: Mapping[str, Any], path: Path) -> list[datetime]:
    """When an event was seen, first and last."""
    stamps = (event.get(name) for name in ("firstTimestamp", "lastTimestamp", "eventTime"))
    try:
        times = [datetime.fromisoformat(text) for text in stamps if text]
    except (TypeError, ValueError) as error:
        raise ReportError(f"{path}: {error}", hint="export the events again") from error
    if any(at.tzinfo is None for at in times):
        raise ReportError(
            f"{path}: an event's time {times[0].isoformat()} names no zone",
            hint="export the events again",
        )
    return times


def _read_events(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8")
    try:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ReportError(f"{path}: not JSON ({error})", hint="export the events again") from error
    items = found.get("items") if isinstance(found, dict) else found
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ReportError(
            f"{path}: no list of events", hint="kubectl get events -A -o json > events.json"
        )
    return items


def _content(directory: Path) -> str:
    """The content hash of a report directory: names and bytes."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _description(directory: Path) -> dict[str, Any]:
    path = directory / DESCRIPTION
    if not path.exists():
        return {}
    try:
        said = yaml.safe_load(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}", hint="correct the YAML") from error
    if not isinstance(said, dict):
        raise ConfigError(f"{path}: not a mapping", hint=f"keys: {', '.join(_KEYS)}")
    for key, value in said.items():
        if key not in _KEYS:
            close = get_close_matches(str(key), _KEYS, n=1)
            raise ConfigError(
                f"{path}: unknown key '{key}'",
                hint=f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(_KEYS)}",
            )
        if isinstance(value, bool) or not isinstance(value, _KEYS[key]):
            raise ConfigError(
                f"{path}: {key}={value!r} is of the wrong type", hint="see docs/how-to.md"
            )
        if isinstance(value, int | float) and not value > 0:
            raise ConfigError(f"{path}: {key}={value} is not above zero", hint=f"correct {key}")
    if said.get("cache", "cold") not in _CACHES:
        raise ConfigError(
            f"{path}: cache={said['cache']}", hint=f"choose one of {', '.join(_CACHES)}"
        )
    _check_layers(said, path)
    return said


def _check_layers(said: Mapping[str, Any], path: Path) -> None:
    for layer in said.get("layers", ()):
        try:
            units.parse_size(layer["compressed_bytes"])
            units.parse_size(layer["unpacked_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: a layer is {{compressed_bytes: SIZE, unpacked_bytes: SIZE}}, not {layer}",
                hint="correct the layer",
            ) from error
