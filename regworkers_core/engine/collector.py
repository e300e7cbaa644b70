"""The cyclic garbage collector while a drain runs: seldom, because it finds nothing there."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A batch makes a hundred thousand dicts and lists, none of them in a cycle, and lets go of them all. With
# Python's own thresholds (700, 10, 10) a quarter of a drain's CPU goes into looking through them.
_THRESHOLDS = (50_000, 20, 100)
_lock = threading.Lock()
_inside = 0
_before = gc.get_threshold()


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Raise the thresholds while inside. They belong to the process: drains in several threads share them,
    and the last one out puts them back.
    """
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = gc.get_threshold()
            gc.set_threshold(*_THRESHOLDS)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                gc.set_threshold(*_before)
