"""Laws of what the report says: each number is in the sweep's files, each gap is told."""

import html
import json
import math
import re
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from builders import pull, write_trial
from reports import Parsed, edited, headlines, made, rows, traces, written
from test_compare import add_sweep

from imgpull import analysis
from imgpull.analysis import plots
from imgpull.analysis.effects import effects
from imgpull.analysis.report.pulled import Pulled
from imgpull.analysis.report.story import Story, story, views_of
from imgpull.analysis.trial_files import TrialFiles
from imgpull.tables import PodRow, write_pods

T_2 = 4.302653  # Student's t, 2 degrees of freedom, 97.5 %


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A copy of the sweep, to be broken."""
    return shutil.copytree(made(), tmp_path / "sweep")


def test_the_end_of_a_sweep_writes_both_files() -> None:
    assert (made() / "report.html").stat().st_size < 300_000
    assert (made() / "report.md").read_text("utf-8").startswith("# SIMULATED\n")


def test_the_first_screen_says_what_was_compared_whether_it_is_valid_and_what_is_best() -> None:
    page = (made() / "report.html").read_text("utf-8")
    (compared,) = Parsed(page).texts("h1")
    assert compared.startswith("4 cells: replicas (1, 3) × qps (5, 10), 3 trials each.")
    valid, differs, best = headlines(page)
    assert valid == "✔ Valid: all 12 trials count"
    assert "[" in differs or "Nothing shown" in differs
    assert re.search(r"image pull p50 [\d.]+ s \[[\d.]+, [\d.]+\]$", best)
    (simulated,) = Parsed(page).texts("p", **{"class": "simulated"})
    assert simulated.startswith("SIMULATED")
    assert page.index('id="answer"') < page.index('id="matrix"') < page.index("<script")


def test_numbers_of_the_report_are_those_of_the_measurements() -> None:
    """Geometric means and t intervals, again from measurements.csv alone."""
    factors = ("pod_startup", "p50"), ("image_pull", "p50"), ("node_throughput", "p50")
    columns = ("pod_startup_p50_s", "image_pull_p50_s", "node_throughput_p50_mib_s")
    sizes = (1.0, 1.0, 1024.0**2)
    trials: dict[str, list[dict[tuple[str, str], float]]] = {}
    for job in sorted(made().glob("[0-9]*")):
        cell = json.loads((job / "job.json").read_text("utf-8"))["cell_id"]
        numbers = {
            (row["measurement"], row["statistic"]): float(row["value"])
            for row in rows(job / "measurements.csv")
            if not row["subject"]
        }
        trials.setdefault(cell, []).append(numbers)
    page = (made() / "report.html").read_text("utf-8")
    for cell, numbers_of in trials.items():
        (line,) = re.findall(rf'<tr data-cell="{cell}">(.*?)</tr>', page, re.DOTALL)
        for key, column, size in zip(factors, columns, sizes, strict=True):
            logs = [math.log(one[key] / size) for one in numbers_of]
            middle, half = fmean(logs), T_2 * stdev(logs) / math.sqrt(3)
            (told,) = re.findall(rf'data-column="{column}">(.*?)</td>', line)
            said = [float(one) for one in re.findall(r"[\d.]+", told)]
            again = [math.exp(middle), math.exp(middle - half), math.exp(middle + half)]
            assert said == pytest.approx(again, rel=0.006), (cell, column)  # three figures


def test_curves_timelines_and_rates_are_those_of_the_files() -> None:
    page = (made() / "report.html").read_text("utf-8")
    halves = sorted(float(one) for one in re.findall(r"half within ([\d.]+) s</title>", page))
    by_cell: dict[str, list[float]] = {}
    for job in made().glob("[0-9]*"):
        cell = json.loads((job / "job.json").read_text("utf-8"))["cell_id"]
        led = [row for row in rows(job / "pulls.csv") if row["leader"] == "true"]
        by_cell.setdefault(cell, []).extend(float(row["pull_s"]) for row in led)
    again = sorted(sorted(pulls)[math.ceil(len(pulls) / 2) - 1] for pulls in by_cell.values())
    assert halves == pytest.approx(again, rel=0.006)
    for trial in traces(page):
        job = made() / str(trial["job"])
        pods = {row["pod"]: row for row in rows(job / "pods.csv")}
        waits = {row["pod"]: float(row["wait_s"]) for row in rows(job / "pulls.csv")}
        assert trial["of"] == len(trial["pods"]) == len(pods)
        for name, node, *moments, _ in trial["pods"]:
            row = pods[name]
            assert trial["nodes"][node] == row["node"]
            names = ("created", "scheduled", "pulling", "pulled", "started", "ready")
            told = {key: float(row[key]) for key in names}
            until = told["pulling"] + waits[name] if name in waits else None
            values = [*list(told.values())[:3], until, *list(told.values())[3:]]
            assert moments == [None if one is None else round(one * 1000) for one in values]
        moved = 0.0
        last: dict[str, float] = {}
        for row in rows(job / "series.csv"):
            at_s = float(row["at_s"])
            moved += float(row["receive_bytes_per_s"]) * (at_s - last.get(row["node"], at_s))
            last[row["node"]] = at_s
        rates = trial["rates"]
        drawn = sum(one or 0 for one in rates["receive"]["total"]) * rates["step_s"] * 1024**2
        assert drawn == pytest.approx(moved, rel=0.01)


def test_limits_are_those_of_the_cluster_described() -> None:
    text = (made() / "0/config.resolved.yaml").read_text("utf-8")
    described = {
        key: float(re.findall(rf"{name}: (\S+)", text)[0]) * size / 1024**2
        for key, name, size in (
            ("nic", "nic_mbit_s", 1e6 / 8), ("disk", "disk_write_mb_s", 1e6),
            ("registry", "egress_mbit_s", 1e6 / 8),
        )
    }  # fmt: skip
    for trial in traces((made() / "report.html").read_text("utf-8")):
        assert trial["limits"] == pytest.approx(described)


def test_trials_that_do_not_count_are_told_with_their_reasons(sweep: Path) -> None:
    def spoil(record: dict[str, Any]) -> None:
        record.update(verdict="invalid", reasons=["the node was warm", "another"])

    edited(sweep, 3, spoil)
    page = written(sweep)
    assert headlines(page)[0] == "▲ Partly valid: 11 of 12 trials count"
    assert "invalid: the node was warm (job 3)" in page
    assert "11 valid, 1 invalid" in page


def test_where_no_trial_counts_no_cell_is_best(sweep: Path) -> None:
    for job in range(12):
        edited(sweep, job, lambda record: record.update(verdict="invalid", reasons=["warm"]))
    valid, _, best = headlines(written(sweep))
    assert valid == "✖ Not valid: no trial counts"
    assert best == "✖ No cell has a known image pull p50"
    markdown = (sweep / "report.md").read_text("utf-8")
    assert "★" not in markdown


def test_one_trial_a_cell_is_called_no_evidence(sweep: Path) -> None:
    for job in range(4, 12):
        shutil.rmtree(sweep / str(job))
    page = written(sweep)
    assert "One trial a cell: no interval, and no evidence" in page
    assert "[" not in "".join(headlines(page)[1:])


def test_a_rehearsal_and_a_measurement_are_not_compared(sweep: Path) -> None:
    frame = analysis.read_sweep(sweep)
    for cell in set(frame.loc[frame["replicas"] == 3, "job"]):
        edited(sweep, int(cell), lambda record: record.update(engine="binary"))
    page = written(sweep)
    assert headlines(page)[2] == "▲ Cells differ in engine: none is called best"
    assert Parsed(page).texts("p", **{"class": "simulated"})[0].startswith("SIMULATED: the cells")
    assert 'class="best"' not in page


def test_a_measurement_is_not_called_simulated(sweep: Path) -> None:
    for job in range(12):
        edited(sweep, job, lambda record: record.update(engine="binary", measured_by="cl2"))
    assert "SIMULATED" not in written(sweep).split("<script>")[0]
    assert "SIMULATED" not in (sweep / "report.md").read_text("utf-8")


def test_what_is_absent_is_said(sweep: Path) -> None:
    for job in range(12):
        for name in ("series.csv", "pods.csv", "pulls.csv"):
            (sweep / str(job) / name).unlink()
    (sweep / "ledger.jsonl").unlink()
    page = written(sweep)
    assert all(trial["rates"] is None and trial["of"] == 0 for trial in traces(page))
    assert "No trial that counts has a record of single pulls" in page
    assert "There is no ledger.jsonl" in page
    assert "python run.py" not in page


def test_failures_keep_their_first_cause_and_who_recovered(sweep: Path) -> None:
    path = sweep / "0/pulls.csv"
    lines = path.read_text("utf-8").splitlines()
    cells = [line.split(",") for line in lines]
    failure, outcome = lines[0].split(",").index("failure"), lines[0].split(",").index("outcome")
    cells[1][failure] = cells[2][failure] = "throttled"
    cells[2][outcome] = "failed"
    path.write_text("".join(",".join(line) + "\n" for line in cells), "utf-8")
    page = written(sweep)
    assert re.search(
        r'<td>throttled</td><td class="n">2</td><td class="n">1</td><td>job 0</td>', page
    )


def test_a_pull_not_over_at_the_deadline_is_no_success(tmp_path: Path) -> None:
    """And one cell has neither a lightest shade nor a darkest."""
    pulls = [pull(0, 2.0), pull(1, None)]
    values = {("image_pull", "p50"): 2.0}
    write_trial(tmp_path / "0", config={"wait_timeout": "32s"}, values=values, pulls=pulls)
    page = written(tmp_path)
    assert re.search(r'<td>not over at the deadline</td><td class="n">1</td>', page)
    assert "No pull failed" not in page
    assert "Shade:" not in page


def test_a_pull_that_was_refused_waits_until_its_last_attempt(tmp_path: Path) -> None:
    """Asked for at 1 s, refused once, over at 20 s after 2 s of pulling: 17 s of back-off."""
    pulls = [pull(0, 2.0, wait_s=0.0, attempts=2, failure="throttled")]
    place = write_trial(tmp_path / "0", pulls=pulls)
    times = (0.0, 0.1, 0.2, 1.0, 20.0, 20.1, 20.2)
    write_pods(place / "pods.csv", [PodRow("imgpull-1", "pull-0", "node-0", *times)])
    (trial,) = traces(written(tmp_path))
    (pod,) = trial["pods"]
    pulling, until, pulled = pod[4:7]
    assert (pulling, until, pulled) == (1_000, 18_000, 20_000)


def test_excluded_cells_and_attempts_run_again_are_listed(sweep: Path) -> None:
    with (sweep / "ledger.jsonl").open("a", encoding="utf-8") as file:
        excluded = [{"overrides": ["qps=99"], "factors": {}, "by": "qps > 50"}]
        file.write(json.dumps({"event": "sweep", "excluded": excluded, "arguments": []}) + "\n")
        late = {"event": "planned", "trial_id": "never", "dir": "77", "name": "r9"}
        file.write(json.dumps(late) + "\n")
    shutil.copytree(sweep / "2", sweep / "2/attempt-2")
    path = sweep / "2/attempt-2/job.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(record | {"attempt": 2}), "utf-8")
    edited(sweep, 2, lambda first: first.update(verdict="failed", reasons=["it broke"]))
    page = html.unescape(written(sweep))
    assert "cell qps=99</th><td class=\"wrap\">never run: exclude 'qps > 50'" in page
    assert "job 2, attempt 1" in page
    assert "run again: failed, it broke" in page
    assert "job 77 (r9)" in page
    assert "1 attempt run again: in no number" in page


def test_what_ran_is_said_once_and_what_differs_with_its_jobs(sweep: Path) -> None:
    edited(sweep, 5, lambda record: record["versions"].update(containerd="9.9.9"))
    found = Parsed(written(sweep)).texts("tr")
    assert "version containerd 9.9.9 job 5" in found
    assert sum(one.startswith("version kubernetes") for one in found) == 1
    (git,) = [one for one in found if one.startswith("git revision")]
    record = json.loads((sweep / "0/job.json").read_text("utf-8"))
    assert record["git"]["revision"] in git
    assert record["bundle_sha256"] in (sweep / "report.html").read_text("utf-8")


def test_the_command_of_the_sweep_is_there_to_paste() -> None:
    assert (
        "python run.py -m image=resource_consumer nodes=2" in (made() / "report.html").read_text()
    )
    assert "imgpull reproduce SWEEP/0" in (made() / "report.md").read_text()


def test_a_cell_not_shown_to_be_above_the_lowest_has_no_shade(tmp_path: Path) -> None:
    from imgpull.analysis.layout import layout_of
    from imgpull.analysis.report.matrix import heat_maps

    def shades(name: str, times: float, noise: float) -> list[int | None]:
        sweep = add_sweep(
            tmp_path / name, {"nodes": (10, 20)},
            lambda chosen: 100.0 * (times if chosen["nodes"] == 20 else 1.0),
            noise=noise,
        )  # fmt: skip
        frame = analysis.read_sweep(sweep)
        found = heat_maps(frame, layout_of(frame), views_of(frame))[0]
        return [square.shade for _, squares in found.rows for square in squares if square]

    assert shades("none", 1.0, 0.0) == [0, 0]
    assert shades("unclear", 1.02, 0.1) == [0, 0]
    assert shades("rounded", 1.004, 0.0) == [0, 0]  # shown, and said to be 0 %
    assert shades("large", 1.5, 0.01) == [0, 100]
    small = shades("small", 1.05, 0.0)[1]
    assert small is not None
    assert 0 < small < 40  # a small difference looks small


def answers(sweep: Path) -> Story:
    frame = analysis.read_sweep(sweep)
    return story(frame, views_of(frame), effects(frame), None)


def test_cells_known_only_from_below_are_on_the_first_screen(tmp_path: Path) -> None:
    """2 x 2 cells, of which those of one image were not over at the deadline."""
    sweep = add_sweep(
        tmp_path / "sweep", {"nodes": (2, 4), "image": ("small", "large")},
        lambda chosen: 31.2 if chosen["image"] == "large" else 1.5,
        censored=lambda chosen: chosen["image"] == "large",
    )  # fmt: skip
    found = answers(sweep)
    assert re.fullmatch(r"image small → large: at least \+[12]\d{3} %", found.differs.headline)
    (slowest,) = [line for line in found.best.lines if line.startswith("Slowest")]
    assert len(re.findall(r"image large: over 31\.\d s, at least \+[12]\d{3} %", slowest)) == 2
    assert not any("large" in line for line in found.best.lines if line.startswith("Not told"))
    frame = analysis.read_sweep(sweep)
    (image,) = [one for one in effects(frame) if one.factor == "image"]
    assert (image.bound, image.low, image.sure) == ("at_least", None, True)
    small, large = (frame[frame["image"] == image] for image in ("small", "large"))
    assert image.ratio == pytest.approx(
        math.exp(fmean(map(math.log, large["image_pull_p50_at_least_s"])))
        / math.exp(fmean(map(math.log, small["image_pull_p50_s"])))
    )


def test_a_bound_below_a_known_number_tells_nothing(tmp_path: Path) -> None:
    sweep = add_sweep(
        tmp_path / "sweep", {"nodes": (2, 4)},
        lambda chosen: 3.0 if chosen["nodes"] == 4 else 9.0,
        censored=lambda chosen: chosen["nodes"] == 4,
    )  # fmt: skip
    found = answers(sweep)
    assert found.best.headline.startswith("Two cells cannot be told apart")
    assert any(line.startswith("Known only from below: nodes 4") for line in found.best.lines)
    assert found.differs.headline == "Nothing can be told to change image pull p50"


def test_cells_of_which_all_are_known_only_from_below_are_told_so(tmp_path: Path) -> None:
    late = {"censored": lambda chosen: True}
    one = answers(add_sweep(tmp_path / "one", {"nodes": (2,)}, lambda chosen: 3.31, **late))
    assert one.best.headline.startswith("image pull p50 over 3.3")
    two = answers(add_sweep(tmp_path / "two", {"nodes": (2, 4)}, lambda chosen: 3.31, **late))
    assert two.best.headline == "image pull p50 of every cell is known only from below"
    assert two.best_cell is None
    assert two.differs.headline == "Nothing can be told to change image pull p50"


def test_pulls_not_over_at_the_deadline_keep_a_curve_from_the_top(tmp_path: Path) -> None:
    """By hand: one took 2 s; one of a pod created at 5 s, asked for at 6 s, was cut at 37 s."""
    place = write_trial(
        tmp_path / "0", config={"wait_timeout": "32s"},
        pulls=[pull(0, 2.0), pull(1, None, requested_at=6.0)],
    )  # fmt: skip
    created = PodRow("imgpull-1", "pull-1", "node-1", 5.0, *[None] * 6)
    write_pods(place / "pods.csv", [created])
    pulled = Pulled()
    pulled.add(0, 0, TrialFiles(place), counts=True)
    (found,) = pulled.curves().values()
    assert found.steps == ((2.0, 0.5),)
    assert (found.pulls, found.censored, found.last_s) == (2, 1, 31.0)
    figure = plots.figures(place.parent, analysis.read_sweep(place.parent))["image_pull"]
    marks = [dots.get_offsets()[:, 1].tolist() for dots in figure.axes[0].collections]
    assert sorted(seconds for kind in marks for seconds in kind) == [2.0, 31.0]
    assert "triangle: a pull not over at the deadline" in figure.get_supxlabel().replace("\n", " ")
