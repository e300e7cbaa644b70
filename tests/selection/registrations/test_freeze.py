"""At a draw each registration is in the tree and in exactly one class, whatever happened to its entry, and whenever a
run died.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairdraw.log.follow import follow
from fairdraw.log.leaves import Kind
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.manifest import Manifest, Registrations
from fairdraw.maths.registration import (
    NoticeKind,
    OpenedRegistration,
    Registration,
    RegistrationClass,
    RegistrationTree,
)
from fairdraw.proof.check import check_receipt
from fairdraw.proof.checker import State
from regworkers_core.adapters.mongo.registrations import Registrant
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import decide
from regworkers_core.selection.draw.changes import open_phase
from regworkers_core.selection.draw.terms import TopUp
from regworkers_core.selection.draw_run import DrawRun
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.public.source import in_bucket
from regworkers_core.selection.registrations.freeze import LATE, Freezing
from regworkers_core.selection.registrations.opening import receipts_of, write_opening
from regworkers_core.selection.registrations.tree import RegistrationFiles
from tests.selection.draw.beacons import START, Clock, Waiting, taken_for_signatures, with_beacon
from tests.selection.draw.test_commitment import commit, dies_at, slow_store
from tests.selection.draw.test_logged_draw import TRUST
from tests.selection.draw.world import CAMPAIGN, close_campaign, done_to, draw, entry, ref_of
from tests.selection.registrations.world import Fans, Holder
from tests.support.draws import record_of

pytestmark = pytest.mark.namespace("module")
ERASED_AT = "2026-10-01T00:00:00.000Z"


def closed(
    runtime: Runtime, *more: dict[str, Any], numbers: Sequence[int] = range(6), **changes: Any
) -> None:
    """A closed campaign that logs its registrations, none of which is in the tree yet."""
    entries = [*map(entry, numbers), *more]
    close_campaign(runtime, entries, registration={"log": "on"}, **changes)
    decide(runtime, CAMPAIGN)


def register(runtime: Runtime) -> None:
    """Append what the entries need now, as the drain does it."""
    campaign = runtime.campaigns.require_id(CAMPAIGN)
    made = Freezing.of(runtime, campaign, on_step=no_step, tell=lambda _text: None)
    assert made is not None
    made.catch_up()


def update(runtime: Runtime, number: int, **fields: Any) -> None:
    key = {"_id": f"{CAMPAIGN}:e{number}"}
    assert runtime.database["entries"].update_one(key, {"$set": fields}).matched_count


def remove(runtime: Runtime, number: int, *, erased: bool = False) -> None:
    """The tombstone that replication, or an erasure, makes of an entry."""
    stored = runtime.database["entries"].find_one({"_id": f"{CAMPAIGN}:e{number}"})
    kept = {name: stored[name] for name in ("_id", "campaignId", "entryId", "_replication")}
    left = stored.get("_registration", {})
    registration = {name: left[name] for name in ("leaf", "index") if name in left}
    tombstone = {**kept, "deletedAt": ERASED_AT, **({"_registration": registration} if registration else {})}
    runtime.database["entries"].delete_one({"_id": stored["_id"]})
    runtime.database["entries"].insert_one(tombstone | ({"erasedAt": ERASED_AT} if erased else {}))


def tree_of(runtime: Runtime, size: int) -> RegistrationTree:
    tree = RegistrationTree()
    for each in RegistrationFiles(runtime.objects, CAMPAIGN).entries(size):
        tree.add(each)
    return tree


def manifest(runtime: Runtime) -> Manifest:
    return Manifest.parse(record_of(runtime).phases[1].manifest)


def logged(runtime: Runtime) -> Registrations:
    """What the manifest answers for, compared with the tree."""
    found = manifest(runtime).registrations
    assert found is not None
    tree = tree_of(runtime, found.size)
    numbers = (tree.root, tree.notices, tree.withdrawn, tree.erased)
    assert (found.root, found.notices, found.withdrawn, found.erased) == numbers
    return found


def registrant(runtime: Runtime, number: int) -> Registrant | None:
    key = EntryKey(CAMPAIGN, f"e{number}")
    return runtime.registrations.get([key]).get(key)


def registration(runtime: Runtime, number: int) -> Registration | None:
    """That of an entry, in the tree that the draw answers for."""
    found = registrant(runtime, number)
    assert found is not None
    if found.registered is None or found.registered.index is None:
        return None
    return tree_of(runtime, logged(runtime).size).at(found.registered.index)


def opening(runtime: Runtime, folder: Path) -> list[OpenedRegistration]:
    path = folder / "opening.jsonl"
    counts = write_opening(runtime, record_of(runtime), path)
    lines = [OpenedRegistration.parse(line) for line in path.read_bytes().splitlines()]
    assert Counter(line.class_.value for line in lines) == counts
    return lines


def test_each_registration_is_in_the_class_of_what_became_of_it(runtime: Runtime, tmp_path: Path) -> None:
    closed(runtime, entry(6, markets=["rome"]), entry(7, unit="home"), entry(8), entry(9, ref=None))
    register(runtime)
    remove(runtime, 0)
    remove(runtime, 1, erased=True)
    update(runtime, 7, unit="other-home")
    update(runtime, 8, ref=ref_of(80))
    run = done_to("commit", draw(runtime))
    # Of ten and one again, two are gone and one is withdrawn; six took part, and two were left out.
    assert logged(runtime) == Registrations(
        erased=1, excluded=2, notices=4, root=logged(runtime).root, size=15, withdrawn=2
    )
    assert manifest(runtime).count == 6
    kinds = [leaf.kind for _, leaf in PublicLog.of(runtime).read().of_campaign(CAMPAIGN)]  # type: ignore[union-attr]
    assert kinds == [Kind.OPENED, Kind.REGISTRATIONS, Kind.MANIFEST, Kind.NOTICE]
    lines = opening(runtime, tmp_path)
    classes = Counter((line.class_, line.reason) for line in lines)
    assert classes == {
        (RegistrationClass.DRAWN, None): 6,
        (RegistrationClass.EXCLUDED, "NO_MARKET"): 1,
        (RegistrationClass.EXCLUDED, "INVALID_REF"): 1,
        (RegistrationClass.WITHDRAWN, None): 2,
        (RegistrationClass.ERASED, None): 1,
    }
    drawn = {line.ref for line in lines if line.class_ is RegistrationClass.DRAWN}
    assert drawn == {ref_of(number) for number in (2, 3, 4, 5, 7, 80)}
    # A repeat neither appends nor decides anything.
    size = RegistrationFiles(runtime.objects, CAMPAIGN).state().size
    run.commit()
    assert RegistrationFiles(runtime.objects, CAMPAIGN).state().size == size


def test_receipts_show_the_registration_also_of_an_entry_that_was_left_out(
    runtime: Runtime, tmp_path: Path
) -> None:
    closed(runtime, entry(6, markets=["rome"]), entry(7, unit="home"))
    register(runtime)
    update(runtime, 7, unit="other-home")
    list(draw(runtime).steps(unasked=True))
    source = receipts_of(runtime, CAMPAIGN, tmp_path)
    for number in (0, 6, 7):
        receipt = source.receipt(ref_of(number))
        states = {each.name: each.state for each in check_receipt(canonical_bytes(receipt), TRUST).checks}
        assert states["registration"] is State.PASSED, receipt["registration"]
        assert len(receipt["registration"]["notices"]) == (number == 7)
    # Without its salt a leaf says nothing, and no receipt shows it.
    remove(runtime, 2)
    assert source.receipt(ref_of(2))["registration"] is None


def behind(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, *new: dict[str, Any]) -> DrawRun:
    """A draw up to its judgement, which found entries that are not registered yet."""
    runtime.database["entries"].insert_many(new)
    with monkeypatch.context() as patched:
        patched.setattr(Freezing, "catch_up", lambda _self: None)
        return done_to("freeze", draw(runtime))


def test_what_happens_after_the_judgement_waits_for_the_manifest(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    closed(runtime, entry(6), entry(7, unit="home"), numbers=(0, 3, 4, 5))
    register(runtime)
    run = behind(runtime, monkeypatch, entry(1), entry(2))
    # Removed, and two of them before they were registered; one of these was created again.
    for number in (0, 1, 2):
        remove(runtime, number)
    again = {"createdAt": ERASED_AT, "version": 1, "updatedAt": ERASED_AT}
    update(runtime, 2, ref=ref_of(20), **again, _replication=again)
    runtime.database["entries"].update_one({"_id": f"{CAMPAIGN}:e2"}, {"$unset": {"deletedAt": ""}})
    update(runtime, 6, ref=ref_of(60))
    update(runtime, 7, unit="other-home")
    runtime.database["entries"].insert_one(entry(8))
    run.commit()
    found = logged(runtime)
    assert (found.withdrawn, found.erased, found.excluded, found.notices) == (0, 0, 1, 0)
    assert manifest(runtime).count == 8 and found.size == 9
    lines = opening(runtime, tmp_path)
    assert Counter(line.class_ for line in lines)[RegistrationClass.DRAWN] == 8
    assert [line.reason for line in lines if line.reason] == [LATE]
    register(runtime)
    state = RegistrationFiles(runtime.objects, CAMPAIGN).state()
    # Three were removed, and one has another ref: that is registered again, like the one that was created again.
    assert (state.withdrawn, state.notices, state.size) == (4, 5, 9 + 5 + 2)


def test_the_unit_of_the_pool_is_what_the_tree_has(runtime: Runtime) -> None:
    closed(runtime, entry(6, unit="home"))
    run = done_to("freeze", draw(runtime))
    # As if its registration had been made just before it moved to the household of the pool.
    update(runtime, 6, unit="before")
    register(runtime)
    before = registration_of(runtime, 6)
    run.commit()
    found = registration(runtime, 6)
    assert found is not None and [noted.notice.kind for noted in found.notices] == [
        NoticeKind.UNIT,
        NoticeKind.UNIT,
    ]
    assert found.leaf == found.current != before


def registration_of(runtime: Runtime, number: int) -> str:
    found = registrant(runtime, number)
    assert found is not None and found.registered is not None
    return found.registered.leaf


def test_an_entry_of_the_pool_without_a_document_stops_the_commit(runtime: Runtime) -> None:
    closed(runtime)
    run = done_to("freeze", draw(runtime))
    runtime.database["entries"].delete_one({"_id": f"{CAMPAIGN}:e3"})
    with pytest.raises(TransientFailure, match="1 entries of the pool of summer have no document"):
        run.commit()
    assert not record_of(runtime).phases[1].manifest_hash


def test_a_registration_whose_entry_was_lost_is_withdrawn_and_counted(
    runtime: Runtime, tmp_path: Path
) -> None:
    closed(runtime)
    register(runtime)
    runtime.database["entries"].delete_one({"_id": f"{CAMPAIGN}:e3"})
    run = done_to("freeze", draw(runtime))

    def die(name: str) -> None:
        if name == "registrations.after_bundle":
            raise Died

    with pytest.raises(Died):
        draw(runtime, on_step=die).commit()
    run.commit()
    found, first = logged(runtime), record_of(runtime).phases[1]
    assert (found.withdrawn, found.excluded, found.notices, first.lost_registrations) == (1, 0, 1, 1)
    [line] = [line for line in opening(runtime, tmp_path) if line.class_ is RegistrationClass.WITHDRAWN]
    assert (line.reason, line.ref, line.salt) == (None, None, None)


def test_after_a_restore_of_the_replica_each_registration_counts_once(
    runtime: Runtime, tmp_path: Path
) -> None:
    closed(runtime, numbers=range(5))
    register(runtime)
    entries, campaign = runtime.database["entries"], runtime.campaigns.require_id(CAMPAIGN)
    entries.insert_one(entry(5))

    def die(name: str) -> None:
        if name == "registrations.after_bundle":
            raise Died

    with pytest.raises(Died):
        made = Freezing.of(runtime, campaign, on_step=die, tell=lambda _text: None)
        assert made is not None
        made.catch_up()
    backup = list(entries.find({}))

    def since() -> None:
        entries.insert_one(entry(6))
        remove(runtime, 0)
        update(runtime, 1, unit="home")

    since()
    register(runtime)
    size = RegistrationFiles(runtime.objects, CAMPAIGN).state().size
    assert size == 5 + 1 + 1 + 2
    entries.delete_many({})
    entries.insert_many(backup)
    # The repair.
    since()
    register(runtime)
    assert RegistrationFiles(runtime.objects, CAMPAIGN).state().size == size + 2, (
        "a new one, and a unit again"
    )
    done_to("commit", draw(runtime))
    found, first = logged(runtime), record_of(runtime).phases[1]
    assert (manifest(runtime).count, found.withdrawn, found.excluded) == (6, 2, 0)
    assert first.lost_registrations == 1
    classes = Counter(line.class_ for line in opening(runtime, tmp_path))
    assert classes == {RegistrationClass.DRAWN: 6, RegistrationClass.WITHDRAWN: 2}


def test_a_campaign_that_logs_no_registrations_answers_for_none(runtime: Runtime, tmp_path: Path) -> None:
    close_campaign(runtime)
    list(draw(runtime).steps(unasked=True))
    assert manifest(runtime).registrations is None
    receipt = receipts_of(runtime, CAMPAIGN, tmp_path).receipt(ref_of(0))
    checked = check_receipt(canonical_bytes(receipt), TRUST)
    assert receipt["registration"] is None
    assert any("logged no registrations" in each for each in checked.limits)


def test_a_campaign_without_an_entry_answers_for_an_empty_tree(runtime: Runtime) -> None:
    closed(runtime, numbers=())
    done_to("commit", draw(runtime))
    assert logged(runtime).size == 0


class Died(Exception):
    pass


DEATHS = (
    *("after_salts", "after_bundle", "after_indexes", "after_events", "after_tiles", "after_checkpoint"),
    *("after_size", "after_sizes"),
)


@pytest.mark.parametrize("step", [*(f"registrations.{each}" for each in DEATHS), "draw.after_registrations"])
def test_a_freeze_that_dies_is_resumed_and_appends_nothing_twice(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    closed(runtime, entry(6, unit="before"), entry(7, markets=["rome"]), numbers=(2, 3, 4, 5))
    register(runtime)
    # Each kind of step is due at the commit: two leaves, one of which can never be shown, and two notices.
    update(runtime, 6, unit="home")
    run = behind(runtime, monkeypatch, entry(0), entry(1))
    remove(runtime, 1)
    remove(runtime, 7)

    def die(name: str) -> None:
        if name == step:
            raise Died

    with pytest.raises(Died):
        draw(runtime, on_step=die).commit()
    run.commit()
    root = logged(runtime).root
    assert logged(runtime) == Registrations(erased=0, excluded=0, notices=2, root=root, size=10, withdrawn=1)
    classes = Counter(line.class_ for line in opening(runtime, tmp_path))
    assert classes == {RegistrationClass.DRAWN: 7, RegistrationClass.WITHDRAWN: 1}


def test_a_later_phase_answers_for_the_same_registrations(runtime: Runtime) -> None:
    closed(runtime)
    list(draw(runtime).steps(unasked=True))
    runtime.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": {"phases.1.status": "COMPLETED"}})
    remove(runtime, 1)
    register(runtime)
    assert open_phase(runtime, CAMPAIGN, TopUp({"paris": 5}, {}, (), "more seats"), run_id="t") == 2
    list(draw(runtime).steps(unasked=True))
    assert Manifest.parse(record_of(runtime).phases[2].manifest).registrations == logged(runtime)


def test_nothing_is_appended_as_long_as_the_manifest_can_be_replaced(runtime: Runtime) -> None:
    clock = Clock()
    own = with_beacon(runtime.names.prefix, clock)
    closed(own, opensAt=iso(START - 300.0), closesAt=iso(START - 60.0))
    with taken_for_signatures():
        register(own)
        # It is public and in the log, and too late for its round: the next run replaces it.
        slow_store(own, clock, 120.0)
        late = commit(own, clock, dies_at("draw.after_notice"))
        assert late.logged_at and late.published_late
        Fans(own).save("late")
        Holder(own).run()
        assert len(commit(own, clock).replaced) == 1
        Holder(own).run()
        assert RegistrationFiles(own.objects, CAMPAIGN).state().size == logged(own).size
        assert not follow(in_bucket(own.objects), now=clock(), campaign_id=CAMPAIGN).findings
        draw(own, stop=Waiting(clock)).seed()
        Holder(own).run()
        assert RegistrationFiles(own.objects, CAMPAIGN).state().size == logged(own).size + 1
