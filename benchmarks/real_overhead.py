"""What imgpull adds to a real trial besides ClusterLoader2 and the image cache, stage by stage.

    python benchmarks/real_overhead.py [TRIALS]

ClusterLoader2 and the cluster are the tests' stand-ins, which answer at once, so what is left is
imgpull's own: the figures are of this machine, not of a cluster. On a real one the stages stand in
each job.json, under `observed.stages_s`. Two seconds of `reading` are the quiet after the last
event that the recorder waits for; a real test ends with a quiet minute: there they take no time.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from acting import FITS, Acting, kubeconfig  # noqa: E402
from apiserver import ApiServer  # noqa: E402
from standins import REPORTS, clusterloader  # noqa: E402

from imgpull import engines, render  # noqa: E402
from imgpull.config.compose import composed_job  # noqa: E402
from imgpull.engines import Execution  # noqa: E402


def main(trials: int) -> None:
    stages: dict[str, list[float]] = {}
    with ApiServer() as api, tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        Acting(api)
        program = clusterloader(
            place / "bin", act="replay", report=str(REPORTS / "own-2026-two-nodes")
        )
        access = kubeconfig(api, place, "a-token-of-this-benchmark")
        job = composed_job(
            [*FITS, "engine=binary", f"engine.path={program.path}", f"engine.kubeconfig={access}",
             "engine.settle=1ms"]
        )  # fmt: skip
        files = render.render(job)
        with engines.session([job], "bench", lambda *_, **__: None, lambda _: None) as session:
            for nth in range(trials):
                out = place / str(nth)
                bundle = render.write(files, out / "bundle")
                begun = time.perf_counter()
                outcome = session.engine(job, Execution("bench", f"cell-t{nth}")).run(
                    bundle, out, lambda _: None
                )
                whole_s = time.perf_counter() - begun
                told = dict(outcome.observed["stages_s"])
                told["everything else"] = whole_s - sum(told.values())
                told["whole trial"] = whole_s
                for name, took_s in told.items():
                    stages.setdefault(name, []).append(took_s)
    print(f"seconds, median of {trials} trials (lowest to highest); stand-ins, not a cluster\n")
    for name, took in stages.items():
        low, high = min(took), max(took)
        print(f"{name:16} {statistics.median(took):7.3f}  ({low:.3f} to {high:.3f})")
    own = [name for name in stages if name not in ("cache", "clusterloader", "whole trial")]
    added = [sum(stages[name][nth] for name in own) for nth in range(trials)]
    print(f"{'added':16} {statistics.median(added):7.3f}  besides clusterloader and image cache")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
