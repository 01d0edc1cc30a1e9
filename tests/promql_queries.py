"""PromQL that is asked of our evaluator and of Prometheus: by hand, and at random."""

import random
from collections.abc import Callable

MEASURED = '{node=~"aks-measured-.+"}'
ARITHMETIC = ("+", "-", "*", "/", "%", "^")
COMPARISONS = ("==", "!=", ">", "<", ">=", "<=")


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

SELECTORS = [
    "a",
    "absent_metric",
    'a{zone="1"}',
    'a{zone!="1"}',
    'a{node=~"aks-measured-[02]"}',
    'a{node!~"aks-.*-[02]"}',
    'M_count{zone=""}',
    'a{zone="1", node=~".*[02]", absent=""}',
    '{__name__="a"}',
    '{__name__=~"M_(sum|count)"}',
    '{__name__=~"M_.*", __name__!~".*(bucket|sum)", node!=""}',
    '{node="aks-default-0"}',
    "a offset 5m",
    "a offset -37s",
    "a offset 1h",
    "late - 1",
    "early",
    "early offset 8m",
    "early offset 9m",
    'a{node!="[300] offset 5 @"}',
]
RANGES = [
    f"{function}({selector})"
    for function in (
        "rate", "irate", "increase", "delta", "avg_over_time", "min_over_time", "max_over_time",
        "sum_over_time", "count_over_time", "last_over_time",
    )
    for selector in ("a[5m]", "b[61s] offset 2m", "odd[4m]", "M_bucket[1500ms]")
] + [
    "quantile_over_time(0.3, a[5m])",
    "quantile_over_time(0.5, odd[17m])",
    "quantile_over_time(-1, a[5m])",
    "quantile_over_time(1.1, a[5m])",
    "quantile_over_time(scalar(absent_metric), a[5m])",
    'last_over_time({__name__=~"M_sum|M_count"}[5m])',
    'sum(rate({__name__="a"}[5m]))',
]  # fmt: skip
HISTOGRAMS = [
    f"histogram_quantile({q}, {buckets})"
    for q in ("0", "0.5", "0.99", "1", "-1", "1.5", "NaN")
    for buckets in ("M_bucket", "sum by (le) (rate(M_bucket[10m]))")
] + ["histogram_quantile(0.9, a)", "histogram_quantile(0.9, sum by (node, le) (M_bucket))"]
AGGREGATIONS = [
    f"{function}{clause} ({parameter}{selector})"
    for function, parameter in (
        ("sum", ""), ("avg", ""), ("min", ""), ("max", ""), ("count", ""), ("quantile", "0.4, "),
    )
    for clause in ("", " by (zone)", " without (node)")
    for selector in ("a", "odd")
] + [
    "topk(1, a)",
    "topk(2, b) + 1",
    "bottomk by (zone) (1, a)",
    "topk without (node) (1, a)",
    "bottomk(3.9, odd)",
    "topk(0, a)",
    "topk(-3, a)",
    "topk(99, odd)",
    "topk(scalar(count(a)) - 3, a)",
    "sum(a) by (zone)",
    "count by (__name__) ({node!=\"\"})",
    "sum by (absent) (a)",
    "sum without () (a)",
    "quantile(1.5, a)",
    "quantile by (le) (0.7, 0 / M_bucket)",
    "MAX(a) BY (zone)",
]  # fmt: skip
OPERATORS = [
    *[f"a {symbol} b" for symbol in [*ARITHMETIC, *COMPARISONS]],
    *[f"a {symbol} bool b" for symbol in COMPARISONS],
    *[f"30 {symbol} a" for symbol in ("-", "/", "%", "^", ">", "<")],
    *[f"odd {symbol} 1" for symbol in ("+", "%", "==", "!=", ">", "<=")],
    *[f"a {symbol} M_count" for symbol in ("and", "or", "unless")],
    *[f"a {symbol} on (node) M_count" for symbol in ("and", "or", "unless", "+", ">")],
    *[f"a {symbol} ignoring (zone) M_count" for symbol in ("and", "or", "unless", "+", ">")],
    "2 > bool a",
    "-a",
    "+a",
    "-a ^ 2",
    "a - b - a",
    "2 ^ 3 ^ 2 + a",
    "a + b * 2 > 50 or b",
    "a * (1 + 2 * 3 % 4 >= bool 1)",
    "M_bucket / on (node) group_left () M_count",
    "M_bucket / on (node) group_left (zone) a",
    "M_count * on (node) group_right () M_bucket",
    "M_bucket > ignoring (le, zone) group_left (zone) a",
    "M_bucket >= bool on (node) group_left () a",
    "a * on (node) group_left (__name__) M_count",
    "a == on (node, __name__) a",
    "a < bool on (node) group_left (__name__) M_count",
    "a > on (node) group_left (__name__) M_count",
    "M_sum / M_count",
    "a and on () vector(1)",
    "M_bucket > on (node) M_count",
    "a # a comment\n + b",
]
FUNCTIONS = [
    "abs(-a)",
    "ceil(a)",
    "floor(-a)",
    "round(a)",
    "round(-a / 4)",
    "round(a, 0.1)",
    "round(odd, -2)",
    "round(a, 0)",
    "clamp_min(a, 20)",
    "clamp_max(odd, 2)",
    "clamp_min(odd, NaN)",
    "vector(time())",
    "time() - a",
    "vector(scalar(a))",
    "vector(scalar(sum(a)))",
    'vector(scalar(a{node="aks-default-0"}))',
    "absent(a)",
    "absent(absent_metric)",
    'absent(x{y="1", z=~"2", w="3", w="4", v=""})',
    'absent(({__name__="x", y="1"}))',
    'absent(sum(x{y="1"}))',
    "sum(absent_metric) or vector(0)",
]
SUBQUERIES = [
    "max_over_time(a[5m:])",
    "max_over_time(a[5m:1m])",
    "count_over_time(a[5m:1m])",
    "count_over_time(a[50s:])",
    "count_over_time(vector(1)[5m:7s])",
    "count_over_time(vector(1)[5m:7s] offset 3s)",
    "last_over_time(a[5m:20s] offset 1m)",
    "sum_over_time(vector(time())[3m:13s])",
    "rate((a + b)[5m:15s])",
    "rate(rate((4 ^ b)[5m:1m])[5m:1m])",
    "avg_over_time(rate(a[2m])[10m:30s])",
    "max_over_time(sum(rate(a[1m]))[10m:])",
    "quantile_over_time(0.9, sum by (zone) (a)[10m:45s])",
    "max_over_time((b - b offset 1m)[5m:])",
    "min_over_time(max_over_time(a[1m:10s])[5m:1m])",
    "min_over_time(max_over_time(a[1m:10s] offset 1m)[5m:] offset -30s)",
    "count_over_time((a > 30)[10m:1m])",
    "absent(max_over_time(absent_metric[5m:]))",
    'last_over_time({__name__=~"M_sum|M_count"}[5m:1m])',
    "increase(M_bucket[10m:30s])",
]
ERRORS = [
    'rate({__name__=~"M_sum|M_count"}[10m])',
    '-{__name__=~"M_sum|M_count"}',
    '{__name__=~"M_sum|M_count"} * 2',
    'abs({__name__=~"M_sum|M_count"})',
    'max_over_time({__name__=~"M_sum|M_count"}[5m:1m])',
    'max_over_time(rate({__name__=~"early|late"}[1m])[25m:20s])',
    'max_over_time((-{__name__=~"early|late"})[25m:20s])',
    'histogram_quantile(0.5, {__name__=~"M_bucket|N_bucket|M_count"} or M_bucket * 1)',
    'histogram_quantile(0.5, {__name__=~"a|b"} * on (node) group_left (le) M_bucket)',
    'a / on (node) {__name__=~"M_sum|M_count"}',
    "M_bucket / on (node) M_count",
    "M_count / on (node) M_bucket",
    "a * on (zone) b",
    "a * on (zone) group_left () b",
    "M_bucket * on (node) group_left (le) M_count",
    '{__name__=~"a|b"} >= ignoring (x) a',
    # At 905 s the outer step is the one at 400 s, but the inner subquery goes on to the end.
    'max_over_time(max_over_time(rate({__name__=~"early|late"}[1m])[10m:20s])[10m:10m])',
    "topk(NaN, a)",
    "topk(1e19, a)",
    '{__name__=~"M_(sum|count)"} + on (node, __name__) {__name__=~"M_(sum|count)"}',
    "bottomk(Inf, absent_metric)",
]
# As in Azure's telescope (modules/python/clusterloader2/cri/config), our metrics in their place.
TELESCOPE = [
    'sum(rate(M_sum{node=~"aks-m.*"}[10m])) / sum(rate(M_count{node=~"aks-m.*"}[10m]))',
    'sum by (node) (rate(M_sum{node=~"aks-m.*"}[5m])) / '
    'sum by (node) (rate(M_count{node=~"aks-m.*"}[5m]))',
    *[
        f'quantile({q}, rate(M_sum{{node=~"aks-.*"}}[10m]) / rate(M_count{{node=~"aks-.*"}}[10m]) '
        'and (rate(M_count{node=~"aks-.*"}[10m]) > 0))'
        for q in (0.5, 0.9, 0.99)
    ],
    'sum(M_count{node=~"aks-measured.*"})',
    *[
        f"histogram_quantile({q}, sum(avg_over_time(M_bucket[10m])) by (node, le))"
        for q in (0.5, 0.9, 0.99)
    ],
    "histogram_quantile(0.99, sum(rate(M_bucket[5m])) by (node, le))",
]
QUERIES = [
    *(SELECTORS + RANGES + HISTOGRAMS + AGGREGATIONS + OPERATORS + FUNCTIONS + SUBQUERIES),
    *(ERRORS + TELESCOPE + TEMPLATE_QUERIES),
]


class RandomQuery:
    """Writes PromQL expressions of every kind that the evaluator takes."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def query(self) -> str:
        """A query; topk() only outermost: of equals either may be taken."""
        clause = self._pick("", " by (zone)", " without (node)")
        top = self._pick("topk", "bottomk") + f"{clause} ({self._pick('1', '2', '3.7', '-1')}, "
        return self.vector() if self._dice.random() < 0.9 else f"{top}{self.vector()})"

    def vector(self, depth: int = 3) -> str:
        kinds: list[Callable[[int], str]] = [self._selector, self._over_time]
        if depth > 0:
            kinds += [self._over_time, self._aggregation, self._with_scalar, self._pair, self._set]
            kinds += [self._function, self._aggregation, self._subquery]
        return self._dice.choice(kinds)(depth - 1)

    def _pick(self, *options: str) -> str:
        return self._dice.choice(options)

    def _selected(self, ranged: str) -> str:
        metric = self._pick("a", "b", "a", "b", "odd", "M_count", "M_sum", "M_bucket", "absent",
                            '{__name__=~"M_(sum|count)"}', '{__name__="a"}', '{__name__!~"a|M.*"}',
                            '{__name__=~"early|late"}')  # fmt: skip
        matcher = self._pick("", "", '{node=~"aks-measured-.+"}', '{node!="aks-measured-1"}',
                             '{zone="1"}', '{zone=""}', '{node!~".*-[02]"}')  # fmt: skip
        if "__name__!~" in metric:
            matcher = '{node!=""}'
        if "}" in metric:
            matcher, metric = matcher[:-1], metric[:-1]
            matcher = f", {matcher[1:]}}}" if matcher else "}"
        return f"{metric}{matcher}{ranged}{self._offset()}"

    def _offset(self) -> str:
        return self._pick("", "", " offset 5m", " offset 37s", " offset -40s")

    def _selector(self, _: int) -> str:
        return self._selected("")

    def _over(self) -> str:
        return self._pick(
            "rate(", "increase(", "delta(", "irate(", "avg_over_time(", "count_over_time(",
            "last_over_time(", "max_over_time(", "min_over_time(", "sum_over_time(",
            f"quantile_over_time({self._pick('0', '0.3', '0.5', '1', '2', 'NaN')}, ",
        )  # fmt: skip

    def _over_time(self, _: int) -> str:
        window = self._pick("[45s]", "[61s]", "[5m]", "[17m]", "[1500ms]")
        return f"{self._over()}{self._selected(window)})"

    def _subquery(self, depth: int) -> str:
        window = self._pick("[5m:]", "[5m:1m]", "[3m:20s]", "[59s:]", "[7m:45s]", "[10s:7s]")
        return f"{self._over()}({self.vector(depth)}){window}{self._offset()})"

    def _aggregation(self, depth: int) -> str:
        clause = self._pick("", " by (node)", " by (zone, le)", " without (node)",
                            " without (zone)", " by (__name__, zone)")  # fmt: skip
        name = self._pick("sum", "avg", "min", "max", "count", "quantile")
        phi = self._pick("0.5, ", "0.99, ", "0, ", "1, ", "-1, ", "1.5, ")
        return f"{name}{clause} ({phi if name == 'quantile' else ''}{self.vector(depth)})"

    def _with_scalar(self, depth: int) -> str:
        operator = self._operator()
        number = self._pick("0", "2", "-3.5", "1e3", "NaN", "Inf", "(1 + 2 ^ 3 % 5)", "scalar(a)",
                            "time()", "(time() > bool 1700001000)")  # fmt: skip
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
            " ignoring (le)", " ignoring (zone, le)", " on ()", " on (node, __name__)",
            " on (node) group_left (__name__)", " ignoring (zone) group_right ()",
        )  # fmt: skip
        return f"({self.vector(depth)}) {self._operator()}{matching} ({self.vector(depth)})"

    def _set(self, depth: int) -> str:
        matching = self._pick("", "", " on (node)", " ignoring (zone)", " on ()", " on (__name__)")
        operator = self._pick("and", "or", "unless")
        return f"({self.vector(depth)}) {operator}{matching} ({self.vector(depth)})"

    def _function(self, depth: int) -> str:
        inner = self.vector(depth)
        if self._dice.random() < 0.3:
            q = self._pick("0", "0.5", "0.9", "1", "2", "NaN")
            window = self._pick("M_bucket", "rate(M_bucket[5m])", "delta(M_bucket[5m])",
                                '{__name__=~"._bucket"}')  # fmt: skip
            return f"histogram_quantile({q}, {window})"
        return self._pick(
            f"-({inner})", f"abs({inner})", f"clamp_min({inner}, 1)", f"floor({inner})",
            f"clamp_max({inner}, scalar(b))", f"vector(scalar({inner}))", f"ceil({inner})",
            f"round({inner})", f"round({inner}, {self._pick('0.1', '5', '-2', 'time()')})",
            f"absent({inner})", "vector(time())", f"+({inner})",
        )  # fmt: skip
