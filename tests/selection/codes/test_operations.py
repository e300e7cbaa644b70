"""Access codes at the terminal and on the launchpad: import, status, void."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairdraw.maths.codes import digest_of, salt_of
from regworkers_core.adapters.mongo.codes import NewCode
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys
from tests.support.campaigns import create
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

MARKETS = [
    {"marketId": "berlin", "name": "Berlin", "capacity": 2},
    {"marketId": "paris", "name": "Paris", "capacity": 1},
]


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "codes.csv"
    path.write_text("\n".join(lines))
    return path


def _add(runtime: Runtime, **markets: str) -> None:
    new = [NewCode(code, market) for code, market in markets.items()]
    runtime.codes.add("summer", new, import_id="i", at="", highest={})


def _status(runtime: Runtime, code: str) -> str:
    return str(runtime.database["codes"].find_one({"_id": code})["status"])  # type: ignore[index]


def test_a_file_is_imported_and_its_rejected_rows_come_back(
    runtime: Runtime, face: Face, tmp_path: Path
) -> None:
    create(runtime, "summer", markets=MARKETS)
    file = _file(tmp_path, "code,marketId", "AAAA-1111,berlin", "BBBB-1111,paris", "BAD CODE,paris")
    tried = face.does("codes import", upload=file, campaign_id="summer", dry_run=True)
    assert "1 of 3 rows are rejected; all others would be added" in tried.text
    assert runtime.database["codes"].count_documents({}) == 0 and not runtime.operator_actions.history()
    done = face.does("codes import", upload=file, campaign_id="summer")
    assert not done.fine and "1 of 3 rows are rejected; all others count" in done.text
    assert "AAAA-1111" not in done.text and "BAD CODE" not in done.text
    assert {each["_id"] for each in runtime.database["codes"].find()} == {"AAAA-1111", "BBBB-1111"}
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["added"]) == ("codes import", "summer", 2)
    again = face.does(
        "codes import", upload=_file(tmp_path, "code,marketId", "AAAA-1111,berlin"), campaign_id="summer"
    )
    assert again.fine


def test_the_stock_fails_while_codes_are_missing(runtime: Runtime, face: Face) -> None:
    create(runtime, "summer", markets=MARKETS)
    short = face.does("codes status", campaign_id="summer")
    assert not short.fine and "codes are missing" in short.text and "summer" in short.text
    _add(runtime, C1="berlin", C2="berlin", C3="paris")
    assert face.does("codes status").fine


def test_codes_are_voided_by_a_file_or_by_their_positions(
    runtime: Runtime, face: Face, tmp_path: Path
) -> None:
    create(runtime, "summer", markets=MARKETS)
    _add(runtime, **dict.fromkeys(("AAAA-1111", "AAAA-2222", "AAAA-3333"), "berlin"))
    leaked = {"campaign_id": "summer", "upload": _file(tmp_path, "code", "AAAA-1111"), "reason": "leaked"}
    seen = face.does("codes void", **leaked)
    assert seen.fine and _status(runtime, "AAAA-1111") == "AVAILABLE"
    done = face.does("codes void", apply=True, **leaked)
    assert done.fine and _status(runtime, "AAAA-1111") == "VOID" and "AAAA-1111" not in done.text
    assert "voided.csv" in done.files and b"AAAA-1111" not in done.files["voided.csv"], "it is shortened"
    at = {"campaign_id": "summer", "market_id": "berlin", "positions": [2, 3], "reason": "leaked"}
    assert face.does("codes void", apply=True, **at).fine
    assert {_status(runtime, code) for code in ("AAAA-2222", "AAAA-3333")} == {"VOID"}
    twice = face.does("codes void", apply=True, **at)
    assert not twice.fine or "already" in twice.text
    assert [each.arguments.get("reason") for each in runtime.operator_actions.history()] == ["leaked"] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give either a file, or a market with positions"),
        ({"market_id": "berlin", "positions": [9]}, "no code at position 9"),
    ],
)
def test_half_a_request_changes_nothing_and_says_what_is_missing(
    runtime: Runtime, face: Face, given: dict[str, Any], said: str
) -> None:
    create(runtime, "summer", markets=MARKETS)
    answer = face.does("codes void", campaign_id="summer", **given)
    assert not answer.fine and said in answer.text


def test_json_has_the_outcome_of_each_code(runtime: Runtime) -> None:
    create(runtime, "summer", markets=MARKETS)
    _add(runtime, **{"AAAA-1111": "berlin"})
    words = ("codes", "void", "summer", "--market", "berlin", "--position", "1", "--format", "json")
    (each,) = regworkers(runtime, *words).document
    assert each["done"] and set(each) == {"code", "done", "outcome"}


def test_the_issuer_gets_each_code_with_its_digest_and_its_end_and_the_export_is_audited(
    runtime: Runtime, face: Face
) -> None:
    campaign = create(runtime, "summer", markets=MARKETS, codes={"caseless": True, "expireAfterHours": 48})
    _add(
        runtime, **{"aaaa-1111": "berlin", "aaaa-2222": "berlin", "bbbb-1111": "paris", "bbbb-2222": "paris"}
    )
    runtime.codes.void("summer", "bbbb-2222", at="", reason="leaked", run_id="r")
    refused = face.does("codes export", campaign_id="summer")
    assert not refused.fine and "only their issuer may have" in refused.text and not refused.files
    given = {"status": "ASSIGNED", "ref": "r1", "phase": 1}
    runtime.database["codes"].update_one({"_id": "aaaa-1111"}, {"$set": given})
    end = "2027-03-01T09:00:00.000Z"
    phase = {"phase": 1, "status": "PUBLISHED", "markets": {"berlin": {"codesExpireAt": end}}}
    runtime.database["draws"].insert_one(
        {"_id": "summer", "drawId": "summer", "token": 1, "phases": {"1": phase}}
    )
    for _ in range(2):
        done = face.does("codes export", campaign_id="summer", for_issuer=True)
        assert done.fine and "aaaa-1111" not in done.text
    header, *lines = done.files["codes-summer.csv"].decode().splitlines()
    assert header == "code,digest,expiresAt"
    key = ensure_keys(runtime, campaign).code
    assert [line.split(",") for line in lines] == [
        [code, digest_of(salt_of(key, "summer", code), code), at]
        for code, at in (("aaaa-1111", end), ("aaaa-2222", ""), ("bbbb-1111", ""))
    ]
    kept = {each["_id"]: each.get("digest") for each in runtime.database["codes"].find()}
    assert [kept[line.split(",")[0]] for line in lines] == [line.split(",")[1] for line in lines]
    history = [(each.what, each.outcome) for each in runtime.operator_actions.history()]
    assert sorted(history) == [*[("codes export", "done")] * 2, ("codes export", "failed")]
