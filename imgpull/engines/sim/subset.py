"""What of ClusterLoader2 the simulator can play; everything else is refused before a trial runs.

Hides the checks. Each refusal names file and line: what is ignored in silence would give numbers
that a real cluster would not.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from imgpull import cl2, exporters
from imgpull.engines.sim.declared import BundleError, Change, Declared, namespace_prefix
from imgpull.engines.sim.deployments import Deployment, deployment, selects
from imgpull.errors import RenderError
from imgpull.simcluster import World, promql

_ONCE = ("PodStartupLatency", "WaitForControlledPodsRunning")  # their watch cannot start again


def require_playable(test: cl2.TestConfig, world: World) -> None:
    """RenderError for the first thing that the simulator would have to ignore or make up."""
    cl2.require_supported(test)
    _check_pairs(test)
    made = _check_objects(test, world)
    node_labels = {key: value for one in made for key, value in one.node_selector.items()}
    for step in test.steps:
        for call in step.measurements:
            _check_call(call)
            if call.method == "WaitForNodes":
                _check_nodes(call, node_labels)
            if call.method == "GenericPrometheusQuery" and call.action == "start":
                for query in cl2.prometheus_queries(call).queries:
                    _check_query(call, query, world)


# ---------------------------------------------------------------- measurements


def _check_pairs(test: cl2.TestConfig) -> None:
    """Each gather needs its start in a step before: those of one step run in no order."""
    running: set[tuple[str, str]] = set()
    over: set[tuple[str, str]] = set()
    for step in test.steps:
        before = frozenset(running)
        for call in step.measurements:
            key = call.method, call.identifier
            if call.method not in (*_ONCE, "GenericPrometheusQuery"):
                continue
            if call.action != "start" and key not in before:
                raise call.error(
                    f"{call.action} without a start in a step before",
                    hint="start it in an earlier step, under the same Identifier",
                )
            if call.action == "start" and call.method in _ONCE and key in running | over:
                raise call.error(
                    "is started a second time, which ClusterLoader2 does not carry out",
                    hint="give each start an Identifier of its own",
                )
            if call.action == "start":
                running.add(key)
            elif call.action == "stop" or call.method == "PodStartupLatency":
                running.discard(key)
                over.add(key)


def _check_call(call: cl2.MeasurementCall) -> None:
    refused = {"fieldSelector": ""}
    if call.method == "WaitForControlledPodsRunning":
        # Only Azure's fork reads it; others poll each 5 s whatever it says.
        refused["refreshInterval"] = ""
        if call.action == "start":
            _check_kind(call)
    if call.method == "WaitForNodes":
        refused["namespace"] = ""
    if call.method == "GenericPrometheusQuery":
        refused["prometheusClient"] = "inCluster"
    for name, allowed in refused.items():
        if call.text(name) not in ("", allowed):
            raise call.error(
                f"the simulator knows no {name} '{call.text(name)}' here", hint="leave it out"
            )
    for name in ("timeout", "operationTimeout", "refreshInterval"):
        if name in call.params and call.seconds(name, "") <= 0:
            raise call.error(f"{name} must be above zero", hint="raise it")
    try:
        selects(call.text("labelSelector"), {})
    except ValueError as error:
        raise call.error(
            f"labelSelector: {error}, the only form that the simulator knows",
            hint="write it like group = imgpull",
        ) from error


def _check_kind(call: cl2.MeasurementCall) -> None:
    kind = call.params["apiVersion"], call.params["kind"]
    if kind != ("apps/v1", "Deployment"):
        raise call.error(
            f"the simulator waits for Deployments of apps/v1, not {kind[1]} of {kind[0]}",
            hint="use a real engine",
        )


def _check_nodes(call: cl2.MeasurementCall, node_labels: dict[str, str]) -> None:
    """The nodes of the world are those that the test's pods select."""
    selector = call.text("labelSelector")
    if not selects(selector, node_labels):
        known = ", ".join(f"{key} = {value}" for key, value in sorted(node_labels.items()))
        raise call.error(
            f"labelSelector '{selector}': the simulator's nodes have no such label",
            hint=f"leave it out, or use the nodeSelector of the Deployments: {known or 'none'}",
        )


def _check_query(call: cl2.MeasurementCall, query: cl2.Query, world: World) -> None:
    version = world.containerd.version
    try:
        unknown, patterns = _not_simulated(query.query, version)
    except RenderError as error:
        raise call.error(f"{query.name}: {error.message}", hint=error.hint) from error
    known = exporters.known_metrics(version) if unknown or patterns else frozenset()
    for name in unknown:
        close = get_close_matches(name, known, n=1)
        raise call.error(
            f"{query.name}: the simulator has no series named {name}",
            hint=f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}",
        )
    for pattern in patterns:
        raise call.error(
            f"{query.name}: the simulator has no series that {pattern} selects",
            hint=f"known: {', '.join(sorted(known))}",
        )


@lru_cache(maxsize=1024)  # the cells of a matrix ask the same
def _not_simulated(query: str, version: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics and the selectors of a query that this containerd exposes nothing for."""
    known, bounded = exporters.known_metrics(version), query.replace("%v", "600s")
    promql.check(bounded)
    patterns = promql.name_patterns(bounded).items()
    return (
        tuple(sorted(promql.metric_names(bounded) - known)),
        tuple(pattern for pattern, takes in patterns if not any(map(takes, known))),
    )


# ---------------------------------------------------------------- objects


def _check_objects(test: cl2.TestConfig, world: World) -> list[Deployment]:
    """Walk through all phases and look at each object; returns the Deployments made."""
    prefix = namespace_prefix(test, world)
    known = {f"{prefix}-{number + 1}" for number in range(test.namespace_number)}
    declared = Declared()
    alive: dict[str, Deployment] = {}
    made: list[tuple[str, Deployment]] = []
    for step in test.steps:
        touched: set[tuple[str, str]] = set()
        for phase in step.phases:
            namespaces = phase.namespaces(prefix)
            here = [(name, one.basename) for name in namespaces for one in phase.objects]
            if not known.issuperset(namespaces):
                raise _refusal(
                    test, step, f"acts in {set(namespaces) - known}, outside the test's namespaces"
                )
            if len({*here}) < len(here) or touched & {*here}:
                raise _refusal(test, step, "declares the same objects twice, in no order")
            touched.update(here)
            try:
                actions = declared.actions(phase, prefix)
            except BundleError:
                continue  # the trial will tell, as CL2 does
            for change in (change for action in actions for change in action):
                found = _checked(change, alive, world)
                made += [(change.namespace, found)] if found else []
    _check_spread(test, made)
    return [one for _, one in made]


def _checked(change: Change, alive: dict[str, Deployment], world: World) -> Deployment | None:
    if change.verb == "delete":
        alive.pop(change.key, None)
        return None
    found = deployment(change.bundled, change.index, change.namespace)
    if found.image not in world.images:
        close = get_close_matches(found.image, world.images, n=1)
        raise RenderError(
            f"{found.image_line}: image '{found.image}' is not in the simulated registry",
            hint=f"did you mean {close[0]}?" if close
            else f"it holds {', '.join(sorted(world.images))}; engine.images adds others",
        )  # fmt: skip
    before = alive.setdefault(change.key, found)
    if before.rest != found.rest:
        raise RenderError(
            f"{change.bundled.template}:1: patches {change.key} with more than another number of "
            f"replicas, which would roll its pods out anew: the simulator cannot",
            hint="delete it and create it again, or use a real engine",
        )
    return found


def _check_spread(test: cl2.TestConfig, made: Iterable[tuple[str, Deployment]]) -> None:
    """A constraint counts all pods that its selector selects: the model, those that share it."""
    made = list(made)
    for namespace, spread in {(namespace, one.spread) for namespace, one in made if one.spread}:
        for other, one in made:
            if other == namespace and one.spread != spread and selects(spread, one.pod_labels):
                raise RenderError(
                    f"{one.image_line}: pods of {test.name} in {namespace} are spread by "
                    f"'{spread}', which selects these too: the simulator would not count them",
                    hint="give all pods that a constraint selects the same constraint",
                )


def _refusal(test: cl2.TestConfig, step: cl2.Step, what: str) -> RenderError:
    return RenderError(
        f"{test.path.name}:{step.line}: step '{step.name}' {what}, which the simulator cannot",
        hint="change the step, or use a real engine",
    )
