"""What a sweep's numbers do and do not show, in plain sentences.

Hides what may be said from little: which cells are compared, how large a change is worth a word,
and which advice is still worth giving. Where trials repeat, effect_notes.py says the effects, with
intervals; one trial a cell carries none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from imgpull.analysis.cells import cells, last_attempts, levels, unknown, varied
from imgpull.analysis.wording import cell_text, change, level_text, number, plural, top_quantile

# Two trials of one cell on a shared cloud differ by this much easily: a smaller change between
# so few trials is nothing to point at.
VISIBLE = 0.05
ENOUGH_TRIALS = 5  # what `trials=` is advised: fewer say little about their own spread
_SHOWN_REASONS = 5
INERT_QPS = "qps does nothing with 1 Deployment, for it paces Deployments; add deployments=10"


def notes(frame: pd.DataFrame, *, asked: Mapping[str, object]) -> list[str]:
    """What the table does not say by itself, most urgent first; `asked` is the configuration."""
    if frame.empty:
        return []
    by_cell = cells(frame)
    counted = by_cell[by_cell["n_trials"] > 0]
    return [
        *_verdicts(frame),
        *_left_out(frame[frame["counts"]]),
        *_effects_of(frame, counted),
        *_trials(frame, counted, asked),
        *_simulated(frame),
    ]


def _verdicts(frame: pd.DataFrame) -> list[str]:
    """How many trials failed, were invalid or degraded, and why: one sentence a first reason."""
    last = last_attempts(frame)
    kinds = (
        ("trial{s} failed, in no figure", last[last["verdict"] == "failed"]),
        ("trial{s} invalid, in no figure", last[last["verdict"] == "invalid"]),
        ("trial{s} degraded, counted", last[last["verdict"] == "degraded"]),
        ("earlier attempt{s} run again, in no figure", frame.drop(last.index)),
    )
    found = [
        _because(what, reason, group)
        for what, rows in kinds
        for reason, group in rows.groupby(rows["reasons"].str.split("; ").str[0], sort=False)
    ]
    rest = len(found) - _SHOWN_REASONS
    return found[:_SHOWN_REASONS] + [f"{rest} more reasons stand in summary.csv"] * (rest > 0)


def _because(what: str, reason: object, group: pd.DataFrame) -> str:
    jobs = [str(job) for job in dict.fromkeys(group["job"])]
    where = ", ".join(jobs[:8]) + ", …" * (len(jobs) > 8)
    count = f"{len(group)} {what.format(s='' if len(group) == 1 else 's')}"
    return f"{count}: {reason or 'no reason recorded'} (job{'s' * (len(jobs) > 1)} {where})"


def _left_out(counted: pd.DataFrame) -> list[str]:
    """What the quantiles leave out: pods that never started, pulls that did not end well."""
    missing = (counted["pods_asked"] - counted["pods"]).clip(lower=0)
    kinds = (
        ("pod", missing, "never became ready: pod startup covers only those that did"),
        (
            "pull",
            counted["pulls_censored"],
            "not over at the deadline: kept as longer; such a trial has no wait and no throughput",
        ),
        ("pull", counted["pulls_failed"], "failed: in no pull time"),
        ("pull", counted["pulls_throttled"], "throttled by the registry or by registryPullQPS"),
    )
    return [
        f"{plural(counts.sum(), noun)} {what} "
        f"(in {(counts > 0).sum()} of {plural(len(counted), 'trial')})"
        for noun, counts, what in kinds
        if (counts > 0).any()
    ]


@dataclass(frozen=True)
class _Change:
    """A headline of two cells that differ in one factor alone."""

    pair: int  # equal for the headlines of the same cells
    label: str
    start: Any  # levels
    end: Any
    before: float  # s
    after: float
    deployments: Any

    @property
    def ratio(self) -> float:
        return self.after / self.before - 1


def _effects_of(frame: pd.DataFrame, counted: pd.DataFrame) -> Iterator[str]:
    """With intervals where a cell has two trials, else what single trials show."""
    keys = varied(frame)
    if (counted["n_trials"] < 2).all():
        yield from _effects(counted, keys)
        return
    from imgpull.analysis.effect_notes import effect_notes

    if "qps" in keys and inert_qps(counted):
        yield INERT_QPS
    yield from effect_notes(frame, together(counted, keys))


def inert_qps(counted: pd.DataFrame) -> bool:
    """Whether the creation rate has nothing to pace."""
    return set(counted.get("deployments", ())) == {1}


def _effects(counted: pd.DataFrame, keys: list[str]) -> Iterator[str]:
    """A sentence for each factor that has two levels among the counted cells."""
    names = together(counted, keys)
    keys = list(names)
    for factor in keys:
        order = levels(counted[factor])
        # Engines are not compared here: one is a rehearsal of the other.
        if factor == "engine" or len(order) < 2:
            continue
        changes = list(_changes(counted, factor, [key for key in keys if key != factor]))
        inert = factor == "qps" and inert_qps(counted)
        if inert:
            yield INERT_QPS
        if not changes:
            yield f"{factor}: no two cells differ in it alone, so its effect cannot be told"
            continue
        largest = max(changes, key=lambda change: abs(change.ratio))
        if abs(largest.ratio) >= VISIBLE:
            levels_compared = (largest.start, largest.end)
            alike = [one for one in changes if (one.start, one.end) == levels_compared]
            yield _effect(factor, alike).replace(factor, names[factor], 1)
        elif not inert:
            same = [one for one in changes if one.pair == largest.pair]
            yield _no_effect(factor, order, same).replace(factor, names[factor], 1)


def together(counted: pd.DataFrame, keys: list[str]) -> dict[str, str]:
    """Each factor, those that always move along with an earlier one under its name."""
    companions: dict[str, list[str]] = {}
    for key in keys:
        for first, others in companions.items():
            pairs = counted[[first, key]].astype(str).drop_duplicates()
            if len(pairs) == counted[first].nunique() == counted[key].nunique() > 1:
                others.append(key)
                break
        else:
            companions[key] = []
    return {
        key: f"{' and '.join([key, *others])} (always together)" if others else key
        for key, others in companions.items()
    }


def _changes(counted: pd.DataFrame, factor: str, others: list[str]) -> Iterator[_Change]:
    """Every level against the first (of words: the fastest to pull), all else equal."""
    top = top_quantile(counted["pods"])
    headlines = (
        ("image pull p50", "image_pull_p50_s"),
        ("pod startup p50", "pod_startup_p50_s"),
        (f"pod startup {top}", "pod_startup_p99_s"),
    )
    alike = counted.groupby(others, sort=False, dropna=False) if others else [((), counted)]
    pair = 0
    for _, group in alike:
        if any(isinstance(level, str) for level in group[factor]):
            group = group.sort_values("image_pull_p50_s", kind="stable")
        for position in range(1, len(group)):
            pair += 1
            for label, column in headlines:
                first, other = group.iloc[0], group.iloc[position]
                # Not when either is unknown, nor for cells that differ in no factor.
                if first[column] > 0 and other[column] > 0 and first[factor] != other[factor]:
                    yield _Change(
                        pair, label, first[factor], other[factor],
                        first[column], other[column], first.get("deployments"),
                    )  # fmt: skip


def _effect(factor: str, changes: list[_Change]) -> str:
    """ "replicas 1 -> 5: image pull p50 +0 %, pod startup p50 +3 % to +9 %"."""
    ratios: dict[str, list[float]] = {}
    for one in changes:
        ratios.setdefault(one.label, []).append(one.ratio)
    parts = []
    for label, found in ratios.items():
        low, high = change(min(found)), change(max(found))
        parts.append(f"{label} {low}" if low == high else f"{label} {low} to {high}")
    start, end = level_text(changes[0].start), level_text(changes[0].end)
    return f"{factor} {start} -> {end}: {', '.join(parts)}"


def _no_effect(factor: str, order: list[Any], changes: list[_Change]) -> str:
    """Name the levels and the figures of the two cells that differ most."""
    words = [level_text(level) for level in order]
    either = f"{', '.join(words[:-1])} or {words[-1]}"
    first, *rest = changes
    between = f"from {level_text(first.start)} to {level_text(first.end)}: " * (len(order) > 2)
    figures = [f"{between}{first.label} {number(first.before)} s and {number(first.after)} s"]
    figures += [f"{one.label} {change(one.ratio)}" for one in rest]
    sentence = f"{factor}: {either} makes no visible difference ({', '.join(figures)})"
    n = first.deployments
    if factor != "qps" or first.label != "image pull p50" or any(map(unknown, [n, *order])):
        return sentence
    moved = abs(n / first.start - n / first.end)
    return (
        f"{sentence}: it moves creation of {plural(n, 'Deployment')} by {moved:.1f} s, "
        f"a pull takes {number(first.after)} s"
    )


def _trials(
    frame: pd.DataFrame, counted: pd.DataFrame, asked: Mapping[str, object]
) -> Iterator[str]:
    """Whether trials repeat, how much those of a cell differ, and what would help."""
    if counted.empty or (frame["engine"] == "replay").all():
        return  # nothing counts, or no recorded report becomes more by another trial
    fewest, most = int(counted["n_trials"].min()), int(counted["n_trials"].max())
    advice = _advice(asked) if fewest < ENOUGH_TRIALS else ""
    if most == 1:
        yield f"one trial a cell is not evidence{advice}"
        return
    if fewest == 1:
        single = (counted["n_trials"] == 1).sum()
        yield f"{single} of {plural(len(counted), 'cell')} with one trial: no evidence"
    keys = varied(frame)
    spreads = frame[frame["counts"]].groupby(["cell_id", *keys], sort=False, dropna=False)
    found = [
        ((p50.max() - p50.min()) / p50.median(), len(p50), cell_text(group.iloc[0], keys))
        for _, group in spreads
        if len(p50 := group["image_pull_p50_s"].dropna()) > 1 and p50.median() > 0
    ]
    if found:
        spread, trials, cell = max(found)
        percent = change(spread).removeprefix("+")
        yield f"image pull p50 varies {percent} across {trials} trials ({cell}){advice}"
    elif advice:
        yield f"few trials say little{advice}"


def _advice(asked: Mapping[str, object]) -> str:
    """What was not asked for yet, as something to paste."""
    more = [f"trials={ENOUGH_TRIALS}"] * (int(str(asked.get("trials") or 1)) < ENOUGH_TRIALS)
    resume = asked.get("resume", "off")
    more += ["resume=auto"] * (str(getattr(resume, "name", resume)) != "auto")
    return f"; add {' '.join(more)}" if more else ""


def _simulated(frame: pd.DataFrame) -> list[str]:
    count = int((frame["engine"] == "sim").sum())
    if not count:
        return []
    which = "all numbers here are" if count == len(frame) else "the rows of engine sim are"
    return [f"{which} simulated: a rehearsal and a prediction, not a measurement"]
