"""The beacon's rounds: which one a draw commits to, and its signature, however long the beacon is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.domain.beacon import QUICKNET, QUICKNET_HASH, round_after
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.proof.beacon import verify_beacon

# From choosing the round to the store's confirmation of the manifest: a pause of this length is allowed for, on top of
# what has to lie between the two. Time-outs and retries of these writes stay well below it.
WRITE_SECONDS = 60
# A clock that is further behind the beacon would make every time of this draw wrong. A signature is on its way for a
# second or two, and clocks that are kept by NTP differ by less.
_MOST_BEHIND_SECONDS = 15
# A countdown by the second, which makes no call; a beacon that is late, or away, is asked again this often.
_COUNT_SECONDS, _LATE_SECONDS, _AWAY_SECONDS = 1.0, 5.0, 15.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run waits for the beacon: `seconds` in all, or until the stop signal. `tell` hears what for."""

    stop: StopSignal
    tell: Callable[[str], None]
    seconds: float

    def ask(self, call: Callable[[], T], hint: str = "") -> T | None:
        """What `call` returns; None after a stop, or when its round comes later than patience lasts. `hint` says what
        helps while the beacon is away.

        Raises TransientFailure when the beacon is away for all that time.
        """
        waited = 0.0
        while not self.stop.is_set:
            try:
                return call()
            except RoundNotYet as not_yet:
                left = not_yet.seconds
                self.tell(f"round {not_yet.round_number} of the beacon is due in {countdown(left)}")
                pause = min(max(left, 0.5), _COUNT_SECONDS if left > _LATE_SECONDS else _LATE_SECONDS)
                if waited + max(pause, left) > self.seconds:
                    return None
            except TransientFailure as failure:
                pause = _AWAY_SECONDS
                if waited + pause > self.seconds:
                    raise
                self.tell(f"the beacon does not answer and is asked again in {pause:.0f} s{hint} ({failure})")
            self.stop.wait(pause)
            waited += pause
        return None


def countdown(seconds: float) -> str:
    """`9 min 43 s`."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def choose(runtime: Runtime, patience: Patience, *, after: float = 0.0) -> int | None:
    """A round that comes `selection.seedDelaySeconds` or more after a commit that is made now, and after the moment
    `after` (epoch seconds, by the store's clock). The beacon's latest one is asked for first, so that a clock that is
    wrong commits to none that is out. None after a stop.

    Raises UsageError for a clock that is behind the beacon, TransientFailure when it is away.
    """

    def is_signed(number: int, signature: str) -> bool:
        return _verified(QUICKNET_HASH, number, signature)

    latest = patience.ask(lambda: runtime.beacon.latest(accept=is_signed))
    if latest is None:
        return None
    now = runtime.clock()
    if (behind := QUICKNET.due(latest) - now) > _MOST_BEHIND_SECONDS:
        raise UsageError(
            f"this machine's clock is {countdown(behind)} behind the beacon, which has signed round {latest}: set the"
            " clock right; nothing is committed to yet"
        )
    return round_after(
        max(now, QUICKNET.due(latest), after) + WRITE_SECONDS, runtime.settings.selection.seed_delay_seconds
    )


def signature_of(
    runtime: Runtime, chain: str, number: int, patience: Patience, known: Callable[[], str | None]
) -> str | None:
    """The verified signature of a round, or the one that is `known` by now; None as `Patience.ask`. Raises
    TransientFailure when the beacon is away.
    """

    def accept(signature: str) -> bool:
        return _verified(chain, number, signature)

    return patience.ask(
        lambda: known() or runtime.beacon.signature(number, accept=accept),
        hint="; `regworkers draw seed` takes its signature by hand",
    )


def _verified(chain: str, number: int, signature: str) -> bool:
    try:
        verify_beacon(chain, number, signature)
    except DrawError:
        return False
    return True
