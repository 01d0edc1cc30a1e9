"""The corner of Go's template language that our files use: `{{.Name}}`.

Hides how placeholders are filled in module files and object templates, and refuses everything
else between double braces by name and line, before a cluster would.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from imgpull.cl2.places import Place, read_yaml
from imgpull.cl2.wording import go_number
from imgpull.errors import RenderError

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PLACEHOLDER = re.compile(r"\s*\.(\w+)\s*")
_FUNCTION = re.compile(r"(?<![\w.$\"'])[A-Za-z]\w*")
# What CL2 cuts away to learn an object's kind (pkg/config/template_provider.go): greedy, per line.
_RAW = re.compile(r"\{\{.*\}\}")


def fill(text: str, values: Mapping[str, Any], file: str) -> str:
    """The text with every `{{.key}}` replaced as Go prints its value; RenderError for the rest."""

    def replace(match: re.Match[str]) -> str:
        placeholder = _PLACEHOLDER.fullmatch(match[1])
        if placeholder is None:
            named = _FUNCTION.search(match[1])
            function = f": the subset has no template function '{named[0]}'" if named else ""
            raise refuse(match, f"'{match[0]}' is more than a placeholder{function}")
        key = placeholder[1]
        if key not in values:
            raise refuse(match, f"nothing gives '{match[0]}' a value")
        value = values[key]
        if isinstance(value, str) and "\n" not in value:
            return value
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return go_number(value)
        raise refuse(match, f"'{match[0]}' would become {value!r}, which is no single-line scalar")

    def refuse(match: re.Match[str], reason: str) -> RenderError:
        line = text.count("\n", 0, match.start()) + 1
        known = ", ".join(f"{{{{.{key}}}}}" for key in sorted(values)) or "none"
        return RenderError(f"{file}:{line}: {reason}", hint=f"Placeholders known here: {known}.")

    without = _ACTION.sub(lambda match: "\n" * match[0].count("\n"), text)
    before, opening, _ = without.partition("{{")
    if opening:
        line = before.count("\n") + 1
        raise RenderError(f"{file}:{line}: '{{{{' is never closed", hint="Close it with '}}'.")
    return _ACTION.sub(replace, text)


def render_object(
    text: str, file: str, *, basename: str, index: int, namespace: str, values: Mapping[str, Any]
) -> str:
    """The manifest of object `<basename>-<index>` of this template; its name is as written.

    BaseName, Index, Name and Namespace always win over `values`.
    """
    _check_identity(text, file)
    own = {
        "BaseName": basename, "Index": index, "Name": f"{basename}-{index}", "Namespace": namespace,
    }  # fmt: skip
    return fill(text, {**values, **own}, file)


@cache  # of one text a thousand objects are made
def _check_identity(text: str, file: str) -> None:
    """Refuse a template whose kind CL2 could not read with the placeholders cut away."""
    try:
        raw: Place = read_yaml(_RAW.sub("", text), file)
    except RenderError as error:
        raise RenderError(
            f"{error.message} (read with its placeholders cut away, as ClusterLoader2 does)",
            hint="Quote placeholders, and put each on a line of its own.",
        ) from error
    data = raw.data()
    for key in ("apiVersion", "kind"):
        if not isinstance(data.get(key), str) or not data[key]:
            raise RenderError(
                f"{file}:{_line_of(key, text)}: {key} must be a literal",
                hint=f"Write {key} without placeholders: it is read before they are filled.",
            )


def _line_of(key: str, text: str) -> int:
    match = re.search(rf"^{key}\s*:", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 1
