"""The PromQL evaluator answers as a real Prometheus does, asked the same of the same series."""

import contextlib
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promql_queries import AGGREGATIONS, ERRORS, QUERIES, TEMPLATE_QUERIES, RandomQuery

from imgpull.errors import RenderError
from imgpull.simcluster.promql import STALE, DictStore, Series, check, evaluate

BASE_S = 1_700_000_000  # no whole minute: subqueries step at whole ones
AFTER_S = (905, 1200, 1500.5)


def random_series(seed: int) -> DictStore:
    """Counters with resets, histograms and gauges, irregular in time: late, with gaps, cut short.

    Values are eighths, so that sums are exact in any order and equality is decided, not rounded.
    """
    rng = np.random.default_rng(seed)
    names = ("a", "b", "odd", "M_bucket", "M_sum", "M_count", "N_bucket", "early", "late")
    found: dict[str, list[Series]] = {name: [] for name in names}
    nodes = [f"aks-measured-{index}" for index in range(4)] + ["aks-default-0"]
    for node, zone in zip(nodes, "12121", strict=True):
        times_s = random_scrapes(rng)
        for metric in ("a", "b"):
            steps = rng.integers(0, 40, len(times_s)) / 8
            restarts = rng.random(len(times_s)) < 0.05
            values = []
            for step, restart in zip(steps, restarts, strict=True):
                values.append(step if restart or not values else values[-1] + step)
            labels = {"node": node, "zone": zone}
            found[metric].append(Series(labels, times_s, np.array(values)))
        gauge = rng.choice([-2.5, 0.0, 1.0, 3.0, math.nan, math.inf, -math.inf], len(times_s))
        found["odd"].append(Series({"node": node}, times_s, gauge))
        histogram_times_s = random_scrapes(rng)
        per_bucket = rng.poisson(0.3, (len(histogram_times_s), 5)).cumsum(axis=0).cumsum(axis=1)
        for le, counts in zip(("0.5", "1", "2.5", "10", "+Inf"), per_bucket.T, strict=True):
            series = Series({"node": node, "le": le}, histogram_times_s, counts.astype(float))
            found["M_bucket" if le != "0.5" or zone == "1" else "N_bucket"].append(series)
        count = per_bucket[:, -1].astype(float)
        found["M_count"].append(Series({"node": node}, histogram_times_s, count))
        found["M_sum"].append(Series({"node": node}, histogram_times_s, count * 1.375))
    # One after the other, with the same labels but for the name.
    for name, begin_s in (("early", 0.0), ("late", 800.0)):
        times_s = BASE_S + begin_s + np.arange(0.0, 400.0, 20.0)
        found[name].append(Series({"node": "x"}, times_s, np.arange(20.0)))
    return DictStore(found)


def random_scrapes(rng: np.random.Generator) -> Any:
    begin, end = rng.integers(0, 700), rng.integers(1000, 1800)
    gaps = rng.choice(
        [14, 15, 15, 15, 16, 30, 200, 350], 130, p=[0.1, 0.3, 0.3, 0.1, 0.1, 0.06, 0.03, 0.01]
    )
    times_s = begin + np.cumsum(gaps) + 0.125 * rng.integers(0, 8)
    return BASE_S + times_s[times_s <= end]


# ------------------------------------------------------------------------ the oracle: Prometheus

Answer = dict[frozenset[tuple[str, str]], float] | None  # None: an error


@contextlib.contextmanager
def prometheus(store: DictStore, directory: Path) -> Iterator[Callable[[str, float], Answer]]:
    """A Prometheus that holds these series; yields what asks it."""
    written, data = directory / "series.txt", directory / "data"
    written.write_text(openmetrics(store), encoding="utf-8")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(written), str(data)],
        check=True,
        capture_output=True,
    )
    # As prometheus-operator writes it where nobody says otherwise, and so for ClusterLoader2.
    config = "global: {evaluation_interval: 30s}\n"
    (directory / "prometheus.yml").write_text(config, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={directory}/prometheus.yml",
               f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y",
               f"--web.listen-address={address}"]  # fmt: skip
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not is_ready(address):
            assert server.poll() is None, (directory / "log").read_text("utf-8")
            time.sleep(0.05)
        yield lambda query, at_s: their_answer(address, query, at_s)
    finally:
        server.terminate()
        server.wait()


def openmetrics(store: DictStore) -> str:
    """Samples without types: what OpenMetrics says of counters' names does not matter here."""
    lines = [
        name + "{" + ",".join(f'{k}="{v}"' for k, v in series.labels.items()) + f"}} {value} {at_s}"
        for name, several in store.series.items()
        for series in several
        for at_s, value in zip(series.times_s.tolist(), series.values.tolist(), strict=True)
    ]
    return "\n".join([*lines, "# EOF\n"])


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready"):
            return True
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def their_answer(address: str, query: str, at_s: float) -> Answer:
    asked = urllib.parse.urlencode({"query": query, "time": f"{at_s:.3f}"})
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{asked}") as response:
            found = json.load(response)["data"]
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 422:  # bad_data is a query that Prometheus cannot parse
                raise
        return None
    assert found["resultType"] == "vector", query
    return {
        frozenset(sample["metric"].items()): float(sample["value"][1]) for sample in found["result"]
    }


def our_answer(store: DictStore, query: str, at_s: float) -> Answer:
    check(query)
    try:
        found = evaluate(query, store, at_s)
    except RenderError:
        return None
    answer = {frozenset(sample.labels.items()): sample.value for sample in found}
    assert len(answer) == len(found)
    return answer


def same(query: str, ours: Answer, theirs: Answer) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if query.startswith(("topk", "bottomk")):
        values, others = (
            sorted(answer.values(), key=lambda value: (math.isnan(value), value))
            for answer in (ours, theirs)
        )
        return len(values) == len(others) and all(map(close, values, others))
    return ours.keys() == theirs.keys() and all(
        close(value, theirs[labels]) for labels, value in ours.items()
    )


def close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=1e-9) or (math.isnan(ours) and math.isnan(theirs))


# ----------------------------------------------------------------------------------- the proof


def needs(program: str) -> Any:
    return pytest.mark.skipif(not shutil.which(program), reason=f"{program} is not on PATH")


@pytest.mark.prometheus
@needs("prometheus")
@pytest.mark.parametrize("seed", range(3))
def test_every_answer_and_every_error_is_that_of_prometheus(seed: int, tmp_path: Path) -> None:
    store, writer = random_series(seed), RandomQuery(seed)
    queries = list(dict.fromkeys([*QUERIES, *(writer.query() for _ in range(200))]))
    asked = [(query, BASE_S + after_s) for query in queries for after_s in AFTER_S]
    with prometheus(store, tmp_path) as ask:
        theirs = {pair: ask(*pair) for pair in asked}
    wrong = [
        f"{query} at {at_s}: {ours}, Prometheus says {theirs[query, at_s]}"
        for query, at_s in asked
        if not same(query, ours := our_answer(store, query, at_s), theirs[query, at_s])
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(asked)}", *wrong[:5]])
    # The comparison is of answers and of errors, not of silence.
    assert sum(bool(answer) for answer in theirs.values()) > len(asked) / 2
    for query in ERRORS:
        assert any(theirs[query, BASE_S + after_s] is None for after_s in AFTER_S), query


@pytest.mark.prometheus
@needs("promtool")
def test_stale_markers_are_read_as_prometheus_reads_them(tmp_path: Path) -> None:
    """Back-fill cannot write the marker; promtool's rule tests can, and judge our answers."""
    values = [1.0, 2.0, STALE, 4.0, 5.0, STALE]
    times_s = np.arange(6) * 60.0
    twin = Series({"node": "2"}, times_s, np.arange(6.0))
    store = DictStore({"a": [Series({"node": "1"}, times_s, np.array(values)), twin]})
    queries = ["a", "a offset 1m", "sum(a)", "a + 0", "max_over_time(a[3m:1m])"] + [
        f"{function}_over_time(a[3m])" for function in ("count", "sum", "last", "min")
    ]
    queries += ["delta(a[4m])", "irate(a[4m]) * 60", "absent(a)"]
    tests = [
        {"expr": query, "eval_time": f"{at_s}s", "exp_samples": [
            {"labels": written(sample.labels), "value": sample.value}
            for sample in evaluate(query, store, at_s)
        ]}
        for query in queries for at_s in (60, 119, 120, 150, 180, 240, 300, 420, 700)
    ]  # fmt: skip
    series = [{"series": 'a{node="1"}', "values": "1 2 stale 4 5 stale"},
              {"series": 'a{node="2"}', "values": "0+1x5"}]  # fmt: skip
    unit = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    (tmp_path / "stale.yaml").write_text(json.dumps({"rule_files": [], "tests": [unit]}))
    run = subprocess.run(
        ["promtool", "test", "rules", "stale.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def written(labels: Any) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_the_order_of_series_in_the_store_does_not_show() -> None:
    series = random_series(1).series
    backwards = {name: list(reversed(several)) for name, several in series.items()}
    for query in [*TEMPLATE_QUERIES, *AGGREGATIONS]:
        there, back = (
            evaluate(query, DictStore(store), BASE_S + 1500) for store in (series, backwards)
        )
        assert [sample.labels for sample in there] == [sample.labels for sample in back]
        assert [sample.value for sample in there] == pytest.approx(
            [sample.value for sample in back], rel=1e-12, nan_ok=True
        )
