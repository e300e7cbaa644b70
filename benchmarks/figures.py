"""What suites measure: rounds with their spread, and the records of all runs in `figures.jsonl`."""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import psutil

from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.servers import SERVERS, STREAM_SECONDS
from regworkers_local.stack import Stack

FILE = Path(__file__).resolve().parent / "figures.jsonl"
MIB = 1024 * 1024
# No drain of a suite is behind that far.
_STREAM_SECONDS = 300.0

Spread = dict[str, float]


def spread(values: Iterable[float]) -> Spread:
    """The median of rounds, the lowest and the highest."""
    found = sorted(values)
    return {
        name: _rounded(each) for name, each in zip(_NAMES, (median(found), found[0], found[-1]), strict=True)
    }


_NAMES = ("median", "low", "high")


def ratio(above: Iterable[float], below: Iterable[float]) -> Spread:
    """Of what was measured in the same round, so that other load on the machine affects both."""
    return spread(one / other for one, other in zip(above, below, strict=True))


def _rounded(value: float) -> float:
    """Four digits."""
    return float(f"{value:.4g}")


def append(record: Mapping[str, Any]) -> None:
    """One line for a suite and a run."""
    with FILE.open("ab") as out:
        out.write(orjson.dumps(record) + b"\n")


def newest() -> dict[str, dict[str, Any]]:
    """The last record of each suite."""
    records = (orjson.loads(line) for line in FILE.read_bytes().splitlines())
    return {record["suite"]: record for record in records}


Cpu = Counter[str]


def cpu_of(processes: Mapping[str, Iterable[psutil.Process]]) -> Cpu:
    """CPU seconds so far by name."""
    return Counter(
        {name: sum(sum(each.cpu_times()[:2]) for each in several) for name, several in processes.items()}
    )


@dataclass(slots=True)
class Rounds:
    """Seconds, and CPU seconds by process, of each round of one contestant with this number of items."""

    items: int
    seconds: list[float] = field(default_factory=list)
    cpu: list[Cpu] = field(default_factory=list)

    @property
    def rate(self) -> Spread:
        """Items a second."""
        return spread(self.items / each for each in self.seconds)

    @property
    def seconds_of_one(self) -> list[float]:
        return [each / self.items for each in self.seconds]

    @property
    def cpu_of_one(self) -> list[float]:
        """CPU seconds of all processes for an item."""
        return [each.total() / self.items for each in self.cpu]

    def cpu_micros(self, process: str) -> Spread:
        """CPU microseconds of a process for an item."""
        return spread(1e6 * each[process] / self.items for each in self.cpu)


def peak_mib() -> float:
    """The peak of this program. getrusage also counts the parent before `exec`, so Linux's own record is preferred."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            MIB if sys.platform == "darwin" else 1024
        )


def keep_the_stream(seconds: float) -> None:
    """From here on, embedded AWS servers of this process keep their streams this long, not a day: a record takes 5 KB
    of memory.
    """
    aws = SERVERS["aws"]
    SERVERS["aws"] = replace(aws, env=lambda place: {**aws.env(place), STREAM_SECONDS: str(seconds)})


@contextmanager
def stack_of(part: str) -> Iterator[Stack]:
    """A running stack, deleted afterwards."""
    keep_the_stream(_STREAM_SECONDS)
    stack = Stack(PROJECT_ROOT, f"bench-{part}-{os.getpid()}")
    try:
        stack.up()
        yield stack
    finally:
        stack.reset()
