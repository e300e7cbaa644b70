"""Dead letters on a terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from regworkers_core.cli.dlq_text import messages_text, sparkline


@pytest.mark.parametrize(
    ("entry", "named"), [("summer:e1", "summer:e1"), ("summer:" + "e" * 900, "7f0c-message")]
)
def test_a_long_id_leaves_the_other_columns_their_room(entry: str, named: str) -> None:
    message = {
        "messageId": "7f0c-message",
        "reason": "INVALID_ENTRY",
        "firstFailedAt": "2026-11-26T06:31:10.000Z",
        "verdict": "unreadable",
        "why": "the key is refused",
        "items": [{"id": entry}],
    }
    console = Console(width=100, record=True, file=StringIO())
    console.print(messages_text({"letters": [message]}))  # stored name
    (line,) = [line for line in console.export_text().splitlines() if "INVALID_ENTRY" in line]
    assert named in line and "2026-11-26 06:31:10" in line and "unreadable" in line


def test_a_trend_is_one_character_an_hour_with_a_dot_for_none() -> None:
    assert sparkline([0, 1, 50, 100]) == "·▁▄█"
    assert sparkline([0, 0]) == "··" and sparkline([]) == ""
