"""A headless Chromium for tests: it loads a page and tells what happened in it.

Hides the DevTools protocol over a pipe (no port, no library): requests go to the browser's
descriptor 3, answers and events come back on 4, each ended by a NUL.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 60.0  # two busy cores start a browser in 10


class Page:
    """One tab. `requests` are the URLs asked for, `complaints` console errors and exceptions."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer = write, read, b""
        self._number, self._session = 0, ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._loaded = 0
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")
        self.size(1280, 800)

    def size(self, width: int, height: int) -> None:
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def media(self, *, dark: bool = False, printed: bool = False) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        kind = "print" if printed else ""  # its own choice
        self._ask("Emulation.setEmulatedMedia", media=kind, features=features)

    def scripts(self, *, run: bool) -> None:
        self._ask("Emulation.setScriptExecutionDisabled", value=not run)

    def load(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        before = self._loaded
        self._ask("Page.navigate", url=path.absolute().as_uri())
        ends = time.monotonic() + LIMIT_S
        while self._loaded == before:
            self._take(self._next(ends))

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth in the page."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key in what has the focus."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, **text)

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self._ask("Page.printToPDF", printBackground=False)["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + LIMIT_S
        while True:
            answer = self._next(ends)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            self._take(answer)

    def _next(self, ends: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(ends - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(f"the browser said nothing for {LIMIT_S:g} s")
            part = os.read(self._read, 1 << 16)
            if not part:
                raise ConnectionError("the browser has ended")
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        name, told = event.get("method"), event.get("params", {})
        if name == "Page.loadEventFired":
            self._loaded += 1
        elif name == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif name == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(told["args"]))
        elif name == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(told["entry"]))


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A browser of its own with one empty page; the test is skipped where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def arrange() -> None:  # the browser expects its pipe at 3 and 4
        os.dup2(to_read, 100)
        os.dup2(from_write, 101)
        os.dup2(100, 3)
        os.dup2(101, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                program, "--headless", "--remote-debugging-pipe", "--no-first-run",
                "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
                f"--user-data-dir={profile}",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),  # root has none to give up
            ],
            preexec_fn=arrange, close_fds=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(to_write, from_read)
        finally:
            process.terminate()
            process.wait(30)
            os.close(to_write)
            os.close(from_read)
