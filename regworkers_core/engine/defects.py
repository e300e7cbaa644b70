"""An unforeseen exception: whose it may be, how the item that causes it is found, and what is said of it.

A batch that raises is halved until the one that raises is alone. All works are idempotent (writes are guarded, hints
may come twice), so what was done before a half raised is done again without harm. `n` units of which `k` raise cost
at most about `2 k log2 n` more calls.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.engine.fuse import FuseBlown

U = TypeVar("U")
R = TypeVar("R")


class NotAtOnce(Exception):
    """Wraps what was raised after something that others see, as a message to a fan: to look for the item would do that
    again, once for each half.
    """


# A dependency's, the operator's, the machine's and the deployment's: to look for the item would blame an innocent one.
_NEVER_THE_ITEMS = (TransientFailure, UsageError, FuseBlown, NotAtOnce, MemoryError, OSError, ImportError)
_PRODUCT = Path(__file__).parents[1]


def may_be_the_items(error: Exception) -> bool:
    """Whether an item may have caused it. MemoryError, OSError and ImportError never count as an item's."""
    return not isinstance(error, _NEVER_THE_ITEMS)


def defect_of(error: Exception) -> PermanentFailure:
    """The failure of the item that raised it: its own if the exception is one, else a DEFECT that names the type and
    the place in the product, so that equal causes have one fingerprint. Never the exception's message, which may hold
    a fan's data.
    """
    if isinstance(error, PermanentFailure):
        return error
    return PermanentFailure(Reason.DEFECT, f"{type(error).__name__} at {_place(error)}")


def _place(error: Exception) -> str:
    """`folder/file.py:line` of the deepest frame in the product; of the deepest at all where none is."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PRODUCT)]
    for frame in reversed(own or frames):
        path = Path(frame.filename)
        name = path.relative_to(_PRODUCT).as_posix() if own else path.name
        return f"{name}:{frame.lineno}"
    return "an unknown place"


def in_parts(
    units: Sequence[U], do: Callable[[Sequence[U]], R], alone: Callable[[U, Exception], R]
) -> list[R]:
    """`do` all units at once, or where that raises what may be an item's, in halves; results in the units' order.

    `alone` answers for a unit that raises by itself twice. What can be no item's is raised at once.
    """
    try:
        return [do(units)]
    except Exception as error:
        if not units or not may_be_the_items(error):
            raise
    if len(units) > 1:
        middle = len(units) // 2
        return [*in_parts(units[:middle], do, alone), *in_parts(units[middle:], do, alone)]
    try:
        return [do(units)]
    except Exception as error:
        if not may_be_the_items(error):
            raise
        return [alone(units[0], error)]
