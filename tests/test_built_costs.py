"""Laws of what a cluster that is built takes: in the plan, while it runs, and in the report."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import write_trial
from commands import copy_project, python
from hypothesis import given
from hypothesis import strategies as st

from imgpull.analysis.report.bill import Bill, bill
from imgpull.config.compose import composed_job
from imgpull.config.job import Job
from imgpull.errors import ConfigError
from imgpull.results.machine_time import machine_spans
from imgpull.results.record import read_record
from imgpull.sweep import shapes
from imgpull.sweep.forecasting.building import setups
from imgpull.sweep.ledger import Ledger, elapsed_s, sessions
from imgpull.sweep.limits import Limits, cost_of_built
from imgpull.sweep.plan import Cell, Planned, plan_trials

ORDERS = ("blocks", "shuffled", "as_given")
VALUES: Mapping[str, Any] = {
    "provision": "terraform",
    "provisioning": {"create": "12m", "pool": "8m", "resize": "5m", "destroy": "10m"},
}


@pytest.fixture(scope="module")
def real() -> Job:
    return composed_job(["engine=docker", "cluster=aks_d4ds_v5", "image=resource_consumer"])


def cells_of(real: Job, nodes: list[int], replicas: list[int]) -> list[Cell]:
    return [
        Cell(
            (f"nodes={n}", f"replicas={r}"), f"n{n}r{r}", "x",
            replace(real, nodes=n, replicas=r), VALUES, {"nodes": n, "replicas": r}, None,
        )
        for n in nodes
        for r in replicas
    ]  # fmt: skip


def runs(plan: list[Planned]) -> list[int]:
    """The levels of nodes, each stretch once."""
    levels = [planned.job.nodes for planned in plan]
    return [n for at, n in enumerate(levels) if at == 0 or levels[at - 1] != n]


@given(
    nodes=st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True),
    replicas=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    trials=st.integers(1, 4), order=st.sampled_from(ORDERS), seed=st.integers(0, 99),
)  # fmt: skip
def test_each_shape_comes_once_and_no_block_is_in_two_of_them(
    real: Job, nodes: list[int], replicas: list[int], trials: int, order: str, seed: int
) -> None:
    cells = cells_of(real, nodes, replicas)
    plan = plan_trials(cells, range(1, trials + 1), order, seed, None)
    assert sorted(runs(plan)) == sorted(nodes)
    assert {p.trial_id for p in plan} == {
        f"{cell.cell_id}-t{n}" for cell in cells for n in range(1, trials + 1)
    }
    by_block: dict[int, set[int]] = {}
    for planned in plan:
        by_block.setdefault(planned.block, set()).add(planned.job.nodes)
    assert {len(levels) for levels in by_block.values()} == {1}
    if order == "blocks":
        assert len(by_block) == len(nodes) * trials
    if order == "as_given":
        assert runs(plan) == nodes
    assert [p.trial_id for p in plan] == [
        p.trial_id for p in plan_trials(cells, range(1, trials + 1), order, seed, None)
    ]


def test_the_order_of_shapes_is_the_seed_s(real: Job) -> None:
    cells = cells_of(real, [1, 2, 3, 4], [1])
    found = {tuple(runs(plan_trials(cells, [1], "blocks", seed, None))) for seed in range(12)}
    assert len(found) > 6


def test_trials_on_a_cluster_that_exists_run_as_before(real: Job) -> None:
    cells = cells_of(real, [1, 2], [1, 2])
    there = [replace(cell, values={"provision": "existing"}) for cell in cells]
    plan = plan_trials(there, [1, 2], "blocks", 0, None)
    assert [planned.block for planned in plan] == [1] * 4 + [2] * 4
    assert setups(plan) == []


def test_only_what_differs_between_shapes_alone_is_confounded(real: Job) -> None:
    assert shapes.confounded(cells_of(real, [1, 2], [1, 2])) == ["nodes"]
    assert shapes.confounded(cells_of(real, [1], [1, 2])) == []


def test_a_plan_reckons_with_each_change_once_by_its_kind(real: Job) -> None:
    larger = composed_job(["engine=docker", "cluster=aks_d8ds_v5", "image=resource_consumer"])
    cells = [*cells_of(real, [1, 2], [1, 2]), *cells_of(larger, [2], [3])]
    found = setups(plan_trials(cells, [1, 2], "as_given", 0, None))
    assert [(each.key, each.took_s) for each in found] == [
        ("create", 720), ("resize", 300), ("pool", 480),
    ]  # fmt: skip


def test_cells_of_two_regions_are_refused_before_anything_else(real: Job) -> None:
    moved = replace(real, cluster=replace(real.cluster, region="westeurope"))
    with pytest.raises(ConfigError, match=r"cluster\.region differs"):
        plan_trials([*cells_of(real, [1], [1]), *cells_of(moved, [1], [2])], [1], "blocks", 0, None)


# How long machines stood

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: str, hours: float, **data: Any) -> dict[str, Any]:
    return {"event": kind, "at": (BEGUN + timedelta(hours=hours)).isoformat(), **data}


def provisioned(hours: float, nodes: int, took_h: float = 0.0, **data: Any) -> dict[str, Any]:
    machines = [["measured", "A", nodes], ["system", "B", 1]]
    return event("provisioned", hours, seconds=took_h * 3600, machines=machines, region="r", **data)


KEPT = {"done": "kept", "expiry": (BEGUN + timedelta(hours=8)).isoformat()}


@pytest.mark.parametrize(
    ("events", "node_hours"),
    [
        ([provisioned(1, 2, 0.5), event("given back", 3, done="destroyed")], 2.5 * 3),
        ([provisioned(1, 2, 1), provisioned(2, 4, 0.5), event("given back", 3, done="destroyed")],
         1.5 * 3 + 1.5 * 5),
        # kept, and found again by the next session
        ([provisioned(1, 2, 1), event("given back", 2, **KEPT), provisioned(5, 2, 0),
          event("given back", 6, done="destroyed")], 6 * 3),
        # kept until its expiry, built anew later
        ([provisioned(1, 2, 1), event("given back", 2, **KEPT), provisioned(21, 2, 1),
          event("given back", 22, done="destroyed")], 8 * 3 + 2 * 3),
        # one that failed and is gone
        ([event("provisioning failed", 1, seconds=3600, left=False, region="r",
                machines=[["measured", "A", 2]])], 2),
        ([], 0),
    ],
)  # fmt: skip
def test_a_cluster_counts_from_the_begin_of_its_set_up_until_it_is_gone(
    events: list[dict[str, Any]], node_hours: float
) -> None:
    now_s = (BEGUN + timedelta(hours=40)).timestamp()
    found = sum(span.nodes * span.hours(now_s) for span in machine_spans(events))
    assert found == pytest.approx(node_hours)


def test_max_cost_counts_the_cluster_that_idles_not_the_trials_alone(real: Job) -> None:
    (planned, *_) = plan_trials(cells_of(real, [2], [1]), [1], "blocks", 0, None)
    idle = Limits(max_cost=10, built=lambda: 9.5)
    assert idle.reached(planned, 1.0) is None
    assert Limits(max_cost=10, built=lambda: 10.5).reached(planned, 1.0) is not None
    soon = Limits(max_cost=10, built=lambda: 9.5, expected_s={planned.trial_id: 3600})
    assert "max_cost=10" in str(soon.reached(planned, 1.0))


def test_without_a_price_nothing_is_counted_as_spent(tmp_path: Path) -> None:
    Ledger(tmp_path).append("provisioned", **{k: v for k, v in provisioned(0, 2).items()
                                              if k not in ("event", "at")})  # fmt: skip
    assert cost_of_built(tmp_path) == 0.0  # such a limit is refused before: require_prices


def test_a_pause_between_sessions_is_no_time_of_either(tmp_path: Path) -> None:
    def at(kind: str, clock_s: float, **data: Any) -> dict[str, Any]:
        return {"event": kind, "clock_s": clock_s, **data}

    told = [
        at("provisioned", 0, opening=True), at("held", 10), at("sweep", 10),
        at("provisioned", 50), at("given back", 100), at("given back", 101, done="kept"),
        at("provisioned", 9000, opening=True), at("held", 9001), at("sweep", 9001),
        at("given back", 9030),
    ]  # fmt: skip
    assert len(sessions(told)) == 2
    assert elapsed_s(told) == 101 + 30


# The report


def a_bill(root: Path, vm_hour: Mapping[str, float], walls_s: list[float]) -> Bill:
    """Of a cell whose attempts took so long, on a cluster of two A and one B that stood 2.5 h."""
    for number, wall_s in enumerate(walls_s):
        write_trial(
            root / str(number), cell="c", attempt=number + 1, wall_s=wall_s,
            engine="docker", factors={"nodes": 2}, fingerprint={"vm_size": "A", "region": "r"},
        )  # fmt: skip
    budget = event(
        "budget", 0, vm_hour=dict(vm_hour), currency="USD", prices_date="2026-01-01",
        trials={"c-t1": {"cell_id": "c", "node_hours": 2.0, "cost": 3.0}},
        built={"node_hours": 9.0, "cost": 9.9,
               "cells": {"c": [["measured", "A", 2], ["system", "B", 1]]}},
    )  # fmt: skip
    told = [budget, provisioned(1, 2, 0.5), event("given back", 3, done="destroyed")]
    records = [read_record(root / str(number)) for number in range(len(walls_s))]
    found = bill(told, records, {"c": "the cell"})
    assert found is not None
    return found


def test_every_attempt_is_paid_for_and_the_cluster_for_all_of_its_time(tmp_path: Path) -> None:
    found = a_bill(tmp_path, {"A": 1.0, "r/B": 4.0}, [1800.0, 3600.0])
    cell, together, whole = found.lines
    assert (cell.what, cell.planned_hours, cell.hours) == ("the cell", "2.00", "3.00")
    assert (cell.planned_cost, cell.cost) == ("3.00 USD", "9.00 USD")  # 1.5 h of 2 A and 1 B
    assert (together.hours, together.cost) == (cell.hours, cell.cost)
    assert (whole.planned_hours, whole.hours) == ("9.00", "7.50")
    assert (whole.planned_cost, whole.cost) == ("9.90 USD", "15.00 USD")


def test_what_one_price_is_missing_for_is_unknown_and_never_0(tmp_path: Path) -> None:
    found = a_bill(tmp_path, {"A": 1.0}, [1800.0])
    assert [line.cost for line in found.lines] == ["unknown"] * 3
    assert any("no price of B" in note for note in found.notes)


def test_without_a_budget_there_is_no_bill() -> None:
    assert bill([], [], {}) is None


@pytest.mark.slow
def test_the_plan_s_cost_is_that_of_all_machines_for_all_of_their_time(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    shutil.copytree(Path(__file__).parents[1] / "terraform", project / "terraform",
                    ignore=shutil.ignore_patterns("state"))  # fmt: skip
    asked = (
        "-m", "imgpull.cli", "plan", "engine=docker", "provision=terraform", "nodes=2,4",
        "cluster=aks_d4ds_v5", "--format", "json",
    )  # fmt: skip
    unknown = json.loads(python(project, *asked).out)
    assert unknown["totals"]["built_cost"]["value"] is None
    (project / "conf" / "prices.yaml").write_text(
        "date: 2026-11-01\ncurrency: EUR\nvm_hour: {Standard_D4ds_v5: 0.5, Standard_D4as_v5: 2}\n"
    )
    paid = json.loads(python(project, *asked).out)
    hours = sum(t["wall_s"] for t in paid["trials"]) / 3600 + (12 + 5 + 10) / 60
    assert paid["totals"]["built_hours"]["value"] == pytest.approx(hours, rel=1e-4)
    cost = sum(b["hours"]["value"] * ((b["nodes"] - 2) * 0.5 + 4) for b in paid["built"])
    assert paid["totals"]["built_cost"]["value"] == pytest.approx(cost, rel=1e-4)
    assert any("nodes cannot be told from the order of provisioning" in n for n in paid["notes"])
