"""generatedConfig_<name>.yaml: the compiled test as CL2 dumps it.

Hides the dump's dialect: lower-cased keys, modules flattened, durations as integer nanoseconds and
every field of CL2's structures present. It is for reading, not for running again.
Shape recorded from perf-tests 4b34154, see tests/data/cl2-reports.
"""

from typing import Any

import yaml

from imgpull.cl2.measurements import MeasurementCall
from imgpull.cl2.testconfig import LOADS, ObjectBundle, Phase, Step, TestConfig, TuningSet
from imgpull.units import parse_duration

_NO_MODULE = {"path": "", "params": {}}


def generated_config(test: TestConfig, namespace_prefix: str | None = None) -> str:
    """The dump of a test, under the namespace prefix that the engine really used."""
    data = {
        "name": test.name,
        "dependencies": [],
        "automanagednamespaces": 0,
        "namespace": {
            "number": test.namespace_number,
            "prefix": test.namespace_prefix if namespace_prefix is None else namespace_prefix,
            "deletestalenamespaces": test.delete_stale_namespaces,
            "deleteautomanagednamespaces": test.delete_automanaged_namespaces,
            "enableexistingnamespaces": test.enable_existing_namespaces,
            "deletenamespacetimeout": _nanoseconds(test.delete_namespace_timeout),
        },
        "steps": [_step(step) for step in test.steps],
        "tuningsets": [_tuning_set(tuning_set) for tuning_set in test.tuning_sets.values()],
        "chaosmonkey": {"nodefailure": None, "excludednodes": {}},
    }
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes as Go's yaml.v2: no references, and double quotes where a string needs any."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        string = "tag:yaml.org,2002:str"
        resolve: Any = self.resolve
        plain = resolve(yaml.ScalarNode, data, (True, False)) == string
        return self.represent_scalar(string, data, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_str)


def _step(step: Step) -> dict[str, Any]:
    return {
        "phases": [_phase(phase) for phase in step.phases],
        "measurements": [_measurement(call) for call in step.measurements],
        "module": _NO_MODULE,
        "name": step.name,
    }


def _measurement(call: MeasurementCall) -> dict[str, Any]:
    return {
        "method": call.method,
        "params": _sorted(call.params),
        "identifier": call.identifier,
        "instances": [],
    }


def _phase(phase: Phase) -> dict[str, Any]:
    span = None
    if phase.namespace_min is not None:
        span = {
            "min": phase.namespace_min,
            "max": phase.namespace_max,
            "basename": phase.namespace_basename,
        }
    return {
        "namespacerange": span,
        "namespacelist": list(phase.namespace_list),
        "replicaspernamespace": phase.replicas_per_namespace,
        "tuningset": phase.tuning_set,
        "objectbundle": [_object(bundle) for bundle in phase.objects],
    }


def _object(bundle: ObjectBundle) -> dict[str, Any]:
    return {
        "basename": bundle.basename,
        "objecttemplatepath": bundle.template,
        "templatefillmap": _sorted(bundle.fill),
        "listunknownobjectoptions": None,
    }


def _tuning_set(tuning_set: TuningSet) -> dict[str, Any]:
    params = {
        name.lower(): _nanoseconds(value) if isinstance(value, str) else _short(value)
        for name, value in tuning_set.params.items()
    }
    loads = {kind.lower(): params if kind == tuning_set.kind else None for kind in _GO_ORDER}
    return {"name": tuning_set.name, "initialdelay": 0, **loads}


# The order of the fields in CL2's struct.
_GO_ORDER = tuple(LOADS)


def _nanoseconds(duration: str) -> int:
    return round(parse_duration(duration) * 1e9)


def _short(value: float) -> float:
    """Whole floats without a decimal point, as Go prints them."""
    return int(value) if value == int(value) else value


def _sorted(value: Any) -> Any:
    """Maps by key, as Go's YAML writes them."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
