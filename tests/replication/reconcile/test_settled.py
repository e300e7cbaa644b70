"""Whether a campaign's entries are replicated to the last one: what a draw waits for."""

from __future__ import annotations

from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from tests.support import entries
from tests.support.drains import replicate_all, run


def look(runtime: Runtime) -> list[str]:
    return list(settled(runtime, "summer", sleep=lambda _seconds: None).open)


def differences(runtime: Runtime) -> dict[str, int]:
    return dict(settled(runtime, "summer", sleep=lambda _seconds: None).differences)


def test_nothing_is_open_once_stream_and_queue_are_drained(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    replicate_all(runtime)
    assert look(runtime) == []


def test_an_entry_that_is_on_its_way_keeps_the_campaign_open(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    found = look(runtime)
    assert found[0] == "1 missing"
    assert "the stream has unread records" in found
    assert found[-1] == (
        "nothing moved meanwhile: is no drain running? By hand: `regworkers drain enqueue`, then"
        " `regworkers drain save`"
    )


def test_entries_that_wait_on_the_queue_alone_need_the_second_drain_alone(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    run(runtime, "enqueue")
    assert (
        look(runtime)[-1] == "nothing moved meanwhile: is no drain running? By hand: `regworkers drain save`"
    )


def test_while_replication_moves_a_repair_is_what_helps(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    selection = runtime.settings.selection.model_copy(update={"settle_seconds": 60.0})
    patient = Runtime(runtime.settings.model_copy(update={"selection": selection}))
    times = iter([0.0, 1.0, 61.0])
    found = settled(
        patient,
        "summer",
        sleep=lambda _seconds: run(runtime, "enqueue"),
        clock=lambda: next(times),
    ).open
    patient.mongo.close()
    assert "1 messages wait on" in found[1] and "drain" not in found[-1]
    assert "reconcile --campaign summer --repair" in found[-1]


def test_a_replica_that_was_changed_by_hand_keeps_the_campaign_open(runtime: Runtime) -> None:
    key = entries.key("one")
    entries.put(runtime, key)
    replicate_all(runtime)
    # On AWS clearing the flag leaves a record of its own, which has to be read as well.
    run(runtime, "enqueue")
    runtime.database["entries"].delete_one({"_id": key.document_id})
    assert look(runtime)[0] == "1 missing"
    assert differences(runtime) == {"missing": 1}, "nothing is on its way: a person may accept it"
    entries.put(runtime, entries.key("two"))
    assert differences(runtime) == {}, "what still waits is no difference"


def test_other_campaigns_that_are_busy_do_not_keep_a_campaign_open(runtime: Runtime) -> None:
    entries.put(runtime, entries.key("one"))
    replicate_all(runtime)
    entries.put(runtime, entries.key("other", campaign_id="winter"))
    assert look(runtime) == []


def test_a_state_that_replication_refuses_keeps_no_campaign_open(runtime: Runtime) -> None:
    key = entries.key("one")
    entries.put(runtime, key)
    replicate_all(runtime)
    entries.put(runtime, key, version=2, email=None)
    replicate_all(runtime)
    assert reconcile(runtime, Comparing("summer")).counts[Kind.REJECTED] == 1
    assert look(runtime) == [] and differences(runtime) == {}
