"""The public log in a receipt, and trusted keys: what is checked, what fails, and what stays unchecked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fairdraw.errors import DrawError
from fairdraw.large.receipts import build_receipt
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.note import COSIGNATURE, Note, Signature
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.proof.check import ReceiptChecked, check_receipt
from fairdraw.proof.logged import NO_LOG, NO_WITNESS
from fairdraw.proof.receipt_view import checked_text
from fairdraw.terms import QUICKNET, QUICKNET_HASH, iso
from tests.fairdraw.proof.draws import ROUND, publish_beside, refs
from tests.fairdraw.verifier.draws import ALIAS, FORMER, LOG, OTHER_LOG, WITNESSES, log_of
from tests.selection.public.test_verify_terminal import here

IN_TIME = iso(QUICKNET.due(ROUND) - 600)
Leaves = list[LogLeaf]


def leaf(receipt: dict[str, Any], kind: Kind, data: str, phase: int = 1, at: str = IN_TIME) -> LogLeaf:
    return LogLeaf(receipt["campaignId"], sha256_hex(data.encode()), kind, phase, at)


def leaves_of(receipt: dict[str, Any]) -> Leaves:
    """What the log has of the draw, in the order in which it happened."""
    found: Leaves = []
    phases = receipt.get("phases") or [receipt]
    source = json.loads(phases[0]["manifest"])["seedSource"]
    if "commitment" in source:
        found.append(LogLeaf(receipt["campaignId"], source["commitment"], Kind.COMMITMENT, 1, IN_TIME))
    for number, phase in enumerate(phases, 1):
        for text in phase["published"]["replaced"]:
            found.append(leaf(receipt, Kind.MANIFEST, json.loads(text)["manifest"]))
            found.append(leaf(receipt, Kind.REPLACED, text))
        found.append(leaf(receipt, Kind.MANIFEST, phase["manifest"], number))
        if phase["published"]["notice"]:
            found.append(leaf(receipt, Kind.NOTICE, phase["published"]["notice"], number))
        for name in ("resultHash", "cutoffsHash"):
            result = phase.get(name) or sha256_hex(name.encode())
            found.append(LogLeaf(receipt["campaignId"], result, Kind.RESULT, number, IN_TIME))
    return found


def logged(
    receipt: dict[str, Any],
    leaves: Leaves | None = None,
    *,
    keys: Sequence[Any] = (LOG,),
    witnesses: Sequence[Any] = (),
    need: int = 0,
    **committed: Any,
) -> dict[str, Any]:
    """The receipt of a draw that is in a log, with two leaves of other campaigns before its own."""
    own = leaves_of(receipt) if leaves is None else leaves
    lines = ["first", "second", *(each.to_bytes().decode() for each in own)]
    return {
        **receipt,
        "log": log_of(lines, list(range(2, len(lines))), [*keys], [*witnesses], need, **committed),
    }


def check(receipt: dict[str, Any], trust: Trust | None = None) -> ReceiptChecked:
    return check_receipt(canonical_bytes(receipt), trust or Trust())


def state(checked: ReceiptChecked, name: str) -> tuple[str, str]:
    return next((each.state.value, each.detail) for each in checked.checks if each.name == name)


def failed(checked: ReceiptChecked) -> list[str]:
    return [each.name for each in checked.checks if each.state == "failed"]


@pytest.fixture(scope="module")
def receipt(beaconed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of two phases, from the beacon, with notices and a replaced manifest, without a log."""
    folder = publish_beside(shutil.copytree(beaconed, tmp_path_factory.mktemp("logged") / "draw"))
    return build_receipt(folder, refs(36)[3])


def test_a_receipt_whose_log_has_all_its_statements_holds(receipt: dict[str, Any]) -> None:
    checked = check(logged(receipt))
    assert checked.verdict == "holds", failed(checked)
    said = state(checked, "log")[1]
    assert f"in the log {LOG.name} of 12 leaves" in said and f"logged at {IN_TIME}" in said
    assert state(checked, "witnesses") == ("passed", NO_WITNESS)
    assert any("only the operator vouches" in limit for limit in checked.limits)
    assert "[-] Witnesses saw the same log: not applicable" in checked_text(checked)


def test_the_receipt_of_an_excluded_entry_has_the_log_too(revealed: Path) -> None:
    excluded = build_receipt(revealed, "unknown-ref", reasons=lambda _ref: ["NO_MARKET"])
    assert check(logged(excluded)).verdict == "holds"
    without = [each for each in leaves_of(excluded) if each.kind is not Kind.RESULT]
    assert "not one with its cut-offs" in state(check(logged(excluded, without)), "log")[1]


def test_without_a_log_nothing_fails_and_the_verdict_is_incomplete(receipt: dict[str, Any]) -> None:
    for each in (receipt, {key: receipt[key] for key in receipt if key != "log"} | {"version": 2}):
        checked = check(each)
        assert checked.verdict == "incomplete" and not failed(checked)
        assert state(checked, "log") == state(checked, "witnesses") == ("unchecked", NO_LOG)
        assert "[?] The statements are in the public log" in checked_text(checked)
    for version in (1, 4, "3"):
        assert failed(check({**receipt, "version": version})) == ["receipt"]
    assert failed(check({**receipt, "version": 2})) == ["receipt"]


def without(kind: Kind, phase: int = 1) -> Callable[[dict[str, Any], Leaves], Leaves]:
    return lambda _receipt, own: [each for each in own if (each.kind, each.phase) != (kind, phase)]


def more(kind: Kind, phase: int = 1, place: int = 99) -> Callable[[dict[str, Any], Leaves], Leaves]:
    return lambda receipt, own: [*own[:place], leaf(receipt, kind, "other", phase), *own[place:]]


CHANGED = [
    (without(Kind.MANIFEST), "phase 1: the log has no manifest"),
    (without(Kind.MANIFEST, 2), "phase 2: the log has no manifest"),
    (without(Kind.RESULT, 2), "phase 2: the log has the results -, not one"),
    (without(Kind.NOTICE, 2), "phase 2: the log has no notice"),
    (more(Kind.MANIFEST), "is manifest"),
    (more(Kind.MANIFEST, 1, 0), "is manifest"),
    (more(Kind.MANIFEST, 2), "is manifest"),
    (more(Kind.RESULT), "phase 1: the log has the results"),
    (lambda _receipt, own: own[:-1], "not one with its cut-offs"),
    (lambda _receipt, own: [*own[:-2], own[-1]], "not one with its cut-offs"),
    # The one is not to stand for the other.
    (lambda _receipt, own: [*own[:-2], own[-1], own[-2]], "not one with its cut-offs"),
    (more(Kind.REPLACED), "is replaced"),
    (more(Kind.NOTICE, 2), "is notice"),
    (more(Kind.ANNULLED), "annuls the draw, the receipt does not"),
    # What was replaced is in the log after what took its place.
    (lambda _receipt, own: [*own[1:], own[0]], "is manifest"),
    (
        lambda receipt, own: [*own, leaf({"campaignId": "winter"}, Kind.CODES, "x")],
        "belongs to campaign winter",
    ),
    (
        lambda receipt, own: [
            leaf(
                receipt,
                Kind.MANIFEST,
                receipt["phases"][0]["manifest"],
                1,
                iso(QUICKNET.due(ROUND) - 599.999),
            )
            if each.hash == receipt["phases"][0]["manifestHash"]
            else each
            for each in own
        ],
        "at least 600 s must be between",
    ),
]


@pytest.mark.parametrize(("change", "said"), CHANGED)
def test_a_log_with_other_statements_than_the_receipt_fails(
    receipt: dict[str, Any], change: Callable[[dict[str, Any], Leaves], Leaves], said: str
) -> None:
    checked = check(logged(receipt, change(receipt, leaves_of(receipt))))
    assert failed(checked) == ["log"] and said in state(checked, "log")[1]


def test_codes_and_an_annulment_that_the_receipt_names_pass(receipt: dict[str, Any]) -> None:
    text = (
        Annulled(IN_TIME, receipt["campaignId"], receipt["phases"][1]["manifestHash"], 2, "x")
        .to_bytes()
        .decode()
    )
    annulled = {**receipt, "annulled": text}
    leaves = [*leaves_of(receipt), leaf(receipt, Kind.CODES, "x"), leaf(receipt, Kind.ANNULLED, text, 2)]
    assert check(logged(annulled, leaves)).verdict == "holds"


def test_a_commitment_that_is_missing_or_after_the_manifest_fails(revealed: Path) -> None:
    receipt = build_receipt(revealed, refs(36)[3])
    own = leaves_of(receipt)
    assert check(logged(receipt)).verdict == "holds"
    for leaves in (own[1:], [*own[1:], own[0]]):
        checked = check(logged(receipt, leaves))
        assert failed(checked) == ["log"] and "no commitment" in state(checked, "log")[1]


def test_a_proof_or_a_checkpoint_that_was_changed_fails(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    entry = made["log"]["entries"][0]
    for change in ({"index": 1}, {"proof": entry["proof"][1:]}):
        entries = [{**entry, **change}, *made["log"]["entries"][1:]]
        checked = check({**made, "log": {**made["log"], "entries": entries}})
        assert failed(checked) == ["log"] and "does not lead to the root" in state(checked, "log")[1]
    checkpoint = made["log"]["checkpoint"].replace("\n12\n", "\n13\n")
    assert failed(check({**made, "log": {**made["log"], "checkpoint": checkpoint}})) == ["log"]
    signature = logged(receipt, keys=[OTHER_LOG])["log"]["checkpoint"].split("\n\n")[1]
    checkpoint = made["log"]["checkpoint"].split("\n\n")[0] + "\n\n" + signature
    checked = check({**made, "log": {**made["log"], "checkpoint": checkpoint}})
    assert "no trusted key of a log named log.example/draws signed" in state(checked, "log")[1]
    # A trusted key of another log does not speak for this one.
    given = {**made["log"]["keys"], "log": [str(OTHER_LOG.verifier())]}
    checked = check({**made, "log": {**made["log"], "checkpoint": checkpoint, "keys": given}})
    assert "no trusted key of a log named log.example/draws signed" in state(checked, "log")[1]
    forged = made["log"]["checkpoint"].replace(LOG.name, OTHER_LOG.name)
    assert failed(check({**made, "log": {**made["log"], "checkpoint": forged}})) == ["log"]
    for key, value in (("checkpoint", "x"), ("entries", made["log"]["entries"][::-1]), ("keys", {})):
        assert failed(check({**made, "log": {**made["log"], key: value}})) == ["receipt"]


def test_enough_distinct_witnesses_are_needed(receipt: dict[str, Any]) -> None:
    holds = check(logged(receipt, witnesses=WITNESSES, need=4))
    assert holds.verdict == "holds" and "4 trusted witnesses cosigned" in state(holds, "witnesses")[1]
    assert not any("only the operator vouches" in limit for limit in holds.limits)
    one = check(logged(receipt, witnesses=WITNESSES[:1], need=1))
    assert "1 trusted witness cosigned the checkpoint (needed: 1): " in state(one, "witnesses")[1]
    # One key under two names is one witness.
    twice = logged(receipt, witnesses=[WITNESSES[0], ALIAS], need=2)
    assert failed(check(twice)) == ["witnesses"]
    made = logged(receipt, witnesses=WITNESSES, need=4)
    note = Note.parse(made["log"]["checkpoint"])
    last = note.signatures[-1]
    wrong = Signature(last.name, last.key_id, last.value[:-1] + bytes([last.value[-1] ^ 1]))
    for signatures in (note.signatures[:-1], (*note.signatures[:-1], wrong)):
        changed = {**made["log"], "checkpoint": str(Note(note.text, signatures))}
        assert failed(check({**made, "log": changed})) == ["witnesses"]


SEEN = int(QUICKNET.due(ROUND)) - 600


def test_witnesses_must_have_seen_the_manifest_in_time(receipt: dict[str, Any], revealed: Path) -> None:
    asked: dict[str, Any] = {"witnesses": WITNESSES, "need": 2}
    checked = check(logged(receipt, **asked, seen_at=SEEN, more=3))
    assert checked.verdict == "holds"
    assert "the checkpoint of the commit at least 600 s before its round" in state(checked, "witnesses")[1]
    late = check(logged(receipt, **asked, seen_at=SEEN + 1))
    assert failed(late) == ["witnesses"]
    assert "0 trusted witnesses cosigned the checkpoint of the commit" in state(late, "witnesses")[1]
    # One of them signed again, later.
    made = logged(receipt, **asked, seen_at=SEEN)
    note = Note.parse(made["log"]["committed"]["checkpoint"])
    text = str(Note(note.text, (*note.signatures, *(each.cosign(note.text, SEEN + 9) for each in WITNESSES))))
    made["log"]["committed"]["checkpoint"] = text
    assert check(made).verdict == "holds"
    # A secret has no round.
    assert check(logged(build_receipt(revealed, refs(36)[3]), **asked, seen_at=SEEN + 900)).verdict == "holds"


def test_without_a_checkpoint_of_the_commit_the_manifest_is_not_in_time(receipt: dict[str, Any]) -> None:
    checked = check(logged(receipt, witnesses=WITNESSES, need=3, seen_at=None))
    assert failed(checked) == ["witnesses"]
    assert "no checkpoint shows when" in state(checked, "witnesses")[1]


def test_a_checkpoint_of_the_commit_that_was_changed_fails(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    right = made["log"]["committed"]
    others = logged(receipt, keys=[OTHER_LOG])["log"]["committed"]
    forged = right["checkpoint"].split("\n\n")[0] + "\n\n" + others["checkpoint"].split("\n\n")[1]
    for change, said in (
        ({"proof": right["proof"][1:]}, "does not lead to the root of the checkpoint of the commit"),
        ({"checkpoint": others["checkpoint"]}, "is of the log other.example/log, not of"),
        (
            {"checkpoint": forged},
            "no trusted key of a log named log.example/draws signed the checkpoint of the",
        ),
    ):
        checked = check({**made, "log": {**made["log"], "committed": right | change}})
        assert failed(checked) == ["log"] and said in state(checked, "log")[1]
    for value in ({}, {"checkpoint": "x", "proof": []}, 7):
        assert failed(check({**made, "log": {**made["log"], "committed": value}})) == ["receipt"]


def trust(**given: Any) -> Trust:
    empty: dict[str, Any] = {"beacon": {}, "log": [], "need": 0, "witnesses": []}
    return Trust.parse(json.dumps(empty | given).encode())


def test_trusted_keys_take_the_place_of_the_operators(receipt: dict[str, Any]) -> None:
    made = logged(receipt, witnesses=WITNESSES[:1])
    given = {key.what: key.given for key in check(made).keys}
    assert given == {"beacon": "operator", "log": "operator", "witness": "operator"}
    assert any("as the operator gave them" in limit for limit in check(made).limits)

    both = trust(
        beacon={QUICKNET_HASH: QUICKNET.public_key},
        log=[str(LOG.verifier())],
        witnesses=[str(WITNESSES[0].verifier(COSIGNATURE))],
        need=1,
    )
    checked = check(made, both)
    assert checked.verdict == "holds" and {key.given for key in checked.keys} == {"trust"}
    assert not any("as the operator gave them" in limit for limit in checked.limits)

    assert failed(check(made, trust(log=[str(FORMER.verifier())]))) == ["log"]
    stranger = trust(witnesses=[str(WITNESSES[1].verifier(COSIGNATURE))], need=1)
    assert failed(check(made, stranger)) == ["witnesses"]
    assert failed(check(made, trust(beacon={QUICKNET_HASH: "ab" * 96}))) == ["randomness"]


def test_a_key_is_shown_by_the_start_of_its_hash(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    checked = check(made)
    digits = sha256_hex(bytes.fromhex(QUICKNET.public_key))[:16]
    shown = " ".join(digits[place : place + 4] for place in range(0, 16, 4))
    assert "Keys as the operator gave them" in checked_text(checked)
    assert f"quicknet: {shown}" in checked_text(checked)
    assert "Keys as the trust file gives them" in checked_text(check(made, trust(log=[str(LOG.verifier())])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"log": ["x"]}, "log: the verifier key is not"),
        ({"log": [str(LOG.verifier(COSIGNATURE))]}, "has type 0x04, not 0x01"),
        ({"witnesses": [7]}, "texts of keys are needed"),
        ({"need": 1}, "1 witnesses of 0 cannot be needed"),
        ({"beacon": {QUICKNET_HASH: "ab"}}, "192 lower-case hex digits"),
        ({"more": 1}, "unknown more"),
    ],
)
def test_a_trust_file_is_read_strictly(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DrawError, match=said):
        trust(**change)
    with pytest.raises(DrawError, match="not a JSON document"):
        Trust.parse(b"{")


def test_the_terminal_takes_a_file_of_trusted_keys(receipt: dict[str, Any], tmp_path: Path) -> None:
    kept, keys = tmp_path / "receipt.json", tmp_path / "trust.json"
    kept.write_bytes(canonical_bytes(logged(receipt)))
    words = ("check-receipt", str(kept), "--format", "json", "--trust", str(keys))
    for log, verdict, code in ((LOG, "holds", 0), (FORMER, "fails", 1)):
        keys.write_text(json.dumps({"beacon": {}, "log": [str(log.verifier())], "need": 0, "witnesses": []}))
        found = here(*words)
        assert (found.code, found.document["verdict"]) == (code, verdict)
        assert [key["given"] for key in found.document["keys"]] == ["operator", "trust"]
        assert {each["state"] for each in found.document["checks"]} <= {"passed", "failed"}
    keys.write_text("{}")
    assert here(*words).code == 2 and "missing beacon" in here(*words).stderr
    keys.unlink()
    assert here(*words).code == 2
