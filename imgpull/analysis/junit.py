"""A gate as JUnit XML, which CI systems show: a test case for each cell.

Hides the format: regressions are failures, what cannot be told is an error, what somebody has
acknowledged is skipped.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from imgpull.analysis.gating import ACCEPTED, SLOWER, UNKNOWN, Judged
from imgpull.errors import ConfigError

_ELEMENTS = {SLOWER: "failure", UNKNOWN: "error", ACCEPTED: "skipped"}
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


def write_junit(
    path: Path, measurement: str, cells: Sequence[Judged], remarks: Sequence[str]
) -> None:
    """Write the file, making its directory; ConfigError where that cannot be."""
    kinds = [_ELEMENTS.get(cell.outcome, "") for cell in cells]
    suite = ElementTree.Element(
        "testsuite",
        name="imgpull gate",
        tests=str(len(cells)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
    )
    for cell, kind in zip(cells, kinds, strict=True):
        case = ElementTree.SubElement(
            suite, "testcase", classname=_text(f"imgpull.gate.{measurement}"), name=_text(cell.name)
        )
        if kind:
            ElementTree.SubElement(case, kind, message=_text(cell.message))
        else:
            ElementTree.SubElement(case, "system-out").text = _text(cell.message)
    if remarks:
        ElementTree.SubElement(suite, "system-out").text = _text("\n".join(remarks))
    tree = ElementTree.ElementTree(suite)
    ElementTree.indent(tree)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tree.write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", hint="name a file: --junit gate.xml"
        ) from error


def _text(text: str) -> str:
    return _NO_XML.sub("?", text)
