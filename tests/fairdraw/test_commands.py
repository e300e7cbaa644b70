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
from fairdraw.maths.files import RESULT, canonical_bytes
from tests.fairdraw.log.test_follow import Place, manifest
from tests.fairdraw.proof.draws import refs
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
    revealed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("verify", str(revealed), "--format", "json")
    large, slow = Printed(capsys, *words), Printed(capsys, *words, "--plain")
    terminal = regworkers(None, "draw", *words)
    assert large.code == slow.code == terminal.code == 0
    assert large.document == slow.document == terminal.document


def test_a_byte_that_differs_is_a_finding_of_both_engines(
    revealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(revealed, tmp_path / "draw")
    (folder / "phase-2" / RESULT).write_bytes(
        (folder / "phase-2" / RESULT).read_bytes().replace(b"WAITLIST", b"WINNER", 1)
    )
    large, slow = Printed(capsys, "verify", str(folder)), Printed(capsys, "verify", str(folder), "--plain")
    assert large.code == slow.code == 1 and large.out == slow.out
    assert f"phase-2/{RESULT}: line" in large.out


def test_a_draw_that_is_too_large_for_plain_python_names_what_to_install(
    revealed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "MOST_ENTRIES", 35)
    done = Printed(capsys, "verify", str(revealed), "--plain")
    assert done.code == 2 and not done.out
    assert done.err == (
        "fairdraw: this draw has 36 entries, and a replay in plain Python takes 35: install fairdraw[large]\n"
    )
    assert Printed(capsys, "verify", str(revealed)).code == 0


def test_a_receipt_is_checked_as_the_terminal_checks_it(
    revealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipt.json"
    file.write_bytes(canonical_bytes(build_receipt(revealed, refs(1)[0])))
    ours, text = (
        Printed(capsys, "check-receipt", str(file), "--format", "json"),
        Printed(capsys, "check-receipt", str(file)),
    )
    terminal = regworkers(None, "draw", "check-receipt", str(file), "--format", "json")
    assert ours.code == terminal.code == text.code == 0
    assert ours.document == terminal.document and "not everything could be checked" in text.out
    file.write_text("[]")
    refused = Printed(capsys, "check-receipt", str(file))
    assert refused.code == 2 and "this is not a receipt" in refused.err


def test_a_log_is_followed_as_the_terminal_follows_it(
    log_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = log_folder / "kept"
    words = ("log", "summer", "--from", str(log_folder), "--checkpoint", str(kept), "--format", "json")
    ours, terminal = Printed(capsys, *words), regworkers(None, "draw", *words)
    assert ours.code == terminal.code == 0 and ours.document == terminal.document
    assert kept.read_text() == ours.document["checkpoint"]
    assert "--from is missing" in Printed(capsys, "log").err


def test_lines_of_others_move_no_cursor(
    revealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(revealed, tmp_path / "draw")
    (folder / "phase-1" / RESULT).write_bytes(b"\x1b[2J\n")
    assert "\x1b" not in Printed(capsys, "verify", str(folder)).out


def test_every_parameter_with_a_help_is_an_argument_or_option(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        shown = Printed(capsys, command.__name__.replace("_", "-"), "--help").out
        for each in parameters_of(command):
            assert (each.flag if each.is_option else each.name.upper()) in shown
