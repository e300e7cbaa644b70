"""Arrow's compute functions and columns, as far as types go: the stubs know only a part of what these take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute

compute: Any = pyarrow.compute
Column = Any
Batch = Any


def terminated(lines: Column) -> memoryview:
    """The strings of an array, each with a line feed, as one piece of memory."""
    joined = compute.binary_join_element_wise(lines, "", "\n")
    return memoryview(text_bytes(joined))


def text_bytes(strings: Column) -> Any:
    """The bytes of all strings of an array, one after the other, as a numpy array of bytes."""
    _, offsets, data = strings.buffers()
    if data is None or not len(strings):
        return np.zeros(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int32)
    start, end = bounds[strings.offset], bounds[strings.offset + len(strings)]
    return np.frombuffer(data, np.uint8)[start:end]
