"""`report.md`: the report as a comment on a pull request, short enough for GitHub to take.

Hides Markdown's traps: text from data is written as entities, so that no name becomes a table, a
link, a mention or HTML.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from imgpull.analysis.report.gathered import Gathered
from imgpull.analysis.report.page import jobs_text
from imgpull.analysis.report.story import MEASURES, Answer, effect_text, titled
from imgpull.analysis.whole import whole
from imgpull.analysis.wording import level_text

MAX_CHARACTERS = 65_000  # GitHub refuses a comment of more than 65,536
MAX_CELLS = 60
MAX_EFFECTS = 40
MAX_ROWS = 20  # of every other table
# Underscores and brackets within words mean nothing to GitHub and would only be noise.
_SPECIAL = {ord(one): f"&#{ord(one)};" for one in "\\`*<>|#@~&$!"}
_SHOWN = ("image_pull_p50_s", "image_pull_p99_s", "pod_startup_p50_s", "node_throughput_p50_mib_s")
_SIGNS = {"good": "✅", "warning": "⚠️", "bad": "❌"}


def write_markdown(sweep_dir: Path, found: Gathered) -> Path:
    """Write report.md, whole or not at all."""
    path = sweep_dir / "report.md"
    with whole(path) as temporary:
        temporary.write_text(markdown(found), "utf-8")
    return path


def markdown(found: Gathered) -> str:
    """The report as text; the last sections go where it would be too long."""
    sections = [
        _answers(found),
        _effects(found),
        _look(found),
        _cells(found),
        _where(found),
        _failures(found),
        _bill(found),
        _left_out(found),
        _again(found),
    ]
    kept: list[str] = []
    for section in filter(None, sections):
        if sum(map(len, kept)) + len(section) > MAX_CHARACTERS - 200:
            kept.append("More stands in report.html.\n")
            break
        kept.append(section)
    return "\n".join(kept)


def plain(text: object) -> str:
    """Text from data on one line, with nothing in it that Markdown would act upon."""
    return " ".join(str(text).split())[:500].translate(_SPECIAL)


def _answers(found: Gathered) -> str:
    story = found.story
    simulated = (
        f"# {story.simulated}\n\n**A rehearsal and a prediction, not a measurement.**\n\n"
        if story.simulated
        else ""
    )
    return (
        f"{simulated}### Image pulls compared\n\n{plain(story.compared)}\n\n"
        f"{_answer(story.valid)}\n{_answer(story.best)}\n{_answer(story.differs)}"
    )


def _answer(answer: Answer) -> str:
    lines = "".join(f"- {plain(line)}\n" for line in answer.lines[:MAX_ROWS])
    return f"{_SIGNS[answer.state]} **{plain(answer.headline)}**\n\n{lines}"


def _effects(found: Gathered) -> str:
    rows = [
        (
            one.factor,
            f"{level_text(one.start)} → {level_text(one.end)}",
            effect_text(one),
            one.trials,
            "; ".join(filter(None, [one.note, "paired" if one.paired else ""])),
        )
        for one in found.effects
    ]
    title = f"What each factor does to {titled(found.story.measure, found.frame)}"
    header = ("factor", "from → to", "effect [95 %]", "trials a cell", "remark")
    more = "".join(f"\n- {plain(sentence)}" for sentence in found.interactions)
    table = _table(title, header, rows, MAX_EFFECTS)
    return table + (more.lstrip("\n") + "\n" if more and table else "")


def _look(found: Gathered) -> str:
    if not found.notes:
        return ""
    lines = "".join(f"- {plain(note)}\n" for note in found.notes[:MAX_ROWS])
    return f"### What to look at\n\n{lines}"


def _cells(found: Gathered) -> str:
    measures = [one for one in MEASURES if one.column in _SHOWN]
    header = ("cell", "trials", *(f"{titled(one, found.frame)}, {one.unit}" for one in measures))
    rows = []
    for view in found.views:
        numbers = [view.numbers[one.column] for one in measures]
        told = [" ".join(filter(None, [one.text, one.interval])) for one in numbers]
        star = "★ " if view.cell_id == found.story.best_cell else ""
        rows.append((star + view.text, view.verdicts, *told))
    return _table("Cells", header, rows, MAX_CELLS)


def _where(found: Gathered) -> str:
    names = {view.cell_id: view.text for view in found.views}
    rows = [
        (
            names.get(call.cell_id, call.name),
            call.limit.replace("_", " ") + ("" if call.sure else " (not sure)"),
            f"{call.share:.0%}",
            "; ".join(call.evidence),
        )
        for call in found.calls
    ]
    return _table("Where the time went", ("cell", "limit", "share", "evidence"), rows, MAX_ROWS)


def _failures(found: Gathered) -> str:
    rows = [
        (one.cell, one.kind, one.count, one.recovered, jobs_text(one.jobs), one.example)
        for one in found.failures
    ]
    header = ("cell", "kind", "count", "worked later", "where", "for example")
    return _table("Failures by kind", header, rows, MAX_ROWS)


def _bill(found: Gathered) -> str:
    if found.bill is None:
        return ""
    header = ("what", "node-hours planned", "node-hours", "cost planned", "cost")
    rows = [(x.what, x.planned_hours, x.hours, x.planned_cost, x.cost) for x in found.bill.lines]
    notes = "".join(f"- {plain(note)}\n" for note in found.bill.notes)
    return f"{_table('What it cost', header, rows, MAX_CELLS)}\n{notes}"


def _left_out(found: Gathered) -> str:
    rows = [(one.what, one.why) for one in found.ran.left_out]
    return _table("Left out, and run again", ("what", "why"), rows, MAX_ROWS)


def _again(found: Gathered) -> str:
    commands = "".join(f"# {what}\n{command}\n" for what, command in found.ran.commands)
    fence = "`" * (3 + commands.count("```"))
    return f"### Run it again\n\n{fence}sh\n{commands}{fence}\n"


def _table(title: str, header: Sequence[str], rows: Sequence[Iterable[object]], most: int) -> str:
    if not rows:
        return ""
    lines = [f"### {title}", "", _row(header), _row("---" for _ in header)]
    lines += [_row(plain(value) for value in row) for row in rows[:most]]
    if len(rows) > most:
        lines += ["", f"The first {most} of {len(rows)}; report.html has all."]
    return "\n".join(lines) + "\n"


def _row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"
