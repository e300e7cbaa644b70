"""Beacons for tests: one on the runtime's clock that signs any round with a hash, one with a recorded signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from fairdraw.proof import beacon
from regworkers_core.adapters.aws.objects import Tagged
from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.selection import QUICKNET, Chain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from tests.fairdraw.proof.draws import ROUND, SIGNATURE
from tests.selection.draw.world import close_campaign, done_to, draw
from tests.support.runtimes import test_settings

# When a draw of these tests is committed, in seconds since the epoch; its first round comes 660 s later, or 662. Far
# behind the clock of the tests' store, which is the real one.
START = 3_600_000_000.0


def signature_of(round_number: int) -> str:
    """96 hex digits."""
    return hashlib.sha384(f"round {round_number}".encode()).hexdigest()


@contextmanager
def taken_for_signatures() -> Iterator[None]:
    """Accept signatures of `signature_of`, besides real ones."""
    real = beacon._is_signed

    def is_signed(key: str, number: int, text: str) -> bool:
        return text == signature_of(number) or real(key, number, text)

    with mock.patch.object(beacon, "_is_signed", is_signed):
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
    """A `DrandHttp`. While `down` it answers with an error; its clock is `ahead_seconds` ahead of `clock`."""

    def __init__(self, clock: Callable[[], float], *, ahead_seconds: float = 0.0) -> None:
        self._clock, self._ahead = clock, ahead_seconds
        self.down = False

    def _now(self) -> float:
        if self.down:
            raise TransientFailure("drand", "ConnectError")
        return self._clock() + self._ahead

    def latest(self, _chain: Chain, *, accept: Callable[[int, str], bool]) -> int:
        number = int(self._now() - QUICKNET.genesis) // QUICKNET.period + 1
        assert accept(number, signature_of(number))
        return number

    def signature(
        self, _chain: Chain, round_number: int, *, accept: Callable[[str], bool] | None = None
    ) -> str:
        if (left := QUICKNET.due(round_number) - self._now()) > 0:
            raise RoundNotYet(round_number, left)
        signature = signature_of(round_number)
        assert accept is None or accept(signature)
        return signature


def with_beacon(prefix: str, clock: Clock, *, ahead_seconds: float = 0.0) -> Runtime:
    """Return a runtime in that namespace that draws by the beacon, on this clock."""
    made = Runtime(test_settings(prefix, selection={"beacon": {}}), clock=clock)
    made.__dict__["beacon"] = OwnBeacon(clock, ahead_seconds=ahead_seconds)
    return made


class Beacon:
    """Answers with a recorded signature, after `late` askings too early."""

    def __init__(self, signature: str, late: int = 0, seconds: float = 0.0) -> None:
        self.signature_hex, self.late, self.seconds, self.asked = signature, late, seconds, [0]

    def latest(self, _chain: Chain, *, accept: Callable[[int, str], bool]) -> int:
        return ROUND - 220

    def signature(
        self, _chain: Chain, round_number: int, *, accept: Callable[[str], bool] | None = None
    ) -> str:
        self.asked.append(round_number)
        if self.late:
            self.late -= 1
            raise RoundNotYet(round_number, self.seconds)
        if accept is not None and not accept(self.signature_hex):
            raise TransientFailure("drand", "no base has a fitting answer")
        return self.signature_hex


def committed_to_a_recorded_round(runtime: Runtime, **campaign: Any) -> Runtime:
    """Close the campaign of `world` and commit its draw 660 s before the recorded round: ten minutes, and room for the
    write. Returns a runtime of that time.
    """
    close_campaign(runtime, **campaign)
    at = float(QUICKNET.due(ROUND) - 660)
    settings = test_settings(runtime.names.prefix, selection={"beacon": {}})
    early = Runtime(settings, clock=lambda: at)
    early.__dict__["beacon"] = Beacon(SIGNATURE)
    look = early.objects.get_tagged

    def read(key: str) -> Tagged | None:
        """By a store whose clock is that of the draw."""
        found = look(key)
        return None if found is None else found._replace(at=at)

    early.objects.get_tagged = read  # type: ignore[method-assign]
    done_to("commit", draw(early))
    return early
