"""Every page of the documentation: links, paths and lines, the tables that code writes, and the commands it shows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from regworkers_core.cli.main import build
from regworkers_core.domain.events import EventType
from regworkers_core.domain.reasons import Reason
from regworkers_core.settings import PROJECT_ROOT, Names
from tests.operations.runbooks.pages import anchors, links
from tools.build_site import pages
from tools.write_cli_docs import PAGE, every_command, example, page
from tools.write_tables import TABLES, parts

PAGES = pages()
MAX_WIDTH = 100
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_PATH = re.compile(
    r"`((?:fairdraw|regworkers_(?:core|dagster|local)|docs|tests|deploy|configs|tools|benchmarks)/[\w./-]+)`"
)
# Generated.
_UNWRAPPED = {PROJECT_ROOT / name for name in ("docs/cli.md",)}
# Within the core a page may leave `regworkers_core/` out.
_CORE_PATH = re.compile(
    r"`((?:adapters|analytics|cli|domain|drains|eligibility|engine|infrastructure|observability|operations|replication"
    r"|reporting|selection|settings)/[\w/]+\.py)`"
)
# Written by a command, not committed.
_GENERATED = ("deploy/generated/",)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))


@each_page
def test_every_relative_link_leads_to_a_file_and_an_anchor_in_it(page: Path) -> None:
    for target, anchor in links(page):
        found = (page.parent / target).resolve()
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@each_page
def test_every_link_within_a_page_leads_to_a_heading(page: Path) -> None:
    for anchor in re.findall(r"\]\(#([^)]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors(page), anchor


@each_page
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in (*_PATH.findall(text), *(f"regworkers_core/{name}" for name in _CORE_PATH.findall(text))):
        assert name.startswith(_GENERATED) or (PROJECT_ROOT / name).exists(), name


@pytest.mark.parametrize("page", sorted({*PAGES} - _UNWRAPPED), ids=lambda page: page.name)
def test_prose_is_wrapped(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    long = [line for line in prose if len(line) > MAX_WIDTH and not line.startswith(("|", "#", "![", "<!--"))]
    assert not long, f"wrap at {MAX_WIDTH} characters"


def test_every_page_is_reached_from_the_index() -> None:
    index = PROJECT_ROOT / "docs/index.md"
    reached, new = {index}, [index]
    while new:
        page = new.pop()
        found = {(page.parent / target).resolve() for target, _ in links(page) if target.endswith(".md")}
        new += found - reached
        reached |= found
    assert {*PAGES} - reached <= {PROJECT_ROOT / name for name in ("CHANGELOG.md", "SECURITY.md")}


def test_the_readme_fits_into_80_lines() -> None:
    assert len((PROJECT_ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


# Commands of the operations manual of the Lambdas, as an operator types them into a search.
LITERALS = (
    "npx run",
    "yarn upgrade-interactive",
    "terramisu apply",
    "aws stepfunctions start-execution",
    "start-message-move-task",
    "receive-message",
    "reserved_concurrent_executions",
    "batch_size",
    "redis-cli",
    "template:update",
    "get-function-configuration",
    "uploadInvites",
    "needsReplication",
    "alert cert expiration",
    "certs generate",
    "find-resources",
)


@pytest.mark.parametrize("literal", LITERALS)
def test_a_command_of_the_manual_is_found_by_its_own_words(literal: str) -> None:
    assert literal in (PROJECT_ROOT / "docs" / "manual.md").read_text("utf-8")


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_a_table_of_a_page_is_what_the_code_says(page: str, name: str) -> None:
    _, shown, _ = parts(page, name)
    assert shown == TABLES[page, name](), "run `make docs`"


def test_every_command_has_an_example_with_all_that_it_requires_and_each_option_of_its_own() -> None:
    text = page()
    for path, command in every_command():
        words, required = example(path, command), [each for each in command.params if each.required]
        assert f"\n```sh\n{words}\n```\n" in text and words.startswith(path)
        options = [each.opts[0] for each in required if each.param_type_name != "argument"]
        assert [each for each in options if f" {each} " not in words] == []
        section = text.split(f"\n### {path.removeprefix('regworkers ')}\n")[1].split("\n### ")[0]
        assert [
            each.opts[0]
            for each in command.params
            if f"`{each.opts[0]}" not in section and each.opts[0].startswith("--") and not each.hidden
        ] == [], path


def test_the_page_of_the_command_line_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


CONTRACTS = (PROJECT_ROOT / "docs/contracts.md").read_text(encoding="utf-8")
_SOURCES = [path.read_text(encoding="utf-8") for path in (PROJECT_ROOT / "regworkers_core").rglob("*.py")]
_NAMED = re.compile(r'(?:database\[|_collection\(\w+, )"(\w+)"')
COLLECTIONS = sorted({name for text in _SOURCES for name in _NAMED.findall(text)})


@pytest.mark.parametrize("name", COLLECTIONS)
def test_every_collection_is_on_the_page(name: str) -> None:
    assert f"\n| `{name}` |" in CONTRACTS


@pytest.mark.parametrize("name", [*EventType, *Reason])
def test_every_event_type_and_reason_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in CONTRACTS


def test_every_table_queue_and_topic_is_on_the_page() -> None:
    names = Names("")
    wanted = {names.demand_table, names.lease_table, *names.queues, *names.topics}
    assert wanted == {name for name in wanted if f"`{name}`" in CONTRACTS}


def test_the_collections_are_found_in_the_code() -> None:
    assert {"entries", "draws", "outbox", "operator_actions"} <= set(COLLECTIONS)


_COMMANDS = re.compile(r"^ *```(?:sh|bash|text)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(regworkers [^`]+)`")
_VARIABLES = re.compile(r"^(?:[A-Z_]+=\S*\s+)+")
# A record of former commands.
_SKIPPED = {PROJECT_ROOT / "CHANGELOG.md"}


def commands(page: Path) -> list[str]:
    """Commands of blocks, without comments, pipes and variables, and those in backticks."""
    text = page.read_text(encoding="utf-8")
    parts = [part for block in _COMMANDS.findall(text) for part in re.split(r"\n|&&|;|\|", block)]
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
