"""The comparison plots: every pull, every pod and every node of a sweep, cell beside cell.

The heat map of the matrix is here too. Hides the marks, what is left out to stay readable, and the
rule that engines never share an axis.
The only file that draws with seaborn.
"""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imgpull.analysis.cells import last_attempts, varied
from imgpull.analysis.layout import Layout, layout_of
from imgpull.analysis.report.matrix import HeatMap, heat_maps
from imgpull.analysis.report.story import DECIDES, MEASURES, views_of
from imgpull.analysis.trial_files import files_of
from imgpull.analysis.whole import whole
from imgpull.analysis.wording import cell_text, constants, plural
from imgpull.errors import ReportError
from imgpull.tables import number
from imgpull.units import MIB

MAX_DOTS = 200  # of one trial: more are a blot, and cost time
_DPI = 120


@dataclass(frozen=True)
class _Plot:
    """One quantity: its file, what its dots are, and the headline that its diamonds show."""

    name: str
    title: str
    label: str
    dot: str
    headline: str


_PLOTS = (
    _Plot(
        "image_pull",
        "Image pull time",
        "image pull time, s\n(runtime asked to image ready: download and unpack)",
        "one node's pull",
        "image_pull_p50_s",
    ),
    _Plot(
        "pod_startup",
        "Pod startup time",
        "pod startup time, s\n(created to containers running)",
        "one pod",
        "pod_startup_p50_s",
    ),
    _Plot(
        "node_throughput",
        "Pull throughput per node",
        "throughput, MiB/s\n(compressed bytes / pull time)",
        "one node's pull",
        "node_throughput_p50_mib_s",
    ),
)


def draw_plots(sweep_dir: Path, frame: pd.DataFrame) -> list[Path]:
    """Write `plots/*.png` and name them; a quantity that no counted trial has gets none.

    ReportError when cells differ in engine: a rehearsal and a measurement share no axis.
    """
    paths = []
    for name, figure in figures(sweep_dir, frame).items():
        path = sweep_dir / "plots" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        with whole(path) as temporary:
            figure.savefig(temporary, dpi=_DPI, format="png")
        paths.append(path)
    return paths


def figures(sweep_dir: Path, frame: pd.DataFrame) -> dict[str, Any]:
    """The matplotlib figures by name, ready to be saved."""
    engines = sorted(set(frame["engine"]))
    if len(engines) > 1:
        raise ReportError(
            f"cells differ in engine ({', '.join(engines)}) and cannot share an axis",
            hint="sweep one engine at a time to have plots",
        )
    counted = frame[frame["counts"]]
    if counted.empty:
        return {}
    layout = layout_of(frame)
    drawn = counted[layout.place[counted.index].isin(layout.places)]
    tidy = _tidy(sweep_dir, drawn)
    tidy = tidy.assign(place=tidy["row"].map(layout.place), hue=tidy["row"].map(layout.hue))
    drawn_plots = {
        plot.name: _draw(plot, data, layout, frame)
        for plot in _PLOTS
        if len(data := tidy[tidy["quantity"] == plot.name])
    }
    if frame["cell_id"].nunique() == 1:
        return drawn_plots
    measures = [one for one in MEASURES if one.column in DECIDES]
    maps = heat_maps(frame, layout, views_of(frame, measures), measures)
    return drawn_plots | ({"heat_map": _draw_map(maps[0], frame)} if maps else {})


# ---- The data: one number a row --------------------------------------------------------------


def _tidy(sweep_dir: Path, counted: pd.DataFrame) -> pd.DataFrame:
    """Columns row (a trial), quantity, kind (a key of _MARKERS) and value."""
    found = [
        (row, name, kind, value)
        for row, trial in counted.iterrows()
        for name, kind, values in _values(sweep_dir, trial)
        for value in values
    ]
    return pd.DataFrame(found, columns=["row", "quantity", "kind", "value"]).dropna()


def _values(sweep_dir: Path, trial: "pd.Series[Any]") -> Iterator[tuple[str, str, list[float]]]:
    files = files_of(sweep_dir, trial)
    pulled = [
        (pull_s, number(row.get("size_bytes")))
        for row in files.leaders
        if row.get("outcome") == "pulled" and (pull_s := number(row.get("pull_s"))) and pull_s > 0
    ]
    spans = ((number(row.get("created")), number(row.get("ready"))) for row in files.pods)
    yield "image_pull", "dot", _thin(pull_s for pull_s, _ in pulled)
    yield "image_pull", "censored", _thin(files.late_s)
    yield "pod_startup", "dot", _thin(b - a for a, b in spans if a is not None and b is not None)
    yield "node_throughput", "dot", _thin(size / s / MIB for s, size in pulled if size is not None)
    for plot in _PLOTS:
        yield plot.name, "trial", [trial[plot.headline]]


def _thin(values: Iterable[float | None]) -> list[float]:
    """At most MAX_DOTS of the values, evenly by rank, so that both ends stay."""
    ranked = sorted(value for value in values if value is not None)
    if len(ranked) <= MAX_DOTS:
        return ranked
    last = len(ranked) - 1
    return [ranked[round(dot * last / (MAX_DOTS - 1))] for dot in range(MAX_DOTS)]


# ---- The page --------------------------------------------------------------------------------

_MARKERS: dict[str, dict[str, Any]] = {
    "dot": {"marker": "o", "s": 4**2, "alpha": 0.5, "linewidth": 0, "zorder": 2},
    "censored": {"marker": "^", "s": 6**2, "alpha": 0.8, "linewidth": 0, "zorder": 3},
    "trial": {"marker": "D", "s": 7**2, "edgecolor": "black", "linewidth": 1, "zorder": 4},
}
_WIDTH, _JITTER = 0.8, 0.15  # of the distance between two positions


def _positions(data: pd.DataFrame, layout: Layout) -> Any:
    """Where each mark stands: its cell's slot, marks of pulls and pods beside each other."""
    import numpy as np

    slots = {place: slot for slot, place in enumerate(layout.places)}
    hues = {hue: number for number, hue in enumerate(layout.hues or [""])}
    width = _WIDTH / len(hues)
    at = data["place"].map(slots).to_numpy(float)
    at = at + width * (data["hue"].map(hues).to_numpy(float) - (len(hues) - 1) / 2)
    luck = np.random.default_rng(0).uniform(-_JITTER, _JITTER, len(data)) / len(hues)
    return at + np.where(data["kind"] == "trial", 0.0, luck)


def _draw(plot: _Plot, data: pd.DataFrame, layout: Layout, frame: pd.DataFrame) -> Any:
    import seaborn as sns
    from matplotlib.figure import Figure

    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=_size(layout), layout="constrained")
        axes = figure.subplots()
    kinds = [kind for kind in _MARKERS if kind in set(data["kind"])]
    data = data.assign(at=_positions(data, layout))
    for kind in kinds:
        # One call for all cells: stripplot makes one for each, and takes ten times as long.
        sns.scatterplot(
            data[data["kind"] == kind],
            x="at" if layout.upright else "value",
            y="value" if layout.upright else "at",
            hue="hue",
            hue_order=layout.hues or [""],
            palette=sns.color_palette("colorblind", max(len(layout.hues), 1)),
            legend="full" if layout.hues and kind == kinds[-1] else False,
            ax=axes,
            **_MARKERS[kind],
        )
    reach = (0, 1.06 * data["value"].max() or 1)  # from 0: a small difference shall look small
    (axes.xaxis if layout.upright else axes.yaxis).grid(visible=False)  # cells are no scale
    slots, ends = range(len(layout.places)), (-0.5, len(layout.places) - 0.5)
    if layout.upright:
        axes.set_xticks(slots, layout.places)
        axes.set(xlabel=layout.axis, ylabel=plot.label, ylim=reach, xlim=ends)
    else:
        axes.set_yticks(slots, layout.places)
        axes.set(xlabel=plot.label, ylabel=layout.axis, xlim=reach, ylim=ends[::-1])
    if layout.hues:
        legend = textwrap.fill(layout.legend, 18, break_long_words=False)
        sns.move_legend(axes, "upper left", bbox_to_anchor=(1.01, 1), title=legend)
    width = int(figure.get_figwidth() * 13)  # characters of the small text
    simulated = ", simulated" if set(frame["engine"]) == {"sim"} else ""
    shared = f"{constants(frame)}; engine {frame['engine'].iloc[0]}".removeprefix("; ")
    lines = textwrap.wrap(shared, width)
    axes.annotate(
        "\n".join(lines), (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points",
        fontsize=9.5, color="0.3",
    )  # fmt: skip
    title = plot.title + simulated
    # Without its own y matplotlib measures every label to see whether the title is in its way.
    axes.set_title(title, loc="left", y=1, pad=8 + 14 * len(lines), fontsize=14, weight="bold")
    caption = textwrap.fill(_caption(plot, data, layout, frame), width)
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=9, color="0.3")
    return figure


def _size(layout: Layout) -> tuple[float, float]:
    """Inches: a page for upright plots, else a line for each slot."""
    if layout.upright:
        return (8.0, 5.0)
    return (8.5, 2.2 + len(layout.places) * max(0.32, 0.2 * len(layout.hues)))


def _caption(plot: _Plot, data: pd.DataFrame, layout: Layout, frame: pd.DataFrame) -> str:
    """What each mark is, and every trial, pull and cell that has none."""
    kinds = set(data["kind"])
    parts = ["Diamond: p50 of a trial" if "trial" in kinds else ""]
    parts.append(f"dot: {plot.dot}" if "dot" in kinds else "")
    parts.append("triangle: a pull not over at the deadline" if "censored" in kinds else "")
    text = "; ".join(filter(None, parts)) + "."
    if (data[data["kind"] == "dot"].groupby("row").size() == MAX_DOTS).any():
        text += f" At most {MAX_DOTS} dots a trial, evenly by rank."
    missing = last_attempts(frame)
    for verdict, trials in missing[~missing["counts"]].groupby("verdict", sort=False):
        where = list(dict.fromkeys(cell_text(one, varied(frame)) for _, one in trials.iterrows()))
        cells_text = "; ".join(where[:3]) + "; …" * (len(where) > 3)
        text += f" Not drawn: {plural(len(trials), f'{verdict} trial')} ({cells_text})."
    if layout.left_out:
        shown = len(layout.places)
        text += f" The first {shown} of {shown + layout.left_out} positions: the table has all."
    return text


# ---- The heat map ----------------------------------------------------------------------------

_LIGHT, _DARK = (0.95, 0.97, 0.99), (0.50, 0.70, 0.90)  # the report's: dark ink is read on both


def _draw_map(found: HeatMap, frame: pd.DataFrame) -> Any:
    """The first map of the report as a picture, for places that show no page."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    size = (3.2 + 1.6 * len(found.columns), 2.4 + 0.55 * len(found.rows))
    figure = Figure(figsize=(max(size[0], 6.5), size[1]), layout="constrained")
    axes = figure.subplots()
    shades = LinearSegmentedColormap.from_list("shades", [_LIGHT, _DARK])
    # A text within its square needs no room, and there are many to measure.
    middle: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
    for down, (_, squares) in enumerate(found.rows):
        for across, square in enumerate(squares):
            if square is None:
                continue
            if square.shade is not None:
                color = shades(square.shade / 100)
                axes.fill_between([across, across + 1], down, down + 1, color=color, linewidth=0)
            text = ("★ " if square.best else "") + square.text
            axes.text(across + 0.5, down + 0.4, text, **middle, fontsize=11)
            below = " ".join(filter(None, [square.interval, square.mark]))
            axes.text(across + 0.5, down + 0.75, below, **middle, fontsize=7.5)
    axes.set_xticks([place + 0.5 for place in range(len(found.columns))], found.columns)
    axes.set_yticks([place + 0.5 for place in range(len(found.rows))], [r for r, _ in found.rows])
    axes.set(xlim=(0, len(found.columns)), ylim=(len(found.rows), 0))
    axes.set(xlabel=found.across, ylabel=found.down)
    axes.tick_params(length=0)
    axes.hlines(range(1, len(found.rows)), 0, len(found.columns), color="white", linewidth=2)
    axes.vlines(range(1, len(found.columns)), 0, len(found.rows), color="white", linewidth=2)
    simulated = ", simulated" if set(frame["engine"]) == {"sim"} else ""
    title = f"{found.title[0].upper()}{found.title[1:]}, {found.measure.unit}{simulated}"
    axes.set_title(title, loc="left", y=1, fontsize=14, weight="bold", pad=12)
    best = "lowest" if found.measure.lower_is_better else "highest"
    caption = (
        f"Geometric means over trials, 95 % intervals in brackets. Darker: larger; no shade: not "
        f"shown to be above the lowest. ★: {best}. {constants(frame)}; "
        f"engine {frame['engine'].iloc[0]}."
    )
    width = int(figure.get_figwidth() * 13)
    figure.supxlabel(textwrap.fill(caption, width), x=0.01, ha="left", fontsize=9, color="0.3")
    return figure
