"""The erasure of a fan who entered, won, got a code and a message, and left dead letters: no store, log or file names
them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from regworkers_core.operations.erasure.dead_letters import ErasedEntry, without
from regworkers_core.replication.scratch_database import left_behind
from regworkers_core.runtime import Runtime
from tests.analytics.archive.world import archived
from tests.dagster.support import job, use
from tests.operations.erasure.world import (
    FAN,
    MAIL_ONCE,
    OLD,
    REF,
    SENT_WITH,
    dead_letters,
    dead_messages,
    drills,
    plant,
)
from tests.selection.draw.world import close_campaign, drawn, entry
from tests.support.drains import run
from tests.support.entries import key
from tests.support.terminal import in_a_process
from tools.demo.leaks import Place, everywhere, exactly, find_leaks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.namespace(
        "test", dead_letters={"look_wait_seconds": 0, "lease_seconds": 1.0, "hide_seconds": 1}
    ),
]

E1 = key("e1")
PLANTED = {**FAN, "mail of before": MAIL_ONCE, "comparable": FAN["email"].lower()}
# Where the fan must be found before the erasure; otherwise their absence afterwards proves nothing.
HOMES = {"table", "collection entries", "collection superseded_entries", "queue", "object", "drill"}


@pytest.fixture
def runtime(runtime: Runtime) -> Iterator[Runtime]:
    yield runtime
    for scratch in left_behind(runtime, older_than_seconds=0):
        scratch.drop()


def places(runtime: Runtime, folder: Path) -> Iterator[Place]:
    yield from everywhere(runtime, folder)
    for page in runtime.dynamodb.get_paginator("scan").paginate(TableName=runtime.names.demand_table):
        for each in page["Items"]:
            yield "table", repr(each).encode()
    for document in runtime.database["entries"].find():
        yield "collection entries", repr(document).encode()
    for scratch in left_behind(runtime, older_than_seconds=0):
        for document in runtime.mongo[scratch.name]["entries"].find({"_id": E1.document_id}):
            yield "drill", repr(document).encode()


def expected_of_a_draw(place: str, kind: str) -> bool:
    """A leaf has its unit, by contract: it names no one."""
    return kind == "unit" and place.startswith(("object draws/", "object pipeline/"))


def test_no_store_log_or_file_names_an_erased_fan(
    runtime: Runtime,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    debug = {"REGWORKERS_OBSERVABILITY__LOG_LEVEL": "DEBUG"}
    use(monkeypatch, runtime, **debug)
    plant(runtime, E1)
    close_campaign(runtime, [entry(number) for number in range(2, 8)])
    drawn(runtime)
    for name in ("selections", "notifications", "publish"):
        run(runtime, name)
    archived(runtime)
    assert runtime.outbox.of_entry("summer", REF), "the fan gets a message"
    # A dead letter with all of the fan's data, as a foreign worker may send one.
    dead_letters(runtime, E1)
    drills(runtime, E1)
    (tmp_path / "before").mkdir()
    before = find_leaks(places(runtime, tmp_path / "before"), exactly(PLANTED))
    found = {leak.place if leak.place.startswith("coll") else leak.place.partition(" ")[0] for leak in before}
    assert found >= HOMES, found
    (tmp_path / "before").rmdir()
    _replace_dead_letters(runtime)

    dry_run = in_a_process(runtime, "erase", "summer", "e1", **debug)
    assert dry_run.code == 0, dry_run
    config = {"campaign_id": "summer", "entry_id": "e1", "confirm": "e1"}
    done = job("erase_entry").execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    assert done.success
    for name in ("enqueue", "save", "notifications", "publish"):
        run(runtime, name)
    archived(runtime)
    traced = in_a_process(runtime, "trace", "summer", "e1", **debug)
    captured = capfd.readouterr()
    # Of another fan: what was in one message with the erased one, and what was alone, each with its attributes.
    kept = dead_messages(runtime, "replication-queue")
    assert [message.attributes for message in kept] == [SENT_WITH] * 3
    assert all(without(message.body, [ErasedEntry(E1)]) == message.body.encode() for message in kept)
    said = (dry_run.stdout, dry_run.stderr, traced.stdout, traced.stderr, captured.out, captured.err)
    (tmp_path / "said.log").write_text("\n".join(said))

    left = [
        leak
        for leak in find_leaks(places(runtime, tmp_path), exactly(PLANTED))
        if not expected_of_a_draw(leak.place, leak.kind)
    ]
    assert left == []
    tombstone = runtime.database["entries"].find_one({"_id": E1.document_id})
    assert tombstone["erasedAt"] and tombstone["_replication"]["createdAt"] == OLD
    rows = runtime.outbox.of_entry("summer", REF)
    assert rows and not [row for row in rows if row["status"] == "PENDING"]


def _replace_dead_letters(runtime: Runtime) -> None:
    """The search before the erasure hides messages for minutes, from the erasure too."""
    for base in runtime.names.queues:
        name = runtime.names.dead_letter_queue(base)
        if runtime.queue(name).depth().total:
            runtime.sqs.purge_queue(QueueUrl=runtime.sqs.get_queue_url(QueueName=name)["QueueUrl"])
    dead_letters(runtime, E1)
