"""Invites at the terminal and on the launchpad: upload, count, check, remove."""

from __future__ import annotations

import time
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.invites.terms import days_from
from regworkers_core.operations import uploads
from regworkers_core.settings import PROJECT_ROOT
from tests.eligibility.invites.world import Uploader
from tests.support.faces import Face
from tests.support.terminal import Answer
from tests.support.typing_in import Typed, at_a_terminal

pytestmark = pytest.mark.namespace("module")


@pytest.fixture
def typed(uploader: Uploader, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(uploader.runtime, monkeypatch, capsys)


def _list(uploader: Uploader, face: Face) -> dict[str, Any]:
    """The file as each face takes it."""
    if face.name == "terminal":
        return {"file": uploader.file}
    return {"key": uploads.put(uploader.runtime, "invites.csv", uploader.file.read_bytes())}


def test_a_list_is_uploaded_and_removed_again_and_the_log_has_no_address(
    uploader: Uploader, face: Face
) -> None:
    runtime, campaign_id = uploader.runtime, uploader.campaign_id
    uploader.file.write_text("email\nfaced@example.com\nno.mail.at.all\n")
    given = _list(uploader, face)
    of = {"campaign_id": campaign_id, "type": "email"}
    tried = face.does("invites upload", dry_run=True, **of, **given)
    assert "all others would be invited" in tried.text and uploader.stored("faced@example.com") is None
    done = face.does("invites upload", **of, **given)
    assert not done.fine and "1 of 2 lines are rejected" in done.text
    assert uploader.stored("faced@example.com") is not None
    seen = face.does("invites remove", upload=uploader.file, **of)
    assert "would remove" in seen.text and uploader.stored("faced@example.com") is not None
    face.does("invites remove", upload=uploader.file, apply=True, **of)
    assert uploader.stored("faced@example.com") is None
    actions = [each for each in runtime.operator_actions.history() if each.target == campaign_id]
    assert [(each.what, each.result["rejected"]) for each in actions] == [
        ("invites remove", 1),
        ("invites upload", 1),
    ]
    shown = done.text + seen.text + str(actions)
    assert "faced@" not in shown and "no.mail.at" not in shown


def test_the_commands_of_the_manual_work(uploader: Uploader, typed: Typed) -> None:
    uploader.file.write_bytes(b"\xef\xbb\xbfemail\r\nUser1@example.com\r\nuser2@example.com\r\n")
    words = ("invites", "upload", uploader.campaign_id, "email", str(uploader.file), "14")
    answer = typed(*words, "--format", "json")
    assert answer.code == 0
    assert (answer.document["added"], answer.document["file"]) == (2, str(uploader.file))
    again = typed(*words)
    assert again.code == 0 and "known" in again.stdout and "{}" not in again.stdout
    assert "example.com" not in answer.stdout + answer.stderr + again.stdout + again.stderr


@pytest.fixture
def at_the_old_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the manual has the list, relative to the working directory; with two rows."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tools" / "uploadInvites" / "invites.csv"
    file.parent.mkdir(parents=True)
    file.write_text("email\nuser1@example.com\n\nuser2@example.com\n")
    return file


def invited(uploader: Uploader, typed: Typed) -> int:
    words = ("invites", "count", uploader.campaign_id, "email", "--format", "json")
    number: int = typed(*words).document["types"]["email"]["valid"]
    return number


def test_without_a_file_and_without_one_at_the_old_place_the_upload_asks_for_one(
    uploader: Uploader, typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    missing = typed("invites", "upload", uploader.campaign_id, "email", "--yes")
    assert (missing.code, missing.stdout) == (2, "")
    assert "name the list" in missing.stderr and "tools/uploadInvites/invites.csv" in missing.stderr


def test_a_forgotten_file_invites_no_one_without_a_terminal_or_with_another_word(
    uploader: Uploader, typed: Typed, at_the_old_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("invites", "upload", uploader.campaign_id, "email")
    silent = typed(*words)
    assert (silent.code, silent.stdout) == (2, "")
    assert f"{at_the_old_place} with 2 rows" in silent.stderr and "--yes" in silent.stderr
    at_a_terminal(monkeypatch, "yes")
    refused = typed(*words)
    assert (
        refused.code == 2
        and f"should be {uploader.campaign_id}" in refused.stderr
        and "'yes'" in refused.stderr
    )
    assert invited(uploader, typed) == 0
    at_a_terminal(monkeypatch, f" {uploader.campaign_id} ")
    assert typed(*words).code == 0 and invited(uploader, typed) == 2


def test_a_script_takes_the_list_at_the_old_place_with_yes_and_30_days(
    uploader: Uploader, typed: Typed, at_the_old_place: Path
) -> None:
    words = ("invites", "upload", uploader.campaign_id, "email", "--format", "json")
    dry = typed(*words, "--dry-run")
    assert dry.code == 0 and dry.document["added"] == 2 and invited(uploader, typed) == 0
    before = days_from(30, time.time())
    campaign = {"_id": uploader.campaign_id}
    soon = {"$set": {"closesAt": iso(time.time() + 86_400)}}
    uploader.runtime.database["campaigns"].update_one(campaign, soon)
    answer = typed(*words, "--yes")
    assert (answer.code, answer.document["added"]) == (0, 2)
    assert str(at_the_old_place) in answer.stderr
    assert answer.document["validUntil"] in {iso(before), iso(days_from(30, time.time()))}
    assert typed_check(uploader, typed)["validUntil"] == answer.document["validUntil"]


@pytest.mark.parametrize("type_", InviteType)
def test_the_example_that_is_shipped_invites_no_one(
    uploader: Uploader, typed: Typed, type_: InviteType
) -> None:
    folder = PROJECT_ROOT / "tools" / "uploadInvites"
    uploader.file.write_bytes((folder / "invites.example.csv").read_bytes())
    answer = typed(
        "invites", "upload", uploader.campaign_id, type_.value, str(uploader.file), "--format", "json"
    )
    if type_ is InviteType.EMAIL:
        assert (answer.code, answer.document["added"]) == (1, 0)
    else:
        assert answer.code == 2


def typed_check(uploader: Uploader, typed: Typed) -> dict[str, str]:
    words = ("invites", "check", uploader.campaign_id, "email", "user1@example.com", "--format", "json")
    document: dict[str, str] = typed(*words).document
    return document


def test_rejected_lines_exit_with_1_and_are_listed_without_personal_data(
    uploader: Uploader, typed: Typed
) -> None:
    uploader.file.write_text("email\nuser1@example.com\nno.mail.at.all\n")
    answer = typed("invites", "upload", uploader.campaign_id, "email", str(uploader.file), "--format", "json")
    assert (answer.code, answer.document["added"], answer.document["invalid"]) == (1, 1, 1)
    assert answer.document["rejectsFile"] == str(uploader.rejects)
    assert uploader.rejected == [("3", "INVALID_EMAIL", "no.m…")]
    assert "no.mail.at.all" not in answer.stdout + answer.stderr
    answered = typed("invites", "upload", uploader.campaign_id, "email", str(uploader.file))
    assert (
        answered.code == 1
        and f"1 of 2 lines are rejected, see {uploader.rejects}; all others are invited" in answered.stdout
    )
    dry = typed("invites", "remove", uploader.campaign_id, "email", "--file", str(uploader.file))
    assert dry.code == 1 and "nothing was removed: 1 invites would be" in dry.stdout
    assert "1 of 2 lines are rejected" in dry.stdout


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ttl": "1798761600000"}, "milliseconds"),
        ({"ttl": "1700000000"}, "in the past"),
        ({"ttl": "soon"}, "cannot be read"),
        ({"campaign_id": "sumer"}, "there is no campaign 'sumer'"),
        ({"campaign_id": " "}, "is missing"),
        ({"type": "memberId"}, "should be the header `memberId`"),
        ({"type": "mail"}, "email, globalUserId, memberId, found 'mail'"),
    ],
)
def test_a_wrong_word_is_said_and_no_fan_is_invited(
    uploader: Uploader, face: Face, changed: dict[str, str], said: str
) -> None:
    uploader.file.write_text("email\nuser1@example.com\n")
    given = {"campaign_id": uploader.campaign_id, "type": "email", "ttl": "30", **_list(uploader, face)}
    answer = face.does("invites upload", **(given | changed))
    assert not answer.fine and said in answer.text and "user1@" not in answer.text
    assert uploader.stored("user1@example.com") is None


def test_count_check_and_remove_at_the_terminal(uploader: Uploader, typed: Typed) -> None:
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
    assert dry.code == 0 and "add --apply" in dry.stdout
    assert "would remove" in dry.stdout and "│ removed" not in dry.stdout
    assert typed(*check).code == 0
    done = typed(*remove, "--apply", "--yes", "--format", "json")
    assert (done.code, done.document["removed"], done.document["dryRun"]) == (0, 1, False)
    gone = typed(*check)
    assert (gone.code, gone.document["invited"]) == (1, False)
    assert "user1" not in invited.stdout + dry.stdout + done.stdout + gone.stdout
    by_file = typed(
        "invites", "remove", campaign_id, "email", "--file", str(uploader.file), "--apply", "--yes"
    )
    assert by_file.code == 0
    assert typed("invites", "count", campaign_id, "email", "--format", "json").document["types"]["email"] == {
        "valid": 0,
        "expired": 0,
    }


def test_an_address_need_not_stand_in_the_history_of_a_shell(
    uploader: Uploader, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploader.file.write_text("email\nuser1@example.com\nuser2@example.com\n")
    assert typed("invites", "upload", uploader.campaign_id, "email", str(uploader.file)).code == 0

    def piped(text: str, *words: str) -> Answer:
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
        return typed("invites", words[0], uploader.campaign_id, "email", "-", *words[1:])

    assert piped(" USER1@example.com\n", "check").code == 0
    assert piped("absent@example.com\n", "check").code == 1
    for wrong in ("", "user1@example.com\nuser2@example.com\n"):
        assert "on stdin, found" in piped(wrong, "check").stderr
    removed = piped(
        "user1@example.com\n\nuser2@example.com\n", "remove", "--apply", "--yes", "--format", "json"
    )
    assert removed.code == 0 and removed.document["removed"] == 2
    assert "name the invites" in piped("\n", "remove").stderr


def test_what_to_remove_is_named_once(uploader: Uploader, typed: Typed) -> None:
    for words in ((), ("a@example.com", "--file", "x.csv")):
        answer = typed("invites", "remove", uploader.campaign_id, "email", *words)
        assert answer.code == 2 and "--file" in answer.stderr
