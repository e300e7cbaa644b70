"""The page as bytes: one for all receipts, none of which leaves its block, under a policy that names its scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fairdraw.errors import UsageError
from fairdraw.proof.receipt_view import STEPS
from fairdraw.verifier import assemble
from fairdraw.verifier.assemble import (
    MAX_BYTES,
    has_signatures,
    module,
    page_hash,
    verifier_hash,
    verifier_page,
)
from regworkers_core.settings import PROJECT_ROOT
from tools.build_verifier import PAGES, STATED

OPENING = b'<script type="application/json" id="receipt">'
HOSTILE = (
    "</script><script>alert(1)</script><!--<script><img src=x onerror=alert(1)>",
    "</SCRIPT >\r\n<style>",
    "]]>\u2028\u2029 é \\",
)


class Parts(HTMLParser):
    """The elements of a page, with the text of each script and style."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("script", "style"):
            self.texts.append((dict(attrs), ""))
        elif ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            attributes, text = self.texts[-1]
            self.texts[-1] = attributes, text + data


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build whose curves are one line, in a folder with `curves.js.gz` and `page.js.gz`."""
    (tmp_path / "curves.js.gz").write_bytes(gzip.compress(b"var curves={};"))
    (tmp_path / "page.js.gz").write_bytes(gzip.compress(module("page.js").encode()))
    monkeypatch.setattr(assemble, "_CURVES", tmp_path / "curves.js.gz")
    monkeypatch.setattr(assemble, "_PACKED", tmp_path / "page.js.gz")
    assemble._page.cache_clear()
    yield tmp_path
    assemble._page.cache_clear()


def scripts(page: bytes) -> list[str]:
    """The scripts of a page as they run, packed ones unpacked."""
    found = []
    for attributes, text in Parts(page).texts:
        if attributes.get("type") == "application/gzip":
            found.append(gzip.decompress(base64.b64decode(text)).decode())
        elif attributes.get("type") in (None, "module") and text:
            found.append(text)
    return found


def test_a_trust_file_inside_makes_another_page_whose_receipts_are_the_only_difference() -> None:
    trust = "log é+</script>\nquorum none\n".encode()
    page = verifier_page(b"{}", trust)
    (inside,) = [text for attributes, text in Parts(page).texts if attributes.get("id") == "trusted"]
    assert base64.b64decode(inside) == trust
    assert Parts(page).tags == Parts(verifier_page()).tags
    assert page_hash(page) == page_hash(verifier_page(trust=trust)) != verifier_hash()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_content_of_a_receipt_leaves_its_block(text: str) -> None:
    receipt = {"guarantee": text, text: [text]}
    page, empty = Parts(verifier_page(json.dumps(receipt, indent=1).encode())), Parts(verifier_page())
    assert page.tags == empty.tags and page.attributes == empty.attributes
    block = next(text for attributes, text in page.texts if attributes.get("id") == "receipt")
    assert json.loads(block) == receipt and "\n" not in block


def test_pages_differ_in_the_block_alone_and_have_one_hash() -> None:
    empty = verifier_page()
    before, after = empty.split(OPENING)
    for receipt in (b"{}", json.dumps({"ref": HOSTILE[0]}).encode(), b"no JSON </script>", b"{" * 100_000):
        page = verifier_page(receipt)
        assert page.startswith(before + OPENING) and page.endswith(after)
        assert page_hash(page) == verifier_hash() == hashlib.sha256(empty).hexdigest()
    assert page_hash(empty.replace(b"width=device-width", b"width=device-height")) != verifier_hash()
    forged = verifier_page(b"{}").replace(b"{}", b"{}</script ><h1>It holds</h1>")
    with pytest.raises(UsageError, match="no block"):
        page_hash(forged)


def test_the_policy_allows_the_pages_own_style_and_scripts_and_nothing_else(built: Path) -> None:
    for page in (verifier_page(b"{}"), _without_curves()):
        parts = Parts(page)
        allowed = set(re.findall(r"'sha256-([^']+)'", parts.policy))
        style = next(text for attributes, text in parts.texts if not attributes)
        texts = {*scripts(page), style}
        assert allowed == {base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts}
        rules = parts.policy.split("; ")
        for part in ("default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"):
            assert part in rules
        assert "unsafe" not in parts.policy and "http" not in parts.policy
        loads = [value for name, value in parts.attributes if name in ("src", "srcset", "href", "action")]
        assert loads == ["data:,"] and not re.search(r"url\(|@import", style)
        assert not [name for name, _ in parts.attributes if name.startswith("on") or name == "style"]


def _without_curves() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "_CURVES", Path("none"))
        assemble._page.cache_clear()
        page = verifier_page()
        assert not has_signatures()
    assemble._page.cache_clear()
    return page


def test_with_curves_the_page_carries_the_same_code_packed_unless_that_is_of_before_a_change(
    built: Path,
) -> None:
    assert has_signatures()
    packed = [each for each in scripts(verifier_page()) if "STRINGS" in each]
    (plain,) = [each for each in scripts(_without_curves()) if "STRINGS" in each]
    assert packed == [plain] == [module("page.js")]
    (built / "page.js.gz").write_bytes(gzip.compress(b"// what it was before"))
    assemble._page.cache_clear()
    assert not has_signatures() and b"what it was" not in b"".join(
        s.encode() for s in scripts(verifier_page())
    )
    assert verifier_page() == _without_curves()


def test_the_page_has_at_most_150_kb_with_curves_and_a_third_more_unpacked_without() -> None:
    assert len(verifier_page()) <= MAX_BYTES or not has_signatures()
    assert len(_without_curves()) <= 4 * MAX_BYTES // 3


def test_the_docs_say_how_to_compare_a_page_without_our_software(built: Path) -> None:
    text = (PROJECT_ROOT / "docs" / "fairness.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^  sed .*\n.*sha256sum", text, re.MULTILINE)

    def hash_of(page: bytes) -> str:
        (built / "receipt.html").write_bytes(page)
        done = subprocess.run(command, shell=True, cwd=built, capture_output=True, text=True, check=True)
        return done.stdout.split()[0]

    for receipt in (b'{"ref":"</script>"}', b"{}", None):
        assert hash_of(verifier_page(receipt)) == verifier_hash()
    plain = _without_curves()
    assert hash_of(plain.replace(OPENING, OPENING + b"{}")) == hashlib.sha256(plain).hexdigest()
    # What shows a tick without any check: text behind a tag of the page, and a further block.
    tick = b"THIS RECEIPT HOLDS."
    for forged in (
        *(verifier_page(b"{}").replace(tag, tag + b'id="receipt">' + tick) for tag in (b"<main>", b"<head>")),
        verifier_page(b"{}").replace(b"<main>", b"<main>\n" + OPENING + b"</script>"),
        verifier_page(b"{}").replace(OPENING, OPENING + b"</script><h1>" + tick + b"</h1><script>"),
    ):
        assert hash_of(forged) != verifier_hash()


def test_the_modules_become_one_script_without_imports_and_with_each_name_once() -> None:
    script = module("page.js")
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    names = Counter(re.findall(r"^(?:async )?(?:function\*?|const|let|class) ([\w$]+)", script, re.MULTILINE))
    assert names["checkReceipt"] == 1 and not {name for name, times in names.items() if times > 1}
    assert "</script" not in script.lower() and "<!--" not in script


def test_every_step_has_its_words() -> None:
    words = (Path(assemble.__file__).parent / "strings.js").read_text(encoding="utf-8")
    steps = words[words.index("  steps: {") :]
    for name in {*STEPS, "outcome", "result", "strike"}:
        block = re.search(rf'^    "?{name}"?: \{{(.*?)^    \}}', steps, re.MULTILINE | re.DOTALL)
        assert block, name
        assert {"title", "fan", "failed", "auditor"} <= {
            *re.findall(r"^      (\w+):", block[1], re.MULTILINE)
        }


@pytest.mark.skipif(
    not has_signatures(), reason="the docs state the page of a release: `make verifier` first"
)
def test_the_docs_state_the_hash_of_the_release() -> None:
    for page in PAGES:
        assert STATED.findall(page.read_text(encoding="utf-8")) == [verifier_hash()], f"make verifier: {page}"
