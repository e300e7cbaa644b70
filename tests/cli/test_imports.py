"""What a process imports before it knows that it needs it."""

from __future__ import annotations

import subprocess
import sys

import orjson

from regworkers_core.settings import PROJECT_ROOT

_AT_WORK = {"boto3", "botocore", "cryptography", "email_validator", "httpx2", "pymongo", "sqlalchemy"}
_AT_WORK |= {"duckdb", "numpy", "pyarrow"}
_PROGRAM = """
import gc, sys
import dagster, orjson
loaded = lambda: sorted({name.partition(".")[0] for name in sys.modules})
import regworkers_dagster.definitions
of_definitions, frozen = loaded(), gc.get_freeze_count()
from regworkers_core.cli.main import build
of_commands = build() and loaded()
print(orjson.dumps([of_commands, of_definitions, frozen]).decode())
"""


def test_neither_help_nor_definitions_import_what_only_work_needs() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE)
    of_commands, of_definitions, frozen = orjson.loads(answer.stdout)
    # The modules of all commands, which `regworkers --help` imports: those of one command are among them.
    assert sorted(_AT_WORK.intersection(of_commands)) == []
    assert sorted((_AT_WORK | {"jinja2", "rich", "sqlite3"}).intersection(of_definitions)) == []
    # Dagster's objects, through which no collection of a run looks.
    assert frozen > 100_000
