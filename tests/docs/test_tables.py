"""Pages show the tables of the code."""

from __future__ import annotations

import pytest

from tools.write_tables import TABLES, parts


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_a_table_of_a_page_is_what_the_code_says(page: str, name: str) -> None:
    _, shown, _ = parts(page, name)
    assert shown == TABLES[page, name](), "run `make docs`"
