"""The PromQL evaluator answers random queries over random series as Prometheus itself does."""

import json
import math
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_promql import TEMPLATE_QUERIES

from imgpull.errors import RenderError
from imgpull.simcluster.promql import DictStore, Series, evaluate


def random_series(seed: int) -> DictStore:
    """Counters with resets, histograms and gauges, irregular in time: late, with gaps, cut short.

    Values are eighths, so that sums are exact in any order and equality is decided, not rounded.
    """
    rng = np.random.default_rng(seed)
    names = ("a", "b", "odd", "M_bucket", "M_sum", "M_count")
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
            found["M_bucket"].append(series)
        count = per_bucket[:, -1].astype(float)
        found["M_count"].append(Series({"node": node}, histogram_times_s, count))
        found["M_sum"].append(Series({"node": node}, histogram_times_s, count * 1.375))
    return DictStore(found)


def random_scrapes(rng: np.random.Generator) -> Any:
    begin, end = rng.integers(0, 700), rng.integers(1000, 1800)
    gaps = rng.choice(
        [14, 15, 15, 15, 16, 30, 200, 350], 130, p=[0.1, 0.3, 0.3, 0.1, 0.1, 0.06, 0.03, 0.01]
    )
    times_s = begin + np.cumsum(gaps).astype(float)
    return times_s[times_s <= end]


class RandomQuery:
    """Writes PromQL expressions of every kind that the evaluator takes."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def vector(self, depth: int = 3) -> str:
        kinds: list[Callable[[int], str]] = [self._selector, self._over_time]
        if depth > 0:
            kinds += [self._over_time, self._aggregation, self._with_scalar, self._pair, self._set]
            kinds += [self._function, self._aggregation]
        return self._dice.choice(kinds)(depth - 1)

    def _pick(self, *options: str) -> str:
        return self._dice.choice(options)

    def _selected(self, ranged: str) -> str:
        metric = self._pick("a", "b", "a", "b", "odd", "M_count", "M_sum", "M_bucket", "absent")
        matcher = self._pick("", "", '{node=~"aks-measured-.+"}', '{node!="aks-measured-1"}',
                             '{zone="1"}', '{zone=""}', '{node!~".*-[02]"}')  # fmt: skip
        offset = self._pick("", "", " offset 5m", " offset 37s", " offset -40s")
        return f"{metric}{matcher}{ranged}{offset}"

    def _selector(self, _: int) -> str:
        return self._selected("")

    def _over_time(self, _: int) -> str:
        function = self._pick(
            "rate", "increase", "delta", "irate", "avg_over_time", "count_over_time",
            "last_over_time", "max_over_time", "min_over_time", "sum_over_time",
        )  # fmt: skip
        window = self._pick("[45s]", "[61s]", "[5m]", "[17m]", "[1500ms]")
        return f"{function}({self._selected(window)})"

    def _aggregation(self, depth: int) -> str:
        clause = self._pick(
            "", " by (node)", " by (zone, le)", " without (node)", " without (zone)"
        )
        name = self._pick("sum", "avg", "min", "max", "count", "quantile")
        phi = self._pick("0.5, ", "0.99, ", "0, ", "1, ", "-1, ", "1.5, ")
        return f"{name}{clause} ({phi if name == 'quantile' else ''}{self.vector(depth)})"

    def _with_scalar(self, depth: int) -> str:
        operator = self._operator()
        number = self._pick("0", "2", "-3.5", "1e3", "NaN", "Inf", "(1 + 2 ^ 3 % 5)", "scalar(a)")
        sides = [number, f"({self.vector(depth)})"]
        self._dice.shuffle(sides)
        return f" {operator} ".join(sides)

    def _operator(self) -> str:
        operator = self._pick("+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=")
        boolean = operator in ("==", "!=", ">", "<", ">=", "<=") and self._dice.random() < 0.5
        return operator + (" bool" if boolean else "")

    def _pair(self, depth: int) -> str:
        matching = self._pick(
            "", "", " on (node)", " on (node) group_left ()", " on (node) group_right (zone)",
            " ignoring (le)", " ignoring (zone, le)", " on ()",
        )  # fmt: skip
        return f"({self.vector(depth)}) {self._operator()}{matching} ({self.vector(depth)})"

    def _set(self, depth: int) -> str:
        matching = self._pick("", "", " on (node)", " ignoring (zone)", " on ()")
        operator = self._pick("and", "or", "unless")
        return f"({self.vector(depth)}) {operator}{matching} ({self.vector(depth)})"

    def _function(self, depth: int) -> str:
        inner = self.vector(depth)
        if self._dice.random() < 0.3:
            q = self._pick("0", "0.5", "0.9", "1", "2", "NaN")
            window = self._pick("M_bucket", "rate(M_bucket[5m])", "delta(M_bucket[5m])")
            return f"histogram_quantile({q}, {window})"
        return self._pick(f"-({inner})", f"abs({inner})", f"clamp_min({inner}, 1)",
                          f"clamp_max({inner}, scalar(b))", f"vector(scalar({inner}))")  # fmt: skip


# ------------------------------------------------------------------------ the oracle: Prometheus

Answer = dict[frozenset[tuple[str, str]], float] | None  # None: refused


def prometheus_answers(
    store: DictStore, queries: Iterable[tuple[str, int]], directory: Path
) -> dict[tuple[str, int], Answer]:
    """What promtool answers: expecting nothing, it prints what it got instead."""
    last = max(series.times_s[-1] for several in store.series.values() for series in several)
    asked = list(dict.fromkeys([*queries, ("vector(0)", int(last))]))  # the last one loads all
    test = {
        "interval": "1s",
        "input_series": [
            {"series": name + "{" + ", ".join(f'{k}="{v}"' for k, v in series.labels.items()) + "}",
             "values": written(series)}
            for name, several in store.series.items() for series in several
        ],
        "promql_expr_test": [{"expr": query, "eval_time": f"{at_s}s"} for query, at_s in asked],
    }  # fmt: skip
    document = {"rule_files": [], "evaluation_interval": "1m", "tests": [test]}
    path = directory / "oracle.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    run = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    answers: dict[tuple[str, int], Answer] = {pair: {} for pair in asked}
    text = run.stdout + run.stderr
    for expr, when, rest in re.findall(
        r'expr: ("(?:\\.|[^"\\])*"), time: (\w+),\s+(err: .*|exp: nil\s+got: .*)', text
    ):
        units = {"h": 3600, "m": 60, "s": 1}
        at_s = sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", when))
        assert (json.loads(expr), at_s) in answers
        answers[json.loads(expr), at_s] = None if rest.startswith("err") else samples(rest)
    return answers


def written(series: Series) -> str:
    """A series as promtool reads it: a value a second, _ where there is none."""
    values = dict(zip(series.times_s.astype(int).tolist(), series.values.tolist(), strict=True))
    return " ".join(
        str(values[second]).replace("inf", "Inf").replace("nan", "NaN") if second in values else "_"
        for second in range(max(values) + 1)
    )


def samples(text: str) -> Answer:
    found = re.findall(r"(\{[^}]*\}) (\S+?)(?:,|$)", text)
    return {
        frozenset(
            (name, value)
            for name, value in re.findall(r'(\w+)="([^"]*)"', labels)
            if name != "__name__"
        ): float(value)
        for labels, value in found
    }


def our_answer(store: DictStore, query: str, at_s: float) -> Answer:
    try:
        found = evaluate(query, store, at_s)
    except RenderError:
        return None
    answer = {frozenset(sample.labels.items()): sample.value for sample in found}
    assert len(answer) == len(found)
    return answer


def same(ours: Answer, theirs: Answer) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return ours.keys() == theirs.keys() and all(
        math.isclose(value, theirs[labels], rel_tol=1e-9)
        or (math.isnan(value) and math.isnan(theirs[labels]))
        for labels, value in ours.items()
    )


promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on PATH")


@pytest.mark.prometheus
@promtool
@pytest.mark.parametrize("seed", range(3))
def test_every_answer_is_that_of_prometheus(seed: int, tmp_path: Path) -> None:
    store = random_series(seed)
    writer = RandomQuery(seed)
    nans = ["quantile(0.4, odd)", "max(odd)", "min(odd)", "quantile by (le) (0.7, 0 / M_bucket)"]
    queries = TEMPLATE_QUERIES + nans + [writer.vector() for _ in range(400)]
    asked = [(query, at_s) for query in queries for at_s in (905, 1200, 1500)]
    theirs = prometheus_answers(store, asked, tmp_path)
    wrong = [
        f"{query} at {at_s}: {ours}, Prometheus says {theirs[query, at_s]}"
        for query, at_s in asked
        if not same(ours := our_answer(store, query, at_s), theirs[query, at_s])
    ]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(asked)}", *wrong[:5]])
    answered = [answer for answer in theirs.values() if answer]
    assert len(answered) > len(asked) / 2  # the comparison is of answers, not of silence


def test_the_order_of_series_in_the_store_does_not_show() -> None:
    series = random_series(1).series
    backwards = {name: list(reversed(several)) for name, several in series.items()}
    for query in TEMPLATE_QUERIES:
        there, back = (evaluate(query, DictStore(store), 1500) for store in (series, backwards))
        assert [sample.labels for sample in there] == [sample.labels for sample in back]
        assert [sample.value for sample in there] == pytest.approx(
            [sample.value for sample in back], rel=1e-12, nan_ok=True
        )
