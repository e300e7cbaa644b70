"""The pages of docs/runbooks, taken apart: commands in blocks, commands in sentences, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from regworkers_core.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docs" / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(regworkers [^`]+)`")
_LINK = re.compile(r"\]\(([^)#]+)(?:#([^)]+))?\)")
PLACEHOLDERS = {
    "<campaignId>": "summer",
    "<marketId>": "berlin",
    "<entryId>": "e1",
    "<environment>": "local-dev",
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block."""
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        yield match.group(1), match.group(2)


def commands(page: Path) -> list[str]:
    """Of its bash blocks, one a line, without comments."""
    lines = [line for language, text in blocks(page) if language == "bash" for line in text.splitlines()]
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def in_sentences(page: Path) -> list[str]:
    """Commands in backticks."""
    return _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[tuple[str, str]]:
    """Relative targets with their anchors."""
    return [found for found in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in found[0]]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def words(command: str) -> list[str]:
    """Of a command as a shell would split it, placeholders filled in; the program's name left out."""
    program, *found = shlex.split(command)
    assert program == "regworkers", f"only regworkers is run here: {command}"
    for placeholder, value in PLACEHOLDERS.items():
        found = [word.replace(placeholder, value) for word in found]
    assert not [word for word in found if word.startswith("<")], f"a placeholder without a value: {command}"
    return found
