"""Peak memory of the drain with 10 thousand and with a million events on its queue, each in its own process.

The queue is generated (the embedded SQS gets slow with its backlog), the broker is real.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

import orjson

from benchmarks.analytics.data import PER_MESSAGE, message, namespace, settings, signer
from benchmarks.figures import MIB, peak_mib
from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import configure_logging
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack

SIZES = (10_000, 1_000_000)


class FakeSqs:
    """A queue with this number of messages, generated when they are received."""

    def __init__(self, messages: int, sign: Callable[[bytes], str]) -> None:
        self._numbers, self._sign = iter(range(messages)), sign

    def get_queue_url(self, **_: Any) -> dict[str, str]:
        return {"QueueUrl": "fake"}

    def receive_message(self, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:
        numbers = itertools.islice(self._numbers, MaxNumberOfMessages)
        return {"Messages": [self._message(number) for number in numbers]}

    def _message(self, number: int) -> dict[str, Any]:
        name = uuid.uuid4().hex
        made = message(number, self._sign)
        attributes = {
            key: {"DataType": "String", "StringValue": value} for key, value in made.attributes.items()
        }
        return {
            "MessageId": name,
            "ReceiptHandle": name,
            "Body": made.body.decode(),
            "MessageAttributes": attributes,
        }

    def delete_message_batch(self, Entries: list[Any], **_: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def change_message_visibility_batch(self, Entries: list[Any], **_: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}


class Faked(Runtime):
    """The product over a generated queue."""

    def __init__(self, runtime: Runtime, messages: int) -> None:
        super().__init__(runtime.settings)
        self._fake: Any = FakeSqs(messages, signer(self))

    def queue(self, name: str, *, read_seconds: float | None = None) -> Queue:
        if name != self.names.analytics_queue:
            return super().queue(name)
        return SqsQueue(self._fake, self.dependency("sqs"), name, batch_bytes=MIB)


def measure(stack: Stack, say: Callable[[str], None]) -> dict[str, Any]:
    """MiB by number of events, before the drain started and at the peak; and what the larger number takes of the
    smaller.
    """
    namespace(stack.state, "memory")
    found: dict[str, Any] = {}
    for events in SIZES:
        command = [sys.executable, "-m", __name__, stack.instance, str(events)]
        answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True)
        found[str(events)] = one = orjson.loads(answer.stdout)
        say(f"memory {events}: {one['before']:.0f} MiB before, {one['peak']:.0f} MiB at the peak")
    few, many = map(str, SIZES)
    return found | {"growth": round(found[many]["peak"] / found[few]["peak"], 2)}


def run(instance: str, events: int) -> dict[str, float]:
    """In this process."""
    state = Stack(PROJECT_ROOT, instance).state
    runtime = Faked(Runtime(settings(state, "bench-memory-")), events // PER_MESSAGE)
    limits = drain_limits(runtime.settings, PUBLISH, idle_seconds=0, max_seconds=3600)
    before = peak_mib()
    report = run_drain(runtime, PUBLISH, limits, stop=StopSignal())
    if report.counts["sent"] != events or not report.adds_up:
        raise RuntimeError(f"the drain did not do all: {report.as_dict()}")
    return {"before": round(before, 1), "peak": round(peak_mib(), 1), "seconds": round(report.seconds, 1)}


if __name__ == "__main__":
    configure_logging("ERROR")
    print(orjson.dumps(run(sys.argv[1], int(sys.argv[2]))).decode())
