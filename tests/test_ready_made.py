"""A test that the user brings: its files run as they are, under a name of their own."""

import re
import shutil
from pathlib import Path

import pytest
from acting import FITS, Acting, kubeconfig
from apiserver import ApiServer
from commands import Ended, run_py
from standins import REPORTS, ClusterLoader, clusterloader

from imgpull.config.readymade import read_test
from imgpull.errors import ConfigError

TEST = "name: mine\nnamespace:\n  number: 1\nsteps: {{$anything}}\n"


def made(directory: Path, **files: str | bytes) -> Path:
    directory.mkdir(parents=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (directory / name.replace("_", ".")).write_bytes(data)
    return directory


def test_a_test_may_be_named_as_perf_tests_names_it(tmp_path: Path) -> None:
    found = read_test(made(tmp_path / "t", config_yaml=TEST, other_yaml="x: 1\n"))
    assert found == {"image-pull.yaml": TEST, "other.yaml": "x: 1\n", "overrides.yaml": "{}\n"}


def test_its_own_overrides_stay(tmp_path: Path) -> None:
    found = read_test(made(tmp_path / "t", config_yaml=TEST, overrides_yaml="A: 1\n"))
    assert found["overrides.yaml"] == "A: 1\n"


WRONG = [
    ({}, "holds no test"),
    ({"other_yaml": "x: 1"}, "holds no test"),
    ({"config_yaml": TEST, "image-pull_yaml": TEST}, "holds image-pull.yaml and config.yaml"),
    ({"config_yaml": b"\xff\xfe"}, "cannot be read"),
    ({"config_yaml": TEST.replace("number: 1", "number: 3")}, "its test uses 3 namespaces"),
    ({"config_yaml": "#" * (2**20 + 1)}, "has 1048577 bytes"),
]


@pytest.mark.parametrize(("files", "words"), WRONG)
def test_what_a_bundle_cannot_be_is_refused(
    tmp_path: Path, files: dict[str, str | bytes], words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_test(made(tmp_path / "t", **files))


def test_no_folder_and_a_folder_within_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        read_test(tmp_path / "absent")
    directory = made(tmp_path / "t", config_yaml=TEST)
    (directory / "modules").mkdir()
    with pytest.raises(ConfigError, match="is a folder in the folder"):
        read_test(directory)


@pytest.fixture
def program(tmp_path: Path) -> ClusterLoader:
    report = shutil.copytree(
        REPORTS / "own-2026-two-nodes", tmp_path / "recorded",
        ignore=shutil.ignore_patterns("generatedConfig*"),
    )  # fmt: skip
    return clusterloader(tmp_path / "bin", act="replay", report=str(report))


def sweep(apiserver: ApiServer, tmp_path: Path, program: ClusterLoader, *arguments: str) -> Ended:
    access = kubeconfig(apiserver, tmp_path, "a-token")
    return run_py(
        tmp_path, "-m", "engine=binary", f"engine.path={program.path}", "engine.settle=1ms",
        f"engine.kubeconfig={access}", "tracking=none", *FITS, *arguments,
    )  # fmt: skip


def test_it_runs_as_it_is_compiled_first_and_is_a_factor_by_its_name(
    apiserver: ApiServer, tmp_path: Path, program: ClusterLoader
) -> None:
    Acting(apiserver)
    one = made(tmp_path / "tests" / "one", config_yaml=TEST, pod_yaml="kind: Pod\n")
    two = made(tmp_path / "tests" / "two", config_yaml=TEST + "# other\n")
    ended = sweep(apiserver, tmp_path, program, f"engine.bundle={one},{two}")
    assert ended.status == 0, ended.err
    assert [record.factors["bundle"] for record in ended.records] == ["one", "two"]
    assert all("deployments" not in record.factors for record in ended.records)
    assert ended.records[0].cell_id != ended.records[1].cell_id
    bundle = ended.sweep / "0" / "bundle"
    assert {path.name: path.read_text("utf-8") for path in bundle.iterdir()} == read_test(one)
    ways = ["--dry-run=true" in start["argv"] for start in program.starts]
    assert ways == [True, True, False, False], "both are compiled before the first runs"


def test_a_load_that_the_test_decides_cannot_be_swept_beside_it(
    apiserver: ApiServer, tmp_path: Path, program: ClusterLoader
) -> None:
    Acting(apiserver)
    one = made(tmp_path / "one", config_yaml=TEST)
    ended = sweep(apiserver, tmp_path, program, f"engine.bundle={one}", "replicas=1,2")
    assert ended.status == 2
    assert "two cells measure the same" in ended.err
