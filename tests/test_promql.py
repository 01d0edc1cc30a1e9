"""The PromQL evaluator gives the answers worked out by hand, and refuses by name what it cannot."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from promql_queries import MEAN, QUERIES, growth

from imgpull.errors import RenderError
from imgpull.simcluster.promql import (
    STALE,
    DictStore,
    Sample,
    Series,
    check,
    evaluate,
    metric_names,
    name_patterns,
)


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
    in_zone = [counter({0.0: one}, node=f"n{one:.0f}", zone="x") for one in (1.0, 2.0)]
    store = store_of(a=[*in_zone, counter({0.0: 6.0}, node="n3")])
    no_zone = Sample({}, 6.0)
    assert evaluate("sum by (zone) (a)", store, 0) == [no_zone, Sample({"zone": "x"}, 3.0)]
    assert evaluate("avg without (node) (a)", store, 0) == [no_zone, Sample({"zone": "x"}, 1.5)]
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


def test_a_name_is_kept_where_values_are_and_dropped_where_they_change() -> None:
    named, bare = [Sample({"__name__": "a"}, 60.0)], [Sample({}, 60.0)]
    for query in ("a", "+a", "last_over_time(a[1m])", "a > 5", "topk(1, a)", "a or b"):
        assert evaluate(query, STEADY, 60) == named
    for query in ("-a * -1", "abs(a)", "max_over_time(a[1m])", "sum(a)", "a + 0", "a == on () a"):
        assert evaluate(query, STEADY, 60) == bare


def test_a_pattern_takes_several_metrics_until_their_names_are_dropped() -> None:
    one = counter({0.0: 1.0, 30.0: 2.0}, node="n1")
    store = store_of(a_sum=one, b_sum=one, c_sum=counter({0.0: 1.0, 30.0: 4.0}, node="n2"))
    assert value('count({__name__=~"(a|b)_sum"})', store, 30) == 2
    assert value('sum({__name__!~"a.*", node="n1"})', store, 30) == 2
    assert value('sum(rate({__name__=~"(b|c)_sum"}[30s]))', store, 30) == pytest.approx(4 / 30)
    with pytest.raises(RenderError, match="same labelset") as caught:
        evaluate('rate({__name__=~"(a|b)_sum"}[30s])', store, 30)
    assert "one name at a time" in caught.value.hint


def test_a_stale_series_is_gone_at_once_and_its_marker_is_no_sample() -> None:
    store = store_of(a=counter({0.0: 1.0, 30.0: STALE, 60.0: 5.0}))
    assert value("a", store, 29) == 1
    assert evaluate("a", store, 30) == evaluate("a", store, 59) == []
    assert value("a", store, 60) == 5
    assert value("count_over_time(a[1m])", store, 60) == 2
    assert value("delta(a[1m])", store, 60) == 4
    assert evaluate("last_over_time(a[10s])", store, 35) == []
    assert value("absent(a)", store, 30) == 1


def test_a_subquery_steps_at_multiples_of_its_resolution() -> None:
    assert value("count_over_time(vector(1)[1m:10s])", STEADY, 65) == 6  # 10, 20, ... 60
    assert value("count_over_time(vector(1)[1m:10s])", STEADY, 60) == 7  # both ends
    assert value("sum_over_time(vector(time())[2m:])", STEADY, 130) == 30 + 60 + 90 + 120
    assert evaluate("sum_over_time(vector(time())[20s:])", STEADY, 115) == []


def test_topk_takes_the_first_by_labels_of_equals_and_nan_last() -> None:
    values = {"n1": math.nan, "n2": 1.0, "n3": 7.0, "n4": 7.0}
    store = store_of(a=[counter({0.0: one}, node=node) for node, one in values.items()])
    for query, expected in (("topk(1, a)", ["n3"]), ("bottomk(2, a)", ["n2", "n3"]),
                            ("topk(0, a)", []), ("topk(9, a)", [*values])):  # fmt: skip
        assert [sample.labels["node"] for sample in evaluate(query, store, 0)] == expected


# ------------------------------------------------------------------------------ what is refused

# Where ^ stands, with what is named.
REFUSED = [
    ("sum(a) + count_values('x', a)", "         ^", "aggregation count_values"),
    ("sum(stddev(a) by (node))", "    ^", "aggregation stddev"),
    ("sum by (stddev) (a) + STDDEV by (x) (a)", "                      ^", "aggregation stddev"),
    ('label_replace(a, "x", "$1", "node", ".*")', "^", "function label_replace"),
    ("deriv + sum by (deriv) (a) * deriv(a[5m])", " " * 29 + "^", "function deriv"),
    ('a{b="exp(c)"} + exp(c) + exp(d)', "                ^", "function exp"),
    ("sum by (atan2) (a) atan2 b", "                   ^", "operator atan2"),
    ("a{b='@'} + b @ 60", "             ^", "modifier @"),
    ("rate(a[5m] @ end())", "           ^", "modifier @"),
    ('{"a"}', " ^", 'name or argument in quotes "a"'),
    ('sum by ("x") (a)', "        ^", 'name or argument in quotes "x"'),
    ('a{or="1" or zone="2"}', "         ^", "'or' between matchers"),
    ("a + fill(0) b", "    ^", "modifier fill"),
    ('a{b=~"x"} + a{node=~"[[:alpha:]]+"}', "                    ^", "expression '[[:alpha:]]+'"),
    ("a{node!~`x*+`}", "        ^", "regular expression 'x*+'"),
    ("rate(a[300])", "       ^", "duration without a unit '300'"),
    ("max_over_time(a[5m:30])", "                   ^", "duration without a unit '30'"),
    ("a offset -5", "          ^", "duration without a unit '5'"),
    ("a + 5m", "    ^", "duration as a number '5m'"),
    ("1 + 2", "^", "scalar as the result"),
    ("  -(scalar(a))", "  ^", "scalar as the result"),
    ("a[5m]", "^", "matrix as the result"),
    ("max_over_time(a[1h:])[5m:]", "^", "matrix as the result"),
    ('"a"', "^", "string as the result"),
]


@pytest.mark.parametrize(("query", "marked", "named"), REFUSED)
def test_what_is_not_supported_is_refused_by_name_and_place(
    query: str, marked: str, named: str
) -> None:
    with pytest.raises(RenderError) as caught:
        check(query)
    assert caught.value.message.startswith("unsupported PromQL: ")
    assert f"{named}" in caught.value.message
    assert caught.value.message.endswith(f" at column {len(marked)}: {query}")
    assert "histogram_quantile" in caught.value.hint
    with pytest.raises(RenderError):
        evaluate(query, STEADY, 60)


@pytest.mark.parametrize(
    ("query", "marked"),
    [
        ("", "^"),
        ("sum(rate(a[%v:]))", "           ^"),
        ("rate(a[5m]) + rate(b)", "              ^"),
        ("sum(a", "     ^"),
        ("sum(a))", "      ^"),
        ("a + nofunc(a)", "    ^"),
        ("1 == 2", "     ^"),
        ("a ofset 5m", "  ^"),
        ("sum(a) by (b) by (c)", "              ^"),
        ("a * on (x) group_left / b", "                      ^"),
        ("sum(a) - label_replace(a, 'x') * * b", "                                 ^"),
        ("a{b=c}", "    ^"),
    ],
)
def test_what_does_not_parse_is_an_error_with_the_place_in_the_query(
    query: str, marked: str
) -> None:
    with pytest.raises(RenderError, match="does not parse") as caught:
        check(query)
    assert caught.value.message.endswith(f" at column {len(marked)}: {query}")


def test_a_place_in_a_query_of_several_lines_has_the_line() -> None:
    with pytest.raises(RenderError, match="function exp at line 2, column 5: "):
        check("a +  # exp(a)\n    exp(a)")


@pytest.mark.parametrize("query", QUERIES)
def test_queries_that_prometheus_was_asked_are_supported(query: str) -> None:
    check(query)


def test_metric_names_are_found_wherever_they_stand() -> None:
    query = 'sum(rate(a_sum[5m])) / (topk(1, b offset 5m) or {__name__="c"}) > scalar(d{x="e"})'
    assert metric_names(query) == {"a_sum", "b", "c", "d"}
    assert not name_patterns(query)
    assert metric_names("vector(1)") == set()


def test_name_patterns_tell_which_names_a_selector_takes() -> None:
    patterns = name_patterns('a + sum({__name__=~"x(_y)?_sum", node="1"}) + {node="2"}')
    assert list(patterns) == ['{__name__=~"x(_y)?_sum",node="1"}', '{node="2"}']
    takes, takes_all = patterns.values()
    assert [takes(name) for name in ("x_sum", "x_y_sum", "xx_sum")] == [True, True, False]
    assert takes_all("anything")


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
