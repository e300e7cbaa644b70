"""Chromium without a window, over the two pipes of its own protocol (CDP): no port, no driver, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_PATIENCE_SECONDS = 60.0
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def chromium() -> str:
    """The path of an installed Chromium, which is installed first if this is root on Debian. Raises RuntimeError."""
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else NAMES
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (("update",), ("install", "--yes", "--no-install-recommends", "chromium")):
            subprocess.run(["apt-get", "--quiet", *words], env=environment, check=False)
        found = shutil.which("chromium")
    if found is None:
        raise RuntimeError(
            "no Chromium, and it could not be installed with apt-get as root: install Chromium or Chrome, or name its"
            " program in CHROMIUM"
        )
    return found


@dataclass(slots=True)
class Tab:
    """One page of the browser. `requests` and `errors` are what it asked the network for, and what it complained of."""

    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> Any:
        return self.browser.call(method, parameters, self.session)

    def size(self, width: int, height: int, *, scale: float = 1.0, mobile: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=mobile,
        )

    def media(self, kind: str = "", **features: str) -> None:
        """Such as `media(prefers_color_scheme="dark")`, `media("print")`."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=named)

    def open(self, page: Path) -> None:
        """Load a file and wait until its scripts have run."""
        self.browser.loaded.discard(self.session)
        self.call("Page.navigate", url=page.resolve().as_uri())
        self.browser.wait(lambda: self.session in self.browser.loaded)

    def run(self, expression: str) -> Any:
        """The value of an expression in JavaScript, awaited. Raises AssertionError with what it threw."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def verdict(self) -> str:
        """`data-verdict` of the document, once it is there."""
        return str(
            self.run(
                """new Promise((done) => {
                  const root = document.documentElement;
                  const see = () => root.dataset.verdict && done(root.dataset.verdict);
                  new MutationObserver(see).observe(root, { attributes: true });
                  see();
                })"""
            )
        )

    def choose(self, selector: str, file: Path) -> None:
        """Give a file to a file input."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")["result"]
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=node["objectId"])

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def close(self) -> None:
        self.call("Page.close")

    def picture(self, file: Path, *, whole: bool = False) -> None:
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))


class Browser:
    """A running browser. Not thread-safe: answers and events are read while a call waits."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest = b""
        self._last = 0
        self._tabs: dict[str, Tab] = {}
        self._results: dict[int, Any] = {}
        self.loaded: set[str] = set()

    def tab(self) -> Tab:
        """A new empty tab, whose cookies and history are its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", {"url": "about:blank", "browserContextId": context})
        session = self.call("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        tab = self._tabs[session["sessionId"]] = Tab(self, session["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            tab.call(f"{domain}.enable")
        return tab

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> Any:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        number = self._last
        self.wait(lambda: number in self._results)
        answer = self._results.pop(number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def wait(self, done: Any) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not done():
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "Chromium has ended"
            *messages, self._rest = (self._rest + piece).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._results[message["id"]] = message
            return
        tab = self._tabs.get(message.get("sessionId", ""))
        if tab is None:
            return
        method, parameters = message["method"], message["params"]
        if method == "Page.loadEventFired":
            self.loaded.add(tab.session)
        elif method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("file:", "data:")):
                tab.requests.append(url)
        elif method == "Runtime.exceptionThrown":
            tab.errors.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            tab.errors.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            tab.errors.append(json.dumps(parameters["args"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in an empty folder."""
    program = chromium()
    # Chromium reads commands from descriptor 3 and answers on 4; from 10 on, none of ours has these numbers by chance.
    (theirs_in, ours_out), (ours_in, theirs_out) = _pipe(), _pipe()

    def hand_over() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    flags = [*_FLAGS, f"--user-data-dir={folder}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    process = subprocess.Popen(
        [program, *flags, "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=hand_over,
    )
    # Only then the end of the browser is the end of its answers.
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours_out)
        os.close(ours_in)


def _pipe() -> tuple[int, int]:
    low = os.pipe()
    reads, writes = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in low)
    for each in low:
        os.close(each)
    return reads, writes
