"""What a process imports before it knows that it needs it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson

from regworkers_core.settings import PROJECT_ROOT

_AT_WORK = {"boto3", "botocore", "cryptography", "email_validator", "httpx2", "pymongo", "sqlalchemy"}
_AT_WORK |= {"duckdb", "numpy", "pyarrow"}
_LOADED = """
import gc, sys, orjson
loaded = lambda: sorted({name.partition(".")[0] for name in sys.modules})
"""
_OF_A_LIST = """
from regworkers_core.cli.main import build
print(orjson.dumps(build("") and loaded()).decode())
"""
_PROGRAM = """
import dagster
import regworkers_dagster.definitions
of_definitions, frozen = loaded(), gc.get_freeze_count()
from regworkers_core.cli.main import build
of_commands = build() and loaded()
print(orjson.dumps([of_commands, of_definitions, frozen]).decode())
"""


def _says(program: str) -> Any:
    command = [sys.executable, "-c", _LOADED + program]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE)
    return orjson.loads(answer.stdout)


def test_the_list_of_all_commands_has_no_setting_no_model_and_no_driver() -> None:
    assert sorted((_AT_WORK | {"pydantic", "yaml", "dagster"}).intersection(_says(_OF_A_LIST))) == []


def test_neither_help_nor_definitions_import_what_only_work_needs() -> None:
    of_commands, of_definitions, frozen = _says(_PROGRAM)
    # The modules of all commands: those of one command are among them.
    assert sorted(_AT_WORK.intersection(of_commands)) == []
    assert sorted((_AT_WORK | {"jinja2", "rich", "sqlite3"}).intersection(of_definitions)) == []
    # Dagster's objects, through which no collection of a run looks.
    assert frozen > 100_000
