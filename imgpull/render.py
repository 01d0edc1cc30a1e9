"""A Job and the templates become a bundle: concrete ClusterLoader2 YAML, checked before it is used.

Hides Jinja2 and its delimiters (`<%= %>`, `<% %>`), chosen so that any CL2 file, whose own language
is Go's `{{ }}`, can be pasted into templates/ unchanged. Values reach YAML quoted as JSON, which
YAML contains, so that no value can add structure. The bundle is pure: it names no sweep or trial.
"""

import functools
import hashlib
import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgpull import exporters, units
from imgpull.cl2 import TestConfig, load_test, object_manifest, prometheus_queries
from imgpull.cl2.places import read_yaml
from imgpull.config.job import EMPTY, MEASURED_LABEL, Job, scrape_room_s
from imgpull.config.readymade import OVERRIDES as OVERRIDES
from imgpull.config.readymade import TEST_CONFIG as TEST_CONFIG
from imgpull.errors import ConfigError, RenderError

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

# What an engine is given. Measurement templates are included in image-pull.yaml.
FILES = (TEST_CONFIG, "deployment.yaml", OVERRIDES)


@dataclass(frozen=True)
class Bundle:
    """A test: a directory that holds its files and nothing else."""

    directory: Path
    sha256: str

    @property
    def test_config(self) -> Path:
        """The file that CL2's --testconfig names."""
        return self.directory / TEST_CONFIG


def render(job: Job, templates: Path = TEMPLATES) -> dict[str, str]:
    """File name -> text of this job's bundle; RenderError names template and line."""
    if job.ready_made is not None:
        return dict(job.ready_made)
    environment = _environment(templates)
    context = _context(job)
    return {name: _render_file(environment, name, context) for name in FILES}


def write(files: Mapping[str, str], directory: Path) -> Bundle:
    """Write a rendered bundle."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return Bundle(directory, bundle_sha256(files))


def bundle_sha256(files: Mapping[str, str]) -> str:
    """The content hash of a bundle: names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{files[name]}\0".encode())
    return digest.hexdigest()


def read(bundle: Bundle) -> dict[str, str]:
    """File name -> text of a written bundle."""
    files: dict[str, str] = {}
    for path in sorted(bundle.directory.iterdir()):
        try:
            files[path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RenderError(f"{path}: {error}", hint="run the trial again") from error
    return files


def check(files: Mapping[str, str], templates: Path = TEMPLATES) -> None:
    """Load the bundle as CL2 would and parse every query; RenderError names file, line and fix.

    A query that does not parse costs CL2 fifteen minutes of retries, a broken file a cluster.
    """
    try:
        test = load(files)
        for phase in (phase for step in test.steps for phase in step.phases):
            for bundled in phase.objects:
                object_manifest(bundled, 0, "namespace")
    except RenderError as error:
        raise _traced(error, files, templates) from error
    for call in (call for step in test.steps for call in step.measurements):
        if call.method == "GenericPrometheusQuery" and call.action == "start":
            where = f"{call.file}:{call.line}: {call.identifier}"
            for query in prometheus_queries(call).queries:
                check_query(query.query, f"{where}/{query.name}")


def load(files: Mapping[str, str]) -> TestConfig:
    """The test of a bundle; RenderError names file, line and fix."""
    return _loaded(tuple(files.items()))


@functools.lru_cache(maxsize=2)  # a bundle is checked by two, one after the other
def _loaded(items: tuple[tuple[str, str], ...]) -> TestConfig:
    files = dict(items)
    return load_test(Path(TEST_CONFIG), overrides(files), files)


def overrides(files: Mapping[str, str]) -> Mapping[str, Any]:
    """What --testoverrides gives to every template of the test."""
    if OVERRIDES not in files:
        raise RenderError(f"the bundle lacks {OVERRIDES}", hint=f"restore templates/{OVERRIDES}")
    return _overrides(files[OVERRIDES])


@functools.lru_cache(maxsize=2)  # the same in nearly all cells of a matrix
def _overrides(text: str) -> Mapping[str, Any]:
    return read_yaml(text, OVERRIDES).mapping()


def _traced(error: RenderError, files: Mapping[str, str], templates: Path) -> RenderError:
    """The error with the rendered line that it names, and where in templates/ that line stands."""
    place = re.match(r"([\w.-]+):(\d+): ", error.message)
    lines = files.get(place[1], "").splitlines() if place else []
    if not place or not lines:
        return RenderError(error.message, hint=error.hint)
    line = lines[min(int(place[2]), len(lines)) - 1].strip()
    origins = [
        f"templates/{path.name}:{number}"
        for path in sorted(templates.iterdir())
        for number, text in enumerate(path.read_text("utf-8").splitlines(), 1)
        if text.strip() == line
    ]
    return RenderError(
        f"{error.message}\n  {place[2]} | {line}",
        hint=f"{error.hint} The line comes from {' or '.join(origins) or 'templates/'}.",
    )


@functools.cache
def check_query(query: str, where: str) -> None:
    """RenderError when Prometheus could not parse the query; `%v` stands for CL2's window."""
    import promql_parser

    try:
        promql_parser.parse(query.replace("%v", "600s"))
    except ValueError as error:
        raise RenderError(
            f"{where}: {str(error).strip()}: {query}", hint="correct the query in templates/"
        ) from error


@functools.cache
def _environment(templates: Path) -> "Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        auto_reload=False,  # a look at each file for each cell
        undefined=jinja2.StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<%=",
        variable_end_string="%>",
        comment_start_string="<%#",
        comment_end_string="%>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # YAML, not HTML: the `yaml` filter quotes
    )
    environment.filters["yaml"] = _yaml
    return environment


_JSON = json.JSONEncoder(ensure_ascii=False, default=asdict)


def _yaml(value: Any) -> str:
    """A value as JSON, which YAML contains: quoted so that it cannot add structure."""
    import jinja2

    if isinstance(value, jinja2.Undefined):
        str(value)  # raises jinja2's own error, which knows the name
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f").removesuffix(".0")  # YAML reads 1e-05 as text
    text = _JSON.encode(value)
    if "{{" in text:
        raise ConfigError(
            f"{text} carries '{{{{', which ClusterLoader2 would read as a template",
            hint="leave '{{' out of configuration values",
        )
    if isinstance(value, str) and '"' in value and value.isprintable():
        # A query reads better in single quotes; printable text has no other escape in them.
        return "'" + value.replace("'", "''") + "'"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """YAML's escape of a character that JSON leaves as it is and YAML would refuse or fold."""
    if "\ud800" <= char <= "\udfff":
        raise ConfigError(
            f"a configuration value carries the lone surrogate U+{ord(char):04X}, which is no text",
            hint="write the value in UTF-8",
        )
    return f"\\u{ord(char):04x}" if char <= "\uffff" else f"\\U{ord(char):08x}"


def _context(job: Job) -> dict[str, Any]:
    """The names that templates may use."""
    containerd = job.cluster.containerd_version
    room_s = scrape_room_s(job)
    return {
        "deployments": job.deployments,
        "replicas": job.replicas,
        "qps": job.qps,
        "nodes": job.nodes,
        "cache": job.cache,
        "image": job.image,
        "cluster": job.cluster,
        "pod_startup_threshold": units.format_duration(job.pod_startup_threshold_s),
        "wait_timeout": units.format_duration(job.wait_timeout_s),
        "metrics_wait": units.format_duration(job.metrics_wait_s or room_s),
        "containerd_scrape_interval": units.format_duration(job.containerd_scrape_interval_s),
        # Prometheus refuses a timeout longer than the interval; 10 s is the default of Azure's CL2.
        "containerd_scrape_timeout": units.format_duration(
            min(10.0, job.containerd_scrape_interval_s)
        ),
        "scrape_room": units.format_duration(room_s),
        "pulls_expected": job.cache in EMPTY,
        "throughput_expected": job.cache in EMPTY and exporters.samples_every_pull(containerd),
        "node_selector": {**job.cluster.node_selector, MEASURED_LABEL: "true"},
        "nodes_matcher": f'node=~"{job.cluster.node_prefix.replace(".", "[.]")}.+"',
        "prometheus_node_selector": "".join(
            f"{json.dumps(key)}: {json.dumps(value)}\n"
            for key, value in sorted(job.cluster.prometheus_node_selector.items())
        ),
        "metrics": {
            "kubelet_image_pull": exporters.KUBELET_IMAGE_PULL,
            "kubelet_runtime_operations": exporters.KUBELET_RUNTIME_OPERATIONS,
            "kubelet_runtime_operations_errors": exporters.KUBELET_RUNTIME_OPERATIONS_ERRORS,
            "containerd_throughput": exporters.throughput_metric(containerd),
            "containerd_pulls": exporters.pulls_metric(containerd),
            "network_plugin": exporters.network_plugin_metric(containerd),
        },
    }


def _render_file(environment: "Environment", name: str, context: Mapping[str, Any]) -> str:
    import jinja2

    try:
        return environment.get_template(name).render(context)
    except jinja2.UndefinedError as error:
        raise RenderError(
            f"{_place(error, name)} uses a name that a Job does not have: {error.message}",
            hint=_suggestion(str(error.message), context),
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise RenderError(
            f"templates/{error.name or name}:{error.lineno}: {error.message}",
            hint="Jinja2 here writes <%= value %>, <% block %> and <%# comment %>",
        ) from error
    except jinja2.TemplateNotFound as error:
        present = environment.list_templates()
        close = get_close_matches(str(error.name), present, n=1)
        raise RenderError(
            f"{_place(error, name)} needs templates/{error.name}, which is missing",
            hint=f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(present)}",
        ) from error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise RenderError(f"{_place(error, name)}: {error}", hint="correct the template") from error


def _place(error: Exception, name: str) -> str:
    """Template and line where the error came from, and those that led there, innermost first."""
    trail = [
        f"templates/{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).suffix in (".yaml", ".jinja")
    ]
    place, *callers = list(dict.fromkeys(reversed(trail))) or [f"templates/{name}"]
    return f"{place} (from {', '.join(callers[:3])})" if callers else place


def _suggestion(message: str, context: Mapping[str, Any]) -> str:
    """The name that was meant, or the names that there are."""
    if undefined := re.search(r"'([^']+)' is undefined", message):
        names = set(context)
    else:
        undefined = re.search(r"has no attribute '([^']+)'", message)
        names = set(context["metrics"])
        names |= set(vars(context["image"])) | set(vars(context["cluster"]))
    close = get_close_matches(undefined[1] if undefined else "", sorted(names), n=1)
    return f"did you mean '{close[0]}'?" if close else f"names: {', '.join(sorted(names))}"
