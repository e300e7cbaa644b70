"""The terminal as its users see it: exit code, stdout and stderr."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import orjson

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
    """Run one command in a process of its own, on the runtime's servers if one is given."""
    variables = {**os.environ, **(environment_of(runtime) if runtime else {}), **environment}
    done = run_child("regworkers_core.cli.main:main", *words, program="regworkers", environment=variables)
    return Answer(done.returncode, done.stdout, done.stderr)
