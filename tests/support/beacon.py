"""The beacon of tests: a chain with a known key, whose rounds are signed as soon as they are asked for. So a draw in a
test goes the way of production and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from fairdraw.bls import public_key
from fairdraw.terms import Chain
from regworkers_core.runtime import Runtime
from regworkers_local.beacon import OwnChain

_SECRET = (7).to_bytes(32, "big")
OWN = OwnChain(Chain(public_key(_SECRET), "7e" * 32, "of-tests", 1_700_000_000, 1), _SECRET)
CHAIN_TEXT = OWN.chain.to_bytes().decode()
# Nothing waits for the seconds; a slow machine may need them until a manifest is public.
SETTINGS = {
    "urls": [],
    "other_chain": CHAIN_TEXT,
    "trust_file": str(Path(__file__).with_name("trust.json")),
    "lead_seconds": 5,
    "write_seconds": 60.0,
}


class InstantBeacon:
    """A `DrandHttp` that has every round of the chain of tests, before its time too."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def latest(self, chain: Chain, *, accept: Callable[[int, str], bool]) -> int:
        number = OWN.latest(self._clock())
        assert chain == OWN.chain and accept(number, OWN.signature(number))
        return number

    def signature(
        self, chain: Chain, round_number: int, *, accept: Callable[[str], bool] | None = None
    ) -> str:
        signature = OWN.signature(round_number)
        assert chain == OWN.chain and (accept is None or accept(signature))
        return signature


def sign_at_once() -> None:
    """Every runtime of this process that draws by the chain of tests gets an `InstantBeacon`."""
    over_http = Runtime.beacon.func  # type: ignore[attr-defined]

    def beacon(runtime: Runtime) -> object:
        if runtime.settings.selection.beacon.chain == OWN.chain:
            return InstantBeacon(runtime.clock)
        return over_http(runtime)

    made = cached_property(beacon)
    made.__set_name__(Runtime, "beacon")
    Runtime.beacon = made  # type: ignore[assignment]


sign_at_once()
