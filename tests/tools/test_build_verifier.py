"""The page that checks receipts is built with a trust file that readers take, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairdraw.terms import QUICKNET_HASH
from tools import build_verifier

GOOD = {"beacon": {}, "log": [], "need": 0, "witnesses": []}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        (b"", "no line says the quorum (policy)"),
        (b"{", "not a JSON document (trust file)"),
        (json.dumps({**GOOD, "log": "x"}).encode(), "log: "),
        (json.dumps({**GOOD, "more": 1}).encode(), "more"),
        (json.dumps({**GOOD, "beacon": {QUICKNET_HASH: {"lead": 5}}}).encode(), "a lead of at least 600 s"),
        (b"log nonsense\n", "line 1: "),
    ],
)
def test_a_wrong_trust_file_is_one_sentence_with_the_file_the_field_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, says: str
) -> None:
    monkeypatch.setattr(build_verifier, "build", lambda _: pytest.fail("nothing is built"))
    path = tmp_path / "trust.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as refused:
        build_verifier.main(["--trust", str(path)])
    said = str(refused.value.code)
    assert said.startswith(f"make verifier: TRUST={path}: ") and says in said and "\n" not in said
    assert said.endswith("or leave TRUST out for the page alone")


def test_a_trust_file_that_readers_take_is_kept_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_text(json.dumps(GOOD, indent=2))
    assert build_verifier.trusted(path) == path.read_bytes()
