"""What an operator types, and what comes back."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.drains import runner
from regworkers_core.engine.defects import hold_of
from regworkers_core.engine.leases import LeaseTable
from regworkers_core.operations.on_call import pause_drain, resume_drain
from regworkers_core.replication.keys import require_campaign
from regworkers_core.runtime import Runtime
from regworkers_local.load import DemoCampaign
from tests.support.drains import replicate_all, run
from tests.support.entries import document, item, key, put, remove
from tests.support.faces import Face
from tests.support.terminal import regworkers


def stream_event(*records: dict[str, object]) -> str:
    return orjson.dumps({"Records": list(records)}).decode()


def stream_record(entry_id: str, sequence: str = "1") -> dict[str, object]:
    image = attributes(item(key(entry_id)))
    return {
        "eventID": "1",
        "eventName": "INSERT",
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {"PK": image["PK"], "SK": image["SK"]},
            "NewImage": image,
            "SequenceNumber": sequence,
        },
    }


def sqs_record(message_id: str, *items: object) -> dict[str, object]:
    body = {"type": "entries.replicate", "version": 1, "correlationId": "c", "items": list(items)}
    return {"messageId": message_id, "receiptHandle": "r", "body": orjson.dumps(body).decode()}


def named(entry_id: str) -> dict[str, str]:
    return {"pk": key(entry_id).pk, "sk": key(entry_id).sk, "op": "upsert"}


def test_the_old_workers_answer_the_old_events(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    put(runtime, key("bad"), email=None)
    answer = regworkers(runtime, "invoke", "enqueueEntries", stream_event(stream_record("e1")))
    assert answer.code == 0 and answer.document == {"batchItemFailures": []}
    assert runtime.queue(runtime.names.replication_queue).depth().total == 1
    event = stream_event(sqs_record("m1", named("e1")), sqs_record("m2", named("bad"), named("e1")))
    answer = regworkers(runtime, "invoke", "saveEntries", event)
    assert answer.document == {"batchItemFailures": [{"itemIdentifier": "m2"}]}
    assert document(runtime, key("e1")) is not None
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    assert dead.depth().total == 0


def test_garbage_given_to_a_worker_is_one_line_and_exit_code_2(runtime: Runtime) -> None:
    for words, expected in (
        (("invoke", "saveEntries", "{not json"), "not JSON"),
        (("invoke", "saveEntries", "{}"), "Records is missing"),
        (("invoke", "saveEntries", '{"Records": [{}]}'), "Records[0].messageId"),
        (("invoke", "enqueueEntries", "[]"), "Records"),
        (("invoke", "drawWinners", "{}"), "enqueueEntries, saveEntries"),
    ):
        answer = regworkers(runtime, *words)
        assert answer.code == 2 and answer.stdout == ""
        assert expected in answer.stderr and len(answer.stderr.strip().splitlines()) == 1


def test_a_drain_by_hand_prints_its_report_and_its_calls(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    enqueue = regworkers(runtime, "drain", "enqueue", "--idle-seconds", "0.1", "--format", "json")
    assert enqueue.code == 0 and enqueue.document["items"]["sent"] == 1
    save = regworkers(runtime, "drain", "save", "--idle-seconds", "0.1", "--format", "json")
    assert save.document["items"]["applied"] == 1 and save.document["addsUp"] is True
    assert save.document["calls"]["mongo"] > 0
    text = regworkers(runtime, "drain", "save", "--max-seconds", "1")
    assert text.code == 0 and "ended" in text.stdout
    assert not {"{}", "–", "None"} & set(text.stdout.split()), "rows that say nothing"


def test_a_resident_touches_its_file_during_a_pause_and_with_each_heartbeat_until_a_signal_ends_it(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, resumed = list[bool](), list[bool]()
    touch, asks = Path.touch, itertools.count()

    def touch_and_end(path: Path) -> None:
        touch(path)
        paused.append(hold_of(runtime.leases, PausedDrain, "save") is not None)
        if paused.count(False) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def resume_and_ask(table: LeaseTable, kind: Any, drain: str) -> Any:
        if kind is PausedDrain and not resumed and (paused or next(asks) == 200):
            resumed.append(True)
            resume_drain(runtime, "save")
        return hold_of(table, kind, drain)

    monkeypatch.setattr(Path, "touch", touch_and_end)
    monkeypatch.setattr(runner, "hold_of", resume_and_ask)
    monkeypatch.setattr(runner, "BEAT_SECONDS", 0.01)
    pause_drain(runtime, "save", "a test", by="ada")
    beat_file = tmp_path / "beat"
    words = ("--resident", "--beat-file", str(beat_file), "--format", "json")
    answer = regworkers(runtime, "drain", "save", *words)
    assert answer.code == 0 and answer.document["ended"] == "stopped"
    assert paused[:3] == [True, False, False] and beat_file.exists()


def test_a_drain_that_met_a_dead_letter_exits_with_1(runtime: Runtime) -> None:
    put(runtime, key("bad"), email=None)
    run(runtime, "enqueue")
    answer = regworkers(runtime, "drain", "save", "--idle-seconds", "0.1", "--format", "json")
    assert answer.code == 1 and answer.document["items"]["dead_lettered"] == 1
    assert regworkers(runtime, "doctor", "--format", "json").code == 1


def test_an_unknown_campaign_is_a_usage_error_and_one_with_entries_only_is_not(
    runtime: Runtime,
) -> None:
    put(runtime, key("e1"))
    replicate_all(runtime)
    remove(runtime, key("e1"))
    put(runtime, key("e2", "autumn"))
    runtime.database["campaigns"].insert_one({"_id": "winter", "slug": "w"})
    for campaign in ("summer", "autumn", "winter"):
        require_campaign(runtime, campaign)
    for command in (("reconcile",), ("backfill",), ("backfill", "--apply")):
        answer = regworkers(runtime, *command, "--campaign", "sumer")
        assert (answer.code, answer.stdout) == (2, "")
        assert "no campaign has the id 'sumer'" in answer.stderr.splitlines()[-1]


def test_on_a_narrow_terminal_commands_and_sentences_stay_in_one_piece(runtime: Runtime) -> None:
    old = "2026-01-01T00:00:00.000Z"
    campaign = "the-farewell-tour-of-the-loudest-band-2026"
    entry = key("7f3c9a52-0d7e-4d0b-9a55-c6b1f4a1e0b7", campaign)
    put(runtime, entry, updatedAt=old, createdAt=old, needsReplication=False)
    put(runtime, key("e2", campaign), email=None)
    replicate_all(runtime)
    narrow = {"COLUMNS": "80"}
    trace = regworkers(runtime, "trace", *entry, **narrow).stdout.splitlines()
    for command in ("replicate", "logs"):
        assert sum(line.startswith(f"regworkers {command} ") for line in trace) == 1
    assert f"regworkers replicate {entry.campaign_id} {entry.entry_id}" in trace
    assert any("events.1.type" in line and "entry.replicated" in line for line in trace)
    assert not any("{" in line for line in trace)
    found = regworkers(runtime, "reconcile", "--repair", "--apply", **narrow).stdout.splitlines()
    assert "missing: The source has the entry, the replica does not." in found
    assert any(line.startswith("repair: queued 1 keys (0 of them removals), deleted 0") for line in found)
    assert any("`regworkers drain save`" in line for line in found)
    backfill = regworkers(runtime, "backfill", "--campaign", campaign, "--apply", **narrow)
    assert (
        backfill.stdout.splitlines()[-1]
        == "the keys are on the replication queue: `regworkers drain save` saves them"
    )


def test_provision_creates_what_is_missing_and_changes_what_differs_only_with_apply(runtime: Runtime) -> None:
    again = regworkers(runtime, "provision", "--format", "json")
    assert again.code == 0 and {each["outcome"] for each in again.document} == {"existed"}
    url = runtime.sqs.get_queue_url(QueueName=runtime.names.replication_queue)["QueueUrl"]
    runtime.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    for options, outcome in (((), "differs"), (("--apply",), "changed"), ((), "")):
        document = regworkers(runtime, "provision", *options, "--format", "json").document
        found = {(each["name"], each["outcome"]) for each in document if each["outcome"] != "existed"}
        assert found == ({(runtime.names.replication_queue, outcome)} if outcome else set())


def test_load_writes_entries_updates_and_removals_that_replicate(runtime: Runtime) -> None:
    answer = regworkers(runtime, "load", "--entries", "200", "--format", "json")
    assert answer.code == 0
    assert answer.document["inserted"] == 200 and answer.document["live"] == 196
    replicate_all(runtime)
    assert regworkers(runtime, "reconcile").code == 0
    scan = runtime.demand_table.pages(None)
    assert any(not entry["firstName"].isascii() for page in scan for _, entry in page.items)


def test_load_fills_an_open_campaign_of_ones_own_in_its_own_markets(runtime: Runtime, face: Face) -> None:
    mine = DemoCampaign("mine", "My Tour", markets=("rome",)).document()
    runtime.database["campaigns"].insert_one(mine | {"slug": "my-tour", "status": "DRAFT"})
    refused = face.does("load", campaign_id="my-tuor")
    assert not refused.fine and "did you mean 'my-tour'?" in refused.text
    assert "my-tour is DRAFT" in face.does("load", campaign_id="my-tour").text
    runtime.database["campaigns"].update_one({"_id": "mine"}, {"$set": {"status": "OPEN"}})
    loaded = face.does("load", campaign_id="my-tour", entries=50)
    entries = [entry for page in runtime.demand_table.pages(None) for _, entry in page.items]
    assert {(each["campaignId"], *each["markets"]) for each in entries} == {("mine", "rome")}
    assert loaded.fine and len(entries) == 49
    assert sum(each["entryId"] in loaded.text for each in entries) == 2, "for a receipt"
    assert runtime.database["campaigns"].count_documents({}) == 1, "none of the demo's is made beside it"
    (row,) = [each for each in runtime.operator_actions.history(what="load") if each.outcome == "done"]
    assert (row.target, row.result["inserted"]) == ("mine", 50)


def test_without_a_stack_every_command_says_what_to_do(tmp_path: object) -> None:
    for words in (("doctor",), ("provision",), ("drain", "save"), ("reconcile",), ("trace", "c", "e")):
        answer = regworkers(None, *words, REGWORKERS_LOCAL_DIR=str(tmp_path))
        assert answer.code == 2, words
        assert "the embedded stack none is not up: run `regworkers local up`" in answer.stderr


def test_missing_tables_and_queues_name_the_command_that_makes_them(runtime: Runtime) -> None:
    for words in (("drain", "save"), ("drain", "enqueue"), ("reconcile",)):
        answer = regworkers(runtime, *words, REGWORKERS_RESOURCE_PREFIX="nowhere-")
        assert answer.code == 2 and "regworkers provision" in answer.stderr


def test_a_wrong_setting_is_one_line_with_key_value_and_origin() -> None:
    answer = regworkers(None, "config", "show", REGWORKERS_SAVE__CONCURRENCY="none")
    assert answer.code == 2
    for part in ("REGWORKERS_SAVE__CONCURRENCY", "save.concurrency", "'none'"):
        assert part in answer.stderr
    answer = regworkers(None, "config", "show", CONFIG_ENV="production")
    assert answer.code == 2 and "local-dev, qa, preprod, prod" in answer.stderr


def test_production_without_credentials_says_so(tmp_path: object) -> None:
    bare = {
        "CONFIG_ENV": "prod",
        "REGWORKERS_MONGO__URI": "mongodb://127.0.0.1:1",
        "REGWORKERS_REDIS__URL": "redis://127.0.0.1:1",
        "REGWORKERS_KAFKA__BOOTSTRAP": "127.0.0.1:1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": f"{tmp_path}/none",
        "AWS_CONFIG_FILE": f"{tmp_path}/none",
    }
    answer = regworkers(None, "reconcile", **bare)
    assert answer.code == 2 and "no AWS credentials" in answer.stderr
