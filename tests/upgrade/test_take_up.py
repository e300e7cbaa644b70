"""A namespace that the base release left in mid-work is taken up: nothing is lost, doubled, or decided again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import orjson
import pytest

from regworkers_core.domain.events import EventType
from regworkers_core.domain.keys import EntryKey
from regworkers_core.settings.documents import OWN_LEAD_SECONDS
from regworkers_local.beacon import write_trust
from tests.support import entries
from tests.support.beacon import OWN
from tests.support.drains import run
from tests.support.kafka import published
from tests.support.terminal import regworkers
from tests.support.waiting import wait_until
from tests.upgrade.conftest import DRAINS, Upgraded
from tests.upgrade.release import DRAWN

# Writing and draining take a minute, most of it for the draws.
pytestmark = pytest.mark.slow


def test_provision_keeps_what_exists(upgraded: Upgraded) -> None:
    assert upgraded.provisioned.code == 0, upgraded.provisioned.stderr
    assert {each["outcome"] for each in upgraded.provisioned.document} <= {"existed", "created", "changed"}


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
    """There are those that the base release refused, and no other."""
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
        # Before, there was none.
        names.redemption_queue: 0,
    }
    groups = regworkers(runtime, "dlq", "groups", "--format", "json").document["groups"]
    reasons = Counter(each["reason"] for each in groups)
    assert reasons == Counter(INVALID_BODY=1, INVALID_ENTRY=1, FORGED=1)


def test_source_and_replica_agree_but_for_the_refused_entry(upgraded: Upgraded) -> None:
    for name in ("enqueue", "save"):
        run(upgraded.runtime, name)
    found = regworkers(upgraded.runtime, "reconcile", "--format", "json").document
    assert {name: count for name, count in found["counts"].items() if count} == {"rejected": 1}


def test_a_draw_goes_on_from_every_step(upgraded: Upgraded, tmp_path: Path) -> None:
    trust = tmp_path / "trust.json"
    write_trust(trust, beacon={OWN.chain.hash: {"lead": OWN_LEAD_SECONDS}})
    runtime, expected = upgraded.runtime, upgraded.expected
    for name in DRAWN:
        answer = regworkers(runtime, "draw", "run", name, "--yes")
        assert answer.code == 0, answer.stderr
        record = runtime.draws.get(name)
        assert record is not None
        phase = record.phases[1]
        assert phase.status == "COMPLETED"
        assert phase.manifest_hash == (expected[name]["manifestHash"] or phase.manifest_hash)
        assert phase.result_hash == (expected[name]["resultHash"] or phase.result_hash)
        assert regworkers(runtime, "draw", "verify", name, "--trust", str(trust)).code == 0
    assert regworkers(runtime, "draw", "receipt", "notified", "notified-01").code == 0
    # Whatever the chunks of before and of today's run did, each winner has one code.
    for name in ("published", "notified"):
        codes = list(runtime.database["codes"].find({"campaignId": name, "status": "ASSIGNED"}))
        assert len(codes) == len({each["ref"] for each in codes}) == 5
    top_up = ("--capacity", "berlin=4", "--reason", "a second evening", "--yes")
    assert regworkers(runtime, "draw", "top-up", "completed", *top_up).code == 0
    assert regworkers(runtime, "draw", "verify", "completed", "--trust", str(trust)).code == 0


def test_messages_go_out_once_and_a_pause_stays(upgraded: Upgraded) -> None:
    runtime = upgraded.runtime

    def statuses() -> list[Counter[str]]:
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
