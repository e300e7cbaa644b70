"""Embedded stacks of the benchmark's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack
from regworkers_local.state import StackState


@contextmanager
def stack_of(part: str) -> Iterator[StackState]:
    """Up, and nothing left of it afterwards."""
    stack = Stack(PROJECT_ROOT, f"bench-{part}-{os.getpid()}")
    try:
        yield stack.up()
    finally:
        stack.reset()
