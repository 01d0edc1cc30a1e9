"""Where MLflow keeps the runs: a SQLite file beside the project, or a server.

Hides how a store comes to be: creating the database whole or not at all, the experiment in it, a
server's short patience, and how everything that MLflow raises becomes a TrackingError.
"""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imgpull.config import schema
from imgpull.errors import ConfigError, ImgpullError, TrackingError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for every run
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what it logs it also raises, and that we report
    # MLflow's own 7 retries of 120 s would hold up a sweep for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
_LOCAL_UI = "http://127.0.0.1:5000"
_NOTE = "Container image pull trials by imgpull: a parent run is a sweep, a child run one trial."


@dataclass(frozen=True)
class Store:
    """An open store. `command` starts its UI at `ui`; None when a server already shows it."""

    client: "MlflowClient"
    experiment_id: str
    ui: str
    command: str | None


def database_path(root: Path) -> Path:
    """The default store's file."""
    return root.resolve() / "mlflow.db"


def open_store(settings: schema.Tracking, root: Path) -> Store:
    """The store with its experiment, both made when missing.

    ConfigError for an impossible uri, TrackingError when the store cannot be reached or read.
    """
    uri = server_uri(settings) if settings.kind is schema.TrackingKind.server else None
    with guarded(f"open {uri or database_path(root)}"):
        if uri:
            client = connect(uri)
            experiment_id = _experiment(client, settings.experiment, None)
            return Store(client, experiment_id, _without_password(uri), None)
        database = database_path(root)
        artifacts = database.with_name("mlartifacts").as_uri()
        _create_database(database, artifacts)
        client = _open_database(database)
        experiment_id = _experiment(client, settings.experiment, artifacts)
        command = f"{_program()} ui --backend-store-uri {shlex.quote(_sqlite(database))}"
        return Store(client, experiment_id, _LOCAL_UI, command)


def _program() -> str:
    """How to call this environment's `mlflow`, which need not be on the PATH."""
    ours = Path(sys.executable).with_name("mlflow")
    found = shutil.which("mlflow")
    return "mlflow" if not ours.exists() or found == str(ours) else shlex.quote(str(ours))


def find_client(settings: schema.Tracking, root: Path) -> "MlflowClient":
    """A client of an existing store, for looking up; TrackingError when there is none."""
    if settings.kind is schema.TrackingKind.server:
        return connect(server_uri(settings))
    database = database_path(root)
    if not database.exists():
        raise TrackingError(f"there is no {database}", hint="run a sweep, or name a directory")
    return _open_database(database)


def connect(uri: str) -> "MlflowClient":
    """A quiet client; MLflow is imported here, which takes about two seconds."""
    _prepare_environment()
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _prepare_environment() -> None:
    """Settings that MLflow reads when it is imported; the user's own win."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def server_uri(settings: schema.Tracking) -> str:
    """The configured address of a server; ConfigError when it is none."""
    uri = (settings.uri or "").rstrip("/")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"tracking.uri={settings.uri} is no http(s) address of an MLflow server",
            hint="tracking=server tracking.uri=http://HOST:5000",
        )
    return uri


@contextlib.contextmanager
def guarded(doing: str, directory: Path | None = None) -> Iterator[None]:
    """Turn whatever MLflow raises into a TrackingError that says how to make up for it."""
    try:
        yield
    except ImgpullError:
        raise
    except Exception as error:  # MLflow lets SQLAlchemy's, requests' and the OS's errors through
        reason = (str(error) or repr(error)).strip().splitlines()[0]
        raise TrackingError(
            _without_password(f"MLflow could not {doing}: {reason}"),
            hint=f"imgpull log {shlex.quote(str(directory)) if directory else 'DIR'}",
        ) from error


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)


def _sqlite(database: Path) -> str:
    return f"sqlite:///{database}"


def _create_database(database: Path, artifacts: str) -> None:
    """Make the file under another name and rename it: nobody ever opens half a schema.

    Two processes that open a new SQLite file together break its migrations, so one waits.
    """
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if database.exists():
            return
        temporary = database.with_name(".mlflow.db.new")
        # Of a process that was killed here; an old journal would be applied to the new file.
        for left in database.parent.glob(f"{temporary.name}*"):
            left.unlink()
        _prepare_environment()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store: Any = SqlAlchemyStore(_sqlite(temporary), artifacts)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        temporary.replace(database)
    finally:
        os.close(lock)


def _open_database(database: Path) -> "MlflowClient":
    """A client of the file; TrackingError for another MLflow's schema."""
    try:
        return connect(_sqlite(database))
    except Exception as error:
        if "out-of-date database schema" not in str(error):
            raise
        raise TrackingError(
            f"{database} was made by another version of MLflow",
            hint=f"keep a copy of it, then: mlflow db upgrade {shlex.quote(_sqlite(database))}",
        ) from error


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The experiment's id; made when missing, by whichever process comes first."""
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(name) is None:
        try:
            tags = {"mlflow.note.content": _NOTE}
            return str(client.create_experiment(name, artifact_location=artifacts, tags=tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"the MLflow experiment '{name}' was deleted",
            hint="restore it (mlflow experiments restore), or use tracking.experiment=OTHER",
        )
    return str(found.experiment_id)
