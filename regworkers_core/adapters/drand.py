"""The beacon's HTTP API: the signature of one round, from the first of several relays that has it.

Answers are only checked for their form here. The caller verifies signatures by `accept`, so that one lying relay does
not stop a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx2
import orjson

from fairdraw import scheduling
from fairdraw.bls import SIGNATURE_FORM
from fairdraw.terms import Chain
from regworkers_core.domain.reasons import Failure, TransientFailure
from regworkers_core.engine.dependency import Dependency

DEPENDENCY = "drand"
# The API's own relays, of two operators.
BASES = ("https://api.drand.sh", "https://drand.cloudflare.com")
# A round has about 300 bytes; a larger answer is not the API's.
MAX_BYTES = 16 * 1024
_NOT_YET = frozenset({404, 425})


class RoundNotYet(Failure):
    """The beacon has not signed this round yet, and should in `seconds`. Wait for this round."""

    def __init__(self, round_number: int, seconds: float) -> None:
        super().__init__(f"round {round_number} of the beacon is due in {seconds:.0f} s")
        self.round_number = round_number
        self.seconds = seconds


class DrandHttp:
    """The beacon over HTTP. `timeout_seconds` bounds each step of a request, and also the whole request."""

    def __init__(
        self,
        dependency: Dependency,
        bases: Sequence[str] = BASES,
        *,
        timeout_seconds: float = 5.0,
        clock: Callable[[], float] = scheduling.now,
        make: Callable[..., Any] = httpx2.Client,
    ) -> None:
        self._dependency = dependency
        self._bases = tuple(base.rstrip("/") for base in bases)
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._make = make

    def signature(
        self, chain: Chain, round_number: int, *, accept: Callable[[str], bool] | None = None
    ) -> str:
        """The round's signature, 96 lower-case hex digits, for which `accept` (if given) is true.

        Makes no call before the round is due by our own clock. Raises RoundNotYet before the round is signed,
        TransientFailure when no relay has a valid answer.
        """
        wait = chain.due(round_number) - self._clock()
        if wait > 0:
            raise RoundNotYet(round_number, wait)

        def fits(signed: _Signed) -> bool:
            return accept is None or accept(signed.signature)

        return self._dependency.call(self._first, chain, round_number, fits).signature

    def latest(self, chain: Chain, *, accept: Callable[[int, str], bool]) -> int:
        """The highest signed round of the first relay that proves it: `accept` is true for its number and signature.
        Raises TransientFailure when no relay has a valid answer.
        """
        found = self._dependency.call(
            self._first, chain, None, lambda each: accept(each.round, each.signature)
        )
        return found.round

    def _first(self, chain: Chain, round_number: int | None, fits: Callable[[_Signed], bool]) -> _Signed:
        """A round (None: the latest) of the first relay with a valid answer."""
        problems: list[str] = []
        not_yet = 0
        with self._make(timeout=self._timeout_seconds, follow_redirects=False) as client:
            for base in self._bases:
                try:
                    found = self._ask(client, f"{base}/{chain.hash}/public", round_number)
                except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                    problems.append(f"{base}: {type(error).__name__}")
                    continue
                except _Refused as refused:
                    not_yet += refused.not_yet
                    problems.append(f"{base}: {refused}")
                    continue
                if fits(found):
                    return found
                problems.append(f"{base}: a signature that is not the chain's")
        if round_number is not None and not_yet and not_yet == len(problems):
            raise RoundNotYet(round_number, float(chain.period))
        raise TransientFailure(DEPENDENCY, "; ".join(problems) or "no relay is configured")

    def _ask(self, client: httpx2.Client, rounds: str, round_number: int | None) -> _Signed:
        deadline = scheduling.monotonic() + self._timeout_seconds
        which = "latest" if round_number is None else round_number
        with client.stream("GET", f"{rounds}/{which}") as response:
            if response.status_code != 200:
                raise _Refused(f"status {response.status_code}", not_yet=response.status_code in _NOT_YET)
            body = b""
            for piece in response.iter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise _Refused(f"more than {MAX_BYTES} bytes")
                if scheduling.monotonic() > deadline:
                    raise _Refused(f"not done after {self._timeout_seconds:g} s")
        return _signed(body, round_number)


class _Signed(NamedTuple):
    round: int
    signature: str


class _Refused(Exception):
    """The answer of one relay is not valid."""

    def __init__(self, text: str, *, not_yet: bool = False) -> None:
        super().__init__(text)
        self.not_yet = not_yet


def _signed(body: bytes, round_number: int | None) -> _Signed:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _Refused("not JSON") from None
    found = document.get("round") if isinstance(document, dict) else None
    if type(found) is not int or found < 1 or found != (round_number or found):
        raise _Refused("not the round that was asked for")
    signature = document.get("signature")
    if not isinstance(signature, str) or not SIGNATURE_FORM.fullmatch(signature):
        raise _Refused("signature is not 96 hex digits")
    return _Signed(found, signature)
