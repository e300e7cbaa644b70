"""The drain `register` on the real servers: what fans do, and what the tree of their campaign has of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pytest

from fairdraw.log.leaves import Kind
from fairdraw.maths.registration import NoticeKind
from regworkers_core.analytics.archive.reading import frame
from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import opening
from regworkers_core.selection.campaigns.keys import ensure_keys
from regworkers_core.selection.drains import REGISTER
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.registrations.source import is_due
from regworkers_core.selection.registrations.tree import RegistrationFiles
from tests.analytics.archive.world import archived
from tests.faults.story import take_events
from tests.operations.erasure.world import COMPARABLE, FAN, enter, erased, items
from tests.operations.health.test_reading import no_scheduler
from tests.selection.registrations.world import CAMPAIGN, Fans, check, entries, opened, tree, with_log
from tests.support.campaigns import advance_to, create
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, remove
from tests.support.kafka import published


@pytest.fixture
def logged(runtime: Runtime) -> Runtime:
    mine = with_log(runtime)
    opened(mine)
    return mine


def counts(report: object) -> dict[str, int]:
    found: Counter[str] = getattr(report, "counts")  # noqa: B009
    return {name: found[name] for name in REGISTER.outcomes if found[name]}


def test_every_entry_that_was_saved_gets_one_leaf_and_one_event(logged: Runtime) -> None:
    for name in ("a", "b", "c"):
        put(logged, key(name), unit="flat-7")
    replicate_all(logged)
    take_events(logged)
    report = run(logged, REGISTER)
    assert counts(report) == {"received": 3, "applied": 3, "registered": 3}
    assert report.lag.count == 3
    made = check(logged)
    assert (made.size, made.notices) == (3, 0)
    events = take_events(logged)
    indexes = {each.key.entry_id: each.registered.index for each in entries(logged) if each.registered}
    assert {each["data"]["entryId"]: each["data"]["index"] for each in events} == indexes
    for event in events:
        assert (event["type"], event["data"]["size"]) == ("entry.logged", 3)
        assert set(event["data"]) == {"campaignId", "entryId", "index", "size"}
        text = f"{event['subject']}\n{event['data']['index']}\nentry.logged"
        assert event["id"] == hashlib.sha256(text.encode()).hexdigest()
        assert event["correlationid"] == "corr-1"
    assert counts(run(logged, REGISTER)) == {}
    assert check(logged).size == 3 and take_events(logged) == []


def test_a_change_of_unit_a_removal_and_a_return_are_notices_and_a_new_registration(
    logged: Runtime,
) -> None:
    for name in ("moves", "leaves", "stays"):
        put(logged, key(name), ref=name, unit="flat-7")
    replicate_all(logged)
    run(logged, REGISTER)
    put(logged, key("moves"), ref="moves", unit="flat-8", version=2)
    remove(logged, key("leaves"))
    replicate_all(logged)
    assert counts(run(logged, REGISTER)) == {"received": 2, "applied": 2, "withdrawn": 1, "other_unit": 1}
    assert check(logged).size == 3 + 2
    put(logged, key("leaves"), ref="leaves", unit="flat-7")
    put(logged, key("moves"), ref="another", unit="flat-8", version=3)
    replicate_all(logged)
    assert counts(run(logged, REGISTER)) == {"received": 3, "applied": 3, "registered": 2, "withdrawn": 1}
    made = check(logged)
    assert (made.size, made.withdrawn) == (3 + 2 + 3, 2)


def test_an_entry_that_came_back_before_its_notice_gets_both_in_one_run(logged: Runtime) -> None:
    fans = Fans(logged)
    fans.save("e")
    run(logged, REGISTER)
    fans.remove("e")
    fans.save("e")
    assert counts(run(logged, REGISTER)) == {"received": 2, "applied": 2, "withdrawn": 1, "registered": 1}
    assert check(logged).size == 3


def test_another_unit_of_the_same_fan_is_one_notice(logged: Runtime) -> None:
    fans = Fans(logged)
    fans.save("e", unit="flat-7")
    run(logged, REGISTER)
    fans.save("e", unit="flat-8")
    assert counts(run(logged, REGISTER)) == {"received": 1, "applied": 1, "other_unit": 1}
    made = check(logged)
    registration = made.at(0)
    assert registration is not None
    assert [each.notice.kind for each in registration.notices] == [NoticeKind.UNIT]
    fans.save("e", unit=None)
    run(logged, REGISTER)
    assert check(logged).size == 3
    fans.save("e", unit=None)
    assert counts(run(logged, REGISTER)) == {}, "an update of something else says nothing"


def test_an_erased_fan_is_erased_from_the_tree_and_nothing_leads_back(logged: Runtime) -> None:
    fans = Fans(logged)
    fans.save("e", "other")
    run(logged, REGISTER)
    fans.erase("e")
    assert counts(run(logged, REGISTER)) == {"received": 1, "applied": 1, "erased": 1}
    assert (check(logged).erased, "_registration" in fans.document("e")) == (1, False)
    fans.save("e")
    run(logged, REGISTER)
    assert check(logged).size == 4, "a fan who comes back after it has a new registration"


def _places(runtime: Runtime) -> Iterator[tuple[str, str]]:
    """Everything that is kept anywhere, as text, under the name of its place."""
    for name in runtime.database.list_collection_names():
        for stored in runtime.database[name].find({}):
            yield f"mongo {name}", str(stored)
    for item in items(runtime):
        yield "dynamodb", str(item)
    for path in runtime.objects.list(""):
        yield f"s3 {path}", runtime.objects.get_bytes(path).decode("latin-1")
    for record in published(runtime):
        yield "kafka", str(record)
    yield "archive", frame(runtime.objects, "SELECT * FROM events").to_csv()


def _where(runtime: Runtime, *texts: str) -> set[str]:
    return {place for place, kept in _places(runtime) if any(text in kept for text in texts)}


def test_no_store_tile_event_or_archive_leads_back_from_a_leaf_to_an_erased_fan(logged: Runtime) -> None:
    opening.log_open(logged)
    fan = key("e1")
    enter(logged, fan)
    replicate_all(logged)

    def go_on() -> None:
        run(logged, REGISTER)
        run(logged, PUBLISH)
        archived(logged)

    go_on()
    held = (document(logged, fan) or {})["_registration"]
    named = (*FAN.values(), COMPARABLE)
    assert _where(logged, held["salt"]) == {"mongo entries"}
    assert {"mongo entries", "dynamodb"} <= _where(logged, *named)
    assert {"kafka", "archive"} <= _where(logged, "entry.logged")
    erased(logged, fan)
    go_on()
    assert check(logged).erased == 1
    assert not _where(logged, held["salt"], held["unit"], *named)
    # The leaf itself is in the tree alone.
    assert {place.partition("/")[0] for place in _where(logged, held["leaf"])} == {"s3 registrations"}


def test_an_entry_that_was_gone_before_the_drain_came_has_nothing_in_the_tree(logged: Runtime) -> None:
    fans = Fans(logged)
    fans.save("e")
    fans.remove("e")
    assert counts(run(logged, REGISTER)) == {}
    assert tree(logged).size == 0


def test_what_was_saved_before_the_opening_is_in_the_tree_after_it(runtime: Runtime) -> None:
    mine = with_log(runtime)
    create(mine, registration={"log": "on"})
    Fans(mine).save("early")
    assert not is_due(mine)
    run(mine, REGISTER)
    assert tree(mine).size == 0
    ensure_keys(mine, mine.campaigns.require_id(CAMPAIGN))
    advance_to(mine, CAMPAIGN, CampaignStatus.OPEN)
    assert is_due(mine)
    run(mine, REGISTER)
    assert check(mine).size == 1


def test_a_campaign_without_the_log_has_no_tree(runtime: Runtime) -> None:
    mine = with_log(runtime)
    opened(mine)
    create(mine, "off")
    advance_to(mine, "off", CampaignStatus.OPEN)
    Fans(mine, "off").save("e")
    Fans(mine).save("e")
    assert counts(run(mine, REGISTER)) == {"received": 1, "applied": 1, "registered": 1}
    assert not mine.objects.list("registrations/off/")
    assert "_registration" not in Fans(mine, "off").document("e")


def test_pages_and_bundles_of_any_size_make_one_tree(runtime: Runtime) -> None:
    mine = with_log(runtime, batch_entries=3)
    opened(mine)
    opened(mine, "winter")
    for number in range(5):
        Fans(mine).save(*(f"e{number}-{each}" for each in range(4)))
        Fans(mine, "winter").save(f"w{number}")
    assert counts(run(mine, REGISTER)) == {"received": 25, "applied": 25, "registered": 25}
    assert (check(mine).size, check(mine, "winter").size) == (20, 5)


def test_a_sensor_sees_work_until_the_drain_has_done_it(logged: Runtime) -> None:
    assert not is_due(logged) and read_system(logged, no_scheduler).registrations_due is False
    Fans(logged).save("e")
    assert is_due(logged) and read_system(logged, no_scheduler).registrations_due is True
    run(logged, REGISTER)
    assert not is_due(logged)


def test_a_size_goes_into_the_log_once_the_campaign_is_there(logged: Runtime) -> None:
    Fans(logged).save("e")
    run(logged, REGISTER)
    files = RegistrationFiles(logged.objects, CAMPAIGN)
    assert files.state().sizes == () and not is_due(logged)
    opening.log_open(logged)
    assert is_due(logged), "a tree without a size"
    run(logged, REGISTER)
    assert files.state().sizes == (1,) and not is_due(logged)
    state = PublicLog.of(logged).read()
    assert state is not None
    kinds = [state.leaf(index).kind for index in range(state.size)]
    assert kinds == [Kind.OPENED, Kind.REGISTRATIONS]
