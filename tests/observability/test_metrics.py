"""The table of metrics."""

from __future__ import annotations

from regworkers_core.observability.metrics import INSTRUMENTS
from regworkers_core.settings import PROJECT_ROOT


def test_names_are_unique_and_the_page_on_operating_lists_all() -> None:
    names = [each.name for each in INSTRUMENTS]
    assert len(names) == len(set(names))
    page = (PROJECT_ROOT / "docs" / "logs-and-metrics.md").read_text(encoding="utf-8")
    for each in INSTRUMENTS:
        assert f"| `{each.name}` | {each.does} |" in page
