"""A person before the desk, who has clicks, keys and files alone; and axe-core, which judges pages."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from tests.browser.chromium import Browser, Tab

_PATIENCE_SECONDS = 40.0
DESKTOP, PHONE = 1200, 390
_HERE = Path(__file__).parent
# What a link, a button or a field is called, by those who see it and by those who hear it.
_FIND = """(kind, text) => [...document.querySelectorAll(kind)].find((each) =>
  each.checkVisibility() && each.innerText.trim().replace(/\\s+/g, " ").startsWith(text))"""

_JUDGE = """axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => [
  ...violations.map((each) => each.id + ": " + each.nodes.map((node) => node.html.slice(0, 120)).join(" | ")),
  ...[...document.querySelectorAll("thead th")].filter((each) => {
    const cell = each.closest("table").tBodies[0]?.rows[0]?.cells[each.cellIndex];
    return cell && getComputedStyle(cell).textAlign !== getComputedStyle(each).textAlign;
  }).map((each) => "not aligned as its column: " + each.innerText),
  ...(document.documentElement.scrollWidth > document.documentElement.clientWidth ? ["the page scrolls sideways"] : []),
])"""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address at which the application answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def axe_core(folder: Path) -> str:
    """The script of axe-core, which npm installs into the folder. Raises RuntimeError."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_HERE / name, folder)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"axe-core could not be installed with npm: {error}") from None
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


class Person:
    """Someone with a window of their own, as the proxy names them."""

    def __init__(self, browser: Browser, site: str, name: str, groups: str) -> None:
        self.tab: Tab = browser.tab()
        self._site = site
        self.tab.call("Network.setExtraHTTPHeaders", headers={"X-User": name, "X-Groups": groups})
        self.window()

    def window(self, width: int = DESKTOP, height: int = 900, scheme: str = "light") -> None:
        self.tab.size(width, height, scale=1, mobile=width < 700)
        self.tab.media(prefers_color_scheme=scheme)

    def opens(self, path: str) -> None:
        """Type an address, which is the only thing that a person types outside of a page."""
        self.tab.browser.loaded.discard(self.tab.session)
        self.tab.call("Page.navigate", url=f"{self._site}{path}")
        self.tab.browser.wait(lambda: self.tab.session in self.tab.browser.loaded)

    def until(self, expression: str) -> None:
        """Wait until the expression is true in the page, whichever page that is by then."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with suppress(AssertionError):
                # It fails where the page was just left.
                if self.tab.run(expression):
                    return
            # A report is in a sandbox, without timers of its own.
            threading.Event().wait(0.03)
        raise AssertionError(f"not {expression}: {self.text}")

    @property
    def text(self) -> str:
        return str(self.tab.run("document.body.innerText"))

    @property
    def path(self) -> str:
        return str(self.tab.run("location.pathname + location.search"))

    def sees(self, *texts: str) -> None:
        for text in texts:
            self.until(f"document.body.innerText.includes({json.dumps(text)})")

    def _point(self, found: str) -> tuple[float, float]:
        x, y = self.tab.run(
            f"""(() => {{ const each = {found}; each.scrollIntoView({{ block: "center" }});
              const box = each.getClientRects()[0];
              return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
        )
        return x, y

    def _press(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def clicks(self, text: str, kind: str = "a, button, summary") -> None:
        found = f"({_FIND})({json.dumps(kind)}, {json.dumps(text)})"
        self.until(f"document.readyState === 'complete' && !!{found}")
        self._press(*self._point(found))

    def types(self, label: str, text: str) -> None:
        """Click the label, and type into its field what replaces the text there."""
        is_field = "typeof document.activeElement.select === 'function'"
        while not self.tab.run(f"document.readyState === 'complete' && {is_field}"):
            # The page that the last click opened may just be arriving.
            self.clicks(label, "label")
        self.clicks(label, "label")
        self.tab.run("document.activeElement.select()")
        self.tab.call("Input.insertText", text=text)

    def chooses(self, name: str, file: Path) -> None:
        self.until(f"!!document.querySelector('input[name={name}]')")
        self.tab.choose(f"input[name={name}]", file)

    def key(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        self.tab.call(
            "Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text
        )
        self.tab.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def tabs_to(self, text: str) -> None:
        """Press Tab until the focus is on what has this text or name."""
        for _ in range(80):
            self.key("Tab", 9)
            focused = "(document.activeElement.innerText || document.activeElement.name || '').trim()"
            if self.tab.run(f"{focused}.startsWith({json.dumps(text)})"):
                return
        raise AssertionError(f"no Tab reaches {text}")

    def sends(self, button: str, *, done: str = "It is done.") -> None:
        """Press the button of a form, and follow its run to the end or see its preview."""
        before = self.path
        self.clicks(button, "button")
        there = "/^.desk.(runs.|operations.\\w+.preview$)/.test(location.pathname)"
        self.until(f"location.pathname + location.search !== {json.dumps(before)} && {there}")
        self.sees(done)

    def fills(self, fields: Mapping[str, str]) -> None:
        for label, text in fields.items():
            self.types(label, text)

    def judged(self, axe: str) -> list[str]:
        """What is wrong with the page in light and dark, on a desktop and a phone: what axe-core finds by all of its
        rules, headers that are not aligned as their columns, and whether it is wider than the window.
        """
        self.tab.run(axe)
        found = []
        for width in (DESKTOP, PHONE):
            for scheme in ("light", "dark"):
                self.window(width=width, scheme=scheme)
                found += [f"{width} px, {scheme}: {each}" for each in self.tab.run(_JUDGE)]
        self.window()
        return found
