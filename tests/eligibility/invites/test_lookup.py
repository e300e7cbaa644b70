"""Counting and checking invites as of now; expired invites count separately until they are deleted."""

from __future__ import annotations

import pytest

from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.eligibility.invites.lookup import TypeCount, check_invite, count_invites
from regworkers_core.runtime import Runtime
from tests.eligibility.invites.world import EMAIL, Uploader, in_days

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
