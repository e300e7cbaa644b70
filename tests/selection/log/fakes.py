"""A bucket and a secret store in memory, and logs on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from fairdraw.log.note import COSIGNATURE, SignerKey
from regworkers_core.adapters.aws.objects import Tagged
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.selection.log.public_log import PublicLog
from regworkers_core.selection.log.witnesses import Witness, Witnesses

ORIGIN = "example.com/log"
NOW = 1_790_000_000.0


class Bucket:
    """Objects by key; each write has a new tag. `before` runs before each write, and may raise."""

    def __init__(self) -> None:
        self.objects: dict[str, Tagged] = {}
        self.writes: list[str] = []
        self.before: Callable[[str], None] = lambda _key: None

    def get_tagged(self, key: str) -> Tagged | None:
        return self.objects.get(key)

    def put_once(self, key: str, data: bytes) -> bytes:
        self.before(key)
        if key not in self.objects:
            self._write(key, data)
        return self.objects[key].data

    def put_over(self, key: str, data: bytes, tag: str | None) -> str | None:
        self.before(key)
        stored = self.objects.get(key)
        if (stored and stored.tag) != tag:
            return None
        return self._write(key, data)

    def _write(self, key: str, data: bytes) -> str:
        self.writes.append(key)
        self.objects[key] = Tagged(data, f"tag-{len(self.writes)}", NOW)
        return self.objects[key].tag

    def file(self, path: str) -> bytes | None:
        """A file of the log."""
        stored = self.objects.get(f"log/{path}")
        return None if stored is None else stored.data


class Secrets:
    def __init__(self) -> None:
        self.versions: list[str] = []

    def get(self, _name: str, *, previous: bool = False) -> str | None:
        return self.versions[-1 - previous] if len(self.versions) > previous else None

    def put(self, _name: str, value: str, *, description: str) -> None:
        self.versions.append(value)

    def create(self, _name: str, value: str, *, description: str) -> str:
        if not self.versions:
            self.versions.append(value)
        return self.versions[-1]


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


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
    secrets: Secrets,
    *,
    clock: Callable[[], float] = lambda: NOW,
    by: Witnesses | None = None,
    on_step: OnStep = no_step,
) -> PublicLog:
    objects: Any = bucket
    return PublicLog(
        objects, secrets, ORIGIN, by or Witnesses([], 0, no_witness), clock=clock, on_step=on_step
    )


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
