"""One look at everything: which dependency answers, how deep the queues are, how large the replica is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.runtime import Runtime

DEPENDENCIES = ("dynamodb", "streams", "sqs", "mongo", "redis", "kafka")


@dataclass(slots=True)
class Status:
    """`dependencies` maps each name to `up` or to what is wrong; a count that could not be read is None."""

    dependencies: dict[str, str] = field(default_factory=dict)
    queues: dict[str, int | None] = field(default_factory=dict)
    replica_documents: int | None = None

    @property
    def fine(self) -> bool:
        dead = [depth for name, depth in self.queues.items() if name.endswith("-dlq")]
        return all(state == "up" for state in self.dependencies.values()) and not any(dead)

    def as_dict(self) -> dict[str, Any]:
        return {
            "fine": self.fine,
            "dependencies": self.dependencies,
            "queues": self.queues,
            "replicaDocuments": self.replica_documents,
        }


def read_status(runtime: Runtime) -> Status:
    """What is away is the answer; raises UsageError only when there is nobody to ask (no stack, no address)."""
    status = Status()
    replica = runtime.replica
    for name in DEPENDENCIES:
        try:
            away = runtime.probe(name)
        except UsageError as error:
            status.dependencies[name] = str(error)
        else:
            status.dependencies[name] = "up" if away is None else "does not answer"
    for name in runtime.names.queues:
        for each in (name, runtime.names.dead_letter_queue(name)):
            status.queues[each] = _read(lambda each=each: runtime.queue(each).depth().total)  # type: ignore[misc]
    status.replica_documents = _read(replica.count)
    return status


def _read(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except (Failure, UsageError):
        return None
