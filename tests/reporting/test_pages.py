"""Pages escape every value, need nothing from elsewhere, and are part of the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from regworkers_core import reporting
from regworkers_core.reporting import cell, counted, markdown_table, page, percent
from regworkers_core.settings import PROJECT_ROOT

TEMPLATES = Path(reporting.__file__).parent / "templates"
HOSTILE = "<script>alert(1)</script>\"'&"


def upload(**changes: object) -> str:
    values = {"title": "Upload", "nonce": "n", "address": "/uploads/", "who": "ada", "most_mib": 5, **changes}
    return page("upload", **values)


def test_every_value_is_escaped_in_text_in_an_attribute_and_in_a_script() -> None:
    shown = upload(who=HOSTILE, nonce=HOSTILE, address=HOSTILE)
    assert shown.count("<script") == 1 and "alert(1)</script>" not in shown
    assert "Signed in as &lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;." in shown


def test_a_value_that_a_template_needs_and_does_not_get_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        page("base")


def test_every_page_has_the_one_style_sheet_for_light_and_dark() -> None:
    shown = upload()
    assert shown.startswith("<!doctype html>") and shown.count("<style>") == 1
    assert "prefers-color-scheme: dark" in shown
    # The desk is served with its own.
    for template in {*TEMPLATES.glob("*.html")} - {*TEMPLATES.glob("desk*.html")}:
        text = template.read_text(encoding="utf-8")
        assert template.name in ("base.html", "macros.html") or text.startswith('{% extends "base.html" %}')
        assert not re.search(
            r'(?:style|onclick)="|<link(?! rel="icon" href="data:,")|(?:src|href)="(?:https?:)?//', text
        )


def test_the_templates_are_part_of_the_package() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["regworkers_core.reporting"]
    assert {path for pattern in patterns for path in TEMPLATES.parent.glob(pattern)} >= set(
        TEMPLATES.iterdir()
    )


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (1234, "1,234"), (True, "True"), (1.5, "1.5"), ("a", "a")]
)
def test_cells_have_separators_for_thousands_and_a_dash_for_no_value(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_a_share_has_three_significant_digits() -> None:
    assert (percent(None), percent(0.12345), percent(1.0)) == ("–", "12.3 %", "100 %")
    assert [counted(number, "entry") for number in (0, 1, 2000)] == ["0 entries", "1 entry", "2,000 entries"]
    assert [counted(number, "day") for number in (1, 2)] == ["1 day", "2 days"]


def test_a_markdown_table_aligns_numbers_and_escapes_what_would_end_a_cell() -> None:
    assert markdown_table(("name", "n", "text"), [("a|b", 1234, "two\nlines")], words={2}) == (
        "| name | n | text |\n|---|---:|---|\n| a\\|b | 1,234 | two lines |"
    )
