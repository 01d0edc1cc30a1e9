"""A CL2 test config as data, read with CL2's own rules.

Hides the file format: modules are flattened, instances expanded, keys matched without case, and
what CL2 would refuse (or drop in silence) is refused with file and line.
Source of the rules: perf-tests 4b34154 clusterloader2/api/validation.go.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from imgpull.cl2.folder import Folder
from imgpull.cl2.measurements import SUPPORTED_METHODS, MeasurementCall, read_calls
from imgpull.cl2.places import Place, read_yaml
from imgpull.cl2.templates import fill, render_object
from imgpull.errors import RenderError
from imgpull.units import parse_duration

# Each kind of tuning set with its params, durations as "duration".
LOADS: dict[str, dict[str, str]] = {
    "qpsLoad": {"qps": "number"},
    "randomizedLoad": {"averageQps": "number"},
    "steppedLoad": {"burstSize": "whole", "stepDelay": "duration"},
    "timeLimitedLoad": {"timeLimit": "duration"},
    "randomizedTimeLimitedLoad": {"timeLimit": "duration"},
    "parallelismLimitedLoad": {"parallelismLimit": "whole"},
    "globalQPSLoad": {"qps": "number", "burst": "whole"},
    "poissonLoad": {"expectedActionsPerSecond": "number"},
}

_DNS1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True)
class TuningSet:
    """How fast a phase acts; params have CL2's names, durations as their strings."""

    name: str
    kind: str
    params: dict[str, float | int | str]
    line: int


@dataclass(frozen=True)
class ObjectBundle:
    """One object of a phase: its template's path as written, its text, and its templateFillMap.

    `mapping` are the overrides, which every template sees and the templateFillMap wins over.
    """

    basename: str
    template: str
    text: str
    fill: dict[str, Any]
    mapping: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def file(self) -> str:
        """The name that errors use."""
        return Path(self.template).name


@dataclass(frozen=True)
class Phase:
    """A declared number of objects in a range or list of namespaces, or (neither) cluster-wide."""

    replicas_per_namespace: int
    tuning_set: str
    objects: tuple[ObjectBundle, ...]
    namespace_min: int | None = None
    namespace_max: int | None = None
    namespace_basename: str | None = None
    namespace_list: tuple[str, ...] = ()

    def namespaces(self, prefix: str) -> tuple[str, ...]:
        """The namespaces acted in, in order, when the test's prefix is `prefix`; "" = cluster."""
        if self.namespace_min is None or self.namespace_max is None:
            return self.namespace_list or ("",)
        base = self.namespace_basename or prefix
        return tuple(f"{base}-{i}" for i in range(self.namespace_min, self.namespace_max + 1))


@dataclass(frozen=True)
class Step:
    """Phases or measurements that run in parallel; never both."""

    name: str
    phases: tuple[Phase, ...]
    measurements: tuple[MeasurementCall, ...]
    line: int


@dataclass(frozen=True)
class TestConfig:
    """A whole test; the prefix is empty when CL2 would make up one."""

    name: str
    namespace_number: int
    namespace_prefix: str
    tuning_sets: dict[str, TuningSet]
    steps: tuple[Step, ...]
    path: Path
    delete_stale_namespaces: bool = False
    delete_automanaged_namespaces: bool = True
    enable_existing_namespaces: bool = False
    delete_namespace_timeout: str = "10m"


def load_test(
    path: Path,
    mapping: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> TestConfig:
    """Read a test config and its modules; RenderError names file and line of what is wrong.

    `mapping` is what --testoverrides gives to every template of the test, `files` the texts of its
    directory by name, which is then not read.
    """
    mapping, folder = mapping or {}, Folder(path.parent, files)
    root = read_yaml(fill(folder.text(path.name), mapping, path.name), path.name)
    top = root.fields(
        "name", "namespace", "tuningSets", "steps",
        outside=("dependencies", "automanagedNamespaces", "chaosMonkey"),
    )  # fmt: skip
    name = top["name"].text()
    if not name or "/" in name:
        raise top["name"].invalid(
            name, "must be a part of file names", hint="Give the test a name without '/'."
        )
    namespace = top["namespace"].fields(
        "number", "prefix", "deleteStaleNamespaces", "deleteAutomanagedNamespaces",
        "enableExistingNamespaces", "deleteNamespaceTimeout",
    )  # fmt: skip
    number = namespace["number"].whole(1) or 1
    if number < 0:
        raise namespace["number"].invalid(number, "must be positive", hint="Write 1 or more.")
    tuning_sets: dict[str, TuningSet] = {}
    for place in top["tuningSets"].items():
        tuning_set = _tuning_set(place)
        if tuning_set.name in tuning_sets:
            raise place.invalid(tuning_set.name, "is declared twice", hint="Keep one of them.")
        tuning_sets[tuning_set.name] = tuning_set
    if not top["steps"].items():
        raise top["steps"].invalid(0, "cannot be empty", hint="Write at least one step.")
    reader = _Steps(folder, tuning_sets, number, mapping)
    return TestConfig(
        name,
        number,
        namespace["prefix"].text(),
        tuning_sets,
        tuple(reader.flatten(top["steps"], ())),
        path,
        namespace["deleteStaleNamespaces"].flag(),
        namespace["deleteAutomanagedNamespaces"].flag(True),
        namespace["enableExistingNamespaces"].flag(),
        namespace["deleteNamespaceTimeout"].duration("10m"),
    )


def require_supported(test: TestConfig) -> None:
    """Refuse by name and line what CL2 knows and the simulator does not."""
    for step in test.steps:
        for call in step.measurements:
            if call.method not in SUPPORTED_METHODS:
                raise call.error(
                    f"method '{call.method}' is unknown: the simulator's subset knows "
                    f"{', '.join(sorted(SUPPORTED_METHODS))}",
                    hint="Leave the measurement out, or run with a real engine.",
                )


def object_manifest(bundle: ObjectBundle, index: int, namespace: str) -> Mapping[str, Any]:
    """The manifest of a bundle's object `index` (from 0), its metadata.name set as CL2 does."""
    text = object_text(bundle, index, namespace)
    return _manifest(text, bundle.file, f"{bundle.basename}-{index}")


@lru_cache(maxsize=64)  # tests of one matrix share most of their objects
def _manifest(text: str, file: str, name: str) -> Mapping[str, Any]:
    place = read_yaml(text, file)
    manifest = place.mapping()
    metadata = manifest.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise place.error("metadata is no mapping", hint=f"Mend metadata in {place.file}.")
    metadata["name"] = name
    return manifest


def object_text(bundle: ObjectBundle, index: int, namespace: str) -> str:
    """The same as text, with the name that is written."""
    return render_object(
        bundle.text,
        bundle.file,
        basename=bundle.basename,
        index=index,
        namespace=namespace,
        values={**bundle.mapping, **bundle.fill},
    )


def _tuning_set(place: Place) -> TuningSet:
    fields = place.fields("name", *LOADS, outside=("initialDelay",))
    if not fields["name"].text():
        raise fields["name"].error("Required value: name is required", hint="Name the tuning set.")
    kinds = [kind for kind in LOADS if fields[kind].present]
    if len(kinds) != 1:
        raise place.error(
            "Forbidden: must specify exactly 1 tuning set type", hint=f"One of {', '.join(LOADS)}."
        )
    load = fields[kinds[0]].fields(*LOADS[kinds[0]])
    params: dict[str, float | int | str] = {}
    for name, kind in LOADS[kinds[0]].items():
        value = params[name] = _load_param(load[name], kind)
        if (parse_duration(value) if isinstance(value, str) else value) <= 0:
            raise load[name].invalid(value, "must have positive value", hint="Raise it.")
    return TuningSet(fields["name"].text(), kinds[0], params, place.line)


def _load_param(place: Place, kind: str) -> float | int | str:
    if kind == "duration":
        return place.duration("0s")
    return place.whole() if kind == "whole" else place.number()


@dataclass(frozen=True)
class _Entry:
    """One entry of `steps` as far as it can be read without the rest of the test."""

    name: str
    phases: tuple[Place, ...]
    measurements: tuple[MeasurementCall, ...]
    module: Mapping[str, Place]


@lru_cache(maxsize=256)  # configs of one matrix share most of their steps, see alike.py
def _entry(place: Place) -> _Entry:
    fields = place.fields("name", "phases", "measurements", "module")
    phases, measurements = fields["phases"].items(), fields["measurements"].items()
    module = fields["module"].fields("path", "params")
    if sum(map(bool, (phases, measurements, module["path"].text()))) != 1:
        raise _not_one_of_three(fields, bool(phases), bool(measurements))
    calls = (
        call for index, entry in enumerate(measurements)
        for call in read_calls(entry, index)
    )  # fmt: skip
    return _Entry(fields["name"].text(), tuple(phases), tuple(calls), module)


def _not_one_of_three(fields: dict[str, Place], phases: bool, measurements: bool) -> RenderError:
    reason = "can't be empty with empty phases"
    if phases and measurements:
        reason = "can't be non-empty with non-empty phases"
    elif phases or measurements:
        reason = "can't be non-empty with a module"
    return fields["measurements"].invalid(
        [], reason, hint="A step has exactly one of phases, measurements and module."
    )


class _Steps:
    """Reads the steps of one test, whose files, tuning sets and namespaces they refer to."""

    def __init__(
        self,
        folder: Folder,
        tuning_sets: dict[str, TuningSet],
        namespaces: int,
        mapping: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.tuning_sets = tuning_sets
        self.namespaces = namespaces
        self.mapping = mapping

    def flatten(self, steps: Place, chain: tuple[str, ...]) -> Iterator[Step]:
        """Every step, modules replaced by theirs; `chain` is the modules being read."""
        for place in steps.items():
            entry = _entry(place)
            if entry.phases or entry.measurements:
                phases = tuple(map(self._phase, entry.phases))
                yield Step(entry.name, phases, entry.measurements, place.line)
            else:
                yield from self._module(entry.module, chain)

    def _module(self, module: Mapping[str, Place], chain: tuple[str, ...]) -> Iterator[Step]:
        written = self.folder.require(module["path"])
        if written in chain:
            raise module["path"].invalid(written, "includes itself", hint="Break the circle.")
        # As in CL2, a module sees its own params and the overrides, which they win over, but not
        # the params of the module that names it (pkg/test/modules.go).
        values = {**self.mapping, **module["params"].mapping()}
        root = read_yaml(fill(self.folder.text(written), values, written), written)
        steps = root.fields("steps")["steps"]
        yield from self.flatten(steps, (*chain, written))

    def _phase(self, place: Place) -> Phase:
        fields = place.fields(
            "namespaceRange", "namespaceList", "replicasPerNamespace", "tuningSet", "objectBundle"
        )
        replicas = fields["replicasPerNamespace"].whole()
        if replicas < 0:
            raise fields["replicasPerNamespace"].invalid(
                replicas, "must be non-negative", hint="Write 0 or more."
            )
        tuning_set = fields["tuningSet"].text()
        if tuning_set not in self.tuning_sets:
            raise fields["tuningSet"].invalid(
                tuning_set,
                "tuning set referenced has not been declared",
                hint=f"Declared: {', '.join(self.tuning_sets) or 'none'}.",
            )
        objects = tuple(map(self._object, fields["objectBundle"].items()))
        span, names = fields["namespaceRange"], fields["namespaceList"]
        if span.present and names.present:
            raise place.error(
                "Forbidden: must specify at most 1 of namespaceList and namespaceRange",
                hint="Keep one of them.",
            )
        if not span.present:
            listed = tuple(name.text() for name in names.items())
            return Phase(replicas, tuning_set, objects, namespace_list=listed)
        return Phase(replicas, tuning_set, objects, *self._range(span))

    def _range(self, place: Place) -> tuple[int, int, str | None]:
        fields = place.fields("min", "max", "basename")
        low, high = fields["min"].whole(), fields["max"].whole()
        if low < 0:
            raise fields["min"].invalid(low, "must be non-negative", hint="Write 1.")
        if high < low:
            raise fields["max"].invalid(high, "must be greater than min", hint="Raise max.")
        basename = fields["basename"].text() or None
        if basename is None and not 1 <= low <= high <= self.namespaces:
            # CL2 would find out when it creates the first object.
            raise place.error(
                f"namespaces {low} to {high} are not among the test's 1 to {self.namespaces}",
                hint="Raise namespace.number, or narrow the range.",
            )
        return low, high, basename

    def _object(self, place: Place) -> ObjectBundle:
        fields = place.fields(
            "basename", "objectTemplatePath", "templateFillMap",
            outside=("listUnknownObjectOptions",),
        )  # fmt: skip
        basename = fields["basename"].text()
        if len(basename) > 253 or not _DNS1123.fullmatch(basename):
            raise fields["basename"].invalid(
                basename,
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
                "characters, '-' or '.', and must start and end with an alphanumeric character",
                hint="Write it like image-pull.",
            )
        template = self.folder.require(fields["objectTemplatePath"])
        values = fields["templateFillMap"].mapping()
        text = self.folder.text(template)
        return ObjectBundle(basename, template, text, values, self.mapping, place.line)
