"""Interprets a CL2 test step by step in virtual time, over a simulated cluster.

Hides the clock: steps follow each other, the phases or measurements of one run side by side. What a
phase does is `declared.py`'s and `pacing.py`'s, what becomes of it `lives.py`'s, how measurements
find it `waits.py`'s and `gathered.py`'s.
"""

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from imgpull import cl2
from imgpull.cl2 import wording
from imgpull.engines.sim import files, gathered, waits
from imgpull.engines.sim.declared import Action, BundleError, Declared, namespace_prefix
from imgpull.engines.sim.gathered import EPOCH, Gathered
from imgpull.engines.sim.lives import Lives
from imgpull.engines.sim.pacing import Pacing
from imgpull.simcluster import PodRequest, Trace, World, promql
from imgpull.simcluster.scrape import Exporters


@dataclass
class _Case:
    """One line of junit.xml in the making."""

    identifier: str = ""
    time_s: float = 0.0
    failures: list[str] = field(default_factory=list)


class Interpreter:
    """One trial being interpreted, step by step, in virtual time."""

    def __init__(self, world: World, test: cl2.TestConfig, containerd_interval_s: float) -> None:
        self.clock_s = 0.0
        self._world, self._test, self._interval_s = world, test, containerd_interval_s
        self._prefix = namespace_prefix(test, world)
        self._declared, self._pacing = Declared(), Pacing(world)
        self._lives, self._timers = Lives(world), gathered.Timers()
        self._started: dict[tuple[str, str], tuple[float, cl2.MeasurementCall]] = {}
        self._cases: list[tuple[cl2.Step, list[_Case]]] = []
        self._gathered: list[Gathered] = []
        self._aborted = False
        self._scraped: tuple[tuple[int, float], Exporters] | None = None
        self._memo: promql.Memo = {}  # of what is scraped

    @property
    def pods(self) -> list[PodRequest]:
        """The pods that were asked for so far."""
        return self._lives.pods

    def trace(self) -> Trace:
        """What has happened so far."""
        return self._lives.ended(self.clock_s)

    def step(self, step: cl2.Step) -> None:
        """Run one step: its phases or its measurements side by side; none after a fatal error."""
        if self._aborted:
            return
        cases = [self._phases(step)] if step.phases else self._measurements(step)
        self._cases.append((step, cases))
        self.clock_s += max(case.time_s for case in cases)

    def _phases(self, step: cl2.Step) -> _Case:
        case = _Case()
        planned: list[tuple[cl2.Phase, list[Action]]] = []
        for phase in step.phases:
            try:
                planned.append((phase, self._declared.actions(phase, self._prefix)))
            except BundleError as error:
                case.failures.append(str(error))
        call_s = self._world.rates.api_call_s
        paced = [
            (
                self._test.tuning_sets[phase.tuning_set],
                [sum(change.calls for change in action) * call_s for action in actions],
            )
            for phase, actions in planned
        ]
        tables = self._pacing.timetables(self.clock_s, paced)
        due = [
            (start_s, action)
            for (_, actions), table in zip(planned, tables, strict=True)
            for start_s, action in zip(table.starts_s, actions, strict=True)
        ]
        for start_s, action in sorted(due, key=lambda one: one[0]):
            at_s = start_s
            for change in action:
                self._lives.apply(change, at_s + (change.calls - 1) * call_s)
                at_s += change.calls * call_s
        case.time_s = max((table.end_s - self.clock_s for table in tables), default=0.0)
        return case

    def _measurements(self, step: cl2.Step) -> list[_Case]:
        cases = []
        for _, calls in groupby(step.measurements, key=lambda call: call.entry):
            case = _Case()
            for call in calls:
                case.identifier = "" if call.instance else call.identifier
                found = self._measure(call)
                self._gathered.append(found)
                self._aborted |= found.fatal
                case.time_s = max(case.time_s, found.took_s)
                if found.error:
                    text = wording.call_error(call.method, call.identifier, found.error)
                    case.failures.append(text)
            cases.append(case)
        return cases

    def _measure(self, call: cl2.MeasurementCall) -> Gathered:
        match call.method:
            case "Sleep":
                return Gathered(call.seconds("duration", ""))
            case "Timer":
                return self._timers.call(call, self.clock_s)
            case "WaitForRunningPods":
                return waits.running_pods(call, self.clock_s, self._lives)
            case "WaitForNodes":
                return waits.ready_nodes(call, self.clock_s, self._world, self._lives)
        key = call.method, call.identifier
        if call.action == "start":
            self._started[key] = self.clock_s, call
            return Gathered()
        started_s, start = self._started[key]
        if call.action == "stop":
            return Gathered()
        return self._gather(call, start, started_s)

    def _gather(
        self, call: cl2.MeasurementCall, start: cl2.MeasurementCall, started_s: float
    ) -> Gathered:
        if call.method == "WaitForControlledPodsRunning":
            controlled = waits.ControlledPods(start, started_s, self._lives)
            return controlled.gather(call, self.clock_s)
        if call.method == "GenericPrometheusQuery":
            store, window = self._store(), (started_s, self.clock_s)
            return gathered.queries(start, call, window, store, self._memo)
        trace = self._lives.trace(self.clock_s)
        chosen = start.text("namespace"), start.text("labelSelector")
        pods = self._lives.selected(*chosen, trace)
        return gathered.pod_startup(start, started_s, self.clock_s, pods)

    def _store(self) -> Exporters:
        """What Prometheus holds by now; measurements of one step share it."""
        key = self._lives.version, self.clock_s
        if self._scraped is None or self._scraped[0] != key:
            trace = self._lives.trace(self.clock_s)
            self._scraped = key, Exporters(self._world, trace, 0.0, self.clock_s, self._interval_s)
            self._memo = {}
        return self._scraped[1]

    def finish(self, out: Path) -> cl2.Junit:
        """Write every file; junit.xml comes last of CL2's, and says what its exit code was."""
        report = cl2.ReportWriter(out / "report", self._test.name, self._test.path.name)
        report.generated_config(self._test, self._prefix)
        for found in self._gathered:
            if found.summary:
                found.summary(report)
        for step, cases in self._cases:
            if step.phases:
                report.phase_step(step.name, cases[0].time_s, cases[0].failures)
            else:
                report.measurement_step(
                    step.name, [(case.identifier, case.time_s, case.failures) for case in cases]
                )
        junit = report.finish(self.clock_s)
        trace = self.trace()
        files.write_events(out / "events.jsonl", self._world, trace, EPOCH)
        files.write_pods(out / "pods.csv", trace)
        files.write_series(out / "series.csv", trace)
        return junit
