"""Contestants at the same time, each in a process of its own: the capacity of this machine when receiving and producing
overlap, with nothing between them, and that of several drains.

`python -m benchmarks.analytics.both <contestant> <instance> <prefix>` is such a process: `load` or `run` with two
numbers a line on stdin, the seconds that it took on stdout.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO

import psutil

from benchmarks.analytics.contestants import BareProducer, BareQueue, Contestant, Drain
from benchmarks.analytics.data import settings
from regworkers_core.observability.logs import configure_logging
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack

_MAKE: dict[str, Callable[[Runtime], Contestant]] = {
    each.name: each for each in (BareQueue, BareProducer, Drain)
}


class Elsewhere:
    """A contestant in its process, which connects before this returns."""

    def __init__(self, contestant: str, instance: str, runtime: Runtime) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, contestant, instance, runtime.names.prefix],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.process = psutil.Process(self._child.pid)
        self.ask("load", 0, 0)
        self.answer()

    def ask(self, what: str, first: int = 0, messages: int = 0) -> None:
        pipe = _pipe(self._child.stdin)
        pipe.write(f"{what} {first} {messages}\n")
        pipe.flush()

    def answer(self) -> float:
        line = _pipe(self._child.stdout).readline()
        if not line:
            raise RuntimeError("a contestant's process has ended")
        return float(line)

    def close(self) -> None:
        _pipe(self._child.stdin).close()
        self._child.wait()
        _pipe(self._child.stdout).close()


class Together:
    """Each does the same number of messages. Their time is that of the slowest."""

    def __init__(self, name: str, members: Sequence[Elsewhere]) -> None:
        self.name, self.members = name, members

    def load(self, first: int, messages: int) -> None:
        for each in self.members:
            each.ask("load", first, messages)
            each.answer()

    def run(self) -> float:
        for each in self.members:
            each.ask("run")
        return max(each.answer() for each in self.members)

    def close(self) -> None:
        for each in self.members:
            each.close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process was started without its pipes")
    return stream


def _main(name: str, instance: str, prefix: str) -> None:
    configure_logging("ERROR")
    contestant = _MAKE[name](Runtime(settings(Stack(PROJECT_ROOT, instance).state, prefix)))
    for line in sys.stdin:
        what, first, messages = line.split()
        seconds = 0.0
        if what == "run":
            seconds = contestant.run()
        else:
            contestant.load(int(first), int(messages))
        print(seconds, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
