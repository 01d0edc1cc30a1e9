"""From a command to its cells: composed as Hydra does, constrained, checked, and run as such."""

import copy
import logging
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT, copy_project, database, python, run_py, runs
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core import utils as hydra_utils
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from imgpull.cl2 import alike
from imgpull.cl2.places import Loader
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.config.typed import Shared
from imgpull.errors import ImgpullError
from imgpull.results.record import read_record
from imgpull.sweep import hydra_job
from imgpull.sweep.composing import Composer

sys.path.append(str(ROOT))  # where Hydra finds hydra_plugins/, as beside run.py

# Composing: equal to Hydra's own


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    schema.register()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def composed(loader: ConfigLoader, *hydra: str) -> DictConfig:
    """The master configuration of a command with these overrides of Hydra's own."""
    return loader.load_configuration("config", list(hydra), RunMode.MULTIRUN, from_shell=False)


# What may be given for a cell: plain values, groups, experiments, and what only Hydra can set.
CHOICES: dict[str, list[str]] = {
    "replicas": ["1", "5", "007"],
    "qps": ["1", "2.5", "10"],
    "nodes": ["10", "20"],
    "deployments": ["3", "${nodes}"],
    "cache": ["cold", "warm"],
    "pod_startup_threshold": ["3m", "'1h30m'", "90s"],
    "max_hours": ["null", "2"],
    "seed": ["0", "7"],
    "allow": ["[]", "[cluster]", "[node,region]"],
    "image": ["vllm", "pytorch_large", "even_5gb_10"],
    "cluster": ["aks_d4ds_v5", "aks_d16ds_v5"],
    "engine": ["sim", "docker", "replay"],
    "tracking": ["none", "local"],
    "experiment": ["smoke", "telescope_n10", "scale_out"],
    "cluster.node.nic_mbit_s": ["1000", "2500.5", "null"],
    "cluster.node.max_pods": ["30", "110"],
    "cluster.registry.server": ["other.example.com"],
    "cluster.node_selector": ["{pool: a}", "{}"],
    "image.name": ["renamed", "'a b'", "${image.reference}", "${.reference}"],
    "wait_timeout": ["10m", "${pod_startup_threshold}", "${oc.select:pod_startup_threshold}"],
    "image.digest": ["null"],
    "+cluster.node_selector.zone": ["a", "'1'"],
    "++cluster.zones": ["3"],
    "~cluster.prometheus_storage_class": [""],
    "cluster.kubelet.serializeImagePulls": ["true", "false"],
}


def random_overrides(draw: random.Random) -> list[str]:
    keys = draw.sample(sorted(CHOICES), draw.randint(1, 9))
    chosen = [f"{key}={draw.choice(CHOICES[key])}" for key in keys]
    return [one.removesuffix("=") if one.startswith("~") else one for one in chosen]


def told(config: DictConfig) -> str:
    """All that a configuration holds, flags and Hydra's own part included."""
    flags = {name: config._get_flag(name) for name in ("struct", "readonly")}
    hydra = {name: config.hydra._get_flag(name) for name in ("struct", "readonly")}
    return f"{flags} {hydra}\n{OmegaConf.to_yaml(config)}"


def outcome(make: Callable[[], Any]) -> Any:
    """What came of it, or the error in its own words."""
    try:
        return make()
    except (HydraException, ImgpullError, ValueError) as error:
        return type(error).__name__, str(error)


def require_equal(loader: ConfigLoader, master: DictConfig, ours: Composer, *cell: str) -> Any:
    """Hydra's and our configuration and values of a cell; returns what came of Hydra's."""
    config = outcome(lambda: loader.load_sweep_config(master, list(cell)))
    if isinstance(config, tuple):
        assert outcome(lambda: ours.config(cell)) == config
        assert outcome(lambda: ours.values(cell)) == config
        assert outcome(lambda: ours.task_config(cell)) == config
        return config
    task = copy.deepcopy(config)
    with read_write(task), open_dict(task):  # as Hydra's run_job does
        del task["hydra"]
    assert OmegaConf.to_yaml(ours.task_config(cell)) == OmegaConf.to_yaml(task)
    assert told(ours.config(cell)) == told(config)
    assert outcome(lambda: ours.values(cell)) == outcome(lambda: jobs.resolve(config))
    return config


@pytest.mark.parametrize("seed", range(5))
def test_a_cell_is_composed_as_hydra_composes_it(loader: ConfigLoader, seed: int) -> None:
    draw = random.Random(seed)
    master = composed(loader, f"hydra.job.config.override_dirname.exclude_keys=[{seed},seed]")
    ours = Composer(loader, master)  # one for all: a cell must not show in the next
    for _ in range(10):
        cell = random_overrides(draw)
        require_equal(
            loader,
            master,
            ours,
            *cell,
            "trial=2",
            "hydra.sweep.dir='/a b'",
            "hydra.sweep.subdir='3'",
        )


@pytest.mark.parametrize(
    "follower",
    [
        "image.name=${cluster.registry.server}", "image.name=a/${cluster.registry.server}/b",
        "image.name=${image.reference}", "image.name=${.reference}",
        "image.name=${oc.select:cluster.registry.server}",
        "image.name='${cluster.${allow[0]}}'", "+image.x=[{y: ${cluster.registry}}]",
    ],
)  # fmt: skip
def test_what_follows_a_key_follows_it_in_each_cell(loader: ConfigLoader, follower: str) -> None:
    master = composed(loader)
    ours = Composer(loader, master)
    for server in ("a.example.com", "b.example.com", "a.example.com"):
        cell = [f"cluster.registry.server={server}", "allow=[registry.server]", follower]
        assert not isinstance(require_equal(loader, master, ours, *cell), tuple)


def test_the_job_of_a_cell_is_what_it_would_be_alone(loader: ConfigLoader) -> None:
    ours, shared = Composer(loader, composed(loader)), Shared()
    levels = product(
        ("image=vllm", "image=pytorch_large"), ("cluster.zones=1", "cluster.zones=3"),
        ("replicas=1", "replicas=2", "engine.rates.api_call_s=0.5"),
    )  # fmt: skip
    found = set()
    for cell in levels:
        values = ours.values(cell)
        job = jobs.job_from(values, shared)
        assert job == jobs.job_from(copy.deepcopy(values))
        found.add(jobs.cell_id(job))
    assert len(found) == 12


@pytest.mark.parametrize(
    "override",
    [
        "replicas=abc", "replicas=1.5", "replicsa=3", "cluster.nodes.max_pods=3", "cache=tepid",
        "max_hours=long", "cluster=3", "engine=foo", "image=null", "cluster.node=5",
        "order.x=1", "~nothing", "+replicas=3", "image@x=vllm", "replicas=[1]",
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_hydras_words(loader: ConfigLoader, override: str) -> None:
    master = composed(loader)
    refused = require_equal(loader, master, Composer(loader, master), "qps=5", override)
    assert isinstance(refused, tuple)


# Checking: texts alike are composed once, and read as if each were composed

VALUE_LINES = st.builds(
    "{}{}: {}{}".format,
    st.sampled_from(["", "  ", "- "]),
    st.sampled_from(["a", "b_c", "key"]),
    st.one_of(
        st.sampled_from(
            ["5", "05", "1.5", "true", "y", "null", "3m", "a-b", "2026-11-25", "0x1F", "1_0",
             '"x y"', '"5"', '""', "'q'", "[1, 2]", "|", ">-", "&a 5", "*a", "word more", "{x: 1}"]
        ),
        st.integers().map(str),
        st.text("ab 1#:'", max_size=5).map(lambda text: f'"{text}"'),
    ),
    st.sampled_from(["", "  ", " # told"]),
)  # fmt: skip


def node(found: Any) -> Any:
    """A node as data: its tag, its line and what it holds."""
    held = found.value
    if isinstance(found, yaml.MappingNode):
        held = [(node(key), node(value)) for key, value in found.value]
    elif isinstance(found, yaml.SequenceNode):
        held = [node(each) for each in found.value]
    return found.tag, found.start_mark.line, held


@given(st.lists(st.lists(VALUE_LINES, min_size=1, max_size=5), min_size=1, max_size=8))
def test_yaml_is_read_as_if_no_text_like_it_had_been_read_before(texts: list[list[str]]) -> None:
    for lines in texts:
        text = "\n".join(lines) + "\n"
        try:
            wanted = [node(one) for one in yaml.compose_all(text, Loader=Loader)]
        except yaml.YAMLError:
            with pytest.raises(yaml.YAMLError):
                alike.compose(text, Loader)
            continue
        assert [node(one) for one in alike.compose(text, Loader)] == wanted


@given(st.lists(st.tuples(st.integers(), st.booleans(), st.text("ab 1#", max_size=4))))
def test_texts_alike_differ_in_their_values(rows: list[tuple[int, bool, str]]) -> None:
    for number, flag, text in rows:
        written = (
            f'top:\n- n: {number} # told\n  deep:\n    flag: {flag}\n- t: "{text}"\n  same: 1\n'
        )
        wanted = [node(one) for one in yaml.compose_all(written, Loader=Loader)]
        assert [node(one) for one in alike.compose(written, Loader)] == wanted


@pytest.mark.slow
def test_five_hundred_cells_are_checked_in_little_time_and_memory(tmp_path: Path) -> None:
    # The benchmark's figure is 3 s on a quiet machine; here only a return of Hydra's cost fails.
    done = python(ROOT, "benchmarks/sweep.py", "--times", "1", "--trials", "3", timeout_s=300)
    assert done.status == 0, done.err
    cpu_s, peak_mib = re.findall(r"([\d.]+) │ +([\d.]+) │\n└", done.out)[0]
    assert float(cpu_s) < 15
    assert float(peak_mib) < 300


# From a command to its cells


def rendered(root: Path, *arguments: str) -> list[str]:
    """The names of the cells that a command spans, in its order."""
    ended = run_py(root, "-m", *arguments, "tracking=none", "until=render")
    assert ended.status == 0, ended.err
    return [line.split(":")[0] for line in ended.out.splitlines()[:-1]]


@pytest.mark.parametrize(
    ("arguments", "cells"),
    [
        (["replicas=choice(1,5)"], ["r1", "r5"]),
        (["replicas=range(1,10,3)"], ["r1", "r4", "r7"]),
        (["image=glob(even_5*)"], ["even_5gb_1", "even_5gb_10"]),
        (["image=glob(*,exclude=[e*,p*,r*])", "nodes=10,20"], ["n10", "n20"]),
        (["replicas=sort(5,1,3)"], ["r1", "r3", "r5"]),
        (["replicas=sort(5,1,3,reverse=true)"], ["r5", "r3", "r1"]),
        (["qps=1.5,2"], ["q1.5", "q2"]),
        (["replicas=1,2", "replicas=3,4"], ["r3", "r4"]),
        (["replicas=1,2", "qps=5,10", "exclude=['replicas*qps=10']"], ["r1 q5", "r2 q10"]),
    ],
)
def test_hydras_sweep_syntax_spans_a_matrix(
    tmp_path: Path, arguments: list[str], cells: list[str]
) -> None:
    assert rendered(tmp_path, *arguments) == cells


def test_a_shuffled_axis_has_every_level_once(tmp_path: Path) -> None:
    found = rendered(tmp_path, "replicas=shuffle(1,2,3,4,5)")
    assert sorted(found) == ["r1", "r2", "r3", "r4", "r5"]


def test_an_interval_is_no_matrix(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "-m", "replicas=interval(1,5)", "tracking=none")
    assert ended.status == 2
    assert "a matrix needs a list of levels" in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("replicas=range(3,1)", "replicas=range(3,1) holds no level of replicas"),
        ("image=glob(zzz*)", "image=glob(zzz*) holds no level of image"),
        ("replicas=range(1,4,0)", "replicas=range(1,4,0): range() arg 3 must not be zero"),
        ("~exclude", "~exclude: no sweep is without exclude"),
    ],
)
def test_an_axis_without_levels_is_refused_by_name(
    tmp_path: Path, argument: str, said: str
) -> None:
    ended = run_py(tmp_path, "-m", argument, "tracking=none")
    assert ended.status == 2
    assert ended.err.startswith(f"error: {said}\n")


# Each trial is a job of Hydra's, run with what was checked


def test_a_job_is_what_hydras_own_launcher_makes_of_it(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "-m", "replicas=1,2", "qps=5", "trials=2", "tracking=none")
    assert ended.status == 0, ended.err
    for number in range(4):
        job = ended.sweep / str(number)
        told = yaml.safe_load((job / ".hydra/hydra.yaml").read_text())["hydra"]
        trial = ended.records[number].trial
        replicas = ended.records[number].factors["replicas"]
        task = [f"replicas={replicas}", "qps=5", "trials=2", "tracking=none", f"trial={trial}"]
        assert (told["job"]["num"], told["job"]["id"]) == (number, str(number))
        assert told["overrides"]["task"] == task
        assert told["job"]["override_dirname"] == ",".join(sorted(task))
        assert told["runtime"]["output_dir"] == str(job)
        assert told["runtime"]["choices"]["image"] == "pytorch_large"
        assert told["mode"] == "MULTIRUN"
        assert yaml.safe_load((job / ".hydra/overrides.yaml").read_text()) == task
        config = yaml.safe_load((job / ".hydra/config.yaml").read_text())
        resolved = yaml.safe_load((job / "config.resolved.yaml").read_text())
        assert config["replicas"] == resolved["replicas"] == replicas
        assert config["trial"] == resolved["trial"] == trial
        assert config["image"]["reference"] == "${cluster.registry.server}/pytorch:large"


class Witness(Callback):
    """A task of Hydra's, and a callback beside it, that keep what they are given."""

    def __init__(self, *, breaks: bool) -> None:
        self.breaks = breaks
        self.seen: dict[str, Any] = {}

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._see("start", config)

    def __call__(self, config: DictConfig) -> str:
        self._see("task", config)
        self.seen["hydra"] = OmegaConf.to_yaml(HydraConfig.get())
        self.seen["follows"] = config.wait_timeout, HydraConfig.get().runtime.output_dir
        logging.getLogger("task").info("works")
        if self.breaks:
            raise ValueError("broken")
        return "done"

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        self._see("end", config)
        self.seen["return"] = {
            key: OmegaConf.to_yaml(value) if OmegaConf.is_config(value) else repr(value)
            for key, value in vars(job_return).items()
        }

    def _see(self, moment: str, config: DictConfig) -> None:
        told = os.environ.get("IMGPULL_TOLD"), [type(each).__name__ for each in log_handlers()]
        self.seen[moment] = OmegaConf.to_yaml(config), str(Path.cwd()), *told


def log_handlers() -> list[logging.Handler]:
    """Where the log of this process goes, but for what reads it for the tests."""
    return [each for each in logging.getLogger().handlers if type(each).__module__ == "logging"]


def close_logs() -> None:
    for handler in log_handlers():
        logging.getLogger().removeHandler(handler)
        handler.close()


def left_in(directory: Path) -> dict[str, str | None]:
    """Every file with its content, but for the time in a log."""
    return {
        str(path.relative_to(directory)): re.sub(r"^\[[^]]+\]", "", path.read_text())
        if path.is_file()
        else None
        for path in directory.rglob("*")
    }


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize(
    "told",
    [
        [], ["hydra.job.chdir=true"], ["+hydra.job.env_set.IMGPULL_TOLD=yes"],
        ["hydra.output_subdir=null"], ["hydra.output_subdir=a/b"], ["hydra/job_logging=none"],
    ],
)  # fmt: skip
def test_a_job_sees_and_leaves_what_it_does_under_hydra(
    loader: ConfigLoader, tmp_path: Path, told: list[str], breaks: bool
) -> None:
    ours = Composer(loader, composed(loader, "hydra.job.name=run", *told))
    directory = tmp_path / "sweep"
    cell = [
        "image=vllm", "replicas=2", "wait_timeout=${pod_startup_threshold}", "image.name='1e3'",
        f"hydra.sweep.dir='{directory}'", "hydra.sweep.subdir='3/attempt-2'",
    ]  # fmt: skip
    where = "hydra.sweep.dir", "hydra.sweep.subdir"

    def hydras(context: HydraContext, task: Witness) -> None:
        hydra_utils.run_job(task, ours.config(cell), *where, context)

    def our_own(context: HydraContext, task: Witness) -> None:
        hydra_job.run_job(context, task, ours.config(cell), ours.task_config(cell))

    outcomes = []
    for run in (hydras, our_own):
        hydra_utils.setup_globals()
        witness, callbacks = Witness(breaks=breaks), Callbacks()
        callbacks.callbacks = [witness]
        run(HydraContext(config_loader=loader, callbacks=callbacks), witness)
        close_logs()
        after = HydraConfig.instance().cfg, Path.cwd(), os.environ.get("IMGPULL_TOLD")
        outcomes.append({**witness.seen, "left": left_in(directory), "after": after})
        shutil.rmtree(directory)
    hydra_s, own = outcomes
    assert own == hydra_s
    assert set(hydra_s) == {"start", "task", "hydra", "follows", "end", "return", "left", "after"}


TEXT = st.text().filter(lambda text: "${" not in text)  # which would be read as one of OmegaConf's


@given(st.dictionaries(st.text("ab1."), TEXT | st.integers() | st.none() | st.booleans()))
def test_a_snapshot_is_read_as_the_one_that_hydra_writes(content: dict[str, Any]) -> None:
    config = OmegaConf.create({"+" + key: value for key, value in content.items()})
    read = OmegaConf.create(hydra_job.to_yaml(config))
    plain = OmegaConf.to_container(config, resolve=False)
    assert OmegaConf.to_container(read, resolve=False) == plain


CALLBACK = """
from hydra.experimental.callback import Callback

class Seen(Callback):
    def on_job_start(self, config, *, task_function, **kwargs):
        print(f"begins {config.hydra.job.num} {config.replicas}")

    def on_job_end(self, config, job_return, **kwargs):
        print(f"over {config.hydra.job.num} {job_return.status.name}")
"""


def test_callbacks_of_jobs_are_called(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    (project / "seen.py").write_text(CALLBACK)
    ended = python(
        project, "run.py", "-m", "replicas=1,2", "order=as_given", "tracking=none",
        "+hydra.callbacks.seen._target_=seen.Seen",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[:4] == [
        "begins 0 1", "over 0 COMPLETED", "begins 1 2", "over 1 COMPLETED",
    ]  # fmt: skip


# Hydra's own sweeper

BASIC = ("-m", "hydra/sweeper=basic", "tracking=none")


def test_hydras_basic_sweeper_runs_the_same_jobs(tmp_path: Path) -> None:
    matrix = ("replicas=1,2", "cluster.node.nic_mbit_s=2000,4000")
    ours = run_py(tmp_path, "-m", *matrix, "tracking=none")
    basic = run_py(tmp_path, *BASIC, *matrix)
    assert basic.status == ours.status == 0, basic.err
    told = "replicas=1 nic_mbit_s=2000  valid"
    assert told in basic.err.splitlines()
    assert basic.out.splitlines()[-1].startswith("summary:")
    assert (basic.sweep / "summary.csv").exists()
    for number in range(4):
        theirs, own = read_record(basic.sweep / str(number)), read_record(ours.sweep / str(number))
        assert theirs.cell_id == own.cell_id
        assert theirs.trial_id == own.trial_id
        assert theirs.bundle_sha256 == own.bundle_sha256
        assert theirs.factors == own.factors
        assert theirs.verdict == "valid"
        pulls = [
            (sweep / f"{number}/pulls.csv").read_bytes() for sweep in (basic.sweep, ours.sweep)
        ]
        assert pulls[0] == pulls[1]


def test_sweeps_of_the_basic_sweeper_share_no_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *BASIC, "nodes=2", "deployments=2,3"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120) and process.returncode for process in both] == [0, 0]
    sweeps = list((tmp_path / "multirun").iterdir())
    assert [len(list(sweep.glob("*/job.json"))) for sweep in sweeps] == [2, 2]
    assert all(re.fullmatch(r"[\d_-]+_[0-9a-f]{4}", sweep.name) for sweep in sweeps)


def test_under_the_basic_sweeper_trials_are_an_axis(tmp_path: Path) -> None:
    ended = run_py(tmp_path, *BASIC, "replicas=1,2", "trial=1,2")
    assert ended.status == 0, ended.err
    assert len({record.trial_id for record in ended.records}) == 4
    assert all(set(record.factors) == set(jobs.FACTORS) for record in ended.records)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("trials=2", "sweep over trial instead: trial=1,2,3"),
        ("resume=auto", "resume=auto means nothing to hydra/sweeper=basic"),
        ("exclude=['qps>5']", "means nothing to hydra/sweeper=basic"),
        ("until=render", "until=render means nothing"),
        ("order=shuffled", "order=shuffled means nothing"),
        ("target_effect=10%", "target_effect=10% means nothing"),
        ("engine=docker", "holds a cluster for a whole sweep"),
        ("replicas=500", "cannot fit"),
        ("hydra.mode=RUN", "hydra.mode=RUN runs no sweep"),
    ],
)
def test_what_the_basic_sweeper_cannot_do_is_refused(
    tmp_path: Path, argument: str, said: str
) -> None:
    where = ["hydra.run.dir=out"] if argument == "hydra.mode=RUN" else []
    ended = run_py(tmp_path, "hydra/sweeper=basic", "tracking=none", argument, *where)
    assert ended.status == 2
    assert said in ended.err
    assert not list(tmp_path.rglob("job.json"))


def test_a_failed_job_under_the_basic_sweeper_is_told_by_the_exit_status(tmp_path: Path) -> None:
    matrix = ["replicas=1,2", "engine.faults.lost_nodes=0,5", "wait_timeout=20m"]
    ended = run_py(tmp_path, *BASIC, *matrix)
    verdicts = {record.verdict for record in ended.records}
    assert len(ended.records) == 4
    assert verdicts > {"valid"}
    assert ended.status == 1


def test_the_basic_sweeper_logs_one_parent_and_a_child_a_job(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(database())
    ended = run_py(tmp_path, "-m", "hydra/sweeper=basic", "replicas=1,2")
    assert ended.status == 0, ended.err
    parent, children = runs(tmp_path)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert {run.data.params["replicas"] for run in children} == {"1", "2"}
