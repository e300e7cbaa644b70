"""A beacon for tests on the runtime's clock, which signs any round with a hash.

Real and forged signatures are tested where they are verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.selection import QUICKNET
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.proof import beacon
from tests.support.runtimes import test_settings

# When a draw of these tests is committed, in seconds since the epoch; its first round comes 660 s later, or 662. Far
# behind the clock of the tests' store, which is the real one.
START = 3_600_000_000.0


def signature_of(round_number: int) -> str:
    """96 hex digits."""
    return hashlib.sha384(f"round {round_number}".encode()).hexdigest()


@contextmanager
def taken_for_signatures() -> Iterator[None]:
    """Accept signatures of `signature_of`, and no others."""
    with mock.patch.object(beacon, "_is_signed", lambda _chain, number, text: text == signature_of(number)):
        yield


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self, at: float = START) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Waiting(StopSignal):
    """A stop signal whose waits move the clock and return at once; `pauses` records them."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.pauses: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self._clock.at += seconds
        return self.is_set


class OwnBeacon:
    """A `Beacon`. While `down` it answers with an error; its clock is `ahead_seconds` ahead of `clock`."""

    def __init__(self, clock: Callable[[], float], *, ahead_seconds: float = 0.0) -> None:
        self._clock, self._ahead = clock, ahead_seconds
        self.down = False

    def _now(self) -> float:
        if self.down:
            raise TransientFailure("drand", "ConnectError")
        return self._clock() + self._ahead

    def latest(self, *, accept: Callable[[int, str], bool]) -> int:
        number = int(self._now() - QUICKNET.genesis) // QUICKNET.period + 1
        assert accept(number, signature_of(number))
        return number

    def signature(self, round_number: int, *, accept: Callable[[str], bool] | None = None) -> str:
        if (left := QUICKNET.due(round_number) - self._now()) > 0:
            raise RoundNotYet(round_number, left)
        signature = signature_of(round_number)
        assert accept is None or accept(signature)
        return signature


def with_beacon(prefix: str, clock: Clock, *, ahead_seconds: float = 0.0) -> Runtime:
    """Return a runtime in that namespace that draws by the beacon, on this clock."""
    made = Runtime(test_settings(prefix, selection={"seed_source": "drand"}), clock=clock)
    made.__dict__["beacon"] = OwnBeacon(clock, ahead_seconds=ahead_seconds)
    return made
