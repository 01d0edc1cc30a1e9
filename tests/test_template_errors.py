"""Laws of broken templates: the error names file and line, shows the text and says what to do."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imgpull import engines, render
from imgpull.config import job as jobs
from imgpull.errors import RenderError

MakeJob = Callable[..., jobs.Job]


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A copy of templates/ to break."""
    return shutil.copytree(render.TEMPLATES, tmp_path / "templates")


def line_of(text: str, needle: str) -> int:
    """The number of the line on which the needle begins."""
    return text[: text.index(needle)].count("\n") + 1


def broken(
    templates: Path, file: str, old: str, new: str, job: jobs.Job
) -> tuple[RenderError, int]:
    """The error of a template with one mistake, and the mistake's line."""
    path = templates / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RenderError) as caught:
        render.check(render.render(job, templates), templates)
    assert caught.value.__cause__ is not None
    return caught.value, line_of(path.read_text(), new)


IN_JINJA = [
    ("image-pull.yaml", "<%= qps | yaml", "<%= qp | yaml",
     " uses a name that a Job does not have: 'qp' is undefined", "did you mean 'qps'?"),
    ("image-pull.yaml", "<%= wait_timeout | yaml %>", "<%= wait_timout %>",
     " uses a name that a Job does not have: 'wait_timout' is undefined",
     "did you mean 'wait_timeout'?"),
    ("deployment.yaml", "cluster.tolerations", "cluster.toleratons",
     " uses a name that a Job does not have: 'imgpull.config.schema.Cluster object' has no "
     "attribute 'toleratons'", "did you mean 'tolerations'?"),
    ("containerd-measurements.yaml", "<% if metrics.containerd_throughput",
     "<% if metrics.containerd_throughputs",
     " uses a name that a Job does not have: 'dict object' has no attribute "
     "'containerd_throughputs'", "did you mean 'containerd_throughput'?"),
    ("image-pull.yaml", "<%= qps | yaml", "<%= zzz | yaml",
     " uses a name that a Job does not have: 'zzz' is undefined", "names: cache, cluster,"),
    ("deployment.yaml", "<% if image.args %>", "<% iff image.args %>",
     ": Encountered unknown tag 'iff'.", "Jinja2 here writes <%= value %>"),
    ("kubelet-measurements.yaml", "| yaml %>", "| yml %>",
     ": No filter named 'yml'.", "Jinja2 here writes <%= value %>"),
    ("image-pull.yaml", '<% include "kubelet-measurements.yaml" %>',
     '<% include "kubelet-measurement.yaml" %>',
     " needs templates/kubelet-measurement.yaml, which is missing",
     "did you mean 'kubelet-measurements.yaml'?"),
    ("queries.jinja", "(<%= selector %> offset", "(<%= selectr %> offset",
     " uses a name that a Job does not have: 'selectr' is undefined",
     "did you mean 'node_selector'?"),
    ("image-pull.yaml", "<%= qps | yaml", "<%= qps + cache | yaml",
     ": unsupported operand type(s) for +: 'float' and 'str'", "correct the template"),
    ("image-pull.yaml", "<%= qps | yaml", "<%= (qps / 0) | yaml",
     ": float division by zero", "correct the template"),
    ("deployment.yaml", "<%= replicas | yaml", "<%= replicas.real.imag.foo.bar | yaml",
     " uses a name that a Job does not have: ", "names: "),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "message", "hint"), IN_JINJA)
def test_a_mistake_in_a_template_is_named_with_file_line_and_remedy(
    templates: Path, job: MakeJob, file: str, old: str, new: str, message: str, hint: str
) -> None:
    error, line = broken(templates, file, old, new, job())
    place, _, trail = error.message.partition(" (from templates/")
    said = place + (trail[trail.index(")") + 1 :] if trail else "")
    assert said.startswith(f"templates/{file}:{line}{message}")
    assert error.hint.startswith(hint)


def test_a_mistake_below_others_is_named_with_the_lines_that_led_there(
    templates: Path, job: MakeJob
) -> None:
    old, new = "metrics.kubelet_image_pull,", "metrics.kubelet_image_pul,"
    error, line = broken(templates, "kubelet-measurements.yaml", old, new, job())
    include = '<% include "kubelet-measurements.yaml" %>'
    included = line_of((templates / "image-pull.yaml").read_text(), include)
    assert re.match(  # Jinja2 finds out where the macro uses what it was given
        rf"templates/queries\.jinja:\d+ \(from templates/kubelet-measurements\.yaml:{line}, "
        rf"templates/image-pull\.yaml:{included}\) uses a name that a Job does not have",
        error.message,
    )
    assert error.hint == "did you mean 'kubelet_image_pull'?"


def test_a_template_that_is_gone_is_named(templates: Path, job: MakeJob) -> None:
    (templates / "deployment.yaml").unlink()
    with pytest.raises(RenderError, match=r"needs templates/deployment\.yaml, which is missing"):
        render.render(job(), templates)


IN_YAML = [
    ("image-pull.yaml", "    tuningSet: Creation", "    tuningSet: Creation: x", "image-pull.yaml",
     "not YAML: mapping values are not allowed"),
    ("image-pull.yaml", "    tuningSet: Creation", "    tunningSet: Creation", "image-pull.yaml",
     "unknown key 'tunningSet'"),
    ("image-pull.yaml", "    tuningSet: Creation", "    tuningSet: Created", "image-pull.yaml",
     'Invalid value: "Created": tuning set referenced has not been declared'),
    ("image-pull.yaml", "  action: start\n      apiVersion", "  action: begin\n      apiVersion",
     "image-pull.yaml", "unknown action begin"),
    ("kubelet-measurements.yaml", "      metricVersion: v1", "      metricVersoin: v1",
     "image-pull.yaml", "unknown key 'metricVersoin'"),
    ("containerd-measurements.yaml", "threshold: 0", "treshold: 0", "image-pull.yaml",
     "unknown key 'treshold'"),
    ("deployment.yaml", "      automountServiceAccountToken: false",
     "       automountServiceAccountToken: false", "deployment.yaml", "not YAML: "),
    ("deployment.yaml", "kind: Deployment", 'kind: "{{.Name}}"', "deployment.yaml",
     "kind must be a literal"),
    ("deployment.yaml", 'name: "{{.Name}}"', 'name: "{{.Nmae}}"', "deployment.yaml",
     "nothing gives '{{.Nmae}}' a value"),
    ("overrides.yaml", "CL2_PROMETHEUS_PVC_ENABLED:", "CL2_PROMETHEUS_PVC_ENABLED",
     "overrides.yaml", "not YAML: "),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "rendered", "message"), IN_YAML)
def test_a_mistake_in_the_rendered_test_is_named_with_its_line_and_that_line_s_text(
    templates: Path, job: MakeJob, file: str, old: str, new: str, rendered: str, message: str
) -> None:
    error, _ = broken(templates, file, old, new, job())
    place = re.match(rf"{re.escape(rendered)}:(\d+): ", error.message)
    assert place, error.message
    assert message in error.message
    lines = render.render(job(), templates)[rendered].splitlines()
    shown = lines[min(int(place[1]), len(lines)) - 1].strip()
    assert error.message.endswith(f"\n  {place[1]} | {shown}")
    assert "The line comes from templates/" in error.hint


def test_a_line_that_stands_in_a_template_as_it_was_rendered_is_found_there(
    templates: Path, job: MakeJob
) -> None:
    error, line = broken(templates, "image-pull.yaml", "deployment.yaml", "deploymint.yaml", job())
    assert 'Invalid value: "deploymint.yaml": file must exist' in error.message
    assert error.hint.endswith(f"The line comes from templates/image-pull.yaml:{line}.")


IN_QUERIES = [
    ("histogram_quantile(", "histogram_quantil(", "unknown function"),
    ("(<%= selector %>) - (", "(<%= selector %>) - ((", "unclosed"),
    ("offset %v", "ofset %v", "invalid promql query"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), IN_QUERIES)
def test_a_query_that_prometheus_could_not_parse_is_named_with_file_and_line(
    templates: Path, job: MakeJob, old: str, new: str, message: str
) -> None:
    error, _ = broken(templates, "queries.jinja", old, new, job())
    place = re.match(r"image-pull\.yaml:(\d+): (\w+)/(\w+): ", error.message)
    assert place, error.message
    assert message in error.message
    lines = render.render(job(), templates)["image-pull.yaml"].splitlines()
    assert lines[int(place[1]) - 1].strip() == f"- Identifier: {place[2]}"
    assert error.hint


def test_a_metric_that_no_exporter_has_is_named_by_the_simulator(
    templates: Path, job: MakeJob
) -> None:
    path = templates / "queries.jinja"
    path.write_text(path.read_text().replace('name ~ "_bucket{"', 'name ~ "_buckets{"'))
    files = render.render(job(), templates)
    render.check(files, templates)
    with pytest.raises(RenderError) as caught:
        engines.build(job()).validate(files)
    name = "kubelet_image_pull_duration_seconds_bucket"
    assert re.match(r"image-pull\.yaml:\d+: .*KubeletImagePull.*p50", caught.value.message)
    assert caught.value.message.endswith(f"no series named {name}s")
    assert f"did you mean {name}?" in caught.value.hint
