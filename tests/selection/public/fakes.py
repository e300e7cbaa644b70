"""A bucket in memory, and logs on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from fairdraw.log.note import COSIGNATURE, SignerKey
from regworkers_core.adapters.aws.objects import Tagged
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.public.witnesses import Witness, Witnesses
from tests.support.in_memory import MemoryObjects, MemorySecrets

ORIGIN = "example.com/log"
NOW = 1_790_000_000.0


class Bucket(MemoryObjects):
    """`before` runs before each write, and may raise; `writes` are the keys of those that were made. `reading` runs
    before each read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.before: Callable[[str], None] = lambda _key: None
        self.reading: Callable[[str], object] = lambda _key: None
        self.gate.now = lambda: NOW  # type: ignore[method-assign]

    def get_tagged(self, key: str) -> Tagged | None:
        self.reading(key)
        return super().get_tagged(key)

    def put_once(self, key: str, data: bytes) -> bytes:
        self.before(key)
        self.writes += [key] if super().get_tagged(key) is None else []
        return super().put_once(key, data)

    def put_over(self, key: str, data: bytes, tag: str | None) -> str | None:
        self.before(key)
        made = super().put_over(key, data, tag)
        self.writes += [key] if made else []
        return made

    def file(self, path: str) -> bytes | None:
        """A file of the log."""
        stored = self.get_tagged(f"log/{path}")
        return None if stored is None else stored.data


def no_witness(_url: str, _body: bytes) -> tuple[int, bytes]:
    raise AssertionError("there is no witness to ask")


def cosigner(number: int = 1) -> SignerKey:
    """The key of a witness, the same in every run."""
    return SignerKey(f"witness.example/w{number}", hashlib.sha256(b"%d" % number).digest())


def witnesses(ask: Any, *, needed: int = 1, number: int = 1) -> Witnesses:
    named = [
        Witness(f"http://w{each}.example", cosigner(each).verifier(COSIGNATURE))
        for each in range(1, number + 1)
    ]
    return Witnesses(named, needed, ask)


def log_on(
    bucket: Bucket,
    secrets: MemorySecrets,
    *,
    clock: Callable[[], float] = lambda: NOW,
    by: Witnesses | None = None,
    on_step: OnStep = no_step,
) -> PublicLog:
    return PublicLog(
        bucket, secrets, ORIGIN, by or Witnesses([], 0, no_witness), clock=clock, on_step=on_step
    )


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
