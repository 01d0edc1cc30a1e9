"""Laws of following ClusterLoader2's output: all of it in the log but secrets, whatever it is."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull.engines.following import Follower
from imgpull.engines.running import Ended

LOGS = Path(__file__).parent / "data" / "cl2-logs"
RECORDED = (LOGS / "own-2026-two-nodes.log").read_bytes()
OLDER = (LOGS / "own-2021-two-nodes.log").read_bytes()
TOKEN = "eyJhbGciOiJSUzI1NiJ9.planted.token"
HEAD = "1124 21:00:00.000001   12345 clusterloader.go:1] "


def redact(text: str) -> str:
    return text.replace(TOKEN, "REDACTED")


def follow(log: Path, *pieces: bytes) -> tuple[Ended, list[str], Follower]:
    """How it ended, what was told, and the follower, after output in these pieces."""
    told: list[str] = []
    with Follower(log, redact, told.append) as follower:
        for piece in pieces:
            follower.feed(piece)
        return follower.ended(1, 1.0, timed_out=False), told, follower


# ------------------------------------------------------------------------------------ what is told


def test_steps_are_told_as_they_begin_and_pods_as_they_run(tmp_path: Path) -> None:
    ended, told, _ = follow(tmp_path / "run.log", RECORDED)
    assert told == [
        "setting up Prometheus",
        "waiting for Prometheus",
        "Prometheus is ready",
        "step 1: start",
        "step 2: create",
        "step 3: wait",
        "wait: 4 of 4 pods running",
        "step 4: gather",
        "step 5: settle",
        "step 6: gather prom",
        "step 7: delete",
    ]
    assert ended.step == "delete"
    assert ended.said == ""


def test_older_programs_count_pods_in_other_words(tmp_path: Path) -> None:
    told = follow(tmp_path / "run.log", OLDER)[1]
    assert [each for each in told if "pods" in each] == [
        "wait: 0 of 4 pods running", "wait: 2 of 4 pods running", "wait: 4 of 4 pods running",
    ]  # fmt: skip


def test_pods_of_all_deployments_are_counted_together(tmp_path: Path) -> None:
    def counted(deployment: int, counts: str) -> str:
        lister = f"namespace(n-1), controlledBy(d-{deployment})"
        return f"I{HEAD}WaitForControlledPodsRunning: {lister}: {counts}\n"

    output = "".join(
        (
            *(counted(i, "starting with timeout: 30m") for i in range(3)),
            counted(0, "Pods: 2 created, 2 desired, 1 running (1 updated), 1 pending scheduled"),
            counted(1, "Pods: 2 created, 2 desired, 2 running (2 updated), 0 pending scheduled"),
            counted(2, "Pods: 1 created, 2 desired, 0 running (0 updated), 1 pending scheduled"),
            counted(2, "Pods: 2 created, 2 desired, 2 running (2 updated), 0 pending scheduled"),
            # Deleted, no Deployment wants pods any more.
            *(counted(i, "Pods: 2 created, 0 desired, 0 running (0 updated)") for i in range(2)),
            counted(2, "Pods: 1 created, 0 desired, 0 running (0 updated)"),
        )
    )
    assert follow(tmp_path / "run.log", output.encode())[1] == [
        "1 of 6 pods running", "3 of 6 pods running", "5 of 6 pods running",
        "4 of 4 pods running", "2 of 2 pods running", "5 pods left",
    ]  # fmt: skip


def test_what_was_told_is_not_told_again(tmp_path: Path) -> None:
    line = f"I{HEAD}5/6 targets are ready, example not ready target: x\n".encode()
    told = follow(tmp_path / "run.log", line * 20)[1]
    assert told == ["waiting for Prometheus: 5 of 6 targets up"]


# ------------------------------------------------------------------------------ what is written


def test_the_log_is_what_was_printed_but_for_the_kubeconfig(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("what was there before\n", encoding="utf-8")
    follow(log, RECORDED)
    written = log.read_text("utf-8").splitlines()
    printed = RECORDED.decode().splitlines()
    begin = next(i for i, line in enumerate(printed) if "KubeConfig content" in line)
    end = next(i for i, line in enumerate(printed) if i > begin and line.startswith("I1123"))
    assert end - begin > 3
    assert written == [
        "what was there before", *printed[: begin + 1], "imgpull: the kubeconfig is left out here",
        *printed[end:],
    ]  # fmt: skip


@given(st.lists(st.integers(1, len(RECORDED) - 1), max_size=40))
def test_how_output_is_cut_into_pieces_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    text = RECORDED.replace(b"config-new.yaml", f"Bearer {TOKEN} \u00e9\u20ac".encode())
    places = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    whole, cut = follow(directory / "whole", text), follow(directory / "cut", *pieces)
    assert (directory / "whole").read_bytes() == (directory / "cut").read_bytes()
    assert whole[:2] == cut[:2]
    assert TOKEN not in (directory / "cut").read_text("utf-8")


def test_a_line_is_in_the_log_as_soon_as_it_was_printed(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    with Follower(log, redact, lambda _: None) as follower:
        follower.feed(b"first\nsecond, not yet end")
        assert log.read_text("utf-8") == "first\n"
        follower.feed(b"ed\n")
        assert log.read_text("utf-8") == "first\nsecond, not yet ended\n"


@pytest.mark.parametrize("before", [0, 10, 2**16 - 20, 2**16, 2**20 - 10, 2**20 + 7, 3 * 2**20])
def test_a_secret_in_an_endless_line_is_found_wherever_it_stands(
    tmp_path: Path, before: int
) -> None:
    line = b"x" * before + TOKEN.encode() + b"y" * (2**21)
    log = tmp_path / "run.log"
    follow(log, *(line[i : i + 2**16] for i in range(0, len(line), 2**16)))
    written = log.read_text("utf-8")
    assert TOKEN not in written
    assert len(written) == len(line) - len(TOKEN) + len("REDACTED") + 1


def test_output_that_is_no_text_is_followed_all_the_same(tmp_path: Path) -> None:
    ended, told, _ = follow(tmp_path / "run.log", bytes(range(256)) * 10 + b"\xe2\x82")
    assert told == []
    assert ended.tail != ""
    (tmp_path / "run.log").read_text("utf-8")


def test_the_tail_is_short_and_redacted_too(tmp_path: Path) -> None:
    lines = [f"line {i} {TOKEN} {'z' * 5000}\n".encode() for i in range(100)]
    ended = follow(tmp_path / "run.log", *lines)[0]
    assert TOKEN not in ended.tail
    assert ended.tail.startswith("line 70 REDACTED")
    assert len(ended.tail) < 10_000


# ------------------------------------------------------------------------------------ the reason


def test_the_reason_is_what_cl2_said_last_of_all(tmp_path: Path) -> None:
    text = (
        f"E{HEAD}Getting master name error: master node not found\n"
        f"F{HEAD}Test compilation failed: [steps[0].phases[0]: Invalid value: 3: x\n"
        "steps[1]: Forbidden: y]\n"
        f"I{HEAD}afterwards\n"
    )
    ended = follow(tmp_path / "run.log", text.encode())[0]
    assert ended.said == (
        "Test compilation failed: [steps[0].phases[0]: Invalid value: 3: x steps[1]: Forbidden: y]"
    )
    assert "exited 1 after 1 s before the first step: Test compilation" in ended.story()


def test_the_target_that_was_not_up_is_part_of_the_reason(tmp_path: Path) -> None:
    text = (
        f"I{HEAD}4/6 targets are ready, example not ready target: {{map[job:a] down}}\n"
        f"I{HEAD}5/6 targets are ready, example not ready target: {{map[job:kubelet] down}}\n"
        f"F{HEAD}Error while setting up prometheus stack: timed out waiting for the condition\n"
    )
    said = follow(tmp_path / "run.log", text.encode())[0].said
    assert said.startswith("Error while setting up prometheus stack: timed out")
    assert "5/6 targets are ready, example not ready target: {map[job:kubelet] down}" in said


def test_a_target_that_came_up_late_is_no_reason_for_what_broke_later(tmp_path: Path) -> None:
    text = (
        f"I{HEAD}5/6 targets are ready, example not ready target: {{x}}\n"
        f'I{HEAD}Step "[step: 01] Go" started\n'
        f"F{HEAD}7 tests have failed!\n"
    )
    assert follow(tmp_path / "run.log", text.encode())[0].said == "7 tests have failed!"


@pytest.mark.parametrize(
    "line", ["panic: runtime error: x", "fatal error: all goroutines are asleep - deadlock!"]
)
def test_go_breaking_down_is_a_reason(tmp_path: Path, line: str) -> None:
    assert follow(tmp_path / "run.log", f"{line}\n\ngoroutine 1:\n".encode())[0].said == line
