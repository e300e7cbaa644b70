"""What goes wrong in a play: faults by their time, and what a client of a server sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from confluent_kafka import KafkaError, KafkaException
from pymongo.errors import AutoReconnect, NetworkTimeout
from redis import exceptions as redis_errors

from regworkers_core.flows import DRAIN

AWS = ("dynamodb", "streams", "sqs", "s3")
SERVERS = (*AWS, "mongo", "redis", "kafka")
DRAINS = ("enqueue", "save", "publish")
DRAW_DRAINS = ("selections", "notifications", "draw")
_THROTTLED = {
    "dynamodb": "ProvisionedThroughputExceededException",
    "streams": "ProvisionedThroughputExceededException",
    "sqs": "RequestThrottled",
    "s3": "SlowDown",
    "secretsmanager": "ThrottlingException",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` at `at` seconds after the begin. `target` is a server, a drain or nothing; `seconds` and `share` say how
    long, and for which share of the calls. A trouble with a `drain` is that of one process of it.
    """

    kind: str
    at: float
    target: str = ""
    seconds: float = 0.0
    share: float = 0.0
    drain: str = ""

    def __str__(self) -> str:
        more = f" for {self.seconds:.0f} s" if self.seconds else ""
        part = f" of {self.share:.0%} of its calls" if 0 < self.share < 1 else ""
        whose = f", for one process of {self.drain}" if self.drain else ""
        return f"{self.at:6.1f} s: {self.kind} {self.target}{part}{more}{whose}".rstrip()


# Most drains need the queues.
_WITHOUT_A_DRAW = ("dynamodb", "streams", "sqs", "sqs", "mongo", "kafka")
# Of a server: the request does not arrive; its answer is lost; it is refused because of load; parts of it are.
TROUBLES = ("refused", "lost", "throttled", "partial")
# What operators do meanwhile.
ACTS = ("pause", "fuse", "cycle", "backfill", "redrive")
_KINDS = ("crash", "freeze", "skew", "split", "roll", "trim", "restore", "election", *TROUBLES)
# When the campaign of a draw closes. The replica is set back before: a draw counts registrations at its freeze.
CLOSING_SECONDS = 12.0
# What each drain needs.
NEEDS = {name: DRAIN[name].needs for name in DRAINS}


def draw_faults(random: Random, until: float, *, drawing: bool) -> list[Fault]:
    """Five or more, at any time. Each play has a few kinds only, of a few servers and drains: what happens together
    again and again finds more than a little of everything.
    """
    drains = random.sample((*DRAINS, *DRAW_DRAINS) if drawing else DRAINS, 2)
    servers = random.sample(SERVERS if drawing else _WITHOUT_A_DRAW, 2)
    kinds = random.sample(_KINDS, 3 + int(random.random() * 3))
    faults = [*_some_faults(random, until, kinds, drains, servers), *_of_one_process(random, until)]
    if drawing and random.random() < 0.2:
        at = random.uniform(4.0, CLOSING_SECONDS)
        faults.append(Fault("rewind", at, seconds=random.uniform(0.0, at)))
    return sorted(faults, key=lambda fault: fault.at)


def register_faults(random: Random, until: float) -> list[Fault]:
    """Of the drain that registers, and now and then of the one that saves what is to be registered."""
    kinds = random.sample(("crash", "freeze", "skew", "election", *TROUBLES), 4)
    drains = ("register", "register", "save")
    servers = random.sample(DRAIN["register"].needs, 2)
    faults = _some_faults(random, until, kinds, drains, servers)
    if random.random() < 0.5:
        # Beyond its lease, so that two believe that they hold the campaign.
        faults.append(Fault("freeze", random.uniform(4.0, until), "register", seconds=20.0))
    return sorted(faults, key=lambda fault: fault.at)


def _some_faults(
    random: Random, until: float, kinds: Sequence[str], drains: Sequence[str], servers: Sequence[str]
) -> list[Fault]:
    faults = [
        _fault(random, random.choice(kinds), random.uniform(1.0, until), drains, servers)
        for _ in range(5 + int(random.random() * 6))
    ]
    troubles = [fault for fault in faults if fault.kind in TROUBLES]
    for index, fault in enumerate(faults):
        # A process dies of what it fails in rather than at any other time.
        if fault.kind in ("crash", "freeze") and troubles and random.random() < 0.6:
            within = random.choice(troubles)
            faults[index] = replace(fault, at=within.at + random.uniform(0.0, min(within.seconds, 8.0)))
    return faults


def lonely_fault(random: Random) -> Fault:
    """The process that works reaches a server no more, from when both have begun until the faults end."""
    drain = random.choice(DRAINS)
    at = random.uniform(6.0, 9.0)
    return Fault("refused", at, random.choice(NEEDS[drain]), seconds=60.0, share=1.0, drain=drain)


def _of_one_process(random: Random, until: float) -> list[Fault]:
    """One process of a drain reaches a server no more, or a call of it hangs; and what operators do."""
    drain = random.choice(DRAINS)
    server, at = random.choice(NEEDS[drain]), random.uniform(1.0, until)
    made = []
    if random.random() < 0.7:
        made.append(Fault("refused", at, server, seconds=random.choice((8.0, 40.0)), share=1.0, drain=drain))
    if random.random() < 0.3:
        made.append(Fault("hang", random.uniform(1.0, until), server, seconds=60.0, drain=drain))
    if random.random() < 0.5:
        kind = random.choice(ACTS)
        target = random.choice(DRAINS) if kind in ("pause", "fuse") else ""
        seconds = random.uniform(3.0, 12.0) if target else 0.0
        made.append(Fault(kind, random.uniform(1.0, until), target, seconds=seconds))
    return made


def _fault(random: Random, kind: str, at: float, drains: Sequence[str], servers: Sequence[str]) -> Fault:
    if kind == "crash":
        return Fault(kind, at, random.choice(drains))
    if kind == "freeze":
        return Fault(kind, at, random.choice(drains), seconds=random.choice((2.0, 12.0, 40.0)))
    if kind == "skew":
        return Fault(kind, at, random.choice(drains), seconds=random.choice((-3600.0, -400.0, 400.0, 3600.0)))
    if kind == "election":
        return Fault(kind, at, "mongo", seconds=random.uniform(5.0, 12.0), share=1.0)
    if kind == "restore":
        # It needs an operator's repair, which costs more time than the rest of the play.
        return (
            Fault(kind, at, seconds=random.uniform(0.0, at)) if random.random() < 0.3 else Fault("roll", at)
        )
    if kind == "trim":
        return Fault(kind, at) if random.random() < 0.3 else Fault("split", at)
    if kind in TROUBLES:
        fits = [each for each in servers if kind != "throttled" or each in AWS] or list(AWS[:3])
        seconds, share = random.choice((1.0, 5.0, 25.0)), random.choice((0.2, 0.6, 1.0))
        return Fault(kind, at, random.choice(fits), seconds=seconds, share=share)
    return Fault(kind, at)


def error_of(kind: str, server: str, operation: str) -> Exception:
    """What the client of `server` raises."""
    if kind == "throttled" and server in _THROTTLED:
        metadata = {"HTTPStatusCode": 503 if server == "s3" else 400, "HTTPHeaders": {}}
        return ClientError(
            {"Error": {"Code": _THROTTLED[server], "Message": "slow down"}, "ResponseMetadata": metadata},
            operation,
        )
    if server == "mongo":
        return NetworkTimeout("timed out") if kind == "lost" else AutoReconnect("connection closed")
    if server == "redis":
        return redis_errors.TimeoutError() if kind == "lost" else redis_errors.ConnectionError()
    if server == "kafka":
        return KafkaException(KafkaError(KafkaError._TRANSPORT))
    if kind == "lost":
        return ReadTimeoutError(endpoint_url=f"https://{server}")
    return EndpointConnectionError(endpoint_url=f"https://{server}")


def some(random: Random, number: int, share: float) -> Sequence[int]:
    return [each for each in range(number) if random.random() < share]
