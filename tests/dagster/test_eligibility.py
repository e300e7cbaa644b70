"""The job `upload_invites` over an object on the run's S3, in this process as the launchpad starts it."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from regworkers_core.domain.claim import InviteType
from regworkers_core.eligibility.invites.stored import check_invite
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations import uploads
from regworkers_core.runtime import Runtime
from regworkers_dagster import launching
from tests.dagster.selection.world import failure_of
from tests.dagster.support import job, plain, use
from tests.support.campaigns import create
from tests.support.least_privilege import GUARD

pytestmark = pytest.mark.namespace("module")

KEY = "invites/summer.csv"


@pytest.fixture
def runtime(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    create(runtime, eligibility={"inviteOnly": True})
    use(monkeypatch, runtime)
    return runtime


def upload(runtime: Runtime, content: bytes | None = None, **config: Any) -> dg.ExecuteInProcessResult:
    if content is not None:
        runtime.objects.put_bytes(KEY, content)
    given = {"campaign_id": "summer", "key": KEY, **config}
    return job("upload_invites").execute_in_process(run_config=given, raise_on_error=False)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return plain(event.materialization.metadata)


def is_invited(runtime: Runtime, value: str) -> bool:
    return check_invite(runtime, "summer", InviteType.EMAIL, value).invited


def test_rejected_lines_lie_beside_the_object_and_fail_the_run_after_all_others_are_invited(
    runtime: Runtime,
) -> None:
    result = upload(runtime, b"email\nfine@example.com\nstray.at.all\n")
    assert not result.success
    said = failure_of(result)
    assert "1 of 2 lines are rejected" in said and f"{KEY}.rejects.csv" in said and "stray.at" not in said
    assert is_invited(runtime, "fine@example.com")
    assert metadata(result)["invalid"] == 1
    assert (
        runtime.objects.get_bytes(KEY + ".rejects.csv")
        == b"line,reason,found\n3,INVALID_EMAIL,stra\xe2\x80\xa6\n"
    )
    again = upload(runtime, b"email\nfine@example.com\n")
    assert again.success and (metadata(again)["added"], metadata(again)["known"]) == (0, 1)
    assert "rejects" not in metadata(again), "no line is rejected, so there is nothing to open"
    assert runtime.objects.get_bytes(KEY + ".rejects.csv") == b"", "what was rejected before is over"


def test_an_upload_and_the_address_of_an_object_are_lists_too(runtime: Runtime) -> None:
    runtime.objects.put_bytes("invites/2026/summer.csv", b"email\naddress@example.com\n")
    assert upload(runtime, key=f"s3://{runtime.objects.bucket}/invites/2026/summer.csv").success
    assert upload(runtime, key=uploads.put(runtime, "list.csv", b"email\nuploaded@example.com\n")).success
    assert is_invited(runtime, "address@example.com") and is_invited(runtime, "uploaded@example.com")


@pytest.mark.parametrize(
    "key",
    [
        "draws/summer/phase-1/leaves.csv",
        "erasures/list.csv",
        "invites.csv",
        "/invites/list.csv",
        "invites/",
        "invites/../draws/list.csv",
        "invites/2026/../../draws/list.csv",
        "invites//list.csv",
        "invites/planted@example.com.csv",
        "uploads/list.csv",
        f"uploads/{'0' * 32}/../list.csv",
        f"other/uploads/{'0' * 32}/list.csv",
        "s3://{other}/invites/list.csv",
        "s3://{bucket}/draws/list.csv",
        "planted@example.com",
    ],
)
def test_no_object_is_read_or_written_beside_but_uploads_and_those_below_the_prefix(
    runtime: Runtime, key: str
) -> None:
    key = key.format(bucket=runtime.objects.bucket, other=f"{runtime.objects.bucket}-other")
    own = key.removeprefix(f"s3://{runtime.objects.bucket}/")
    runtime.objects.put_bytes(own, b"email\nread@example.com\nstray\n")
    before = runtime.objects.list("")
    said = failure_of(upload(runtime, key=key))
    assert "key (no id, so not repeated) is no list of invites" in said and "a key below invites/" in said
    assert "planted" not in said and not is_invited(runtime, "read@example.com")
    assert runtime.objects.list("") == before, "no rejects beside it"


def test_the_prefix_is_a_setting(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    invites = runtime.settings.invites.model_copy(update={"prefix": "crm/lists/"})
    mine = Runtime(runtime.settings.model_copy(update={"invites": invites}))
    use(monkeypatch, mine)
    assert "a key below crm/lists/" in failure_of(upload(mine, b"email\nuser1@example.com\n"))
    mine.objects.put_bytes("crm/lists/spring.csv", b"email\nuser2@example.com\n")
    assert upload(mine, key="crm/lists/spring.csv").success and is_invited(mine, "user2@example.com")
    # The policies that the suite watches are of the default.
    assert {each.worker for each in GUARD.taken()} == {"invites"}


def test_a_terminated_run_is_not_green_and_the_next_one_goes_on(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminated(StopSignal):
        is_set = True

    content = b"email\n" + b"".join(b"term%d@example.com\n" % number for number in range(250))
    with monkeypatch.context() as patch:
        patch.setattr(launching, "StopSignal", Terminated)
        stopped = upload(runtime, content)
    assert not stopped.success and "repeat it to continue" in failure_of(stopped)
    assert metadata(stopped)["stopped"] is True
    assert upload(runtime).success and is_invited(runtime, "term249@example.com")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"key": "invites/none.csv"}, "/invites/none.csv does not exist"),
        ({"key": "sumer"}, "key 'sumer' is no list of invites"),
        ({"type": "user1@example.com"}, "found (no id, so not repeated)"),
    ],
)
def test_what_is_wrong_with_a_key_is_one_line_that_repeats_no_address(
    runtime: Runtime, config: dict[str, str], said: str
) -> None:
    failure = failure_of(upload(runtime, b"email\nuser1@example.com\n", **config))
    assert said in failure and "\n" not in failure
