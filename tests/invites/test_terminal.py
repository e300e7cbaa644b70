"""`regworkers invites ...` as operators type it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.invites.ttl import days_from
from regworkers_core.settings import PROJECT_ROOT
from tests.invites.world import Uploader
from tests.support.terminal import regworkers
from tests.support.typing_in import Typed


@pytest.fixture
def typed(uploader: Uploader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(uploader.runtime, monkeypatch, capsys)


def test_what_operators_of_old_typed_works(uploader: Uploader, typed: Typed) -> None:
    uploader.file.write_bytes(b"\xef\xbb\xbfemail\r\nUser1@example.com\r\nuser2@example.com\r\n")
    words = ("invites", "upload", uploader.campaign_id, "email", str(uploader.file), "14")
    answer = typed(*words, "--format", "json")
    assert answer.code == 0
    assert (answer.document["added"], answer.document["file"]) == (2, str(uploader.file))
    again = typed(*words)
    assert again.code == 0 and "known" in again.stdout and "{}" not in again.stdout
    assert "example.com" not in answer.stdout + answer.stderr + again.stdout + again.stderr


def test_without_a_file_the_one_at_the_old_place_is_taken_and_30_days(
    uploader: Uploader, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = typed("invites", "upload", uploader.campaign_id, "email")
    assert missing.code == 2 and "tools/uploadInvites/invites.csv: No such file" in missing.stderr
    folder = tmp_path / "tools" / "uploadInvites"
    folder.mkdir(parents=True)
    sample = (PROJECT_ROOT / "tools" / "uploadInvites" / "invites.csv").read_bytes()
    (folder / "invites.csv").write_bytes(sample)
    before = days_from(30, time.time())
    campaign = {"_id": uploader.campaign_id}
    soon = {"$set": {"closesAt": iso(time.time() + 86_400)}}
    uploader.runtime.database["campaigns"].update_one(campaign, soon)
    answer = typed("invites", "upload", uploader.campaign_id, "email", "--format", "json")
    assert (answer.code, answer.document["added"]) == (0, 2)
    assert answer.document["validUntil"] in {iso(before), iso(days_from(30, time.time()))}
    assert typed_check(uploader, typed)["validUntil"] == answer.document["validUntil"]


def typed_check(uploader: Uploader, typed: Typed) -> dict[str, str]:
    words = ("invites", "check", uploader.campaign_id, "email", "user1@example.com", "--format", "json")
    document: dict[str, str] = typed(*words).document
    return document


def test_rejected_lines_exit_with_1_and_are_listed_without_giving_anybody_away(
    uploader: Uploader, typed: Typed
) -> None:
    uploader.file.write_text("email\nuser1@example.com\nnobody.at.all\n")
    answer = typed("invites", "upload", uploader.campaign_id, "email", str(uploader.file), "--format", "json")
    assert (answer.code, answer.document["added"], answer.document["invalid"]) == (1, 1, 1)
    assert answer.document["rejectsFile"] == str(uploader.rejects)
    assert uploader.rejected == [("3", "INVALID_EMAIL", "nobo…")]
    assert "nobody.at.all" not in answer.stdout + answer.stderr
    told = typed("invites", "upload", uploader.campaign_id, "email", str(uploader.file))
    assert told.code == 1 and f"1 lines were rejected, see {uploader.rejects}" in told.stdout


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ttl": "1798761600000"}, "milliseconds"),
        ({"ttl": "1700000000"}, "in the past"),
        ({"ttl": "soon"}, "cannot be read"),
        ({"file": "none.csv"}, "none.csv: No such file"),
        ({"campaign": "sumer"}, "there is no campaign 'sumer'"),
        ({"type": "memberId"}, "should be the header `memberId`"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(
    uploader: Uploader, typed: Typed, changed: dict[str, str], said: str
) -> None:
    uploader.file.write_text("email\nuser1@example.com\n")
    given = {"campaign": uploader.campaign_id, "type": "email", "file": str(uploader.file), "ttl": "30"}
    answer = typed("invites", "upload", *(given | changed).values())
    assert (answer.code, answer.stdout) == (2, "")
    assert said in answer.stderr and len(answer.stderr.strip().splitlines()) == 1


def test_count_check_and_remove_by_hand(uploader: Uploader, typed: Typed) -> None:
    campaign_id = uploader.campaign_id
    uploader("email", "user1@example.com", "user2@example.com")
    count = typed("invites", "count", campaign_id, "--format", "json")
    assert (count.code, count.document["types"]["email"]) == (0, {"valid": 2, "expired": 0})
    assert set(count.document["types"]) == {"email", "globalUserId", "memberId"}
    one = typed("invites", "count", campaign_id, "memberId", "--format", "json")
    assert one.document["types"] == {"memberId": {"valid": 0, "expired": 0}}
    check = ("invites", "check", campaign_id, "email", "User1@example.com", "--format", "json")
    invited = typed(*check)
    assert invited.code == 0 and invited.document["invited"] is True
    remove = ("invites", "remove", campaign_id, "email", "user1@example.com")
    dry = typed(*remove)
    assert dry.code == 0 and "with --yes" in dry.stdout
    assert "would remove" in dry.stdout and "│ removed" not in dry.stdout
    assert typed(*check).code == 0
    done = typed(*remove, "--yes", "--format", "json")
    assert (done.code, done.document["removed"], done.document["dryRun"]) == (0, 1, False)
    gone = typed(*check)
    assert (gone.code, gone.document["invited"]) == (1, False)
    assert "user1" not in invited.stdout + dry.stdout + done.stdout + gone.stdout
    by_file = typed("invites", "remove", campaign_id, "email", "--file", str(uploader.file), "--yes")
    assert by_file.code == 0
    assert typed("invites", "count", campaign_id, "email", "--format", "json").document["types"]["email"] == {
        "valid": 0,
        "expired": 0,
    }


def test_what_to_remove_is_named_once(uploader: Uploader, typed: Typed) -> None:
    for words in ((), ("a@example.com", "--file", "x.csv")):
        answer = typed("invites", "remove", uploader.campaign_id, "email", *words)
        assert answer.code == 2 and "--file" in answer.stderr


def test_an_unknown_type_names_those_that_there_are(uploader: Uploader) -> None:
    answer = regworkers(uploader.runtime, "invites", "check", uploader.campaign_id, "mail", "a@example.com")
    assert (answer.code, answer.stdout) == (2, "")
    assert all(name in answer.stderr for name in ("email", "globalUserId", "memberId"))
