"""Laws of conf/: every file composes into a sound Job, adds up, and names its sources."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from imgpull import units
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.simcluster import model

CONF = Path(__file__).parents[1] / "conf"
CLUSTERS = sorted((CONF / "cluster").glob("*.yaml"))
AKS_CLUSTERS = sorted((CONF / "cluster").glob("aks_*.yaml"))
IMAGES = sorted((CONF / "image").glob("*.yaml"))
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
PUBLISHED_IMAGES = ["pytorch_large", "pytorch_devel", "vllm", "resource_consumer"]
GB = 10**9

Compose = Callable[..., jobs.Job]


def by_name(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def job_of() -> Iterator[Compose]:
    """A function that composes overrides as Hydra does and gives the checked Job."""
    schema.register()

    @cache  # composing takes 0.15 s
    def composed(*overrides: str) -> jobs.Job:
        return jobs.job_from(jobs.resolve(compose("config", overrides=list(overrides))))

    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield composed


def axes(experiment: Path) -> dict[str, list[str]]:
    """The factors that an experiment sweeps, with their levels, in the file's order."""
    swept = OmegaConf.select(OmegaConf.load(experiment), "hydra.sweeper.params") or {}
    return {str(key): [level.strip() for level in str(swept[key]).split(",")] for key in swept}


def cells(experiment: Path) -> list[list[str]]:
    """The overrides of each cell of an experiment."""
    choices = [[f"{key}={level}" for level in levels] for key, levels in axes(experiment).items()]
    return [[f"experiment={experiment.stem}", *cell] for cell in itertools.product(*choices)]


def layers(name: str) -> list[tuple[int, int]]:
    """Compressed and unpacked bytes of each layer, as the file gives them; 0 what it does not."""
    raw = yaml.safe_load((CONF / "image" / f"{name}.yaml").read_text())["layers"]
    parse = units.parse_size
    return [(parse(item["compressed_bytes"]), parse(item["unpacked_bytes"] or 0)) for item in raw]


def compressed(name: str) -> int:
    return sum(layer[0] for layer in layers(name))


def unpacked(name: str) -> int:
    return sum(layer[1] for layer in layers(name))


def shape(value: Any) -> Any:
    """The keys of nested mappings, in order."""
    return [(key, shape(item)) for key, item in value.items()] if isinstance(value, dict) else None


def shape_of_cluster(path: Path) -> Any:
    content = yaml.safe_load(path.read_text())
    for free in ("node_selector", "prometheus_node_selector"):
        content[free] = None
    return shape(content)


@pytest.mark.parametrize("path", CLUSTERS, ids=by_name)
def test_every_cluster_composes_under_its_own_name(path: Path, job_of: Compose) -> None:
    assert job_of(f"cluster={path.stem}").cluster.name == path.stem


@pytest.mark.parametrize("path", IMAGES, ids=by_name)
def test_every_image_composes_under_its_own_name_with_a_layer_table(
    path: Path, job_of: Compose
) -> None:
    image = job_of(f"image={path.stem}").image
    assert image.name == path.stem
    assert image.layers


@pytest.mark.parametrize(
    "overrides",
    [
        ["engine=sim"],
        ["engine=replay", "engine.report=somewhere"],
        ["engine=binary"],
        ["engine=docker"],
        ["engine=incluster"],
        ["tracking=local"],
        ["tracking=none"],
        ["tracking=server", "tracking.uri=http://localhost:5000"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_engine_and_tracking_composes(overrides: list[str], job_of: Compose) -> None:
    group, option = overrides[0].split("=")
    assert (CONF / group / f"{option}.yaml").is_file()
    assert job_of(*overrides).image.name == "pytorch_large"


def test_the_engine_and_tracking_options_tested_are_all_there_are() -> None:
    engines = {"sim", "replay", "binary", "docker", "incluster"}
    assert {path.stem for path in (CONF / "engine").iterdir()} == engines
    assert {path.stem for path in (CONF / "tracking").iterdir()} == {"local", "none", "server"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=by_name)
def test_every_cell_of_an_experiment_is_a_sound_job(path: Path, job_of: Compose) -> None:
    found = {jobs.cell_id(job_of(*cell)) for cell in cells(path)}
    assert len(found) == len(cells(path)), "two cells are the same"


@pytest.mark.parametrize("path", EXPERIMENTS, ids=by_name)
def test_an_experiment_opens_with_its_question_and_its_number_of_cells(path: Path) -> None:
    package, question, *_ = path.read_text().splitlines()
    assert package == "# @package _global_"
    asked = re.fullmatch(r"# [A-Z].*\?  \((\d+) cells?\)", question)
    assert asked, question
    assert int(asked[1]) == len(cells(path))


def test_scale_out_gives_every_node_one_pull(job_of: Compose) -> None:
    sizes = [job_of(*cell) for cell in cells(CONF / "experiment" / "scale_out.yaml")]
    assert [job.pods for job in sizes] == [job.nodes for job in sizes]


@pytest.mark.parametrize(
    ("name", "nodes", "pods_a_node"), [("telescope_n10", 10, 20), ("telescope_n1000", 1000, 1)]
)
def test_telescope_pods_a_node_are_its_max_pods_less_six_daemons(
    name: str, nodes: int, pods_a_node: int, job_of: Compose
) -> None:
    job = job_of(f"experiment={name}")
    assert (job.nodes, job.pods / job.nodes) == (nodes, pods_a_node)
    assert job.cluster.node.disk_write_mb_s == 100, "its pools have managed disks"


def test_pytorch_large_is_15_gb_unpacked() -> None:
    assert unpacked("pytorch_large") == 15 * GB


def test_pytorch_devel_has_the_bytes_of_the_kubelet_event() -> None:
    assert compressed("pytorch_devel") == 9_371_344_010


def test_vllm_is_10_31_gb_compressed_with_three_giants() -> None:
    assert compressed("vllm") == 10_310_000_000
    giants = [layer[0] for layer in layers("vllm") if layer[0] >= GB]
    assert giants == [2 * GB, 3 * GB, 5 * GB]


def test_resource_consumer_is_50_mb_compressed() -> None:
    assert compressed("resource_consumer") == 50_000_000


@pytest.mark.parametrize(("size_gb", "count"), [(5, 1), (5, 10), (15, 1), (15, 10)])
def test_even_images_of_one_size_differ_in_layers_only(size_gb: int, count: int) -> None:
    table = layers(f"even_{size_gb}gb_{count}")
    assert len(table) == count
    assert len(set(table)) == 1
    assert unpacked(f"even_{size_gb}gb_{count}") == size_gb * GB
    assert compressed(f"even_{size_gb}gb_{count}") == unpacked(f"even_{size_gb}gb_{count}") / 2.5


@pytest.mark.parametrize("name", ["pytorch_large", "pytorch_devel"])
def test_one_layer_of_a_pytorch_image_carries_most_bytes(name: str) -> None:
    assert 0.50 <= max(layer[0] for layer in layers(name)) / compressed(name) <= 0.97


@pytest.mark.parametrize("name", PUBLISHED_IMAGES)
def test_published_images_compress_by_2_to_2_9(name: str) -> None:
    assert 2.0 <= unpacked(name) / compressed(name) <= 2.9
    assert all(small <= large for small, large in layers(name))


@pytest.mark.parametrize("path", IMAGES, ids=by_name)
def test_totals_that_an_image_states_in_its_comment_are_those_of_its_layers(path: Path) -> None:
    header = " ".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#"))
    stated = {
        kind: [units.parse_size(size.replace(" ", "")) for size in found]
        for kind in ("compressed", "unpacked")
        if (found := re.findall(rf"(\d[\d .]* ?(?:GB|MB|B)) {kind}", header))
    }
    assert stated, "the comment states no total"
    for kind, sizes in stated.items():
        total = compressed(path.stem) if kind == "compressed" else unpacked(path.stem)
        for size in sizes:
            assert size == pytest.approx(total, rel=5e-4), kind


def test_clusters_have_the_same_keys_in_the_same_order() -> None:
    first, *others = [shape_of_cluster(path) for path in CLUSTERS]
    assert others
    assert all(other == first for other in others)


@pytest.mark.parametrize("path", AKS_CLUSTERS, ids=by_name)
def test_a_cluster_is_named_after_its_vm_size(path: Path) -> None:
    node = yaml.safe_load(path.read_text())["node"]
    assert path.stem == node["vm_size"].lower().replace("standard", "aks")
    assert f"_d{node['vcpus']}" in path.stem


SOURCE = re.compile(r"# .*(?:ASSUMPTION|docs|default|AKS)")
IN_THE_TITLE = ("vcpus", "memory_gib", "nic_mbit_s")


@pytest.mark.parametrize("path", AKS_CLUSTERS, ids=by_name)
def test_every_figure_of_a_cluster_names_its_source_or_is_an_assumption(path: Path) -> None:
    title, *lines = path.read_text().splitlines()
    assert "Azure docs" in title
    figures = [line for line in lines if re.match(r"  \w+: \d", line)]
    assert len(figures) >= 16
    for line in figures:
        assert line.split(":")[0].strip() in IN_THE_TITLE or SOURCE.search(line), line


RATE_SOURCE = re.compile(r"ASSUMPTION|measured|issue #|pkg/|test/|Documentation/|PLEG")


def test_every_rate_of_the_simulator_is_there_and_names_its_source_or_is_an_assumption() -> None:
    text = (CONF / "engine" / "sim.yaml").read_text().split("rates:\n")[1].split("\n\n")[0]
    names, unsourced = [], []
    above = ""  # the comment that the lines under it share, until one has its own
    for comment, name, own in re.findall(r"((?: +#.*\n)*) +(\w+):[^#\n]*(.*)", text):
        above = comment or above
        names.append(name)
        if not RATE_SOURCE.search(own or above):
            unsourced.append(name)
        above = "" if own else above
    assert names == [item.name for item in fields(model.Rates)]
    assert not unsourced


def test_the_faults_rehearsed_are_off_by_default(job_of: Compose) -> None:
    assert isinstance(job_of().engine, schema.SimEngine)
    assert job_of().engine.faults == schema.Faults()
    plain, faulty = [job_of(*cell) for cell in cells(CONF / "experiment" / "faults_rehearsal.yaml")]
    assert plain.engine.faults == schema.Faults()
    assert faulty.engine.faults.pull_shares.network == 0.1


def test_a_managed_disk_bursts_as_far_as_disk_and_machine_do(job_of: Compose) -> None:
    for cell in ("cluster=aks_d2s_v3", "cluster=aks_d4s_v3", "experiment=telescope_n10"):
        assert job_of(cell).cluster.node.disk_burst_mb_s == 170


@pytest.mark.parametrize("path", IMAGES, ids=by_name)
def test_every_image_names_its_shape_s_source_and_says_what_is_assumed(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert re.search(r"Dockerfile|spegel-org/benchmark|manifest", header)
    assert re.search(r"ASSUMPTION|manifest", header)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_of_conf_opens_with_a_comment(path: Path) -> None:
    assert path.read_text().startswith("# ")
