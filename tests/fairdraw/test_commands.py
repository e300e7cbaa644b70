"""`fairdraw verify | check-receipt | log | witness`, and the same commands of the operator's terminal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fairdraw.__main__ import COMMANDS, main
from fairdraw.answers import parameters_of
from fairdraw.large.receipts import build_receipt
from fairdraw.maths import plain
from fairdraw.maths.beside import ANNULLED, Annulled
from fairdraw.maths.files import MANIFEST, RESULT, canonical_bytes, file_hash
from fairdraw.terms import CHAIN_FILE
from tests.fairdraw.log.test_follow import Place, manifest
from tests.fairdraw.proof.draws import AS_OF, CAMPAIGN, FIRST, Terms, entrants, make, refs
from tests.fairdraw.verifier.draws import LOCAL, OUR_SIGNATURE, OURS
from tests.selection.public.test_log_terminal import copied
from tests.support.terminal import regworkers


class Printed:
    """What a command printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        try:
            self.code = main(words)
        except SystemExit as left:
            self.code = int(left.code or 0)
        self.out, self.err = capsys.readouterr()

    @property
    def document(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self.out)
        return found


@pytest.fixture
def log_folder(tmp_path: Path) -> Path:
    place = Place()
    place.commit(manifest())
    place.result()
    return copied(place, tmp_path)


def test_a_draw_is_replayed_alike_in_plain_python_by_duckdb_and_by_the_terminal(
    beaconed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("verify", str(beaconed), "--format", "json")
    large, slow = Printed(capsys, *words), Printed(capsys, *words, "--plain")
    terminal = regworkers(None, "draw", *words)
    assert large.code == slow.code == terminal.code == 0
    assert large.document == slow.document == terminal.document


def test_a_byte_that_differs_is_a_finding_of_both_engines(
    beaconed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(beaconed, tmp_path / "draw")
    (folder / "phase-2" / RESULT).write_bytes(
        (folder / "phase-2" / RESULT).read_bytes().replace(b"WAITLIST", b"WINNER", 1)
    )
    large, slow = Printed(capsys, "verify", str(folder)), Printed(capsys, "verify", str(folder), "--plain")
    assert large.code == slow.code == 1 and large.out == slow.out
    assert f"phase-2/{RESULT}: line" in large.out


def test_a_draw_that_is_incomplete_is_not_fine_until_a_trust_file_gives_the_lead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "draw", entrants(), [Terms(FIRST)], source=OURS, signature=OUR_SIGNATURE)
    (folder / CHAIN_FILE).write_bytes(LOCAL.to_bytes())
    trust = tmp_path / "trust.json"
    keys = {"beacon": {LOCAL.hash: {"lead": 600}}, "log": [], "need": 0, "witnesses": []}
    trust.write_text(json.dumps(keys))
    unknown = Printed(capsys, "verify", str(folder))
    assert unknown.code == 1 and "incomplete: lead unknown" in unknown.out
    assert Printed(capsys, "verify", str(folder), "--trust", str(trust)).code == 0
    said = Annulled(AS_OF, CAMPAIGN, file_hash(folder / "phase-1" / MANIFEST), 1, "a wrong list")
    (folder / "phase-1" / ANNULLED).write_bytes(said.to_bytes())
    annulled = Printed(capsys, "verify", str(folder), "--format", "json")
    assert (annulled.code, annulled.document["verdict"]) == (0, "annulled")


def test_a_draw_that_is_too_large_for_plain_python_names_what_to_install(
    beaconed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MOST_ENTRIES", 35)
    done = Printed(capsys, "verify", str(beaconed), "--plain")
    assert done.code == 2 and not done.out
    assert done.err == (
        "fairdraw: this draw has 36 entries, and a replay in plain Python takes 35: install fairdraw[large]\n"
    )
    assert Printed(capsys, "verify", str(beaconed)).code == 0


def test_a_receipt_is_checked_as_the_terminal_checks_it(
    beaconed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(canonical_bytes(build_receipt(beaconed, refs(1)[0])))
    ours, text = (
        Printed(capsys, "check-receipt", str(file), "--format", "json"),
        Printed(capsys, "check-receipt", str(file)),
    )
    terminal = regworkers(None, "draw", "check-receipt", str(file), "--format", "json")
    assert ours.code == terminal.code == text.code == 1
    assert ours.document == terminal.document and "not everything was checked" in text.out
    assert ours.document["verdict"] == "incomplete"
    other = Printed(capsys, "check-receipt", str(file), "--opened", "ab" * 32)
    assert other.code == 1 and "of another campaign" in other.out
    assert Printed(capsys, "check-receipt", str(file), "--opened", "ab").code == 2


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'{"name":"x","version":4}', b"A poem.\n", b"%PDF-1.7\n\xe2\xe3\xcf\xd3\n", b""],
    ids=["a list", "an object", "other JSON", "a text", "a PDF", "nothing"],
)
def test_a_file_that_is_none_of_what_was_asked_for_is_a_wrong_call_that_names_it(
    beaconed: Path, log_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    own, other = tmp_path / "receipt.json", tmp_path / "report.pdf"
    own.write_bytes(canonical_bytes(build_receipt(beaconed, refs(1)[0])))
    other.write_bytes(content)
    for *words, said in (
        ("check-receipt", other, "no receipt or confirmation"),
        ("verify", beaconed, "--receipt", other, "no receipt or confirmation"),
        ("check-receipt", own, "--codes", other, "no list of planned codes"),
        ("log", "--from", log_folder, "--checkpoint", other, "no checkpoint of a log"),
        ("check-receipt", own, "--trust", other, ""),
    ):
        refused = Printed(capsys, *map(str, words))
        assert (refused.code, refused.out) == (2, "") and refused.err.count("\n") == 1
        assert refused.err.startswith(f"fairdraw: {other}: ") and said in refused.err


def test_an_option_that_cannot_be_used_for_the_file_is_refused(
    beaconed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt, confirmation = tmp_path / "receipt.json", tmp_path / "confirmation.json"
    receipt.write_bytes(canonical_bytes(build_receipt(beaconed, refs(1)[0])))
    confirmation.write_bytes(canonical_bytes({"kind": "registration", "version": 1}))
    codes = ("--codes", str(receipt))
    for file, *options, said in (
        (confirmation, *codes, "--codes can be given with a receipt only"),
        (
            confirmation,
            *codes,
            "--opened",
            "ab" * 32,
            "--opened and --codes can be given with a receipt only",
        ),
        (receipt, "--from", str(tmp_path), "--from can be given with a confirmation only"),
        (receipt, "--whole", "--whole can be given with a confirmation only"),
    ):
        refused = Printed(capsys, "check-receipt", str(file), *options)
        assert (refused.code, refused.out) == (2, "") and said in refused.err and str(file) in refused.err
    confirmed = Printed(capsys, "verify", str(beaconed), "--receipt", str(confirmation))
    assert confirmed.code == 2 and f"{confirmation} is a confirmation" in confirmed.err


def test_a_replay_compares_a_receipt_and_counts_its_household(
    beaconed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipt.json"

    def compared(receipt: object) -> Printed:
        file.write_bytes(canonical_bytes(receipt))
        return Printed(capsys, "verify", str(beaconed), "--receipt", str(file))

    drawn = build_receipt(beaconed, refs(1)[0])
    excluded = build_receipt(beaconed, "unknown-ref", reasons=lambda _ref: ["NO_MARKET"])
    for receipt in (drawn, excluded):
        fine = compared(receipt)
        assert fine.code == 0 and "the receipt is that of these files" in fine.out
    household = compared({**drawn, "together": drawn["together"] + 4})
    assert household.code == 1 and "together: 1 other entries" in household.out.replace("0 other", "1 other")
    first = drawn["phases"][0]
    line = first["result"] | {"line": f"{refs(1)[0]}|||STRUCK"}
    phases = [first | {"result": line}, *drawn["phases"][1:]]
    assert "result.txt: does not have the line" in compared({**drawn, "phases": phases}).out
    assert compared({**excluded, "ref": refs(1)[0]}).code == 1
    assert compared([]).code == 2


def test_a_log_is_followed_as_the_terminal_follows_it(
    log_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = log_folder / "kept"
    words = ("log", "summer", "--from", str(log_folder), "--checkpoint", str(kept), "--format", "json")
    ours, terminal = Printed(capsys, *words), regworkers(None, "draw", *words)
    assert ours.code == terminal.code == 0 and ours.document == terminal.document
    assert kept.read_text() == ours.document["checkpoint"]
    assert "--from is missing" in Printed(capsys, "log").err
    unknown = Printed(capsys, "log", "sumer", "--from", str(log_folder))
    assert unknown.code == 2 and "no leaf about a campaign sumer" in unknown.err


def test_lines_of_others_move_no_cursor(
    beaconed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(beaconed, tmp_path / "draw")
    (folder / "phase-1" / RESULT).write_bytes(b"\x1b[2J\n")
    assert "\x1b" not in Printed(capsys, "verify", str(folder)).out


def test_every_parameter_with_a_help_is_an_argument_or_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        shown = Printed(capsys, command.__name__.replace("_", "-"), "--help").out
        for each in parameters_of(command):
            assert (each.flag if each.is_option else each.name.upper()) in shown
