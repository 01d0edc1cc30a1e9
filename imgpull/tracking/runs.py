"""Sweeps and trials as MLflow runs: one parent a sweep, one child a trial, each logged once.

Hides how runs are nested, found again, taken up after an interruption, and shown.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

from imgpull.config import schema
from imgpull.errors import ConfigError, TrackingError
from imgpull.results.record import read_records
from imgpull.tracking.content import (
    PARAM_CHARACTERS,
    TABLE,
    TAG_CHARACTERS,
    TrialContent,
    as_text,
    fit,
    read_trial,
    run_tags,
    safe_name,
    sweep_directory,
)
from imgpull.tracking.describing import CELLS, FILES, cells_table, description, table_tag
from imgpull.tracking.store import Store, find_client, guarded, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run

Status = Literal["FINISHED", "FAILED", "KILLED"]

_HEADLINE = "metrics.`image_pull_s/p50`"
_LOGGED_WHOLE = ("FINISHED", "FAILED")  # a child in another state was cut off half-way


@dataclass(frozen=True)
class View:
    """How to look at a sweep: `command` starts the UI (None: a server runs), then open the URL."""

    command: str | None
    chart_url: str


class Tracker(Protocol):
    """A second record of trials. Every method may raise TrackingError; no result is lost by it."""

    def start_sweep(
        self,
        sweep_dir: Path,
        *,
        factors: Mapping[str, Sequence[object]],
        command: str,
        parent: str | None = None,
    ) -> str | None:
        """The id of the sweep's parent run: taken up again when it exists, else new."""

    def log_trial(self, job_dir: Path, parent: str | None) -> str | None:
        """The id of the trial's run. Logging an attempt again completes its run, adding none."""

    def finish_sweep(
        self,
        sweep_dir: Path,
        parent: str | None,
        *,
        status: Status,
        counts: Mapping[str, int],
        note_markdown: str,
    ) -> None:
        """Add the sweep's files, description and counts ("trials/valid": 8), and close the run.

        The description is the report's; `note_markdown` stands in where none was written.
        """

    def view(self, parent: str | None) -> View | None:
        """Where to look at the sweep's trials."""


def open_tracker(settings: schema.Tracking, root: Path) -> Tracker:
    """The configured tracker; `root` is where the default store lives. Raises ConfigError too."""
    if settings.kind is schema.TrackingKind.none:
        return NoTracker()
    return MlflowTracker(open_store(settings, root))


def run_directory(reference: str, settings: schema.Tracking, root: Path) -> Path:
    """The directory of the trial or sweep that an MLflow run id stands for."""
    if settings.kind is schema.TrackingKind.none:
        raise ConfigError(
            f"'{reference}' is no directory, and tracking=none has no runs",
            hint="name a directory, or use tracking=local",
        )
    with guarded(f"find run '{reference}'"):
        tags = find_client(settings, root).get_run(reference).data.tags
    found = tags.get("imgpull.job_dir") or tags.get("imgpull.sweep_dir")
    if not found:
        raise TrackingError(f"run {reference} is none of imgpull's", hint="name a directory")
    if not Path(found).is_dir():
        raise TrackingError(
            f"run {reference} was logged from {found}, which is not here",
            hint="name the directory where it is now",
        )
    return Path(found)


class NoTracker:
    """tracking=none: the directories are the whole record."""

    def start_sweep(self, sweep_dir: Path, **_: Any) -> None:
        """Nothing to start."""

    def log_trial(self, job_dir: Path, parent: str | None) -> None:
        """Nothing to log to."""

    def finish_sweep(self, sweep_dir: Path, parent: str | None, **_: Any) -> None:
        """Nothing to finish."""

    def view(self, parent: str | None) -> None:
        """Nothing to see."""


class MlflowTracker:
    """Logs to one experiment of one MLflow store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client: Any = store.client
        # Parents made here, with what was logged below them: for these no search is needed, so
        # that a trial costs the same however many runs the store holds.
        self._logged: dict[str, dict[tuple[str, str], str]] = {}

    def start_sweep(
        self,
        sweep_dir: Path,
        *,
        factors: Mapping[str, Sequence[object]],
        command: str,
        parent: str | None = None,
    ) -> str:
        sweep_dir = sweep_dir.resolve()
        with guarded("start the sweep", sweep_dir):
            found = self._find_sweep(sweep_dir, parent)
            if found is not None:
                return self._take_up(found)
            return self._create_parent(sweep_dir, factors, command)

    def log_trial(self, job_dir: Path, parent: str | None) -> str:
        logged = self._logged.get(parent or "")
        with guarded(f"log {job_dir}", sweep_directory(job_dir)):
            trial = read_trial(job_dir)
            key = trial.tags["imgpull.trial_id"], trial.tags["imgpull.attempt"]
            if logged is None:
                run = self._find_trial(trial, parent)
            else:
                run = self._client.get_run(logged[key]) if key in logged else None
            run_id = self._write(trial, parent, run)
        if logged is not None:
            logged[key] = run_id
        return run_id

    def finish_sweep(
        self,
        sweep_dir: Path,
        parent: str | None,
        *,
        status: Status,
        counts: Mapping[str, int],
        note_markdown: str,
    ) -> None:
        if parent is None:
            return
        from mlflow.entities import Metric, RunTag

        table = cells_table(sweep_dir)
        told = description(sweep_dir, note_markdown, parent)
        tags = _sweep_facts(sweep_dir) | {"mlflow.note.content": told}
        tags |= {"mlflow.loggedArtifacts": table_tag()} if table else {}
        with guarded("finish the sweep", sweep_dir):
            now = _now_ms()
            self._client.log_batch(
                parent,
                metrics=[Metric(safe_name(name), n, now, 0) for name, n in counts.items()],
                tags=[RunTag(name, fit(text, TAG_CHARACTERS)) for name, text in tags.items()],
            )
            self._log_files(parent, [sweep_dir / name for name in FILES])
            if table:
                self._client.log_dict(parent, table, CELLS)
            self._client.set_terminated(parent, status)

    def view(self, parent: str | None) -> View | None:
        if parent is None:
            return None
        with guarded("find the sweep's run"):
            sweep = self._client.get_run(parent).data.tags["imgpull.sweep"]
        wanted = f"tags.`imgpull.kind` = 'trial' and {_tag_is('imgpull.sweep', sweep)}"
        url = (
            f"{self._store.ui}/#/experiments/{self._store.experiment_id}/runs"
            f"?searchFilter={quote(wanted, safe='')}&orderByKey={quote(_HEADLINE, safe='')}"
            "&orderByAsc=false&compareRunsMode=CHART&workflowType=machine_learning"
        )
        return View(self._store.command, url)

    def _find_sweep(self, sweep_dir: Path, parent: str | None) -> "Run | None":
        from mlflow.exceptions import MlflowException

        if parent is None:  # a sweep logged before, by `imgpull log` or a resumed sweep
            return self._search(
                _tag_is("imgpull.kind", "sweep"), _tag_is("imgpull.sweep_dir", str(sweep_dir))
            )
        try:
            run = self._client.get_run(parent)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None  # the store was replaced: start afresh in this one
        return run if run.info.lifecycle_stage == "active" else None

    def _take_up(self, run: "Run") -> str:
        parent = str(run.info.run_id)
        self._client.update_run(parent, status="RUNNING")
        while orphan := self._search(
            _tag_is("mlflow.parentRunId", parent), "attributes.status = 'RUNNING'"
        ):
            self._client.set_terminated(orphan.info.run_id, "KILLED")
        return parent

    def _create_parent(
        self, sweep_dir: Path, factors: Mapping[str, Sequence[object]], command: str
    ) -> str:
        from mlflow.entities import Param

        levels = {key: ",".join(map(as_text, values)) for key, values in factors.items()}
        varied = [f"{key}={levels[key]}" for key, values in factors.items() if len(values) > 1]
        # The UI shows some 14 characters: what differs comes first, the sweep's random tail last.
        name = f"{' '.join(varied) or 'one cell'} {sweep_dir.name.rpartition('_')[2]}"
        tags = run_tags("sweep", sweep_dir) | {
            "imgpull.sweep_dir": str(sweep_dir),
            "imgpull.command": fit(command, TAG_CHARACTERS),
            "mlflow.note.content": fit(f"`{command}`", TAG_CHARACTERS),
        }
        run = self._client.create_run(self._store.experiment_id, tags=tags, run_name=fit(name, 250))
        parent = str(run.info.run_id)
        self._logged[parent] = {}
        params = [
            Param(safe_name(f"matrix.{key}"), fit(text, PARAM_CHARACTERS))
            for key, text in levels.items()
        ]
        self._client.log_batch(parent, params=params)
        return parent

    def _find_trial(self, trial: TrialContent, parent: str | None) -> "Run | None":
        group = (
            _tag_is("mlflow.parentRunId", parent)
            if parent
            else _tag_is("imgpull.sweep", trial.tags["imgpull.sweep"])
        )
        same = [_tag_is(name, trial.tags[name]) for name in ("imgpull.trial_id", "imgpull.attempt")]
        return self._search(group, *same)

    def _write(self, trial: TrialContent, parent: str | None, run: "Run | None") -> str:
        """Create the child run or complete it; params and metrics that stand are kept."""
        from mlflow.entities import Metric, Param, RunTag

        if run is not None and run.info.status in _LOGGED_WHOLE:
            return str(run.info.run_id)
        tags = dict(trial.tags) | ({"mlflow.parentRunId": parent} if parent else {})
        params, metrics = trial.params, trial.metrics
        if run is None:
            run = self._client.create_run(
                self._store.experiment_id, trial.started_ms, tags, trial.name
            )
            tags = {}  # they came with the run
        else:
            params = {key: text for key, text in params.items() if key not in run.data.params}
            metrics = [metric for metric in metrics if metric[0] not in run.data.metrics]
        run_id = str(run.info.run_id)
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, trial.ended_ms, step) for name, value, step in metrics],
            params=[Param(key, text) for key, text in params.items()],
            tags=[RunTag(key, text) for key, text in tags.items()],
        )
        self._log_files(run_id, trial.files)
        if trial.table:
            self._client.log_dict(run_id, trial.table, TABLE)
        self._client.set_terminated(run_id, trial.status, trial.ended_ms)
        return run_id

    def _log_files(self, run_id: str, paths: Sequence[Path]) -> None:
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            elif path.exists():
                self._client.log_artifact(run_id, str(path))

    def _search(self, *conditions: str) -> "Run | None":
        found = self._client.search_runs(
            [self._store.experiment_id], " and ".join(conditions), max_results=1
        )
        return found[0] if found else None


def _now_ms() -> int:
    return round(time.time() * 1000)


def _tag_is(name: str, value: str) -> str:
    """A condition of MLflow's filter language, which cannot escape: the other quote is used."""
    mark = '"' if "'" in value else "'"
    return f"tags.`{name}` = {mark}{value}{mark}"


def _sweep_facts(sweep_dir: Path) -> dict[str, str]:
    """What the trials say of the sweep as a whole: who measured, and from which commit."""
    records = [record for _, record in read_records(sweep_dir)[0]]
    facts = {"imgpull.engine": ",".join(sorted({record.engine for record in records}))}
    commits = sorted({str(record.git.get("revision") or "") for record in records} - {""})
    if commits:
        facts["mlflow.source.git.commit"] = ",".join(commits)
    return facts
