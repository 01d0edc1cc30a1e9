"""What a first-time reader asks first: what was compared, may I believe it, which cell is best.

Hides how those answers are taken from trials: which number decides, when a best cell may be named,
and in which words an interval is said. Page and Markdown print the same answers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from imgpull.analysis.cells import (
    VERDICT_ORDER,
    last_attempts,
    level_of,
    levels,
    varied,
    verdict_words,
)
from imgpull.analysis.effects import Effect, estimate_of
from imgpull.analysis.pairing import pair_column
from imgpull.analysis.readings import by_cell, compare_groups
from imgpull.analysis.statistics import ALPHA, AT_LEAST, Ratio
from imgpull.analysis.wording import (
    bounded_change,
    cell_text,
    change,
    constants,
    level_text,
    number,
    plural,
    top_quantile,
)


@dataclass(frozen=True)
class Measure:
    """A column of the summary as the report shows it. `count` is the column behind its p99."""

    column: str
    title: str
    unit: str
    lower_is_better: bool = True
    count: str = ""
    share: bool = False


MEASURES = (
    Measure("image_pull_p50_s", "image pull p50", "s"),
    Measure("image_pull_p99_s", "image pull {top}", "s", count="pulls"),
    Measure("pod_startup_p50_s", "pod startup p50", "s"),
    Measure("pod_startup_p99_s", "pod startup {top}", "s", count="pods"),
    Measure("image_pull_wait_p99_s", "image pull wait {top}", "s", count="image_pull_waits"),
    Measure("node_throughput_p50_mib_s", "node throughput p50", "MiB/s", lower_is_better=False),
    Measure("data_total_gib", "data", "GiB"),
    Measure("cold_share", "cold pulls", "%", lower_is_better=False, share=True),
)
DECIDES = ("image_pull_p50_s", "pod_startup_p50_s")  # the first that any cell has


@dataclass(frozen=True)
class Number:
    """A cell's number over its trials, in the unit of its measure; None is unknown."""

    value: float | None
    low: float | None
    high: float | None
    at_least: float | None
    n: int

    @property
    def text(self) -> str:
        """ "31.2", "over 1800", or "-"."""
        if self.value is not None:
            return number(self.value)
        return "-" if self.at_least is None else f"over {number(self.at_least)}"

    @property
    def interval(self) -> str:
        """ "[30.1, 32.4]", or nothing."""
        if self.low is None or self.high is None:
            return ""
        low, high = number(self.low), number(self.high)
        return "" if low == high else f"[{low}, {high}]"


@dataclass(frozen=True)
class CellView:
    """A cell with all that is shown of it; `rows` are its last attempts."""

    cell_id: str
    text: str
    name: str
    verdicts: str
    counted: int
    slo_missed: int
    numbers: Mapping[str, Number]
    rows: pd.DataFrame

    @cached_property
    def counted_rows(self) -> pd.DataFrame:
        """Those that count."""
        return self.rows[self.rows["counts"]]


@dataclass(frozen=True)
class Answer:
    """A headline, and the sentences under it."""

    headline: str
    lines: tuple[str, ...] = ()
    state: str = ""  # good, warning, bad


@dataclass(frozen=True)
class Story:
    """The first screen."""

    compared: str
    simulated: str  # "", or what must be said in large letters
    valid: Answer
    best: Answer
    differs: Answer
    best_cell: str | None  # None: no cell may be called so
    measure: Measure  # the one that decides


def deciding(views: Sequence[CellView]) -> Measure:
    """The number that decides: how long a pull takes, or else how long a pod."""
    known = {one.column: one for one in MEASURES}
    having = (c for c in DECIDES if any(view.numbers[c].n for view in views))
    return known[next(having, DECIDES[0])]


def story(
    frame: pd.DataFrame,
    views: Sequence[CellView],
    effects: Sequence[Effect],
    planned: int | None,
) -> Story:
    """The answers; `planned` is how many trials the ledger planned, None without a ledger."""
    measure = deciding(views)
    best, best_cell = _best(frame, views, measure)
    return Story(
        _compared(frame, views),
        _simulated(frame),
        _valid(frame, planned),
        best,
        _differs(effects, titled(measure, frame)),
        best_cell,
        measure,
    )


def views_of(frame: pd.DataFrame, measures: Sequence[Measure] = MEASURES) -> list[CellView]:
    """Every cell with so many numbers, ordered by the levels of what varies."""
    keys = varied(frame)
    places = {key: levels(frame[key]) for key in keys}
    found = []
    for place, (_, group) in enumerate(by_cell(frame)):
        first, counted = group.iloc[0], group[group["counts"]]
        view = CellView(
            str(first["cell_id"]),
            cell_text(first, keys),
            str(first["name"] or first["cell_id"]),
            verdict_words(list(group["verdict"])),
            len(counted),
            int((counted["slo"] == "missed").sum()),
            {one.column: _number(estimate_of(counted, one.column), one) for one in measures},
            group,
        )
        rank = [places[key].index(level_of(first[key])) for key in keys]
        found.append((rank, place, view))
    return [view for _, _, view in sorted(found, key=lambda one: one[:2])]


def titled(measure: Measure, frame: pd.DataFrame) -> str:
    """ "image pull max", or "image pull p99" where some trial has pulls enough for one."""
    top = top_quantile(frame.loc[frame["counts"], measure.count]) if measure.count else ""
    return measure.title.format(top=top)


def ratio_text(ratio: Ratio) -> str:
    """ "+12 % [+5 %, +19 %]", with bounds where only they are known."""
    if ratio.ratio is None:
        return "cannot be told"
    return _with_interval(bounded_change(ratio.ratio, ratio.bound), ratio.low, ratio.high)


def _number(found: Mapping[str, float | int | None], measure: Measure) -> Number:
    factor = 100.0 if measure.share else 1.0

    def told(name: str) -> float | None:
        value = found[name]
        return None if value is None or not math.isfinite(value) else value * factor

    return Number(told("value"), told("low"), told("high"), told("at_least"), int(found["n"] or 0))


def _compared(frame: pd.DataFrame, views: Sequence[CellView]) -> str:
    """ "12 cells: nodes (2, 5, 10) x replicas (1, 5), 3 trials each, of …; engine sim"."""
    keys = [key for key in varied(frame) if key != "engine"]
    spans = [f"{key} ({', '.join(map(level_text, levels(frame[key])))})" for key in keys]
    counts = sorted({len(view.rows) for view in views})
    trials = (
        plural(counts[0], "trial") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} trials"
    )
    shared = constants(frame)
    engines = ", ".join(dict.fromkeys(frame["engine"]))
    what = f"{plural(len(views), 'cell')}" + (f": {' × '.join(spans)}" if spans else "")
    each = " each" if len(views) > 1 else ""
    return (
        f"{what}, {trials}{each}"
        + (f". All with {shared}" if shared else "")
        + f". Engine {engines}."
    )


def _simulated(frame: pd.DataFrame) -> str:
    if not (frame["engine"] == "sim").any():
        return ""
    which = "" if (frame["engine"] == "sim").all() else ": the cells of engine sim"
    return f"SIMULATED{which}"


def _valid(frame: pd.DataFrame, planned: int | None) -> Answer:
    """How many trials count, of which verdicts, and why the others do not."""
    last = last_attempts(frame)
    counted, total = int(last["counts"].sum()), len(last)
    counts = {verdict: int((last["verdict"] == verdict).sum()) for verdict in VERDICT_ORDER}
    mixed = counts["valid"] < total
    lines = [", ".join(f"{count} {word}" for word, count in counts.items() if count)] * mixed
    for verdict in VERDICT_ORDER[1:]:
        rows = last[last["verdict"] == verdict]
        for reason, group in rows.groupby(rows["reasons"].str.split("; ").str[0], sort=False):
            jobs = ", ".join(str(job) for job in list(group["job"])[:8])
            more = ", …" * (len(group) > 8)
            lines.append(f"{verdict}: {reason or 'no reason recorded'} (job {jobs}{more})")
    again = len(frame) - total
    if again:
        lines.append(f"{plural(again, 'attempt')} run again: in no number, listed below")
    lines += _pulls(last[last["counts"]])
    missing = (planned or 0) - total
    if missing > 0:
        lines.append(f"{plural(missing, 'planned trial')} without a result")
    if counted == 0:
        return Answer("Not valid: no trial counts", tuple(lines), "bad")
    if counted < total or missing > 0:
        of = total + max(missing, 0)
        return Answer(f"Partly valid: {counted} of {of} trials count", tuple(lines), "warning")
    if counts["degraded"]:
        return Answer(f"Valid with warnings: all {total} trials count", tuple(lines), "warning")
    all_of = f"all {total} trials count" if total > 1 else "the trial counts"
    return Answer(f"Valid: {all_of}", tuple(lines), "good")


def _pulls(counted: pd.DataFrame) -> list[str]:
    """What became of the pulls behind the numbers, where they were seen one by one."""
    kinds = {
        "pulls_failed": "failed",
        "pulls_throttled": "throttled",
        "pulls_censored": "not over at the deadline",
    }
    if counted.empty or counted["pulls"].isna().all():
        return []
    parts = [f"{counted[column].sum():g} {word}" for column, word in kinds.items()]
    return [f"{counted['pulls'].sum():g} pull times behind the numbers; pulls: {', '.join(parts)}"]


def _best(
    frame: pd.DataFrame, views: Sequence[CellView], measure: Measure
) -> tuple[Answer, str | None]:
    column = measure.column
    known = [view for view in views if view.numbers[column].value is not None]
    known.sort(key=lambda view: view.numbers[column].value or 0.0)
    bounded = [view for view in views if view.numbers[column].at_least is not None]
    bounded.sort(key=lambda view: view.numbers[column].at_least or 0.0)
    title = titled(measure, frame)
    if not known and not bounded:
        return Answer(f"No cell has a known {title}", (), "bad"), None
    if frame["engine"].nunique() > 1:
        line = "a rehearsal and a measurement are not compared"
        return Answer("Cells differ in engine: none is called best", (line,), "warning"), None
    if not known and len(bounded) > 1:
        over = _first_of([_over(view, measure) for view in bounded])
        return Answer(f"{title} of every cell is known only from below", (over,), "bad"), None
    if len(known) + len(bounded) == 1:
        (only,) = known or bounded
        evidence = _evidence(known, measure) if known else ()
        single = Answer(f"{_said(only.numbers[column], title)} ({only.text})", evidence, "warning")
        return single, only.cell_id if len(views) > 1 and known else None
    return _ranked(frame, known, bounded, measure), known[0].cell_id


def _ranked(
    frame: pd.DataFrame, known: Sequence[CellView], bounded: Sequence[CellView], measure: Measure
) -> Answer:
    """The first of the known cells, held against all others; those known from below come last."""
    first, *others = every = [*known, *bounded]
    label = pair_column(frame[frame["counts"]].assign(cell=frame["cell_id"]))
    ratios = [ratio_of(first, other, measure, label) for other in others]
    against = [f"{view.text}: {ratio_text(one)}" for view, one in zip(others, ratios, strict=True)]
    lines = [f"Next, {against[0]}"] if len(known) > 1 else []
    if bounded:
        # A bound below a known number leaves open which of the two is slower.
        least = bounded[0].numbers[measure.column].at_least or 0.0
        last = least >= (known[-1].numbers[measure.column].value or 0.0)
        told = zip(bounded, ratios[-len(bounded) :], strict=True)
        over = _first_of([f"{_over(view, measure)}, {ratio_text(one)}" for view, one in told])
        lines.append(f"{'Slowest, known' if last else 'Known'} only from below: {over}")
    elif len(others) > 1:
        lines.append(f"Slowest, {against[-1]}")
    alike = [view.text for view, ratio in zip(others, ratios, strict=True) if not told_more(ratio)]
    headline = f"{first.text}: {_said(first.numbers[measure.column], titled(measure, frame))}"
    state = "good" if _sure(every, measure) else "warning"
    if alike and any(min(one.n_before, one.n_after) > 1 for one in ratios):
        lines.insert(0, f"Not told apart from it: {_first_of(alike)}")
        state = "warning"
        count, fastest = ("Two", "faster") if len(alike) == 1 else (f"{len(alike) + 1}", "fastest")
        headline = f"{count} cells cannot be told apart; the {fastest}: {headline}"
    lines += _evidence(every, measure)
    if any(one.paired and not one.bound for one in ratios):
        lines.append(_paired(frame))
    return Answer(headline, tuple(lines), state)


def _over(view: CellView, measure: Measure) -> str:
    """ "nodes 4: over 31.2 s"."""
    return f"{view.text}: {view.numbers[measure.column].text} s"


def _first_of(texts: Sequence[str]) -> str:
    """The first of many, and how many more there are."""
    return "; ".join(texts[:3]) + f"; and {len(texts) - 3} more" * (len(texts) > 3)


def _differs(effects: Sequence[Effect], title: str) -> Answer:
    """The effects that leave out "no change", largest first; and which do not."""
    told = [one for one in effects if one.ratio is not None]
    if not told and effects:
        why = "trials on both sides are known only from below"
        return Answer(f"Nothing can be told to change {title}", (why,), "warning")
    if not told:
        return Answer("No two cells that count differ in one factor alone", (), "warning")
    sized = sorted(told, key=lambda one: -abs(math.log(one.ratio or 1)))
    shown = [one for one in sized if one.p is not None]
    clear = [one for one in shown if one.sure]
    lines = [_effect(one) for one in (clear if shown else sized)[1:5]]
    rest = dict.fromkeys(one.factor for one in sized if one not in clear)
    unclear = [name for name in rest if name not in {one.factor for one in clear}]
    if not shown:
        return Answer(_effect(sized[0]), (*lines, "One trial a cell: no intervals."), "warning")
    if unclear:
        lines.append(f"No effect shown of {', '.join(unclear)}: the intervals hold “no change”")
    if not clear:
        return Answer(f"Nothing shown to change {title}", tuple(lines), "warning")
    return Answer(_effect(clear[0]), tuple(lines), "good")


def _effect(one: Effect) -> str:
    """ "image a -> b: +50 % [+47 %, +53 %]"."""
    levels_told = f"{level_text(one.start)} → {level_text(one.end)}"
    return f"{one.factor} {levels_told}: {effect_text(one)}"


def effect_text(effect: Effect) -> str:
    """ "+12 % [+5 %, +19 %]", "at least +400 %"."""
    if effect.ratio is None:
        return "cannot be told"
    return _with_interval(bounded_change(effect.ratio, effect.bound), effect.low, effect.high)


def _with_interval(text: str, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return text
    return f"{text} [{change(low - 1)}, {change(high - 1)}]"


def _said(found: Number, title: str) -> str:
    """ "image pull p50 31.2 s [30.1, 32.4]"."""
    return " ".join(filter(None, [title, found.text, "s", found.interval]))


def ratio_of(first: CellView, other: CellView, measure: Measure, label: str | None) -> Ratio:
    """How much more the other cell takes than the first, with its interval."""
    before, after = first.counted_rows, other.counted_rows
    return compare_groups(before, after, measure.column, label, ranks=False)


def told_more(ratio: Ratio) -> bool:
    """Whether the interval leaves no room for "the same", or the rank test of a bound does."""
    if ratio.bound:
        return ratio.bound == AT_LEAST and ratio.rank_p is not None and ratio.rank_p < ALPHA
    return ratio.low is not None and ratio.low > 1


def _sure(known: Sequence[CellView], measure: Measure) -> bool:
    return min(view.numbers[measure.column].n for view in known) > 1


def _evidence(known: Sequence[CellView], measure: Measure) -> tuple[str, ...]:
    counts = sorted({view.numbers[measure.column].n for view in known})
    if counts[-1] == 1:
        return ("One trial a cell: no interval, and no evidence. Add trials=5 resume=auto.",)
    trials = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    chosen = " The fastest of several is partly lucky." if len(known) > 2 else ""
    return (f"In brackets: 95 % intervals from {trials} trials a cell.{chosen}",)


def _paired(frame: pd.DataFrame) -> str:
    simulated = (frame["engine"] == "sim").all()
    why = "simulated cells of one trial number share their luck" if simulated else "by block"
    return f"Compared in pairs: {why}."
