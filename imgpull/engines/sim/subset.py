"""What of ClusterLoader2 the simulator can play; everything else is refused before a trial runs.

Hides the checks. Each refusal names file and line: what is ignored in silence would give numbers
that a real cluster would not.
"""

from difflib import get_close_matches

from imgpull import cl2, exporters
from imgpull.engines.sim.deployments import deployment, selects
from imgpull.errors import RenderError
from imgpull.simcluster import World, promql


def require_playable(test: cl2.TestConfig, world: World) -> None:
    """RenderError for the first thing that the simulator would have to ignore or make up."""
    cl2.require_supported(test)
    _require_one_life(test)
    for step in test.steps:
        for phase in step.phases:
            for bundled in phase.objects:
                _check_object(bundled, world)
        for call in step.measurements:
            _check_call(call, world)


def _require_one_life(test: cl2.TestConfig) -> None:
    """Deployments are created, then all deleted: the model lets no pod leave while others live."""
    alive: dict[tuple[str, str], int] = {}
    deleted = False
    for step in test.steps:
        for phase in step.phases:
            for namespace in phase.namespaces(test.namespace_prefix):
                for bundled in phase.objects:
                    key = namespace, bundled.basename
                    before, after = alive.get(key, 0), phase.replicas_per_namespace
                    alive[key] = after
                    if deleted and after > before:
                        raise _refusal(test, step, f"creates {bundled.basename} after a deletion")
                    deleted = deleted or after < before
        if deleted and any(alive.values()):
            raise _refusal(test, step, "deletes a part of what is there")


def _refusal(test: cl2.TestConfig, step: cl2.Step, what: str) -> RenderError:
    return RenderError(
        f"{test.path.name}:{step.line}: step '{step.name}' {what}, which the simulator cannot",
        hint="delete everything in one step, last, or use a real engine",
    )


def _check_object(bundled: cl2.ObjectBundle, world: World) -> None:
    found = deployment(cl2.object_manifest(bundled, 0, "namespace"), bundled)
    if found.image not in world.images:
        raise RenderError(
            f"{bundled.template}: image '{found.image}' is not in the simulated registry, which "
            f"has only '{"', '".join(world.images)}'",
            hint="use the image of the `image` group, or add it to engine.images",
        )


def _check_call(call: cl2.MeasurementCall, world: World) -> None:
    kind = call.params.get("kind", "Deployment")
    if call.method == "WaitForControlledPodsRunning" and kind != "Deployment":
        raise call.error(
            f"the simulator waits for Deployments, not {kind}", hint="use a real engine"
        )
    for name in ("namespace", "fieldSelector"):
        if call.params.get(name):
            raise call.error(
                f"the simulator knows no {name} here", hint="select by labelSelector alone"
            )
    try:
        selects(str(call.params.get("labelSelector", "")), {})
    except ValueError as error:
        raise call.error(
            f"labelSelector: {error}, the only form that the simulator knows",
            hint="write it like group = imgpull",
        ) from error
    if call.method == "GenericPrometheusQuery" and call.action == "start":
        for query in cl2.prometheus_queries(call).queries:
            _check_query(call, query, world)


def _check_query(call: cl2.MeasurementCall, query: cl2.Query, world: World) -> None:
    bounded = query.query.replace("%v", "600s")
    known = exporters.known_metrics(world.containerd.version)
    try:
        promql.check(bounded)
    except RenderError as error:
        raise call.error(f"{query.name}: {error.message}", hint=error.hint) from error
    for name in sorted(promql.metric_names(bounded) - known):
        close = get_close_matches(name, known, n=1)
        raise call.error(
            f"{query.name}: the simulator has no series named {name}",
            hint=f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}",
        )
