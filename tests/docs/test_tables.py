"""Pages show the tables of the code, what its commands say of themselves, and every name that it writes."""

from __future__ import annotations

import re

import pytest

from regworkers_core.domain.events import EventType
from regworkers_core.domain.reasons import Reason
from regworkers_core.settings import PROJECT_ROOT, Names
from tools.write_cli_docs import PAGE, page
from tools.write_tables import TABLES, parts


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_a_table_of_a_page_is_what_the_code_says(page: str, name: str) -> None:
    _, shown, _ = parts(page, name)
    assert shown == TABLES[page, name](), "run `make docs`"


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
