"""Every runbook that the table names is a page."""

from __future__ import annotations

import pytest

from regworkers_core.operations.alerts.conditions import TABLE, availability, work
from regworkers_core.settings import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
# Pages that single findings name in place of their condition's.
MORE = (*availability._PAGES.values(), *work._PAGES.values(), "dead-letters.md")


@pytest.mark.parametrize("page", sorted({*(each.runbook for each in TABLE), *MORE}))
def test_every_runbook_is_a_page(page: str) -> None:
    assert (DOCS / "runbooks" / page).is_file()


def test_scopes_are_unique() -> None:
    names = [each.name for each in TABLE]
    assert len(set(names)) == len(names) and not any(":" in name for name in names)
