"""The relays of drand, as a client of HTTP sees them: they are unavailable, answer wrongly, or have not signed yet.

Signatures are hashes (`tests.selection.draw.beacons`): to verify one of the chain takes as long as several plays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, NamedTuple, Self

import httpx2
import orjson

from regworkers_core.domain.selection import QUICKNET
from tests.selection.draw.beacons import signature_of
from tests.simulation.gate import Gate

# How many answers of a relay are bad, and by how many seconds all of them are late.
_BAD = (0.0, 0.3, 0.9)
_LATE_SECONDS = (0.0, 0.0, 4.0, 40.0)
_TROUBLES = ("unavailable", "silent", "failing", "forged", "another round")


class Answer(NamedTuple):
    status_code: int
    body: bytes = b""

    def iter_bytes(self) -> Iterator[bytes]:
        yield self.body


class Relays:
    def __init__(self, random: Random, reached: Counter[str]) -> None:
        self._random, self._reached = random, reached
        self._late = random.choice(_LATE_SECONDS)
        self._bad: dict[str, float] = {}

    def client(self, gate: Gate, **_options: Any) -> Client:
        return Client(self, gate)

    def answer(self, url: str, at: float) -> Answer:
        base, _, path = url.partition(f"/{QUICKNET.hash}/public/")
        latest = int(at - self._late - QUICKNET.genesis) // QUICKNET.period + 1
        number = latest if path == "latest" else int(path)
        if number > latest:
            self._reached["beacon late"] += at >= QUICKNET.due(number)
            return Answer(425)
        signed = number
        if self._random.random() < self._bad.setdefault(base, self._random.choice(_BAD)):
            trouble = self._random.choice(_TROUBLES)
            self._reached[f"beacon {trouble}"] += 1
            if trouble == "unavailable":
                raise httpx2.ConnectError("connection refused")
            if trouble == "silent":
                raise httpx2.ReadTimeout("timed out")
            if trouble == "failing":
                return Answer(500)
            signed -= 1
            number -= trouble == "another round"
        return Answer(200, orjson.dumps({"round": number, "signature": signature_of(signed)}))


class Client:
    """`httpx2.Client`, as far as the product uses it."""

    def __init__(self, relays: Relays, gate: Gate) -> None:
        self._relays, self._gate = relays, gate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextmanager
    def stream(self, method: str, url: str) -> Iterator[Answer]:
        self._gate.before("drand", method, url)
        answer = self._relays.answer(url, self._gate.now())
        self._gate.after("drand", method, url)
        yield answer
