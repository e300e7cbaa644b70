"""Least privilege of those who upload, count, check and remove invites."""

from __future__ import annotations

from pathlib import Path

import pytest

from regworkers_core.domain.invite import InviteType
from regworkers_core.eligibility.invites.lists import read_values
from regworkers_core.eligibility.invites.lookup import check_invite, count_invites
from regworkers_core.eligibility.invites.writing import remove_invites, upload_object
from regworkers_core.operations import downloads, uploads
from regworkers_core.runtime import Runtime
from tests.infrastructure.deploy.policies import ROLES, Recorder, policy
from tests.infrastructure.deploy.test_policies import compare
from tests.support.campaigns import create

EMAIL = InviteType.EMAIL


def test_work_on_invites_needs_what_the_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create(runtime, "summer")
    runtime.objects.put_bytes("invites/summer.csv", b"email\nuser1@example.com\nnobody\n")
    ttl = int(runtime.clock()) + 3600
    upload = uploads.put(runtime, "list.csv", b"email\nuser2@example.com\n")
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    mine = Runtime(runtime.settings)
    for again in range(2):
        upload_object(mine, "summer", EMAIL, "invites/summer.csv", ttl=ttl + again, run_id="upload")
    count_invites(mine, "summer")
    check_invite(mine, "summer", EMAIL, "user1@example.com")
    values = read_values(["user1@example.com"], EMAIL)
    rejects = tmp_path / "rejects.csv"
    remove_invites(mine, "summer", EMAIL, values, rejects=rejects, run_id="remove", dry_run=False)
    # As the job does it.
    with uploads.fetched(mine, upload):
        downloads.put(mine, "rejects.csv", b"line,reason,found\n")
    compare("invites", recorder)


def test_only_they_and_an_erasure_may_write_many_items_of_the_demand_table_at_once() -> None:
    may = {role for role in ROLES for each in policy(role) if "dynamodb:BatchWriteItem" in each["Action"]}
    assert may == {"erasure", "invites"}
