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

from fairdraw.large.receipts import build_receipt
from fairdraw.maths.files import canonical_bytes, file_hash
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.selection.public.page import served_policy
from regworkers_core.selection.public.publish import page_from_folder
from regworkers_core.settings import PROJECT_ROOT
from tests.browser.chromium import Browser, Tab
from tests.browser.conftest import shrink
from tests.browser.test_verifier_page import AUDIT, text
from tests.fairdraw.proof.draws import outcomes, publish_beside, two_phases

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
        whole = Path(self.translate_path(self.path)).read_bytes()
        data, sent = self.piece(whole, int(found[1]), int(found[2]))
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {sent}/{len(whole)}")
        self.end_headers()
        self.wfile.write(data)

    def piece(self, whole: bytes, first: int, last: int) -> tuple[bytes, str]:
        """What is sent of a file, and what its header says that it is."""
        return whole[first : last + 1], f"{first}-{last}"

    def log_message(self, *_: Any) -> None:
        pass


class _WholeFiles(_Ranges):
    ranges = False


class _BesideTheUi(_Ranges):
    """As the web application serves it: under a policy of its own."""

    def end_headers(self) -> None:
        if self.path.partition("#")[0].endswith("index.html"):
            self.send_header("Content-Security-Policy", served_policy("index.html"))
        super().end_headers()


class _WholeAsARange(_Ranges):
    def piece(self, whole: bytes, first: int, last: int) -> tuple[bytes, str]:
        return whole, f"0-{len(whole) - 1}"


class _TooShort(_Ranges):
    def piece(self, whole: bytes, first: int, last: int) -> tuple[bytes, str]:
        return whole[first : last - 19], f"{first}-{last}"


class _FromTheStart(_Ranges):
    def piece(self, whole: bytes, first: int, last: int) -> tuple[bytes, str]:
        return whole[: last - first + 1], f"0-{last - first}"


class _OtherLines(_Ranges):
    """Something else is where the tiles should be."""

    def piece(self, whole: bytes, first: int, last: int) -> tuple[bytes, str]:
        return b"0\n".ljust(last - first + 1, b"x"), f"{first}-{last}"


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
    page_from_folder(publish_beside(two_phases(root / "two")), root / "out")
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


@pytest.mark.parametrize("handler", [_Ranges, _WholeFiles, _BesideTheUi])
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


@pytest.mark.parametrize("handler", [_WholeAsARange, _TooShort, _FromTheStart, _OtherLines])
def test_a_host_that_sends_other_bytes_leads_to_no_verdict(
    visit: Any, site: Path, handler: type[_Ranges]
) -> None:
    with visit(_ref(site, "WINNER"), handler=handler) as tab:
        said = _answered(tab)
        assert said.startswith("The proofs could not be read: ") and "iterable" not in said
        assert tab.run("document.documentElement.dataset.verdict") is None


def _answered(tab: Tab) -> str:
    """The answer, once there is one."""
    tab.run("""new Promise((done) => {
      const answer = document.getElementById("answer");
      const see = () => answer.textContent && !answer.textContent.startsWith("Fetching") && done();
      new MutationObserver(see).observe(answer, { childList: true });
      see();
    })""")
    return text(tab, "#answer")


def test_a_receipt_from_a_file_is_checked_also_as_the_page_that_an_entrant_got(
    visit: Any, site: Path, tmp_path: Path
) -> None:
    receipt = canonical_bytes(build_receipt(site, _ref(site, "WINNER")))
    (tmp_path / "receipt.json").write_bytes(receipt)
    (tmp_path / "receipt.html").write_bytes(verifier_page(receipt))
    for name in ("receipt.json", "receipt.html"):
        with visit() as tab:
            tab.choose("#file", tmp_path / name)
            assert tab.verdict() == "incomplete"
            assert "Selected: " in text(tab, "#answer")


def test_a_key_that_is_there_twice_makes_no_receipt(visit: Any, site: Path, tmp_path: Path) -> None:
    receipt = canonical_bytes(build_receipt(site, _ref(site, "WINNER")))
    (tmp_path / "receipt.json").write_bytes(b'{"kind":"excluded",' + receipt[1:])
    with visit() as tab:
        tab.choose("#file", tmp_path / "receipt.json")
        assert "This is no receipt or confirmation" in _answered(tab)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0" * 100, "no text"),
        (b"<html>Not found</html>", "This page has no receipt in it"),
        (b'{"version":4}', "This is JSON, but no receipt or confirmation"),
        (b'{"kind":"draw","version":4}', "This is not a receipt that this page can read"),
    ],
)
def test_what_is_no_receipt_is_called_so_and_accuses_no_one(
    visit: Any, tmp_path: Path, data: bytes, said: str
) -> None:
    (tmp_path / "receipt.json").write_bytes(data)
    with visit() as tab:
        tab.choose("#file", tmp_path / "receipt.json")
        assert said in _answered(tab) and "to an auditor" not in text(tab, "#answer")


def test_on_a_phone_the_whole_reference_and_then_the_answer_are_seen(visit: Any, site: Path) -> None:
    with visit(width=360) as tab:
        tab.run(f"document.getElementById('ref').value = '{_ref(site, 'WINNER')}'")
        assert tab.run(
            "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.getElementById('ref'))"
        )
        bottom, top = (
            tab.run(f"document.querySelector('#check {what}').getBoundingClientRect().{side}")
            for what, side in (("input", "bottom"), ("button", "top"))
        )
        assert top - bottom >= 8
        tab.run("document.querySelector('#check button').click()")
        tab.verdict()
        box = "document.querySelector('#answer .outcome').getBoundingClientRect()"
        assert tab.run(f"{box}.top >= 0 && {box}.bottom <= innerHeight")
        assert tab.run("document.getElementById('answer').role") == "status"


def test_what_cannot_be_a_reference_is_called_so(visit: Any) -> None:
    with visit("no%20reference") as tab:
        assert "A reference has 1 to 64 of the characters" in _answered(tab)


def test_a_page_from_disk_says_that_it_can_fetch_nothing(opened: Any, site: Path) -> None:
    tab = opened(None, page=(site / "page" / "index.html").read_bytes())
    tab.run("document.getElementById('replay').click()")
    assert "A page from disk cannot fetch" in text(tab, "#replayed")
    tab.run("location.hash = '#ref=no-such-reference'")
    assert "A page from disk cannot fetch" in _answered(tab)


REPLAYED = """new Promise((done) => {
  const root = document.documentElement;
  const see = () => root.dataset.replay && done(root.dataset.replay);
  new MutationObserver(see).observe(root, { attributes: true });
  see();
})"""


@pytest.mark.parametrize("handler", [_Ranges, _BesideTheUi])
def test_the_whole_draw_is_replayed_in_a_worker(
    visit: Any, curves: None, site: Path, handler: type[_Ranges]
) -> None:
    path = site / "phase-2" / "result.txt"
    for changed, verdict, said in (
        (False, "holds", "36 entries, 2 phases"),
        (True, "fails", "phase-2/result.txt: line 1"),
    ):
        data = path.read_bytes()
        if changed:
            path.write_bytes(b"0" + data[1:] if data[:1] != b"0" else b"1" + data[1:])
        with visit(handler=handler) as tab:
            tab.run("document.getElementById('replay').click()")
            assert tab.run(REPLAYED) == verdict
            assert said in text(tab, "#replayed")
        path.write_bytes(data)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_is_accessible(visit: Any, site: Path, width: int, colours: str) -> None:
    with visit(_ref(site, "WINNER"), width=width) as tab:
        tab.media(prefers_color_scheme=colours)
        tab.verdict()
        found = tab.run(AUDIT)
        # Tables and plots scroll inside their own box. This page needs no header or footer, and two parts of it answer.
        allowed = (
            "wider: t",
            "wider: img",
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


ANNULLED = {
    "annulledAt": "2026-11-26T08:00:00.000Z",
    "campaignId": "summer",
    "phase": 2,
    "reason": "the wrong list",
}


def test_a_replay_says_first_that_the_draw_was_annulled_and_nothing_in_green(visit: Any, site: Path) -> None:
    phase, page = site / "phase-2", site / "page" / "index.html"
    before = page.read_text()
    annulled = {**ANNULLED, "manifestHash": file_hash(phase / "manifest.json")}
    (phase / "annulled.json").write_bytes(canonical_bytes(annulled))
    listed = '<a href="../phase-2/annulled.json" download>phase-2/annulled.json</a>'
    page.write_text(before.replace("<h2>Files</h2>", f"<h2>Files</h2>{listed}"))
    try:
        with visit() as tab:
            tab.run("document.getElementById('replay').click()")
            assert tab.run(REPLAYED) == "annulled"
            first = tab.run("document.querySelector('#replayed p').textContent")
            assert (
                first.startswith("This draw was annulled: its results do not count")
                and "the wrong list" in first
            )
            assert tab.run("document.querySelectorAll('#replayed .good').length") == 0
    finally:
        page.write_text(before)
        (phase / "annulled.json").unlink()


def test_on_a_phone_every_text_has_12_px_and_no_table_is_covered(visit: Any) -> None:
    with visit(width=390) as tab:
        scales = tab.run(
            "[...document.querySelectorAll('figure img')]"
            ".map((image) => image.getBoundingClientRect().width / image.naturalWidth)"
        )
        assert scales and min(scales) >= 1, "a plot has the size for which its texts were set: 9 pt are 12 px"
        covers = (
            "[...document.querySelectorAll('.wide')].map((each) => getComputedStyle(each).backgroundImage)"
        )
        assert {*tab.run(covers)} == {"none"}
        assert "This page may be forged: check elsewhere" in text(tab, ".trust")


def test_pictures_for_the_docs(
    visit: Any, curves: None, site: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = PROJECT_ROOT / "docs" / "images" if request.config.getoption("--write") else tmp_path
    for name, scheme, width in (
        ("draw-page", "light", 1000),
        ("draw-page-phone", "light", 390),
        ("draw-page-phone-dark", "dark", 390),
    ):
        with visit(_ref(site, "WINNER"), width=width) as tab:
            tab.size(width, 844 if width < 700 else 1400, scale=2 if width < 700 else 1, mobile=width < 700)
            tab.media(prefers_color_scheme=scheme)
            tab.verdict()
            tab.run("innerWidth < 700 ? document.getElementById('answer').scrollIntoView() : scrollTo(0, 0)")
            tab.picture(folder / f"{name}.png")
            shrink(folder / f"{name}.png")
            assert (folder / f"{name}.png").stat().st_size > 10_000


def test_without_javascript_everything_but_the_checks_is_there(visit: Any) -> None:
    with visit() as tab:
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.browser.loaded.discard(tab.session)
        tab.call("Page.reload")
        tab.browser.wait(lambda: tab.session in tab.browser.loaded)
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
        assert "To check a result in this page, allow its script" in text(tab, "main")
        assert "Odds by market" in text(tab, "main") and not text(tab, "#check")
