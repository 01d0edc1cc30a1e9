"""The benchmarks as modules: tests hold pages and limits against what they give."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """benchmarks/NAME.py, loaded."""
    # Under a name of its own: `results`, say, is somebody's already.
    own = f"{name}_benchmark"
    spec = importlib.util.spec_from_file_location(own, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
