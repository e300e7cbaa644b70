"""Defects: unforeseen exceptions. Which item causes one, its dead letter, the fuse that ends a drain of too many, and
what keeps a drain from its work then until `regworkers drain resume`.

A batch that raises is halved until the item that raises is alone. All work is idempotent (writes are guarded, hints may
come twice), so repeating what was done before a half raised does no harm. `n` items of which `k` raise cost at most
about `2 k log2 n` further calls.

A blown fuse, like an operator's pause, is a row of `worker-leases` under the drain's name, which a drain may read with
the rights that it has. It binds the code that blew it: another version removes it and starts. The functions that read
or write the row raise TransientFailure.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from fairdraw import scheduling
from fairdraw.documents import from_document
from regworkers_core.domain.messages import fingerprint
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.domain.snapshot import BlownFuse, PausedDrain
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable

U = TypeVar("U")
R = TypeVar("R")
_PRODUCT = Path(__file__).parents[1]

# More than this many defects of one fingerprint among the last items are a bug, and not a few odd items.
MOST_DEFECTS = 20
WINDOW_ITEMS = 400


class NotRepeatable(Exception):
    """Wraps an exception that came after something that others see, as a message to a fan. Searching for the item would
    repeat that, once for each half.
    """


class FuseBlown(Exception):
    """The drain must handle nothing more: what it holds goes back."""


# Caused by a dependency, the operator, the machine or the deployment. A search would blame an innocent item.
_NEVER_THE_ITEMS = (
    TransientFailure,
    UsageError,
    FuseBlown,
    NotRepeatable,
    MemoryError,
    OSError,
    ImportError,
)


def may_be_the_items(error: Exception) -> bool:
    """Whether an item may have caused it. MemoryError, OSError and ImportError never count as an item's."""
    return not isinstance(error, _NEVER_THE_ITEMS)


def defect_of(error: Exception) -> PermanentFailure:
    """The failure of the item that raised it: its own if the exception is one, else a DEFECT with the type and the
    place in the product, so that equal causes have one fingerprint. Never the exception's message, which may hold a
    fan's data.
    """
    if isinstance(error, PermanentFailure):
        return error
    return PermanentFailure(Reason.DEFECT, f"{type(error).__name__} at {_place(error)}")


def unforeseen(error: Exception) -> PermanentFailure:
    """`defect_of` an exception that an item may have caused. Raises any other again."""
    if not may_be_the_items(error):
        raise error
    return defect_of(error)


def _place(error: Exception) -> str:
    """`folder/file.py:line` of the deepest frame in the product; of the deepest frame at all where none is."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PRODUCT)]
    for frame in reversed(own or frames):
        path = Path(frame.filename)
        name = path.relative_to(_PRODUCT).as_posix() if own else path.name
        return f"{name}:{frame.lineno}"
    return "an unknown place"


def bisect(units: Sequence[U], do: Callable[[Sequence[U]], R], alone: Callable[[U, Exception], R]) -> list[R]:
    """`do` all units at once; if that raises what may be an item's, in halves. Results are in the units' order.

    `alone` answers for a unit that raises by itself, twice. Raises what cannot be an item's at once.
    """
    try:
        return [do(units)]
    except Exception as error:
        if not units or not may_be_the_items(error):
            raise
    if len(units) > 1:
        middle = len(units) // 2
        return [*bisect(units[:middle], do, alone), *bisect(units[middle:], do, alone)]
    try:
        return [do(units)]
    except Exception as error:
        if not may_be_the_items(error):
            raise
        return [alone(units[0], error)]


class Fuse:
    """Counts how the items of one drain end; safe to share between threads.

    Every defect is counted before its dead letter is sent, so at most `MOST_DEFECTS` of one cause are sent within a
    window, however many batches run at once.
    """

    def __init__(self) -> None:
        self._lock = scheduling.lock()
        self._items = 0
        # The number of the item within the drain, and its fingerprint.
        self._defects: deque[tuple[int, str]] = deque()
        self.blown: PermanentFailure | None = None

    def passed(self, items: int) -> None:
        """Count `items` that ended in any other way."""
        with self._lock:
            self._items += items

    def failed(self, failure: PermanentFailure) -> None:
        """An item is about to end as a defect. Raises FuseBlown if that is one too many."""
        cause = fingerprint(failure.reason, failure.error)
        with self._lock:
            self._items += 1
            self._defects.append((self._items, cause))
            while self._defects[0][0] <= self._items - WINDOW_ITEMS:
                self._defects.popleft()
            if sum(each == cause for _, each in self._defects) > MOST_DEFECTS:
                self.blown = self.blown or failure
            if self.blown is not None:
                raise FuseBlown


def fuse_message(drain: str, reason: str, tripped_at: str = "") -> str:
    when = f" at {tripped_at}" if tripped_at else ""
    return (
        f"the fuse of the drain {drain} blew{when}: more than {MOST_DEFECTS} of its last {WINDOW_ITEMS} items failed "
        f"with {reason}; deploy a version without that defect, or run `regworkers drain resume {drain}` to try this "
        "one again"
    )


H = TypeVar("H", BlownFuse, PausedDrain)

# Begins the names of these rows.
HOLDS = "FUSE#"
_SORT_KEYS = {BlownFuse: "FUSE", PausedDrain: "PAUSE"}


def hold_of(table: LeaseTable, kind: type[H], drain: str) -> H | None:
    """The blown fuse or the pause of a drain; None if there is none."""
    row = table.get(_key(kind, drain))
    return None if row is None else from_document(kind, row.state, drain=drain)


def store_fuse(table: LeaseTable, blown: BlownFuse) -> None:
    """Store it in place of an earlier one."""
    key = _key(BlownFuse, blown.drain)
    seen = table.get(key)
    table.swap(LeaseRow(key, counter=1 + (seen.counter if seen else 0), state=blown.as_dict()), seen)


def store_pause(table: LeaseTable, paused: PausedDrain, now: float) -> PausedDrain:
    """Returns the pause in force: the earlier one, if its time is not over at `now` (epoch seconds)."""
    key = _key(PausedDrain, paused.drain)
    seen = table.get(key)
    if seen is not None:
        earlier = from_document(PausedDrain, seen.state, drain=paused.drain)
        if not earlier.is_over(now):
            return earlier
    row = LeaseRow(key, counter=1 + (seen.counter if seen else 0), state=paused.as_dict())
    return paused if table.swap(row, seen) else hold_of(table, PausedDrain, paused.drain) or paused


def remove_hold(table: LeaseTable, kind: type[H], drain: str) -> H | None:
    """Returns what was removed; None if there was none or another process was faster."""
    row = table.get(_key(kind, drain))
    return from_document(kind, row.state, drain=drain) if row is not None and table.remove(row) else None


def _key(kind: type[BlownFuse] | type[PausedDrain], drain: str) -> LeaseKey:
    return LeaseKey(HOLDS + drain, _SORT_KEYS[kind])


_DIGITS = 12


@cache
def code_version() -> str:
    """The version of the running code: `<installed version>+<hash of the sources>`. Read once, in about 20 ms."""
    digest = hashlib.sha256()
    for path in sorted(_PRODUCT.rglob("*.py")):
        digest.update(path.relative_to(_PRODUCT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    try:
        installed = version("regworkers")
    except PackageNotFoundError:
        installed = "0"
    return f"{installed}+{digest.hexdigest()[:_DIGITS]}"
