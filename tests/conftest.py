"""What many tests start from: a composed configuration and the Job it becomes.

Hides Hydra's global state: each composition enters and leaves it, so no test can leak it.
"""

import os
import re
import signal
from collections.abc import Callable, Generator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import settings

from imgpull.config import job as jobs
from imgpull.config import schema

if TYPE_CHECKING:
    from apiserver import ApiServer
    from clouds import Azure

    from imgpull.cluster.kube import Kube

ROOT = Path(__file__).parents[1]
# Two busy cores make single examples slow now and then: a deadline would only flicker. CI tries the
# same examples each time, so that what it refuses is the change; new ones are found at the desk.
settings.register_profile("imgpull", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("imgpull")


# Workers of xdist ignore Ctrl-C, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every program is installed (CI sets IMGPULL_NO_SKIP), a skipped test has failed."""
    report = yield
    # No package index that CI reaches has Terraform.
    spared = "no terraform on PATH" in str(report.longrepr)
    if report.skipped and not spared and os.environ.get("IMGPULL_NO_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


Compose = Callable[..., dict[str, Any]]
Changed = Callable[[dict[str, Any]], dict[str, Any]]
MakeJob = Callable[..., jobs.Job]


@cache  # a composition takes 0.1 s
def _composed(*overrides: str) -> dict[str, Any]:
    schema.register()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        return jobs.resolve(hydra_compose("config", overrides=list(overrides)))


@cache
def _job(*overrides: str) -> jobs.Job:
    return jobs.job_from(_composed(*overrides))


@pytest.fixture(scope="session")
def compose() -> Compose:
    """compose(*overrides): the resolved configuration, a copy of its own for each caller."""
    return lambda *overrides: deepcopy(_composed(*overrides))


@pytest.fixture(scope="session")
def job() -> MakeJob:
    """job(*overrides): the frozen Job that the overrides ask for."""
    return _job


@pytest.fixture(scope="session")
def changed(compose: Compose) -> Changed:
    """changed({"image.layers[0].compression": "zstd"}): the default configuration but for that.

    Behind Hydra's back, so that values arrive which Hydra would have refused; and much faster.
    """

    def default_but(changes: dict[str, Any]) -> dict[str, Any]:
        values = compose()
        for key, value in changes.items():
            *path, last = [int(p) if p.isdigit() else p for p in re.findall(r"\w+", key)]
            place: Any = values
            for part in path:
                place = place[part]
            place[last] = value
        return values

    return default_but


@pytest.fixture
def apiserver() -> "Generator[ApiServer, None, None]":
    """A Kubernetes API on a loopback port; what broke in its handlers fails the test."""
    from apiserver import ApiServer  # half a second: only for tests of real clusters

    with ApiServer() as server:
        yield server
    if server.errors:
        raise server.errors[0]


@pytest.fixture
def kube(apiserver: "ApiServer") -> "Generator[Kube, None, None]":
    """A client of `apiserver`."""
    client = apiserver.kube()
    yield client
    client.close()


@pytest.fixture
def azure(apiserver: "ApiServer", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Azure":
    """An Azure without anything of ours, and three Ready nodes as soon as a cluster is there."""
    from aks import Aks
    from clouds import Azure

    Aks(apiserver, nodes=3)
    return Azure(tmp_path, apiserver, monkeypatch)
