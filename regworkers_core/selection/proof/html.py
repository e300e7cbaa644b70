"""A receipt as one page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from regworkers_core.selection.proof.check import ReceiptChecked
from regworkers_core.selection.proof.parts import Check
from regworkers_core.selection.proof.wording import essentials, headline, step, values

_STYLE = """
:root { color-scheme: light dark; --back: #f5f5f2; --card: #fff; --text: #1c1c1a; --soft: #5f5f58;
  --line: #dcdcd5; --good: #17693a; --bad: #a3261c; }
@media (prefers-color-scheme: dark) { :root { --back: #161614; --card: #21211e; --text: #ecece6;
  --soft: #a5a59b; --line: #3b3b36; --good: #74cf97; --bad: #ff9187; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 44rem; margin: 0 auto; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem 1.2rem; margin-bottom: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.1rem; margin: 0 0 .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
ol { list-style: none; margin: 0; padding: 0; }
li { padding: .5rem 0 .5rem 1.8rem; border-top: 1px solid var(--line); position: relative; }
li:first-child { border-top: 0; }
.mark { position: absolute; left: 0; font-weight: 700; }
.good { color: var(--good); } .bad { color: var(--bad); }
.detail { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; white-space: pre-line; }
p { margin: 0 0 .6rem; } p:last-child { margin: 0; }
summary { cursor: pointer; font-weight: 600; }
.values dt { margin-top: .5rem; } .values { display: block; margin-top: .6rem; }
code { font: .82rem/1.4 ui-monospace, monospace; }
@media print { body { background: none; } section, header { break-inside: avoid; } }
"""


def page(receipt: Mapping[str, Any], checked: ReceiptChecked) -> str:
    """The whole HTML document of a receipt and its check."""
    verdict = (
        '<p class="good">Every check of this receipt holds.</p>'
        if checked.passed
        else '<p class="bad">This receipt does not hold: see below.</p>'
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="robots" content="noindex">\n'
        f"<title>{escape(headline(receipt))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header>\n<h1>{escape(headline(receipt))}</h1>\n{_list(essentials(receipt))}\n</header>\n"
        f"<section>\n<h2>Checked, step by step</h2>\n{verdict}\n<ol>\n{_steps(checked.checks)}</ol>\n</section>\n"
        f"<section>\n<h2>What the randomness guarantees</h2>\n<p>{escape(receipt['guarantee'])}</p>\n</section>\n"
        f"<section>\n<h2>What a receipt cannot prove alone</h2>\n{_paragraphs(checked.limits)}</section>\n"
        f"<section>\n<details>\n<summary>All values, to compute it yourself</summary>\n"
        f"{_list(values(receipt), code=True)}\n</details>\n</section>\n</main>\n</body>\n</html>\n"
    )


def _list(lines: Iterable[tuple[str, str]], *, code: bool = False) -> str:
    before, after = ("<code>", "</code>") if code else ("", "")
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{before}{escape(value)}{after}</dd>\n" for name, value in lines
    )
    return f'<dl class="{"values" if code else "facts"}">\n{rows}</dl>'


def _steps(checks: Iterable[Check]) -> str:
    return "".join(
        f'<li><span class="mark {"good" if each.passed else "bad"}">{"✓" if each.passed else "✗"}</span>'
        f'{escape(step(each.name))}<div class="detail">{escape(each.detail)}</div></li>\n'
        for each in checks
    )


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>\n" for text in texts)
