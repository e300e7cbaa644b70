"""Embedded stacks for benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack


@contextmanager
def stack_of(part: str) -> Iterator[Stack]:
    """A running stack, deleted afterwards."""
    stack = Stack(PROJECT_ROOT, f"bench-{part}-{os.getpid()}")
    try:
        stack.up()
        yield stack
    finally:
        stack.reset()
