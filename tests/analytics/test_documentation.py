"""What docs/analytics.md shows, run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.analytics.world import queue_events, removed
from tests.support.drains import run

EXAMPLE = PROJECT_ROOT / "docs" / "examples" / "read_events.py"


def test_the_example_consumer_does_every_event_once_however_often_it_comes(
    runtime: Runtime, tmp_path: Path
) -> None:
    def read(database: str) -> tuple[list[str], str]:
        words = [str(runtime.settings.kafka.bootstrap), str(tmp_path / database), "--once"]
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), *words, runtime.names.topic("entries")],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [orjson.loads(line)["id"] for line in done.stdout.splitlines()], done.stderr.strip()

    for numbers in (range(5), range(3, 8)):
        queue_events(runtime, [removed(number) for number in numbers])
        run(runtime, PUBLISH)
    found, dropped = read("first.db")
    assert sorted(found) == sorted(removed(number)["id"] for number in range(8))
    assert dropped == "2 repeats dropped"


def test_the_page_names_every_header_and_every_topic() -> None:
    page = (PROJECT_ROOT / "docs" / "analytics.md").read_text(encoding="utf-8")
    for word in ("ce_id", "ce_type", "correlationId", "traceparent", "clockAheadSeconds", EXAMPLE.name):
        assert word in page, word
    for flow in ("entries", "eligibility", "selections", "notifications"):
        assert f"regworkers.{flow}.v1" in page
