"""Laws of choosing nodes: exactly as many as asked for, the same ones again, and none kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aks import DATA, node, not_ready, paths
from apiserver import ApiServer
from hypothesis import given
from hypothesis import strategies as st

from imgpull.cluster import nodes
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import NodeFacts, Taint
from imgpull.cluster.ownership import MEASURED_BY, Owner
from imgpull.config import schema
from imgpull.config.job import MEASURED_LABEL, Job
from imgpull.errors import ConfigError, EngineFailed

POOL = {"kubernetes.azure.com/agentpool": "measured"}
OURS = Owner("sweep-1")
ALL = "/api/v1/nodes"


@pytest.fixture
def cluster(job: Callable[..., Job]) -> schema.Cluster:
    return job("cluster=aks_d4s_v3").cluster


def put(api: ApiServer, *made: dict[str, Any]) -> None:
    for each in made:
        api.put(each)


def measured(api: ApiServer) -> dict[str, str]:
    """Names of the nodes that carry our label, and by which sweep."""
    found = [x["metadata"] for x in api.all(ALL) if MEASURED_LABEL in x["metadata"]["labels"]]
    return {meta["name"][-2:]: meta["annotations"].get(MEASURED_BY, "") for meta in found}


def short(chosen: list[NodeFacts]) -> list[str]:
    return [each.name[-2:] for each in chosen]


# ------------------------------------------------------------------------------------- facts


def test_a_node_tells_its_facts() -> None:
    facts = nodes.facts_of(node(7))
    assert facts.name == "aks-measured-38601234-vmss000007"
    assert (facts.vm_size, facts.region, facts.zone) == ("Standard_D4s_v3", "westeurope", "0")
    assert (facts.kubelet_version, facts.containerd_version) == ("1.34.2", "1.7.30-1")
    assert (facts.vcpus, facts.memory_bytes) == (4, 16374164 * 1024)
    assert (facts.ephemeral_bytes, facts.max_pods) == (129886128 * 1024, 110)
    assert facts.ready
    assert facts.schedulable
    assert facts.address == "10.224.0.4"


def test_recorded_nodes_tell_their_facts() -> None:
    recorded = json.loads((DATA / "nodes" / "own-1.36.2.json").read_text())
    first, second = map(nodes.facts_of, recorded)
    assert (first.containerd_version, second.containerd_version) == ("1.7.24", "2.1.9")
    assert (first.vm_size, first.provider_id) == ("", "")
    assert first.ready


def test_a_node_that_says_nothing_has_no_facts_and_is_not_ready() -> None:
    facts = nodes.facts_of({"metadata": {"name": "new"}})
    assert not facts.ready
    assert (facts.vcpus, facts.memory_bytes, facts.containerd_version) == (0, 0, "")


def test_only_containerd_has_a_containerd_version() -> None:
    other = node(status__nodeInfo={"containerRuntimeVersion": "cri-o://1.34.0"})
    assert nodes.facts_of(other).containerd_version == ""


# ------------------------------------------------------------------------------------- choice


@pytest.mark.parametrize("count", [1, 2, 5])
def test_exactly_as_many_nodes_are_labelled_as_asked_for(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster, count: int
) -> None:
    put(apiserver, *(node(index) for index in range(5)), node(0, pool="other"))
    chosen = nodes.select(kube, cluster, count, OURS)
    assert len(chosen) == count
    assert measured(apiserver) == dict.fromkeys(short(chosen), "sweep-1")
    assert all(each.labels[MEASURED_LABEL] == "true" for each in chosen)


def test_the_same_nodes_are_chosen_again(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, *(node(index) for index in (4, 2, 0, 3, 1)))
    first = short(nodes.select(kube, cluster, 3, OURS))
    assert first == ["00", "01", "02"]
    nodes.select(kube, cluster, 5, OURS)
    assert short(nodes.select(kube, cluster, 3, OURS)) == first
    nodes.release(kube, "sweep-1")
    assert short(nodes.select(kube, cluster, 3, OURS)) == first


def test_a_node_that_the_sweep_measures_already_stays_when_an_earlier_one_comes_back(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0, status__conditions=not_ready()), node(1), node(2))
    assert short(nodes.select(kube, cluster, 2, OURS)) == ["01", "02"]
    put(apiserver, node(0))
    assert short(nodes.select(kube, cluster, 2, OURS)) == ["01", "02"]


def test_nothing_is_written_when_the_right_nodes_are_labelled_already(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, *(node(index) for index in range(3)))
    nodes.select(kube, cluster, 2, OURS)
    written = len(paths(apiserver.requests, "PATCH"))
    nodes.select(kube, cluster, 2, OURS)
    assert len(paths(apiserver.requests, "PATCH")) == written == 2


def test_labels_that_a_dead_sweep_left_are_taken_over_or_off(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, *(node(index) for index in range(4)))
    nodes.select(kube, cluster, 3, Owner("dead"))
    assert set(measured(apiserver).values()) == {"dead"}
    assert short(nodes.select(kube, cluster, 1, OURS)) == ["00"]
    assert measured(apiserver) == {"00": "sweep-1"}


def test_a_label_outside_the_pool_is_taken_off(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0), node(9, pool="old", metadata__labels={MEASURED_LABEL: "true"}))
    nodes.select(kube, cluster, 1, OURS)
    assert measured(apiserver) == {"00": "sweep-1"}


def test_the_node_for_prometheus_is_not_measured(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0, metadata__labels={"prometheus": "true"}), node(1), node(2))
    assert short(nodes.select(kube, cluster, 2, OURS)) == ["01", "02"]
    with pytest.raises(ConfigError, match="nodes=3, but 2 of the 2 nodes"):
        nodes.select(kube, cluster, 3, OURS)


def test_where_every_measured_node_is_one_for_prometheus_too_they_are_measured(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, *(node(index) for index in range(2)))
    for selector in ({}, POOL):
        both = replace(cluster, prometheus_node_selector=selector)
        assert len(nodes.select(kube, both, 2, OURS)) == 2


@pytest.mark.parametrize(
    ("change", "why", "fix"),
    [
        ({"status__conditions": not_ready()}, "1 NotReady (aks-measured-38601234-vmss000001)",
         "wait until they are Ready, or use nodes=1"),
        ({"spec__unschedulable": True}, "1 cordoned",
         "kubectl uncordon aks-measured-38601234-vmss000001"),
        ({"spec__taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]},
         "1 taint gpu=yes:NoSchedule not tolerated",
         "'cluster.tolerations=[{key: gpu, operator: Exists, effect: NoSchedule}]'"),
        ({"spec__taints": [{"key": "gone", "effect": "NoExecute"}]},
         "1 taint gone:NoExecute not tolerated", "key: gone"),
        # as the node controller taints them
        ({"spec__unschedulable": True, "spec__taints": [
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]},
         "1 cordoned (", "kubectl uncordon"),
        ({"metadata__labels": {"kubernetes.azure.com/agentpool": "x"}}, "1 of the 1 nodes",
         "use nodes=1, or add nodes to the pool"),
    ],
)  # fmt: skip
def test_too_few_nodes_are_refused_with_why_each_other_one_does_not_count(
    apiserver: ApiServer,
    kube: Kube,
    cluster: schema.Cluster,
    change: dict[str, Any],
    why: str,
    fix: str,
) -> None:
    put(apiserver, node(0), node(1, **change))
    with pytest.raises(ConfigError) as caught:
        nodes.select(kube, cluster, 2, OURS)
    assert "nodes=2, but 1 of the " in caught.value.message
    assert why in caught.value.message
    assert fix in caught.value.hint
    assert measured(apiserver) == {}
    assert short(nodes.select(kube, cluster, 1, OURS)) == ["00"]


def test_a_selector_that_selects_nothing_is_named(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0, pool="other"))
    with pytest.raises(
        ConfigError, match=r"none of the cluster's 1 nodes .* kubernetes.azure.com/agentpool=measur"
    ):
        nodes.select(kube, cluster, 1, OURS)


def test_a_node_that_prefers_no_pods_is_measured(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    taints = [{"key": "busy", "effect": "PreferNoSchedule"}]
    put(apiserver, node(0, spec__taints=taints))
    assert len(nodes.select(kube, cluster, 1, OURS)) == 1


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "a", "value": "b"}, True),
        ({"key": "a", "value": "c"}, False),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "b", "operator": "Exists"}, False),
        ({"key": "", "operator": "Exists", "effect": ""}, True),
        ({"key": "a", "value": "b", "effect": "NoExecute"}, False),
        ({"key": "a", "value": "b", "effect": ""}, True),
    ],
)
def test_taints_are_tolerated_as_the_scheduler_does(
    toleration: dict[str, str], tolerated: bool
) -> None:
    facts = replace(nodes.facts_of(node(0)), taints=(Taint("a", "b", "NoSchedule"),))
    found = nodes.obstacles(facts, [schema.Toleration(**toleration)])
    assert found == ([] if tolerated else ["taint a=b:NoSchedule not tolerated"])


@given(
    wells=st.lists(st.booleans(), min_size=1, max_size=12),
    taken=st.sets(st.integers(0, 11)),
    count=st.integers(1, 12),
)
def test_of_any_pool_as_many_usable_nodes_are_picked_as_asked_for_or_the_error_counts_them(
    wells: list[bool], taken: set[int], count: int
) -> None:
    pool = [
        replace(
            nodes.facts_of(node(index)),
            ready=well,
            annotations={MEASURED_BY: "sweep-1"} if index in taken else {},
        )
        for index, well in enumerate(wells)
    ]
    pool = [replace(x, labels={**x.labels, **({MEASURED_LABEL: "true"} if x.annotations else {})})
            for x in pool]  # fmt: skip
    cluster = schema.Cluster(node_selector=POOL)
    if sum(wells) < count:
        with pytest.raises(ConfigError, match=f"nodes={count}, but {sum(wells)} of the"):
            nodes.pick(pool, cluster, count, "sweep-1")
        return
    picked = nodes.pick(pool, cluster, count, "sweep-1")
    assert len(picked) == count
    assert all(each.ready for each in picked)
    assert picked == sorted(picked, key=lambda each: each.name)
    left_out = [each for each in pool if each.ready and each not in picked]
    if any(each.annotations for each in left_out):
        assert all(each.annotations for each in picked)


# ------------------------------------------------------------------------------------- release


def test_release_takes_labels_off_the_sweep_s_nodes_alone(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    marks = {"metadata__labels": {MEASURED_LABEL: "true"}}
    other = node(5, **marks, metadata__annotations={MEASURED_BY: "another"})
    put(apiserver, node(0), node(1))
    nodes.select(kube, cluster, 2, OURS)
    put(apiserver, other)
    assert len(nodes.release(kube, "sweep-1")) == 2
    assert measured(apiserver) == {"05": "another"}
    assert nodes.release(kube, "sweep-1") == []
    assert [name[-2:] for name in nodes.release(kube)] == ["05"]
    assert measured(apiserver) == {}
    assert MEASURED_BY not in apiserver.all(ALL)[0]["metadata"]["annotations"]


def test_a_node_that_goes_while_it_is_released_is_no_error(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0), node(1))
    nodes.select(kube, cluster, 2, OURS)
    name = node(1)["metadata"]["name"]
    apiserver.script("PATCH", rf".*{name}", lambda _: apiserver.remove(f"{ALL}/{name}"))
    assert len(nodes.release(kube, "sweep-1")) == 2


def test_a_label_that_comes_back_is_told(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0))
    nodes.select(kube, cluster, 1, OURS)
    apiserver.script("PATCH", ".*", (200, {}))  # taken, and undone by another program
    with pytest.raises(EngineFailed, match="could not be taken off aks-measured"):
        nodes.release(kube, "sweep-1")


def test_a_label_that_does_not_stay_is_told(
    apiserver: ApiServer, kube: Kube, cluster: schema.Cluster
) -> None:
    put(apiserver, node(0))
    apiserver.script("PATCH", ".*", (200, {}))
    with pytest.raises(EngineFailed, match="did not stay where it was put: aks-measured"):
        nodes.select(kube, cluster, 1, OURS)


def test_a_refused_label_is_told(apiserver: ApiServer, kube: Kube, cluster: schema.Cluster) -> None:
    put(apiserver, node(0))
    apiserver.deny("patch", "nodes")
    with pytest.raises(EngineFailed, match="403"):
        nodes.select(kube, cluster, 1, OURS)


# ------------------------------------------------------------------------------------- changes

BEFORE = nodes.facts_of(node(3))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"metadata__uid": "another"}, ["was deleted and made anew"]),
        ({"status__nodeInfo": {"bootID": "another"}}, ["was rebooted"]),
        ({"status__conditions": not_ready()}, ["is not Ready any more"]),
        ({"status__conditions": [{"type": "Ready", "status": "True",
                                  "lastTransitionTime": "2026-02-22T00:00:00Z"}]},
         ["was not Ready for a while, until 2026-02-22T00:00:00Z"]),
        ({"spec__unschedulable": True}, ["was cordoned"]),
        ({"status__nodeInfo": {"kubeletVersion": "v1.35.0"}},
         [": its kubelet went from 1.34.2 to 1.35.0"]),
        ({"status__nodeInfo": {"containerRuntimeVersion": "containerd://2.1.9"}},
         [": its container runtime went from containerd://1.7.30-1 to containerd://2.1.9"]),
        ({"metadata__labels": {"new": "label"}}, []),
    ],
)  # fmt: skip
def test_what_happened_to_a_node_is_told(change: dict[str, Any], told: list[str]) -> None:
    found = nodes.changed([BEFORE], [nodes.facts_of(node(3, **change))])
    assert len(found) == len(told)
    for sentence, part in zip(found, told, strict=True):
        assert part in sentence
        assert sentence.startswith(f"node {BEFORE.name}")


def test_a_lost_node_is_told_and_a_new_one_is_not() -> None:
    assert nodes.changed([BEFORE], [nodes.facts_of(node(4))]) == [f"node {BEFORE.name} is gone"]
