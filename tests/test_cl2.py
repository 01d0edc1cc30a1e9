"""CL2 reports: what was recorded is read, what is written reads back, in CL2's own words."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull import cl2
from imgpull.cl2 import wording
from imgpull.cl2.junit import read_junit, step_case, write_junit
from imgpull.errors import ReportError
from imgpull.units import parse_duration

REPORTS = Path(__file__).parent / "data" / "cl2-reports"
OWN = REPORTS / "own-2026-two-nodes"
CRI = REPORTS / "telescope-cri-resource-consumer-fail-20250503"
NETPOL = REPORTS / "telescope-network-policy-scale-pass-20250304"
BY_CL2 = [REPORTS / "own-2021-two-nodes", OWN, REPORTS / "telescope-autoscale-pass", CRI, NETPOL]
AT = datetime(2026, 11, 23, 21, 31, 13, tzinfo=UTC)
TIMED_OUT = (
    "measurement call WaitForControlledPodsRunning - WaitForRunningLatencyDeployments error: "
    "1 objects timed out: Deployments: resource-consumer-1/resource-consumer-0-0"
)


def one_file(directory: Path, pattern: str) -> Path:
    [path] = directory.glob(pattern)
    return path


# Reports that were recorded


@pytest.mark.parametrize(
    ("folder", "config_name", "cases", "transitions", "failures", "queries"),
    [
        (CRI.name, "resource-consumer", 11, 5, (TIMED_OUT,), []),
        ("telescope-autoscale-pass", "autoscale", 16, 0, (), []),
        (NETPOL.name, "netpol-scale-test", 32, 0, (), ["Cilium Envoy HTTP Metrics"]),
        ("telescope-network-scale-handmade", "scale-test", 3, 0, (), ["CiliumAvgCPUUsage"]),
        ("telescope-job-scheduling-branch", "", 1, 0, (), []),
        ("own-2021-two-nodes", "imgpull", 5, 5, (), []),
        (OWN.name, "imgpull", 9, 6, (), ["ImagePullThroughput"]),
    ],
)
def test_every_recorded_report_is_read(
    folder: str,
    config_name: str,
    cases: int,
    transitions: int,
    failures: tuple[str, ...],
    queries: list[str],
) -> None:
    report = cl2.read_report(REPORTS / folder)
    assert report.junit is not None
    assert report.config_name == config_name
    assert len(report.junit.cases) == cases
    assert len(report.pod_startup) == transitions
    assert report.failures == failures
    assert [query.metric_name for query in report.queries] == queries


def test_the_failed_report_says_what_failed_and_which_pods() -> None:
    report = cl2.read_report(CRI)
    assert report.junit is not None
    failed = [case for case in report.junit.cases if case.failures]
    assert [(c.step_index, c.measurement_index, c.identifier) for c in failed] == [
        (3, 0, "WaitForRunningLatencyDeployments")
    ]
    assert failed[0].step_name == "Waiting for latency pods to be running"
    assert report.pod_startup["pod_startup"]["Perc99"] == 5.980228751
    assert len(report.failed_pods) == 14
    assert report.failed_pods[0] == cl2.FailedPod(
        "resource-consumer-1",
        "resource-consumer-1/resource-consumer-0-0",
        "resource-consumer-0-0-79cd584f9d-qwkbw",
        "",
        "PendingNotScheduled",
    )
    assert report.resource_usage == (
        "ResourceUsageSummary_resource-consumer_2025-05-03T17:16:07Z.json",
    )


def test_the_2026_report_holds_rows_queries_and_a_window_around_the_run() -> None:
    report = cl2.read_report(OWN)
    [result] = report.queries
    assert (result.unit, result.version) == ("MB/s", "v1")
    [(labels, data)] = result.rows
    assert not labels
    assert data["mean17"] == 64.37021684904175
    assert "absent" not in data
    assert report.query_text("ImagePullThroughput", "absent") == "sum(rate(no_such_metric[%v]))"
    assert report.query_text("ImagePullThroughput", "other") is None
    window = report.window()
    assert window is not None
    # From run.log: the test ran from 21:31:08 to 21:31:39.
    assert window[0] <= datetime(2026, 11, 23, 21, 31, 8, tzinfo=UTC)
    assert window[1] >= datetime(2026, 11, 23, 21, 31, 39, tzinfo=UTC)
    assert window[1] - window[0] < timedelta(seconds=60)


@pytest.mark.parametrize("directory", BY_CL2, ids=lambda path: path.name)
def test_a_junit_that_cl2_wrote_is_written_again_byte_for_byte(
    directory: Path, tmp_path: Path
) -> None:
    write_junit(tmp_path / "junit.xml", read_junit(directory / "junit.xml"))
    assert (tmp_path / "junit.xml").read_bytes() == (directory / "junit.xml").read_bytes()


@pytest.mark.parametrize("directory", [OWN, NETPOL], ids=lambda path: path.name)
def test_a_query_file_that_cl2_wrote_is_written_again_byte_for_byte(
    directory: Path, tmp_path: Path
) -> None:
    report = cl2.read_report(directory)
    [result] = report.queries
    at = datetime.fromisoformat(result.file.removesuffix(".json").rpartition("_")[2])
    writer = cl2.ReportWriter(tmp_path, report.config_name, "config.yaml")
    writer.query(result.metric_name, result.version, result.unit, result.rows, at)
    assert (tmp_path / result.file).read_bytes() == (directory / result.file).read_bytes()


def test_failed_pods_are_written_again_byte_for_byte(tmp_path: Path) -> None:
    recorded = one_file(CRI, "*failedpods*")
    at = datetime(2025, 5, 3, 17, 14, 27, tzinfo=UTC)
    writer = cl2.ReportWriter(tmp_path, "resource-consumer", "config.yaml")
    writer.failed_pods(cl2.read_report(CRI).failed_pods, at)
    assert (tmp_path / recorded.name).read_bytes() == recorded.read_bytes()


@pytest.mark.parametrize("prefix", ["", "Stateless", "Stateful"])
def test_pod_startup_from_the_pods_in_the_log_is_what_cl2_reported(
    prefix: str, tmp_path: Path
) -> None:
    samples = {
        match[1]: [parse_duration(text) for text in re.findall(r"\{\S+ (\S+)\}", match[2])]
        for match in re.finditer(r"worst (\w+) latencies: \[(.*)\]", (OWN / "run.log").read_text())
    }
    cl2.ReportWriter(tmp_path, "imgpull", "c").pod_startup("PodStartupLatency", samples, AT)
    recorded = one_file(OWN, f"{prefix}PodStartupLatency_*")
    written = (tmp_path / recorded.name).read_text()

    def items(text: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(text)["dataItems"]
        return sorted(found, key=lambda item: str(item["labels"]))  # CL2's order is random

    assert items(written) == items(recorded.read_text())
    assert sorted(written.splitlines()) == sorted(recorded.read_text().splitlines())


# Reports that are unusual


def write_perf_data(directory: Path, name: str, items: Any) -> None:
    (directory / name).write_text(json.dumps({"version": "1.0", "dataItems": items}))


def latency(metric: str, **data: float) -> dict[str, Any]:
    return {"data": data, "unit": "ms", "labels": {"Metric": metric}}


def test_no_samples_and_missing_percentiles_and_offsets_are_tolerated(tmp_path: Path) -> None:
    write_perf_data(tmp_path, "GenericPrometheusQuery A B_t_2026-01-02T03:04:05+02:00.json", None)
    write_perf_data(
        tmp_path,
        "PodStartupLatency_P_t_2026-01-02T03:04:06+02:00.json",
        [latency("pod_startup", Perc50=1500)],
    )
    report = cl2.read_report(tmp_path)
    assert [(q.metric_name, q.rows) for q in report.queries] == [("A B", ())]
    assert report.pod_startup == {"pod_startup": {"Perc50": 1.5}}
    assert report.config_name == "t"
    assert [at.astimezone(UTC).hour for at in report.summaries_at] == [1, 1]
    assert report.junit is None
    assert report.window() is None
    assert report.failures == ()


def test_a_test_name_with_underscores_is_known_from_the_generated_config(tmp_path: Path) -> None:
    (tmp_path / "generatedConfig_my_test.yaml").write_text("name: my_test\nsteps: []\n")
    write_perf_data(tmp_path, "GenericPrometheusQuery A_my_test_2026-01-02T03:04:05Z.json", [])
    report = cl2.read_report(tmp_path)
    assert (report.config_name, report.queries[0].metric_name) == ("my_test", "A")


def test_zero_latency_means_that_no_pod_ran(tmp_path: Path) -> None:
    writer = cl2.ReportWriter(tmp_path, "t", "c")
    writer.pod_startup("P", {"create_to_schedule": [0.5]}, AT)
    assert cl2.read_report(tmp_path).pod_startup == {
        "create_to_schedule": {"Perc50": 0.5, "Perc90": 0.5, "Perc99": 0.5}
    }
    writer.pod_startup("P", {}, AT)
    assert cl2.read_report(tmp_path).pod_startup == {}


def test_an_infinite_sample_leaves_no_file(tmp_path: Path) -> None:
    writer = cl2.ReportWriter(tmp_path, "t", "c")
    with pytest.raises(ValueError, match=r"json: unsupported value: \+Inf$"):
        writer.query("M", "v1", "s", [({}, {"q": math.inf})], AT)
    assert not list(tmp_path.glob("Generic*"))


def test_no_row_at_all_is_null_as_in_go(tmp_path: Path) -> None:
    cl2.ReportWriter(tmp_path, "t", "c").query("M", "v1", "s", [], AT)
    written = one_file(tmp_path, "GenericPrometheusQuery M_t_2026-11-23T21:31:13Z.json").read_text()
    assert written == '{\n  "version": "v1",\n  "dataItems": null\n}\n'


def test_unlike_failures_are_shown_once_and_a_wordless_one_still_counts(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(
        '<testsuites><testsuite time="3"><testcase name="t overall (c)" time="2">'
        "<failure>:0\n[a\nb]\n:0</failure></testcase>"
        '<testcase name="t: [step: 01] s" time="1"><failure type="Failure">:0\n[b]\n:0</failure>'
        '</testcase><testcase name="t: [step: 02] s"><error message="boom"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert cl2.read_report(tmp_path).failures == ("a", "b", "boom")


Q = "GenericPrometheusQuery M_t_2026-01-02T03:04:05Z.json"
P = "PodStartupLatency_P_t_2026-01-02T03:04:05Z.json"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("junit.xml", "<html></html>", "junit.xml: the root is <html>"),
        ("junit.xml", "<testsuite", "junit.xml: cannot be read"),
        ("junit.xml", '<testsuite time="soon"/>', "junit.xml: 'soon' is no time"),
        (
            "junit.xml",
            '<testsuite><testcase name="a overall"/><testcase name="b overall"/></testsuite>',
            "junit.xml: holds 2 tests: a, b",
        ),
        (Q, "{", f"{Q}: not JSON"),
        (Q, "[]", f"{Q}: no dataItems"),
        (Q, '{"dataItems": 3}', f"{Q}: dataItems is no list"),
        (Q, '{"dataItems": [{"data": {"q": "1"}}]}', f"{Q}: dataItems[0] holds no numbers"),
        (Q, '{"dataItems": [{"data": {}, "labels": 1}]}', f"{Q}: dataItems[0] has no map"),
        (P, '{"dataItems": [{"data": {}, "unit": "ms"}]}', f"{P}: an item with metric None"),
        (
            P,
            '{"dataItems": [{"data": {}, "unit": "s", "labels": {"Metric": "x"}}]}',
            f"{P}: an item with metric x and unit 's', not ms",
        ),
        (P.replace(":", "-"), "{}", "the name does not end in"),
        (P.replace("01-02", "13-02"), "{}", "is no RFC 3339 time"),
        ("generatedConfig_t.yaml", "a: [", "generatedConfig_t.yaml: not YAML"),
        ("generatedConfig_t.yaml", "3", "generatedConfig_t.yaml: not a mapping"),
        (
            "WaitForControlledPodsRunning_1_failedpods_t_2026-01-02T03:04:05Z.json",
            "{}",
            "not a list of pods",
        ),
    ],
)
def test_an_unknown_shape_is_refused_by_the_name_of_its_file(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ReportError, match=re.escape(message)) as caught:
        cl2.read_report(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("second", [P.replace("05Z", "06Z"), "generatedConfig_u.yaml"])
def test_two_runs_in_one_directory_are_refused(second: str, tmp_path: Path) -> None:
    write_perf_data(tmp_path, P, [])
    (tmp_path / "generatedConfig_t.yaml").write_text("name: t\n")
    (tmp_path / second).write_text('{"dataItems": []}')
    with pytest.raises(ReportError, match=re.escape(second)):
        cl2.read_report(tmp_path)


def test_a_missing_report_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such report directory"):
        cl2.read_report(tmp_path / "absent")


# What is written reads back

# No control characters, and nothing that CL2's names use as marks.
WORDS = st.text(
    st.characters(min_codepoint=32, exclude_characters="/[]()_", exclude_categories=["C"]),
    min_size=1,
    max_size=12,
)
NAMES = WORDS.filter(lambda text: text == text.strip())
NANOSECONDS = st.integers(0, 10**13).map(lambda ns: ns / 1e9)
FAILURES = st.lists(
    st.text("ab :<>&\"'µ[]", min_size=1, max_size=20).filter(str.strip), max_size=3
).map(tuple)


@st.composite
def junits(draw: st.DrawFn) -> cl2.Junit:
    name = draw(NAMES)
    cases: list[cl2.Case] = []
    for index in range(1, draw(st.integers(1, 3)) + 1):
        step, calls = draw(st.one_of(st.just(""), NAMES)), draw(st.integers(0, 2))
        if not calls:
            cases.append(step_case(name, index, step, draw(NANOSECONDS), draw(FAILURES)))
        cases += [
            step_case(name, index, step, draw(NANOSECONDS), draw(FAILURES), (i, draw(NAMES)))
            for i in range(calls)
        ]
    milliseconds = draw(st.integers(0, 10**8))
    overall = draw(NANOSECONDS)
    return cl2.Junit(name, "c.yaml", milliseconds / 1000, overall, draw(FAILURES), tuple(cases))


@settings(max_examples=60, deadline=None)
@given(junit=junits())
def test_a_written_junit_reads_back_the_same(
    junit: cl2.Junit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("j") / "junit.xml"
    write_junit(path, junit)
    assert read_junit(path) == junit
    failed = sum(map(bool, [junit.overall_failures, *(case.failures for case in junit.cases)]))
    assert f'tests="0" failures="{failed}" errors="0"' in path.read_text()


ROWS = st.lists(
    st.tuples(
        st.dictionaries(NAMES, WORDS, max_size=2),
        st.dictionaries(NAMES, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    ),
    max_size=3,
).map(tuple)
SAMPLES = st.fixed_dictionaries(
    {name: st.lists(st.integers(1, 10**12).map(lambda ns: ns / 1e9), min_size=1, max_size=5)
     for name in cl2.TRANSITIONS}
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(name=NAMES, metric=NAMES, rows=ROWS, samples=SAMPLES)
def test_a_written_report_reads_back_the_same(
    name: str,
    metric: str,
    rows: tuple[Any, ...],
    samples: dict[str, list[float]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("r")
    pods = (cl2.FailedPod("ns-1", "ns-1/d-0", "d-0-x", "", "PendingScheduled"),)
    writer = cl2.ReportWriter(directory, name, "bundle/image-pull.yaml")
    writer.pod_startup("PodStartup", samples, AT)
    writer.query(metric, "v1", "s", rows, AT + timedelta(minutes=1))
    writer.failed_pods(pods, AT)
    writer.phase_step("create", 0.25)
    writer.measurement_step("wait", [("Wait", 3.5, ["late"]), ("Other", 1.0, ())])
    junit = writer.finish(9.5, failures=["namespace"])
    report = cl2.read_report(directory)
    assert report.config_name == name
    assert report.junit == junit
    assert report.failures == ("namespace", "late")
    assert report.pod_startup == {key: cl2.percentiles(value) for key, value in samples.items()}
    assert [(query.metric_name, query.rows) for query in report.queries] == [(metric, rows)]
    assert report.failed_pods == pods
    assert report.window() == (
        AT + timedelta(minutes=1) - timedelta(seconds=10.5), AT + timedelta(seconds=10.5)
    )  # fmt: skip


@given(
    values=st.lists(st.floats(0, 1e6), min_size=1, max_size=300).map(sorted),
    p=st.sampled_from([1, 50, 90, 99, 99.9, 100]),
)
def test_nearest_rank_is_a_sample_that_p_percent_do_not_exceed(
    values: list[float], p: float
) -> None:
    rank = cl2.nearest_rank(values, p)
    assert rank in values
    share = sum(value <= rank for value in values) / len(values)
    assert share >= p / 100 - 1e-12
    below = sum(value < rank for value in values) / len(values)
    assert below < p / 100


def test_nearest_rank_of_ten_is_the_fifth_ninth_and_last() -> None:
    ten = [float(n) for n in range(1, 11)]
    assert [cl2.nearest_rank(ten, p) for p in (50, 90, 99)] == [5, 9, 10]
    assert cl2.nearest_rank([], 99) == 0
    assert cl2.percentiles([2.0, -1.0]) == {"Perc50": 0.0, "Perc90": 2.0, "Perc99": 2.0}
    with pytest.raises(ValueError, match="p=0"):
        cl2.nearest_rank(ten, 0)


# CL2's words


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_go_numbers_read_back(value: float) -> None:
    assert float(wording.go_number(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.0, "4"), (1e6, "1e+06"), (999999, "999999"), (1234567.5, "1.2345675e+06"),
        (0.0001, "0.0001"), (8.803e-06, "8.803e-06"), (0, "0"), (-3.5, "-3.5"),
        (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_numbers_look_as_go_prints_them(value: float, text: str) -> None:
    assert wording.go_number(value) == text  # checked against Go 1.26


def test_failures_are_in_cl2s_words() -> None:
    timed_out = wording.objects_timed_out(
        "Deployment", ["resource-consumer-1/resource-consumer-0-0"]
    )
    assert (
        wording.call_error(
            "WaitForControlledPodsRunning", "WaitForRunningLatencyDeployments", timed_out
        )
        == TIMED_OUT
    )
    limit = {"Perc50": 5.0, "Perc90": 5.0, "Perc99": 5.0}
    assert wording.pod_startup_violation({"Perc50": 1, "Perc90": 5, "Perc99": 7}, limit) == (
        "pod startup: too high latency 99th percentile: got 7s expected: 5s"
    )
    assert wording.pod_startup_violation(limit, limit) is None
    upper = cl2.Query("q", "x", 2.0, require_samples=True)
    lower = cl2.Query("q", "x", 2.0, lower_bound=True)
    above = "q: sample above threshold: want: less or equal than 2, got: 2.5"
    assert wording.sample_violation(upper, 2.5) == above
    assert wording.sample_violation(upper, 2.0) is None
    below = "q: sample below threshold: want: greater or equal than 2, got: 1.5"
    assert wording.sample_violation(lower, 1.5) == below
    assert wording.sample_violation(lower, 2.0) is None
    assert wording.sample_violation(cl2.Query("q", "x"), 9.0) is None
    missing = "q: query returned no samples for M"
    assert wording.no_samples("M", upper) == missing
    assert wording.no_samples("M", lower) is None
    assert wording.query_violations("M", [missing, above]) == f"M: [{missing} {above}]"
    assert wording.too_many_samples(upper, ["a", "b"], 1.0, 2.0) == (
        "q: too many samples for [a b]: query returned 1 and 2, expected single value."
    )
    assert wording.wrong_object_count("Deployment", 1, 2) == (
        "incorrect objects number: 1/2 Deployments are running with all pods"
    )
