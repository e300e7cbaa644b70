"""One Chromium for all tests, and the pages that it opens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fairdraw.verifier.assemble import has_signatures, verifier_page
from tests.browser.chromium import Browser, Tab, browser, chromium

Opened = Callable[..., Tab]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write", action="store_true", help="write the pictures of docs/images")


def shrink(picture: Path) -> None:
    """Fewer colours, without a visible difference, for the docs."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, format="PNG", optimize=True)


@pytest.fixture(scope="session")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    try:
        chromium()
    except RuntimeError as missing:
        pytest.exit(str(missing), 1)
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="session")
def curves() -> None:
    if not has_signatures():
        pytest.skip("this page cannot check signatures: run `make verifier` first")


@pytest.fixture
def opened(chrome: Browser, tmp_path: Path) -> Iterator[Opened]:
    """Opens the page with a receipt (or None) from disk. At the end no page has asked for anything, or complained."""
    tabs: list[Tab] = []

    def open_(receipt: Any, *, width: int = 390, page: bytes | None = None, trust: Any = None) -> Tab:
        tab = chrome.tab()
        tabs.append(tab)
        tab.size(width, 844 if width < 700 else 900, scale=2, mobile=width < 700)
        file = tmp_path / f"receipt-{len(tabs)}.html"
        data = None if receipt is None else json.dumps(receipt).encode()
        inside = b"" if trust is None else json.dumps(trust).encode()
        file.write_bytes(verifier_page(data, inside) if page is None else page)
        tab.open(file)
        return tab

    yield open_
    for tab in tabs:
        assert tab.requests == [] and tab.errors == []
        tab.close()
