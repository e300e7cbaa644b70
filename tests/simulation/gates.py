"""For tests of the simulated servers: a gate whose clock only waiting moves, with faults by hand, and the code of an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.answers import error_code

START = 1_800_000_000.0


class HeldGate:
    """`skipped` are the parts that no batch processes. `meanwhile` runs once, at the first wait. `lost` names an
    operation: the answer of its next call gets lost.
    """

    def __init__(self) -> None:
        self.time = START
        self.skipped: Sequence[int] = ()
        self.meanwhile: Callable[[], object] | None = None
        self.lost = ""

    def now(self) -> float:
        return self.time

    def before(self, server: str, operation: str, request: Any) -> None:
        pass

    def fails(self, server: str, operation: str, number: int) -> Sequence[int]:
        return self.skipped

    def wait(self, seconds: float) -> None:
        self.time += min(seconds, 1.0)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()

    def after(self, server: str, operation: str, request: Any) -> None:
        if operation == self.lost:
            self.lost = ""
            raise TimeoutError(operation)


def refused(call: Any, **arguments: Any) -> str:
    """The code of the error that the call raises."""
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return error_code(raised.value)
