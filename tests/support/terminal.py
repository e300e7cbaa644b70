"""The terminal as its users see it: exit code, stdout and stderr."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from typing import Any
from unittest import mock

import orjson
import structlog

from regworkers_core.cli.main import main
from regworkers_core.runtime import Runtime
from tests.support.children import run_child
from tests.support.environment import environment_of


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """stdout as one JSON document; it must hold nothing else."""
        return orjson.loads(self.stdout)


def regworkers(runtime: Runtime | None, *words: str, **environment: str) -> Answer:
    """Run one command as its process would, in this one, on the runtime's servers if one is given."""
    variables = {**(environment_of(runtime) if runtime else {}), **environment}
    logging = structlog.get_config()
    stdout, stderr = (TextIOWrapper(BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        mock.patch.dict(os.environ, variables),
        mock.patch.object(sys, "argv", ["regworkers", *words]),
        # A command that leaves its process at once must not take this one along.
        mock.patch.object(os, "_exit", sys.exit),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            structlog.configure(**logging)
            structlog.contextvars.clear_contextvars()
    assert isinstance(code, int)
    said, complained = (stream.detach().getvalue().decode() for stream in (stdout, stderr))  # type: ignore[attr-defined]
    return Answer(code, said, complained)


def in_a_process(runtime: Runtime | None, *words: str, **environment: str) -> Answer:
    """The same in a process of its own, for what only that shows."""
    variables = {**os.environ, **(environment_of(runtime) if runtime else {}), **environment}
    done = run_child("regworkers_core.cli.main:main", *words, program="regworkers", environment=variables)
    return Answer(done.returncode, done.stdout, done.stderr)
