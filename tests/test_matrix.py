"""From a command to its cells: composed as Hydra does, constrained, checked, and run as such."""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import ROOT
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ImgpullError
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
    "image.name": ["renamed", "'a b'"],
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
        return config
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
