"""A namespace that commit 0301c29 left in mid-work is taken up: nothing is lost, doubled, or decided again."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
import orjson
import pytest

from fairdraw.maths.manifest import Manifest
from regworkers_core.analytics.archive.manifest import FORMAT
from regworkers_core.domain import messages
from regworkers_core.domain.events import EventType
from regworkers_core.domain.keys import EntryKey
from regworkers_core.runtime import Runtime
from tests.dagster.support import job, plain, use
from tests.support import entries
from tests.support.drains import run
from tests.support.kafka import Published, published
from tests.support.runtimes import remove_namespace, test_settings
from tests.support.terminal import Answer, regworkers
from tests.support.waiting import wait_until
from tests.upgrade.stored_state import FILE, restore

# Restoring and draining take half a minute, most of it for the draws.
pytestmark = pytest.mark.slow
DRAINS = ("enqueue", "save", "selections", "notifications", "publish")
DRAWN = ("drawn", "published", "notified", "completed")


@dataclass
class Upgraded:
    runtime: Runtime
    # What the old code says that has to be found.
    expected: dict[str, Any]
    provisioned: Answer
    before: list[Published]
    # The record of a draw, before it is adopted.
    notified: dict[str, Any]


@pytest.fixture(scope="module")
def upgraded() -> Iterator[Upgraded]:
    """The state, provisioned and adopted, before any drain has worked on it."""
    # As docs/upgrading.md says: what was queued before carries no signature.
    unsigned = {"unsigned_until": "2099-01-01T00:00:00Z"}
    runtime = Runtime(test_settings(f"t{os.urandom(4).hex()}-", analytics=unsigned))
    expected = restore(runtime)
    before = published(runtime)
    provisioned = regworkers(runtime, "provision", "--apply", "--yes", "--format", "json")
    # A worker that comes before the adoption gives the chunks back.
    early = run(runtime, "selections")
    assert early.as_dict()["deliveries"] == {"received": 3, "returned": 3}
    notified = runtime.database["draws"].find_one({"_id": "notified"})
    assert notified is not None
    yield Upgraded(Runtime(runtime.settings), expected, provisioned, before, notified)
    remove_namespace(runtime)


def adopted(upgraded: Upgraded, name: str) -> Answer:
    return regworkers(upgraded.runtime, "draw", "adopt", name, "--apply", "--format", "json")


def test_the_state_is_small() -> None:
    assert FILE.stat().st_size < 1_000_000


def test_versions_of_the_contract_are_those_of_before() -> None:
    records = [orjson.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]
    bodies = [orjson.loads(each["body"]) for each in records if each["kind"] == "message"]
    assert {body["version"] for body in bodies if body} == {messages.VERSION}
    texts = {each["key"]: each["text"] for each in records if "text" in each}
    assert orjson.loads(texts["archive/manifest.json"])["format"] == FORMAT
    manifest = texts["draws/drawn/phase-1/manifest.json"].encode()
    assert Manifest.parse(manifest).to_bytes() == manifest


def test_provision_adds_what_is_new_and_keeps_what_exists(upgraded: Upgraded) -> None:
    assert upgraded.provisioned.code == 0, upgraded.provisioned.stderr
    outcomes = {each["name"]: each["outcome"] for each in upgraded.provisioned.document}
    made = {name for name, outcome in outcomes.items() if outcome == "created"}
    keys = {name for name in made if "producer-key/" in name}
    assert len(keys) == 5 and all("." in name for name in made - keys), "only keys and indexes are new"
    assert any("erasedAt" in name for name in made)
    assert outcomes[upgraded.runtime.names.bucket] == "changed"


def test_what_was_under_way_arrives_with_the_ids_of_before(upgraded: Upgraded) -> None:
    runtime = upgraded.runtime
    for name in ("enqueue", "save", "publish"):
        run(runtime, name)
    before = {each.event["id"] for each in upgraded.before}
    sent = [each.event for each in published(runtime) if each.event["id"] not in before]
    replicated = [each for each in sent if each["type"] == EventType.ENTRY_REPLICATED]
    assert {each["subject"]: each["id"] for each in replicated} == upgraded.expected["events"]
    assert len(replicated) == len(upgraded.expected["events"]), "no entry is replicated twice"
    for name in ("saved-01", "queued-01", "unread-01"):
        assert entries.document(runtime, EntryKey("open", name)) is not None


def test_no_message_of_before_becomes_a_dead_letter(upgraded: Upgraded) -> None:
    """There are those that the old code refused, and no other."""
    runtime = upgraded.runtime
    for name in DRAINS:
        run(runtime, name)
    dead = {
        name: runtime.queue(runtime.names.dead_letter_queue(name)).depth().total
        for name in runtime.names.queues
    }
    names = runtime.names
    assert dead == {
        names.replication_queue: 2,
        names.selection_queue: 0,
        names.notification_queue: 0,
        names.analytics_queue: 1,
    }
    groups = regworkers(runtime, "dlq", "groups", "--format", "json").document["groups"]
    reasons = Counter(each["reason"] for each in groups)
    assert reasons == Counter(INVALID_BODY=1, INVALID_ENTRY=1, INVALID_EVENT=1)


def test_source_and_replica_agree_but_for_the_refused_entry(upgraded: Upgraded) -> None:
    for name in ("enqueue", "save"):
        run(upgraded.runtime, name)
    found = regworkers(upgraded.runtime, "reconcile", "--format", "json").document
    assert {name: count for name, count in found["counts"].items() if count} == {"rejected": 1}


@pytest.mark.parametrize(
    "name",
    [
        "draws/notified/phase-1/result.txt",
        "draws/notified/phase-1/cutoffs.json",
        "pipeline/notified/phase-1/freeze-2/leaves.txt",
        "pipeline/notified/phase-1/freeze-2/pool.parquet",
        "pipeline/notified/phase-1/outcomes.parquet",
        "pipeline/notified/phase-1/plan/berlin.parquet",
    ],
)
def test_no_file_is_adopted_that_the_draw_has_not_committed_to(upgraded: Upgraded, name: str) -> None:
    runtime, draws = upgraded.runtime, upgraded.runtime.database["draws"]
    objects = runtime.objects
    ours, other = objects.get_bytes(name), objects.get_bytes(name.replace("notified", "published"))
    # Tests come in any order, and one of them adopts it.
    now = draws.find_one_and_replace({"_id": "notified"}, upgraded.notified)
    assert now is not None
    objects.put_bytes(name, other)
    answer = regworkers(runtime, "draw", "adopt", "notified", "--apply")
    objects.put_bytes(name, ours)
    record = runtime.draws.get("notified")
    draws.replace_one({"_id": "notified"}, now)
    assert answer.code == 1, answer.stderr
    assert name.rpartition("/")[2].partition(".")[0] in answer.stdout
    assert record is not None and not record.phases[1].hashes


def adopted_by_job(name: str, *, apply: bool) -> Any:
    config = {"campaign_id": name, "apply": apply}
    with dg.DagsterInstance.ephemeral() as instance:
        made = job("adopt_draw").execute_in_process(instance=instance, run_config=config)
    (output,) = [event.step_output_data for event in made.all_events if event.is_successful_output]
    return plain(output.metadata)


def test_a_committed_draw_goes_on_once_it_is_adopted(
    upgraded: Upgraded, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, expected = upgraded.runtime, upgraded.expected
    refused = regworkers(runtime, "draw", "run", "drawn", "--yes")
    assert refused.code == 1
    assert "`regworkers draw adopt drawn --apply`" in refused.stderr
    dry = regworkers(runtime, "draw", "adopt", "--format", "json")
    assert dry.code == 1
    listed = {each["campaignId"]: each["applied"] for each in dry.document["draws"]}
    assert {"committed", "drawn"} <= listed.keys() <= {"committed", *DRAWN} and not any(listed.values())
    assert "adopt_draw" in regworkers(runtime, "campaign", "status", "committed", "--format", "json").stdout
    use(monkeypatch, runtime)
    assert adopted_by_job("committed", apply=False)["applied"] is False
    assert adopted_by_job("committed", apply=True)["applied"] is True
    assert (
        "adopt_draw" not in regworkers(runtime, "campaign", "status", "committed", "--format", "json").stdout
    )
    assert regworkers(runtime, "draw", "adopt", "--apply").code == 0
    repeated = regworkers(runtime, "draw", "adopt", "--format", "json")
    assert (repeated.code, repeated.document["draws"]) == (0, [])
    for name in ("committed", *DRAWN):
        answer = regworkers(runtime, "draw", "run", name, "--yes", "--wait")
        assert answer.code == 0, answer.stderr
        record = runtime.draws.get(name)
        assert record is not None
        phase = record.phases[1]
        assert phase.status == "COMPLETED"
        assert phase.manifest_hash == expected[name]["manifestHash"]
        assert phase.result_hash == (expected[name]["resultHash"] or phase.result_hash)
        assert regworkers(runtime, "draw", "verify", name).code == 0
    assert regworkers(runtime, "draw", "receipt", "notified", "notified-01").code == 0
    # Whatever the chunks of before and of today's run did, each winner has one code.
    for name in ("published", "notified"):
        codes = list(runtime.database["codes"].find({"campaignId": name, "status": "ASSIGNED"}))
        assert len(codes) == len({each["ref"] for each in codes}) == 5
    top_up = ("--capacity", "berlin=4", "--reason", "a second evening", "--yes")
    assert regworkers(runtime, "draw", "top-up", "completed", *top_up).code == 0
    assert regworkers(runtime, "draw", "verify", "completed").code == 0


def test_a_frozen_draw_is_judged_and_frozen_again(upgraded: Upgraded) -> None:
    assert adopted(upgraded, "frozen").document["draws"] == []
    answer = regworkers(upgraded.runtime, "draw", "run", "frozen", "--yes", "--wait")
    assert answer.code == 0, answer.stderr


def test_messages_go_out_once_and_a_pause_stays(upgraded: Upgraded) -> None:
    runtime = upgraded.runtime
    for name in ("published", "notified"):
        adopted(upgraded, name)

    def statuses() -> list[Counter[str]]:
        # What a worker gave back before the adoption is hidden for a while.
        for drain in ("selections", "notifications"):
            run(runtime, drain)
        outbox = runtime.database["outbox"]
        return [
            Counter(each["status"] for each in outbox.find({"campaignId": name}))
            for name in ("published", "notified")
        ]

    wait_until(lambda: statuses() == [Counter(SENT=12)] * 2)
    assert "before the upgrade" in regworkers(runtime, "notifications", "status", "committed").stdout


def test_an_archive_goes_on_behind_the_offsets_of_before(upgraded: Upgraded) -> None:
    runtime = upgraded.runtime
    run(runtime, "publish")
    answer = regworkers(runtime, "archive", "run", "--format", "json")
    assert answer.code == 0, answer.stderr
    assert answer.document["lost"] == 0
    # What today's code announces again has the ids of before, and is no second row.
    verified = regworkers(runtime, "archive", "verify", "--format", "json").document
    assert verified["holds"] and verified["rows"] > upgraded.expected["archived"]


def test_a_backfill_is_resumed_where_it_stopped(upgraded: Upgraded) -> None:
    answer = regworkers(upgraded.runtime, "backfill", "resume", "--id", "before", "--format", "json")
    assert answer.code == 0, answer.stderr
    assert (answer.document["sent"], answer.document["sentNow"]) == (12, 12 - upgraded.expected["backfill"])


def test_a_fan_who_has_entered_is_known_again(upgraded: Upgraded) -> None:
    check = orjson.dumps([upgraded.expected["check"]]).decode()
    (answer,) = regworkers(upgraded.runtime, "invoke", "checkEligibility", check).document
    (before,) = upgraded.expected["checked"]
    assert answer["transfer"] == {**before["transfer"], "state": "existing"}


def test_incidents_keep_their_mute_and_who_took_them_on(upgraded: Upgraded) -> None:
    document = regworkers(upgraded.runtime, "alerts", "list", "--format", "json").document
    assert document["open"] and {each["acknowledged"]["by"] for each in document["open"]} == {"ada"}
    assert [each["pattern"] for each in document["mutes"]] == ["queue-depth*"]


def test_an_entry_of_before_is_erased_everywhere(upgraded: Upgraded) -> None:
    answer = regworkers(upgraded.runtime, "erase", "open", "kept-19", "--apply", "--yes")
    assert answer.code == 0, answer.stderr
    document = entries.document(upgraded.runtime, EntryKey("open", "kept-19"))
    assert document is not None and "email" not in document
