"""Child processes without the second of imports that each would cost: forked from one that has imported already.

Each is a process as `python -m <module> <words>` would be, with memory, environment, folder and end of its own, so
that it may kill itself. `python -m tests.support.children <descriptor>` is the one that they are forked from: one for
each process that asks, and it ends with that one.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

import orjson

from regworkers_core.settings import PROJECT_ROOT

# Most of what children import. The threads that some of these start would not live on in a fork.
_IMPORTED = (
    "regworkers_core.cli.main",
    "regworkers_core.cli.draw",
    "tests.support.drains",
    "regworkers_local.commands",
)
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_NUMBER_BYTES = 8


def run_child(
    target: str,
    *words: str,
    program: str = "",
    environment: Mapping[str, str] | None = None,
    folder: Path = PROJECT_ROOT,
    seconds: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Run a module, or a function as `module:function`, to its end; as `subprocess.run` with its output captured.

    `program` is its sys.argv[0]. Raises TimeoutExpired after killing it.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        wanted = {
            "target": target,
            "argv": [program or target, *words],
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder),
        }
        code = _ancestor().run(orjson.dumps(wanted), stdout, stderr, seconds)
        for stream in (stdout, stderr):
            stream.seek(0)
        said, complained = stdout.read().decode(), stderr.read().decode()
    if code is None:
        raise subprocess.TimeoutExpired([target, *words], seconds, said, complained)
    return subprocess.CompletedProcess([target, *words], code, said, complained)


@cache
def _ancestor() -> _Ancestor:
    return _Ancestor()


class _Ancestor:
    """The process that forks, as seen by the one that asks; its end of the socket closes with the latter."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=PROJECT_ROOT,
                env={**os.environ, **_NO_THREADS},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid

    def run(self, wanted: bytes, stdout: IO[bytes], stderr: IO[bytes], seconds: float) -> int | None:
        """The child's exit code as `subprocess` gives it; None if it took too long."""
        streams = [stdout.fileno(), stderr.fileno()]
        socket.send_fds(self._socket, [_packed(len(wanted))], streams)
        self._socket.sendall(wanted)
        child = self._answer()
        in_time = bool(select.select([self._socket], [], [], seconds)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        code = self._answer()
        return code if in_time else None

    def _answer(self) -> int:
        answer = self._socket.recv(_NUMBER_BYTES, socket.MSG_WAITALL)
        assert answer, "the process that children are forked from has ended: its stderr tells why"
        return int.from_bytes(answer, "big", signed=True)


def _packed(number: int) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "big", signed=True)


def _next_child(asking: socket.socket) -> dict[str, Any]:
    """Fork for each request and await its end; returns in the child, with what it shall be."""
    while True:
        length, streams, _, _ = socket.recv_fds(asking, _NUMBER_BYTES, 2)
        if not length:
            sys.exit()
        wanted: dict[str, Any] = orjson.loads(asking.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
        child = os.fork()
        if child == 0:
            asking.close()
            for number, stream in enumerate(streams, start=1):
                os.dup2(stream, number)
                os.close(stream)
            return wanted
        for stream in streams:
            os.close(stream)
        asking.sendall(_packed(child))
        asking.sendall(_packed(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


def _become(target: str, argv: list[str], environment: dict[str, str], folder: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # it follows the environment
    sys.argv[:] = argv
    module, _, function = target.partition(":")
    if function:
        sys.modules["__main__"].__package__ = None  # as in a program's script
        getattr(importlib.import_module(module), function)()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for _name in _IMPORTED:
        importlib.import_module(_name)
    # Children leave what they did not make where it is: collecting it would copy every page of it.
    gc.freeze()
    _become(**_next_child(socket.socket(fileno=int(sys.argv[1]))))
