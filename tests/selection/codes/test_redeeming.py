"""What the issuer of the codes says of them: signed, in any order, and never against what is known."""

from __future__ import annotations

import time
from itertools import permutations
from pathlib import Path
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.mongo.codes import Codes
from regworkers_core.domain.events import PRODUCER
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.redemption import ISSUER, Statement
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.queue import Outgoing, Received
from regworkers_core.operations.dead_letters.model import dead_queue, read_message
from regworkers_core.operations.dead_letters.verdict import Assessor
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.issuing import write_for_issuer
from regworkers_core.selection.codes.redeeming import Redeeming
from regworkers_core.selection.drains import REDEEM
from regworkers_local.issuer import Issuer, read_export
from tests.support.campaigns import create
from tests.support.drains import run
from tests.support.faces import Face

pytestmark = pytest.mark.namespace("module")

ISSUER_1, ISSUER_2, STRANGER = (Issuer(bytes([n]) * 32, f"k{n % 2}") for n in (1, 2, 3))
REDEEMED, BLOCKED, COMPLETE = MessageType.REDEEMED, MessageType.BLOCKED, MessageType.COMPLETE
BEFORE, DEADLINE, AFTER = (f"2026-11-{day}T09:00:00.000Z" for day in ("01", "03", "04"))


def _digest(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def given(runtime: Runtime) -> Runtime:
    """Three winners have codes 1 to 3; code 4 is free. Two keys count, while one replaces the other."""
    keys = [{"id": each.key.id, "key": each.key.key} for each in (ISSUER_1, ISSUER_2)]
    create(runtime, "summer", issuerKeys=keys)
    create(runtime, "winter", issuerKeys=[{"id": "k1", "key": STRANGER.key.key}], slug="winter")
    phase = {"phase": 1, "status": "COMPLETED", "markets": {"berlin": {"codesExpireAt": DEADLINE}}}
    draw = {"_id": "summer", "drawId": "summer", "token": 1, "phases": {"1": phase}}
    runtime.database["draws"].insert_one(draw)
    runtime.database["codes"].insert_many(
        [
            {
                "_id": f"C{number}",
                "campaignId": "summer",
                "marketId": "berlin",
                "position": number,
                "digest": _digest(number),
                **({"status": "AVAILABLE"} if number == 4 else {"status": "ASSIGNED", "ref": f"r{number}"}),
                "phase": 1,
            }
            for number in (1, 2, 3, 4)
        ]
    )
    return runtime


def says(kind: MessageType, number: int = 0, at: str = BEFORE, campaign_id: str = "summer") -> Statement:
    return Statement(kind, campaign_id, _digest(number) if number else "", at)


def states(runtime: Runtime, *statements: Statement, by: Issuer = ISSUER_1) -> None:
    by.send(runtime.queue(runtime.names.redemption_queue), statements)


def known(runtime: Runtime) -> tuple[dict[str, str], str]:
    """Of each code its status and whether its issuer refuses it; and the watermark."""
    codes = {
        each["_id"]: each["status"] + " blocked" * bool(each.get("blocked"))
        for each in runtime.database["codes"].find()
    }
    record = runtime.draws.get("summer")
    return codes, record.complete_to if record else ""


def dead(runtime: Runtime) -> list[Received]:
    queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.redemption_queue))
    found: list[Received] = []
    while messages := queue.receive(10, 0, 30):
        found += messages
        queue.delete(messages)
    return found


def test_what_is_signed_counts_once_in_any_order(given: Runtime) -> None:
    messages = (
        (says(REDEEMED, 1), says(REDEEMED, 2)),
        (says(BLOCKED, 3, AFTER), says(BLOCKED, 1, AFTER)),
        (says(COMPLETE, at=BEFORE[:10] + "T08:59:59.999Z"),),
    )
    for order in permutations(messages):
        given.database["codes"].update_many(
            {"_id": {"$in": ["C1", "C2", "C3"]}},
            {"$set": {"status": "ASSIGNED"}, "$unset": {"blocked": "", "blockedAt": ""}},
        )
        given.database["draws"].update_one({}, {"$unset": {"redemptions": ""}})
        for number, each in enumerate((*order, *reversed(order))):
            states(given, *each, by=(ISSUER_1, ISSUER_2)[number % 2])
        report = run(given, REDEEM)
        codes, watermark = known(given)
        assert codes == {
            "C1": "REDEEMED blocked",
            "C2": "REDEEMED",
            "C3": "ASSIGNED blocked",
            "C4": "AVAILABLE",
        }
        assert watermark == messages[2][0].at
        counts = {name: report.counts[name] for name in ("redeemed", "blocked", "completed")}
        assert counts == {"redeemed": 2, "blocked": 2, "completed": 1} and not dead(given)


def test_a_redemption_whose_repeat_was_taken_meanwhile_changes_nothing_and_is_not_given_back(
    given: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    redeem = Codes.redeem

    def second(codes: Codes, *of: Any, **at: Any) -> bool:
        return redeem(codes, *of, **at) and redeem(codes, *of, **at)

    monkeypatch.setattr(Codes, "redeem", second)
    states(given, says(REDEEMED, 1))
    counts = run(given, REDEEM).counts
    assert (counts["unchanged"], counts["returned"]) == (1, 0) and known(given)[0]["C1"] == "REDEEMED"


def test_what_no_key_of_the_campaign_has_signed_is_forged_as_a_whole_and_changes_nothing(
    given: Runtime,
) -> None:
    (good,) = ISSUER_1.messages([says(REDEEMED, 1)])
    other = encode(REDEEMED, "issuer", [says(REDEEMED, 2).as_json()])
    (of_both,) = ISSUER_1.messages([says(REDEEMED, 1), says(REDEEMED, 1, campaign_id="winter")])
    (nameless,) = ISSUER_1.messages([says(REDEEMED, 1, campaign_id="nowhere")])
    # A valid signature of the role `selection`, of another body.
    ours = {PRODUCER: Redeeming(given, run_id="r").seal.attributes(other)[PRODUCER]}
    forged = [
        Outgoing(good.body, {}),
        Outgoing(other, good.attributes),
        *STRANGER.messages([says(REDEEMED, 1)]),
        Outgoing(good.body, {ISSUER: f"k0:{good.attributes[ISSUER].partition(':')[2]}"}),
        Outgoing(good.body, {ISSUER: "k1:zz"}),
        Outgoing(good.body, ours),
        of_both,
        nameless,
    ]
    before = known(given)
    assert not given.queue(given.names.redemption_queue).send(forged)
    run(given, REDEEM)
    gone = dead(given)
    assert [each.attributes["reason"] for each in gone] == ["FORGED"] * len(forged)
    assert known(given) == before
    assert {each.attributes.get(ISSUER) for each in gone} >= {good.attributes[ISSUER], None}


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (says(REDEEMED, 9), "no code of the campaign has this digest"),
        (says(BLOCKED, 4), "the code is AVAILABLE: no fan holds it"),
        (says(REDEEMED, 3), "was passed on in phase 2"),
        (says(REDEEMED, 2, DEADLINE), "after the issuer said that all of that time was stated"),
        (says(COMPLETE, at=iso(time.time() + 3600)), "completeTo is ahead of the clock"),
    ],
)
def test_what_contradicts_what_is_known_is_a_dead_letter_alone_and_stays_one(
    given: Runtime, statement: Statement, why: str
) -> None:
    given.database["codes"].update_one({"_id": "C3"}, {"$set": {"passedOn": 2}})
    states(given, says(COMPLETE, at=DEADLINE))
    run(given, REDEEM)
    before = known(given)
    with_it = [says(REDEEMED, 1, AFTER)] if statement.kind is REDEEMED else []
    states(given, statement, *with_it)
    run(given, REDEEM)
    (refused,) = dead(given)
    assert refused.attributes["reason"] == "ISSUER_CONFLICT" and why in refused.attributes["error"]
    codes = {**before[0], "C1": "REDEEMED"} if with_it else before[0]
    assert known(given) == (codes, before[1])
    queue = dead_queue(given.names, "redemption")
    message = read_message(queue, refused)
    (verdict,) = Assessor(given, lambda _: None)([message])
    assert verdict.verdict == "needed" and message.items[0].campaign_id == "summer"
    # Sent back, it carries the seal of who split it off, or the issuer's.
    assert not given.queue(given.names.redemption_queue).send([message.revived()])
    run(given, REDEEM)
    (again,) = dead(given)
    assert again.attributes["reason"] == "ISSUER_CONFLICT"


def test_a_file_that_an_operator_hands_in_counts_like_messages(
    given: Runtime, face: Face, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [
        {"type": each.kind, **each.as_json()}
        for each in (
            says(COMPLETE, at=DEADLINE),
            says(BLOCKED, 2, AFTER),
            says(REDEEMED, 1),
            says(REDEEMED, 1),
            says(REDEEMED, 9),
            says(REDEEMED, 1, campaign_id="winter"),
        )
    ]
    path = tmp_path / "stated.jsonl"
    path.write_bytes(b"\n".join([*map(orjson.dumps, lines), b"{"]))
    before = known(given)
    assert not face.does("codes redemptions", campaign_id="summer", upload=path, dry_run=True).fine
    assert known(given) == before and not given.operator_actions.history()
    done = face.does("codes redemptions", campaign_id="summer", upload=path)
    assert not done.fine and "3 lines are refused" in done.text
    codes = {**before[0], "C1": "REDEEMED", "C2": "ASSIGNED blocked"}
    assert known(given) == (codes, DEADLINE)
    refused = done.files["refused.csv"].decode()
    assert [line.split(",")[0] for line in refused.splitlines()] == ["line", "6", "7", "5"]
    (action,) = given.operator_actions.history()
    assert action.result["redeemed"] == 1


def test_the_stub_of_the_issuer_redeems_most_codes_and_blocks_the_others_after_their_end(
    given: Runtime, tmp_path: Path
) -> None:
    write_for_issuer(given, given.campaigns.require_id("summer"), tmp_path / "codes.csv")
    codes = read_export(tmp_path / "codes.csv")
    assert [(each.digest, each.expires_at) for each in codes[:3]] == [
        (_digest(n), DEADLINE) for n in (1, 2, 3)
    ]
    most = Issuer(bytes(32))
    assert 650 < sum(most.redeems(f"{n * 2**22:08x}") for n in range(1000)) < 750
    issuer = Issuer(ISSUER_1.seed, "k1", share=0.0)
    early, late = (
        list(issuer.statements("summer", codes, time.time() + shift)) for shift in (-90 * 86_400, 0.0)
    )
    assert [each.kind for each in early] == [COMPLETE]
    assert [each.kind for each in late] == [BLOCKED] * 3 + [COMPLETE] or len(late) == 5
    issuer.send(given.queue(given.names.redemption_queue), late[:3] + late[-1:])
    run(given, REDEEM)
    assert known(given)[0] == {f"C{n}": "ASSIGNED blocked" for n in (1, 2, 3)} | {"C4": "AVAILABLE"}
