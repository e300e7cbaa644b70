"""What every call to a simulated server passes: the place where a play lets time pass, switches and plants faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

# Of an open gate: how soon a server that waits notices what another caller did.
_WAIT_SECONDS = 0.01


class Gate(Protocol):
    """One for each client of each simulated process. `server` is `dynamodb`, `streams`, `sqs`, `s3`, `secretsmanager`,
    `mongo`, `redis` or `kafka`; `operation` is the client's own name of it, such as `UpdateItem` or `bulk_write`.
    """

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, which no process shares."""
        ...

    def before(self, server: str, operation: str, request: Any) -> None:
        """Called before a server reads or changes anything. May switch to another thread of the play, and raises the
        client's own exception when the call does not arrive.
        """
        ...

    def fails(self, server: str, operation: str, number: int) -> Sequence[int]:
        """Which of the `number` parts of a batch the server does not process (throttled, refused)."""
        ...

    def wait(self, seconds: float) -> None:
        """Called while a server keeps a caller waiting, such as for a message: lets time pass, at most these seconds by
        the server's clock. May return earlier, because the server checks again and waits for the rest.
        """
        ...

    def after(self, server: str, operation: str, request: Any) -> None:
        """Called after the server has acted. Raises the client's own exception when the answer is lost."""
        ...


class OpenGate:
    """Real time, no faults: what the tests of the adapters run against. Their threads take turns: clients hold `lock`
    while a server acts, except while it waits.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def now(self) -> float:
        return time.time()

    def before(self, server: str, operation: str, request: Any) -> None:
        pass

    def fails(self, server: str, operation: str, number: int) -> Sequence[int]:
        return ()

    def wait(self, seconds: float) -> None:
        self.lock.release()
        try:
            time.sleep(min(seconds, _WAIT_SECONDS))
        finally:
            self.lock.acquire()

    def after(self, server: str, operation: str, request: Any) -> None:
        pass


def alone(gate: Gate) -> AbstractContextManager[object]:
    """Around what a server does for a client. In a play nothing else runs meanwhile."""
    return gate.lock if isinstance(gate, OpenGate) else _ALONE


_ALONE: AbstractContextManager[None] = nullcontext()
