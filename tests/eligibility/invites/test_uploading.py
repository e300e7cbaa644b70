"""Uploading invites: everybody once, never for a shorter time, however the upload went."""

from __future__ import annotations

import os
import signal
import sys
import time
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.domain.claim import Invite, InviteType, TableKey
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.invites.lists import lease_name
from regworkers_core.eligibility.invites.stored import check_invite
from regworkers_core.eligibility.invites.terms import days_from
from regworkers_core.engine.leases import Lease, LeaseHolder
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from tests.eligibility.invites.world import DAY, EMAIL, Uploader, in_days
from tests.support.children import run_child
from tests.support.runtimes import test_settings
from tests.support.waiting import sleeping, wait_until

pytestmark = pytest.mark.namespace("module")


def addresses(count: int) -> list[str]:
    return [f"user{number}@example.com" for number in range(count)]


def test_an_invite_is_stored_as_the_contract_says(uploader: Uploader) -> None:
    ttl = in_days(3)
    report = uploader("email", " First.Fan+x@EXAMPLE.com ", ttl=ttl)
    assert (report.lines, report.outcomes, report.clean) == (1, {"added": 1}, True)
    assert uploader.stored("first.fan+x@example.com") == {
        "PK": f"CAMPAIGN#{uploader.campaign_id}",
        "SK": "INVITE#email#first.fan+x@example.com",
        "entityType": "INVITE",
        "campaignId": uploader.campaign_id,
        "inviteType": "email",
        "ttl": ttl,
    }


def test_added_renewed_and_known_invites_are_counted_apart_and_none_is_shortened(
    uploader: Uploader,
) -> None:
    ttl = in_days(10)
    uploader.put("shorter@example.com", ttl - DAY)
    uploader.put("same@example.com", ttl)
    uploader.put("longer@example.com", ttl + DAY)
    uploader.put("expired@example.com", int(time.time()) - 60)
    rows = (
        "email",
        "new@example.com",
        "shorter@example.com",
        "Same@example.com",
        "longer@example.com",
        "expired@example.com",
        "",
        "no-mail",
        "NEW@example.com",
    )
    report = uploader(*rows, ttl=ttl)
    assert report.as_dict() | {"advice": None} == {
        "campaignId": uploader.campaign_id,
        "type": "email",
        "dryRun": False,
        "lines": 8,
        "added": 1,
        "known": 2,
        "renewed": 2,
        "shortened": 0,
        "duplicates": 1,
        "blank": 1,
        "invalid": 1,
        "rejected": {"INVALID_EMAIL": 1},
        "rejectsFile": str(uploader.rejects),
        "stopped": False,
        "validUntil": report.as_dict()["validUntil"],
        "advice": None,
    }
    assert uploader.rejected == [("8", "INVALID_EMAIL", "no-…")]
    for value in ("new", "shorter", "same", "expired"):
        assert uploader.ttl_of(f"{value}@example.com") == ttl
    assert uploader.ttl_of("longer@example.com") == ttl + DAY
    # Later lists are looked up batch by batch instead of at once: the same again.
    again = uploader(*rows, ttl=ttl)
    assert again.outcomes == {"known": 5}
    longer = uploader(*rows, ttl=ttl + DAY)
    assert longer.outcomes == {"renewed": 4, "known": 1}


def test_only_on_demand_is_an_invite_shortened(uploader: Uploader) -> None:
    ttl = in_days(10)
    uploader.put("longer@example.com", ttl + DAY)
    uploader.put("same@example.com", ttl)
    rows = ("email", "longer@example.com", "same@example.com")
    assert uploader(*rows, ttl=ttl).outcomes == {"known": 2}
    assert uploader(*rows, ttl=ttl, shorten=True).outcomes == {"shortened": 1, "known": 1}
    assert uploader.ttl_of("longer@example.com") == ttl


def test_types_do_not_meet_and_ids_keep_their_case(uploader: Uploader) -> None:
    one, two = InviteType.MEMBER_ID, InviteType.GLOBAL_USER_ID
    assert uploader("memberId", "AbC-1", "abc-1", type_=one).outcomes == {"added": 2}
    assert uploader("globalUserId", "AbC-1", type_=two).outcomes == {"added": 1}
    assert uploader.ttl_of("AbC-1", one) and uploader.ttl_of("AbC-1", two)
    assert uploader.ttl_of("abc-1", two) is None


def test_a_dry_run_counts_the_same_and_writes_nothing(uploader: Uploader) -> None:
    uploader.put("known@example.com", in_days(300))
    rows = ("email", "known@example.com", "new@example.com", "new@example.com", "no-mail", "")
    ttl = in_days(5)
    lease = LeaseHolder.key_of(lease_name(uploader.campaign_id, EMAIL))
    dry = uploader(*rows, ttl=ttl, dry_run=True)
    assert uploader.ttl_of("new@example.com") is None
    assert uploader.runtime.leases.get(lease) is None
    wet = uploader(*rows, ttl=ttl)
    assert {**dry.as_dict(), "dryRun": False} == wet.as_dict()


def test_a_header_alone_invites_no_fan_and_is_clean(uploader: Uploader) -> None:
    report = uploader("email")
    assert (report.lines, report.clean, report.rejects_file) == (0, True, None)


def test_a_wrong_header_is_reported_before_anything_is_written(uploader: Uploader) -> None:
    with pytest.raises(UsageError, match=r"should be the header `memberId` .*, found email"):
        uploader("email", "user1@example.com", type_=InviteType.MEMBER_ID)
    lease = LeaseHolder.key_of(lease_name(uploader.campaign_id, InviteType.MEMBER_ID))
    assert uploader.runtime.leases.get(lease) is None


def test_a_negative_answer_flips_the_moment_the_upload_is_done(uploader: Uploader) -> None:
    runtime = uploader.runtime
    uploader("email", "other@example.com")
    assert not check_invite(runtime, uploader.campaign_id, EMAIL, "Late@example.com").invited
    uploader("email", "late@example.com")
    assert check_invite(runtime, uploader.campaign_id, EMAIL, "Late@example.com").invited


def test_a_campaign_that_was_asked_for_too_early_is_found_after_an_upload_for_it(uploader: Uploader) -> None:
    cache, document = uploader.runtime.campaign_cache, {"_id": uploader.campaign_id}
    collection = uploader.runtime.database["campaigns"]
    campaign = collection.find_one_and_delete(document)
    assert campaign is not None
    asked: Any = cache.find(uploader.campaign_id)
    assert asked.value is None
    collection.insert_one(campaign)
    uploader("email", "user1@example.com")
    asked = cache.find(uploader.campaign_id)
    assert asked.value.campaign_id == uploader.campaign_id


def test_an_unknown_campaign_is_refused_unless_it_is_yet_to_come(uploader: Uploader) -> None:
    early = f"{uploader.campaign_id}-early"
    with pytest.raises(UsageError, match=r"no campaign '.*-early'.*--force"):
        uploader("email", "user1@example.com", campaign=early)
    with pytest.raises(UsageError, match="cannot be a campaignId"):
        uploader.again(campaign="no id", force=True)
    report = uploader.again(campaign=early, force=True)
    assert report.campaign_id == early and report.advice is not None and "does not exist yet" in report.advice
    assert check_invite(uploader.runtime, early, EMAIL, "user1@example.com").invited


def test_invites_that_will_not_count_are_uploaded_with_a_note(uploader: Uploader) -> None:
    collection, one = uploader.runtime.database["campaigns"], {"_id": uploader.campaign_id}
    closing(uploader, 800)
    assert uploader("email", "user1@example.com", ttl=in_days(900)).advice is None
    collection.update_one(one, {"$set": {"eligibility": {"inviteOnly": True, "inviteTypes": ["memberId"]}}})
    advice = uploader("email", "user1@example.com").advice
    assert advice is not None and "accepts only invites by memberId" in advice
    collection.update_one(one, {"$set": {"eligibility": {}}})
    advice = uploader("email", "user1@example.com").advice
    assert advice is not None and "not `inviteOnly`" in advice


def closing(uploader: Uploader, days: float) -> None:
    """Let the campaign close in this number of days."""
    uploader.runtime.database["campaigns"].update_one(
        {"_id": uploader.campaign_id}, {"$set": {"closesAt": iso(in_days(days))}}
    )


def test_without_a_time_invites_hold_for_thirty_days(uploader: Uploader) -> None:
    before = time.time()
    closing(uploader, 60)
    report = uploader("email", "user1@example.com", ttl=0)
    assert report.ttl in {days_from(30, before), days_from(30, time.time())}
    assert report.advice is not None and "--until-close" in report.advice


@pytest.mark.parametrize(("closes_in", "holds"), [(60, 60 + 14), (10, 30), (-5, 30), (17, 17 + 14)])
def test_until_close_invites_hold_until_the_draw_no_longer_needs_them(
    uploader: Uploader, closes_in: int, holds: int
) -> None:
    before = time.time()
    closing(uploader, closes_in)
    report = uploader("email", "user1@example.com", ttl=0, until_close=True)
    assert report.ttl in {days_from(holds, before), days_from(holds, time.time())}
    assert uploader.ttl_of("user1@example.com") == report.ttl and report.advice is None


def test_invites_that_expire_before_the_draw_are_reported_with_both_dates(uploader: Uploader) -> None:
    closing(uploader, 60)
    ttl = in_days(70)
    advice = uploader("email", "user1@example.com", ttl=ttl).advice or ""
    campaign = uploader.runtime.campaigns.get(uploader.campaign_id)
    assert (
        campaign is not None
        and iso(ttl) in advice
        and campaign.closes_at in advice
        and "NOT_INVITED" in advice
    )
    assert uploader("email", "user1@example.com", ttl=in_days(76)).advice is None
    early = f"{uploader.campaign_id}-early"
    report = uploader("email", "user1@example.com", ttl=0, campaign=early, force=True)
    assert report.ttl is not None and report.ttl <= in_days(31)


def test_the_rejects_of_an_earlier_upload_are_over(uploader: Uploader) -> None:
    uploader("email", "no-mail")
    assert uploader.rejects.exists()
    assert uploader("email", "user1@example.com").rejects_file is None
    assert not uploader.rejects.exists()


def test_a_stopped_upload_says_so_and_the_next_one_adds_the_rest(uploader: Uploader) -> None:
    rows = ("email", *addresses(2500), "no-mail")
    stop = StopSignal()
    first = uploader(*rows, stop=stop, on_step=lambda _name: stop.set())
    assert first.stopped and not first.clean
    done = first.outcomes["added"]
    assert 100 <= done < 2500
    rest = uploader.again()
    assert (rest.outcomes["known"] + rest.outcomes["renewed"], rest.outcomes["added"]) == (done, 2500 - done)
    assert rest.rejected == {"INVALID_EMAIL": 1}


def kills_itself() -> None:
    """After its first batch."""
    prefix, campaign_id, folder, ttl = sys.argv[1:]
    uploader = Uploader(Runtime(test_settings(prefix)), campaign_id, Path(folder))
    uploader.again(ttl=int(ttl), on_step=lambda _name: os.kill(os.getpid(), signal.SIGKILL))


def test_an_upload_that_was_killed_continues_and_counts_correctly(uploader: Uploader) -> None:
    ttl = in_days(7)
    uploader.file.write_text("\n".join(("email", *addresses(3000))))
    words = (uploader.runtime.names.prefix, uploader.campaign_id, str(uploader.file.parent), str(ttl))
    victim = run_child(f"{__name__}:kills_itself", *words, seconds=60)
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    rest = uploader.again(ttl=ttl)
    known, added = rest.outcomes["known"], rest.outcomes["added"]
    assert known >= 100 and added >= 100 and known + added == 3000
    assert uploader.again(ttl=ttl).outcomes == {"known": 3000}


def test_a_second_list_does_not_begin_while_the_first_is_under_way(uploader: Uploader) -> None:
    name = lease_name(uploader.campaign_id, EMAIL)
    lease = LeaseHolder(uploader.runtime.leases, "first", lease_seconds=1.0).acquire(name)
    assert lease is not None

    def alive(_seconds: float) -> None:
        wait_until(lease.renew, what="the renewal")

    refusal = r"another list of invites by email .* is running"
    with sleeping(alive), pytest.raises(UsageError, match=refusal):
        uploader("email", "user1@example.com")
    other = uploader("memberId", "m-1", type_=InviteType.MEMBER_ID)
    assert other.outcomes == {"added": 1}, "another type is another list"
    lease.release()
    assert uploader("email", "user1@example.com").outcomes == {"added": 1}


def test_an_upload_that_lost_its_lease_stops_before_the_next_batch(
    uploader: Uploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = 0

    def lost_after_two(_lease: Lease) -> bool:
        nonlocal batches
        batches += 1
        return batches > 2

    monkeypatch.setattr(Lease, "lost", property(lost_after_two))
    monkeypatch.setattr(Lease, "renew", lambda _lease: False)
    uploader.file.write_text("\n".join(("email", *addresses(500))))
    with pytest.raises(UsageError, match="lost its lease to another list"):
        uploader.again(ttl=in_days(3))
    assert uploader.ttl_of(addresses(500)[0]) and not uploader.stored(addresses(500)[-1])


class Store:
    """An invites table in memory. Memory is what the upload itself holds when it `keeps` nothing."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.kept: dict[TableKey, int] = {}
        self.written = self.read = 0
        self._keeps = keeps

    def few(self, campaign_id: str, type_: InviteType) -> dict[TableKey, int] | None:
        return dict(self.kept)

    def ttls(self, keys: Sequence[TableKey]) -> dict[TableKey, int]:
        self.read += len(keys)
        return {key: self.kept[key] for key in keys if key in self.kept}

    def write(self, invites: Sequence[Invite]) -> None:
        self.written += len(invites)
        if self._keeps:
            self.kept.update({invite.table_key: invite.ttl for invite in invites})


def test_a_hundred_thousand_lines_are_counted_and_the_first_list_ever_needs_no_reads(
    uploader: Uploader,
) -> None:
    store = Store(keeps=False)
    uploader.runtime.__dict__["invites"] = store
    rows = ["email", *addresses(100_000)]
    rows[50_000] = rows[3].upper()
    report = uploader(*rows)
    assert (report.lines, report.outcomes, report.duplicates) == (100_000, {"added": 99_999}, 1)
    assert (store.written, store.read) == (99_999, 0)


def test_a_list_of_any_length_takes_no_more_memory_than_a_few_batches(uploader: Uploader) -> None:
    uploader.runtime.__dict__["invites"] = store = Store(keeps=False)
    uploader.file.write_text("\n".join(("email", *addresses(20_000))))
    ahead: list[int] = []

    def look(done: int, total: int | None = None, unit: str = "") -> None:
        ahead.append(done - store.written)

    tracemalloc.start()
    uploader.again(on_progress=look)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(ahead) <= 2 * 8 * 100, "two batches for each thread"
    assert peak < 2 * 1024 * 1024, "the values alone are as large"


def test_the_same_list_again_costs_reads_only(uploader: Uploader) -> None:
    store, ttl = Store(), in_days(30)
    uploader.runtime.__dict__["invites"] = store
    rows = ("email", *addresses(1000))
    uploader(*rows, ttl=ttl)
    assert uploader(*rows, ttl=ttl).outcomes == {"known": 1000}
    assert (store.written, store.read) == (1000, 1000)


def test_a_table_that_becomes_unavailable_keeps_what_was_written_and_says_how_to_continue(
    uploader: Uploader,
) -> None:
    class BecomesUnavailable(Store):
        def write(self, invites: Sequence[Invite]) -> None:
            if self.written >= 500:
                raise TransientFailure("dynamodb", "ThrottlingException")
            super().write(invites)

    store = BecomesUnavailable()
    uploader.runtime.__dict__["invites"] = store
    with pytest.raises(
        TransientFailure, match=r"ThrottlingException; \d+ invites are done: repeat the command"
    ):
        uploader("email", *addresses(5000))
    assert uploader.runtime.leases.get(LeaseHolder.key_of(lease_name(uploader.campaign_id, EMAIL)))
    written = store.written
    assert 500 <= written < 5000
    fine = Store()
    fine.kept = store.kept
    uploader.runtime.__dict__["invites"] = fine
    rest = uploader.again(ttl=in_days(1))
    assert rest.outcomes == {"known": written, "added": 5000 - written}


def test_writes_wait_for_the_rate_and_known_invites_do_not(uploader: Uploader) -> None:
    uploader.runtime.__dict__["invites"] = Store()
    slept: list[float] = []
    rows, ttl = ("email", *addresses(400)), in_days(30)
    with sleeping(slept.append):
        uploader(*rows, ttl=ttl, rate=100)
    assert max(slept) >= 2, "300 above the burst, at 100 a second"
    slept.clear()
    with sleeping(slept.append):
        uploader(*rows, ttl=ttl, rate=100)
    assert not slept


def test_two_people_uploading_at_once_leave_the_longer_time(uploader: Uploader) -> None:
    uploader.file.write_text("\n".join(("email", *addresses(300))))
    ttls = [in_days(days) for days in (9, 3, 6)]

    def upload(ttl: int) -> bool:
        try:
            uploader.again(ttl=ttl, rejects=uploader.rejects.with_name(f"{ttl}.csv"))
        except UsageError as error:
            assert "is running" in str(error)
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        done = [ttl for ttl, fine in zip(ttls, pool.map(upload, ttls), strict=True) if fine]
    assert {uploader.ttl_of(address) for address in addresses(300)[::50]} == {max(done)}
