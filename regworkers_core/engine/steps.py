"""Named steps of a flow: where a test may kill the process to show that a crash there loses nothing."""

from __future__ import annotations

from collections.abc import Callable

OnStep = Callable[[str], None]


def no_step(_name: str) -> None:
    """The default of every `on_step`."""
