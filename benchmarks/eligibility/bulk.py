"""The judgement of a whole campaign against only reading its entries; each in its own process:
`python -m benchmarks.eligibility.bulk read|judge made-up|stored <entries>`.

Prints `{"seconds", "cpuSeconds", "peakMib"}`; imports are in the peak, not in the times.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import structlog

from benchmarks.figures import peak_mib, ratio, spread
from benchmarks.replication.data import settings
from regworkers_core.adapters.mongo.entry_documents import Stored, Write
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.entry import Order, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.judging import judge_entries
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT, load_settings
from regworkers_local.load import MARKETS, DemoCampaign
from regworkers_local.state import StackState
from tests.support.runtimes import remove_namespace

_ROUNDS = 3
STORED_PART = 20
_CAMPAIGN_ID = "cmp-bulk"
_FIRST_SECOND = 1_767_225_600.0  # 2026-01-01
_AS_OF = "2026-11-01T00:00:00.000Z"

Say = Callable[[str], None]


def measure(state: StackState, entries: int, say: Say) -> dict[str, Any]:
    """Of entries that are generated as they are read, and of a smaller number that a MongoDB holds."""
    stored_entries = max(entries // STORED_PART, 1)
    runtime = Runtime(settings(state, "bench-bulk-"))
    try:
        list(provision(runtime))
        _store(runtime, stored_entries)
        return {
            "madeUp": _in_turn("made-up", entries, runtime, say),
            "stored": _in_turn("stored", stored_entries, runtime, say),
        }
    finally:
        remove_namespace(runtime)


def _in_turn(source: str, entries: int, runtime: Runtime, say: Say) -> dict[str, Any]:
    found: dict[str, Any] = {"entries": entries}
    per_round = []
    for number in range(_ROUNDS):
        once = {name: _child(name, source, entries, runtime) for name in ("read", "judge")}
        per_round.append(once)
        shown = ", ".join(f"{name} {each['seconds']:.1f} s" for name, each in once.items())
        say(f"bulk, {entries:,} entries {source}, round {number + 1}: {shown}")
    for name in ("read", "judge"):
        found[name] = {
            "perSecond": spread(entries / each[name]["seconds"] for each in per_round),
            "cpuMicros": spread(each[name]["cpuSeconds"] / entries * 1e6 for each in per_round),
            "peakMib": round(max(each[name]["peakMib"] for each in per_round)),
        }
    found["timesReading"] = ratio(
        *([each[name]["seconds"] for each in per_round] for name in ("judge", "read"))
    )
    return found


def _child(name: str, source: str, entries: int, runtime: Runtime) -> dict[str, float]:
    uri = runtime.settings.mongo.uri
    assert uri is not None
    environment = os.environ | {
        "REGWORKERS_INSTANCE": "none",
        "REGWORKERS_RESOURCE_PREFIX": runtime.names.prefix,
        "REGWORKERS_MONGO__URI": uri.get_secret_value(),
    }
    command = [sys.executable, "-m", "benchmarks.eligibility.bulk", name, source, str(entries)]
    answer = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, capture_output=True)
    figures: dict[str, float] = orjson.loads(answer.stdout)
    return figures


class MadeUp:
    """A replica whose entries are generated as they are read: every fiftieth has the mail address of an earlier one,
    every fifth belongs to a household.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries

    def entries(self, campaign_id: str) -> Iterator[tuple[EntryKey, Stored]]:
        for number in range(self._entries):
            fields = _fields(campaign_id, number)
            key = EntryKey(campaign_id, fields["entryId"])
            yield key, Stored(Order(fields["createdAt"], 1, fields["updatedAt"]), fields, {}, None)


def _fields(campaign_id: str, number: int) -> dict[str, Any]:
    stamp = iso(_FIRST_SECOND + number * 7)
    person = number - 25 if number % 50 == 49 else number
    fields = {
        "campaignId": campaign_id,
        "entryId": f"entry-{number:08d}",
        "ref": f"ref-{number:08d}",
        "email": f"fan{person}@example.com",
        "firstName": "Test",
        "lastName": "User",
        "globalUserId": f"gu-{number}",
        "markets": [MARKETS[number % len(MARKETS)], MARKETS[(number + 3) % len(MARKETS)]],
        "attributes": {"source": "web", "newsletter": False},
        "version": 1,
        "createdAt": stamp,
        "updatedAt": stamp,
    }
    if number % 5 == 0:
        fields["unit"] = f"household-{number // 25}"
    return fields


def _store(runtime: Runtime, entries: int) -> None:
    made_up = MadeUp(entries).entries(_CAMPAIGN_ID)
    while batch := list(islice(made_up, 1_000)):
        writes = [Write(key, lenient_order(each.fields or {}), each.fields, "bench") for key, each in batch]
        runtime.replica.apply(writes, at=_AS_OF, run_id="bench")


def run(name: str, source: str, entries: int) -> dict[str, float]:
    """In this process."""
    runtime = Runtime(load_settings())
    if source == "made-up":
        runtime.__dict__["replica"] = MadeUp(entries)
    started, cpu = time.perf_counter(), time.process_time()
    if name == "read":
        seen = sum(1 for _ in runtime.replica.entries(_CAMPAIGN_ID))
    else:
        with tempfile.TemporaryDirectory() as folder:
            tally = judge_entries(
                runtime, _campaign(), as_of=_AS_OF, folder=Path(folder), tell=lambda line: None
            )
            seen = tally.entries
    if seen != entries:
        raise RuntimeError(f"{seen} entries of {entries}")
    return {
        "seconds": time.perf_counter() - started,
        "cpuSeconds": time.process_time() - cpu,
        "peakMib": peak_mib(),
    }


def _campaign() -> Campaign:
    document = DemoCampaign(_CAMPAIGN_ID, _CAMPAIGN_ID).document("2025-01-01T00:00:00.000Z")
    return read_campaign(document | {"eligibility": {"maxPerUnit": 4}})


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(orjson.dumps(run(sys.argv[1], sys.argv[2], int(sys.argv[3]))).decode())
