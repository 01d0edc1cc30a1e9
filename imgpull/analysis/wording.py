"""How levels, numbers and cells are said to a person.

Hides rounding (three figures, no more than one trial deserves), plurals, and the words that
every simulated number must carry.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from imgpull import units
from imgpull.analysis.cells import factors, unknown, varied

if TYPE_CHECKING:
    import pandas as pd

MAXIMUM_BELOW = 100  # of fewer values the nearest-rank p99 is the largest, and is called so
SIMULATED = "engine sim: SIMULATED, a rehearsal, not a measurement"
_COUNTED = {"deployments": "deployment", "replicas": "replica", "nodes": "node"}


def number(value: float) -> str:
    """Three significant figures without an exponent, two decimals at most: 1234 -> "1230"."""
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    if rounded:  # 99.96 has become 100: one decimal less
        decimals = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{min(max(decimals, 0), 2)}f}"


def change(ratio: float) -> str:
    """A relative change: 0.004 -> "+0.4 %", 0.031 -> "+3 %"."""
    percent = ratio * 100
    text = f"{percent:+.1f}" if 0.05 <= abs(percent) < 1 else f"{percent:+.0f}"
    return f"{'+0' if text == '-0' else text} %"


def bounded_change(ratio: float, bound: str) -> str:
    """A relative change that may be known only from one side: "at least +400 %"."""
    word = {"at_least": "at least ", "at_most": "at most "}.get(bound, "")
    return word + change(ratio - 1)


def level_text(level: Any) -> str:
    """A level as it was typed: 5.0 -> "5", True -> "true"."""
    if unknown(level):
        return "unknown"
    if isinstance(level, bool):
        return str(level).lower()
    return f"{level:.12g}" if isinstance(level, float) else str(level)


def phrase(factor: str, level: Any) -> str:
    """A factor at a level: "10 deployments", "image vllm", "cold"."""
    text = level_text(level)
    if factor in _COUNTED and not unknown(level):
        return plural(level, _COUNTED[factor])
    return text if factor == "cache" and text in ("cold", "warm") else f"{factor} {text}"


def plural(count: float, noun: str) -> str:
    """ "1 node", "10 nodes"."""
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def ranged(texts: Sequence[str]) -> str:
    """What several trials say as one, figures from least to most: "1 to 4 pulls of 5 refused".

    The first as it is, where more than figures and an ending "s" differ.
    """
    if len({text.count(" ") for text in texts}) > 1:
        return texts[0]
    said = []
    for words in zip(*(text.split(" ") for text in texts), strict=True):
        figures = {figure: word for word in words if (figure := _figure(word)) is not None}
        if len({word.removesuffix("s") for word in words}) == 1:
            said.append(max(words, key=len))
        elif figures.keys() >= {_figure(word) for word in words}:
            least, most = figures[min(figures)], figures[max(figures)]
            said.append(f"{least.rstrip(_AROUND)} to {most.lstrip(_AROUND)}")
        else:
            return texts[0]
    return " ".join(said)


_AROUND = "()[],;:"  # what may stand around a figure


def _figure(word: str) -> float | None:
    """The number, share or duration that a word is."""
    text = word.strip(_AROUND).removesuffix("%").replace(",", "")
    try:
        return units.parse_duration(text) if text.endswith("s") else float(text)
    except ValueError:
        return None


def cell_text(cell: pd.Series[Any], keys: Iterable[str]) -> str:
    """What sets a cell apart: "replicas 5, qps 10"; its name where no factor does."""
    text = ", ".join(f"{key} {level_text(cell[key])}" for key in keys)
    return text or str(cell["name"] or cell["cell_id"])


def constants(frame: pd.DataFrame) -> str:
    """What all rows share: "10 deployments, 1 replica, image vllm, cold; unknown: nodes"."""
    if frame.empty:
        return ""
    changing = varied(frame)
    shared = {name: frame[name].iloc[0] for name in factors(frame) if name not in changing}
    known = [phrase(name, level) for name, level in shared.items() if not unknown(level)]
    missing = [name for name, level in shared.items() if unknown(level)]
    parts = [", ".join(known)] if known else []
    return "; ".join(parts + ([f"unknown: {', '.join(missing)}"] if missing else []))


def engine_text(frame: pd.DataFrame) -> str:
    """What made the numbers; the word "simulated" wherever a simulator did."""
    engines = list(dict.fromkeys(frame["engine"]))
    if engines == ["sim"]:
        return SIMULATED
    if "sim" in engines:
        return "engine differs; rows of engine sim are SIMULATED, a rehearsal, not a measurement"
    return f"engine {', '.join(engines)}"


def short(factor: str, among: Iterable[str]) -> str:
    """The last part of a dotted key, where no other key ends alike."""
    tail = factor.rpartition(".")[2]
    alike = [other for other in among if other.rpartition(".")[2] == tail]
    return tail if len(alike) == 1 else factor


def top_quantile(n: pd.Series[float]) -> str:
    """ "max" when every known n makes the p99 a maximum; an unknown n keeps "p99"."""
    return "max" if len(n) and bool((n < MAXIMUM_BELOW).all()) else "p99"
