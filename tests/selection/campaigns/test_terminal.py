"""Campaigns and codes as a manager types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from regworkers_core.runtime import Runtime
from tests.support.terminal import Answer, regworkers
from tests.support.typing_in import Typed

pytestmark = pytest.mark.namespace("module")

Ask = Callable[..., Answer]

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = DOCS / "examples" / "campaign.yml"
ELIGIBILITY_FIELDS = {
    "inviteOnly",
    "inviteTypes",
    "regions",
    "minAge",
    "requireVerifiedPhone",
    "maxPerUnit",
}
OPTIONS = (
    "--opens-at",
    "2026-01-01T00:00:00Z",
    "--closes-at",
    "2026-02-01T00:00:00Z",
    "--market",
    "berlin=2",
)


@pytest.fixture
def typed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Typed:
    return Typed(runtime, monkeypatch, capfd)


@pytest.fixture
def ask(typed: Typed) -> Ask:
    """Ask for JSON."""
    return lambda *words: typed(*words, "--format", "json")


def test_a_campaign_from_its_creation_to_its_closing(runtime: Runtime, ask: Ask, typed: Typed) -> None:
    created = ask("campaign", "create", "summer", "--name", "Summer – Été", *OPTIONS)
    assert created.code == 0 and created.document["status"] == "DRAFT"
    commitment = created.document["draw"]["commitment"]
    secret = runtime.secrets.get("draw-secret/summer") or ""
    assert len(commitment) == 64 and secret and secret not in created.stdout + created.stderr
    again = ask("campaign", "create", "summer", *OPTIONS)
    assert again.code == 2 and again.stdout == "" and "campaign show summer" in again.stderr
    assert ask("campaign", "close", "summer").code == 2
    assert ask("campaign", "open", "summer").document["changed"] is True
    assert ask("campaign", "show", "summer").document["status"] == "OPEN"
    closed = ask("campaign", "close", "summer", "--reason", "sold out")
    assert closed.code == 0 and closed.document["status"] == "CLOSED"
    repeat = ask("campaign", "close", "summer")
    assert repeat.code == 0 and repeat.document["changed"] is False
    assert repeat.document["reason"] == "sold out"
    (listed,) = ask("campaign", "list", "--status", "CLOSED").document
    assert (listed["campaignId"], listed["capacity"]) == ("summer", 2)
    status = ask("campaign", "status", "summer")
    assert status.code == 1 and len(status.document["findings"]) == 2
    for words in (("show", "summer"), ("status", "summer"), ("list",)):
        text = typed("campaign", *words)
        assert "CLOSED" in text.stdout and secret not in text.stdout


def test_the_list_has_one_line_for_a_campaign_on_a_narrow_terminal(
    ask: Ask, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("campaign", "create", "summer-2026", "--name", "Summer tour", *OPTIONS)
    monkeypatch.setenv("COLUMNS", "80")
    lines = typed("campaign", "list").stdout.splitlines()
    (line,) = [line for line in lines if "summer-2026" in line]
    assert len(line) <= 80
    for text in ("Summer tour", "DRAFT", "2026-01-01", "2026-02-01", "2"):
        assert text in line


def test_the_list_keeps_ids_whole_however_long_the_names(
    ask: Ask, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a-campaign-with-a-36-characters-long"
    ask("campaign", "create", long, "--name", "A Tour Whose Name Is Longer Than A Line Allows", *OPTIONS)
    monkeypatch.setenv("COLUMNS", "80")
    shown = typed("campaign", "list").stdout
    assert long in shown and max(map(len, shown.splitlines())) <= 100


def test_a_definition_in_a_file_is_the_whole_campaign(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "campaign.yml"
    file.write_text(
        "campaignId: winter\nopensAt: 2026-01-01T00:00:00Z\nclosesAt: 2026-02-01T00:00:00Z\n"
        "markets: [{marketId: berlin, capacity: 1}]\n"
    )
    mixed = ask("campaign", "create", "--file", str(file), "--market", "paris=1")
    assert mixed.code == 2 and "omit the id and the other options" in mixed.stderr
    assert ask("campaign", "create", "--file", str(file)).document["campaignId"] == "winter"
    assert ask("campaign", "create").code == 2


def test_the_example_of_a_definition_is_complete_and_makes_a_campaign(ask: Ask, tmp_path: Path) -> None:
    created = ask("campaign", "create", "--file", str(EXAMPLE))
    assert created.code == 0, created.stderr
    campaign = created.document
    assert set(campaign["eligibility"]) == ELIGIBILITY_FIELDS
    assert campaign["autoDraw"] is True and {"winsPerUnit", "waitlistSize"} <= set(campaign["draw"])
    assert [each["marketId"] for each in campaign["markets"]] == ["berlin", "vienna"]
    assert campaign["markets"][0]["reserves"]
    # Also once its dates have passed.
    past = tmp_path / "past.yml"
    past.write_text(
        EXAMPLE.read_text("utf-8").replace("2027", "2025").replace("campaignId: ", "campaignId: past-")
    )
    assert ask("campaign", "create", "--file", str(past)).document["closesAt"].startswith("2025-02-14")
    # The page shows the file as it is.
    assert f"```yaml\n{EXAMPLE.read_text('utf-8')}```" in (DOCS / "selection.md").read_text("utf-8")


def test_a_campaign_for_invited_fans_is_created_from_options(ask: Ask) -> None:
    created = ask("campaign", "create", "all", *OPTIONS, "--invite-only")
    assert created.document["eligibility"] == {"inviteOnly": True}
    some = ("--invite-type", "email", "--invite-type", "memberId")
    created = ask("campaign", "create", "some", *OPTIONS, "--invite-only", *some)
    assert created.document["eligibility"] == {"inviteOnly": True, "inviteTypes": ["email", "memberId"]}
    refused = ask("campaign", "create", "c", *OPTIONS, *some)
    assert refused.code == 2 and "--invite-only" in refused.stderr


def test_creating_a_campaign_after_its_opening_shows_how_to_open_it(ask: Ask) -> None:
    past = ask("campaign", "create", "past", *OPTIONS)
    assert past.code == 0 and "campaign open past" in past.stderr
    ahead = (
        "--opens-at",
        "2998-01-01T00:00:00Z",
        "--closes-at",
        "2999-01-01T00:00:00Z",
        "--market",
        "berlin=2",
    )
    assert ask("campaign", "create", "ahead", *ahead).stderr == ""


def test_codes_are_imported_counted_and_voided(ask: Ask, typed: Typed, tmp_path: Path) -> None:
    assert ask("campaign", "create", "summer", "--slug", "hot", *OPTIONS).code == 0
    file = tmp_path / "codes.csv"
    file.write_bytes(b"\xef\xbb\xbfcode\r\nAAAA-1111\r\nBBBB-2222\r\n")
    dry = ask("codes", "import", str(file), "--campaign", "hot", "--dry-run")
    assert dry.code == 0 and dry.document["added"] == 2
    short = ask("codes", "status", "summer")
    assert short.code == 1 and short.document["markets"][0]["missing"] == 2
    done = ask("codes", "import", str(file), "--campaign", "hot")
    assert done.code == 0 and done.document["added"] == 2 and done.document["resumed"] == {}
    assert ask("codes", "status", "hot").code == 0
    file.write_text("code\n")
    empty = ask("codes", "import", str(file), "--campaign", "hot")
    assert empty.code == 1 and "nothing to import" in empty.document["advice"]
    file.write_text("code\nAAAA-1111\nAAAA-1111\n")
    rejected = ask("codes", "import", str(file), "--campaign", "summer")
    assert rejected.code == 1 and rejected.document["rejected"] == {"DUPLICATE_IN_FILE": 1}
    assert Path(rejected.document["rejectsFile"]) == tmp_path / "codes.csv.rejects.csv"
    counted = ask("codes", "void", "summer", "AAAA-1111")
    assert counted.code == 0 and counted.document[0]["outcome"] == "would be void"
    void = ask("codes", "void", "summer", "AAAA-1111", "--apply", "--yes")
    assert void.code == 0 and void.document == [{"code": "AAAA…", "done": True, "outcome": "is void now"}]
    text = typed("codes", "status", "summer")
    assert text.code == 1 and "berlin" in text.stdout
    everything = "".join(each.stdout + each.stderr for each in (done, rejected, void, text))
    assert "AAAA-1111" not in everything and "BBBB-2222" not in everything


def test_a_mistake_is_one_line_and_exit_code_2(runtime: Runtime, ask: Ask, tmp_path: Path) -> None:
    for words, expected in (
        (("campaign", "show", "unknown"), "no campaign 'unknown'"),
        (("campaign", "status", "unknown"), "campaign list"),
        (("campaign", "create", "a b", *OPTIONS), "campaignId must be 1 to 64 of the characters"),
        (("campaign", "create", "c", *OPTIONS, "--market", "berlin=3"), "duplicate market berlin"),
        (("campaign", "create", "c", "--market", "berlin=3"), "opensAt"),
        (("codes", "import", str(tmp_path / "none.csv"), "--campaign", "unknown"), "no campaign 'unknown'"),
    ):
        answer = ask(*words)
        assert answer.code == 2 and answer.stdout == "", words
        assert expected in answer.stderr and len(answer.stderr.strip().splitlines()) == 1
    answer = regworkers(runtime, "campaign", "show", "unknown")
    assert answer.code == 2 and "regworkers: there is no campaign 'unknown'" in answer.stderr
