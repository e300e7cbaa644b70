"""A plugin of pytest: the failures that servers.yml expects of a server must happen, and no others.

A test that it names passes only by failing. A name that fits no collected test ends the run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

# The server of this run by its name in servers.yml.
SERVER = "REGWORKERS_CONFORMANCE_SERVER"


def servers() -> dict[str, dict[str, Any]]:
    """The content of servers.yml."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("servers.yml").read_text())
    return content


def fits(nodeid: str, pattern: str) -> bool:
    """Whether a pattern names a test: its id, or the beginning of ids before a `*`."""
    return nodeid.startswith(pattern[:-1]) if pattern.endswith("*") else nodeid == pattern


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    server = servers()[os.environ[SERVER]]
    unused: list[str] = []
    left_out: list[pytest.Item] = []
    for expected in server.get("expectedFailures", ()):
        for pattern in expected["tests"]:
            found = [item for item in items if fits(item.nodeid, pattern)]
            for item in found:
                item.add_marker(pytest.mark.xfail(strict=True, reason=expected["reason"]))
            unused += [] if found else [pattern]
    for entry in server.get("leftOut", ()):
        for pattern in entry["tests"]:
            found = [item for item in items if fits(item.nodeid, pattern)]
            left_out += found
            unused += [] if found else [pattern]
    if unused:
        raise pytest.UsageError(f"servers.yml names tests that are not there: {_listed(unused)}")
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
