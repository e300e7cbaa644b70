"""Whether a campaign's entries are replicated to the last one: what a draw waits for."""

from __future__ import annotations

from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from tests.support import entries
from tests.support.drains import replicate_all


def look(runtime: Runtime) -> list[str]:
    return settled(runtime, "summer", sleep=lambda _seconds: None)


def test_nothing_is_open_once_stream_and_queue_are_drained(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    replicate_all(runtime)
    assert look(runtime) == []


def test_an_entry_that_is_on_its_way_keeps_the_campaign_open(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    found = look(runtime)
    assert found[0] == "1 missing"
    assert "the stream has unread records" in found
    assert "reconcile --campaign summer --repair" in found[-1]


def test_a_replica_that_was_changed_by_hand_keeps_the_campaign_open(runtime: Runtime) -> None:
    key = entries.key("one")
    entries.put(runtime, key)
    replicate_all(runtime)
    runtime.database["entries"].delete_one({"_id": key.document_id})
    assert look(runtime)[0] == "1 missing"


def test_other_campaigns_that_are_busy_do_not_keep_a_campaign_open(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    replicate_all(runtime)
    entries.put(runtime, entries.key("other", campaign_id="winter"))
    assert look(runtime) == []
