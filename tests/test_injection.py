"""Laws of awkward values: exactly in their place, or refused; the structure never changes."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgpull import render
from imgpull.config import job as jobs
from imgpull.errors import ConfigError

Compose = Callable[..., dict[str, Any]]
YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NASTY = [
    '"', "'", "\n", "\r", "\t", "{{", "}}", "{", "}", "<%", "%>", "<%= qps %>", ": ", " #", "- ",
    "\\", "%", "&", "*", "!", "|", ">", "`", "@", "$", "\x00", "\x7f", "\x85", "\u2028", "\ufeff",
    "\ud800", "é", "日", "🐳", "{{.Name}}", "hostNetwork: true", "no", "~", "0x1f",
]  # fmt: skip
nasty = st.lists(
    st.one_of(st.sampled_from(NASTY), st.text(max_size=3), st.sampled_from("aZ09.-_/:")), max_size=6
).map("".join)

MARK = "marked.io"  # valid in every place below, and found nowhere else in a bundle

PLACES: dict[str, Callable[[str], dict[str, dict[str, Any]]]] = {
    "args": lambda text: {"image": {"args": ["-c", text, "last"]}},
    "command": lambda text: {"image": {"command": [text]}},
    "pull_secret": lambda text: {"image": {"pull_secret": text}},
    "registry": lambda text: {"image": {"reference": f"{text}/a:1"}},
    "repository": lambda text: {"image": {"reference": f"reg.io/{text}:1"}},
    "tag": lambda text: {"image": {"reference": f"reg.io/a:{text}"}},
    "node_prefix": lambda text: {"cluster": {"node_prefix": text}},
    "label key": lambda text: {"cluster": {"node_selector": {text: "x"}}},
    "label value": lambda text: {"cluster": {"node_selector": {"x": text}}},
    "taint key": lambda text: {"cluster": {"tolerations": [{"key": text}]}},
    "taint value": lambda text: {"cluster": {"tolerations": [{"key": "x", "value": text}]}},
    "Prometheus label key": lambda text: {"cluster": {"prometheus_node_selector": {text: "x"}}},
    "Prometheus label value": lambda text: {"cluster": {"prometheus_node_selector": {"x": text}}},
}


def bundle_with(compose: Compose, where: str, text: str) -> dict[str, Any] | None:
    """What CL2 reads when this text stands in that place; None where the value is refused."""
    values = compose()
    for group, changes in PLACES[where](text).items():
        values[group] |= changes
    try:
        files = render.render(jobs.job_from(values))
    except ConfigError:
        return None
    found: dict[str, Any] = {
        name: body if name == render.TEST_CONFIG else yaml.load(body, YAML)
        for name, body in files.items()
    }
    # A fragment of YAML that CL2 puts into Prometheus' manifest as it is.
    key = "CL2_PROMETHEUS_NODE_SELECTOR"
    found["overrides.yaml"][key] = yaml.safe_load(found["overrides.yaml"][key])
    return found


def marked(value: Any, text: str) -> Any:
    """The structure with MARK replaced wherever it stands, in keys too."""
    if isinstance(value, dict):
        return {marked(key, text): marked(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item, text) for item in value]
    if not isinstance(value, str):
        return value
    in_a_query = MARK.replace(".", "[.]"), text.replace(".", "[.]")
    return value.replace(*in_a_query).replace(MARK, text)


@pytest.mark.parametrize("where", PLACES)
@settings(max_examples=25)
@given(text=nasty)
@example(text="another.io")
@example(text='x"}, "hostNetwork": {"y": "')
@example(text="x\n      hostNetwork: true")
def test_a_value_stays_exactly_in_its_place_or_is_refused(
    where: str, compose: Compose, text: str
) -> None:
    found = bundle_with(compose, where, text)
    if found is not None:
        plain = bundle_with(compose, where, MARK)
        assert plain is not None
        assert found == marked(plain, text)


@pytest.mark.parametrize("where", PLACES)
def test_a_harmless_value_is_never_refused(where: str, compose: Compose) -> None:
    for text in (MARK, "another.io"):
        found = bundle_with(compose, where, text)
        assert found is not None
        assert text.split(".")[0] in str(found)


@settings(max_examples=200)
@given(text=nasty)
@example(text="\x85")  # YAML folds it, JSON leaves it
@example(text="\u2028\ufeff\x7f🐳")
def test_an_argument_is_refused_only_for_braces_that_cl2_would_fill_or_for_no_text(
    compose: Compose, text: str
) -> None:
    refused = bundle_with(compose, "args", text) is None
    assert refused == ("{{" in text or any("\ud800" <= char <= "\udfff" for char in text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x {{.Name}}", "carries '{{', which ClusterLoader2 would read as a template"),
        ("\udc80", "carries the lone surrogate U+DC80, which is no text"),
    ],
)
def test_what_cannot_be_written_is_refused_with_its_reason(
    compose: Compose, text: str, message: str
) -> None:
    values = compose()
    values["image"]["args"] = [text]
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        render.render(jobs.job_from(values))
    assert caught.value.hint
