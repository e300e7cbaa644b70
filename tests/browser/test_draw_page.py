"""The public page of a draw in Chromium, from a host of files that knows ranges, and from one that does not."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.selection.site.publish import page_from_folder
from tests.browser.chromium import Browser, Tab
from tests.browser.test_verifier_page import AUDIT, text
from tests.selection.proof.draws import BEACON, outcomes, publish_beside, two_phases

pytestmark = [pytest.mark.slow, pytest.mark.browser]
Visit = Callable[..., Tab]


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Files as S3 serves them. Without `ranges` as Python's own server does: whole files only."""

    ranges = True

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or not self.ranges:
            super().do_GET()
            return
        data = Path(self.translate_path(self.path)).read_bytes()[int(found[1]) : int(found[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class _WholeFiles(_Ranges):
    ranges = False


@contextmanager
def _served(folder: Path, handler: type[_Ranges]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    page_from_folder(publish_beside(two_phases(root / "two", source=BEACON)), root / "out")
    return root / "out"


@pytest.fixture
def visit(chrome: Browser, site: Path) -> Iterator[Visit]:
    tabs: list[Tab] = []

    @contextmanager
    def visiting(ref: str = "", *, width: int = 1280, handler: type[_Ranges] = _Ranges) -> Iterator[Tab]:
        tab = chrome.tab()
        tabs.append(tab)
        tab.size(width, 900, mobile=width < 700)
        with _served(site, handler) as host:
            chrome.loaded.discard(tab.session)
            tab.call("Page.navigate", url=f"{host}/page/index.html{ref and f'#ref={ref}'}")
            chrome.wait(lambda: tab.session in chrome.loaded)
            yield tab
            assert {re.match(r"(?:blob:)?(http://[^/]+)/", each)[1] for each in tab.requests} == {host}
            assert tab.errors == []
            tab.close()

    yield visiting


def _ref(site: Path, outcome: str) -> str:
    return next(ref for ref, found in outcomes(site / "phase-2").items() if found == outcome)


@pytest.mark.parametrize("handler", [_Ranges, _WholeFiles])
@pytest.mark.parametrize(
    ("outcome", "said"), [("WINNER", "Selected: "), ("HOUSEHOLD_LIMIT", "the household’s limit was reached")]
)
def test_a_result_is_looked_up_and_checked(
    visit: Any, site: Path, outcome: str, said: str, handler: type[_Ranges]
) -> None:
    with visit(_ref(site, outcome), handler=handler) as tab:
        assert tab.verdict() == "incomplete", "this draw is in no public log"
        assert said in text(tab, "#answer")
        assert len([each for each in tab.requests if "proofs-" in each]) <= 3


def test_a_reference_that_is_not_in_the_draw_is_proven_absent(visit: Any) -> None:
    with visit("no-such-reference") as tab:
        assert tab.verdict() == "incomplete"
        assert "This reference is not in the draw" in text(tab, "#answer")
        assert "failed" not in text(tab, "#answer").lower()


def test_a_receipt_from_a_file_is_checked(visit: Any, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text('{"kind":"draw"}')
    with visit() as tab:
        tab.choose("#file", tmp_path / "receipt.json")
        assert tab.verdict() == "fails"


def test_the_whole_draw_is_replayed_in_a_worker(visit: Any, site: Path) -> None:
    done = """new Promise((done) => {
      const root = document.documentElement;
      const see = () => root.dataset.replay && done(root.dataset.replay);
      new MutationObserver(see).observe(root, { attributes: true });
      see();
    })"""
    path = site / "phase-2" / "result.txt"
    for changed, verdict, said in (
        (False, "holds", "36 entries, 2 phases"),
        (True, "fails", "phase-2/result.txt: line 1"),
    ):
        data = path.read_bytes()
        if changed:
            path.write_bytes(b"0" + data[1:] if data[:1] != b"0" else b"1" + data[1:])
        with visit() as tab:
            tab.run("document.getElementById('replay').click()")
            assert tab.run(done) == verdict
            assert said in text(tab, "#replayed")
        path.write_bytes(data)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_is_accessible(visit: Any, site: Path, width: int, colours: str) -> None:
    with visit(_ref(site, "WINNER"), width=width) as tab:
        tab.media(prefers_color_scheme=colours)
        tab.verdict()
        found = tab.run(AUDIT)
        # Tables scroll inside their own box. This page needs no header or footer, and two parts of it answer.
        allowed = (
            "wider: t",
            "wider: a#.",
            "wider: code",
            "not 1 header",
            "not 1 footer",
            "not 1 [role=status]",
        )
        inline = [each for each in found if each.startswith("target of") and "a#." in each]
        assert [each for each in found if not each.startswith(allowed) and each not in inline] == []
        assert len(inline) == 1, "a link in a sentence may be as high as its line"
        assert not [each for each in found if "sideways" in each]


def test_without_javascript_everything_but_the_checks_is_there(visit: Any) -> None:
    with visit() as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.browser.loaded.discard(tab.session)
        tab.call("Page.reload")
        tab.browser.wait(lambda: tab.session in tab.browser.loaded)
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
        assert "To check a result in this page, allow its script" in text(tab, "main")
        assert "Odds by market" in text(tab, "main") and not text(tab, "#check")
