"""The directory of a test config, from which CL2 reads modules and object templates.

Hides whether its files are on disk, or texts that are at hand: a matrix checks hundreds of tests
that are written only when they run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imgpull.cl2.places import Place
from imgpull.errors import RenderError


@dataclass(frozen=True)
class Folder:
    """The files of a test by their paths as written; a leading '/' leads into it too, as in CL2."""

    directory: Path
    files: Mapping[str, str] | None

    def text(self, written: str) -> str:
        """The text of a file; RenderError when it cannot be read."""
        name = written.lstrip("/")
        try:
            if self.files is not None:
                return self.files[name]
            return (self.directory / name).read_text(encoding="utf-8")
        except (KeyError, OSError, UnicodeDecodeError) as error:
            reason = "there is no such file" if isinstance(error, KeyError) else error
            raise RenderError(
                f"{self.directory / name}: cannot be read: {reason}",
                hint="Name a file that exists, in UTF-8.",
            ) from error

    def require(self, place: Place) -> str:
        """The path that a place names, of a file that is there."""
        written = place.text()
        name = written.lstrip("/")
        if self.files is not None:
            found, hint = name in self.files, f"There are {', '.join(self.files)}."
        else:
            found, hint = (self.directory / name).is_file(), f"Put it in {self.directory}."
        if not found:
            raise place.invalid(written, "file must exist", hint=hint)
        return written
