"""The PromQL evaluator gives the answers worked out by hand, and refuses by name what it cannot."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from imgpull.errors import RenderError
from imgpull.simcluster.promql import DictStore, Sample, Series, check, evaluate, metric_names

MEASURED = '{node=~"aks-measured-.+"}'


def growth(metric: str, by: str) -> str:
    """What a counter grew by in 800 s, also where the series did not exist before."""
    now = f"sum by ({by}) ({metric}{MEASURED})"
    return f"({now} - (sum by ({by}) ({metric}{MEASURED} offset 800s) or 0 * {now}))"


MEAN = f"{growth('M_sum', 'node')} / ({growth('M_count', 'node')} > 0)"
TEMPLATE_QUERIES = [
    f"histogram_quantile(0.99, {growth('M_bucket', 'node, le')})",
    f"histogram_quantile(0.5, {growth('M_bucket', 'le')})",
    MEAN,
    f"quantile(0.5, {MEAN})",
    f"quantile(0.99, {MEAN})",
    f"max({MEAN})",
    "sum(rate(a[60s])) / sum(rate(b[60s]))",
    "sum(rate(a[5m])) / sum(rate(b[5m]))",
    'sum(increase(a{zone="1"}[600s]))',
    "sum(increase(a[600s])) by (zone)",
    "histogram_quantile(0.9, sum by (node, le) (rate(M_bucket[10m])))",
    "sum by (node) (M_sum) / sum by (node) (M_count)",
    'sum(increase(absent_total{status="failure"}[600s])) or vector(0)',
    "sum(a) or vector(0)",
    'sum by (node) (rate(absent[5m])) or sum by (node) (rate(a{zone!="1"}[5m]))',
    'sum(max_over_time(a[30m])) - sum(min_over_time(a{node!~"aks-default.*"}[30m]))',
    "count(M_count > 0)",
    "quantile by (zone) (0.9, rate(a[10m]))",
]


def counter(points: Mapping[float, float], **labels: str) -> Series:
    times_s = np.array(sorted(points), dtype=np.float64)
    return Series(labels, times_s, np.array([points[at_s] for at_s in sorted(points)]))


def store_of(**metrics: Series | Sequence[Series]) -> DictStore:
    return DictStore(
        {name: [found] if isinstance(found, Series) else found for name, found in metrics.items()}
    )


def value(query: str, store: DictStore, at_s: float) -> float:
    (sample,) = evaluate(query, store, at_s)
    return sample.value


STEADY = store_of(a=counter({at_s: at_s for at_s in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0)}))


def test_rate_reaches_for_edges_that_are_near() -> None:
    assert value("increase(a[60s])", STEADY, 65) == pytest.approx(60)
    assert value("rate(a[60s])", STEADY, 65) == pytest.approx(1)


def test_an_edge_is_near_up_to_1_1_intervals() -> None:
    assert value("increase(a[60500ms])", STEADY, 70.5) == pytest.approx(60.5)
    assert value("increase(a[61500ms])", STEADY, 71.5) == pytest.approx(50 + 5)


def test_rate_goes_half_an_interval_beyond_a_far_edge() -> None:
    store = store_of(a=counter({40.0: 5.0, 50.0: 15.0}))
    assert value("delta(a[60s])", store, 60) == pytest.approx(10 * (10 + 5 + 10) / 10)


def test_rate_does_not_reach_below_zero_of_a_counter() -> None:
    store = store_of(a=counter({30.0: 1.0, 40.0: 11.0, 50.0: 21.0}))
    assert value("increase(a[60s])", store, 60) == pytest.approx(20 * (20 + 1 + 10) / 20)


def test_a_counter_reset_is_no_loss() -> None:
    store = store_of(a=counter({10.0: 10.0, 20.0: 20.0, 30.0: 5.0, 40.0: 15.0}))
    assert value("increase(a[30s])", store, 40) == pytest.approx(25)
    assert value("delta(a[30s])", store, 40) == pytest.approx(5)
    assert value("irate(a[30s] offset 10s)", store, 40) == pytest.approx(0.5)


def test_a_counter_seen_once_in_the_window_has_no_rate() -> None:
    assert evaluate("rate(a[9s])", STEADY, 60) == []
    assert value("count_over_time(a[9s])", STEADY, 60) == 1


def test_a_window_includes_both_ends() -> None:
    assert value("count_over_time(a[10s])", STEADY, 60) == 2
    assert value("count_over_time(a[10s] offset 5s)", STEADY, 60) == 1


def test_an_instant_selector_looks_back_five_minutes() -> None:
    assert value("a", STEADY, 360) == 60
    assert evaluate("a", STEADY, 360.001) == []
    assert evaluate("a", STEADY, 9.999) == []


def test_times_are_milliseconds_so_offsets_hit_a_scrape_exactly() -> None:
    store = store_of(a=counter({200.1: 7.0}))
    assert 1000.1 - 800 != 200.1  # as floats
    assert value("a offset 800s", store, 1000.1) == 7
    assert value("a offset -100ms", store, 200.0) == 7


def test_growth_by_subtraction_starts_at_zero_for_a_series_that_came_late() -> None:
    old = counter({0.0: 3.0, 900.0: 10.0}, node="aks-measured-1")
    new = counter({900.0: 4.0}, node="aks-measured-2")
    other = counter({900.0: 99.0}, node="aks-default-1")
    answer = evaluate(growth("a", "node"), store_of(a=[new, old, other]), 900)
    assert answer == [
        Sample({"node": "aks-measured-1"}, 7.0),
        Sample({"node": "aks-measured-2"}, 4.0),
    ]


def test_mean_leaves_out_nodes_that_saw_nothing() -> None:
    busy, idle = {"node": "aks-measured-1"}, {"node": "aks-measured-2"}
    store = store_of(
        M_sum=[counter({900.0: 30.0}, **busy), counter({0.0: 8.0, 900.0: 8.0}, **idle)],
        M_count=[counter({900.0: 4.0}, **busy), counter({0.0: 2.0, 900.0: 2.0}, **idle)],
    )
    assert evaluate(MEAN, store, 900) == [Sample(busy, 7.5)]
    assert value(f"quantile(0.5, {MEAN})", store, 900) == 7.5


def test_what_is_absent_is_filled_by_or() -> None:
    assert evaluate("sum(nothing)", STEADY, 60) == []
    assert evaluate("sum(nothing) or vector(0)", STEADY, 60) == [Sample({}, 0.0)]
    assert evaluate("sum(a) or vector(0)", STEADY, 60) == [Sample({}, 60.0)]


def test_nothing_divided_by_nothing_is_kept_as_nan() -> None:
    assert math.isnan(value("(a - a) / (a - a)", STEADY, 60))
    assert value("a / (a - a)", STEADY, 60) == math.inf


def test_nan_counts_only_where_there_is_nothing_else() -> None:
    several = [counter({0.0: one}, node=str(one)) for one in (3.0, math.nan, 1.0)]
    store = store_of(a=several)
    assert value("max(a)", store, 0) == 3
    assert value("min(a)", store, 0) == 1
    assert value("quantile(0.5, a)", store, 0) == 1  # sorts before every number
    assert value("count(a)", store, 0) == 3
    assert math.isnan(value("sum(a)", store, 0))
    assert math.isnan(value('max(a{node="nan"})', store, 0))


def histogram(**counts: float) -> DictStore:
    """Buckets by name: b1 is le="1", binf is le="+Inf"."""
    buckets = [
        counter({0.0: count}, le=name[1:].replace("inf", "+Inf").replace("_", "."))
        for name, count in counts.items()
    ]
    return store_of(M_bucket=buckets)


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {"b1": 0, "b2": 10, "binf": 10}, 1.5),  # the middle of the second bucket
        (0.5, {"b0_5": 4, "b2": 4, "binf": 4}, 0.25),  # the first bucket begins at zero
        (0.99, {"b5": 0, "b10": 0, "binf": 7}, 10),  # saturated: the highest finite edge
        (0.5, {"b1": 6, "b2": 4, "b3": 10, "binf": 10}, 5 / 6),  # a dip counts as level
        (0.5, {"b1": 0, "binf": 0}, math.nan),
        (0.5, {"b1": 5, "b2": 5}, math.nan),  # without +Inf nobody knows the total
        (0.5, {"binf": 5}, math.nan),
        (1.5, {"b1": 5, "binf": 5}, math.inf),
        (-1, {"b1": 5, "binf": 5}, -math.inf),
    ],
)
def test_quantile_of_a_histogram(q: float, buckets: dict[str, float], expected: float) -> None:
    answer = value(f"histogram_quantile({q}, M_bucket)", histogram(**buckets), 0)
    assert answer == pytest.approx(expected, nan_ok=True)


def test_aggregations_keep_by_and_drop_without() -> None:
    store = store_of(
        a=[
            counter({0.0: 1.0}, node="n1", zone="x"),
            counter({0.0: 2.0}, node="n2", zone="x"),
            counter({0.0: 6.0}, node="n3"),
        ]
    )
    assert evaluate("sum by (zone) (a)", store, 0) == [Sample({}, 6.0), Sample({"zone": "x"}, 3.0)]
    assert evaluate("avg without (node) (a)", store, 0) == [
        Sample({}, 6.0),
        Sample({"zone": "x"}, 1.5),
    ]
    assert value("quantile(0.75, a)", store, 0) == 4.0
    assert value("count(a > 1)", store, 0) == 2
    assert value("sum(-a % 4)", store, 0) == -1 - 2 - 2
    assert value('sum(a{node=~"n1|n3"})', store, 0) == 7
    assert value('sum(a{zone=""})', store, 0) == 6
    assert evaluate('a{node=~"n"}', store, 0) == []  # a pattern must match all of a value


def test_group_left_keeps_the_many_and_copies_labels_of_the_one() -> None:
    store = store_of(
        a=[counter({0.0: 2.0}, node="n1", le=le) for le in ("1", "2")],
        b=counter({0.0: 3.0}, node="n1", zone="x"),
    )
    assert evaluate("a * on (node) group_left (zone) b", store, 0) == [
        Sample({"node": "n1", "le": "1", "zone": "x"}, 6.0),
        Sample({"node": "n1", "le": "2", "zone": "x"}, 6.0),
    ]


@pytest.mark.parametrize("query", ["a * on (node) b", "b * on (node) a"])
def test_ambiguous_matching_is_an_error_that_shows_the_query(query: str) -> None:
    store = store_of(
        a=[counter({0.0: 2.0}, node="n1", le=le) for le in ("1", "2")],
        b=counter({0.0: 3.0}, node="n1"),
    )
    with pytest.raises(RenderError, match=re.escape(query)) as caught:
        evaluate(query, store, 0)
    assert "group_left" in caught.value.hint


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("topk(2, a)", "aggregation topk"),
        ('count_values("x", a)', "aggregation count_values"),
        ("sum(stddev(a) by (node))", "aggregation stddev"),
        ('label_replace(a, "x", "$1", "node", ".*")', "function label_replace"),
        ("1 + predict_linear(a[5m], 60)", "function predict_linear"),
        ("a atan2 b", "operator atan2"),
        ("max_over_time(a[5m:1m])", "subquery"),
        ("a @ 60", "modifier @"),
        ("rate(a[5m] @ end())", "modifier @"),
        ('{__name__=~"a|b"}', "selector by __name__"),
        ('{"a"}', "selector by __name__"),
        ('a{node="1" or zone="2"}', "'or' between matchers"),
        ("a + fill(0) b", "modifier fill"),
        ("sum by (__name__) (a)", "grouping by __name__"),
        ("a + on (__name__) b", "grouping by __name__"),
        ('a{node=~"[[:alpha:]]+"}', "regular expression '[[:alpha:]]+'"),
        ("rate(a[300])", "duration without a unit '[300]'"),
        ("a offset 5", "duration without a unit 'offset 5'"),
        ("1 + 2", "scalar as the result"),
        ("-(scalar(a))", "scalar as the result"),
        ("a[5m]", "matrix as the result"),
        ('"a"', "string as the result"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(query: str, named: str) -> None:
    with pytest.raises(RenderError) as caught:
        check(query)
    assert caught.value.message.startswith("unsupported PromQL: ")
    assert named in caught.value.message
    assert caught.value.message.endswith(query)
    assert "histogram_quantile" in caught.value.hint
    with pytest.raises(RenderError):
        evaluate(query, STEADY, 60)


@pytest.mark.parametrize(
    "query", ["", "sum(rate(a[%v:]))", "rate(a)", "sum(a", "nofunc(a)", "1 == 2"]
)
def test_what_does_not_parse_is_an_error_with_the_query(query: str) -> None:
    with pytest.raises(RenderError, match="does not parse") as caught:
        check(query)
    assert caught.value.message.endswith(query)


@pytest.mark.parametrize("query", TEMPLATE_QUERIES)
def test_queries_of_our_templates_are_supported(query: str) -> None:
    check(query)


def test_brackets_within_a_label_are_no_duration() -> None:
    check('rate(a{node="[300]"}[5m])')


def test_metric_names_are_found_wherever_they_stand() -> None:
    query = 'sum(rate(a_sum[5m])) / (topk(1, b offset 5m) or {__name__="c"}) > scalar(d{x="e"})'
    assert metric_names(query) == {"a_sum", "b", "c", "d"}
    assert metric_names("vector(1)") == set()


def test_a_thousand_nodes_are_answered_each() -> None:
    edges = [str(edge) for edge in range(18)] + ["+Inf"]
    series = []
    for node in range(1000):
        times_s = np.arange(node % 30, 2400.0, 30)
        for index, edge in enumerate(edges):
            labels = {"node": f"aks-measured-{node:04}", "le": edge}
            series.append(Series(labels, times_s, times_s * index))
    query = f"histogram_quantile(0.99, {growth('M_bucket', 'node, le')})"
    answer = evaluate(query, store_of(M_bucket=series), 2000)
    assert len({sample.labels["node"] for sample in answer}) == len(answer) == 1000
