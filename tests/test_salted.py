"""cache=salted: each trial's image is its own, is there while it runs, and goes afterwards."""

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from acting import FITS, Acting, kubeconfig
from apiserver import ApiServer
from commands import run_py, verdicts
from registries import Registry
from standins import REPORTS, clusterloader
from trials import MakeJob

from imgpull import engines, render
from imgpull.cluster.registry import inspect
from imgpull.config import job as jobs
from imgpull.config.job import Job
from imgpull.engines import Execution, Outcome
from imgpull.engines.real import RealEngine
from imgpull.engines.running import Request, extra_files
from imgpull.engines.running import dialect_of as dialect
from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable
from imgpull.images import pushing, shape
from imgpull.images.building import build
from imgpull.images.salted import Salt
from imgpull.render import OVERRIDES, load, object_manifest
from imgpull.sweep.forecasting.overheads import overheads

LAYERS = ("image.layers=[{compressed_bytes: 60kB, unpacked_bytes: 150kB},"
          "{compressed_bytes: 20kB, unpacked_bytes: 50kB, compression: zstd}]")  # fmt: skip
MANIFESTS = r"/v2/salted/manifests/.+"


@pytest.fixture(autouse=True)
def no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        yield server


class Trials:
    """Trials of one job on a stand-in cluster."""

    def __init__(self, job: Job, cluster: Acting, registry: Registry, directory: Path) -> None:
        self.job, self.cluster, self.registry = job, cluster, registry
        self.directory, self.said = directory, list[str]()
        self.seen: list[Any] = []  # what the registry had when the load began
        cluster.api.on_create("Namespace", self._look)

    def run(self, trial: str = "cell-t1", attempt: int = 1) -> Outcome:
        out = self.directory / f"{trial}-{attempt}"
        out.mkdir()
        bundle = render.write(render.render(self.job), out / "bundle")
        with engines.session([self.job], "a-sweep", lambda *_, **__: None, self.said.append) as on:
            self.engine = on.engine(self.job, Execution("a-sweep", trial, attempt))
            return self.engine.run(bundle, out, self.said.append)

    def _look(self, made: Any) -> None:
        if made["metadata"]["name"].startswith("ip") and (tags := self.tags()):
            self.seen.append(inspect(f"{self.registry.server}/salted:{tags[0]}", download=True))

    def tags(self) -> list[str]:
        """What of the repository has a manifest."""
        return self.registry.tagged("salted")


@pytest.fixture
def trials(
    apiserver: ApiServer, job: MakeJob, registry: Registry, tmp_path: Path
) -> Trials:  # fmt: skip
    cluster = Acting(apiserver)
    report = REPORTS / "own-2026-two-nodes"
    program = clusterloader(tmp_path / "bin", act="replay", report=str(report))
    access = kubeconfig(cluster.api, tmp_path, "a-token")
    asked = job(
        *FITS, "engine=binary", f"engine.path={program.path}", f"engine.kubeconfig={access}",
        "engine.settle=1ms", "cache=salted", f"engine.salted_repository={registry.server}/salted",
        LAYERS,
    )  # fmt: skip
    return Trials(asked, cluster, registry, tmp_path)


def test_an_image_of_the_asked_shape_is_there_while_a_trial_runs_and_gone_afterwards(
    trials: Trials,
) -> None:
    outcome = trials.run()
    (held,) = trials.seen
    assert [(x.compressed_bytes, x.compression) for x in held.layers] == [
        (60_000, "gzip"), (20_000, "zstd"),
    ]  # fmt: skip
    subject = trials.engine.subject
    assert subject.image_digest == held.digest
    assert subject.image_reference == f"{held.reference}@{held.digest}"
    assert trials.tags() == []
    assert "image" in outcome.observed["stages_s"]


def test_no_privileged_pod_is_needed_to_have_it_cold(trials: Trials) -> None:
    made: list[Any] = []
    trials.cluster.api.on_create("DaemonSet", made.append)
    outcome = trials.run()
    assert made == []
    assert list(outcome.held.values()) == ["cold", "cold"]


def test_no_two_attempts_share_a_layer(trials: Trials) -> None:
    trials.run()
    trials.run(attempt=2)
    trials.run("cell-t2")
    assert len({layer.digest for held in trials.seen for layer in held.layers}) == 6


def test_a_directory_that_is_used_again_makes_other_images(trials: Trials) -> None:
    trials.run()
    shutil.rmtree(trials.directory / "cell-t1-1")
    trials.run()
    assert len({layer.digest for held in trials.seen for layer in held.layers}) == 4


def test_a_salt_is_no_part_of_a_cell_s_identity(trials: Trials) -> None:
    asked = trials.job
    elsewhere = replace(asked, engine=replace(asked.engine, salted_repository="reg.io/else"))
    assert jobs.cell_id(asked) == jobs.cell_id(elsewhere)
    trials.run()
    assert trials.engine.subject.cell_id == jobs.cell_id(asked)


def test_the_image_of_a_broken_trial_goes_too(trials: Trials) -> None:
    clusterloader(trials.directory / "bin", act="nothing")
    with pytest.raises(EngineFailed):
        trials.run()
    assert trials.seen
    assert trials.tags() == []


def test_what_a_killed_attempt_left_goes_when_the_next_begins(trials: Trials) -> None:
    for trial in ("cell-t1", "cell-t2"):
        salt = Salt("a-sweep", trial, 1)
        reference = f"{trials.registry.server}/salted:{salt.tag}"
        with pushing.Destination(reference) as target:
            build(shape.like(trials.job.image), str(salt), target)
    assert len(trials.tags()) == 2
    trials.run(attempt=2)
    assert trials.tags() == [Salt("a-sweep", "cell-t2", 1).tag]


def test_an_image_that_cannot_be_deleted_costs_no_trial_and_is_told(trials: Trials) -> None:
    trials.registry.delete = False
    outcome = trials.run()
    assert any("was not deleted" in remark.text for remark in outcome.remarks)
    assert {remark.verdict for remark in outcome.remarks if "deleted" in remark.text} == {"valid"}


def test_a_repository_that_cannot_be_written_to_is_found_before_the_first_trial(
    trials: Trials,
) -> None:
    findings = engines.build(trials.job).findings  # type: ignore[attr-defined]
    (found,) = [each for each in findings() if each.check == "salted image"]
    assert found.state == "ok"
    assert "80 kB in 2 layers" in found.message
    trials.registry.script(r"/v2/salted/blobs/uploads/", (403, {}))
    with pytest.raises(EngineUnavailable, match="does not let an anonymous user write to salted"):
        engines.build(trials.job).check()


@pytest.mark.parametrize(
    ("told", "is_warned"), [({"exp": 1893456000}, True), ({}, False), ("no token", False)]
)
def test_a_login_that_ends_is_told_before_the_first_trial(
    trials: Trials, told: object, is_warned: bool
) -> None:
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=")
             for each in ({"alg": "RS256"}, told)]  # fmt: skip
    login = {"auths": {trials.registry.server: {"identitytoken": ".".join([*parts, "signed"])}}}
    (trials.directory / "config.json").write_text(json.dumps(login))
    findings = RealEngine(trials.job).findings()
    found = [each for each in findings if each.check == "salted image" and each.state == "warning"]
    assert bool(found) == is_warned
    for each in found:
        assert "ends at 2030-01-01 00:00 UTC" in each.message
        assert "az acr login" in each.fix


# -------------------------------------------------------------------------- bundle and request


def test_a_bundle_names_no_salt_and_the_engine_s_overrides_do(trials: Trials) -> None:
    files = render.render(trials.job)
    assert files == render.render(replace(trials.job, trial=2))
    assert "CL2_SALTED_IMAGE" in files["deployment.yaml"]
    assert _image(files) == trials.job.image.pinned_reference
    request = Request(
        Path(), Path(), Path(), None, "aks", 2, "ip1", 60.0, str, None, salted_image="reg.io/x:1"
    )
    known = dialect("  --testconfig\n  --report-dir\n  --provider\n", "it")
    (told,) = extra_files(request, known).values()
    assert told == 'CL2_SALTED_IMAGE: "reg.io/x:1"\n'
    # Later overrides win, as in CL2.
    kept = "".join(
        line for line in files[OVERRIDES].splitlines(keepends=True) if "CL2_SALTED" not in line
    )
    assert _image({**files, OVERRIDES: kept + told}) == "reg.io/x:1"


def _image(files: dict[str, str]) -> str:
    (bundled,) = [
        each
        for step in load(files).steps
        for phase in step.phases
        for each in phase.objects
        if phase.objects
    ][:1]
    manifest = object_manifest(bundled, 0, "namespace")
    image: str = manifest["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_the_bundle_of_every_other_cache_is_as_it_was(job: MakeJob) -> None:
    assert "SALTED" not in "".join(render.render(job("cache=cold")).values())


@pytest.mark.parametrize(("overrides", "words"), [
    ((), "engine.salted_repository is null"),
    (("engine.salted_repository=reg.io/salted:1",), "is not registry/repository"),
    (("engine.salted_repository=salted",), "is not registry/repository"),
])  # fmt: skip
def test_a_real_engine_must_be_told_where_it_may_push(
    job: MakeJob, overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match="salted") as raised:
        job("engine=binary", "cache=salted", *overrides)
    assert words in str(raised.value)


# --------------------------------------------------------------------------------- simulated


def test_the_simulator_pulls_a_salted_image_as_a_cold_one(tmp_path: Path) -> None:
    small = ("image=resource_consumer", "nodes=2", "deployments=2", "tracking=none")
    ended = run_py(tmp_path, "-m", *small, "cache=cold,salted")
    assert ended.status == 0, ended.err
    sweep = ended.sweep
    assert verdicts(sweep) == ["valid", "valid"]
    rows = [(sweep / name / "pulls.csv").read_text() for name in ("0", "1")]
    assert rows[0] == rows[1]
    assert ",cold,pulled," in rows[0]


def test_a_plan_says_what_is_pushed_and_reckons_with_the_time_of_it(
    job: MakeJob, tmp_path: Path
) -> None:
    ended = run_py(
        tmp_path, "-m", "engine=binary", "image=pytorch_large", "until=plan", "trials=2",
        "engine.salted_repository=reg.io/salted", "cache=cold,salted",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    told = " ".join(ended.out.split())
    # 6.55 GB compressed, 15 GB unpacked at 100 MB/s.
    assert "salted: 13.1 GB in 2 images are pushed into the registry, at most 6.55 GB" in told
    steps = {cache: overheads(job("engine=binary", "image=pytorch_large", f"cache={cache}",
                                  "engine.salted_repository=reg.io/salted"))[0]
             for cache in ("cold", "salted")}  # fmt: skip
    assert steps["salted"].took_s == pytest.approx(15e9 / 100e6)
    assert steps["cold"].took_s < 60
