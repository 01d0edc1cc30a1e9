"""What an MLflow run says of one trial: its name, params, metrics, tags, table and files.

Hides how our words map to MLflow's and what its UI asks for (docs/design.md, MLflow). Reads the
trial's directory only and does not touch MLflow, whose limits are those of version 3.17.
"""

import csv
import getpass
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgpull import units
from imgpull.results.record import JobRecord, Measurement, read_measurements, read_record

PARAM_LIMIT = 60  # more columns than that, and nobody reads the table of runs
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
TABLE = "tables/pulls.json"  # the same name in every run: MLflow compares tables by name
TABLE_ROWS = 2000

_MARK = {"invalid": "INVALID ", "failed": "FAILED "}
_UNITS: dict[str, tuple[str, float]] = {
    "s": ("_s", 1),
    "bytes": ("_gib", units.GIB),
    "bytes/s": ("_mib_s", units.MIB),
    "1": ("", 1),
}
_FILES = (
    "job.json", "config.resolved.yaml", "measurements.csv", "pulls.csv", "flags.csv", "pods.csv",
    "series.csv", "events.jsonl", "run.log", "bundle", "report",
)  # fmt: skip
_TABLE_COLUMNS = ("pod", "node", "pull_s", "wait_s", "leader", "temperature", "outcome")

# How a sweep is run says nothing about what one trial measured; the rest are ids, paths or twins
# of a factor, which would differ in every comparison or say the same twice.
_NO_PARAM = frozenset(
    {
        "hydra", "tracking", "experiment", "until", "trial", "trials", "order", "exclude", "resume",
        "on_failure", "retries", "max_hours", "max_cost", "trial_limit", "target_effect",
        "provision", "provisioning", "keep", "yes", "engine.report", "engine.bundle", "image.name",
        "image.digest", "image.pull_secret", "image.layers", "cluster.name", "cluster.azure",
    }
)  # fmt: skip
# Mappings of many keys that hardly ever differ: one param each.
_FOLDED = frozenset(
    {
        "engine.rates", "engine.faults", "engine.held", "engine.images", "cluster.node_selector",
        "cluster.prometheus_node_selector",
    }
)  # fmt: skip


@dataclass(frozen=True)
class TrialContent:
    """One child run, in MLflow's terms. Times are ms since the epoch, by the wall clock."""

    name: str
    status: str  # FINISHED, or FAILED when the trial broke
    started_ms: int
    ended_ms: int
    params: Mapping[str, str]
    metrics: Sequence[tuple[str, float, int]]  # name, value, step
    tags: Mapping[str, str]
    table: Mapping[str, Any] | None  # as pandas writes orient="split", which MLflow's UI reads
    files: tuple[Path, ...]


def sweep_directory(job_dir: Path) -> Path:
    """The sweep that a trial belongs to: SWEEP/N, or SWEEP/N/attempt-2."""
    job_dir = job_dir.resolve()
    first = job_dir.parent if job_dir.name.startswith("attempt-") else job_dir
    return first.parent


def read_trial(job_dir: Path) -> TrialContent:
    """The run of a finished trial; ReportError when the directory holds none."""
    record = read_record(job_dir)
    pulls = _read_pulls(job_dir)
    left_out: list[str] = []
    params = _params(record, _read_config(job_dir), left_out)
    metrics = _metrics(record, read_measurements(job_dir), pulls, left_out)
    table = _table(pulls, left_out)
    tags = _tags(record, job_dir, table, left_out)
    ended = (job_dir / "job.json").stat().st_mtime  # written last, by the wall clock
    trial = f" t{record.trial}" if record.trial > 1 else ""
    return TrialContent(
        name=_MARK.get(record.verdict, "") + record.name + trial,
        status="FAILED" if record.verdict == "failed" else "FINISHED",
        started_ms=round((ended - record.wall_s) * 1000),
        ended_ms=round(ended * 1000),
        params=params,
        metrics=metrics,
        tags=tags,
        table=table,
        files=tuple(path for name in _FILES if (path := job_dir / name).exists()),
    )


def run_tags(kind: str, sweep_dir: Path) -> dict[str, str]:
    """The tags of every run. MLflow's client, unlike its fluent interface, sets none by itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return {
        "imgpull.kind": kind,
        "imgpull.sweep": sweep_dir.name,
        "mlflow.user": user,
        "mlflow.source.name": "run.py",
    }


def as_text(value: object) -> str:
    """A level or setting as a person writes it: 5.0 -> "5", None -> "unknown", lists as JSON."""
    if value is None:
        return "unknown"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(value, separators=(",", ":"), default=str)
    return str(value)


def fit(text: str, limit: int) -> str:
    """The text within MLflow's limit; job.json has it whole."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def safe_name(name: str) -> str:
    """A name that MLflow takes for a param, metric or tag: it must not read as another path."""
    parts = re.sub(r"[^\w\-.: /]", "_", name)[:250].split("/")
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "_"


def _read_config(job_dir: Path) -> dict[str, Any]:
    import yaml

    path = job_dir / "config.resolved.yaml"
    if not path.exists():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster
    return yaml.load(path.read_text("utf-8"), Loader=loader) or {}


def _read_pulls(job_dir: Path) -> list[dict[str, str]]:
    path = job_dir / "pulls.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _params(record: JobRecord, config: dict[str, Any], left_out: list[str]) -> dict[str, str]:
    levels = {safe_name(key): as_text(level) for key, level in record.factors.items()}
    if record.bundle_sha256 is None:
        # Nothing was rendered from the configuration: of a recorded report it says nothing.
        known = {safe_name(key): level for key, level in record.fingerprint.items()}
        config = {key: level for key, level in known.items() if level is not None}
        levels = {key: text for key, text in levels.items() if text != as_text(None)}
    settings = {safe_name(key): text for key, text in _flatten(config)}
    every = list((levels | _layer_summary(config) | settings | levels).items())
    if len(every) > PARAM_LIMIT:
        left_out.append(f"{len(every) - PARAM_LIMIT} params beyond {PARAM_LIMIT}")
    return {key: fit(text, PARAM_CHARACTERS) for key, text in every[:PARAM_LIMIT]}


def _flatten(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Dotted settings that are set; no paths, which differ between machines."""
    for key, value in config.items():
        name = f"{above}{key}"
        if name in _NO_PARAM or value is None or value == [] or value == {}:
            continue
        if isinstance(value, dict) and name not in _FOLDED:
            yield from _flatten(value, f"{name}.")
        elif not (isinstance(value, str) and value.startswith(("/", "~/", "./"))):
            yield name, as_text(value)


def _layer_summary(config: Mapping[str, Any]) -> dict[str, str]:
    layers = (config.get("image") or {}).get("layers")
    if not layers:
        return {}
    totals = {"image.layer_count": str(len(layers))}
    for key in ("compressed_bytes", "unpacked_bytes"):
        sizes = [layer.get(key) for layer in layers]
        if None not in sizes:  # unpacked sizes are not known of every image
            totals[f"image.{key}"] = str(sum(map(units.parse_size, sizes)))
    return totals


def _metrics(
    record: JobRecord,
    measurements: Sequence[Measurement],
    pulls: Sequence[Mapping[str, str]],
    left_out: list[str],
) -> list[tuple[str, float, int]]:
    """Every number of the whole cluster, and one series: pull times by rank in per cent."""
    # Apart from the valid ones, so that no chart of the UI shows both.
    prefix = "" if record.counts else f"{record.verdict}/"
    whole = {}
    quantities = {row.measurement: row.unit for row in measurements if row.unit != "1"}
    for row in measurements:
        if row.subject:
            continue  # a node's number would be a metric name of its own for each node
        suffix, divisor = _UNITS.get(row.unit, ("", 1.0))
        if row.statistic == "n":
            # Beside its quantity: the UI groups by the part before the slash.
            suffix = _UNITS.get(quantities.get(row.measurement, "1"), ("", 1.0))[0]
        name = safe_name(f"{prefix}{row.measurement}{suffix}/{row.statistic}")
        if math.isfinite(row.value):
            whole[name] = row.value / divisor
        else:
            left_out.append(f"{name}: {'unknown' if math.isnan(row.value) else 'infinite'}")
    for name in whole:
        exact = name.removesuffix("_at_least")
        if exact != name and exact not in whole:
            left_out.append(f"{exact}: censored, see {name}")
    durations = sorted(
        float(row["pull_s"])
        for row in pulls
        if _truth(row["leader"]) and row["outcome"] == "pulled" and row["pull_s"]
    )
    ranks = {math.ceil(100 * i / len(durations)): s for i, s in enumerate(durations, start=1)}
    series = [(f"{prefix}image_pull_sorted_s", s, rank) for rank, s in ranks.items()]
    return [(name, value, 0) for name, value in whole.items()] + series


def _truth(text: str) -> bool | None:
    return text.strip().lower() in ("true", "1") if text else None


def _table(pulls: Sequence[Mapping[str, str]], left_out: list[str]) -> dict[str, Any] | None:
    if not pulls:
        return None
    if len(pulls) > TABLE_ROWS:
        left_out.append(f"{len(pulls) - TABLE_ROWS} rows of {TABLE}: all are in pulls.csv")
    read = {"pull_s": lambda text: float(text) if text else None, "leader": _truth}
    read["wait_s"] = read["pull_s"]
    rows = [
        [read.get(column, str)(row[column]) for column in _TABLE_COLUMNS]
        for row in pulls[:TABLE_ROWS]
    ]
    return {"columns": list(_TABLE_COLUMNS), "data": rows}


def _tags(
    record: JobRecord, job_dir: Path, table: object | None, left_out: Sequence[str]
) -> dict[str, str]:
    tags = run_tags("trial", sweep_directory(job_dir)) | {
        "imgpull.engine": record.engine,
        "imgpull.measured_by": record.measured_by,
        "imgpull.verdict": record.verdict,
        "imgpull.reasons": "; ".join(record.reasons),
        "imgpull.slo": record.slo,
        "imgpull.cell": record.cell_id,
        "imgpull.name": record.name,  # what the UI may group by: equal in all trials of a cell
        "imgpull.trial": str(record.trial),
        "imgpull.trial_id": record.trial_id,
        "imgpull.attempt": str(record.attempt),
        "imgpull.fingerprint": json.dumps(record.fingerprint, sort_keys=True, default=str),
        "imgpull.job_dir": str(job_dir.resolve()),
        "mlflow.note.content": _note(record),
    }
    tags |= {f"versions.{name}": text for name, text in record.versions.items()}
    tags |= {f"digests.{name}": text for name, text in record.digests.items() if text}
    if revision := record.git.get("revision"):
        tags["mlflow.source.git.commit"] = str(revision)
    if (dirty := record.git.get("dirty")) is not None:
        tags["imgpull.git_dirty"] = as_text(dirty)
    if table:
        # What client.log_table sets; that call appends to the table when a trial is logged again.
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": TABLE, "type": "table"}])
    if left_out:
        tags["imgpull.left_out"] = "; ".join(left_out)
    return {safe_name(key): fit(text, TAG_CHARACTERS) for key, text in tags.items()}


def _note(record: JobRecord) -> str:
    """What a person reads first on the run's page, in Markdown."""
    told = "simulated, not measured" if record.engine == "sim" else f"engine {record.engine}"
    lines = [f"**{record.verdict}** ({told}), SLO {record.slo}"]
    lines += [f"- {reason}" for reason in record.reasons]
    if record.error:
        lines.append(f"- {record.error.type}: {record.error.message}")
        lines += [f"  {record.error.hint}"] if record.error.hint else []
    lines += [f"- note: {note}" for note in record.notes]
    return "\n".join([lines[0], "", *lines[1:]])
