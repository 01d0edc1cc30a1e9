"""Sweeps and commands as a user runs them: in a copy of the project, or in this process.

Hides what keeps tests apart: a copy has a store and sweeps of its own; in this process only the
working directory and the store are another, so that tests can break a part and see what follows.
"""

import contextlib
import functools
import io
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from imgpull import analysis, pipeline, tracking
from imgpull.config import schema
from imgpull.results.record import VERDICTS, JobRecord, job_directories, read_record
from imgpull.sweep import replaying, tracked
from imgpull.sweep.ledger import Ledger

if TYPE_CHECKING:
    from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
PARTS = ("run.py", "conf", "templates", "imgpull", "hydra_plugins")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def sweep(self) -> Path:
        """The sweep that the last line of output names."""
        return Path(self.out.splitlines()[-1].removeprefix("summary:").strip()).parent

    @property
    def told(self) -> list[str]:
        """The line of each trial that ended; a slow machine has lines of steps between them."""
        return [line for line in self.err.splitlines() if is_told(line)]

    @property
    def records(self) -> list[JobRecord]:
        return [read_record(path) for path in job_directories(self.sweep)]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The sweep's ledger."""
        return Ledger(self.sweep).read()


def is_told(line: str) -> bool:
    """Whether this line of standard error is that of a trial that ended: "1/4  r1 q5  valid …"."""
    return re.search(rf"\d+/\d+  .*  ({'|'.join(VERDICTS)})\b", line) is not None


def copy_project(into: Path) -> Path:
    """The project's own files, without git, installed nowhere."""
    project = into / "project"
    project.mkdir()
    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project / name)
    return project


def python(project: Path, *arguments: str, timeout_s: float = 120) -> Ended:
    """`python ARGUMENTS` in a copy of the project."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=project, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def undrawn(sweep_dir: Path) -> AbstractContextManager[Any]:
    """Instead of the plots, which take longer than all else."""
    return nullcontext(SimpleNamespace(wait=list))


def run_py(root: Path, *arguments: str, plots: bool = False) -> Ended:
    """`python run.py ARGUMENTS` in this process, with `root` as working directory and store."""
    with _in(root), pytest.MonkeyPatch.context() as patch, _captured() as (out, err):
        patch.setattr(sys, "argv", ["run.py", *arguments])
        if not plots:
            patch.setattr(analysis, "start_drawing", undrawn)
        try:
            runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def imgpull(root: Path, *arguments: str) -> Ended:
    """`imgpull ARGUMENTS` in this process, with `root` as working directory and store."""
    from imgpull import cli

    with _in(root), pytest.MonkeyPatch.context() as patch, _captured() as (out, err):
        patch.setattr(sys, "argv", ["imgpull", *arguments])
        patch.setattr(analysis, "start_drawing", undrawn)
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def verdicts(sweep: Path) -> list[str]:
    """Of each attempt in a sweep's directory, in the order of job numbers."""
    return [read_record(path).verdict for path in job_directories(sweep)]


def runs(root: Path) -> "tuple[Run, list[Run]]":
    """The only parent run of a working directory's store, and its children."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    found = client.search_runs(["1"])
    (parent,) = [run for run in found if run.data.tags["imgpull.kind"] == "sweep"]
    return parent, [run for run in found if run is not parent]


@functools.cache
def database() -> bytes:
    """A new store's file; making one takes seconds."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        tracking.open_tracker(schema.Tracking(), root)
        return (root / "mlflow.db").read_bytes()


@contextlib.contextmanager
def _in(root: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(root):
        patch.setattr(tracked, "ROOT", root)
        patch.setattr(replaying, "ROOT", root)
        pipeline.git_state.cache_clear()
        # A command begins without what another test has composed.
        known = GlobalHydra.instance().hydra
        GlobalHydra.instance().clear()
        yield
        GlobalHydra.instance().hydra = known


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err
