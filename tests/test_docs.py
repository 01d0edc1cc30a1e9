"""The documentation says what is so: commands run and print what stands there, names exist.

Hides how a page becomes steps. In a console block a line that begins with `$ ` is a command, the
lines after it are what it prints (`…` is anything, on a line of its own any lines), and `$ echo $?`
gives the status expected of the command before it, else 0. A YAML block whose first line is a
comment with a path is that file, or its end; a Python block is run.
"""

import csv
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from imgpull import errors, pulls
from imgpull.engines import replay
from imgpull.pulls import COLD_SHARE, WARM_SHARE
from imgpull.results import flags, record
from imgpull.results import verdict as verdicts

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")) if path.is_file()
)
RUNNABLE = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "how-to.md"]
MEASUREMENTS = (ROOT / "docs" / "measurements.md").read_text()
HOW_TO = (ROOT / "docs" / "how-to.md").read_text()
# Set-up, which CI runs, and servers, which do not end or are not there.
NOT_RUN = ("make ", "pip ", "python3 -m venv ", "mlflow ui ")
SERVER = "http://"
COPIED = ("run.py", "conf", "templates", "imgpull", "hydra_plugins", "tests/data")

MakeJob = Callable[..., Any]


@dataclass
class Command:
    """A command of a page, what it prints there, and the status that is expected of it."""

    text: str
    output: list[str] = field(default_factory=list)
    status: int = 0

    @property
    def runs(self) -> bool:
        return not self.text.startswith(NOT_RUN) and SERVER not in self.text


def blocks(page: Path) -> list[tuple[str, list[str]]]:
    """(language, lines) of each fenced block."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, text.splitlines()) for language, text in found]


def commands(lines: list[str]) -> list[Command]:
    """The commands of one console block."""
    found: list[Command] = []
    for line in lines:
        if line.startswith("$ "):
            found.append(Command(line[2:]))
        else:
            found[-1].output.append(line)
    for command, after in itertools.pairwise(found):
        if after.text == "echo $?":
            command.status = int(after.output[0])
    return [command for command in found if command.text != "echo $?"]


def all_commands(page: Path) -> list[Command]:
    return [
        command
        for language, lines in blocks(page)
        if language == "console"
        for command in commands(lines)
    ]


def name(path: Path) -> str:
    return path.name


# Commands


def written(page: Path) -> set[str]:
    """The options (GROUP=NAME) that a page makes itself."""
    made = re.findall(r"(?:^# |> )conf/(\w+)/(\w+)\.yaml$", page.read_text(), re.MULTILINE)
    inspected = re.findall(r"imgpull image inspect .*--name (\w+)$", page.read_text(), re.MULTILINE)
    return {f"{group}={option}" for group, option in made} | {f"image={x}" for x in inspected}


def spanned(overrides: list[str]) -> list[tuple[str, ...]]:
    """The overrides of each cell that a command line spans."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    axes = []
    for parsed in OverridesParser.create().parse_overrides(overrides):
        line = parsed.input_line
        key = parsed.get_key_element()
        swept = parsed.is_sweep_override()
        axes.append(
            [f"{key}={level}" for level in parsed.sweep_string_iterator()] if swept else [line]
        )
    return list(itertools.product(*axes))


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_every_documented_matrix_composes_and_is_possible(page: Path, job: MakeJob) -> None:
    tried = 0
    for command in all_commands(page):
        words = shlex.split(command.text, comments=True)
        if words[:2] != ["python", "run.py"] or command.status == 2 or "--help" in words:
            continue
        overrides = [word for word in words[2:] if word != "-m" and word not in written(page)]
        for cell in spanned(overrides):
            job(*cell)
            tried += 1
    assert tried > 3


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_every_documented_imgpull_command_has_a_verb_and_options_that_exist(page: Path) -> None:
    from typer.main import get_command

    from imgpull.cli import app

    verbs: Any = get_command(app)
    for command in all_commands(page):
        if command.text.startswith("imgpull "):
            words = shlex.split(command.text, comments=True)  # "$(...)" is one word
            verbs.commands[words[1]].make_context(words[1], words[2:])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what runs, so that no store, sweep or template of this checkout is touched."""
    for each in COPIED:
        if (ROOT / each).is_dir():
            shutil.copytree(
                ROOT / each, tmp_path / each, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / each, tmp_path / each)
    return tmp_path


def run(command: str, project: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in the project, with this Python and this imgpull."""
    shell = 'python() { "$PYTHON" "$@"; }\nimgpull() { "$PYTHON" -m imgpull.cli "$@"; }\n'
    environment = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"}
    return subprocess.run(
        ["sh", "-c", shell + command],
        cwd=project,
        env=environment | {"PYTHON": sys.executable, "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def not_printed(shown: list[str], printed: str) -> list[str]:
    """The shown lines that were not printed after those before them."""
    # Pages leave out the moment that begins a progress line without a terminal.
    told = (re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", x) for x in printed.splitlines())
    lines, at, missing = [line.rstrip() for line in told], 0, []
    for line in shown:
        pattern = ".*".join(re.escape(part) for part in line.rstrip().split("…"))
        found = (n for n, actual in enumerate(lines[at:], at + 1) if re.fullmatch(pattern, actual))
        if line != "…" and (after := next(found, 0)):
            at = after
        elif line != "…":
            missing.append(line)
    return missing


def write(lines: list[str], project: Path) -> None:
    """Make the file that a YAML block's first line names, or add to its end."""
    match = re.fullmatch(r"# ([\w./-]+)(, at the end)?", lines[0])
    assert match, lines[0]
    text = "\n".join(lines[1:]) + "\n"
    with (project / match[1]).open("a" if match[2] else "w", encoding="utf-8") as file:
        file.write(text)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_a_page_s_commands_end_as_it_says_and_print_what_it_shows(
    page: Path, project: Path
) -> None:
    for language, lines in blocks(page):
        if language == "yaml":
            write(lines, project)
        elif language == "python":
            subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=project, check=True)
        elif language == "console":
            for command in commands(lines):
                if command.runs:
                    done = run(command.text, project)
                    assert done.returncode == command.status, f"{command.text}\n{done.stdout}"
                    missing = not_printed(command.output, done.stdout)
                    assert not missing, f"{command.text}\n{done.stdout}"


def test_a_shown_line_that_was_not_printed_is_found() -> None:
    assert not not_printed(["a … c", "…", "e"], "a b c\nd \ne\n")
    assert not_printed(["e", "a"], "a\ne\n") == ["a"]


# Measurements


# Cells that between them leave every kind of number: no pull in time, some, all.
SWEPT = ("wait_timeout=1m,121s,30m",)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Directories of simulated trials."""
    sweep = tmp_path_factory.mktemp("sweep")
    fixed = ("metrics_wait=1m", "tracking=none", f"hydra.sweep.dir={sweep}")
    done = subprocess.run(
        [sys.executable, "run.py", "-m", *SWEPT, *fixed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return record.job_directories(sweep)


def rows(section: str) -> Iterator[list[str]]:
    """The cells of the tables under a heading of docs/measurements.md."""
    parts = re.split(rf"^## {re.escape(section)}$", MEASUREMENTS, maxsplit=1, flags=re.MULTILINE)
    assert len(parts) == 2, f"no section '{section}'"
    for line in re.split(r"^## ", parts[1], maxsplit=1, flags=re.MULTILINE)[0].splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("| ").split(" | ")]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_measurement_of_a_trial_is_documented_with_unit_and_source(
    trials: list[Path],
) -> None:
    documented: dict[tuple[str, str], list[str]] = {
        (measurement, statistic): cells
        for cells in rows("measurements.csv")
        for measurement in words(cells[0])
        for statistic in words(cells[1])
    }
    seen = [row for trial in trials for row in record.read_measurements(trial)]
    assert len({row.measurement for row in seen}) > 12
    for row in seen:
        # How these two follow from the statistic is said once for all.
        statistic = re.sub("_(bucket_width|at_least)$", "", row.statistic)
        assert (row.measurement, statistic) in documented, row
        _, _, unit, source, *_ = documented[row.measurement, statistic]
        assert row.unit in words(unit) or row.unit == "1", row
        assert any(row.source.startswith(one) for one in words(source)), row


def header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return next(csv.reader(file))


TABLES = ("pulls.csv", "flags.csv", "pods.csv", "series.csv", "summary.csv", "cells.csv")


@pytest.mark.parametrize("file", TABLES)
def test_every_column_is_documented_and_no_other(file: str, trials: list[Path]) -> None:
    directory = trials[0].parent if file in ("summary.csv", "cells.csv") else trials[0]
    documented = [column for cells in rows(file) for column in words(cells[0])]
    swept = {axis.split("=")[0] for axis in SWEPT} - set(documented)  # a column of its own
    assert documented == [column for column in header(directory / file) if column not in swept]


def test_every_word_of_a_pull_is_documented() -> None:
    section = "\n".join(" ".join(cells) for cells in rows("pulls.csv"))
    for word in (*pulls.OUTCOMES, *pulls.TEMPERATURES, *pulls.FAILURES, *pulls.SOURCES):
        assert f"`{word}`" in section, word


def test_every_row_says_when_it_starts_and_ends_and_how_it_can_mislead() -> None:
    for cells in rows("measurements.csv"):
        assert len(cells) == 8, cells
        assert all(cells), cells


def test_the_documented_limits_are_those_of_the_code() -> None:
    limits = {words(cells[0])[0]: cells[1] for cells in rows("Verdicts") if len(cells) == 3}
    code = {
        "UNSEEN_LIMIT": verdicts.UNSEEN_LIMIT,
        "ONE_PULL_BYTES_S": flags.ONE_PULL_BYTES_S,
        "COLD_SHARE": COLD_SHARE,
        "WARM_SHARE": WARM_SHARE,
    }
    assert {key: float(words(cell)[0]) for key, cell in limits.items()} == code
    for verdict in record.VERDICTS:
        assert f"`{verdict}`" in MEASUREMENTS


# Names


def test_every_error_is_where_users_look() -> None:
    kinds = errors.ImgpullError.__subclasses__()
    assert len(kinds) > 4
    assert {kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in HOW_TO} == set()


def test_every_key_of_a_recorded_report_s_description_is_documented() -> None:
    section = HOW_TO.split("| Key of `replay.yaml` |")[1].split("\n\n")[0]
    keys = {word for line in section.splitlines() for word in words(line.split(" | ")[0])}
    assert keys == set(replay._KEYS)


def paragraphs(page: Path) -> list[str]:
    """Texts between empty lines; an item of a list and a row of a table belong to the rest."""
    return page.read_text().split("\n\n")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_names_no_place_of_this_machine(page: Path) -> None:
    text = re.sub(r"\w+://[^\s)`\"]+", "", page.read_text())
    absolute = re.findall(r"(?<![\w.…}>*/-])/([A-Za-z][\w.-]*)/", text)
    assert [top for top in absolute if Path(f"/{top}").is_dir()] == []
    assert str(Path.home()) not in text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_s_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    places = r"(?:imgpull|conf|templates|tests|docs|hydra_plugins|benchmarks)/[\w./-]*"
    for span in spans:
        if re.fullmatch(places, span) and "NAME" not in span:
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_names_is_there(page: Path) -> None:
    from typer.main import get_command

    from imgpull.cli import app

    verbs = set(getattr(get_command(app), "commands", ()))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    own = written(page)
    for paragraph in paragraphs(page):
        for verb in re.findall(r"(?:`|\$ )imgpull ([a-z]+)", paragraph):
            assert verb in verbs, paragraph
        for target in re.findall(r"(?:`|\$ )make ([a-z]+)", paragraph):
            assert target in targets, paragraph
        groups = r"\b(engine|cluster|image|tracking|experiment)=([a-z]\w+)"
        for group, option in re.findall(groups, paragraph):
            known = (ROOT / "conf" / group / f"{option}.yaml").is_file()
            mistake = "Could not find" in paragraph
            assert known or mistake or f"{group}={option}" in own, paragraph
