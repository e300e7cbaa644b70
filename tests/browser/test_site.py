"""The documentation site in Chromium, opened from its folder: nothing is loaded, and the search finds a section."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Browser
from tools.build_site import build

pytestmark = [pytest.mark.slow, pytest.mark.browser]

_FOCUSED = """new Promise((done) => {
  const see = () => document.activeElement.shadowRoot?.activeElement ? done() : requestAnimationFrame(see);
  see();
})"""
# The first address that the search offers; the theme puts its search into a shadow root.
_FIRST_RESULT = """new Promise((done) => {
  const roots = () => [...document.querySelectorAll("*")].flatMap((each) => each.shadowRoot || []);
  const see = () => {
    const found = roots().map((root) => root.querySelector("ol a")).find((link) => link);
    found ? done(found.href) : requestAnimationFrame(see);
  };
  see();
})"""


def test_a_reader_without_a_network_searches_and_sees_the_diagrams(chrome: Browser, tmp_path: Path) -> None:
    site = tmp_path / "site"
    build(site)
    tab = chrome.tab()
    tab.size(1280, 900)
    tab.open(site / "docs" / "architecture.html")
    assert tab.run("document.querySelector('article img').naturalWidth") > 0
    tab.run("document.querySelector('.md-search__button').click()")
    tab.run(_FOCUSED)
    tab.call("Input.insertText", text="redrive dead letter")
    assert "/docs/dead-letters.html?" in tab.run(_FIRST_RESULT)
    assert tab.requests == [] and tab.errors == []
    tab.close()
