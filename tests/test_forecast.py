"""What a sweep will take: predictions, sums worked out by hand, prices, the plan that shows it."""

import contextlib
import csv
import io
import json
import math
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmarked import benchmark
from builders import write_trial
from commands import copy_project, imgpull, python, run_py
from hypothesis import given
from hypothesis import strategies as st
from trials import MakeJob

from imgpull import engines, render
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.config.image import Layer
from imgpull.config.job import Job
from imgpull.config.sweeping import SweepSettings
from imgpull.engines.sim.rehearsal import rehearse, sleeps_s
from imgpull.errors import ConfigError
from imgpull.results.record import JobRecord, read_record
from imgpull.sweep.forecasting import page as plan_page
from imgpull.sweep.forecasting.forecast import Forecast, cost_per_hour, forecast
from imgpull.sweep.forecasting.history import earlier_trials
from imgpull.sweep.forecasting.overheads import DRY_RUN, PROMETHEUS, occasional, overheads
from imgpull.sweep.forecasting.predicting import Prediction
from imgpull.sweep.forecasting.prices import PRICES, Prices, read_prices
from imgpull.sweep.forecasting.spend import pools, pulled_bytes, rows, total, totals
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Cell, Excluded, Matrix, Planned, plan_trials

ROOT = Path(__file__).parents[1]
REAL = schema.BinaryEngine()
GB = 10**9
# 1.5 GB compressed: two layers.
LAYERS = (Layer(GB, 2 * GB, "gzip"), Layer(GB // 2, GB, "gzip"))


@pytest.fixture
def real(job: MakeJob) -> Callable[..., Job]:
    """real(nodes=3): a job on a real cluster whose image has 1.5 GB; 20 pods unless told."""

    def made(**changes: Any) -> Job:
        plain = job()
        image = replace(plain.image, layers=LAYERS)
        return replace(plain, **({"engine": REAL, "image": image, "deployments": 20} | changes))

    return made


def cell(job: Job, *, rendered: bool = False) -> Cell:
    files = render.render(job) if rendered else {}
    return Cell((), jobs.cell_id(job), "a cell", job, {}, jobs.factors(job), files)


def planned(cells: Sequence[Cell], trials: int = 1) -> list[Planned]:
    return plan_trials(cells, range(1, trials + 1), "as_given", 0, None)


def told(cells: Sequence[Cell], walls_s: Sequence[float | None], trials: int = 1) -> Any:
    """(plan, forecast) where a trial of each cell takes so long."""
    plan = planned(cells, trials)
    by_cell = {c.cell_id: wall_s for c, wall_s in zip(cells, walls_s, strict=True)}
    expected = {p.trial_id: by_cell[p.cell.cell_id] for p in plan}
    return plan, Forecast(
        {key: value for key, value in expected.items() if value is not None},
        "told",
        {c.cell_id: Prediction("told", by_cell[c.cell_id]) for c in cells},
    )


def priced(vm_hour: dict[str, float], egress_gb: float | None = None) -> Prices:
    return Prices(date(2026, 11, 1), "EUR", vm_hour, egress_gb)


# Worked by hand


def test_two_sizes_of_one_pool_twice(real: Callable[..., Job]) -> None:
    cells = [cell(real(nodes=3)), cell(real(nodes=10))]
    plan, found = told(cells, [600.0, 900.0], trials=2)
    prices = priced({"Standard_D4ds_v5": 0.25}, egress_gb=0.08)
    sums = totals(rows(plan, found, prices), prices)
    # 2 x 600 s + 2 x 900 s = 3000 s
    assert sums.wall_s.value == 3000
    # 3 nodes x 2 x 600 s / 3600 = 1 h; 10 nodes x 2 x 900 s / 3600 = 5 h
    assert sums.node_hours.value == pytest.approx(6)
    # a pool of 10 nodes for 3000 s: 10 x 3000 / 3600
    assert sums.pool_node_hours.value == pytest.approx(8.3333333)
    # cold: (3 + 10) nodes x 2 trials x 1.5 GB = 39 GB
    assert sums.registry_bytes.value == 39 * GB
    # 6 x 0.25 = 1.50 for nodes, 39 x 0.08 = 3.12 for bytes
    assert sums.cost.value == pytest.approx(1.50 + 3.12)
    # 8.3333 x 0.25 = 2.0833 for the pool
    assert sums.pool_cost.value == pytest.approx(2.0833333 + 3.12)


def test_three_caches_and_fewer_pods_than_nodes(real: Callable[..., Job]) -> None:
    cells = [cell(real(nodes=8, deployments=5, cache=c)) for c in ("cold", "warm")]
    plan, found = told(cells, [1800.0, 450.0])
    prices = priced({"Standard_D4ds_v5": 1.0})
    sums = totals(rows(plan, found, prices), prices)
    # 8 nodes x (1800 + 450) s / 3600 = 5 node-hours at 1.00; no price for bytes: not counted
    assert sums.node_hours.value == pytest.approx(5)
    assert sums.cost.value == pytest.approx(5)
    # 5 pods are on at most 5 of the 8 nodes: 5 x 1.5 GB; warm pulls none
    assert sums.registry_bytes.value == 7.5 * GB
    # as_is: nobody knows what its nodes lack, so the sum is no more than a least
    plan, found = told([*cells, cell(real(nodes=8, cache="as_is"))], [1800.0, 450.0, 450.0])
    moved = totals(rows(plan, found, prices), prices).registry_bytes
    assert (moved.value, moved.unknown) == (7.5 * GB, 1)
    assert moved.text(lambda count: f"{count / GB:g} GB") == "at least 7.5 GB"


def test_two_clusters_of_two_prices(real: Callable[..., Job]) -> None:
    small = real(nodes=2, engine=replace(REAL, context="small"))
    node = replace(small.cluster.node, vm_size="Standard_D16ds_v5")
    large_cluster = replace(small.cluster, name="large", node=node, region="westeurope")
    large = real(nodes=4, cluster=large_cluster, engine=replace(REAL, context="large"))
    plan, found = told([cell(small), cell(large)], [3600.0, 1800.0], trials=3)
    prices = priced(
        {"Standard_D4ds_v5": 0.2, "Standard_D16ds_v5": 9.9, "westeurope/Standard_D16ds_v5": 1.1}
    )
    every = rows(plan, found, prices)
    # 3 x 1 h x 2 nodes at 0.20 = 1.20; 3 x 0.5 h x 4 nodes at westeurope's 1.10 = 6.60
    assert totals(every, prices).cost.value == pytest.approx(1.2 + 6.6)
    assert [(p.nodes, p.node_hours.value) for p in pools(every, prices)] == [(2, 6.0), (4, 6.0)]
    # each pool is as large as its trials: nothing is added
    assert totals(every, prices).pool_cost.value == pytest.approx(7.8)
    # side by side: 3 x 1 h on one, 3 x 0.5 h on the other; on one cluster they add up
    assert totals(every, prices).wall_s.value == pytest.approx(3 * 3600)
    same = [cell(small), cell(replace(large, engine=small.engine))]
    plan, found = told(same, [3600.0, 1800.0], trials=3)
    assert totals(rows(plan, found, prices), prices).wall_s.value == pytest.approx(4.5 * 3600)


# Laws of the sums

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True)
walls = st.lists(st.floats(1, 1e5), min_size=6, max_size=6)
counts = st.integers(1, 3)


@pytest.fixture(scope="module")
def base(job: MakeJob) -> Job:
    plain = job()
    image = replace(plain.image, layers=LAYERS)
    return replace(plain, engine=REAL, image=image, deployments=100)


def sums_of(
    base: Job, nodes: Sequence[int], walls_s: Sequence[float | None], trials: int, prices: Prices
) -> Any:
    cells = [cell(replace(base, nodes=n)) for n in nodes]
    plan, found = told(cells, walls_s[: len(cells)], trials)
    every = rows(plan, found, prices)
    return every, totals(every, prices)


@given(sizes, walls, counts)
def test_a_sum_is_that_of_its_trials(
    base: Job, nodes: list[int], walls_s: list[float], trials: int
) -> None:
    every, sums = sums_of(base, nodes, walls_s, trials, priced({"Standard_D4ds_v5": 0.3}, 0.1))
    for name in ("wall_s", "node_hours", "cost", "registry_bytes"):
        of_rows = math.fsum(getattr(row, name) for row in every)
        assert getattr(sums, name).value == pytest.approx(of_rows)
        assert getattr(sums, name).unknown == 0


@given(sizes, walls, counts)
def test_twice_the_nodes_for_the_same_time_are_twice_the_node_hours_and_cost(
    base: Job, nodes: list[int], walls_s: list[float], trials: int
) -> None:
    prices = priced({"Standard_D4ds_v5": 0.3})
    _, once = sums_of(base, nodes, walls_s, trials, prices)
    _, twice = sums_of(base, [2 * n for n in nodes], walls_s, trials, prices)
    for name in ("node_hours", "cost", "pool_node_hours", "pool_cost", "registry_bytes"):
        factor = 2 if name != "registry_bytes" or max(nodes) <= 50 else 1
        assert getattr(twice, name).value == pytest.approx(factor * getattr(once, name).value)
    assert twice.wall_s.value == pytest.approx(once.wall_s.value)


@given(sizes, walls, counts)
def test_a_pool_costs_no_less_than_the_nodes_measured_on_it(
    base: Job, nodes: list[int], walls_s: list[float], trials: int
) -> None:
    _, sums = sums_of(base, nodes, walls_s, trials, priced({"Standard_D4ds_v5": 0.3}))
    assert sums.pool_node_hours.value >= sums.node_hours.value * (1 - 1e-9)
    assert sums.pool_cost.value >= sums.cost.value * (1 - 1e-9)
    if len(nodes) == 1:
        assert sums.pool_cost.value == pytest.approx(sums.cost.value)


@given(sizes, walls, st.integers(0, 5))
def test_an_unknown_price_makes_the_cost_unknown_and_nothing_else(
    base: Job, nodes: list[int], walls_s: list[float], which: int
) -> None:
    prices = priced({"Standard_D4ds_v5": 0.3})
    _, known = sums_of(base, nodes, walls_s, 1, prices)
    node = replace(base.cluster.node, vm_size="nobody_priced")
    cells = [cell(replace(base, nodes=n)) for n in nodes]
    odd = replace(cells[which % len(cells)].job, cluster=replace(base.cluster, node=node))
    cells[which % len(cells)] = cell(odd)
    plan, found = told(cells, walls_s[: len(cells)])
    sums = totals(rows(plan, found, prices), prices)
    assert sums.cost.value is None
    assert sums.pool_cost.value is None
    assert sums.cost.text(str) == "unknown"
    assert sums.node_hours == known.node_hours
    assert sums.registry_bytes == known.registry_bytes


@given(sizes, walls, st.integers(0, 5))
def test_an_unknown_duration_makes_sums_a_least(
    base: Job, nodes: list[int], walls_s: list[float], which: int
) -> None:
    prices = priced({"Standard_D4ds_v5": 0.3})
    _, known = sums_of(base, nodes, walls_s, 1, prices)
    some: list[float | None] = list(walls_s)
    some[which % len(nodes)] = None
    _, sums = sums_of(base, nodes, some, 1, prices)
    for name in ("wall_s", "node_hours", "cost"):
        found = getattr(sums, name)
        if len(nodes) == 1:
            assert found.text(str) == "unknown", name
        else:
            assert found.value <= getattr(known, name).value, name
            assert found.text(str).startswith("at least "), name


@given(st.lists(st.none() | st.floats(0, 1e6), max_size=8))
def test_what_is_unknown_is_never_nothing(parts: list[float | None]) -> None:
    found = total(parts)
    assert found.unknown == parts.count(None)
    if parts and found.unknown == len(parts):
        assert found.value is None
    else:
        assert found.value == pytest.approx(math.fsum(p for p in parts if p is not None))


def test_simulated_and_replayed_trials_cost_nothing(job: MakeJob) -> None:
    assert cost_per_hour(job(), Prices()) == 0.0
    plan, found = told([cell(job())], [2.0])
    (row,) = rows(plan, found, Prices())
    assert (row.cost, row.node_hours, row.registry_bytes) == (0.0, 0.0, 0.0)
    assert row.virtual_bytes == 10 * (job().image.compressed_bytes or 0)


def test_an_hour_costs_its_nodes_or_is_unknown(real: Callable[..., Job]) -> None:
    assert cost_per_hour(real(nodes=7), priced({"Standard_D4ds_v5": 0.5})) == 3.5
    assert cost_per_hour(real(nodes=7), priced({"Standard_D4ds_v5": 0.0})) == 0.0
    assert cost_per_hour(real(nodes=7), priced({"Standard_D8ds_v5": 0.5})) is None
    assert cost_per_hour(real(nodes=7), Prices()) is None


def test_bytes_without_sizes_and_with_a_price_leave_the_cost_open(
    real: Callable[..., Job],
) -> None:
    bare = real(image=replace(real().image, layers=()))
    assert pulled_bytes(bare) is None
    plan, found = told([cell(bare)], [60.0])
    (paid,) = rows(plan, found, priced({"Standard_D4ds_v5": 0.5}, egress_gb=0.1))
    (free,) = rows(plan, found, priced({"Standard_D4ds_v5": 0.5}))
    assert paid.cost is None
    assert free.cost == pytest.approx(0.5 * 10 / 60)


# Prices


def written(place: Path, text: str) -> Path:
    path = place / "prices.yaml"
    path.write_text(text, "utf-8")
    return path


def test_prices_come_empty(tmp_path: Path) -> None:
    assert read_prices(PRICES) == Prices()
    assert read_prices(tmp_path / "none.yaml") == Prices()
    assert read_prices(written(tmp_path, "")) == Prices()


def test_a_price_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    text = "date: 2026-11-01\ncurrency: EUR\nvm_hour: {A: 1, west/A: 2.5, B: null}\negress_gb: 0\n"
    assert read_prices(written(tmp_path, text)) == priced({"A": 1.0, "west/A": 2.5}, 0.0)


HEAD = "date: 2026-11-01\ncurrency: EUR\n"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (HEAD + "vm_hours: {A: 1}", "unknown key 'vm_hours'", "'vm_hour'"),
        (HEAD + "vm_hour: {A: cheap}", "vm_hour.A='cheap' is no number", "0.226"),
        (HEAD + "vm_hour: {A: true}", "vm_hour.A=True is no number", "0.226"),
        (HEAD + "vm_hour: {A: -1}", "vm_hour.A=-1 is no price", "0.226"),
        (HEAD + "vm_hour: {A: .inf}", "vm_hour.A=inf is no price", "0.226"),
        (HEAD + "vm_hour: {A: .nan}", "vm_hour.A=nan is no price", "0.226"),
        (HEAD + "vm_hour: [1]", "vm_hour is [1], not a mapping", "vm_hour: {"),
        (HEAD + "egress_gb: x", "egress_gb='x' is no number", "0.226"),
        ("currency: EUR\nvm_hour: {A: 1}", "prices without date", "add date"),
        ("date: 2026-11-01\nvm_hour: {A: 1}", "prices without currency", "add currency"),
        ("date: soon\ncurrency: EUR", "date 'soon' is no date", "date: 2026-11-20"),
        ("date: 2999-01-01\ncurrency: EUR", "is in the future", "looked up"),
        ("currency: [EUR]", "currency ['EUR'] is none", "currency: USD"),
        ("- 1", "is no mapping", "comments"),
        ("a: [", "prices.yaml: ", "correct the YAML"),
    ],
)
def test_a_bad_price_is_named_with_its_place(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_prices(path)
    assert str(path) in caught.value.message
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_prices_older_than_ninety_days_are_called_old() -> None:
    prices = priced({})
    assert prices.notes(date(2027, 1, 30)) == ()  # 90 days
    assert "91 days old" in prices.notes(date(2027, 1, 31))[0]


# Predictions

WORLDS = (
    (),
    ("cache=warm",),
    ("metrics_wait=auto", "deployments=30", "nodes=4", "replicas=2"),
    ("engine.faults.pull_shares.network=0.3",),
    ("wait_timeout=1m", "pod_startup_threshold=30s"),  # not done in time
)


@pytest.mark.parametrize("overrides", WORLDS, ids=" ".join)
def test_a_rehearsal_takes_the_virtual_time_of_the_trial(
    job: MakeJob, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    asked = job(*overrides)
    files = render.render(asked)
    played = rehearse(asked, files)
    bundle = render.write(files, tmp_path / "bundle")
    assert played.virtual_s == engines.build(asked).run(bundle, tmp_path, str).virtual_s
    # Two scrapes before and after (2 x 1 min) and the wait for metrics, if no pull goes on in them.
    assert sleeps_s(files) == 120 + (asked.metrics_wait_s or 60)
    if asked.wait_timeout_s > 600:
        assert played.waiting_s == sleeps_s(files)
    assert 0 <= played.pulling_s <= played.virtual_s - played.waiting_s


def record(of: Cell, wall_s: float, **changes: Any) -> JobRecord:
    with tempfile.TemporaryDirectory() as place:
        where = write_trial(Path(place), cell=of.cell_id, wall_s=wall_s, **changes)
        return read_record(where)


def test_earlier_trials_of_the_same_cell_come_first(real: Callable[..., Job]) -> None:
    seen, unseen = cell(real(), rendered=True), cell(real(nodes=4), rendered=True)
    history = [record(seen, wall_s) for wall_s in (500.0, 100.0, 130.0)]
    found = forecast(planned([seen, unseen]), history)
    assert found.cells[seen.cell_id].basis == "measured, n=3"
    assert found.cells[unseen.cell_id].basis == "simulated"
    assert found.expected_s[f"{seen.cell_id}-t1"] == 130.0
    assert found.basis == "trials: 1 measured, 1 simulated"
    # Its waits are known without a simulation: 2 + 10 min of the bundle, 10 s of engine.settle.
    assert found.cells[seen.cell_id].waiting_s == 120 + 600 + 10


def test_a_computer_learns_of_its_own_simulated_trials_only(job: MakeJob) -> None:
    of = cell(job(), rendered=True)
    here = record(of, 3.0, host={"name": platform.node()})
    assert forecast(planned([of]), [here]).expected_s == {f"{of.cell_id}-t1": 3.0}
    assert forecast(planned([of]), [record(of, 3.0, host={"name": "another"})]).expected_s == {}


def test_a_sweep_begins_without_simulating_its_simulated_cells(job: MakeJob) -> None:
    found = forecast(planned([cell(job(), rendered=True)]))
    (prediction,) = found.cells.values()
    assert (prediction.virtual_s, found.expected_s) == (None, {})


def test_a_real_trial_is_its_own_bundle_simulated_and_what_surrounds_it(
    real: Callable[..., Job], job: MakeJob
) -> None:
    asked = real(nodes=4)
    found = forecast(planned([cell(asked, rendered=True)], trials=2))
    simulated = replace(asked, engine=job().engine)
    played = rehearse(simulated, render.render(simulated))
    around_s = sum(each.took_s for each in overheads(asked))
    first, second = found.expected_s.values()
    assert second == pytest.approx(played.virtual_s + around_s)
    assert first == pytest.approx(second + PROMETHEUS.took_s)


def waits(*jobs_in_order: Job) -> list[list[str]]:
    cells = {jobs.cell_id(each): cell(each) for each in jobs_in_order}
    trials = [
        Planned(cells[jobs.cell_id(each)], "", str(n), 1, 1, 1, n)
        for n, each in enumerate(jobs_in_order)
    ]
    return [[each.name for each in some] for some in occasional(trials)]


def test_prometheus_is_waited_for_once_a_cluster_and_where_its_settings_change(
    real: Callable[..., Job],
) -> None:
    up: list[str] = [PROMETHEUS.name]
    here = real()
    there = real(engine=replace(REAL, context="there"), nodes=5)
    other = real(containerd_scrape_interval_s=30.0)
    assert waits(here, here, there, here, there) == [up, [], up, [], []]
    assert waits(here, other, other, here) == [up, up, [], up]
    assert waits(real(nodes=999), real(nodes=1000)) == [up, up]
    pool = replace(here.cluster, node_prefix="another-pool-")
    assert waits(here, real(nodes=5)) == [up, []]
    assert waits(here, real(cluster=pool, nodes=5)) == [up, up]


def test_a_bundle_is_compiled_in_the_cluster_once(real: Callable[..., Job]) -> None:
    engine = schema.InClusterEngine(image="registry.example/cl2:1")
    one, two = real(engine=engine), real(engine=engine, nodes=4)
    found = waits(one, two, one, two)
    assert [DRY_RUN.name in each for each in found] == [True, True, False, False]


def test_simulated_trials_have_no_surroundings(job: MakeJob) -> None:
    assert overheads(job()) == ()
    assert waits(job()) == [[]]


def without_rates(job: Job) -> Job:
    node = replace(job.cluster.node, nic_mbit_s=None)
    return replace(job, cluster=replace(job.cluster, node=node))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda job: replace(job, image=replace(job.image, layers=())), "no layer table"),
        (without_rates, "nic_mbit_s is not known"),
        (
            lambda job: replace(job, image=replace(job.image, layers=(Layer(GB, None, "gzip"),))),
            "unpacked_bytes",
        ),
    ],
    ids=("no layers", "no rates", "no unpacked size"),
)
def test_what_cannot_be_simulated_is_unknown_with_the_reason(
    real: Callable[..., Job], broken: Callable[[Job], Job], said: str
) -> None:
    fine, odd = cell(real(), rendered=True), cell(broken(real(nodes=4)), rendered=True)
    plan = planned([fine, odd])
    found = forecast(plan)
    assert found.cells[odd.cell_id].wall_s is None
    assert said in found.cells[odd.cell_id].reason
    assert set(found.expected_s) == {f"{fine.cell_id}-t1"}
    assert totals(rows(plan, found, Prices()), Prices()).wall_s.text(str).startswith("at least")


def test_earlier_trials_are_found_beside_the_sweep_and_only_those_that_count(
    tmp_path: Path,
) -> None:
    for name, in_ledger, verdict in (
        ("a", "mine", "valid"), ("b", "another", "valid"), ("c", "mine", "failed"),
    ):  # fmt: skip
        write_trial(tmp_path / name / "0", cell="mine", verdict=verdict, wall_s=7.0)
        Ledger(tmp_path / name).append("planned", cell_id=in_ledger)
    write_trial(tmp_path / "lost" / "0", cell="mine", verdict="degraded", wall_s=9.0)
    (tmp_path / "lost" / "1").mkdir()
    (tmp_path / "lost" / "1" / "job.json").write_text("{", "utf-8")
    found = earlier_trials(tmp_path, {"mine"})
    assert sorted(each.wall_s for each in found) == [7.0, 9.0]
    assert earlier_trials(tmp_path / "nowhere", {"mine"}) == []


# The plan as it is printed


def tree(root: Path) -> list[tuple[str, bytes]]:
    return sorted(
        (str(path.relative_to(root)), path.read_bytes() if path.is_file() else b"")
        for path in root.rglob("*")
    )


SWEPT = ("-m", "replicas=1,2", "nodes=3", "trials=2", "tracking=none")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, sweep): a finished sweep of two cells, two trials each."""
    root = tmp_path_factory.mktemp("swept")
    return root, run_py(root, *SWEPT).sweep


def test_until_plan_shows_what_would_run_and_creates_nothing(
    swept: tuple[Path, Path], tmp_path: Path
) -> None:
    _, sweep = swept
    done = run_py(tmp_path, *SWEPT, "until=plan")
    assert (done.status, tree(tmp_path)) == (0, [])
    assert "4 trials of 2 cells; order=blocks, seed=0" in done.out
    ran = [e for e in Ledger(sweep).read() if e["event"] == "planned"]
    for event in ran:
        assert f"{event['position']} {event['name']}" in done.out
    assert "predicted 2 cells in " in done.out
    last = done.out.splitlines()[-1]
    assert last.endswith("run.py -m replicas=1,2 nodes=3 trials=2 tracking=none")


def test_until_plan_needs_neither_cluster_nor_clusterloader(tmp_path: Path) -> None:
    done = run_py(tmp_path, "-m", "engine=binary", "nodes=3,10", "deployments=20", "until=plan")
    assert (done.status, tree(tmp_path)) == (0, [])
    assert "cost        unknown" in done.out
    assert "no price of Standard_D4ds_v5" in done.out
    assert "not counted: system pool" in done.out


def test_resume_auto_plans_what_is_left_though_another_process_holds_the_sweep(
    swept: tuple[Path, Path],
) -> None:
    root, sweep = swept
    before = tree(root)
    with Ledger(sweep).held():
        done = run_py(root, "-m", "replicas=1,2", "nodes=3", "trials=3", "tracking=none",
                      "resume=auto", "until=plan")  # fmt: skip
        nothing = run_py(root, *SWEPT, "resume=auto", "until=plan")
    assert done.status == 0, done.err
    assert "2 trials of 2 cells left of" in done.out
    assert "measured, n=2" in done.out
    assert "nothing is left to do" in nothing.out
    assert tree(root) == before


def plan_of(cells: Sequence[Cell], trials: int, **settings: Any) -> tuple[Matrix, Any, Any]:
    plain = {
        "until": "plan", "trials": trials, "first_trial": 1, "order": "blocks", "seed": 5,
        "exclude": (), "resume": "off", "stop_after": None, "retries": 0, "max_hours": None,
        "max_cost": None,
    }  # fmt: skip
    asked = SweepSettings(**(plain | settings))
    left_out = Excluded(("nodes=1",), {"nodes": 1}, "nodes < 2")
    plan = plan_trials(cells, range(1, trials + 1), "blocks", 5, None)
    return Matrix(cells, [left_out]), plan, asked


@contextlib.contextmanager
def printed() -> Iterator[io.StringIO]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        yield out


def shown(
    cells: Sequence[Cell], trials: int, form: str, *, begun: Path | None = None, **settings: Any
) -> str:
    matrix, plan, asked = plan_of(cells, trials, **settings)
    with printed() as out:
        plan_page.show(
            matrix, plan, asked, Path("nowhere"), "python run.py", begun=begun, form=form
        )
    return out.getvalue()


def test_csv_and_json_hold_every_trial_in_its_order(real: Callable[..., Job]) -> None:
    cells = [cell(real(nodes=n), rendered=True) for n in (2, 3)]
    _, plan, _ = plan_of(cells, 2)
    lines = list(csv.DictReader(io.StringIO(shown(cells, 2, "csv"))))
    whole = json.loads(shown(cells, 2, "json"))
    ids = [p.trial_id for p in plan]
    assert [line["trial_id"] for line in lines] == ids
    assert [each["trial_id"] for each in whole["trials"]] == ids
    assert [line["nodes"] for line in lines] == [str(p.job.nodes) for p in plan]
    assert {line["cost"] for line in lines} == {""}  # unknown, never 0
    assert whole["totals"]["cost"] == {"value": None, "unknown": 4}
    assert whole["totals"]["registry_bytes"]["value"] == 2 * (2 + 3) * 1.5 * GB
    assert whole["excluded"] == [
        {"overrides": ["nodes=1"], "factors": {"nodes": 1}, "by": "nodes < 2"}
    ]
    assert (whole["seed"], whole["order"], whole["command"]) == (5, "blocks", "python run.py")
    walls = math.fsum(float(line["wall_s"]) for line in lines)
    assert whole["totals"]["wall_s"]["value"] == pytest.approx(walls, abs=1e-3)


def test_the_page_names_what_was_left_out_and_which_limit_will_end_it(
    real: Callable[..., Job],
) -> None:
    text = shown([cell(real(), rendered=True)], 9, "table", max_hours=0.5, retries=2)
    assert "left out by exclude: 1 cell" in text
    assert "nodes=1  (nodes < 2)" in text
    assert "max_hours=0.5 ends it before its last trial" in text
    assert "further attempts" in text
    assert "engine.settle 10 s (configured)" in text


def test_a_plan_of_a_sweep_begun_counts_what_was_spent(
    real: Callable[..., Job], tmp_path: Path
) -> None:
    book = Ledger(tmp_path)
    book.append_all(
        [
            {"event": "sweep", "clock_s": 0.0},
            {"event": "finished", "clock_s": 36_000.0, "cost": 7.0},
        ]
    )
    cells = [cell(real(), rendered=True)]
    says = "max_hours=10.01 ends it before its last trial (10 h spent by earlier sessions)"
    assert says in shown(cells, 1, "table", max_hours=10.01, begun=tmp_path)
    assert "ends it before" not in shown(cells, 1, "table", max_hours=10.01)
    assert "ends it before" not in shown(cells, 1, "table", max_hours=20, begun=tmp_path)


def test_a_long_plan_stays_short(real: Callable[..., Job]) -> None:
    cells = [cell(real(nodes=n), rendered=True) for n in range(2, 32)]
    text = shown(cells, 20, "table")
    assert len(text.splitlines()) < 60
    assert "… 6 more" in text
    assert "… 15 more blocks …" in text
    assert "block 20: " in text


def test_imgpull_plan_takes_a_matrix(tmp_path: Path) -> None:
    done = imgpull(tmp_path, "plan", "-m", "replicas=1,2", "trials=2", "--format", "csv")
    assert (done.status, tree(tmp_path)) == (0, [])
    assert len(done.out.splitlines()) == 1 + 4
    wrong = imgpull(tmp_path, "plan", "replica=1", "--format", "csv")
    assert wrong.status == 2
    assert "replica" in wrong.err
    assert imgpull(tmp_path, "plan", "--format", "xml").status == 2


def test_imgpull_plan_shows_what_is_left_of_a_sweep(
    swept: tuple[Path, Path], tmp_path: Path
) -> None:
    _, sweep = swept
    copied = Path(shutil.copytree(sweep, tmp_path / "multirun" / sweep.name))
    gone = read_record(copied / "2").trial_id
    shutil.rmtree(copied / "2")
    before = tree(tmp_path)
    for lose_ledger in (False, True):
        if lose_ledger:  # multirun.yaml remembers the command too
            (copied / "ledger.jsonl").unlink()
            before = tree(tmp_path)
        done = imgpull(tmp_path, "plan", str(copied), "--format", "json")
        assert done.status == 0, done.err
        assert [each["trial_id"] for each in json.loads(done.out)["trials"]] == [gone]
        assert json.loads(done.out)["continues"] == str(copied)
        assert tree(tmp_path) == before
    nothing = imgpull(tmp_path, "plan", str(tmp_path))
    assert nothing.status == 2
    assert "remembers no command" in nothing.err


def test_a_sweep_whose_command_asks_for_other_cells_today_is_named(
    swept: tuple[Path, Path], tmp_path: Path
) -> None:
    _, sweep = swept
    copied = Path(shutil.copytree(sweep, tmp_path / "multirun" / sweep.name))
    (session,) = (e for e in Ledger(copied).read() if e["event"] == "sweep")
    arguments = ["-m", "replicas=3", "tracking=none"]  # as if conf/ had been edited
    Ledger(copied).append_all([{**session, "arguments": arguments}])
    done = imgpull(tmp_path, "plan", str(copied))
    assert done.status == 2
    assert "holds a sweep of other cells" in done.err
    assert re.search(r"replicas: [12] -> 3", done.err)


@pytest.mark.slow
def test_prices_of_the_project_make_a_cost_and_change_no_cell(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    asked = ("-m", "imgpull.cli", "plan", "engine=binary", "nodes=2", "--format", "json")
    free = json.loads(python(project, *asked).out)
    text = "date: 2020-01-01\ncurrency: EUR\nvm_hour: {Standard_D4ds_v5: 0.5}\n"
    written(project / "conf", text)
    paid = json.loads(python(project, *asked).out)
    hours = paid["totals"]["node_hours"]["value"]
    assert free["totals"]["cost"]["value"] is None
    assert paid["totals"]["cost"]["value"] == pytest.approx(hours * 0.5, rel=1e-4)
    assert any("days old" in note for note in paid["notes"])
    assert [t["trial_id"] for t in free["trials"]] == [t["trial_id"] for t in paid["trials"]]
    written(project / "conf", "vm_hour: {Standard_D4ds_v5: much}\n")
    broken = python(project, *asked)
    assert broken.status == 2
    assert "conf/prices.yaml: vm_hour.Standard_D4ds_v5='much'" in broken.err


# Scored on real trials


@pytest.fixture(scope="module")
def predictions() -> ModuleType:
    return benchmark("predictions")


def test_the_page_shows_how_predictions_did_on_real_trials(predictions: ModuleType) -> None:
    page = (ROOT / "docs" / "how-to.md").read_text("utf-8")
    assert "\n".join(predictions.table()) in page
    for line in predictions.summary():
        assert f"- {line}" in page


def test_documented_trials_are_those_of_the_page(predictions: ModuleType) -> None:
    page = " ".join((ROOT / "docs" / "real-clusters.md").read_text("utf-8").split())
    first, second = predictions.DOCUMENTED
    assert f"{first.wall_s:.0f} and {second.wall_s:.0f} s a trial" in page
    assert f"image pull p50 {first.pull_p50_s} and {second.pull_p50_s} s" in page


def test_real_trials_are_predicted_within_a_tenth_and_their_pulls_within_a_half(
    predictions: ModuleType,
) -> None:
    for score in predictions.scores():
        if score.what in ("whole trial", "ClusterLoader2's test"):
            assert 0.9 <= score.ratio <= 1.1, score
        else:
            assert 0.5 <= score.ratio <= 1.5, score
