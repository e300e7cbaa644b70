"""Removing invites: nothing before --apply, and only the named ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.invites.lists import ListReport, local_file, read_rows, read_values
from regworkers_core.eligibility.invites.writing import remove_invites
from tests.eligibility.invites.world import DAY, EMAIL, Uploader, in_days
from tests.support.entries import item, key


def remove(uploader: Uploader, *values: str, dry_run: bool = True) -> ListReport:
    report = remove_invites(
        uploader.runtime,
        uploader.campaign_id,
        EMAIL,
        read_values(values, EMAIL),
        rejects=uploader.rejects,
        run_id="test",
        dry_run=dry_run,
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
        uploader.campaign_id,
        EMAIL,
        read_rows(local_file(uploader.file), str(uploader.file), EMAIL),
        rejects=uploader.rejects,
        run_id="test",
        dry_run=False,
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
