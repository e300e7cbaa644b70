"""docs/contracts.md names what the code writes."""

from __future__ import annotations

import re

import pytest

from regworkers_core.domain.events import EventType
from regworkers_core.domain.reasons import Reason
from regworkers_core.settings import PROJECT_ROOT
from regworkers_core.settings.model import Names

PAGE = (PROJECT_ROOT / "docs/contracts.md").read_text(encoding="utf-8")
_SOURCES = [path.read_text(encoding="utf-8") for path in (PROJECT_ROOT / "regworkers_core").rglob("*.py")]
_NAMED = re.compile(r'(?:database\[|_collection\(\w+, )"(\w+)"')
COLLECTIONS = sorted({name for text in _SOURCES for name in _NAMED.findall(text)})


@pytest.mark.parametrize("name", COLLECTIONS)
def test_every_collection_is_on_the_page(name: str) -> None:
    assert f"\n| `{name}` |" in PAGE


@pytest.mark.parametrize("name", [*EventType, *Reason])
def test_every_event_type_and_reason_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_table_queue_and_topic_is_on_the_page() -> None:
    names = Names("")
    wanted = {names.demand_table, names.lease_table, *names.queues, *names.topics}
    assert wanted == {name for name in wanted if f"`{name}`" in PAGE}


def test_the_collections_are_found_in_the_code() -> None:
    assert {"entries", "draws", "outbox", "operator_actions"} <= set(COLLECTIONS)
