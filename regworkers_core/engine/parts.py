"""What a batch call left undone is asked again, while what it did stays done.

A dependency that is asked too much answers such a call, and refuses some of its parts. To give back the whole batch for
them would repeat all that was done for the others, and ask a busy dependency for still more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from regworkers_core.engine.dependency import RetryPolicy

P = TypeVar("P")
# Of a part. Where four in five are refused, 35 parts in a thousand are left after these; the waits add up to some
# 11 s, and to less than the visibility of a message.
ATTEMPTS = 15


def ask_again(
    pending: Sequence[P],
    ask: Callable[[Sequence[P]], Sequence[P]],
    policy: RetryPolicy,
    sleep: Callable[[float], object],
    *,
    whole: bool = False,
    end: float = math.inf,
    monotonic: Callable[[], float] = time.monotonic,
) -> Sequence[P]:
    """`ask` for `pending`, which answers what is still to do, and again for that, with backoff; return what stays.

    Each part is asked for at most ATTEMPTS times; with `whole`, where a part is worth nothing without the others, only
    attempts that got nothing done count. No wait goes beyond `end`.
    """
    attempt = 0
    while pending:
        left = ask(pending)
        attempt = 0 if whole and len(left) < len(pending) else attempt + 1
        pending = left
        if not left or attempt >= ATTEMPTS:
            break
        wait = policy.backoff(max(1, attempt))
        if monotonic() + wait > end:
            break
        sleep(wait)
    return pending
