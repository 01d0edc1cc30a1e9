"""docs/configuration.md and the schema say the same: keys, defaults, choices, what is refused."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum, EnumMeta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from omegaconf import MISSING, OmegaConf

from imgpull.config import job as jobs
from imgpull.config import schema

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "configuration.md").read_text()
TABLES = [
    [cell.strip() for cell in line[2:-2].split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| `")
]
ROWS = {key.strip("`"): rest for key, *rest in TABLES if len(rest) >= 3}
GROUPS = ("cluster", "engine", "experiment", "image", "tracking")


def keys_of(kind: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Each key under a dataclass as (key, type, default), nested ones and list items included."""
    hints, defaults = get_type_hints(kind), kind()
    for item in fields(kind):
        key, hint = f"{prefix}{item.name}", hints[item.name]
        if is_dataclass(hint) and isinstance(hint, type):
            if key in GROUPS:  # its default is the option that config.yaml names
                yield key, hint, None
            yield from keys_of(hint, f"{key}.")
            continue
        default = getattr(defaults, item.name)
        yield key, hint, default.name if isinstance(default, Enum) else default
        for inner in get_args(hint):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from keys_of(inner, f"{key}[].")


def plain(config: Any) -> dict[str, Any]:
    """A config as plain data."""
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def load(path: str) -> dict[str, Any]:
    """A file of conf/ as plain data."""
    return plain(OmegaConf.load(ROOT / "conf" / path))


RATES: dict[str, float] = load("engine/sim.yaml")["rates"]
SCHEMA = {key: (hint, default) for key, hint, default in keys_of(schema.Config, "")}
ENGINE_KEYS = {
    key: default
    for kind in schema.ENGINES.values()
    for key, _, default in keys_of(kind, "engine.")
    if key not in ("engine.kind", "engine.rates")  # an option's own, and a file's
}
ENGINE = {f"engine.rates.{name}" for name in RATES} | set(ENGINE_KEYS)
ENGINE |= {"engine.kind", "engine.rates"}


def said(key: str) -> Any:
    """The default that the page gives, read as Hydra would read it."""
    cell = ROWS[key][1].strip("`")
    if cell == "required":
        return MISSING
    if key in SCHEMA and cell == SCHEMA[key][1]:
        return cell  # text stays text: YAML would make a boolean of off
    return plain(OmegaConf.create(f"x: {cell}"))["x"]


def test_every_key_of_the_schema_is_documented_and_no_other() -> None:
    assert set(ROWS) == set(SCHEMA) | ENGINE | {"experiment"}


@pytest.mark.parametrize("key", sorted(set(SCHEMA) - set(GROUPS)))
def test_a_documented_default_is_the_schema_s(key: str) -> None:
    assert said(key) == SCHEMA[key][1]


@pytest.mark.parametrize("name", sorted(RATES))
def test_a_documented_rate_is_the_simulator_s(name: str) -> None:
    assert float(said(f"engine.rates.{name}")) == float(RATES[name])


@pytest.mark.parametrize("key", sorted(ENGINE_KEYS))
def test_a_documented_engine_default_is_the_schema_s(key: str) -> None:
    assert said(key) == ENGINE_KEYS[key]


def test_the_simulator_s_file_says_every_key_with_the_schema_s_default() -> None:
    job = jobs.job_from(VALUES | {"engine": load("engine/sim.yaml")})
    assert job.engine == schema.SimEngine(rates=RATES)
    written = load("engine/sim.yaml")
    for group in ("faults", "held"):
        assert set(written[group]) == {
            item.name for item in fields(type(getattr(job.engine, group)))
        }


def test_a_documented_group_default_is_that_of_config_yaml() -> None:
    chosen: dict[str, Any] = {}
    for entry in load("config.yaml")["defaults"]:
        chosen |= entry if isinstance(entry, dict) else {}
    assert {group: said(group) for group in GROUPS} == {group: chosen[group] for group in GROUPS}


def test_every_choice_of_a_key_is_named_in_its_row() -> None:
    choices = {key: hint for key, (hint, _) in SCHEMA.items() if isinstance(hint, EnumMeta)}
    assert choices
    for key, kind in choices.items():
        unnamed = [name for name in kind.__members__ if f"`{name}`" not in " ".join(ROWS[key])]
        assert not unnamed, key


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_is_named(group: str) -> None:
    section = TEXT.split(f"\n### {group}\n")[1].split("\n## ")[0].split("\n### ")[0]
    options = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert options
    assert {option for option in options if f"`{option}`" not in section} == set()


def test_an_experiment_s_documented_question_is_that_of_its_file() -> None:
    for path in (ROOT / "conf" / "experiment").glob("*.yaml"):
        question = re.sub(r"^# |  \(.*$", "", path.read_text().splitlines()[1])
        assert f"| `{path.stem}` | {question} |" in TEXT


VALUES: dict[str, Any] = {
    "image": {"name": "small", "reference": "registry.example/small:1"},
    "cluster": load("cluster/aks_d4ds_v5.yaml"),
    "engine": {"kind": "sim"},
}
