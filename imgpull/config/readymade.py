"""A ClusterLoader2 test that the user brings (engine.bundle=DIR), as the files of a bundle.

Hides what such a folder may hold. What its test means is ClusterLoader2's to say: it is compiled
before anything runs, and not read by the rules of our own templates.
"""

import re
from pathlib import Path

from imgpull.errors import ConfigError

# As a bundle of templates/ has them; config.yaml is what perf-tests calls the first.
TEST_CONFIG, OVERRIDES = "image-pull.yaml", "overrides.yaml"
_NAMES = (TEST_CONFIG, "config.yaml")
_MOST_BYTES = 2**20

_NAMESPACES = re.compile(r"(?m)^namespace:[^\n]*\n(?:[ \t]+[^\n]*\n)*?[ \t]+number:[ \t]*(\d+)")


def read_test(directory: Path) -> dict[str, str]:
    """File name -> text of the folder's files; ConfigError names what a bundle cannot be."""
    if not directory.is_dir():
        raise ConfigError(
            f"engine.bundle={directory} is no folder",
            hint=f"name the folder that holds the test, {' or '.join(_NAMES)}",
        )
    files: dict[str, str] = {}
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_file():
            raise ConfigError(
                f"engine.bundle: {path} is a folder in the folder",
                hint="put all files of the test side by side",
            )
        files[path.name] = _text(path)
    tests = [name for name in _NAMES if name in files]
    if len(tests) != 1:
        raise ConfigError(
            f"engine.bundle={directory} holds {' and '.join(tests) or 'no test'}",
            hint=f"it needs one of {' and '.join(_NAMES)}",
        )
    files[TEST_CONFIG] = files.pop(tests[0])
    files.setdefault(OVERRIDES, "{}\n")
    _check_namespaces(directory / tests[0], files[TEST_CONFIG])
    return files


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise ConfigError(
                f"engine.bundle: {path} has {len(data)} bytes", hint="a test's files are small"
            )
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"engine.bundle: {path} cannot be read: {error}", hint="keep only the test's YAML there"
        ) from error


def _check_namespaces(path: Path, text: str) -> None:
    """Only one is made beforehand, labelled, and watched."""
    found = _NAMESPACES.search(text)
    if found and int(found[1]) > 1:
        raise ConfigError(
            f"{path}: its test uses {found[1]} namespaces, and pulls are watched in one",
            hint="use namespace: {number: 1}",
        )
