"""Laws of `imgpull compare`: cells find each other, unlike ones are refused, verdicts earned."""

import csv
import io
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import FACTORS, write_trial
from commands import Ended, imgpull, run_py, runs
from hypothesis import given
from hypothesis import strategies as st

from imgpull.analysis.comparing import (
    INCONCLUSIVE,
    SAME,
    Comparison,
    compare_sides,
    mean_change,
    verdict_of,
)
from imgpull.analysis.comparison_text import as_json, closing, percent_interval
from imgpull.analysis.likeness import Unlike
from imgpull.analysis.sides import PRIMARY, Trial, quantity, read_side
from imgpull.analysis.statistics import Ratio, compare
from imgpull.errors import ConfigError, ReportError

Truth = Callable[[Mapping[str, Any]], float]
GRID: Mapping[str, Sequence[Any]] = {"nodes": (10, 20), "replicas": (1, 5)}
REAL = {"engine": "docker", "fingerprint": {"engine": "docker", "vm_size": "D4", "registry": "P"}}


def add_sweep(
    directory: Path,
    grid: Mapping[str, Sequence[Any]] = GRID,
    truth: Truth = lambda chosen: 100.0,
    *,
    trials: int = 5,
    noise: float = 0.02,
    luck: int = 1,
    factors: Mapping[str, Any] | None = None,
    censored: Callable[[Mapping[str, Any]], bool] = lambda chosen: False,
    also: Callable[[Mapping[str, Any]], Mapping[tuple[str, str], float]] = lambda chosen: {},
    **record: Any,
) -> Path:
    """A sweep on a real cluster; `luck` seeds what its trials differ by."""
    rng = np.random.default_rng(luck)
    order = itertools.product(range(1, trials + 1), itertools.product(*grid.values()))
    for job, (trial, levels) in enumerate(order):
        chosen = dict(zip(grid, levels, strict=True))
        seconds = truth(chosen) * math.exp(rng.normal(0, noise))
        values = {
            ("image_pull", "p50_at_least" if censored(chosen) else "p50"): seconds,
            ("node_throughput", "p50"): 15e9 / seconds,
            **also(chosen),
        }
        write_trial(
            directory / str(job),
            cell="-".join(map(str, levels)),
            trial=trial,
            factors={**FACTORS, **(factors or {}), **chosen},
            values=values,
            **(REAL | record),
        )
    return directory


def held(a: Path, b: Path, *, measurement: str = PRIMARY, **options: Any) -> Comparison:
    return compare_sides(read_side(a), read_side(b), measurement=measurement, **options)


def text(ended: Ended) -> str:
    assert ended.status == 0, ended.err
    return ended.out


# ---- Cells -----------------------------------------------------------------------------------


def test_cells_pair_by_their_factors_and_the_rest_is_named(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a")
    b = add_sweep(tmp_path / "b", {"nodes": (20, 30), "replicas": (1, 5)}, luck=2)
    found = held(a, b)
    assert [cell.name for cell in found.cells] == ["replicas 1, nodes 20", "replicas 5, nodes 20"]
    assert list(found.only_before) == ["replicas 1, nodes 10", "replicas 5, nodes 10"]
    assert list(found.only_after) == ["replicas 1, nodes 30", "replicas 5, nodes 30"]


def test_a_cell_is_compared_as_its_trials_are(tmp_path: Path) -> None:
    a, b = add_sweep(tmp_path / "a"), add_sweep(tmp_path / "b", luck=2)
    for cell in held(a, b).cells:
        sides = [
            [
                trial.numbers["image_pull", "p50"][0]
                for trial in read_side(place).trials
                if all(trial.levels[key] == level for key, level in cell.levels.items())
            ]
            for place in (a, b)
        ]
        assert cell.ratio == compare(*sides, paired=False)
        assert cell.p is not None
        assert cell.ratio.p is not None
        assert cell.p >= cell.ratio.p


def test_a_factor_with_one_level_a_side_is_what_is_compared(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", {"replicas": (1, 5)}, factors={"nodes": 10})
    b = add_sweep(tmp_path / "b", {"replicas": (1, 5)}, factors={"nodes": 20}, luck=2)
    found = held(a, b)
    assert [str(one) for one in found.differences] == ["nodes 10 -> 20"]
    assert [cell.name for cell in found.cells] == ["replicas 1", "replicas 5"]


def test_a_key_that_only_one_side_sweeps_has_its_level_in_the_others_configuration(
    tmp_path: Path,
) -> None:
    nic = "cluster.node.nic_mbit_s"
    fixed = {"config": {"cluster": {"node": {"nic_mbit_s": 5000.0}}}}
    a = add_sweep(tmp_path / "a", {nic: (1000, 5000)})
    b = add_sweep(tmp_path / "b", {"nodes": (10,)}, luck=2, **fixed)
    for one, other in ((a, b), (b, a)):
        found = held(one, other)
        assert [cell.name for cell in found.cells] == [f"{nic} 5000"]
    assert list(held(a, b).only_before) == [f"{nic} 1000"]


def test_sweeps_without_a_common_cell_are_refused_with_the_factor(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", {"nodes": (10, 20)})
    b = add_sweep(tmp_path / "b", {"nodes": (30, 40)})
    with pytest.raises(ReportError, match="nodes is 10 and 20 in one, 30 and 40 in the other"):
        held(a, b)


def test_only_the_last_attempt_and_only_counted_trials_are_compared(tmp_path: Path) -> None:
    a, b = add_sweep(tmp_path / "a", {"nodes": (10,)}), tmp_path / "b"
    add_sweep(b, {"nodes": (10,)}, luck=2)
    for name, verdict in (("0/attempt-2", "valid"), ("1", "invalid")):
        write_trial(
            b / name, cell="10", trial=int(name[0]) + 1, verdict=verdict,
            values={("image_pull", "p50"): 777.0 if verdict == "valid" else 1.0}, **REAL,
        )  # fmt: skip
    (cell,) = held(a, b).cells
    assert cell.readings[1][0].value == 777.0
    assert cell.ratio.n_after == 4


def test_one_trial_of_a_sweep_may_be_held_against_another(tmp_path: Path) -> None:
    sweep = add_sweep(tmp_path / "a", {"nodes": (10, 20)}, lambda chosen: 10.0 * chosen["nodes"])
    found = held(sweep / "0", sweep / "1")
    (cell,) = found.cells
    assert [one.field for one in found.differences] == ["nodes"]
    assert cell.ratio.ratio == pytest.approx(2, rel=0.15)
    assert cell.verdict == INCONCLUSIVE
    assert cell.ratio.low is None


@pytest.mark.parametrize(
    ("paired", "lost"), [(False, 0), (True, 0), (False, 4)], ids=["two sweeps", "pairs", "gaps"]
)
def test_the_mean_change_of_alike_sweeps_holds_no_change_in_95_of_a_hundred(
    tmp_path: Path, paired: bool, lost: int
) -> None:
    """12 cells in 5 blocks that differ by 10 %, trials by 3 %: no two cells are independent."""
    cells, blocks, times = 12, 5, 600
    grid = {"nodes": tuple(range(1, cells + 1))}
    sides = [read_side(add_sweep(tmp_path / name, grid, trials=blocks)) for name in "ab"]
    what = quantity(PRIMARY, sides)
    rng, held_in = np.random.default_rng(6), 0
    for _ in range(times):
        own = rng.normal(0, 0.10, (2, blocks, 1))
        logs = (own[:1] if paired else own) + rng.normal(0, 0.03, (2, blocks, cells))
        gone = rng.permutation(blocks * cells)[:lost]
        found: list[list[list[Trial]]] = [[[] for _ in range(cells)] for _ in sides]
        for side, read in enumerate(sides):
            for trial in read.trials:
                block, cell = trial.record.block - 1, trial.levels["nodes"] - 1
                if block * cells + cell not in gone:
                    seconds = math.exp(logs[side, block, cell])
                    numbers = {("image_pull", "p50"): (seconds, "s")}
                    found[side][cell].append(replace(trial, numbers=numbers))
        ratio, count = mean_change(list(zip(*found, strict=True)), what, paired=paired)
        assert ratio is not None
        assert count == cells
        assert ratio.low is not None
        assert ratio.high is not None
        held_in += ratio.low <= 1 <= ratio.high
    assert 0.93 <= held_in / times <= 0.985  # Welch's of 5 against 5 errs to the safe side


def test_cells_known_only_from_below_are_not_counted_into_the_mean_change(tmp_path: Path) -> None:
    grid = {"nodes": (10, 20, 30)}
    a = add_sweep(tmp_path / "a", grid)
    b = add_sweep(tmp_path / "b", grid, luck=2, censored=lambda chosen: chosen["nodes"] == 30)
    found = held(a, b)
    assert (len(found.cells), found.overall_cells) == (3, 2)
    assert closing(found)[0].startswith("over 2 of 3 cells, known on both sides: image pull p50")
    assert json.loads(as_json(found))["overall"]["cells"] == 2


# ---- Likeness --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "allowed"),
    [
        ({"vm_size": "D8"}, "vm_size"),
        ({"vm_size": "D8", "registry": "Basic"}, "cluster"),
        ({"image_layers": "other"}, "image"),
        ({"pod_startup_semantics": "event"}, "pod_startup_semantics"),
    ],
)
def test_unlike_fingerprints_are_refused_by_name_until_allowed(
    tmp_path: Path, changed: dict[str, str], allowed: str
) -> None:
    a = add_sweep(tmp_path / "a")
    b = add_sweep(tmp_path / "b", luck=2, fingerprint={**REAL["fingerprint"], **changed})
    with pytest.raises(Unlike) as refused:
        held(a, b)
    for field in changed:
        assert field in refused.value.message
        assert field in refused.value.hint
    others = {"vm_size", "cluster", "image", "pod_startup_semantics"} - {allowed}
    for other in others if len(changed) == 1 and allowed != "vm_size" else ():
        with pytest.raises(Unlike):
            held(a, b, allow=(other,))
    found = held(a, b, allow=(allowed,))
    assert {one.field for one in found.differences} == {*changed}


def test_simulated_against_measured_needs_the_engine_allowed_by_name(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a")
    simulated = {**REAL["fingerprint"], "engine": "sim"}
    b = add_sweep(tmp_path / "b", engine="sim", fingerprint=simulated)
    with pytest.raises(Unlike, match="engine docker -> sim"):
        held(a, b, allow=("cluster", "image"))
    found = held(a, b, allow=("engine",))
    assert not found.paired


def test_a_field_that_does_not_exist_cannot_be_allowed(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a")
    with pytest.raises(ConfigError, match="'vm_sise'") as refused:
        held(a, a, allow=("vm_sise",))
    assert "vm_size" in refused.value.hint


def test_a_setting_that_no_record_names_is_still_told(tmp_path: Path) -> None:
    settings = {"engine": {"rates": {"unpack": 1.0}}, "trials": 5, "nodes": 10}
    a = add_sweep(tmp_path / "a", {"nodes": (10,)}, config=settings)
    changed = {"engine": {"rates": {"unpack": 2.0}}, "trials": 8, "nodes": 10}
    b = tmp_path / "b"
    for trial in range(1, 6):
        write_trial(
            b / str(trial), cell="other", trial=trial, config=changed,
            values={("image_pull", "p50"): 100.0 + trial}, **REAL,
        )  # fmt: skip
    assert [str(one) for one in held(a, b).differences] == ["engine.rates.unpack 1 -> 2"]


def test_what_the_fingerprint_tells_is_not_told_again_as_a_setting(tmp_path: Path) -> None:
    def sweep(name: str, size: str, patch: int) -> Path:
        cluster = {"node": {"vm_size": size}, "kubernetes_version": f"1.34.{patch}"}
        return write_trial(
            tmp_path / name / "0", cell=name, values={("image_pull", "p50"): 100.0},
            config={"cluster": cluster},
            **REAL | {"fingerprint": {"vm_size": size, "kubernetes": "1.34"}},
        ).parent  # fmt: skip

    found = held(sweep("a", "D4", 1), sweep("b", "D8", 2), allow=("vm_size",))
    assert [one.field for one in found.differences] == ["vm_size", "cluster.kubernetes_version"]


# ---- Verdicts --------------------------------------------------------------------------------


def test_a_slowdown_a_speedup_and_sameness_are_told_apart(tmp_path: Path) -> None:
    truth = {10: 1.0, 20: 1.3, 30: 0.7}
    grid = {"nodes": tuple(truth)}
    a = add_sweep(tmp_path / "a", grid, noise=0.01)
    b = add_sweep(
        tmp_path / "b", grid, lambda chosen: 100 * truth[chosen["nodes"]], noise=0.01, luck=2
    )
    found = held(a, b)
    assert [cell.verdict for cell in found.cells] == ["same", "slower", "faster"]
    rates = held(a, b, measurement="node_throughput_mib_s/p50")
    assert [cell.verdict for cell in rates.cells] == ["same", "slower", "faster"]
    assert rates.cells[1].ratio.ratio is not None
    assert rates.cells[1].ratio.ratio < 1


def test_a_count_is_more_or_less_and_never_slower(tmp_path: Path) -> None:
    grid = {"nodes": (10, 20)}
    ready = ("validity", "pods_ready")
    a = add_sweep(tmp_path / "a", grid, also=lambda chosen: {ready: 50.0})
    b = add_sweep(
        tmp_path / "b", grid, luck=2,
        also=lambda chosen: {ready: 25.0 if chosen["nodes"] == 10 else 60.0},
    )  # fmt: skip
    found = held(a, b, measurement="validity/pods_ready")
    assert [cell.verdict for cell in found.cells] == ["less", "more"]


def test_a_file_has_no_width(tmp_path: Path) -> None:
    """Piped, each cell is one line, its verdict whole."""
    names = ("an_image_of_a_rather_long_name", "an_image_of_a_name_still_longer")
    grid = {"nodes": (10, 20), "image": names}
    sides = [str(add_sweep(tmp_path / name, grid, trials=3)) for name in "ab"]
    table = text(imgpull(tmp_path, "compare", *sides))
    assert table.count("inconclusive: too few trials to tell") == 4


def test_too_few_trials_are_inconclusive_however_far_apart(tmp_path: Path) -> None:
    a = add_sweep(tmp_path / "a", trials=3)
    b = add_sweep(tmp_path / "b", truth=lambda chosen: 900.0, trials=3, luck=2)
    for cell in held(a, b).cells:
        assert cell.verdict == INCONCLUSIVE
        assert "too few trials" in cell.ratio.note


@given(st.floats(0.5, 2), st.floats(0, 0.3), st.floats(0, 1))
def test_a_verdict_says_no_more_than_its_interval(ratio: float, half: float, p: float) -> None:
    low, high = ratio * math.exp(-half), ratio * math.exp(half)
    found = Ratio(ratio, low, high, 5, 5, False, p)
    verdict, within = verdict_of(found, p, 0.05)
    if verdict == SAME:
        assert within is not None
        assert within <= 0.05
        assert low >= 1 / (1 + within) - 1e-9
        assert high <= 1 + within + 1e-9
    elif verdict != INCONCLUSIVE:
        assert p < 0.05
        assert (verdict == "slower") == (ratio > 1)


def test_a_censored_side_is_slower_as_a_bound_and_two_tell_nothing(tmp_path: Path) -> None:
    grid = {"nodes": (10,)}
    a = add_sweep(tmp_path / "a", grid)
    b = add_sweep(tmp_path / "b", grid, lambda chosen: 1800.0, luck=2, censored=lambda chosen: True)
    (cell,) = held(a, b).cells
    assert (cell.verdict, cell.ratio.bound, cell.ratio.low) == ("slower", "at_least", None)
    (same,) = held(b, b).cells
    assert same.verdict == INCONCLUSIVE
    assert same.ratio.ratio is None
    printed = text(imgpull(tmp_path, "compare", str(a), str(b)))
    line = next(line for line in printed.splitlines() if line.rstrip().endswith("slower"))
    assert "over 1790" in line
    assert "at least +1" in line


def test_a_trial_of_which_nothing_is_known_but_that_it_was_not_over_is_not_passed_over(
    tmp_path: Path,
) -> None:
    grid = {"nodes": (10,)}
    a, b = add_sweep(tmp_path / "a", grid), add_sweep(tmp_path / "b", grid, luck=2)
    values = {("image_pull", "p50_at_least"): 0.0}
    write_trial(b / "3", cell="10", trial=4, values=values, **REAL)
    (cell,) = held(a, b).cells
    assert (cell.verdict, cell.ratio.ratio, cell.ratio.n_after) == (INCONCLUSIVE, None, 5)
    assert imgpull(tmp_path, "gate", str(b), "--baseline", str(a)).status == 4


def test_trials_without_the_number_are_told(tmp_path: Path) -> None:
    grid = {"nodes": (10,)}
    a, b = add_sweep(tmp_path / "a", grid), add_sweep(tmp_path / "b", grid, luck=2)
    for job in (0, 3):  # pulls that were not over have no throughput
        slow = {("image_pull", "p50_at_least"): 1800.0}
        write_trial(b / str(job), cell="10", trial=job + 1, values=slow, **REAL)
    rates = ("compare", str(a), str(b), "--measurement", "node_throughput/p50")
    told = "left out of B: 2 trials without node throughput p50"
    assert told in text(imgpull(tmp_path, *rates))
    assert "left out" not in text(imgpull(tmp_path, "compare", str(a), str(b)))


# ---- Pairs -----------------------------------------------------------------------------------


def test_only_shared_luck_or_one_sweep_makes_pairs(tmp_path: Path) -> None:
    grid = {"nodes": (10,)}
    simulated = {"engine": "sim", "fingerprint": {"engine": "sim"}}
    real, other = add_sweep(tmp_path / "a", grid), add_sweep(tmp_path / "b", grid, luck=2)
    assert not held(real, other).paired
    a = add_sweep(tmp_path / "c", grid, **simulated)
    b = add_sweep(tmp_path / "d", grid, luck=2, **simulated)
    assert "common random numbers" in held(a, b).paired
    seeded = add_sweep(tmp_path / "e", grid, luck=2, seed=1, **simulated)
    assert not held(a, seeded).paired


# ---- The command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Where commands run, and two small simulated sweeps, the second from a slower registry."""
    root = tmp_path_factory.mktemp("simulated")
    plain = (
        "-m", "image=resource_consumer", "nodes=2", "deployments=2", "replicas=1,2", "trials=4",
        "tracking=none",
    )  # fmt: skip
    first = run_py(root, *plain)
    second = run_py(root, *plain, "cluster.registry.sku=Basic", "cluster.node.nic_mbit_s=100")
    assert first.status == second.status == 0
    return root, root / first.sweep, root / second.sweep


def test_two_simulated_sweeps_are_compared_in_every_format(
    simulated: tuple[Path, Path, Path],
) -> None:
    root, a, b = simulated
    refused = imgpull(root, "compare", str(a), str(b))
    assert refused.status == 2
    assert "registry Premium -> Basic" in refused.err
    options = ("compare", str(a), str(b), "--allow", "registry")
    table = text(imgpull(root, *options))
    lines = table.splitlines()
    assert lines[2] == "differs: registry Premium -> Basic"
    assert "differs: cluster.node.nic_mbit_s" in table
    assert table.index("differs") < table.index("verdict")
    assert "common random numbers" in table
    assert "SIMULATED" in table
    rows = list(csv.DictReader(io.StringIO(text(imgpull(root, *options, "--format", "csv")))))
    whole = json.loads(text(imgpull(root, *options, "--format", "json")))
    assert [row["verdict"] for row in rows] == ["slower", "slower"]
    assert [cell["ratio"] for cell in whole["cells"]] == pytest.approx(
        [float(row["ratio"]) for row in rows], rel=1e-5
    )
    for cell in whole["cells"]:
        assert cell["low"] <= cell["ratio"] <= cell["high"]
    markdown = text(imgpull(root, *options, "--format", "markdown"))
    assert markdown.count("| slower |") == 2
    assert "- differs: registry Premium -> Basic" in markdown


def test_a_sweep_held_against_itself_is_the_same(simulated: tuple[Path, Path, Path]) -> None:
    root, a, _ = simulated
    found = text(imgpull(root, "compare", str(a), str(a)))
    assert found.count("same within 1 %") == 2
    assert "differs: nothing" in found


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--format", "xml"), "--format xml is unknown"),
        (("--measurement", "image_pull_s/p42"), "choose one of"),
        (("--same-within", "five"), "--same-within five"),
    ],
)
def test_what_cannot_be_asked_is_said_with_what_can(
    simulated: tuple[Path, Path, Path], arguments: tuple[str, ...], word: str
) -> None:
    root, a, _ = simulated
    ended = imgpull(root, "compare", str(a), str(a), *arguments)
    assert ended.status == 2
    assert word in ended.err


def test_a_directory_without_trials_is_no_side(tmp_path: Path) -> None:
    ended = imgpull(tmp_path, "compare", str(tmp_path), str(tmp_path))
    assert ended.status == 2
    assert "holds no finished trial" in ended.err


def test_a_mistyped_directory_is_not_taken_for_a_run(tmp_path: Path) -> None:
    ended = imgpull(tmp_path, "compare", "nothing", "nothing")
    assert ended.status == 2
    assert "nothing is no directory" in ended.err
    assert "multirun/" in ended.err


@pytest.mark.slow
def test_an_mlflow_run_stands_for_its_directory(tmp_path: Path) -> None:
    swept = run_py(
        tmp_path, "-m", "image=resource_consumer", "nodes=2", "deployments=2", "replicas=1,2"
    )
    assert swept.status == 0
    parent, children = runs(tmp_path)
    found = text(
        imgpull(tmp_path, "compare", parent.info.run_id, parent.info.run_id, "--format", "json")
    )
    assert len(json.loads(found)["cells"]) == 2
    pair = [child.info.run_id for child in children]
    both = json.loads(text(imgpull(tmp_path, "compare", *pair, "--format", "json")))
    assert [one["field"] for one in both["differences"]] == ["replicas"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.24, 1.39, "[24, 39]"), (0.9, 1.004, "[-10, 0]"), (1.001, 1.008, "[0.1, 0.8]")],
)
def test_limits_are_written_as_sharply_as_they_are(low: float, high: float, expected: str) -> None:
    assert percent_interval(low, high) == expected
