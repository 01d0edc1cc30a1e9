"""Laws of the MLflow record, against a real SQLite store (and, marked slow, a real server)."""

import contextlib
import json
import math
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from builders import FACTORS, measurement, pull, write_trial
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull.config.schema import Tracking, TrackingKind
from imgpull.errors import ConfigError, ReportError, TrackingError
from imgpull.results.record import Failure
from imgpull.tracking import open_tracker, run_directory
from imgpull.tracking.content import PARAM_LIMIT, TABLE, TABLE_ROWS, read_trial, safe_name

LOCAL = Tracking()
SWEEP = "2026-11-23_10-00-00_ab12"


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store, made once: that takes seconds."""
    root = tmp_path_factory.mktemp("store")
    open_tracker(Tracking(experiment="another"), root)
    assert [path.name for path in root.iterdir()] == ["mlflow.db"]  # nothing half-made stays
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, database: Path) -> Path:
    """A project with a store, below a path that a shell would split."""
    project = tmp_path / "my project"
    project.mkdir()
    shutil.copy(database, project)
    return project


@pytest.fixture
def sweep(root: Path) -> Path:
    directory = root / "multirun" / SWEEP
    directory.mkdir(parents=True)
    return directory


def client(root: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def runs(root: Path, condition: str = "") -> list[Any]:
    store = client(root)
    experiment = store.get_experiment_by_name("imgpull")
    return list(store.search_runs([experiment.experiment_id], condition))


def start(tracker: Any, sweep: Path, parent: str | None = None) -> Any:
    factors = {"replicas": [1, 5], "qps": [5.0, 10.0], "nodes": [10]}
    return tracker.start_sweep(sweep, factors=factors, command="python run.py -m", parent=parent)


def finish(tracker: Any, sweep: Path, parent: str | None) -> None:
    counts = {"cells/total": 4, "trials/valid": 3, "trials/failed": 1}
    tracker.finish_sweep(
        sweep, parent, status="FINISHED", counts=counts, note_markdown="# simulated"
    )


def logged(root: Path, job_dir: Path) -> Any:
    """The run that a new tracker makes of a trial."""
    return client(root).get_run(open_tracker(LOCAL, root).log_trial(job_dir, None))


# What a run says of a trial


def test_metrics_are_named_by_quantity_and_unit_and_scaled_to_it(sweep: Path) -> None:
    job = write_trial(
        sweep / "0",
        values={
            ("pod_startup", "p99"): 200.0,
            ("image_pull", "p50"): 180.0,
            ("image_pull", "n"): 10,
            ("data", "total"): 2.0**29,
            ("node_throughput", "p50"): 80 * 2.0**20,
            ("validity", "cold_share"): 1.0,
        },
        rows=[measurement("kubelet_image_pull", "p50", 4.0, subject="node-1")],
    )
    assert read_trial(job).metrics == [
        ("data_gib/total", 0.5, 0),
        ("image_pull_s/n", 10.0, 0),
        ("image_pull_s/p50", 180.0, 0),
        ("node_throughput_mib_s/p50", 80.0, 0),
        ("pod_startup_s/p99", 200.0, 0),
        ("validity/cold_share", 1.0, 0),
    ]


def test_params_are_the_factors_and_the_settings_without_ids_and_paths(sweep: Path) -> None:
    layer = {"compressed_bytes": "1GB", "unpacked_bytes": "2GiB", "compression": "gzip"}
    config = {
        "deployments": 10,
        "qps": 99.0,  # the factor's level wins
        "trial": 3,
        "resume": "auto",
        "image": {"name": "x", "reference": "r/pytorch:1", "digest": "sha256:1", "args": []}
        | {"layers": [layer, layer], "command": ["sleep", "1"]},
        "cluster": {"name": "aks", "node": {"vcpus": 4, "memory_gib": 16.0}, "region": None}
        | {"node_selector": {"agentpool": "measured"}},
        "engine": {"kind": "sim", "report": "/home/me/report", "rates": {"a": 1.5, "b": 2}},
        "tracking": {"kind": "local"},
        "hydra": {"job": {"num": 0}},
        "kubeconfig": "~/.kube/config",
    }
    job = write_trial(sweep / "0", config=config, factors=FACTORS | {"cache": None})
    assert read_trial(job).params == {
        "deployments": "10", "replicas": "1", "qps": "10", "nodes": "10",
        "image": "pytorch_large", "cluster": "aks_d4ds_v5", "cache": "unknown",
        "image.layer_count": "2", "image.compressed_bytes": "2000000000",
        "image.unpacked_bytes": "4294967296", "image.reference": "r/pytorch:1",
        "image.command": '["sleep","1"]', "cluster.node.vcpus": "4",
        "cluster.node.memory_gib": "16", "cluster.node_selector": '{"agentpool":"measured"}',
        "engine.kind": "sim", "engine.rates": '{"a":1.5,"b":2}',
    }  # fmt: skip


def test_an_image_of_unknown_unpacked_sizes_is_logged_without_their_sum(sweep: Path) -> None:
    layers = [{"compressed_bytes": "1GB", "unpacked_bytes": size} for size in ("2GB", None)]
    trial = read_trial(write_trial(sweep / "0", config={"image": {"layers": layers}}))
    assert trial.params["image.compressed_bytes"] == "2000000000"
    assert "image.unpacked_bytes" not in trial.params


def test_factors_are_never_among_the_params_left_out(sweep: Path) -> None:
    config = {f"setting_{number}": number for number in range(100)}
    trial = read_trial(write_trial(sweep / "0", config=config))
    assert len(trial.params) == PARAM_LIMIT
    assert set(FACTORS) < set(trial.params)
    assert trial.tags["imgpull.left_out"] == f"47 params beyond {PARAM_LIMIT}"


def test_unknown_and_infinite_values_are_left_out_and_a_tag_says_why(sweep: Path) -> None:
    values = {
        ("image_pull", "p50"): math.inf,
        ("image_pull", "mean"): math.nan,
        ("image_pull", "p99_at_least"): 1800.0,
    }
    trial = read_trial(write_trial(sweep / "0", values=values))
    assert trial.metrics == [("image_pull_s/p99_at_least", 1800.0, 0)]
    assert trial.tags["imgpull.left_out"] == (
        "image_pull_s/mean: unknown; image_pull_s/p50: infinite; "
        "image_pull_s/p99: censored, see image_pull_s/p99_at_least"
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 10_000), min_size=1, max_size=500))
def test_sorted_pulls_are_one_short_series_over_rank_that_ends_at_the_slowest(
    durations: list[float],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        followers = [pull(0, 1e6, leader=False), pull(1, 1e6, outcome="failed"), pull(2, None)]
        rows = [pull(number, value) for number, value in enumerate(durations)]
        trial = read_trial(write_trial(Path(directory) / "s" / "0", pulls=followers + rows))
    names, values, ranks = zip(*trial.metrics, strict=True)
    assert set(names) == {"image_pull_sorted_s"}
    assert len(ranks) == min(len(durations), 100)
    assert list(ranks) == sorted(set(ranks))
    assert list(values) == sorted(values)
    assert (ranks[-1], values[-1]) == (100, max(durations))


@given(st.text(max_size=300))
def test_mlflow_takes_every_name_that_was_made_safe(text: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

    _validate_metric_name(safe_name(text))
    _validate_tag_name(safe_name(text))


@pytest.mark.parametrize(
    ("verdict", "trial", "name", "prefix", "status"),
    [
        ("valid", 1, "r5 q10", "", "FINISHED"),
        ("degraded", 2, "r5 q10 t2", "", "FINISHED"),
        ("invalid", 2, "INVALID r5 q10 t2", "invalid/", "FINISHED"),
        ("failed", 1, "FAILED r5 q10", "failed/", "FAILED"),
    ],
)
def test_a_trial_that_does_not_count_shares_no_chart_with_those_that_do(
    root: Path, sweep: Path, verdict: str, trial: int, name: str, prefix: str, status: str
) -> None:
    values = {("image_pull", "p50"): 180.0}
    job = write_trial(
        sweep / "0", verdict=verdict, trial=trial, values=values, pulls=[pull(0, 180.0)]
    )
    run = logged(root, job)
    assert run.info.run_name == name
    assert run.info.status == status
    assert set(run.data.metrics) == {f"{prefix}image_pull_s/p50", f"{prefix}image_pull_sorted_s"}


def test_tags_say_what_was_measured_by_whom_and_how_it_ended(root: Path, sweep: Path) -> None:
    job = write_trial(
        sweep / "3" / "attempt-2", attempt=2, reasons=["clock skew 2 s", "scrape gap"],
        verdict="degraded", slo="missed", digests={"image": "sha256:aa", "index": None},
    )  # fmt: skip
    tags = logged(root, job).data.tags
    assert tags.pop("mlflow.user")
    assert tags.pop("mlflow.note.content") == (
        "**degraded** (simulated, not measured), SLO missed\n\n- clock skew 2 s\n- scrape gap"
    )
    assert tags == {
        "imgpull.kind": "trial", "imgpull.sweep": SWEEP, "imgpull.engine": "sim",
        "imgpull.measured_by": "simcluster", "imgpull.verdict": "degraded",
        "imgpull.reasons": "clock skew 2 s; scrape gap", "imgpull.slo": "missed",
        "imgpull.cell": "cell-a", "imgpull.name": "r5 q10", "imgpull.trial": "1",
        "imgpull.trial_id": "cell-a-1",
        "imgpull.attempt": "2", "imgpull.job_dir": str(job), "imgpull.git_dirty": "false",
        "imgpull.fingerprint": '{"containerd": "2.1.9", "engine": "sim"}',
        "versions.imgpull": "0.1.0", "digests.image": "sha256:aa",
        "mlflow.source.git.commit": "abc123", "mlflow.source.name": "run.py",
        "mlflow.runName": "r5 q10",
    }  # fmt: skip


def test_the_note_of_a_failed_trial_names_the_error_and_its_hint(sweep: Path) -> None:
    error = Failure("EngineFailed", "clusterloader2 exited 1", hint="read run.log")
    job = write_trial(sweep / "0", verdict="failed", error=error, engine="docker")
    note = read_trial(job).tags["mlflow.note.content"]
    assert "simulated" not in note
    assert note.endswith("- EngineFailed: clusterloader2 exited 1\n  read run.log")


def test_a_run_lasts_as_long_as_its_trial_by_the_wall_clock(root: Path, sweep: Path) -> None:
    info = logged(root, write_trial(sweep / "0", wall_s=12.5)).info
    assert info.end_time - info.start_time == 12_500
    assert abs(info.end_time / 1000 - time.time()) < 60  # not the simulator's year 2000


def test_long_texts_are_cut_rather_than_refused(root: Path, sweep: Path) -> None:
    job = write_trial(sweep / "0", reasons=["x" * 9000], factors={"image": "y" * 7000})
    run = logged(root, job)
    assert len(run.data.tags["imgpull.reasons"]) == 8000
    assert len(run.data.params["image"]) == 6000


# Files and the table


def test_artifacts_are_the_trials_files_without_hydras_and_other_attempts(
    root: Path, sweep: Path
) -> None:
    job = write_trial(sweep / "0", values={("data", "total"): 1.0}, pulls=[pull(0, 3.5)])
    write_trial(job / "attempt-2", attempt=2)
    for name in ("bundle/config.yaml", "report/junit.xml", ".hydra/config.yaml"):
        (job / name).parent.mkdir(exist_ok=True)
        (job / name).write_text("x")
    copy = root / "mlartifacts" / logged(root, job).info.run_id / "artifacts"
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} == {
        "bundle/config.yaml", "job.json", "measurements.csv", "pulls.csv", "report/junit.xml",
        TABLE,
    }  # fmt: skip
    assert json.loads((copy / TABLE).read_text()) == {
        "columns": ["pod", "node", "pull_s", "wait_s", "leader", "temperature", "outcome"],
        "data": [["pull-0", "node-0", 3.5, 0.5, True, "cold", "pulled"]],
    }


def test_the_table_is_what_mlflows_own_log_table_would_have_left(root: Path, sweep: Path) -> None:
    ours = logged(root, write_trial(sweep / "0", pulls=[pull(0, 3.5), pull(1, None)])).info.run_id
    store = client(root)
    theirs = store.create_run(store.get_run(ours).info.experiment_id).info.run_id
    left = [root / "mlartifacts" / run / "artifacts" / TABLE for run in (ours, theirs)]
    table = json.loads(left[0].read_text())
    columns = {name: [row[i] for row in table["data"]] for i, name in enumerate(table["columns"])}
    store.log_table(theirs, columns, TABLE)
    assert json.loads(left[1].read_text()) == table
    tags = [store.get_run(run).data.tags["mlflow.loggedArtifacts"] for run in (ours, theirs)]
    assert tags[0] == tags[1]


def test_a_long_table_is_cut_and_says_so(sweep: Path) -> None:
    rows = [pull(number, 1.0) for number in range(TABLE_ROWS + 5)]
    trial = read_trial(write_trial(sweep / "0", pulls=rows))
    assert trial.table is not None
    assert len(trial.table["data"]) == TABLE_ROWS
    assert "5 rows" in trial.tags["imgpull.left_out"]


# Sweeps


def test_a_sweep_is_a_parent_and_its_trials_are_children(root: Path, sweep: Path) -> None:
    tracker = open_tracker(LOCAL, root)
    parent = start(tracker, sweep)
    children = {
        tracker.log_trial(write_trial(sweep / str(n), cell=f"c{n}"), parent) for n in range(3)
    }
    (sweep / "summary.csv").write_text("cell\n")
    (sweep / "plots").mkdir()
    (sweep / "plots" / "pulls.png").write_bytes(b"png")
    finish(tracker, sweep, parent)
    found = runs(root, f"tags.`mlflow.parentRunId` = '{parent}'")
    assert {run.info.run_id for run in found} == children
    run = client(root).get_run(parent)
    assert run.info.run_name == "replicas=1,5 qps=5,10 ab12"
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "matrix.replicas": "1,5",
        "matrix.qps": "5,10",
        "matrix.nodes": "10",
    }
    assert run.data.metrics == {"cells/total": 4, "trials/valid": 3, "trials/failed": 1}
    assert run.data.tags["imgpull.kind"] == "sweep"
    assert run.data.tags["imgpull.engine"] == "sim"
    assert run.data.tags["imgpull.command"] == "python run.py -m"
    assert run.data.tags["mlflow.source.git.commit"] == "abc123"
    assert run.data.tags["mlflow.note.content"].startswith("# simulated\n")
    names = {file.path for file in client(root).list_artifacts(parent)}
    assert names == {"summary.csv", "plots"}


def test_logging_a_trial_again_adds_no_run_and_changes_none(root: Path, sweep: Path) -> None:
    job = write_trial(sweep / "0", values={("image_pull", "p50"): 180.0}, pulls=[pull(0, 180.0)])
    tracker = open_tracker(LOCAL, root)
    parent = start(tracker, sweep)
    first = tracker.log_trial(job, parent)
    before = client(root).get_run(first).to_dictionary()
    assert tracker.log_trial(job, parent) == first
    later = open_tracker(LOCAL, root)  # another process: it has to search
    assert start(later, sweep, parent) == parent
    assert later.log_trial(job, parent) == first
    assert client(root).get_run(first).to_dictionary() == before
    assert len(runs(root, "tags.`imgpull.kind` = 'trial'")) == 1


def test_another_attempt_and_another_sweep_of_the_same_cell_are_runs_of_their_own(
    root: Path, sweep: Path
) -> None:
    tracker = open_tracker(LOCAL, root)
    other = sweep.with_name("2026-11-24_10-00-00_cd34")
    jobs = [
        write_trial(sweep / "0"),
        write_trial(sweep / "0" / "attempt-2", attempt=2),
        write_trial(other / "0"),
    ]
    parents = [start(tracker, sweep), start(tracker, sweep), start(tracker, other)]
    assert len(set(parents)) == 2
    ids = {tracker.log_trial(job, parent) for job, parent in zip(jobs, parents, strict=True)}
    assert len(ids) == 3
    assert {open_tracker(LOCAL, root).log_trial(job, None) for job in jobs} == ids


def test_a_run_that_was_cut_off_is_completed_without_changing_its_params(
    root: Path, sweep: Path
) -> None:
    values = {("image_pull", "p50"): 180.0, ("image_pull", "max"): 190.0}
    job = write_trial(sweep / "0", values=values, pulls=[pull(0, 1.0)])
    tracker = open_tracker(LOCAL, root)
    parent = start(tracker, sweep)
    identity = {"imgpull.trial_id": "cell-a-1", "imgpull.attempt": "1"}
    experiment = client(root).get_experiment_by_name("imgpull").experiment_id
    half = client(root).create_run(experiment, tags=identity | {"mlflow.parentRunId": parent})
    client(root).log_param(half.info.run_id, "qps", "older")
    client(root).log_metric(half.info.run_id, "image_pull_s/p50", 180.0)
    later = open_tracker(LOCAL, root)
    start(later, sweep, parent)
    assert client(root).get_run(half.info.run_id).info.status == "KILLED"
    assert later.log_trial(job, parent) == half.info.run_id
    run = client(root).get_run(half.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["qps"] == "older"
    assert run.data.params["replicas"] == "1"
    assert run.data.metrics["image_pull_s/max"] == 190.0
    assert run.data.tags["imgpull.verdict"] == "valid"
    assert len(client(root).get_metric_history(half.info.run_id, "image_pull_s/p50")) == 1


def test_a_resumed_sweep_keeps_its_parent_and_closes_orphans_as_killed(
    root: Path, sweep: Path
) -> None:
    tracker = open_tracker(LOCAL, root)
    parent = start(tracker, sweep)
    done = tracker.log_trial(write_trial(sweep / "0"), parent)
    experiment = client(root).get_experiment_by_name("imgpull").experiment_id
    orphans = [
        client(root).create_run(experiment, tags={"mlflow.parentRunId": parent}) for _ in range(3)
    ]
    stranger = client(root).create_run(experiment, tags={"mlflow.parentRunId": "another"})
    client(root).set_terminated(parent, "KILLED")
    assert start(open_tracker(LOCAL, root), sweep, parent) == parent
    status = {run.info.run_id: run.info.status for run in runs(root)}
    assert status[parent] == "RUNNING"
    assert status[done] == "FINISHED"
    assert {status[orphan.info.run_id] for orphan in orphans} == {"KILLED"}
    assert status[stranger.info.run_id] == "RUNNING"


def test_a_sweep_logged_again_finds_its_parent_by_its_directory(root: Path, sweep: Path) -> None:
    parent = start(open_tracker(LOCAL, root), sweep)
    assert start(open_tracker(LOCAL, root), sweep) == parent
    assert start(open_tracker(LOCAL, root), sweep.with_name("other_ef56")) != parent


def test_a_parent_that_the_store_does_not_know_is_replaced(root: Path, sweep: Path) -> None:
    parent = start(open_tracker(LOCAL, root), sweep, "0" * 32)
    assert client(root).get_run(parent).info.status == "RUNNING"


def test_the_chart_shows_this_sweeps_trials_and_the_command_survives_a_shell(
    root: Path, sweep: Path
) -> None:
    tracker = open_tracker(LOCAL, root)
    view = tracker.view(start(tracker, sweep))
    assert view is not None
    assert view.command is not None
    program, *rest = shlex.split(view.command)
    assert Path(program).name == "mlflow"
    assert rest == ["ui", "--backend-store-uri", f"sqlite:///{root}/mlflow.db"]
    address, fragment = view.chart_url.split("/#/")
    assert address == "http://127.0.0.1:5000"
    experiment = client(root).get_experiment_by_name("imgpull").experiment_id
    assert urlsplit(fragment).path == f"experiments/{experiment}/runs"
    assert parse_qs(urlsplit(fragment).query) == {
        "searchFilter": [f"tags.`imgpull.kind` = 'trial' and tags.`imgpull.sweep` = '{SWEEP}'"],
        "orderByKey": ["metrics.`image_pull_s/p50`"],
        "orderByAsc": ["false"],
        "compareRunsMode": ["CHART"],
        "workflowType": ["machine_learning"],
    }
    job = tracker.log_trial(write_trial(sweep / "0"), None)
    wanted = parse_qs(urlsplit(fragment).query)["searchFilter"][0]
    assert [run.info.run_id for run in runs(root, wanted)] == [job]


def test_a_sweep_may_have_a_quote_in_its_name(root: Path, sweep: Path) -> None:
    tracker = open_tracker(LOCAL, root)
    odd = sweep.with_name("ann's_ab12")
    parent = start(tracker, odd)
    assert start(open_tracker(LOCAL, root), odd) == parent
    view = tracker.view(parent)
    assert view is not None
    assert "ann%27s_ab12" in view.chart_url


def test_no_tracking_keeps_nothing_and_makes_nothing(tmp_path: Path) -> None:
    tracker = open_tracker(Tracking(kind=TrackingKind.none), tmp_path)
    parent = start(tracker, tmp_path)
    assert parent is None
    assert tracker.log_trial(tmp_path, parent) is None
    finish(tracker, tmp_path, parent)
    assert tracker.view(parent) is None
    assert list(tmp_path.iterdir()) == []


# The way back


def test_a_run_leads_back_to_its_directory(root: Path, sweep: Path) -> None:
    tracker = open_tracker(LOCAL, root)
    parent = start(tracker, sweep)
    job = write_trial(sweep / "0")
    run_id = tracker.log_trial(job, parent) or ""
    assert run_directory(run_id, LOCAL, root) == job
    assert run_directory(parent, LOCAL, root) == sweep
    shutil.rmtree(job)
    with pytest.raises(TrackingError, match="which is not here"):
        run_directory(run_id, LOCAL, root)


def test_an_unknown_run_has_no_directory(root: Path, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="nonsense"):
        run_directory("nonsense", LOCAL, root)
    with pytest.raises(TrackingError, match=r"there is no .*mlflow\.db"):
        run_directory("nonsense", LOCAL, tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="tracking=none"):
        run_directory("nonsense", Tracking(kind=TrackingKind.none), root)
    assert not (tmp_path / "elsewhere").exists()


# When MLflow fails


def test_a_server_that_is_not_there_is_reported_quickly_with_the_way_to_make_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://ann:secret@127.0.0.1:{port}"
    began = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        open_tracker(Tracking(kind=TrackingKind.server, uri=address), tmp_path)
    assert time.monotonic() - began < 10
    assert caught.value.hint == "imgpull log DIR"
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "secret" not in caught.value.message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("uri", [None, "???", "", "localhost:5000", "sqlite:///mlflow.db"])
def test_a_server_needs_an_http_address(uri: str | None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri="):
        open_tracker(Tracking(kind=TrackingKind.server, uri=uri), tmp_path)


def test_a_failure_half_way_names_the_sweep_to_log_again_and_leaves_the_record(
    root: Path, sweep: Path
) -> None:
    tracker = open_tracker(LOCAL, root)
    parent = start(tracker, sweep)
    job = write_trial(sweep / "0", values={("data", "total"): 1.0})
    (root / "mlartifacts").write_text("in the way")
    with pytest.raises(TrackingError) as caught:
        tracker.log_trial(job, parent)
    assert caught.value.hint == f"imgpull log '{sweep}'"
    assert (job / "job.json").exists()
    (root / "mlartifacts").unlink()
    run_id = open_tracker(LOCAL, root).log_trial(job, parent)
    assert client(root).get_run(run_id).info.status == "FINISHED"
    assert len(runs(root, "tags.`imgpull.kind` = 'trial'")) == 1


def test_a_directory_without_a_finished_trial_is_no_fault_of_mlflow(
    root: Path, sweep: Path
) -> None:
    with pytest.raises(ReportError, match=r"no job\.json"):
        open_tracker(LOCAL, root).log_trial(sweep, None)


def test_a_database_of_another_mlflow_says_how_to_upgrade_it(root: Path) -> None:
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    for attempt in (lambda: open_tracker(LOCAL, root), lambda: run_directory("x", LOCAL, root)):
        with pytest.raises(TrackingError, match="another version of MLflow") as caught:
            attempt()
        assert f"mlflow db upgrade 'sqlite:///{root}/mlflow.db'" in caught.value.hint


def test_a_deleted_experiment_is_named(root: Path, sweep: Path) -> None:
    open_tracker(LOCAL, root)
    store = client(root)
    store.delete_experiment(store.get_experiment_by_name("imgpull").experiment_id)
    with pytest.raises(TrackingError, match="'imgpull' was deleted"):
        open_tracker(LOCAL, root)


# How a store comes to be


def test_a_database_appears_whole_or_not_at_all(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.tracking import sqlalchemy_store

    def break_half_way(uri: str, _: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half a schema")
        raise RuntimeError("killed")

    def succeed(uri: str, _: str) -> SimpleNamespace:
        temporary = Path(uri.removeprefix("sqlite:///"))
        assert temporary.parent == tmp_path  # a rename across file systems would copy
        assert not temporary.exists()
        assert not (tmp_path / "mlflow.db").exists()
        shutil.copy(database, temporary)
        return SimpleNamespace(engine=SimpleNamespace(dispose=lambda: None))

    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy_store, "SqlAlchemyStore", break_half_way)
        with pytest.raises(TrackingError, match="killed"):
            open_tracker(LOCAL, tmp_path)
        assert not (tmp_path / "mlflow.db").exists()
        patch.setattr(sqlalchemy_store, "SqlAlchemyStore", succeed)
        with contextlib.suppress(TrackingError):  # the stub is no store to log to
            open_tracker(LOCAL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_importing_the_tracker_does_not_import_mlflow() -> None:
    check = "import sys, imgpull.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


OPEN = """
import sys
from pathlib import Path
from imgpull.config.schema import Tracking
from imgpull.tracking import open_tracker
root = Path(sys.argv[1])
tracker = open_tracker(Tracking(), root)
tracker.start_sweep(root / sys.argv[2], factors={}, command="")
"""


@pytest.mark.slow
def test_two_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(tmp_path), name], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for name in ("sweep_a", "sweep_b")
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said == ["", ""]  # MLflow's chatter is off
    assert len(runs(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.fixture
def server(root: Path) -> Iterator[str]:
    """A real MLflow server on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{root}/mlflow.db",
        "--artifacts-destination", str(root / "mlartifacts"),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                assert process.poll() is None
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.slow
def test_a_server_takes_the_same_record(
    server: str, root: Path, sweep: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    remote = Tracking(kind=TrackingKind.server, uri=server + "/")
    tracker = open_tracker(remote, root)
    parent = start(tracker, sweep)
    values = {("image_pull", "p50"): 180.0}
    job = write_trial(sweep / "0", values=values, pulls=[pull(0, 180.0)])
    run_id = tracker.log_trial(job, parent)
    later = open_tracker(remote, root)
    assert start(later, sweep, parent) == parent
    assert later.log_trial(job, parent) == run_id
    finish(later, sweep, parent)
    assert run_directory(run_id or "", remote, root) == job
    view = later.view(parent)
    assert view is not None
    assert view.command is None
    assert view.chart_url.startswith(f"{server}/#/experiments/")
    [run] = runs(root, "tags.`imgpull.kind` = 'trial'")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["image_pull_s/p50"] == 180.0
    assert list((root / "mlartifacts").rglob("pulls.json"))
    assert capfd.readouterr().out == ""
