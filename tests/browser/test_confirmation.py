"""A fan's confirmation on the page that checks receipts: from a host of public files, and from disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import pytest

from fairdraw.proof.confirmation import LOOKED_THROUGH
from fairdraw.verifier.assemble import verifier_page
from tests.browser.chromium import Browser, Tab
from tests.browser.conftest import Opened
from tests.browser.test_draw_page import _Ranges, _served
from tests.browser.test_verifier_page import AUDIT, states, text, wait_for
from tests.fairdraw.verifier.confirmations import PublishedList, random_list, witnessed_list

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedList:
    made = witnessed_list(tmp_path_factory.mktemp("lists"))
    trust = (made.trust or "").encode()
    campaign = made.confirmations[0].campaign_id
    for path in (made.folder / "verifier.html", made.folder / "draws" / campaign / "page" / "verifier.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(verifier_page(trust=trust))
    return made


def _is_listed(tab: Tab) -> bool:
    return text(tab, "#headline").startswith("Registered: in the list since 14:")


def _visit(chrome: Browser, tab: Tab, address: str) -> None:
    chrome.loaded.discard(tab.session)
    tab.call("Page.navigate", url=address)
    chrome.wait(lambda: tab.session in chrome.loaded)
    wait_for(tab, "#input")


@pytest.mark.parametrize("path", ["verifier.html", "draws/<id>/page/verifier.html"])
def test_a_confirmation_is_checked_against_the_files_of_the_pages_host(
    chrome: Browser, curves: None, published: PublishedList, tmp_path: Path, path: str
) -> None:
    (tmp_path / "confirmation.json").write_bytes(published.text(0))
    tab = chrome.tab()
    with _served(published.folder, _Ranges) as host:
        address = f"{host}/{path.replace('<id>', published.confirmations[0].campaign_id)}"
        _visit(chrome, tab, address)
        assert tab.requests == [address], "nothing is loaded before a confirmation is given"
        tab.choose("#file", tmp_path / "confirmation.json")
        assert tab.verdict() == "holds" and _is_listed(tab), text(tab, "main")
        assert states(tab) == {"registration": "passed", "log": "passed", "witnesses": "passed"}
        assert "on 1 August 2023, by " in text(tab, "#headline") and text(tab, "#files") == ""
        assert published.confirmations[0].ref in text(tab, "#facts")
        assert "That you take part in the draw" in text(tab, "#trust-list")
        assert all(each.startswith(f"{host}/") for each in tab.requests)
    tab.close()


def test_a_confirmation_that_was_changed_does_not_hold(
    chrome: Browser, curves: None, published: PublishedList, tmp_path: Path
) -> None:
    other = json.loads(published.text(0)) | {"unit": "another household"}
    (tmp_path / "confirmation.json").write_text(json.dumps(other))
    tab = chrome.tab()
    with _served(published.folder, _Ranges) as host:
        _visit(chrome, tab, f"{host}/verifier.html")
        tab.choose("#file", tmp_path / "confirmation.json")
        assert tab.verdict() == "fails"
        assert text(tab, "#headline") == "This confirmation does not hold"
        assert states(tab)["registration"] == "failed"
    tab.close()


class _Broken(_Ranges):
    """A host that cannot read the log's checkpoint."""

    def do_GET(self) -> None:
        if self.path == "/log/checkpoint":
            self.send_error(503)
        else:
            super().do_GET()


def test_a_host_that_cannot_answer_leaves_the_confirmation_unchecked_and_is_named(
    chrome: Browser, curves: None, published: PublishedList, tmp_path: Path
) -> None:
    (tmp_path / "confirmation.json").write_bytes(published.text(0))
    tab = chrome.tab()
    with _served(published.folder, _Broken) as host:
        _visit(chrome, tab, f"{host}/verifier.html")
        tab.choose("#file", tmp_path / "confirmation.json")
        assert tab.verdict() == "incomplete"
        assert text(tab, "#headline") == "Not checked: public files are missing"
        tab.run("document.querySelector('#audit').open = true")
        assert "log/checkpoint could not be read: the host answers 503" in text(tab, "#steps")
    tab.close()


def test_of_a_long_list_the_newest_entries_are_read_and_all_when_the_fan_asks(
    chrome: Browser, curves: None, tmp_path: Path
) -> None:
    made = random_list(Random(4), tmp_path, counts=(600, LOOKED_THROUGH))
    (tmp_path / "verifier.html").write_bytes(verifier_page(trust=(made.trust or "").encode()))
    (tmp_path / "confirmation.json").write_bytes(made.text(0))
    tab = chrome.tab()
    with _served(tmp_path, _Ranges) as host:
        _visit(chrome, tab, f"{host}/verifier.html")
        tab.choose("#file", tmp_path / "confirmation.json")
        assert tab.verdict() and states(tab)["registration"] == "passed"
        assert "in the newest entries alone, from entry" in text(tab, "#trust-list")
        bundles = sum("/tile/entries/" in each and "/registrations/" in each for each in tab.requests)
        tab.run("delete document.documentElement.dataset.verdict")
        tab.run("document.querySelector('#trust-list button').click()")
        assert tab.verdict() and states(tab)["registration"] == "passed"
        assert "newest entries alone" not in text(tab, "#trust-list")
        assert (
            sum("/tile/entries/" in each and "/registrations/" in each for each in tab.requests) > 2 * bundles
        )
    tab.close()


def test_from_disk_the_page_says_what_is_missing_and_takes_a_folder_of_public_files(
    opened: Opened, curves: None, published: PublishedList, tmp_path: Path
) -> None:
    copy = tmp_path / "public"
    for name in ("log", "registrations"):
        shutil.copytree(published.folder / name, copy / name)
    tab = opened(json.loads(published.text(0)), trust=json.loads(published.trust or ""))
    assert tab.verdict() == "incomplete"
    assert text(tab, "#headline") == "Not checked: public files are missing"
    assert "log/keys.json" in text(tab, "#files-missing")
    assert tab.run(AUDIT) == []
    tab.run("delete document.documentElement.dataset.verdict")
    tab.choose("#folder", copy)
    assert tab.verdict() == "holds" and _is_listed(tab), text(tab, "main")
