"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

from tools.write_cli_docs import PAGE, page


def test_the_page_of_the_command_line_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
