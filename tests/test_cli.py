"""The manners of both commands: refusals, help, completion, and what is done after a sweep."""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import Ended, copy_project, database, imgpull, python, run_py, runs

from imgpull import __version__, render
from imgpull.engines.sim import SimEngine
from imgpull.errors import EngineFailed
from imgpull.results.record import read_record

ROOT = Path(__file__).parents[1]
REPLAY = ROOT / "tests/data/cl2-reports/own-2026-two-nodes"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a store and one sweep of two trials, one of which failed."""
    directory = tmp_path_factory.mktemp("swept")
    (directory / "mlflow.db").write_bytes(database())
    simulate = SimEngine.run
    begun: list[int] = []

    def run(self: SimEngine, *arguments: object) -> object:
        begun.append(1)
        if len(begun) == 2:
            raise EngineFailed("it broke", hint="mend it")
        return simulate(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimEngine, "run", run)
        ended = run_py(directory, "-m", "replicas=1,2", "tracking=none")
    assert ended.status == 1
    return directory


@pytest.fixture
def sweep(root: Path) -> Path:
    return sorted((root / "multirun").iterdir())[0]


# Refusals: status 2, the reason and the fix on standard error, nothing made

REFUSED = {
    "an unknown key": (["replicsa=5"], "Key 'replicsa' not in 'Config'"),
    "an unknown key, added": (["+replicsa=5"], "did you mean 'replicas'?"),
    "a wrong type": (["replicas=lots"], "could not be converted to Integer"),
    "an unknown option": (["cluster=hge"], "aks_d4ds_v5"),
    "a level of a wrong type": (["-m", "replicas=1,lots"], "could not be converted to Integer"),
    "an interval": (["-m", "replicas=interval(1,5)"], "write replicas=1,2,5"),
    "a key of the sweep, swept": (["-m", "seed=1,2"], "give seed one value"),
    "a key of the sweep, added": (["-m", "++trials=1,2"], "give trials one value"),
    "the store, swept": (["-m", "tracking=local,none"], "give tracking one value"),
    "the same cell twice": (["-m", "replicas=1,1"], "two cells measure the same"),
    "pods that do not fit": (["-m", "nodes=10,1", "replicas=50"], "use fewer replicas or nodes=5"),
    "no trial": (["trials=0"], "use trials=1"),
    "an impossible image reference": (["image.reference=Foo"], "registry/repository:tag"),
    "a matrix within a matrix": (
        ["-m", "experiment=creation_rate,smoke"], "run it alone: experiment=creation_rate",
    ),
    "a store without an address": (["tracking=server"], "tracking.uri=http://HOST:5000"),
    "a report that is not there": (["engine=replay", "engine.report=none"], "is no directory"),
    "bundles of what renders none": (
        ["until=render", "engine=replay", f"engine.report={REPLAY}"], "renders nothing",
    ),
    "a missing value": (["engine=replay"], "engine.report"),
    "an unknown flag": (["--nonsense"], "unrecognized arguments"),
    "two flags that exclude each other": (["--cfg", "job", "--multirun"], "Only one of"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_is_wrong_is_refused_and_makes_nothing(tmp_path: Path, case: str) -> None:
    arguments, said = REFUSED[case]
    ended = run_py(tmp_path, *arguments)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_a_matrix_with_and_without_the_flag(tmp_path: Path) -> None:
    for flag in (["-m"], []):
        ended = run_py(tmp_path, *flag, "replicas=1,5", "until=render")
        assert ended.status == 0
        assert len(ended.out.splitlines()) == 3


BROKEN = {
    "a name that a job does not have": (
        "image-pull.yaml", "<%= qps", "<%= qp", "did you mean 'qps'?",
    ),
    "a query that does not parse": (
        "queries.jinja", "histogram_quantile(", "histogram_quantile((", "correct the query",
    ),
    "a step that ClusterLoader2 does not know": ("image-pull.yaml", "phases:", "fases:", "phases"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_template_stops_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    name, right, wrong, said = BROKEN[case]
    shutil.copytree(render.TEMPLATES, tmp_path / "templates")
    template = tmp_path / "templates" / name
    assert right in template.read_text()
    template.write_text(template.read_text().replace(right, wrong, 1))
    defaults = (tmp_path / "templates",)
    monkeypatch.setattr(render.render, "__defaults__", defaults)
    work = tmp_path / "work"
    work.mkdir()
    ended = run_py(work, "-m", "replicas=1,5")
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
    assert re.search(r"image-pull\.yaml:\d+", ended.err)  # where in the bundle or the template
    assert list(work.iterdir()) == []


def test_trials_are_run_by_our_own_sweeper(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "hydra.mode=RUN")
    assert ended.status == 2
    assert "leave hydra.mode" in ended.err


# Before anything runs


def test_until_render_leaves_the_bundles_and_says_where(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "-m", "replicas=1,5", "until=render")
    assert (ended.status, ended.err) == (0, "")
    *cells, last = ended.out.splitlines()
    assert [line.split(":  ")[0] for line in cells] == ["r1", "r5"]
    for line in cells:
        bundle = Path(line.split(":  ")[1])
        assert {path.name for path in bundle.iterdir()} == set(render.FILES)
    assert list(tmp_path.iterdir()) == [tmp_path / "multirun"]  # no store
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(left) == 2 * len(render.FILES)  # and no ledger
    assert Path(last.removeprefix("bundles:").strip()).is_dir()


def test_a_reader_of_help_may_leave(project: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "run.py", "--help"],
        cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_help_lists_the_groups_and_their_options(project: Path) -> None:
    ended = python(project, "run.py", "--help")
    assert (ended.status, ended.err) == (0, "")
    groups = dict(re.findall(r"^(\w+): (.*)$", ended.out.split("== Config")[1], re.MULTILINE))
    assert set(groups) == {"cluster", "engine", "experiment", "image", "tracking"}
    for group, options in groups.items():
        files = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert set(options.split(", ")) == files
    assert not (project / "multirun").exists()


def test_cfg_shows_the_composed_job(project: Path) -> None:
    ended = python(project, "run.py", "--cfg", "job", "replicas=7")
    assert (ended.status, ended.err) == (0, "")
    shown = yaml.safe_load(ended.out)
    assert shown["replicas"] == 7
    assert shown["image"]["layers"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [("cluster=aks_d4d", {"cluster=aks_d4ds_v5"}), ("replic", {"replicas="})],
)
def test_the_shell_completes_keys_and_options(project: Path, line: str, offered: set[str]) -> None:
    typed = f"python run.py {line}"
    done = subprocess.run(
        [sys.executable, "run.py", "-sc", "query=bash"],
        cwd=project, capture_output=True, text=True, check=True,
        env=os.environ | {"COMP_LINE": typed, "COMP_POINT": str(len(typed))},
    )  # fmt: skip
    assert set(done.stdout.split()) == offered


def test_help_and_completion_load_nothing_heavy(project: Path) -> None:
    heavy = ["mlflow", "pandas", "seaborn", "matplotlib", "kubernetes", "numpy", "jinja2", "rich"]
    program = (
        "import sys, imgpull.config.schema, hydra_plugins.imgpull_matrix, imgpull.cli\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    loaded = python(project, "-c", program)
    assert loaded.status == 0, loaded.err
    # Typer itself loads Rich when it prints help.
    assert set(eval(loaded.out)) <= {"rich"}


def test_a_terminal_shows_a_status_line_and_keeps_the_lines_whole(project: Path) -> None:
    main, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "run.py", "tracking=none"],
        cwd=project, stdout=subprocess.PIPE, stderr=end, text=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    ) as process:  # fmt: skip
        os.close(end)
        shown = b""
        while True:
            try:
                some = os.read(main, 4096)
            except OSError:  # the other end is closed
                break
            if not some:
                break
            shown += some
        out, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0
    assert "summary:" in out
    assert "\x1b" not in out  # the result is plain
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()).replace("\r", "\n")
    assert re.search(r". checking cell 1 of 1 \.\.\.", text)
    assert re.search(r"^1/1  pytorch_large n10 r1  trial 1  valid, .* s$", text, re.MULTILINE)
    assert shown.decode().rstrip().endswith("\x1b[2K")  # the status line is wiped


# After a sweep


def test_report_makes_the_end_step_again(root: Path, sweep: Path) -> None:
    before = (sweep / "summary.csv").read_bytes()
    (sweep / "summary.csv").unlink()
    ended = imgpull(root, "report", str(sweep))
    assert (ended.status, ended.err) == (0, "")
    assert (sweep / "summary.csv").read_bytes() == before
    assert "it broke" in ended.out
    assert ended.out.splitlines()[-1] == f"summary:  {sweep / 'summary.csv'}"


def test_log_takes_a_sweep_or_one_trial_and_doubles_nothing(root: Path, sweep: Path) -> None:
    one = imgpull(root, "log", str(sweep / "0"))
    assert (one.status, one.err) == (0, "")
    assert len(runs(root)[1]) == 1
    for _ in range(2):
        every = imgpull(root, "log", str(sweep))
        assert every.status == 0
        parent, children = runs(root)
        assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]
    assert parent.data.metrics["trials/failed"] == 1
    assert "run.py -m replicas=1,2 tracking=none" in parent.data.tags["imgpull.command"]


def bundle(sweep: Path) -> str:
    return (sweep / "0/bundle/image-pull.yaml").read_text()


def test_reproduce_makes_the_same_bundle_and_report(root: Path, sweep: Path) -> None:
    ended = imgpull(root, "reproduce", str(sweep / "0"), "--into", str(root / "again"))
    assert (ended.status, ended.err) == (0, "")
    assert [line.split() for line in ended.out.splitlines()] == [
        ["bundle:", "identical"], ["results:", "identical"], ["written:", str(root / "again")],
    ]  # fmt: skip
    for name in ("pulls.csv", "measurements.csv", "bundle/image-pull.yaml", "report/junit.xml"):
        assert (root / "again" / name).read_bytes() == (sweep / "0" / name).read_bytes()
    first, again = read_record(sweep / "0"), read_record(root / "again")
    assert (again.trial_id, again.factors) == (first.trial_id, first.factors)
    refused = imgpull(root, "reproduce", str(sweep / "0"), "--into", str(root / "again"))
    assert refused.status == 2
    assert "is not empty" in refused.err


def test_reproduce_can_stop_at_the_bundle(root: Path, sweep: Path) -> None:
    ended = imgpull(root, "reproduce", str(sweep / "0"), "--until", "render")
    assert ended.status == 0
    assert "bundle:   identical" in ended.out
    written = Path(ended.out.splitlines()[-1].removeprefix("written:").strip())
    assert written.is_relative_to(root / "multirun")
    assert [path.name for path in written.iterdir()] == ["bundle"]
    assert (written / "bundle/image-pull.yaml").read_text() == bundle(sweep)


def test_reproduce_says_when_a_template_has_changed(
    root: Path, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(render.TEMPLATES, tmp_path / "templates")
    template = tmp_path / "templates/deployment.yaml"
    template.write_text(template.read_text() + "# changed\n")
    monkeypatch.setattr(render.render, "__defaults__", (tmp_path / "templates",))
    ended = imgpull(root, "reproduce", str(sweep / "0"), "--until", "render")
    assert ended.status == 1
    assert "bundle:   DIFFERS" in ended.out


def test_reproduce_says_when_the_simulator_gives_other_results(
    root: Path, sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise EngineFailed("broke")

    monkeypatch.setattr(SimEngine, "run", broken)
    ended = imgpull(root, "reproduce", str(sweep / "0"), "--into", str(tmp_path / "new"))
    assert ended.status == 1
    assert "bundle:   identical" in ended.out
    assert "results:  DIFFER: pulls.csv, measurements.csv" in ended.out


def test_a_replayed_report_is_reproduced_without_a_bundle(tmp_path: Path) -> None:
    replayed = run_py(tmp_path, "engine=replay", f"engine.report={REPLAY}", "tracking=none")
    ended = imgpull(tmp_path, "reproduce", str(replayed.sweep / "0"), "--into", "again")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines()[0] == "results:  identical"
    refused = imgpull(tmp_path, "reproduce", str(replayed.sweep / "0"), "--until", "render")
    assert refused.status == 2


@pytest.mark.parametrize("verb", ["report", "log", "reproduce"])
def test_a_directory_without_a_trial_is_refused_with_the_fix(
    tmp_path: Path, verb: str, capfd: Callable[..., object]
) -> None:
    ended = imgpull(tmp_path, verb, str(tmp_path / "none"))
    assert ended.status == 2
    assert ended.err.startswith("error: ")
    assert "trial" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status"),
    [([], 2), (["--help"], 0), (["--version"], 0), (["reproduce", ".", "--until", "plan"], 2),
     (["nonsense"], 2)],
)  # fmt: skip
def test_the_statuses_of_the_command_line(
    tmp_path: Path, arguments: list[str], status: int
) -> None:
    assert imgpull(tmp_path, *arguments).status == status


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    assert imgpull(tmp_path, "--version").out == f"imgpull {__version__}\n"


@pytest.mark.slow
def test_the_benchmark_prints_its_tables() -> None:
    ended: Ended = python(ROOT, "benchmarks/overhead.py", "--cells", "4", timeout_s=300)
    assert ended.status == 0, ended.err
    for words in ("run.py --help", "first finished trial", "own overhead", "composing every cell"):
        assert words in ended.out
    for row in ("first", "middle", "last"):
        (line,) = [line for line in ended.out.splitlines() if line.startswith(f"│ {row:<6} │")]
        seconds = [float(cell) for cell in line.split("│")[2:-1]]
        hydra, render_s, engine, results, tracking, own, every = seconds
        assert own == pytest.approx(render_s + results + tracking, abs=0.02)
        assert every == pytest.approx(hydra + engine + own, rel=0.2)
