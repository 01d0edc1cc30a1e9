"""The plots drawn in a process of their own, while the rest of a sweep's end is made.

Hides that process: importing seaborn and drawing take as long as all else, and share nothing with
it. It ends with the one that waits for it, however that ends.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import imgpull
from imgpull.errors import ImgpullError, ReportError

_TOLD = "plots: "  # begins the line that says what came of it


class Drawing:
    """`draw_plots` of a sweep's directory, begun at once; leaving the context without it stops it.

    `wait` may raise as `draw_plots` does, and ReportError when the process came to grief.
    """

    def __init__(self, sweep_dir: Path) -> None:
        ours = str(Path(imgpull.__file__).parent.parent)  # run.py of a clone needs no installing
        path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
        self._process: subprocess.Popen[str] | None = None
        self._why = ""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "imgpull.analysis.drawing", str(sweep_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path},
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that waits
            )
        except OSError as error:
            self._why = f"did not start: {error}"

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def wait(self) -> list[Path]:
        """Name the plots when they are drawn."""
        if self._process is not None:
            assert self._process.stdout is not None
            lines = self._process.stdout.read().splitlines() or [""]
            self._why = f"ended with status {self._process.wait()}: {lines[-1]}"
            if lines[-1].startswith(_TOLD):
                found = json.loads(lines[-1].removeprefix(_TOLD))
                if "error" in found:
                    raise ReportError(found["error"], hint=found["hint"])
                return [Path(path) for path in found["plots"]]
        raise ReportError(
            f"the process that draws the plots {self._why}",
            hint="`imgpull report DIR` draws them again",
        )


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _main(sweep_dir: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from imgpull.analysis.plots import draw_plots
    from imgpull.analysis.summary import read_sweep

    told: dict[str, object]
    try:
        told = {"plots": [str(path) for path in draw_plots(sweep_dir, read_sweep(sweep_dir))]}
    except ImgpullError as error:
        told = {"error": error.message, "hint": error.hint}
    except Exception as error:  # a bug here must not cost what the sweep found
        told = {"error": f"the plots broke: {type(error).__name__}: {error}", "hint": ""}
    print(_TOLD + json.dumps(told))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
