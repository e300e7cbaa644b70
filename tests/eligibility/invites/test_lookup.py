"""Counting and checking invites as of now, and removing them: nothing before --apply, and only the named ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.eligibility.invites.lists import Listed, ListReport, local_file, read_rows, read_values
from regworkers_core.eligibility.invites.stored import TypeCount, check_invite, count_invites, remove_invites
from regworkers_core.runtime import Runtime
from tests.eligibility.invites.world import DAY, EMAIL, Uploader, in_days
from tests.support.entries import item, key

pytestmark = pytest.mark.namespace("module")

MEMBER = InviteType.MEMBER_ID


def test_valid_and_expired_invites_are_counted_by_type(uploader: Uploader) -> None:
    uploader("email", *(f"user{number}@example.com" for number in range(130)))
    for number in range(3):
        uploader.put(f"late{number}@example.com", in_days(-number))
    uploader.put("m-1", in_days(1), MEMBER)
    seen: list[int] = []
    campaign_id, counts = count_invites(uploader.runtime, uploader.campaign_id, on_progress=seen.append)
    assert campaign_id == uploader.campaign_id
    assert counts == [
        TypeCount(EMAIL, 130, 3),
        TypeCount(InviteType.GLOBAL_USER_ID),
        TypeCount(MEMBER, 1, 0),
    ]
    assert seen[-1] == 134
    _, only = count_invites(uploader.runtime, uploader.campaign_id, [MEMBER])
    assert only == [TypeCount(MEMBER, 1, 0)]


def test_a_value_is_invited_until_its_ttl_and_not_after(uploader: Uploader) -> None:
    ttl = in_days(2)
    uploader("email", "First.Fan@example.com", ttl=ttl)
    clock = ttl - 1.0
    runtime = Runtime(uploader.runtime.settings, clock=lambda: clock)
    found = check_invite(runtime, uploader.campaign_id, EMAIL, " FIRST.fan@Example.com ")
    assert found.invited and found.ttl == ttl and found.value == "FIRS…"
    clock = float(ttl)
    late = check_invite(runtime, uploader.campaign_id, EMAIL, "first.fan@example.com").as_dict()
    assert (late["invited"], late["validUntil"]) == (False, None) and late["expiredAt"] is not None
    other = check_invite(runtime, uploader.campaign_id, EMAIL, "other@example.com").as_dict()
    assert (other["invited"], other["validUntil"], other["expiredAt"]) == (False, None, None)


def test_a_campaign_is_found_by_its_slug_and_by_its_invites_alone(uploader: Uploader) -> None:
    runtime, one = uploader.runtime, {"_id": uploader.campaign_id}
    uploader("email", "user1@example.com")
    runtime.database["campaigns"].update_one(one, {"$set": {"slug": "the-slug"}})
    found = check_invite(runtime, "the-slug", EMAIL, "user1@example.com")
    assert (found.campaign_id, found.invited) == (uploader.campaign_id, True)
    runtime.database["campaigns"].delete_one(one)
    assert not check_invite(runtime, uploader.campaign_id, EMAIL, "user2@example.com").invited
    assert count_invites(runtime, uploader.campaign_id, [EMAIL])[1] == [TypeCount(EMAIL, 1, 0)]
    with pytest.raises(UsageError, match="no campaign 'the-slug', and no invite"):
        check_invite(runtime, "the-slug", EMAIL, "user1@example.com")


def test_an_invite_is_found_while_the_campaigns_cannot_be_read(uploader: Uploader) -> None:
    class Unavailable:
        def find(self, _slug_or_id: str) -> None:
            raise TransientFailure("mongo", "timeout")

    uploader("email", "user1@example.com")
    uploader.runtime.__dict__["campaigns"] = Unavailable()
    assert check_invite(uploader.runtime, uploader.campaign_id, EMAIL, "user1@example.com").invited
    with pytest.raises(TransientFailure):
        check_invite(uploader.runtime, uploader.campaign_id, EMAIL, "user2@example.com")


def test_an_invalid_value_is_refused_without_repeating_it(uploader: Uploader) -> None:
    with pytest.raises(UsageError, match="this is not a valid email for an invite: INVALID_EMAIL") as error:
        check_invite(uploader.runtime, uploader.campaign_id, EMAIL, "secret-name")
    assert "secret-name" not in str(error.value)


def remove(uploader: Uploader, *values: str, dry_run: bool = True) -> ListReport:
    report = remove_invites(
        uploader.runtime,
        Listed(campaign=uploader.campaign_id, type=EMAIL, run_id="test", dry_run=dry_run),
        read_values(values, EMAIL),
        rejects=uploader.rejects,
    )
    assert report.adds_up
    return report


def test_a_dry_run_counts_and_removes_nothing_and_then_it_is_done(uploader: Uploader) -> None:
    uploader("email", "one@example.com", "two@example.com", "stays@example.com")
    uploader.put("expired@example.com", in_days(-1))
    values = (
        "One@example.com",
        "two@example.com",
        "expired@example.com",
        "never@example.com",
        "x",
        "ONE@example.com",
    )
    dry = remove(uploader, *values)
    assert uploader.ttl_of("one@example.com") is not None
    wet = remove(uploader, *values, dry_run=False)
    assert {**dry.as_dict(), "dryRun": False} == wet.as_dict()
    assert wet.outcomes == {"removed": 3, "absent": 1}
    assert (wet.duplicates, wet.rejected) == (1, {"INVALID_EMAIL": 1})
    assert uploader.ttl_of("one@example.com") is None and uploader.ttl_of("expired@example.com") is None
    assert uploader.ttl_of("stays@example.com") is not None
    assert remove(uploader, *values, dry_run=False).outcomes == {"absent": 4}


def test_a_whole_list_is_taken_back_and_entries_and_other_types_stay(uploader: Uploader) -> None:
    rows = ("email", *(f"user{number}@example.com" for number in range(250)))
    uploader(*rows)
    uploader.put("m-1", in_days(3), InviteType.MEMBER_ID)
    entry = key("e1", uploader.campaign_id)
    uploader.runtime.dynamodb.put_item(
        TableName=uploader.runtime.names.demand_table, Item=attributes(item(entry))
    )
    report = remove_invites(
        uploader.runtime,
        Listed(campaign=uploader.campaign_id, type=EMAIL, run_id="test", dry_run=False),
        read_rows(local_file(uploader.file), str(uploader.file), EMAIL),
        rejects=uploader.rejects,
    )
    assert report.outcomes == {"removed": 250}
    assert uploader.ttl_of("m-1", InviteType.MEMBER_ID) is not None
    assert uploader.runtime.demand_table.get([entry])
    again = Path(uploader.file).read_text().splitlines()
    assert uploader(*again, ttl=in_days(1) + DAY).outcomes == {"added": 250}


def test_an_unknown_campaign_is_refused(uploader: Uploader) -> None:
    uploader.campaign_id = "sumer"
    with pytest.raises(UsageError, match="no campaign 'sumer', and no invite"):
        remove(uploader, "one@example.com")
