"""The verifier as one HTML file, the same for every receipt but for the contents of its block `receipt`.

Its policy (CSP) allows its own style and scripts, by their hashes, and files of the host that it comes from, which it
reads for a confirmation only. From disk it has no way to any network.
"""

from __future__ import annotations

import base64
import codecs
import gzip
import hashlib
import re
from functools import cache
from pathlib import Path
from string import Template
from typing import NamedTuple

from fairdraw import __version__
from fairdraw.errors import UsageError
from fairdraw.maths.files import sha256_hex

MAX_BYTES = 150_000
_FOLDER = Path(__file__).parent
# `make verifier` makes what these links lead to; a released wheel has the files. Any other build has neither.
_CURVES, _PACKED = _FOLDER / "curves.js.gz", _FOLDER / "page.js.gz"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_COMMENT_OR_EMPTY = re.compile(r"^ *(?://.*|/\*\*(?:.|\n)*?\*/)?\n", re.MULTILINE)
_COMMENT_IN_STYLE = re.compile(rb"^/\*.*\*/\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|class)", re.MULTILINE)
_POLICY = re.compile(rb'http-equiv="Content-Security-Policy" content="([^"]*)"')
# White space as JSON has it.
_SPACE = b" \t\r\n"
_BLOCK = re.compile(rb'(<script type="application/json" id="receipt">)([^<]*)(</script>)')


def verifier_page(receipt: bytes | None = None, trust: bytes = b"") -> bytes:
    """The page for a receipt in JSON (UTF-8), or the one that asks for a receipt. At most MAX_BYTES without it.

    A valid file of trusted keys in `trust` makes it another page, with a hash of its own: that of its publisher.
    """
    # In JSON `<` is part of texts only, where it may be escaped, and a line feed is never part of one. Without `<` no
    # content ends the block; on one line `sed` can empty it.
    escaped = (receipt or b"").replace(b"<", b"\\u003c").replace(b"\r", b" ").replace(b"\n", b" ")
    return _BLOCK.sub(lambda block: block[1] + escaped + block[3], _page(trust=trust), count=1)


def verifier_hash(*, signatures: bool = True) -> str:
    """The SHA-256 of this build's page without the contents of its block; without `signatures` that of a build of the
    same release that cannot check them.
    """
    return sha256_hex(_page(signatures=signatures))


def verifier_policy() -> str:
    """The policy (CSP) of this build's page, as the page states it."""
    return _POLICY.search(_page())[1].decode()  # type: ignore[index]


def page_hash(page: bytes) -> str:
    """The same of any page. Raises UsageError if it has no block for a receipt."""
    emptied, found = _BLOCK.subn(rb"\1\3", page, count=1)
    if not found:
        raise UsageError('this is not a page of the verifier: it has no block <script ... id="receipt">')
    return sha256_hex(emptied)


def receipt_in(data: bytes) -> bytes:
    """The receipt in a page of the verifier; what is no page is as it is. Raises UsageError for another page."""
    if not data.removeprefix(codecs.BOM_UTF8).lstrip(_SPACE).startswith(b"<"):
        return data
    found = _BLOCK.search(data)
    if found is None or not found[2].strip(_SPACE):
        raise UsageError("this page has no receipt in it: give the page of a receipt, or its JSON")
    return found[2]


def has_signatures() -> bool:
    """Whether this build's page can check signatures: `make verifier` was run since its code changed."""
    return b'type="application/gzip"' in _page()


def module(name: str) -> str:
    """A module and all that it imports as one script, each once and before its importers, without comments."""
    texts: dict[str, str] = {}

    def add(each: str) -> None:
        text = (_FOLDER / each).read_text(encoding="utf-8")
        for needed in _IMPORT.findall(text):
            if needed not in texts:
                add(needed)
        texts[each] = _EXPORT.sub("", _IMPORT.sub("", text)).strip()

    add(name)
    return _COMMENT_OR_EMPTY.sub("", "\n".join(texts.values()))


class Scripts(NamedTuple):
    """Scripts as HTML, and their source in a page's policy (CSP)."""

    html: str
    source: str


def curves_scripts() -> Scripts:
    """What brings the curves that signatures need to another page; empty in a build without them."""
    if not (curves := _unpacked(_CURVES)):
        return Scripts("", "")
    unpack = (_FOLDER / "unpack.js").read_text(encoding="utf-8")
    html = f"{_block(_CURVES, 'text/javascript').decode()}\n<script>{unpack}</script>"
    return Scripts(html, source(curves))


@cache
def _page(*, signatures: bool = True, trust: bytes = b"") -> bytes:
    own, curves = module("page.js").encode(), _unpacked(_CURVES) if signatures else b""
    # After a change of the modules the packed code is that of before.
    if curves and _unpacked(_PACKED) == own:
        unpack = (_FOLDER / "unpack.js").read_bytes()
        scripts = [
            _block(_CURVES, "text/javascript"),
            _block(_PACKED, "module"),
            b"<script>%b</script>" % unpack,
        ]
        allowed = [unpack, curves, own]
    else:
        scripts, allowed = [b'<script type="module">%b</script>' % own], [own]
    style = _COMMENT_IN_STYLE.sub(b"", (_FOLDER / "style.css").read_bytes())
    policy = (
        "default-src 'none'",
        f"script-src {' '.join(map(source, allowed))}",
        f"style-src {source(style)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return (
        Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
        .substitute(
            policy="; ".join(policy),
            style=style.decode(),
            # In base64, because a policy of a log is lines of text.
            trust=base64.b64encode(trust).decode(),
            scripts=b"\n".join(scripts).decode(),
            version=__version__,
        )
        .encode()
    )


def _unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.is_file() else b""


def _block(path: Path, kind: str) -> bytes:
    packed = base64.b64encode(path.read_bytes())
    return b'<script type="application/gzip" data-type="%b">%b</script>' % (kind.encode(), packed)


def source(text: bytes) -> str:
    """What allows this script or style in a policy (CSP)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
