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
from fairdraw.log.note import COSIGNATURE, Note, Signature, SignerKey
from fairdraw.log.trust import Trust
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.proof.check import ReceiptChecked, check_receipt
from fairdraw.proof.logged import NO_LOG, NO_WITNESS
from fairdraw.proof.receipt_view import checked_text
from fairdraw.terms import QUICKNET, QUICKNET_HASH, iso
from tests.fairdraw.proof.draws import ROUND, publish_beside, refs
from tests.fairdraw.verifier.draws import ALIAS, FORMER, LOG, OTHER_LOG, WITNESSES, log_of
from tests.support.terminal import Answer, regworkers


def here(*words: str) -> Answer:
    return regworkers(None, "draw", *words)


IN_TIME = iso(QUICKNET.due(ROUND) - 700)
# When the witnesses of `log_of` saw the record of the campaign.
A_DAY_BEFORE = iso(QUICKNET.due(ROUND) - 700 - 86_400)
Leaves = list[LogLeaf]


def leaf(receipt: dict[str, Any], kind: Kind, data: str, phase: int = 1, at: str = IN_TIME) -> LogLeaf:
    return LogLeaf(receipt["campaignId"], sha256_hex(data.encode()), kind, phase, at)


def leaves_of(receipt: dict[str, Any]) -> Leaves:
    """What the log has of the draw, in the order in which it happened."""
    found: Leaves = []
    for number, text in enumerate(receipt["opened"]):
        kind = Kind.AMENDED if number else Kind.OPENED
        found.append(leaf(receipt, kind, text, number, A_DAY_BEFORE))
    phases = receipt["phases"] if receipt["kind"] == "draw" else [receipt, *receipt["phases"]]
    for number, phase in enumerate(phases, 1):
        published = phase.get("published") or {"notice": None, "replaced": []}
        for text in published["replaced"]:
            found.append(leaf(receipt, Kind.MANIFEST, json.loads(text)["manifest"]))
            found.append(leaf(receipt, Kind.REPLACED, text))
        found.append(leaf(receipt, Kind.MANIFEST, phase["manifest"], number))
        if published["notice"]:
            found.append(leaf(receipt, Kind.NOTICE, published["notice"], number))
        found.append(leaf(receipt, Kind.RESULT, phase.get("summary", "a summary"), number))
    return found


def logged(
    receipt: dict[str, Any],
    leaves: Leaves | None = None,
    *,
    keys: Sequence[Any] = (LOG,),
    witnesses: Sequence[Any] = WITNESSES[:3],
    need: int = 2,
    **seen: Any,
) -> dict[str, Any]:
    """The receipt of a draw that is in a log, with two leaves of other campaigns before its own."""
    own = leaves_of(receipt) if leaves is None else leaves
    lines = ["first", "second", *(each.to_bytes().decode() for each in own)]
    return {
        **receipt,
        "log": log_of(lines, list(range(2, len(lines))), [*keys], [*witnesses], need, **seen),
    }


def trust(**given: Any) -> Trust:
    """The honest keys, unless others are given."""
    keys = {
        "beacon": {},
        "log": [str(LOG.verifier())],
        "need": 2,
        "witnesses": [str(each.verifier(COSIGNATURE)) for each in WITNESSES[:3]],
    }
    return Trust.parse(json.dumps(keys | given).encode())


NONE = Trust()


def check(receipt: dict[str, Any], by: Trust | None = None, opened: str | None = None) -> ReceiptChecked:
    """Check by the honest keys, unless others are given."""
    return check_receipt(canonical_bytes(receipt), trust() if by is None else by, opened)


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
    assert checked.verdict == "holds" and checked.trusted and not checked.findings, failed(checked)
    said = state(checked, "log")[1]
    assert f"in the log {LOG.name} of 10 leaves" in said and f"logged at {IN_TIME}" in said
    seen = state(checked, "witnesses")[1]
    assert "3 trusted witnesses cosigned the checkpoint (needed: 2 of 3)" in seen
    assert "1 of them would have to collude" in seen and "700 s before its round" in seen


def test_the_receipt_of_an_excluded_entry_has_the_log_too(beaconed: Path) -> None:
    excluded = build_receipt(beaconed, "unknown-ref", reasons=lambda _ref: ["NO_MARKET"])
    assert check(logged(excluded)).verdict == "holds"
    for phase in (1, 2):
        changed = logged(excluded, without(Kind.RESULT, phase)(excluded, leaves_of(excluded)))
        assert f"phase {phase}: the log has the results -" in state(check(changed), "log")[1]
    # A later phase that the log names, and the receipt does not.
    forged = logged({**excluded, "phases": []}, leaves_of(excluded))
    assert failed(check(forged)) == ["log"] and "is manifest" in state(check(forged), "log")[1]


def test_without_a_log_nothing_fails_and_the_verdict_is_incomplete(receipt: dict[str, Any]) -> None:
    checked = check(receipt)
    assert checked.verdict == "incomplete" and not failed(checked)
    assert state(checked, "log") == state(checked, "witnesses") == ("unchecked", NO_LOG)
    assert "[?] The statements are in the public log" in checked_text(checked)
    assert "incomplete: this draw is in no public log\n" in checked_text(checked)


def test_only_version_4_is_read(receipt: dict[str, Any]) -> None:
    for version in (1, 2, 3, 5, "4", None, [4]):
        assert failed(check({**receipt, "version": version})) == ["receipt"]
    for key in receipt:
        assert failed(check({name: receipt[name] for name in receipt if name != key})) == ["receipt"]
    assert failed(check_by(b'{"version":4.0}', receipt)) == ["receipt"]
    assert failed(check({**receipt, "registration": {}})) == ["receipt"]


def check_by(text: bytes, receipt: dict[str, Any]) -> ReceiptChecked:
    """The receipt with the keys of another JSON text."""
    return check_receipt(canonical_bytes(receipt).replace(b'"version":4', text[1:-1]))


def test_without_a_trust_file_no_receipt_holds(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    own = check(made, NONE)
    assert {each.state.value for each in own.checks} == {"passed"}
    assert own.verdict == "incomplete" and not own.trusted
    assert "Everything fits together, by the keys in this receipt." in checked_text(own)
    # A file that names no witness, or nothing of the log.
    for keys in (trust(need=0, witnesses=[]), trust(log=[], need=0, witnesses=[])):
        assert check(made, keys).verdict == "incomplete"
    # Keys that a stranger made, with the operator's names.
    strangers = [SignerKey(each.name, b"s" * 32) for each in (LOG, *WITNESSES[:1])]
    forged = logged(receipt, keys=strangers[:1], witnesses=strangers[1:], need=1)
    assert check(forged, NONE).verdict == "incomplete"
    assert failed(check(forged)) == ["log", "witnesses"]


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
    (more(Kind.MANIFEST, 3), "is manifest"),
    (more(Kind.RESULT), "phase 1: the log has the results"),
    (more(Kind.REPLACED), "is replaced"),
    (more(Kind.NOTICE, 2), "is notice"),
    (more(Kind.OPENED, 0), "is opened"),
    (more(Kind.ANNULLED), "annuls the draw, the receipt does not"),
    # What was replaced is in the log after what took its place.
    (lambda _receipt, own: [*own[1:], own[0]], "is manifest"),
    # A later phase whose result was there first.
    (
        lambda _receipt, own: [*own[:-3], own[-1], *own[-3:-1]],
        "its result was in the log before its manifest",
    ),
    (
        lambda receipt, own: [*own, leaf({"campaignId": "winter"}, Kind.CODES, "x")],
        "belongs to campaign winter",
    ),
]


@pytest.mark.parametrize(("change", "said"), CHANGED)
def test_a_log_with_other_statements_than_the_receipt_fails(
    receipt: dict[str, Any], change: Callable[[dict[str, Any], Leaves], Leaves], said: str
) -> None:
    checked = check(logged(receipt, change(receipt, leaves_of(receipt))))
    # Where the manifest is not found, its time is not either.
    assert failed(checked)[0] == "log" and said in state(checked, "log")[1]


def test_codes_and_an_annulment_that_the_receipt_names_pass(receipt: dict[str, Any]) -> None:
    text = (
        Annulled(
            IN_TIME, receipt["campaignId"], sha256_hex(receipt["phases"][1]["manifest"].encode()), 2, "x"
        )
        .to_bytes()
        .decode()
    )
    annulled = {**receipt, "annulled": text}
    leaves = [*leaves_of(receipt), leaf(receipt, Kind.CODES, "x"), leaf(receipt, Kind.ANNULLED, text, 2)]
    assert check(logged(annulled, leaves)).verdict == "holds"


def test_a_proof_or_a_checkpoint_that_was_changed_fails(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    entry = made["log"]["entries"][0]
    for change in ({"index": 1}, {"proof": entry["proof"][1:]}):
        entries = [{**entry, **change}, *made["log"]["entries"][1:]]
        checked = check({**made, "log": {**made["log"], "entries": entries}})
        assert failed(checked) == ["log"] and "does not lead to the root" in state(checked, "log")[1]
    # The cosignatures are not of this checkpoint either.
    checkpoint = made["log"]["checkpoint"].replace("\n10\n", "\n11\n")
    assert failed(check({**made, "log": {**made["log"], "checkpoint": checkpoint}})) == ["log", "witnesses"]
    signature = logged(receipt, keys=[OTHER_LOG])["log"]["checkpoint"].split("\n\n")[1]
    checkpoint = made["log"]["checkpoint"].split("\n\n")[0] + "\n\n" + signature
    checked = check({**made, "log": {**made["log"], "checkpoint": checkpoint}})
    assert "no trusted key of a log named log.example/draws signed" in state(checked, "log")[1]
    # A trusted key of another log does not speak for this one.
    given = {**made["log"]["keys"], "log": [str(OTHER_LOG.verifier())]}
    checked = check({**made, "log": {**made["log"], "checkpoint": checkpoint, "keys": given}})
    assert "no trusted key of a log named log.example/draws signed" in state(checked, "log")[1]
    forged = made["log"]["checkpoint"].replace(LOG.name, OTHER_LOG.name)
    assert failed(check({**made, "log": {**made["log"], "checkpoint": forged}})) == ["log", "witnesses"]
    for key, value in (("checkpoint", "x"), ("entries", made["log"]["entries"][::-1]), ("keys", {})):
        assert failed(check({**made, "log": {**made["log"], key: value}})) == ["receipt"]


def test_enough_distinct_witnesses_are_needed(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    note = Note.parse(made["log"]["checkpoint"])
    last = note.signatures[-1]
    wrong = Signature(last.name, last.key_id, last.value[:-1] + bytes([last.value[-1] ^ 1]))
    for signatures in (note.signatures[:2], (*note.signatures[:-1], wrong)):
        changed = {**made["log"], "checkpoint": str(Note(note.text, signatures))}
        assert failed(check({**made, "log": changed})) == ["witnesses"]
    # No witness at all.
    alone = logged(receipt, witnesses=(), need=0)
    checked = check(alone, NONE)
    assert checked.verdict == "incomplete" and state(checked, "witnesses") == ("unchecked", NO_WITNESS)
    assert any("only the operator vouches" in limit for limit in checked.limits)


SEEN = int(QUICKNET.due(ROUND)) - 600


def test_witnesses_must_have_seen_the_manifest_in_time(receipt: dict[str, Any]) -> None:
    assert check(logged(receipt, seen_at=SEEN, more=3)).verdict == "holds"
    late = check(logged(receipt, seen_at=SEEN + 1))
    assert failed(late) == ["witnesses"] and "at least 600 s must be between" in state(late, "witnesses")[1]
    later = check(logged(receipt, seen_at=SEEN), trust(beacon={QUICKNET_HASH: {"lead": 601}}))
    assert failed(later) == ["witnesses"]
    never = check(logged(receipt, seen_at=None))
    assert failed(never) == ["witnesses"] and "no checkpoint shows when" in state(never, "witnesses")[1]


def test_a_checkpoint_of_the_commit_that_was_changed_fails(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    [right] = made["log"]["kept"]
    [others] = logged(receipt, keys=[OTHER_LOG])["log"]["kept"]
    forged = right["checkpoint"].split("\n\n")[0] + "\n\n" + others["checkpoint"].split("\n\n")[1]
    for change, said in (
        ({"proof": right["proof"][1:]}, "does not lead to the root of the checkpoint of"),
        ({"index": 99}, "is about no leaf of the receipt"),
        ({"checkpoint": others["checkpoint"]}, "is of the log other.example/log, not of"),
        ({"checkpoint": forged}, "no trusted key of a log named log.example/draws signed the checkpoint of"),
    ):
        checked = check({**made, "log": {**made["log"], "kept": [right | change]}})
        assert "log" in failed(checked) and said in state(checked, "log")[1]
    for value in ([{}], [right, right], 7):
        assert failed(check({**made, "log": {**made["log"], "kept": value}})) == ["receipt"]


def test_trusted_keys_take_the_place_of_those_in_the_receipt(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    given = {key.what: key.given for key in check(made, NONE).keys}
    assert given == {"beacon": "rules", "log": "receipt", "witness": "receipt"}
    assert any("as this receipt has them" in limit for limit in check(made, NONE).limits)
    checked = check(made)
    assert {key.what: key.given for key in checked.keys} == {
        "beacon": "rules",
        "log": "trust",
        "witness": "trust",
    }
    assert not any("as this receipt has them" in limit for limit in checked.limits)
    assert failed(check(made, trust(log=[str(FORMER.verifier())]))) == ["log"]
    strangers = [str(each.verifier(COSIGNATURE)) for each in (WITNESSES[0], ALIAS, WITNESSES[3])]
    assert "witnesses" in failed(check(made, trust(witnesses=strangers[1:])))


def test_a_key_is_shown_by_the_start_of_its_hash(receipt: dict[str, Any]) -> None:
    made = logged(receipt)
    digits = sha256_hex(bytes.fromhex(QUICKNET.public_key))[:16]
    shown = " ".join(digits[place : place + 4] for place in range(0, 16, 4))
    assert "Keys as this receipt has them" in checked_text(check(made, NONE))
    assert f"quicknet: {shown}" in checked_text(check(made))
    assert "Keys as the trust file gives them" in checked_text(check(made))


KEYS = [str(each.verifier(COSIGNATURE)) for each in WITNESSES[:3]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"log": ["x"]}, "log: the verifier key is not"),
        ({"log": [str(LOG.verifier(COSIGNATURE))]}, "has type 0x04, not 0x01"),
        ({"log": []}, "witnesses, and no key of the log"),
        ({"witnesses": [7]}, "the verifier key is not"),
        ({"need": 4}, "4 witnesses of 3 cannot be needed"),
        ({"need": 1}, "more than half are needed"),
        ({"witnesses": [KEYS[0], str(ALIAS.verifier(COSIGNATURE)), KEYS[1]]}, "one would count as two"),
        ({"beacon": {QUICKNET_HASH: "ab"}}, "a JSON object is needed"),
        ({"beacon": {QUICKNET_HASH: {"lead": 599}}}, "at least 600 s"),
        ({"beacon": {"ab" * 32: {"lead": 0}}}, "an integer of at least 1"),
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
    witnesses = [str(each.verifier(COSIGNATURE)) for each in WITNESSES[:3]]
    for log, verdict, code in ((LOG, "holds", 0), (FORMER, "fails", 1)):
        given = {"beacon": {}, "log": [str(log.verifier())], "need": 2, "witnesses": witnesses}
        keys.write_text(json.dumps(given))
        found = here(*words)
        assert (found.code, found.document["verdict"]) == (code, verdict)
    without_file = here(*words[:-2])
    assert (without_file.code, without_file.document["verdict"]) == (1, "incomplete")
    keys.write_text("{}")
    assert here(*words).code == 2 and "missing beacon" in here(*words).stderr
    keys.unlink()
    assert here(*words).code == 2
