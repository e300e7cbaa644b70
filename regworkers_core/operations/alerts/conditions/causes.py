"""What explains what, for certain: which dependencies a queue, a drain, the stream and draws cannot do without.

While one of them is away, a queue that grows is no news: it is told as a consequence.
"""

from __future__ import annotations

BLIND, FUSE = "blind", "drain-fuse"
DEPENDENCY, DAEMONS, WATCHER = "dependency-down", "scheduler:daemons", "watcher:alerts_sensor"
# As the drains' specifications in the flows say; a test compares.
NEEDS = {
    "enqueue": ("dynamodb", "streams", "sqs"),
    "save": ("dynamodb", "sqs", "mongo"),
    "selections": ("sqs", "mongo", "s3", "dynamodb"),
    "notifications": ("sqs", "mongo", "s3", "dynamodb"),
    "publish": ("sqs", "kafka"),
}
# Who takes messages off a queue. The mailer of the platform empties the fourth one.
DRAIN_OF = {"replication-queue": "save", "selection-queue": "selections", "analytics-queue": "publish"}
_DRAW = ("dynamodb", "mongo", "s3", "sqs")


def of_drain(name: str) -> tuple[str, ...]:
    """Keys of what makes the items of a drain fail."""
    return tuple(f"{DEPENDENCY}:{each}" for each in NEEDS.get(name, ()))


def of_backlog(drain: str) -> tuple[str, ...]:
    """Keys of what makes work wait for a drain: no run is started without daemons or after its fuse blew, either."""
    return (*of_drain(drain), DAEMONS, f"{FUSE}:{drain}") if drain else ()


def of_draws() -> tuple[str, ...]:
    return (*(f"{DEPENDENCY}:{each}" for each in _DRAW), DAEMONS)
