"""What a trial's files say: pulls, measurements and a verdict, one code path for every engine."""

from dataclasses import dataclass
from pathlib import Path

from imgpull import cl2
from imgpull.engines import Outcome, Subject
from imgpull.results.flags import write_flags
from imgpull.results.measure import measurements
from imgpull.results.pull_rows import pull_rows
from imgpull.results.pulls_file import write_pulls
from imgpull.results.record import write_measurements
from imgpull.results.seen import read_events, read_pods, read_rates
from imgpull.results.verdict import judge


@dataclass(frozen=True)
class Assessment:
    """What a finished trial is worth."""

    verdict: str
    reasons: tuple[str, ...]
    slo: str


def assess(directory: Path, subject: Subject, outcome: Outcome) -> Assessment:
    """Read what an engine left, write pulls.csv, measurements.csv and flags.csv, and judge.

    ReportError when a file has a shape that this version does not know.
    """
    report = cl2.read_report(directory / "report")
    pods = read_pods(directory / "pods.csv")
    rates = read_rates(directory / "series.csv")
    rows = pull_rows(
        read_events(directory / "events.jsonl"),
        pods,
        rates,
        subject,
        started_at=outcome.started_at,
        namespaces=_namespaces(report),
        held=outcome.held,
    )
    write_pulls(directory / "pulls.csv", rows)
    found = measurements(subject, report, rows, pods)
    write_measurements(directory, found)
    verdict = judge(subject, report, rows, pods, found, outcome.remarks, rates)
    write_flags(directory / "flags.csv", verdict.flags)
    return Assessment(verdict.verdict, verdict.reasons, verdict.slo)


def _namespaces(report: cl2.Report) -> tuple[str, ...]:
    """How the test's own namespaces begin, where the report names them."""
    generated = report.generated or {}
    names = {(generated.get("namespace") or {}).get("prefix")}
    for step in generated.get("steps") or []:
        for phase in step.get("phases") or []:
            names.add((phase.get("namespacerange") or {}).get("basename"))
    return tuple(sorted(f"{name}-" for name in names if name))
