"""Laws of the report as a page: harmless whatever it says, small enough, readable, and it works."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from browser import chromium
from commands import imgpull, run_py
from hypothesis import given
from hypothesis import strategies as st
from reports import ARGUMENTS, Parsed, edited, headlines, made, rows, traces, written

from imgpull import analysis
from imgpull.analysis.report.markdown import MAX_CHARACTERS
from imgpull.analysis.report.page import MAX_BYTES
from imgpull.analysis.report.pulled import curve
from imgpull.analysis.report.traces import evenly

PLANTED = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A copy of the sweep, to be broken."""
    return shutil.copytree(made(), tmp_path / "sweep")


# ---- Harmless --------------------------------------------------------------------------------


def test_text_from_data_is_text_whatever_it_says(sweep: Path) -> None:
    def plant(record: dict[str, Any]) -> None:
        record["factors"]["image"] = record["name"] = PLANTED
        record.update(reasons=[PLANTED], verdict="degraded", notes=[PLANTED])
        record["versions"][PLANTED] = PLANTED

    edited(sweep, 1, plant)
    for name in ("pods.csv", "pulls.csv"):
        path = sweep / "1" / name
        text = path.read_text("utf-8").replace("imgpull-0-", PLANTED)
        path.write_text(text, "utf-8")
    with (sweep / "ledger.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": "sweep", "arguments": [PLANTED]}) + "\n")
    page = written(sweep, (PLANTED,))
    elements = [tag for tag, _, _ in Parsed(page).found]
    assert elements.count("script") == 2
    assert "img" not in elements
    assert page.count("<script") == 2
    assert any(PLANTED in trial["label"] for trial in traces(page))
    markdown = (sweep / "report.md").read_text("utf-8")
    assert "<" not in markdown.split("```")[0]
    for line in markdown.split("```")[0].splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_nothing_is_fetched_and_no_script_but_its_own_may_run() -> None:
    page = (made() / "report.html").read_text("utf-8")
    found = Parsed(page).found
    for tag, attributes, _ in found:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name, value)
        assert not any(name.startswith("on") for name in attributes)
    (style,) = Parsed(page).texts("style")
    assert "url(" not in style.replace("url(#", "")
    assert "@import" not in style
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a, _ in found if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_equal_sweeps_have_equal_reports(tmp_path: Path) -> None:
    again = run_py(tmp_path, "-m", *ARGUMENTS).sweep
    for name in ("report.html", "report.md"):
        assert (again / name).read_bytes() == (made() / name).read_bytes()


def test_report_writes_it_again_from_the_directories(sweep: Path) -> None:
    for name in ("report.html", "report.md", "summary.csv"):
        (sweep / name).unlink()
    ended = imgpull(sweep.parent, "report", str(sweep))
    assert ended.status == 0, ended.err
    assert f"report:   {sweep / 'report.html'}" in ended.out.splitlines()
    for name in ("report.html", "report.md", "summary.csv"):
        assert (sweep / name).read_bytes() == (made() / name).read_bytes()


def test_a_report_that_cannot_be_written_hides_no_result(sweep: Path) -> None:
    (sweep / "report.html").unlink()
    (sweep / "report.html").mkdir()
    ended = imgpull(sweep.parent, "report", str(sweep))
    assert ended.status == 0
    assert "warning: " in ended.err
    assert (sweep / "summary.csv").exists()
    assert "replicas" in ended.out


def test_broken_files_of_a_trial_cost_no_report(sweep: Path) -> None:
    (sweep / "0/series.csv").write_bytes(b"at_s,node\n\xff\xfe,,,\n\x00")
    (sweep / "1/pods.csv").write_text("nonsense\n1,2,3\n", "utf-8")
    (sweep / "2/pulls.csv").write_text("pod\n", "utf-8")
    (sweep / "3/config.resolved.yaml").write_text("cluster: [", "utf-8")
    assert headlines(written(sweep))[0].startswith("✔")


# ---- Small enough, readable ------------------------------------------------------------------


@given(st.integers(0, 5_000), st.integers(2, 500))
def test_thinning_keeps_both_ends_and_the_order(count: int, most: int) -> None:
    kept = evenly(count, most)
    assert len(kept) == min(count, most)
    assert kept == sorted(set(kept))
    assert not count or (kept[0], kept[-1]) == (0, count - 1)


def test_a_pull_that_never_ended_counts_until_it_was_last_seen() -> None:
    """By hand: 4 pulls; at 1 s 1 of 4 ends, at 2 s one is last seen, at 3 s 1 of the 2 left."""
    found = curve([1.0, 3.0], [2.0, 4.0])
    assert found.steps == ((1.0, 1 / 4), (3.0, pytest.approx(1 - (3 / 4) * (1 / 2))))
    assert (found.pulls, found.censored, found.last_s) == (4, 2, 4.0)


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=60))
def test_without_open_ends_a_curve_is_the_share_that_was_as_fast(seconds: list[float]) -> None:
    for moment, share in curve(seconds, []).steps:
        assert share == pytest.approx(sum(one <= moment for one in seconds) / len(seconds))
    assert curve(seconds, []).steps[-1] == pytest.approx((max(seconds), 1.0))


@pytest.mark.slow
def test_a_large_sweep_is_thinned_until_it_fits_and_says_how(sweep: Path) -> None:
    """600 trials with 2,000 pods each: fewer of each, and of each cell the middle trial."""
    pods = (sweep / "0/pods.csv").read_text("utf-8").splitlines()
    many = [pods[0], *(pods[1].replace("imgpull-0-", f"imgpull-{pod}-") for pod in range(2_000))]
    (sweep / "0/pods.csv").write_text("\n".join(many) + "\n", "utf-8")
    for job in range(1, 600):
        place = sweep / str(job)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(sweep / "0", place, ignore=shutil.ignore_patterns("report", "bundle"))

        def other(record: dict[str, Any], job: int = job) -> None:
            cell = f"cell{job % 300}"
            record["factors"]["qps"] = job % 300
            record.update(cell_id=cell, trial_id=f"{cell}-t{job // 300}", trial=1 + job // 300)

        edited(sweep, job, other)
    page = written(sweep)
    assert len(page.encode()) < MAX_BYTES
    assert re.search(r"Of 600 trials 240 can be chosen here", page)
    assert all(trial["of"] == 2_000 and len(trial["pods"]) < 150 for trial in traces(page))
    markdown = (sweep / "report.md").read_text("utf-8")
    assert len(markdown) < MAX_CHARACTERS
    assert "report.html has all" in markdown


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def themes() -> Iterator[tuple[str, dict[str, str]]]:
    text = (Path(analysis.__file__).parent / "report/page.css").read_text("utf-8")
    light = colours(text[: text.index("@media")])
    dark, printed = text.index("(prefers-color-scheme: dark)"), text.index("@media print")
    yield "light", light
    yield "dark", light | colours(text[dark : text.index("* {", dark)])
    yield "print", light | colours(text[printed:])


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_text_and_marks_stand_out_in_every_theme() -> None:
    inks = ("ink", "quiet", "accent", "good", "warning", "bad")
    texts = [(ink, on) for ink in inks for on in ("page", "raised")]
    texts += [("heat-ink", "heat-low"), ("heat-ink", "heat-high")]
    marks = [f"c{place}" for place in range(6)] + ["wait", "pull", "shared", "prepare", "start"]
    for name, theme in themes():
        for ink, on in texts:
            assert contrast(theme[ink], theme[on]) >= 4.5, (name, ink, on)
        for mark in marks:
            assert contrast(theme[mark], theme["page"]) >= 3, (name, mark)


# ---- In a browser ----------------------------------------------------------------------------


@pytest.mark.browser
def test_a_browser_shows_the_answer_first_and_draws_every_picture() -> None:
    with chromium() as page:
        page.load(made() / "report.html")
        assert page.requests == [(made() / "report.html").as_uri()]
        bottoms = page.value(
            "[...document.querySelectorAll('h1, .simulated, .headline')]"
            ".map(one => one.getBoundingClientRect().bottom)"
        )
        assert len(bottoms) == 5
        assert max(bottoms) < 800
        assert page.value("document.querySelectorAll('.panels path.curve').length") == 4
        pods = len(rows(made() / "0/pods.csv"))
        drawn = "new Set([...document.querySelectorAll('#pods rect[class^=k]')].map(one => one.{}))"
        assert page.value(drawn.format("getAttribute('y')") + ".size") >= pods
        assert page.value("document.querySelectorAll('#rates path.mean').length") == 4
        assert page.value("document.querySelectorAll('#trial-choice option').length") == 12
        assert page.value("document.documentElement.scrollWidth") <= 1280
        assert page.complaints == []


@pytest.mark.browser
def test_keys_and_controls_work_without_a_mouse() -> None:
    axis = "[...document.querySelectorAll('#pods text')].map(one => one.textContent).join()"
    with chromium() as page:
        page.load(made() / "report.html")
        page.value("document.getElementById('pods').focus()")
        page.press("ArrowDown")
        said = page.value("document.getElementById('readout').textContent")
        names = [row["pod"] for row in rows(made() / "0/pods.csv")]
        assert any(name in said for name in names)
        before = page.value(axis)
        page.press("+")
        assert page.value(axis) != before
        page.press("0")
        assert page.value(axis) == before
        page.value("document.getElementById('next').click()")
        assert "job 1 " in page.value("document.getElementById('trial-name').textContent")
        page.value("measure.value = '1'; measure.dispatchEvent(new Event('change'))")
        shown = "[...document.querySelectorAll('.heat-map')].filter(one => !one.hidden).length"
        assert page.value(shown) == 1
        assert page.complaints == []


@pytest.mark.browser
def test_without_script_the_first_screen_is_the_same() -> None:
    with chromium() as page:
        page.scripts(run=False)
        page.load(made() / "report.html")
        texts = "[...document.querySelectorAll('.headline')].map(one => one.textContent)"
        assert [" ".join(one.split()) for one in page.value(texts)] == headlines(
            (made() / "report.html").read_text("utf-8")
        )
        shown = "getComputedStyle(document.querySelector('.controls')).display"
        assert page.value(shown) == "none"


@pytest.mark.browser
def test_planted_script_is_dead_in_a_browser(sweep: Path) -> None:
    def plant(record: dict[str, Any]) -> None:
        record["factors"]["image"] = PLANTED.replace("alert(", "document.body.dataset.hit=(")

    edited(sweep, 1, plant)
    written(sweep)
    with chromium() as page:
        page.load(sweep / "report.html")
        assert page.value("document.body.dataset.hit ?? null") is None
        assert page.complaints == []


@pytest.mark.browser
def test_dark_is_dark_and_print_is_light() -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    shades = {}
    with chromium() as page:
        page.load(made() / "report.html")
        for name, how in (
            ("light", {}),
            ("dark", {"dark": True}),
            ("print", {"dark": True, "printed": True}),
        ):
            page.media(**how)
            red, green, blue = map(int, re.findall(r"\d+", page.value(background))[:3])
            shades[name] = median([red, green, blue])
        assert page.pdf().startswith(b"%PDF")
    assert shades["dark"] < 64 < 250 < shades["light"]
    assert shades["print"] == 255


@pytest.mark.browser
def test_what_is_folded_on_the_screen_is_there_on_paper() -> None:
    folded = (
        "[...document.querySelectorAll('details:not([open])')].map(one => "
        "one.getBoundingClientRect().height > one.querySelector('table').offsetHeight)"
    )
    with chromium() as page:
        page.load(made() / "report.html")
        assert set(page.value(folded)) == {False}
        page.media(printed=True)
        assert set(page.value(folded)) == {True}
