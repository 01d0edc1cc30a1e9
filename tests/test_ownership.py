"""Marks of what is ours, and its removal: imgpull/cluster/ownership.py."""

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from apiserver import DROP, ApiServer
from hypothesis import given
from hypothesis import strategies as st

from imgpull.cluster import ownership
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.ownership import SYSTEM_NAMESPACE, Owner
from imgpull.errors import EngineFailed, EngineUnavailable
from imgpull.sweep.plan import sweep_name

OWNER = Owner("a-sweep", "0123456789ab-t1", 1)
SPACES = "/api/v1/namespaces"
SYSTEM = f"{SPACES}/{SYSTEM_NAMESPACE}"
# What the API server takes as a label's value.
LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def configmap(name: str, owner: Owner, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": SYSTEM_NAMESPACE,
            "labels": owner.labels(),
            **metadata,
        },
    }


def names(apiserver: ApiServer, collection: str) -> list[str]:
    return [each["metadata"]["name"] for each in apiserver.all(collection)]


@given(directory=st.text(max_size=80), trial=st.integers(1, 10**6), attempt=st.integers(1, 99))
def test_labels_are_what_the_api_server_takes(directory: str, trial: int, attempt: int) -> None:
    sweep = sweep_name(Path("/tmp") / directory.replace("\0", "").replace("/", "_"))
    for value in Owner(sweep, f"0123456789ab-t{trial}", attempt).labels().values():
        assert LABEL.fullmatch(value), value


@given(owners=st.lists(st.builds(Owner, st.sampled_from("ab"), st.sampled_from("xy"),
                                 st.integers(1, 9)), min_size=2, unique=True))  # fmt: skip
def test_no_two_attempts_share_a_prefix(owners: list[Owner]) -> None:
    prefixes = {each.prefix() for each in owners}
    assert len(prefixes) == len(owners)
    assert all(re.fullmatch(r"ip[0-9a-f]{10}", each) for each in prefixes)


def test_the_system_namespace_admits_privileged_pods(apiserver: ApiServer, kube: Kube) -> None:
    for _ in range(2):
        ownership.ensure_system_namespace(kube)
        found = apiserver.get(SYSTEM)
        assert found is not None
        labels = found["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
        assert labels["app.kubernetes.io/managed-by"] == "imgpull"
        kube.patch(SYSTEM, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}})


def test_a_namespace_of_that_name_that_is_not_ours_is_not_used(
    apiserver: ApiServer, kube: Kube
) -> None:
    kube.create(SPACES, {"metadata": {"name": SYSTEM_NAMESPACE}})
    with pytest.raises(EngineUnavailable, match="is not imgpull's"):
        ownership.ensure_system_namespace(kube)
    kube.create(SPACES, {"metadata": {"name": "ip-1"}})
    with pytest.raises(EngineFailed, match="is not imgpull's"):
        ownership.make_namespace(kube, "ip-1", OWNER)
    assert apiserver.get(f"{SPACES}/ip-1") is not None


@pytest.mark.parametrize("terminates", [False, True], ids=["left", "terminating"])
def test_an_old_namespace_of_ours_is_waited_for_and_made_anew(
    apiserver: ApiServer, kube: Kube, terminates: bool
) -> None:
    apiserver.namespace_takes_s = 0.3
    for make, path in (
        (lambda: ownership.make_namespace(kube, "ip-1", OWNER), f"{SPACES}/ip-1"),
        (lambda: ownership.ensure_system_namespace(kube), SYSTEM),
    ):
        make()
        old = apiserver.get(path)
        if terminates:
            kube.delete(path)
        make()
        new = apiserver.get(path)
        assert old is not None
        assert new is not None
        assert new["status"]["phase"] == "Active"
        anew = terminates or path != SYSTEM
        assert (new["metadata"]["uid"] != old["metadata"]["uid"]) is anew


def test_a_namespace_whose_answer_was_lost_is_there(apiserver: ApiServer, kube: Kube) -> None:
    def done_but_cut(request: Any) -> Any:
        apiserver.store.create(apiserver.place(SPACES), request.body)
        return DROP

    apiserver.script("POST", SPACES, done_but_cut)
    ownership.make_namespace(kube, "ip-1", OWNER)
    assert names(apiserver, SPACES).count("ip-1") == 1
    apiserver.script("POST", SPACES, DROP)
    with pytest.raises(ApiError, match="did not answer"):
        ownership.make_namespace(kube, "ip-2", OWNER)


def test_all_of_one_attempt_goes_and_nothing_of_another(apiserver: ApiServer, kube: Kube) -> None:
    others = [Owner("a-sweep", OWNER.trial, 2), Owner("b-sweep", OWNER.trial), Owner("a-sweep")]
    ownership.ensure_system_namespace(kube)
    for owner in (OWNER, *others):
        ownership.make_namespace(kube, f"{owner.prefix()}-1", owner)
        apiserver.put(configmap(f"of-{owner.prefix()}", owner))
    ownership.remove_trial(kube, OWNER, 5)
    kept = {f"{owner.prefix()}-1" for owner in others}
    assert {each for each in names(apiserver, SPACES) if each.startswith("ip")} == kept
    assert set(names(apiserver, f"{SYSTEM}/configmaps")) == {f"of-{o.prefix()}" for o in others}
    ownership.remove_trials(kube, "a-sweep", 5)
    kept = {f"{owner.prefix()}-1" for owner in others[1:]}
    assert {each for each in names(apiserver, SPACES) if each.startswith("ip")} == kept


def test_what_clusterloader_makes_with_the_trial_s_prefix_goes_too(
    apiserver: ApiServer, kube: Kube
) -> None:
    ownership.make_namespace(kube, f"{OWNER.prefix()}-1", OWNER)
    mine = [f"{OWNER.prefix()}-2", f"{OWNER.prefix()}-13"]
    foreign = [f"my-{OWNER.prefix()}-1", f"{OWNER.prefix()}-x", "ip0123456789-1", OWNER.prefix()]
    for name in mine + foreign:
        kube.create(SPACES, {"metadata": {"name": name}})
    ownership.remove_trial(kube, OWNER, 5)
    left = set(names(apiserver, SPACES))
    assert left >= set(foreign)
    assert not left & {f"{OWNER.prefix()}-1", *mine}


def test_what_a_killed_process_left_goes_with_what_clusterloader_made_beside_it(
    apiserver: ApiServer, kube: Kube
) -> None:
    other = Owner("b-sweep", OWNER.trial)
    for owner in (OWNER, other):
        ownership.make_namespace(kube, f"{owner.prefix()}-1", owner)
        kube.create(SPACES, {"metadata": {"name": f"{owner.prefix()}-2"}})
    ownership.remove_trials(kube, OWNER.sweep, 5)
    left = {name for name in names(apiserver, SPACES) if name.startswith("ip")}
    assert left == {f"{other.prefix()}-1", f"{other.prefix()}-2"}


def test_removal_returns_only_when_all_is_gone(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.namespace_takes_s = 0.4
    ownership.make_namespace(kube, f"{OWNER.prefix()}-1", OWNER)
    begun_s = time.monotonic()
    ownership.remove_trial(kube, OWNER, 5)
    assert time.monotonic() - begun_s >= 0.4
    assert apiserver.get(f"{SPACES}/{OWNER.prefix()}-1") is None


def test_what_appears_during_the_removal_goes_as_well(apiserver: ApiServer, kube: Kube) -> None:
    ownership.make_namespace(kube, f"{OWNER.prefix()}-1", OWNER)
    apiserver.on_delete("Namespace", lambda _: apiserver.put(configmap("late", OWNER)))
    apiserver.namespace_takes_s = 0.1
    ownership.ensure_system_namespace(kube)
    ownership.remove_trial(kube, OWNER, 5)
    assert names(apiserver, f"{SYSTEM}/configmaps") == []


def test_what_is_stuck_is_named_with_what_holds_it(apiserver: ApiServer, kube: Kube) -> None:
    name = f"{OWNER.prefix()}-1"
    ownership.make_namespace(kube, name, OWNER)
    apiserver.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": name, "finalizers": ["example.com/never"]},
        }
    )
    ownership.ensure_system_namespace(kube)
    apiserver.put(configmap("other", OWNER))
    said = {
        "type": "NamespaceFinalizersRemaining", "status": "True",
        "message": "Some content has finalizers remaining: example.com/never in 1 resource",
    }  # fmt: skip
    kube.patch(f"{SPACES}/{name}/status", {"status": {"conditions": [said]}})
    with pytest.raises(EngineFailed, match=f"namespaces {name}: Some content has") as stuck:
        ownership.remove_trial(kube, OWNER, 0.3)
    assert f"kubectl get namespaces {name} -o yaml" in stuck.value.hint
    assert names(apiserver, f"{SYSTEM}/configmaps") == [], "the rest goes all the same"


def test_how_to_look_at_it_names_its_namespace(apiserver: ApiServer, kube: Kube) -> None:
    ownership.ensure_system_namespace(kube)
    apiserver.put(configmap("held", OWNER, finalizers=["example.com/never"]))
    with pytest.raises(EngineFailed, match=r"finalizers example\.com/never") as stuck:
        ownership.remove_trial(kube, OWNER, 0.2)
    assert "kubectl get configmaps held -n imgpull-system -o yaml" in stuck.value.hint


def test_what_may_not_be_listed_keeps_nothing_else(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.deny("list", "secrets")
    ownership.make_namespace(kube, f"{OWNER.prefix()}-1", OWNER)
    with pytest.raises(EngineFailed, match="secrets is forbidden"):
        ownership.remove_trial(kube, OWNER, 5)
    assert apiserver.get(f"{SPACES}/{OWNER.prefix()}-1") is None


def test_a_pull_secret_is_copied_and_renewed(apiserver: ApiServer, kube: Kube) -> None:
    with pytest.raises(EngineUnavailable, match="no such Secret"):
        ownership.copy_secret(kube, "regcred", "target", OWNER)
    kube.create(SPACES, {"metadata": {"name": "target"}})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "regcred"},
        "type": "kubernetes.io/dockerconfigjson",
    }
    for data in ("b25l", "dHdv"):
        apiserver.put({**secret, "data": {".dockerconfigjson": data}})
        ownership.copy_secret(kube, "regcred", "target", OWNER)
        found = apiserver.get(f"{SPACES}/target/secrets/regcred")
        assert found is not None
        assert found["data"] == {".dockerconfigjson": data}
        assert found["type"] == secret["type"]
        assert found["metadata"]["labels"] == OWNER.labels()


def test_waiting_ends_as_soon_as_it_is_gone(apiserver: ApiServer, kube: Kube) -> None:
    kube.create(SPACES, {"metadata": {"name": "x"}})
    threading.Timer(0.2, apiserver.remove, (f"{SPACES}/x",)).start()
    begun_s = time.monotonic()
    ownership.wait_gone(kube, [f"{SPACES}/x", f"{SPACES}/never-was"], 60)
    assert time.monotonic() - begun_s < 30
