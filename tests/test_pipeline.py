"""One job leaves one complete directory, whatever breaks in it; its provenance can be checked."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imgpull import engines, pipeline, render, results
from imgpull.config.job import Job
from imgpull.engines import Outcome, Say, Subject
from imgpull.errors import EngineFailed, ReportError
from imgpull.pipeline import Place, read_resolved, run_job, trial_id
from imgpull.render import Bundle
from imgpull.results.record import JobRecord, read_record

Compose = Callable[..., dict[str, Any]]
MakeJob = Callable[..., Job]
SMALL = ("image=resource_consumer", "nodes=2", "deployments=2")
FACTORS = {"replicas": 1, "cluster.node.nic_mbit_s": 5000}


class ScriptedEngine:
    """An engine that does what a test says, behind the door that all engines share."""

    renders = True

    def __init__(self, job: Job, act: Callable[[Path], None]) -> None:
        self.subject: Subject = engines.subject_of(job)
        self._act = act

    def check(self) -> None:
        """Always here."""

    def validate(self, files: Mapping[str, str]) -> None:
        """Runs anything."""

    def run(self, bundle: Bundle | None, out: Path, say: Say) -> Outcome:
        """Act as scripted, with the step told."""
        say("acting")
        self._act(out)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        return Outcome("a script", at, versions={"containerd": "9.9"}, digests={"helper": "sha"})


@pytest.fixture
def values(compose: Compose) -> dict[str, Any]:
    return compose(*SMALL)


@pytest.fixture
def small(job: MakeJob) -> Job:
    return job(*SMALL)


def place(directory: Path, **other: Any) -> Place:
    return Place(directory / "0", "r1", "cell", FACTORS, **other)


def run(job: Job, values: Mapping[str, Any], where: Place, say: Say = lambda _: None) -> JobRecord:
    """The job, rendered and run."""
    return run_job(job, values, render.render(job), where, say)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fail(error: BaseException) -> Callable[..., Any]:
    """A function that raises this, whatever it is given."""

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    return broken


def test_a_job_leaves_every_file_of_the_design(
    small: Job, values: dict[str, Any], tmp_path: Path
) -> None:
    record = run(small, values, place(tmp_path))
    assert record.verdict == "valid", record.reasons
    assert {path.name for path in (tmp_path / "0").iterdir()} == {
        "bundle", "config.resolved.yaml", "events.jsonl", "flags.csv", "job.json",
        "measurements.csv", "pods.csv", "pulls.csv", "report", "run.log", "series.csv",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "0/bundle").iterdir()} == set(render.FILES)


def test_the_record_is_what_the_file_says(
    small: Job, values: dict[str, Any], tmp_path: Path
) -> None:
    where = place(tmp_path, block=2, position=7, attempt=3)
    record = run(replace(small, trial=2), {**values, "trial": 2}, where)
    assert read_record(tmp_path / "0") == record
    assert (record.cell_id, record.trial_id) == ("cell", "cell-t2")
    assert (record.trial, record.block, record.position, record.attempt) == (2, 2, 7, 3)
    assert (record.name, record.factors) == ("r1", FACTORS)


def test_hashes_are_those_of_the_files(small: Job, values: dict[str, Any], tmp_path: Path) -> None:
    record = run(small, values, place(tmp_path))
    directory = tmp_path / "0"
    assert record.config_sha256 == sha256(directory / "config.resolved.yaml")
    bundle = {name: (directory / "bundle" / name).read_text() for name in render.FILES}
    assert record.bundle_sha256 == render.bundle_sha256(bundle)


def test_the_record_says_with_what_and_where_it_was_made(
    small: Job, values: dict[str, Any], tmp_path: Path
) -> None:
    record = run(replace(small, seed=11), {**values, "seed": 11}, place(tmp_path))
    assert record.seed == 11
    assert record.versions["python"] == sys.version.split()[0]
    assert {"imgpull", "hydra-core", "mlflow", "numpy"} <= set(record.versions)
    assert record.versions["containerd"] == small.cluster.containerd_version
    assert set(record.git) == {"revision", "dirty"}
    assert record.host["name"]
    assert "simulated" in record.measured_by
    assert record.fingerprint["vm_size"] == small.cluster.node.vm_size


def test_an_engine_adds_its_versions_and_digests(
    small: Job, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "build", lambda job: ScriptedEngine(job, lambda out: None))
    record = run(small, values, place(tmp_path))
    assert record.measured_by == "a script"
    assert record.versions["containerd"] == "9.9"
    assert record.digests == {"image": small.image.digest, "helper": "sha"}
    assert record.started_at == "2026-01-01T00:00:00+00:00"


def test_steps_are_told_and_logged_with_the_time(
    small: Job, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "build", lambda job: ScriptedEngine(job, lambda out: None))
    told: list[str] = []
    run(small, values, place(tmp_path), told.append)
    assert told[:2] == ["starting", "acting"]
    lines = (tmp_path / "0/run.log").read_text().splitlines()
    stamps, steps = zip(*(line.split(" ", 1) for line in lines[:2]), strict=True)
    assert list(steps) == told[:2]
    assert all(datetime.fromisoformat(stamp).tzinfo for stamp in stamps)


BREAKS: dict[str, Callable[[pytest.MonkeyPatch, Exception], None]] = {
    "building the engine": lambda patch, error: patch.setattr(engines, "build", fail(error)),
    "writing the bundle": lambda patch, error: patch.setattr(render, "write", fail(error)),
    "running": lambda patch, error: patch.setattr(
        engines, "build", lambda job: ScriptedEngine(job, fail(error))
    ),
    "judging": lambda patch, error: patch.setattr(results, "assess", fail(error)),
}


@pytest.mark.parametrize("step", BREAKS)
def test_whatever_breaks_is_a_failed_trial_with_its_reason(
    small: Job,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    BREAKS[step](monkeypatch, ZeroDivisionError("a bug"))
    record = run(small, values, place(tmp_path))
    assert read_record(tmp_path / "0") == record
    assert (record.verdict, record.reasons) == ("failed", ("ZeroDivisionError: a bug",))
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("ZeroDivisionError", "a bug")
    assert record.error.traceback.splitlines()[-1] == "ZeroDivisionError: a bug"
    assert "in broken" in record.error.traceback
    assert record.error.traceback in (tmp_path / "0/run.log").read_text()
    # What a broken trial was is still known: it is a row of the comparison.
    assert (record.cell_id, record.factors) == ("cell", FACTORS)
    assert record.config_sha256 == sha256(tmp_path / "0/config.resolved.yaml")


def test_an_error_of_ours_is_its_message_with_the_hint_apart(
    small: Job, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = EngineFailed("clusterloader2 exited 1", hint="read run.log")
    BREAKS["running"](monkeypatch, error)
    record = run(small, values, place(tmp_path))
    assert record.reasons == ("clusterloader2 exited 1",)
    assert record.error is not None
    assert (record.error.type, record.error.hint) == ("EngineFailed", "read run.log")


def test_an_interrupted_trial_has_no_record(
    small: Job, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ScriptedEngine(small, fail(KeyboardInterrupt()))
    monkeypatch.setattr(engines, "build", lambda job: script)
    with pytest.raises(KeyboardInterrupt):
        run(small, values, place(tmp_path))
    assert not (tmp_path / "0/job.json").exists()


def test_only_a_record_that_cannot_be_written_raises(
    small: Job, values: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "0").write_text("a file in the way")
    with pytest.raises(OSError, match="exists"):
        run(small, values, place(tmp_path))


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())
        | st.floats(allow_nan=False),
        max_size=5,
    )
)  # fmt: skip
def test_the_resolved_configuration_is_read_back_as_it_was(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        text = pipeline._write_resolved(values, Path(directory))
        assert read_resolved(Path(directory)) == values
        assert (Path(directory) / pipeline.RESOLVED).read_bytes() == text.encode()
        assert yaml.safe_load(text) == values  # and by whoever has no libyaml


@pytest.mark.parametrize("text", [None, "[1, 2", "- a\n- b\n", b"\xff\xfe\xfd"])
def test_a_snapshot_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes | None) -> None:
    if text is not None:
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / pipeline.RESOLVED).write_bytes(content)
    with pytest.raises(ReportError, match=r"config\.resolved\.yaml"):
        read_resolved(tmp_path)


def test_a_trial_keeps_its_name_over_all_attempts() -> None:
    assert trial_id("abc", 2) == "abc-t2"


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_git_state_is_that_of_the_checkout_and_unknown_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "imgpull"
    package.mkdir()
    monkeypatch.setattr(pipeline, "__file__", str(package / "pipeline.py"))

    def state() -> Mapping[str, Any]:
        pipeline.git_state.cache_clear()
        return pipeline.git_state()

    assert state() == {"revision": None, "dirty": None}
    git(tmp_path, "init", "-q")
    (package / "pipeline.py").write_text("one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    assert state() == {"revision": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (package / "pipeline.py").write_text("two")
    assert state()["dirty"] is True
    monkeypatch.setenv("PATH", "")  # no git program at all
    assert state() == {"revision": None, "dirty": None}
    pipeline.git_state.cache_clear()


def test_job_json_is_plain_json_that_any_tool_reads(
    small: Job, values: dict[str, Any], tmp_path: Path
) -> None:
    run(small, values, place(tmp_path))
    read = json.loads((tmp_path / "0/job.json").read_text())
    assert set(read) >= {
        "schema", "cell_id", "trial_id", "attempt", "trial", "block", "position", "factors",
        "engine", "measured_by", "started_at", "wall_s", "virtual_s", "verdict", "reasons", "slo",
        "error", "fingerprint", "versions", "digests", "seed", "bundle_sha256", "config_sha256",
        "git",
    }  # fmt: skip
