"""Reading a collection from one end to the other at constant memory, where a reader can as well begin anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from pymongo.cursor import Cursor
from pymongo.errors import CursorNotFound

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]


def in_batches_of(
    dependency: Dependency, find: Callable[[], Cursor[Document]], size: int
) -> Iterator[list[Document]]:
    """What the cursor of `find` has, `size` documents at a time. Raises TransientFailure when it breaks: it is never
    silently short.
    """
    cursor, batch = dependency.call(_first, find, size)
    while batch:
        yield batch
        if len(batch) < size:
            return
        try:
            # Not repeated: a cursor that failed once says that it is at its end.
            batch = dependency.once(list, islice(cursor, size))
        except CursorNotFound:
            raise TransientFailure(dependency.name, "the cursor is gone") from None


def _first(find: Callable[[], Cursor[Document]], size: int) -> tuple[Cursor[Document], list[Document]]:
    cursor = find().batch_size(size)
    return cursor, list(islice(cursor, size))
