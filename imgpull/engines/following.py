"""What ClusterLoader2 prints, as it comes: into the log without secrets, and told in a few words.

Hides klog's lines and CL2's wording at --v=2 (perf-tests clusterloader2 at 4b341544, and Azure's
fork at f1933d032). Output may be anything: cut characters, lines of megabytes, no end of line; it
is followed all the same, and no part of a secret is written before its end is known.
"""

import codecs
import json
import re
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from imgpull.engines.door import Say
from imgpull.engines.running import COMPILED, DRY_RUN_ENDED, Ended, Redact

_TAIL_LINES = 30
_TAIL_LINE = 300  # characters of one line that an error quotes
_SAID = 2000  # characters of the reason
_LONGEST = 2**20  # characters of one line kept together
_HELD_BACK = 2**16  # of such a line: no secret is longer

_KLOG = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ [^ \]]+:\d+\] (.*)", re.DOTALL)
# pkg/test/simple_test_executor.go; the name is quoted as Go does.
_STEP = re.compile(r'Step ("(?:[^"\\]|\\.)*") started')
_STEP_NAME = re.compile(r"\[step: 0*(\d+)\] (.*)", re.DOTALL)
# pkg/measurement/util/wait_for_pods.go and pods.go; the fork says "4 out of 4 created".
_PODS = re.compile(
    r"\w+: (.+?): Pods: (?P<created>\d+)(?: out of (?P<of>\d+))? created, "
    r"(?:(?P<desired>\d+) desired, )?(?P<running>\d+) running"
)
_TARGETS = re.compile(r"(\d+)/(\d+) targets are ready, example not ready target: ", re.DOTALL)
_WAITED_FOR = re.compile(r"\w+: (.+?): starting with timeout: ")
# cmd/clusterloader.go since 2026: the whole kubeconfig follows, credentials included.
_KUBECONFIG = "KubeConfig content:"
_PROMETHEUS = {
    "Setting up prometheus stack": "setting up Prometheus",
    "Waiting for Prometheus stack to become healthy": "waiting for Prometheus",
    "Prometheus stack set up successfully": "Prometheus is ready",
}
_NOT_UP = "Error while setting up prometheus stack"
_CRASH = re.compile(r"panic: |fatal error: |Flag parse failed: |exec .+: |standard_init_linux")


class Follower:
    """Takes output piece by piece. Close it to have the last line."""

    def __init__(self, log: Path, redact: Redact, say: Say) -> None:
        self._redact, self._say = redact, say
        self._file: TextIO = log.open("a", encoding="utf-8", errors="replace", newline="\n")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._in_kubeconfig = False
        self._fatal: list[str] | None = None  # lines of a reason that may go on
        self._reason = self._not_ready = self._told = ""
        # By controller: created, running, wanted; None before CL2 has counted.
        self._pods: dict[str, tuple[int, int, int] | None] = {}
        self.step = ""
        self.lines = 0
        self.compiled = self.ended_dry = False  # of a dry run, which exits 1 either way

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def feed(self, data: bytes) -> None:
        """Take what was printed next; whole lines are in the log when this returns."""
        *lines, rest = (self._rest + self._decoder.decode(data)).split("\n")
        for line in lines:
            self._line(line)
        if len(rest) > _LONGEST:
            # Whole secrets in it are found now, and one at its end when that has come.
            rest = self._redact(rest)
            if not self._in_kubeconfig:
                self._write(rest[:-_HELD_BACK])
            rest = rest[-_HELD_BACK:]
        self._rest = rest
        self._file.flush()

    def note(self, text: str) -> None:
        """Write a line of ours."""
        self._write(f"imgpull: {self._redact(text)}\n")
        self._file.flush()

    def close(self) -> None:
        """Write what has no end of line, and close the log."""
        if self._file.closed:
            return
        try:
            last = self._rest + self._decoder.decode(b"", final=True)
            if last:
                self._line(last)
        finally:
            self._rest = ""
            self._file.close()

    def ended(self, exit_code: int | None, wall_s: float, *, timed_out: bool) -> Ended:
        """How the run ended, after all it printed has been fed."""
        self.close()
        return Ended(
            exit_code, wall_s, timed_out, self.step, self.said(), "\n".join(self._tail)
        )  # fmt: skip

    def said(self) -> str:
        """The reason that CL2 gave for ending early; empty when it gave none."""
        reason = " ".join((self._reason or "\n".join(self._fatal or ())).split())
        if self._not_ready and (not reason or _NOT_UP in reason):
            reason = f"{reason} ({self._not_ready})" if reason else self._not_ready
        return reason if len(reason) <= _SAID else reason[:_SAID] + " …"

    def _write(self, text: str) -> None:
        self._file.write(text)

    def _line(self, line: str) -> None:
        line = self._redact(line.rstrip("\r"))
        klog = _KLOG.match(line)
        if self._in_kubeconfig and klog is None:
            return
        self._in_kubeconfig = False
        self._write(line + "\n")
        self.lines += 1
        if line.strip():
            self._tail.append(line[:_TAIL_LINE])
        if klog is None:
            self._plain(line)
            return
        if self._fatal is not None:
            self._reason, self._fatal = "\n".join(self._fatal), None
        if klog[2].startswith(_KUBECONFIG):
            self._in_kubeconfig = True
            self._write("imgpull: the kubeconfig is left out here\n")
        self._understand(klog[1], klog[2])

    def _plain(self, line: str) -> None:
        """A line without klog's head: the reason goes on, or Go itself gives one."""
        if self._fatal is not None:
            if sum(map(len, self._fatal)) < _SAID:
                self._fatal.append(line)
        elif not self._reason and _CRASH.match(line):
            self._reason = line

    def _understand(self, severity: str, text: str) -> None:
        if severity == "F":
            self._fatal = [text]
            self.ended_dry = text.startswith(DRY_RUN_ENDED)
        elif text.startswith(COMPILED):
            self.compiled = True
        elif step := _STEP.match(text):
            self._begin(step[1])
        elif pods := _PODS.match(text):
            self._count(pods)
        elif waited_for := _WAITED_FOR.match(text):
            self._pods.setdefault(waited_for[1], None)
        elif targets := _TARGETS.match(text):
            self._not_ready = text
            self._tell(f"waiting for Prometheus: {targets[1]} of {targets[2]} targets up")
        else:
            for words, told in _PROMETHEUS.items():
                if text.startswith(words):
                    self._tell(told)

    def _begin(self, quoted: str) -> None:
        try:
            text = str(json.loads(quoted))
        except ValueError:  # Go escapes a few characters in its own way
            text = quoted.strip('"')
        name = _STEP_NAME.fullmatch(text)
        self.step = name[2] if name else text
        self._not_ready = ""
        self._tell(f"step {name[1]}: {name[2]}" if name else text)

    def _count(self, pods: re.Match[str]) -> None:
        """Pods of one controller; CL2 tells of each only when its own count has changed."""
        counts = pods["created"], pods["running"], pods["desired"] or pods["of"] or "0"
        self._pods[pods[1]] = (int(counts[0]), int(counts[1]), int(counts[2]))
        known = [each for each in self._pods.values() if each is not None]
        created, running, wanted = map(sum, zip(*known, strict=True))
        # Those not counted yet want as many as the others: Deployments of one test are alike.
        wanted += (len(self._pods) - len(known)) * max(each[2] for each in known)
        told = f"{running} of {wanted} pods running" if wanted else f"{created} pods left"
        self._tell(f"{self.step}: {told}" if self.step else told)

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self._say(words)
