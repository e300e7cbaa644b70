"""Every command that a page shows exists, with the options that it shows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from regworkers_core.cli.main import build
from regworkers_core.settings import PROJECT_ROOT
from tests.docs.test_pages import PAGES

_FENCE = re.compile(r"^ *```(?:sh|bash|text)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(regworkers [^`]+)`")
_VARIABLES = re.compile(r"^(?:[A-Z_]+=\S*\s+)+")
# Generated from the commands, and a record of former ones.
_SKIPPED = {PROJECT_ROOT / "docs/cli.md", PROJECT_ROOT / "CHANGELOG.md"}


def commands(page: Path) -> list[str]:
    """Commands of blocks, without comments, pipes and variables, and those in backticks."""
    text = page.read_text(encoding="utf-8")
    parts = [part for block in _FENCE.findall(text) for part in re.split(r"\n|&&|;|\|", block)]
    found = [_VARIABLES.sub("", part.partition(" #")[0].strip()) for part in parts]
    inline = [" ".join(command.split()).partition(" | ")[0] for command in _INLINE.findall(text)]
    return [command for command in (*found, *inline) if command.startswith("regworkers ")]


@cache
def _all_commands() -> Any:
    return typer.main.get_command(build())


def unknown(command: str) -> str:
    """The first word that no command or option has, empty if there is none."""
    found, words = _all_commands(), command.split()[1:]
    while (group := getattr(found, "commands", None)) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        if words[0] not in group:
            return "" if "|" in words[0] else words[0]
        found, words = group[words[0]], words[1:]
    hidden = {
        name
        for each in found.params
        if getattr(each, "hidden", False)
        for name in (*each.opts, *each.secondary_opts)
    }
    options = {name for each in found.params for name in (*each.opts, *each.secondary_opts)} - hidden
    shown = re.findall(r"(?<![\w-])--[a-z][a-z-]*", command)
    return next((option for option in shown if option not in {*options, "--help", "--version"}), "")


@pytest.mark.parametrize(
    "page", sorted({*PAGES} - _SKIPPED), ids=lambda page: str(page.relative_to(PROJECT_ROOT))
)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    for command in commands(page):
        assert not unknown(command), command


def test_an_unknown_command_or_option_is_noticed() -> None:
    assert not unknown("regworkers reconcile --repair --apply")
    assert unknown("regworkers nonsense") == "nonsense"
    assert unknown("regworkers dlq nonsense replication") == "nonsense"
    assert unknown("regworkers reconcile --nonsense") == "--nonsense"
