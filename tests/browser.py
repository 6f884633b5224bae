"""A headless Chromium, controlled through the pipes of its DevTools protocol."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_TIMEOUT_SECONDS = 60
_HARMLESS = ("Canvas2D: Multiple readback operations",)  # of tests, which read the canvases of a page


class Browser:
    """A browser page with a new profile; `events` are the notifications it sent."""

    def __init__(self, profile: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._number = 0
        self._buffer = b""
        theirs, self._write = os.pipe()
        self._read, their_write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        redirected = f'exec "$@" 3<&{theirs} 4>&{their_write}'
        command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", *command],
            pass_fds=(theirs, their_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(their_write)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        end = time.monotonic() + _TIMEOUT_SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive(end)

    @property
    def problems(self) -> list[str]:
        """Exceptions, errors and warnings of the browser, and messages on the console since a page was opened."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        texts = [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]
        return [text for text in texts if not any(name in text for name in _HARMLESS)]

    def resize(self, width: int, scheme: str) -> None:
        """Make the window so wide, and ask pages for the "light" or "dark" colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def key(self, key: str) -> None:
        """Press and release a key, such as "n" or "ArrowDown"."""
        typed = "\r" if key == "Enter" else key if len(key) == 1 else ""
        text = {"text": typed} if typed else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))

    def save_to(self, folder: Path) -> None:
        """Save downloads into a folder."""
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + _TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < end, "the browser does not do it"
            time.sleep(0.02)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method of the protocol on the page."""
        return self._call(method, self._session, **parameters)

    def close(self) -> None:
        """Stop the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _call(self, method: str, session: str | None = None, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {} if session is None else {"sessionId": session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message
