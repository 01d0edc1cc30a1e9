"""The contract that every engine keeps, whatever it hides: see imgpull/engines/door.py."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from trials import MakeJob

from imgpull import cl2, engines, render, results
from imgpull.config.job import Job
from imgpull.engines import Engine
from imgpull.errors import ImgpullError
from imgpull.render import Bundle
from imgpull.results.record import VERDICTS
from imgpull.results.seen import read_events, read_pods, read_rates

RECORDED = Path(__file__).parent / "data" / "cl2-reports" / "own-2026-two-nodes"
FILES = {"report", "events.jsonl", "pods.csv", "series.csv"}


@dataclass(frozen=True)
class Case:
    """An engine with what it needs to run here."""

    name: str
    job: Callable[[MakeJob], Job]

    def engine(self, job: MakeJob) -> Engine:
        return engines.build(self.job(job))

    def bundle(self, job: MakeJob, directory: Path) -> Bundle | None:
        if not self.engine(job).renders:
            return None
        return render.write(render.render(self.job(job)), directory)


CASES = (
    Case("sim", lambda job: job("image=resource_consumer", "nodes=2", "deployments=2")),
    Case("replay", lambda job: job("engine=replay", f"engine.report={RECORDED}")),
)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def quiet(step: str) -> None:
    """Nobody listens."""


def test_it_says_what_its_trial_is_about_before_anything_runs(case: Case, job: MakeJob) -> None:
    engine = case.engine(job)
    assert len(engine.subject.cell_id) == 12
    assert engine.subject.label
    assert engine.subject.fingerprint["engine"] == case.name
    assert case.engine(job).subject == engine.subject
    standing = {"deployments", "replicas", "qps", "nodes", "image", "cluster", "cache"}
    assert standing <= set(engine.subject.factors)


def test_check_and_validate_leave_nothing_behind(
    case: Case, job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    engine, bundle = case.engine(job), case.bundle(job, tmp_path / "bundle")
    before = sorted(tmp_path.rglob("*"))
    engine.check()
    if bundle is not None:
        engine.validate(render.read(bundle))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_leaves_the_files_of_the_door_and_no_others(
    case: Case, job: MakeJob, tmp_path: Path
) -> None:
    engine, out = case.engine(job), tmp_path / "out"
    out.mkdir()
    said: list[str] = []
    outcome = engine.run(case.bundle(job, tmp_path / "bundle"), out, said.append)
    assert {path.name for path in out.iterdir()} <= FILES
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "bundle"}
    assert said
    assert outcome.measured_by
    assert outcome.started_at is not None
    assert outcome.started_at.utcoffset() == timedelta(0)
    report = cl2.read_report(out / "report")
    assert report.junit is not None
    assert report.pod_startup
    read_events(out / "events.jsonl"), read_pods(out / "pods.csv"), read_rates(out / "series.csv")


def test_what_it_leaves_is_judged_by_one_path(case: Case, job: MakeJob, tmp_path: Path) -> None:
    engine, out = case.engine(job), tmp_path / "out"
    out.mkdir()
    outcome = engine.run(case.bundle(job, tmp_path / "bundle"), out, quiet)
    found = results.assess(out, engine.subject, outcome)
    assert found.verdict in VERDICTS
    assert (out / "pulls.csv").exists()
    assert (out / "measurements.csv").exists()


def test_two_runs_of_one_engine_leave_the_same_bytes(
    case: Case, job: MakeJob, tmp_path: Path
) -> None:
    engine, bundle = case.engine(job), case.bundle(job, tmp_path / "bundle")
    left: list[dict[Path, bytes]] = []
    for side in "ab":
        out = tmp_path / side
        out.mkdir()
        engine.run(bundle, out, quiet)
        files = (path for path in out.rglob("*") if path.is_file())
        left.append({path.relative_to(out): path.read_bytes() for path in files})
    assert left[0] == left[1] != {}


def without_layers(make: MakeJob, tmp_path: Path) -> Job:
    plain = make()
    return replace(plain, image=replace(plain.image, layers=()))


def unknown_rate(make: MakeJob, tmp_path: Path) -> Job:
    plain = make()
    return replace(plain, engine=replace(plain.engine, rates={"gzip": 1.0}))


def no_directory(make: MakeJob, tmp_path: Path) -> Job:
    return make("engine=replay", f"engine.report={tmp_path / 'gone'}")


def no_report(make: MakeJob, tmp_path: Path) -> Job:
    (tmp_path / "notes.txt").write_text("no report")
    return make("engine=replay", f"engine.report={tmp_path}")


def torn_report(make: MakeJob, tmp_path: Path) -> Job:
    shutil.copytree(RECORDED, tmp_path / "torn")
    (tmp_path / "torn" / "junit.xml").write_text("<testsuite")
    return make("engine=replay", f"engine.report={tmp_path / 'torn'}")


def torn_events(make: MakeJob, tmp_path: Path) -> Job:
    shutil.copytree(RECORDED, tmp_path / "torn")
    (tmp_path / "torn" / "events.jsonl").write_text('{"kind": "Event"')
    return make("engine=replay", f"engine.report={tmp_path / 'torn'}")


@pytest.mark.parametrize(
    "broken", [without_layers, unknown_rate, no_directory, no_report, torn_report, torn_events]
)
def test_what_cannot_run_is_refused_by_check_with_an_error_of_ours(
    job: MakeJob, tmp_path: Path, broken: Callable[[MakeJob, Path], Job]
) -> None:
    with pytest.raises(ImgpullError) as refused:
        engines.build(broken(job, tmp_path)).check()
    assert refused.value.hint


def test_a_simulator_without_a_bundle_says_so(job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(ImgpullError, match="no bundle"):
        engines.build(job()).run(None, tmp_path, quiet)


@pytest.mark.parametrize("gone", ["image-pull.yaml", "deployment.yaml", "overrides.yaml"])
def test_a_bundle_that_lacks_a_file_is_refused_with_an_error_of_ours(
    job: MakeJob, tmp_path: Path, gone: str
) -> None:
    engine, bundle = engines.build(job()), render.write(render.render(job()), tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(ImgpullError, match=gone):
        engine.validate(render.read(bundle))
    with pytest.raises(ImgpullError, match=gone):
        engine.run(bundle, tmp_path / "out", quiet)
