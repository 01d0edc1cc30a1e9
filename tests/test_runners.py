"""Laws of running ClusterLoader2 on this machine: it is followed, it ends in time, nothing stays.

The programs are stand-ins (tests/programs) that hang, crash, ignore TERM or print what they should
not; each law holds for an executable and for an image in docker alike, unless its name says which.
"""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from standins import (
    REPORTS,
    ClusterLoader,
    Docker,
    clusterloader,
    docker,
    eventually,
    is_running,
)

from imgpull.engines.process import BinaryRunner, DockerRunner
from imgpull.engines.running import Request, Runner, Stack, silent
from imgpull.errors import EngineFailed, EngineUnavailable, RenderError

TOKEN = "eyJhbGciOiJSUzI1NiJ9.planted.token"
RECORDED = REPORTS / "own-2026-two-nodes"
IMAGE = "ghcr.io/azure/clusterloader2:v20250513"
BINARY, DOCKER = "binary", "docker"


class Ground:
    """A stand-in of CL2, a runner of it, and a request."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.directory = kind, directory / "job"
        self.cl2 = ClusterLoader(directory / "cl2")
        self.docker = Docker(directory / "docker")
        self.kubeconfig = directory / "kubeconfig"

    def prepare(self) -> "Ground":
        """Put everything in its place."""
        clusterloader(self.cl2.directory)
        docker(self.docker.directory, self.cl2.path, images=[IMAGE])
        self.kubeconfig.write_text(f"users:\n- user: {{token: {TOKEN}}}\n", encoding="utf-8")
        for name in ("bundle", "report"):
            (self.directory / name).mkdir(parents=True)
        for name in ("image-pull.yaml", "deployment.yaml", "overrides.yaml"):
            (self.directory / "bundle" / name).write_text("{}\n", encoding="utf-8")
        return self

    @property
    def log(self) -> str:
        return (self.directory / "run.log").read_text("utf-8")

    @property
    def reported(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.directory / "report").iterdir()}

    def runner(self, **options: Any) -> Runner:
        options = {"grace_s": 0.3, **options}
        if self.kind == BINARY:
            return BinaryRunner(str(self.cl2.path), **options)
        return DockerRunner(str(self.docker.path), IMAGE, None, **options)

    def request(self, **changes: Any) -> Request:
        values: dict[str, Any] = {
            "bundle": self.directory / "bundle", "report": self.directory / "report",
            "log": self.directory / "run.log", "kubeconfig": self.kubeconfig, "provider": "aks",
            "nodes": 2, "namespace_prefix": "ip0123456789", "limit_s": 20.0,
            "redact": lambda text: text.replace(TOKEN, "REDACTED"),
            "stack": Stack(10257, 1, None, {"containerd.yaml": "kind: ServiceMonitor\n"}),
            "labels": {"imgpull.dev/sweep": "s1"},
        }  # fmt: skip
        return Request(**{**values, **changes})

    def nothing_stays(self) -> bool:
        pids = [each["pid"] for each in self.cl2.starts]
        return not self.docker.containers and not any(map(is_running, pids))


# Docker's twin of each law takes a dozen commands of the stand-in; its own laws are below.
@pytest.fixture(params=[BINARY, pytest.param(DOCKER, marks=pytest.mark.slow)])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Ground:
    return Ground(request.param, tmp_path).prepare()


@pytest.fixture
def binary(tmp_path: Path) -> Ground:
    return Ground(BINARY, tmp_path).prepare()


@pytest.fixture
def dockered(tmp_path: Path) -> Ground:
    return Ground(DOCKER, tmp_path).prepare()


# ------------------------------------------------------------------------------- what comes back


@pytest.mark.parametrize("code", [0, 1])
def test_the_report_is_cl2s_own_and_the_users_whatever_the_exit_code(
    ground: Ground, code: int
) -> None:
    ground.cl2.behave(act="replay", report=str(RECORDED), code=code)
    told: list[str] = []
    ended = ground.runner().run(ground.request(), told.append)
    assert (ended.exit_code, ended.timed_out) == (code, False)
    expected = {path.name: path.read_bytes() for path in RECORDED.iterdir()}
    del expected["run.log"]
    assert ground.reported == expected
    for path in (ground.directory / "report").iterdir():
        assert path.stat().st_uid == os.getuid()
        assert path.stat().st_mode & stat.S_IRUSR
    assert "step 2: create" in told
    assert ground.nothing_stays()


def test_what_cl2_was_given_is_what_was_asked_for(ground: Ground) -> None:
    ground.runner().run(ground.request(flags=["--prometheus-ready-timeout=9m"]), silent)
    (start,) = ground.cl2.starts
    assert "--nodes=2" in start["argv"]
    assert "--overwrite-test-config=Namespace.Prefix=ip0123456789" in start["argv"]
    assert start["argv"][-1] == "--prometheus-ready-timeout=9m"


def test_the_log_tells_how_cl2_was_started(ground: Ground) -> None:
    ground.runner().run(ground.request(), silent)
    assert "--provider=aks" in ground.log.splitlines()[0]


def test_a_run_that_reports_nothing_ends_like_any_other(ground: Ground) -> None:
    ground.cl2.behave(act="nothing")
    ended = ground.runner().run(ground.request(), silent)
    assert ended.exit_code == 0
    assert ground.reported == {}


def test_a_crash_half_way_tells_step_and_reason(ground: Ground) -> None:
    ground.cl2.behave(act="crash")
    ended = ground.runner().run(ground.request(), silent)
    assert ended.exit_code == 2
    assert (ended.step, ended.said[:22]) == ("Begun", "panic: runtime error: ")
    assert "goroutine 1 [running]:" in ended.tail
    assert ground.nothing_stays()


def test_a_prometheus_that_never_comes_up_names_the_target(ground: Ground) -> None:
    ground.cl2.behave(act="prometheus")
    told: list[str] = []
    ended = ground.runner().run(ground.request(), told.append)
    assert ended.exit_code == 1
    assert "Error while setting up prometheus stack" in ended.story()
    assert "5/6 targets are ready, example not ready target" in ended.story()
    assert told[-1] == "waiting for Prometheus: 5 of 6 targets up"


def test_output_that_is_no_text_harms_nothing(ground: Ground) -> None:
    ground.cl2.behave(act="garbage")
    assert ground.runner().run(ground.request(), silent).exit_code == 0
    assert "not text" in ground.log


def test_an_output_of_many_megabytes_passes_without_being_kept(ground: Ground) -> None:
    ground.cl2.behave(act="huge", megabytes=4)
    ended = ground.runner().run(ground.request(), silent)
    assert ended.exit_code == 0
    assert (ground.directory / "run.log").stat().st_size > 4 * 10**6
    assert len(ended.tail) < 10_000


# ------------------------------------------------------------------------------------- secrets


def test_no_secret_is_in_the_directory_whatever_cl2_prints(ground: Ground) -> None:
    ground.cl2.behave(act="secrets", secret=TOKEN)
    ground.runner().run(ground.request(), silent)
    assert "Bearer REDACTED" in ground.log
    for path in (path for path in ground.directory.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in path.read_bytes(), path
    assert "users:" not in ground.log


def test_docker_is_never_told_a_secret_on_its_command_line(
    dockered: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy")
    dockered.runner().run(dockered.request(), silent)
    told = json.dumps(dockered.docker.commands)
    assert TOKEN not in told
    assert "hunter2" not in told
    assert '"--env", "HTTPS_PROXY"' in told


def test_the_users_environment_does_not_reach_the_test(
    binary: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CL2_OPERATION_TIMEOUT", "1m")
    monkeypatch.setenv("KUBECONFIG", "/elsewhere")
    assert binary.runner().run(binary.request(), silent).exit_code == 0
    names = binary.cl2.starts[0]["environment"]
    assert not {"CL2_OPERATION_TIMEOUT", "KUBECONFIG"} & set(names)
    assert "left out of its environment: CL2_OPERATION_TIMEOUT, KUBECONFIG" in binary.log


# ---------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("ignores_term", [False, True])
def test_a_run_that_hangs_is_stopped_at_its_limit(ground: Ground, ignores_term: bool) -> None:
    ground.cl2.behave(act="hang", ignores_term=ignores_term)
    runner = ground.runner()
    runner.check()
    begun = time.monotonic()
    ended = runner.run(ground.request(limit_s=1.0), silent)
    assert ended.timed_out
    assert ended.exit_code is None
    assert ended.wall_s >= 1.0
    assert time.monotonic() - begun < 20
    assert ended.step == "Hang"
    assert "stopped after" in ended.story()
    assert ground.nothing_stays()


def test_a_child_that_outlives_cl2_is_stopped_too(binary: Ground) -> None:
    binary.cl2.behave(act="child")
    begun = time.monotonic()
    assert binary.runner().run(binary.request(), silent).exit_code == 0
    assert time.monotonic() - begun < 20  # of the child's 30 s
    assert not is_running(binary.cl2.child_pid())


def test_an_orphan_that_keeps_the_output_open_does_not_hold_the_run(binary: Ground) -> None:
    binary.cl2.behave(act="orphan", child_s=60)
    begun = time.monotonic()
    ended = binary.runner().run(binary.request(), silent)
    assert ended.exit_code == 0
    assert time.monotonic() - begun < 30
    os.kill(binary.cl2.child_pid(), signal.SIGKILL)


def test_a_quick_run_is_over_at_once(ground: Ground) -> None:
    runner = ground.runner()
    runner.check()
    begun = time.monotonic()
    runner.run(ground.request(), silent)
    # The stand-ins themselves take a tenth of a second for each of docker's seven commands.
    assert time.monotonic() - begun < (1.0 if ground.kind == BINARY else 4.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_leaving_by_an_error_leaves_nothing(ground: Ground, error: type[BaseException]) -> None:
    ground.cl2.behave(act="hang")

    def interrupt(step: str) -> None:
        raise error(step)

    with pytest.raises(error, match="step 1: Hang"):
        ground.runner().run(ground.request(), interrupt)
    assert ground.nothing_stays()


# What the process of a sweep does, for a signal to end it.
SWEEP = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_runners import Ground
ground = Ground({kind!r}, Path({directory!r}))
ground.runner().run(ground.request(), print)
"""


def sweep(ground: Ground) -> "subprocess.Popen[bytes]":
    """A process that runs a hanging CL2; it hangs by now."""
    ground.cl2.behave(act="hang")
    code = SWEEP.format(
        tests=str(Path(__file__).parent), kind=ground.kind, directory=str(ground.directory.parent)
    )
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = ground.directory / "run.log"
    assert eventually(lambda: log.exists() and "[step: 01] Hang" in ground.log, 20)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_ctrl_c_ends_cl2_too(ground: Ground, number: signal.Signals) -> None:
    process = sweep(ground)
    process.send_signal(number)
    assert process.wait(10) != 0
    assert ground.nothing_stays()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a program with its parent")
def test_a_killed_sweep_takes_its_cl2_along(binary: Ground) -> None:
    process = sweep(binary)
    process.kill()
    process.wait()
    assert eventually(binary.nothing_stays)


def test_the_container_of_a_killed_sweep_is_found_and_removed(dockered: Ground) -> None:
    runner = dockered.runner()
    assert isinstance(runner, DockerRunner)
    process = sweep(dockered)
    assert runner.leftovers() == []  # it is wanted as long as its sweep lives
    process.kill()
    process.wait()
    (container,) = runner.leftovers()
    assert container.name in dockered.docker.containers
    assert container.labels["imgpull.dev/sweep"] == "s1"
    assert runner.remove_leftovers() == []
    assert dockered.nothing_stays()


# ---------------------------------------------------------------------------------- before a run


def test_a_dry_run_leaves_nothing_in_the_report(ground: Ground) -> None:
    ground.runner().dry_run(ground.request())
    assert ground.reported == {}
    assert "--dry-run=true" in ground.cl2.starts[0]["argv"]
    assert ground.nothing_stays()


def test_a_test_that_does_not_compile_is_refused_in_cl2s_words(ground: Ground) -> None:
    ground.cl2.behave(refuses="steps[2].phases[0]: Invalid value: -1: must be non-negative")
    with pytest.raises(RenderError, match=r"does not take the test: \[steps\[2\].*non-negative"):
        ground.runner().dry_run(ground.request())
    assert ground.nothing_stays()


def test_a_dry_run_that_breaks_is_no_fault_of_the_test(ground: Ground) -> None:
    runner = ground.runner()
    runner.probe()
    ground.cl2.behave(act="other_program")
    with pytest.raises(EngineFailed, match=r"the dry run failed: clusterloader exited 2"):
        runner.dry_run(ground.request())


def test_another_program_is_no_cl2(ground: Ground) -> None:
    ground.cl2.behave(act="other_program")
    with pytest.raises(EngineUnavailable, match=r"is no ClusterLoader2: .*something else"):
        ground.runner().check()
    assert not ground.docker.containers


@pytest.mark.parametrize("name", ["upstream", "azure"])
def test_the_dialect_is_asked_of_the_program_once(ground: Ground, name: str) -> None:
    ground.cl2.behave(dialect=name)
    runner = ground.runner()
    runner.check()
    assert runner.probe().name == name
    assert runner.probe() is runner.probe()
    runner.run(ground.request(), silent)
    argv = ground.cl2.starts[0]["argv"]
    assert ("--prometheus-scrape-containerd=true" in argv) == (name == "azure")


def test_a_binary_is_known_by_its_content(binary: Ground) -> None:
    before = binary.runner().probe()
    with binary.cl2.path.open("a") as file:
        file.write("# pod_startup create_to_run\n")
    after = binary.runner().probe()
    assert before.digest.startswith("sha256:")
    assert after.digest != before.digest
    binary.cl2.behave(dialect="azure")
    assert after.pod_startup_semantics == "watch"


def test_a_binary_that_is_not_there_is_told_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(
        EngineUnavailable, match=r"engine.path=no-such-cl2 is not on PATH"
    ) as caught:
        BinaryRunner("no-such-cl2").check()
    assert "engine=docker" in caught.value.hint
    with pytest.raises(EngineUnavailable, match="does not exist"):
        BinaryRunner(str(tmp_path / "clusterloader")).check()


def test_a_binary_that_cannot_run_is_told_with_the_fix(binary: Ground) -> None:
    binary.cl2.path.chmod(0o644)
    with pytest.raises(EngineUnavailable, match="is not executable") as caught:
        binary.runner().check()
    assert caught.value.hint.startswith("chmod +x ")
    binary.cl2.path.write_bytes(b"\x7fELF of another machine")
    binary.cl2.path.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="cannot be started: Exec format error"):
        binary.runner().check()


# ---------------------------------------------------------------------------------------- docker


def test_the_report_comes_out_of_the_container_and_the_container_goes(dockered: Ground) -> None:
    dockered.cl2.behave(act="replay", report=str(RECORDED), code=1)
    told: list[str] = []
    ended = dockered.runner().run(dockered.request(), told.append)
    assert ended.exit_code == 1
    assert set(dockered.reported) == {path.name for path in RECORDED.iterdir()} - {"run.log"}
    assert "step 2: create" in told
    assert dockered.nothing_stays()


def test_a_container_that_hangs_is_stopped_at_its_limit(dockered: Ground) -> None:
    dockered.cl2.behave(act="hang")
    ended = dockered.runner().run(dockered.request(limit_s=1.0), silent)
    assert ended.timed_out
    assert dockered.nothing_stays()


def test_an_image_that_is_not_here_is_pulled_and_its_progress_told(dockered: Ground) -> None:
    dockered.docker.set(dockered.cl2.path, images=[])
    told: list[str] = []
    dockered.runner().check(told.append)
    assert told[0] == f"pulling {IMAGE}"
    assert "Pull complete" in told[-1]
    dockered.runner().check(told.append)
    assert sum(command[0] == "pull" for command in dockered.docker.commands) == 1


def test_an_image_is_pinned_by_its_digest_when_there_is_one(dockered: Ground) -> None:
    digest = "sha256:" + "a" * 64
    pinned = f"ghcr.io/azure/clusterloader2@{digest}"
    dockered.docker.set(dockered.cl2.path, digests=[pinned], images=[])
    runner = DockerRunner(str(dockered.docker.path), IMAGE, digest)
    runner.check()
    assert runner.probe().digest == digest
    assert ["pull", pinned] in dockered.docker.commands
    (create,) = [each for each in dockered.docker.commands if each[0] == "create"]
    assert pinned in create


def test_an_image_made_here_is_known_by_its_id(dockered: Ground) -> None:
    assert dockered.runner().probe().digest == "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"down": True}, "does not answer: Cannot connect to the Docker daemon", "start it"),
        ({"pull_fails": True}, "cannot pull .*: .*unauthorized", "login, then: .* pull"),
        ({"images": [IMAGE], "no_entrypoint": True}, "has no entrypoint", "engine.image="),
    ],
)
def test_what_docker_lacks_is_told_with_the_fix(
    dockered: Ground, settings: dict[str, Any], message: str, hint: str
) -> None:
    dockered.docker.set(dockered.cl2.path, **settings)
    with pytest.raises(EngineUnavailable, match=message) as caught:
        dockered.runner().check()
    assert re.search(hint, caught.value.hint)


def test_a_docker_that_is_not_there_is_told_with_the_fix() -> None:
    with pytest.raises(EngineUnavailable, match=r"engine.command=no-docker is not on PATH"):
        DockerRunner("no-docker", IMAGE, None).check()


def test_a_container_that_cannot_be_made_fails_the_trial(dockered: Ground) -> None:
    runner = dockered.runner()
    runner.check()
    dockered.docker.set(dockered.cl2.path, images=[IMAGE], create_fails=True)
    with pytest.raises(EngineFailed, match=r"create: .*no space left on device"):
        runner.run(dockered.request(), silent)


def test_a_container_that_cannot_be_removed_is_named(dockered: Ground) -> None:
    runner = dockered.runner()
    runner.check()
    dockered.docker.set(dockered.cl2.path, images=[IMAGE], rm_fails=True)
    with pytest.raises(EngineFailed, match=r"the container imgpull-[0-9a-f]+ could not") as caught:
        runner.run(dockered.request(), silent)
    assert "rm --force imgpull-" in caught.value.hint


def test_a_lost_connection_stops_the_container(dockered: Ground) -> None:
    runner = dockered.runner()
    runner.check()
    dockered.cl2.behave(act="hang")
    dockered.docker.set(dockered.cl2.path, images=[IMAGE], connection_lost=True)
    ended = runner.run(dockered.request(), silent)
    assert ended.exit_code is None
    assert not ended.timed_out
    assert "the connection to the container was lost" in dockered.log
    assert dockered.nothing_stays()


def test_a_container_out_of_memory_is_told(dockered: Ground) -> None:
    runner = dockered.runner()
    runner.check()
    dockered.docker.set(dockered.cl2.path, images=[IMAGE], oom=True)
    runner.run(dockered.request(), silent)
    assert "the container ran out of memory" in dockered.log
