"""What the signature of a message costs an event: by who sends it, and by `publish`, which checks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.analytics.data import PER_MESSAGE, event, message
from benchmarks.analytics.throughput import ROUNDS, cpu_of_one
from benchmarks.figures import spread
from regworkers_core.analytics.producers import ProducerSeal
from regworkers_core.domain.events import ProducerKey, ProducerRole, Signature
from regworkers_core.engine.queue import Received


class _OneKey:
    def __init__(self, key: ProducerKey) -> None:
        self._key = key

    def sign(self, _role: ProducerRole, body: bytes) -> str:
        return self._key.sign(body)

    def accepted(self, _signature: Signature, _sent_at: float | None = None) -> ProducerKey:
        return self._key


def measure(_size: int) -> dict[str, Any]:
    """CPU microseconds an event, in messages of a hundred of 600 bytes; keys are in memory, as after the first one."""
    key = ProducerKey.generate(ProducerRole.REPLICATION, 0.0)
    made, events = message(0, key.sign), [event(number) for number in range(PER_MESSAGE)]
    received = Received("m", "r", made.body.decode(), made.attributes, 1)
    seal = ProducerSeal(_OneKey(key))

    def both() -> None:
        key.sign(made.body)
        seal.check(received, events)

    steps: dict[str, Callable[[], Any]] = {
        "signed": lambda: key.sign(made.body),
        "checked": lambda: seal.check(received, events),
        "both": both,
    }
    return {name: spread(cpu_of_one(step) for _ in range(ROUNDS)) for name, step in steps.items()}
