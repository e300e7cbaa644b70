"""Both bare clients at the same time, the queue's in its own process: the capacity of this machine when
receiving and producing overlap, with nothing between them.

`python -m benchmarks.analytics.both <instance> <prefix>` is the other process: a number of messages a line on stdin,
the seconds that they took on stdout.
"""

from __future__ import annotations

import subprocess
import sys
from typing import IO

from benchmarks.analytics.contestants import BareProducer, BareQueue, fill
from benchmarks.analytics.data import settings
from regworkers_core.observability.logs import configure_logging
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.stack import Stack


class BothBare:
    """Its time is that of the slower one. The other process runs from the first to the last round."""

    name = "both"

    def __init__(self, instance: str, runtime: Runtime) -> None:
        self._runtime = runtime
        self._producer = BareProducer(runtime)
        self._messages = 0
        self.child = subprocess.Popen(
            [sys.executable, "-m", __name__, instance, runtime.names.prefix],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Connect before the first round.
        self._ask(0)
        self._answer()

    def load(self, first: int, messages: int) -> None:
        fill(self._runtime, first, messages)
        self._producer.load(first, messages)
        self._messages = messages

    def run(self) -> float:
        self._ask(self._messages)
        produced = self._producer.run()
        return max(produced, self._answer())

    def close(self) -> None:
        _pipe(self.child.stdin).close()
        self.child.wait()
        _pipe(self.child.stdout).close()

    def _ask(self, messages: int) -> None:
        pipe = _pipe(self.child.stdin)
        pipe.write(f"{messages}\n")
        pipe.flush()

    def _answer(self) -> float:
        line = _pipe(self.child.stdout).readline()
        if not line:
            raise RuntimeError("the bare client of SQS has ended")
        return float(line)


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process was started without its pipes")
    return stream


def _main(instance: str, prefix: str) -> None:
    configure_logging("ERROR")
    queue = BareQueue(Runtime(settings(Stack(PROJECT_ROOT, instance).state, prefix)))
    for line in sys.stdin:
        queue.expect(int(line))
        print(queue.run(), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
