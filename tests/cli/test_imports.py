"""What a process imports before it knows that it needs it."""

from __future__ import annotations

import subprocess
import sys

import orjson

from regworkers_core.cli.main import PANELS
from regworkers_core.settings import PROJECT_ROOT

_COMPUTES = {"duckdb", "numpy", "pyarrow"}
_PROGRAM = """
import gc, sys
from importlib import import_module
import dagster, orjson
loaded = lambda: sorted({name.partition(".")[0] for name in sys.modules})
of_commands = [import_module(f"regworkers_core.cli.{name}") for name in sys.argv[1:]] and loaded()
import regworkers_dagster.definitions
print(orjson.dumps([of_commands, loaded(), gc.get_freeze_count()]).decode())
"""


def test_only_a_draw_imports_what_computes_and_no_run_looks_through_dagsters_objects() -> None:
    modules = {place.partition(":")[0] for names in PANELS.values() for place in names.values()} - {"draw"}
    command = [sys.executable, "-c", _PROGRAM, *sorted(modules)]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, stdout=subprocess.PIPE)
    of_commands, of_definitions, frozen = orjson.loads(answer.stdout)
    assert not _COMPUTES & {*of_commands} and not _COMPUTES & {*of_definitions}
    assert "jinja2" not in of_definitions
    assert frozen > 100_000
