"""The pictures that need no script: how pulls spread, and effects with their intervals, as SVG.

Hides scales, ticks and marks. Written by hand because of size: inlined, plotly's script is 4.8 MB,
bokeh's 1.3 MB, Vega's 0.9 MB (and a 33 MB wheel to inline it, each measured in 2026-11), and all of
them draw nothing without script; matplotlib's SVG of one trial's pods is 49 KB in fixed colours, so
240 of them are 12 MB. These curves are about 4 KB each and the script of the page 12 KB; colours
are the page's own, so that dark, light and print need no second picture.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from imgpull.analysis.effects import Effect
from imgpull.analysis.layout import MAX_HUES, Layout
from imgpull.analysis.report.pulled import Curve
from imgpull.analysis.report.story import CellView
from imgpull.analysis.statistics import AT_LEAST, AT_MOST
from imgpull.analysis.wording import number, plural

MAX_PANELS = 48
_WIDTH, _HEIGHT = 320, 190  # of a panel; CSS scales it
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 16, 8, 26
_LOG_FROM = 20  # times between the fastest and the slowest pull

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Panel:
    """One picture of the page."""

    title: str
    svg: Markup


@dataclass(frozen=True)
class Spread:
    """The ECDF of pull time: a panel a position, a line a colour."""

    panels: tuple[Panel, ...]
    legend: str  # what the lines differ in
    lines: tuple[str, ...]  # names in the order of their styles
    left_out: int
    logarithmic: bool


def spread(layout: Layout, views: Sequence[CellView], curves: Mapping[int, Curve]) -> Spread:
    """Draw the curve of each cell, cells laid out as in the plots."""
    at = [(layout.place[view.rows.index[0]], layout.hue[view.rows.index[0]]) for view in views]
    legend, hues = layout.legend, list(layout.hues)
    if not hues and 1 < len(views) <= MAX_HUES:  # one factor of few levels: all in one panel
        at = [("all cells", place) for place, _ in at]
        legend, hues = layout.axis or "cell", [hue for _, hue in at]
    panels: dict[str, list[tuple[int, str, Curve]]] = {}
    for cell, found in curves.items():
        place, hue = at[cell]
        style = hues.index(hue) if hue in hues else 0
        panels.setdefault(place, []).append((style, hue or views[cell].text, found))
    if not panels:
        return Spread((), legend, tuple(hues), 0, False)
    times = [step for found in curves.values() for step, _ in found.steps]
    times += [found.last_s for found in curves.values()]
    slowest, fastest = 1.04 * max(times), max(min(times), 1e-3)
    logarithmic = slowest / fastest > _LOG_FROM
    scale, ticks = (_log if logarithmic else _linear)(fastest, slowest)
    drawn = tuple(
        Panel(place, _panel(place, lines, scale, ticks))
        for place, lines in list(panels.items())[:MAX_PANELS]
    )
    return Spread(drawn, legend, tuple(hues), len(panels) - len(drawn), logarithmic)


def _panel(
    place: str, lines: Sequence[tuple[int, str, Curve]], scale: Scale, ticks: Sequence[float]
) -> Markup:
    told = "; ".join(f"{name}: {_in_words(found)}" for _, name, found in lines)
    parts = [_axes(scale, ticks)]
    parts += [_line(style, name, found, scale) for style, name, found in lines]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, f"{place}. {told}", Markup("").join(parts)
    )


def _in_words(found: Curve) -> str:
    middle = next((seconds for seconds, share in found.steps if share >= 0.5), None)
    half = "half never seen to end" if middle is None else f"half within {number(middle)} s"
    late = f", {found.censored} not over at the deadline" if found.censored else ""
    return f"{plural(found.pulls, 'pull')}, {half}{late}"


def _axes(scale: Scale, ticks: Sequence[float]) -> Markup:
    found = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share)
        found.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, _WIDTH - _RIGHT, y, y
            )
        )
        found.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 5, _short(y + 4), f"{share:.0%}"
            )
        )
    for tick in ticks:
        x = _short(scale(tick))
        found.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                x, x, _TOP, _HEIGHT - _BOTTOM
            )
        )
        found.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x,
                _HEIGHT - _BOTTOM + 15,
                f"{tick:g} s" if tick == ticks[-1] else f"{tick:g}",
            )
        )
    return Markup("").join(found)


def _line(style: int, name: str, found: Curve, scale: Scale) -> Markup:
    path, height = [f"M{_LEFT} {_short(_y(0))}"], 0.0
    for seconds, share in found.steps:
        path.append(f"H{_short(scale(seconds))}V{_short(_y(share))}")
        height = share
    end = scale(found.last_s) if found.censored else _WIDTH - _RIGHT
    path.append(f"H{_short(end)}")
    line = Markup('<path class="curve s{}" d="{}"><title>{}</title></path>').format(
        style % MAX_HUES, "".join(path), f"{name}: {_in_words(found)}"
    )
    if not found.censored:
        return line
    return line + Markup('<path class="late s{}" d="M{} {}l7 5l-7 5z"/>').format(
        style % MAX_HUES, _short(end), _short(_y(height) - 5)
    )


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _linear(fastest: float, slowest: float) -> tuple[Scale, list[float]]:
    """From 0, so that a small difference looks small."""
    width = _WIDTH - _LEFT - _RIGHT
    step = nice_step(slowest, 4)
    ticks = [step * count for count in range(int(slowest / step) + 1)]
    return (lambda value: _LEFT + width * value / slowest), ticks


def _log(fastest: float, slowest: float) -> tuple[Scale, list[float]]:
    width = _WIDTH - _LEFT - _RIGHT
    low, high = math.log(fastest / 1.2), math.log(slowest)
    every = [
        one * 10.0**power
        for power in range(math.floor(math.log10(fastest)), math.ceil(math.log10(slowest)) + 1)
        for one in (1, 3)
        if fastest / 1.2 <= one * 10.0**power <= slowest
    ]

    def scale(value: float) -> float:
        return _LEFT + width * (math.log(max(value, fastest / 1.2)) - low) / (high - low)

    return scale, every


def nice_step(reach: float, most: int) -> float:
    """1, 2 or 5 times a power of ten, so that at most so many steps fill the reach."""
    rough = reach / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(one * power for one in (1, 2, 5, 10) if one * power >= rough * 0.999)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Bar:
    """An effect as a picture in a row of a table."""

    effect: Effect
    svg: Markup


def bars(found: Iterable[Effect]) -> list[Bar]:
    """Every effect on one scale of ratios, a line at "no change"."""
    effects = list(found)
    ends = [
        value
        for one in effects
        for value in (one.ratio, one.low, one.high)
        if value is not None and value > 0 and math.isfinite(value)
    ]
    # Room for the arrow of what is known only as a bound.
    ends += [one.ratio * 1.5 for one in effects if one.ratio and one.bound == AT_LEAST]
    ends += [one.ratio / 1.5 for one in effects if one.ratio and one.bound == AT_MOST]
    if not ends:
        return [Bar(one, Markup("")) for one in effects]
    low, high = min(0.95, *ends), max(1.05, *ends)
    # One interval of two trials may span decades: it is cut, with an arrow, so the others show.
    known = [1.0, *(one.ratio for one in effects if one.ratio)]
    low, high = max(low, min(known) / 3), min(high, max(known) * 3)
    span = math.log(high / low)

    def scale(value: float) -> float:
        return 6 + 228 * min(max(math.log(value / low) / span, 0.0), 1.0)

    return [Bar(one, _bar(one, scale, low, high)) for one in effects]


def _bar(effect: Effect, scale: Scale, low: float, high: float) -> Markup:
    if effect.ratio is None:
        return Markup("")
    none, at = _short(scale(1.0)), scale(effect.ratio)
    parts = [Markup('<line class="same" x1="{}" x2="{}" y1="0" y2="24"/>').format(none, none)]
    # A bound is open towards one side: its line ends there in an arrow.
    open_ends = {AT_LEAST: (effect.ratio, math.inf), AT_MOST: (0.0, effect.ratio)}
    own_low, own_high = open_ends.get(effect.bound, (effect.low, effect.high))
    if own_low is not None and own_high is not None:
        start, end = scale(max(own_low, 1e-9)), scale(own_high)
        parts.append(
            Markup('<line class="reach" x1="{}" x2="{}" y1="12" y2="12"/>').format(
                _short(start), _short(end)
            )
        )
        for value, x, tip in ((own_low < low, start, 5), (own_high > high, end, -5)):
            shape = (
                f"M{_short(x + tip)} 7L{_short(x)} 12L{_short(x + tip)} 17"
                if value
                else (f"M{_short(x)} 7V17")
            )
            parts.append(Markup('<path class="reach" d="{}"/>').format(shape))
    parts.append(
        Markup('<rect class="point" x="{}" y="7.5" width="9" height="9"/>').format(_short(at - 4.5))
    )
    return Markup('<svg viewBox="0 0 240 24" aria-hidden="true">{}</svg>').format(
        Markup("").join(parts)
    )
