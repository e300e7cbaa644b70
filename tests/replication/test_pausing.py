"""While a campaign is paused nothing of it is saved, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.adapters.mongo import parking
from regworkers_core.domain.messages import Op
from regworkers_core.operation import operations_of
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.replication import pausing
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from tests.support.campaigns import create
from tests.support.drains import replicate_all, run, taken
from tests.support.entries import document, key, put, remove, source
from tests.support.faces import Face

pytestmark = pytest.mark.namespace("module")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause is seen by the next batch."""
    monkeypatch.setattr(parking, "KNOWN_SECONDS", 0.0)


def test_what_comes_while_a_campaign_is_paused_waits_and_is_taken_up_without_a_read_of_the_table(
    runtime: Runtime, face: Face
) -> None:
    create(runtime)
    put(runtime, key("before"))
    put(runtime, key("leaving"))
    put(runtime, key("lost"))
    replicate_all(runtime)
    lost = document(runtime, key("lost"))
    runtime.database["entries"].delete_one({"_id": key("lost").document_id})
    assert face.does("campaign pause", campaign_id="summer", reason="a wrong import").fine
    for name in ("one", "two"):
        put(runtime, key(name))
    put(runtime, key("before"), version=2)
    remove(runtime, key("leaving"))
    put(runtime, key("theirs", "another"))
    _, saved = replicate_all(runtime)
    assert (saved.counts["dropped"], saved.counts["parked"], saved.counts["applied"]) == (4, 4, 1)
    assert document(runtime, key("theirs", "another")) and document(runtime, key("one")) is None
    assert (document(runtime, key("before")) or {})["version"] == 1
    assert "deletedAt" not in (document(runtime, key("leaving")) or {"deletedAt": 1})
    assert (source(runtime, key("one")) or {})["needsReplication"] is True
    # It is not missing; what is missing for another reason is.
    found = reconcile(runtime, Comparing("summer"))
    waits = {Kind.PARKED: 4, Kind.MISSING: 1}
    assert {kind: number for kind, number in found.counts.items() if number} == waits and found.adds_up
    runtime.database["entries"].insert_one(lost)
    # A draw does not begin, and an operator sees why.
    assert "its replication is paused since" in settled(runtime, "summer").open[-1]
    assert settled(runtime, "summer").differences == {}
    again = face.does("campaign pause", campaign_id="summer", reason="another").text
    assert "a wrong import" in again and "another" not in again.replace("campaign another", "")
    status = face.does("campaign status", campaign_id="summer")
    assert not status.fine and ": 4 keys wait" in " ".join(status.text.split())
    (state,) = [each for each in read_campaigns(runtime) if each.campaign_id == "summer"]
    assert state.paused_since == runtime.parking.pauses()["summer"].at
    taken(runtime, runtime.names.analytics_queue)

    assert face.does("campaign resume", campaign_id="summer").fine
    assert runtime.parking.count("summer") == 0
    saved = run(runtime, "save")
    assert (saved.counts["applied"], saved.counts["removed"]) == (3, 1)
    assert (document(runtime, key("before")) or {})["version"] == 2
    assert "deletedAt" in (document(runtime, key("leaving")) or {})
    assert (source(runtime, key("two")) or {})["needsReplication"] is False
    assert len(taken(runtime, runtime.names.analytics_queue)) == 4
    assert not settled(runtime, "summer").open
    assert "nothing waited" in face.does("campaign resume", campaign_id="summer").text


def test_keys_that_are_parked_as_the_pause_ends_are_saved_all_the_same(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.parking.pause("summer", parking.Pause("", "me", "r"))
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    written = runtime.parking._bulk

    def then_it_ends(operations: Any) -> int:
        number = written(operations)
        assert runtime.parking.end("summer")
        return number

    monkeypatch.setattr(runtime.parking, "_bulk", then_it_ends)
    saved = run(runtime, "save", idle_seconds=3.0)
    assert saved.counts["applied"] == 1 and saved.counts["parked"] == 0
    assert document(runtime, key("e1")) and runtime.parking.count("summer") == 0


def test_a_worker_that_dies_after_it_parked_a_key_and_a_resume_that_is_repeated_lose_and_double_nothing(
    runtime: Runtime,
) -> None:
    runtime.parking.pause("summer", parking.Pause("", "me", "r"))
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    queue = runtime.queue(runtime.names.replication_queue)
    (message,) = queue.receive(10, 0, 0)
    for _ in range(2):
        # The same message again, as after a death.
        items = [pausing.ReplicationItem(key("e1"), Op.UPSERT)]
        assert runtime.parking.park("summer", items)
    assert runtime.parking.count("summer") == 1
    sent: list[Any] = []

    def dies(items: Any) -> None:
        sent.extend(items)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        [*runtime.parking.take("summer", dies)]
    assert runtime.parking.count("summer") == 1, "what was not confirmed stays"
    assert [*runtime.parking.take("summer", sent.extend)] == [1]
    assert [item.key for item in sent] == [key("e1")] * 2 and runtime.parking.count("summer") == 0
    queue.delete([message])


def test_campaigns_whose_ids_begin_alike_wait_apart(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for campaign_id in ("summer", "summer-2"):
        runtime.parking.pause(campaign_id, parking.Pause("", "me", "r"))
        for op, version in ((Op.UPSERT, 1), (Op.REMOVE, 1), (Op.REMOVE, 2)):
            order = pausing.ReplicationItem(key("e"), op).order._replace(version=version)
            item = pausing.ReplicationItem(key("e", campaign_id), op, order)
            runtime.parking.park(campaign_id, [item, item])
    assert runtime.parking.paused() == {"summer", "summer-2"}
    found: list[Any] = []
    assert [*runtime.parking.take("summer", found.extend)] == [3]
    assert max(item.order.version for item in found) == 2 and {item.key for item in found} == {key("e")}
    ids = ["a", "b", "b-2", "c"]
    runtime.parking.park("summer", [pausing.ReplicationItem(key(each), Op.UPSERT) for each in ids])
    monkeypatch.setattr(parking, "_PAGE", 2)
    assert [*runtime.parking.waiting("summer", "", None)] == [["a", "b"], ["b-2", "c"]]
    assert [*runtime.parking.waiting("summer", "b", "c")] == [["b", "b-2"]]
    assert runtime.parking.count("summer-2") == 3


def test_the_acts_are_declared_for_managers() -> None:
    found = {each.job: each.role for each in operations_of(pausing)}
    assert found == {"pause_campaign": "manager", "resume_campaign": "manager"}
