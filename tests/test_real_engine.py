"""A whole trial of a real engine; ClusterLoader2 and the cluster are stand-ins, all else is not."""

import json
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from acting import FITS, Acting, kubeconfig
from apiserver import ApiServer
from kubeconfigs import answer, plugin, program, write
from standins import REPORTS, clusterloader
from trials import MakeJob

from imgpull import engines, render, results
from imgpull.cluster import prometheus
from imgpull.config.job import Job
from imgpull.engines import Execution, Outcome
from imgpull.errors import EngineFailed, EngineUnavailable
from imgpull.results.seen import read_events, read_pods, read_rates

TOKEN = "a-planted-token-that-nobody-may-write-down"
RECORDED = REPORTS / "own-2026-two-nodes"
MakeTrial = Callable[..., "Trial"]


class Trial:
    """One trial's job, place and stand-ins."""

    def __init__(self, job: Job, cluster: Acting, directory: Path) -> None:
        self.job, self.cluster, self.out = job, cluster, directory / "out"
        self.told: list[str] = []
        self.said: list[str] = []

    def run(self) -> Outcome:
        self.out.mkdir(exist_ok=True)
        bundle = render.write(render.render(self.job), self.out / "bundle")
        with engines.session(
            [self.job], "a-sweep", lambda event, **data: self.told.append(event), self.said.append
        ) as session:
            self.engine = session.engine(self.job, Execution("a-sweep", "cell-t1"))
            return self.engine.run(bundle, self.out, self.said.append)

    def texts(self) -> str:
        """Everything that the trial wrote."""
        return "".join(
            path.read_text("utf-8", "replace") for path in self.out.rglob("*") if path.is_file()
        )


@pytest.fixture
def cluster(apiserver: ApiServer) -> Acting:
    return Acting(apiserver)


@pytest.fixture
def trial(
    cluster: Acting, job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MakeTrial:
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def made(*overrides: str, **behaviour: object) -> Trial:
        # Without the namespaces of the recorded test, which were others.
        report = shutil.copytree(
            RECORDED, tmp_path / "recorded", ignore=shutil.ignore_patterns("generatedConfig*")
        )
        behaviour = {"act": "replay", "report": str(report), **behaviour}
        program = clusterloader(tmp_path / "bin", **behaviour)
        access = kubeconfig(cluster.api, tmp_path, TOKEN)
        asked = job(
            *FITS, "engine=binary", f"engine.path={program.path}", f"engine.kubeconfig={access}",
            "engine.settle=1ms", *overrides,
        )  # fmt: skip
        return Trial(asked, cluster, tmp_path)

    return made


def test_a_trial_leaves_the_files_of_the_door_and_is_judged_by_the_same_path(
    trial: MakeTrial,
) -> None:
    ran = trial()
    outcome = ran.run()
    assert {path.name for path in ran.out.iterdir()} == {
        "bundle", "report", "events.jsonl", "pods.csv", "series.csv", "run.log",
    }  # fmt: skip
    assert len(read_pods(ran.out / "pods.csv")) == 4
    assert len(read_events(ran.out / "events.jsonl")) == 8
    read_rates(ran.out / "series.csv")
    found = results.assess(ran.out, ran.engine.subject, outcome)
    # Its Prometheus has no series: a gap, no more.
    assert found.verdict == "degraded", found.reasons
    assert "no receive rates of 2 of 2 nodes" in found.reasons[0]
    rows = (ran.out / "pulls.csv").read_text().splitlines()
    assert len(rows) == 5
    assert sum(",cold,pulled," in row for row in rows) == 4


def test_a_trial_leaves_nothing_on_the_cluster(trial: MakeTrial) -> None:
    ran = trial()
    ran.run()
    assert ran.cluster.leftovers() == []
    lease = ran.cluster.api.get(
        "/apis/coordination.k8s.io/v1/namespaces/imgpull-system/leases/imgpull"
    )
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""
    assert ran.told[0] == "held"
    assert ran.told[-1] == "given back"


def test_exactly_the_nodes_asked_for_are_measured_while_it_runs(trial: MakeTrial) -> None:
    ran = trial()
    seen: list[int] = []
    ran.cluster.api.on_create("DaemonSet", lambda _: seen.append(len(ran.cluster.measured)))
    ran.run()
    assert seen
    assert set(seen) == {2}


def test_no_credential_is_written_down(trial: MakeTrial) -> None:
    ran = trial()
    outcome = ran.run()
    assert "Success" in (ran.out / "run.log").read_text()
    assert TOKEN not in ran.texts()
    assert TOKEN not in repr(outcome)
    assert TOKEN not in "".join(ran.said)


def test_the_record_says_what_ran_and_what_was_done(trial: MakeTrial) -> None:
    outcome = trial().run()
    assert outcome.observed["dialect"] == "upstream"
    assert outcome.observed["pod_startup_semantics"] == "watch"
    assert outcome.observed["prometheus"] == "created"
    assert outcome.digests["clusterloader"].startswith("sha256:")  # type: ignore[union-attr]
    assert outcome.digests["image_run"] == f"sha256:{'a' * 64}"
    assert set(outcome.held.values()) == {"cold"}
    assert outcome.observed["stages_s"].keys() >= {"cache", "clusterloader", "removing"}
    assert outcome.virtual_s is None


def test_what_hangs_is_stopped_at_the_limit_and_removed(trial: MakeTrial) -> None:
    ran = trial(act="hang", ignores_term=True)
    ran.job = _limited(ran.job, 4.0)
    with pytest.raises(EngineFailed, match="timeout: trial_limit"):
        ran.run()
    assert ran.cluster.leftovers() == []
    assert len(read_pods(ran.out / "pods.csv")) == 4


def _limited(job: Job, limit_s: float) -> Job:
    from dataclasses import replace

    return replace(job, trial_limit_s=limit_s)


def test_a_run_without_a_test_fails_in_clusterloader_s_words(trial: MakeTrial) -> None:
    ran = trial(act="nothing")
    with pytest.raises(EngineFailed, match="clusterloader exited"):
        ran.run()
    assert ran.cluster.leftovers() == []


def test_ctrl_c_removes_everything(trial: MakeTrial) -> None:
    ran = trial(act="hang")
    ran.cluster.api.on_create(
        "Namespace", lambda made: _interrupt() if made["metadata"]["name"].startswith("ip") else 0
    )
    with pytest.raises(KeyboardInterrupt):
        ran.run()
    assert ran.cluster.leftovers() == []


def _interrupt() -> None:
    import os
    import time

    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_held_cluster_is_not_taken(trial: MakeTrial) -> None:
    ran = trial()
    with (
        engines.session([ran.job], "another", lambda *_, **__: None, ran.said.append),
        pytest.raises(EngineUnavailable, match="the cluster is held by"),
    ):
        ran.run()


def test_nodes_that_keep_the_image_stop_a_cold_trial_before_its_hours(trial: MakeTrial) -> None:
    ran = trial()
    ran.cluster.said = (
        "images sha256:x\nfreed 0\nrefused busy\nknown registry\nlayers 5\nsnapshots 1 2 3 4 5\n"
        "blobs\nunder_way 0\nwaited 9\npage-cache dropped\nend\n"
    )
    with pytest.raises(EngineFailed, match="did not remove the image"):
        ran.run()
    assert ran.cluster.leftovers() == []


def test_the_ledger_knows_the_prometheus_that_it_used(trial: MakeTrial) -> None:
    ran = trial()
    ran.run()
    assert ran.told.count("prometheus") == 2  # created, torn down
    assert json.dumps(ran.told)


def test_what_clusterloader_made_is_marked_as_soon_as_it_has_ended(trial: MakeTrial) -> None:
    ran, role = trial(), "/apis/rbac.authorization.k8s.io/v1/clusterroles/prometheus-operator"
    api, marks = ran.cluster.api, list[dict[str, str]]()
    named = {"name": role.rpartition("/")[2]}

    def made(space: dict[str, Any]) -> None:
        if space["metadata"]["name"].startswith("ip"):  # the trial's: CL2 begins after it
            group = "rbac.authorization.k8s.io/v1"
            api.put({"apiVersion": group, "kind": "ClusterRole", "metadata": named})

    api.on_create("Namespace", made)

    class Listener(list[str]):
        def append(self, text: str) -> None:
            if "late events" in text and (there := api.get(role)):
                marks.append(there["metadata"].get("annotations") or {})

    ran.said = Listener()
    ran.run()
    (found,) = marks
    assert prometheus.ANNOTATION in found  # so that the janitor finds it after a kill
    assert api.get(role) is None


def test_a_credential_that_ends_too_soon_costs_no_image(
    trial: MakeTrial, tmp_path: Path, apiserver: ApiServer
) -> None:
    ends = (datetime.now(UTC) + timedelta(minutes=75)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = answer(token=TOKEN, expirationTimestamp=ends)
    user = plugin(program(tmp_path / "login", f"print({told!r})"))
    access = write(tmp_path / "aad", apiserver.url, user=user)
    ran = trial(f"engine.kubeconfig={access}", "trial_limit=2h")
    with pytest.raises(EngineUnavailable, match="expires in 75 min"):
        ran.run()
    assert not [each for each in apiserver.requests
                if each.method == "POST" and "daemonsets" in each.path]  # fmt: skip
