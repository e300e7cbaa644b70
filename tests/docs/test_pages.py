"""Every page of the documentation: its links lead somewhere, its paths exist, its lines are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regworkers_core.settings import PROJECT_ROOT
from tests.operations.runbooks.pages import anchors, links

PAGES = sorted(
    [
        *(PROJECT_ROOT / "docs").rglob("*.md"),
        *PROJECT_ROOT.glob("*.md"),
        *(PROJECT_ROOT / folder / "README.md" for folder in ("deploy", "benchmarks")),
    ]
)
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
