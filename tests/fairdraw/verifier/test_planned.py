"""Page and Python judge a winner's code alike."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairdraw import bls
from fairdraw.log.leaves import Kind
from fairdraw.maths import codes
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import MANIFEST, canonical_bytes, file_hash, sha256_hex
from fairdraw.proof.check import check_receipt
from tests.fairdraw.frauds.test_with_the_log import (
    CODE_KEY,
    LEAVES,
    OPENED,
    WITH_CODES,
    leaf,
    leaves_of,
    log_of,
    plan_of,
    planned_log,
    winners,
    with_code,
    with_log,
)
from tests.fairdraw.proof.draws import CAMPAIGN, FIRST, MORE, Terms, make
from tests.fairdraw.verifier.node import BUNDLE, Node


@pytest.mark.skipif(not BUNDLE.exists(), reason="run `make verifier`")
def test_page_and_python_agree_on_codes(javascript: Node, tmp_path: Path) -> None:
    draw, own = make(tmp_path, LEAVES, [Terms(FIRST)]), codes.salt_of(CODE_KEY, CAMPAIGN, "CODE")
    plan = plan_of({"east": own, "west": own})
    honest = with_code(winners(draw)[0], planned_log(draw, plan), own, plan)
    invented = codes.salt_of(b"i" * 32, CAMPAIGN, "CODE")
    changes: list[dict[str, Any]] = [
        *({"salt": salt} for salt in (own, invented, "c0" + "00" * 47, "80" + "00" * 47, own.upper(), 1)),
        *({"code": code} for code in ("code", "", "\ud800", None)),
        {"market": "north"},
        {"position": 2},
        {"position": 0},
        *(
            {"list": honest["code"]["list"] | each}
            for each in ({"phase": 2}, {"name": "x"}, {"hash": "1" * 64})
        ),
        {"more": 1},
    ]
    lists: list[bytes | None] = [
        plan,
        None,
        b"",
        plan[:-1],
        plan.replace(b"\n", b"\r\n"),
        b"x\n",
        plan + plan,
    ]
    for opened in (WITH_CODES, None):
        for change in changes:
            for given in lists if change == changes[0] else lists[:2]:
                made = honest | {"code": honest["code"] | change}
                if opened is None:
                    made |= {"opened": []}
                try:
                    data = canonical_bytes(made)
                except ValueError:
                    data = json.dumps(made).encode()
                checked = check_receipt(data, codes=given)
                ours = [[each.name, each.state.value, each.detail] for each in checked.checks]
                theirs = javascript.ask(
                    "receipt",
                    data=base64.b64encode(data).decode(),
                    trust=None,
                    opened=None,
                    codes=None if given is None else given.decode(),
                    curves=True,
                )
                assert (theirs["verdict"], theirs["steps"]) == (checked.verdict, ours), (change, given)


@pytest.mark.skipif(not BUNDLE.exists(), reason="run `make verifier`")
def test_page_and_python_agree_on_what_the_log_does_not_have(javascript: Node, tmp_path: Path) -> None:
    draw, salt = (
        make(tmp_path, LEAVES, [Terms(FIRST), Terms(MORE)]),
        codes.salt_of(b"i" * 32, CAMPAIGN, "CODE"),
    )
    plan, invented = plan_of({"east": salt}), replace(OPENED, code_key=bls.public_key(b"i" * 32))
    winner = next(each for each in winners(draw) if each["market"] == "east")
    bare = log_of([*leaves_of(draw), leaf(Kind.CODES, sha256_hex(plan))])
    unlogged = with_code(dict(winner), bare, salt, plan, invented)
    later = with_code(dict(winner), planned_log(draw, plan, OPENED), salt, plan, OPENED)
    later["opened"].append(invented.amending(OPENED, "codes come later").to_bytes().decode())
    manifest = file_hash(draw / "phase-1" / MANIFEST)
    text = Annulled("2026-11-25T08:15:00.000Z", CAMPAIGN, manifest, 1, "a fault").to_bytes()
    gone = log_of([*leaves_of(draw), leaf(Kind.ANNULLED, sha256_hex(text))])
    winter = replace(OPENED, campaign_id="winter").to_bytes().decode()
    for made in (
        unlogged,
        later,
        unlogged | {"log": None},
        with_log(dict(winner), gone) | {"annulled": text.decode()},
        with_log(dict(winner), bare) | {"opened": [winter]},
        dict(winner) | {"opened": [winter], "log": None},
    ):
        data = canonical_bytes(made)
        checked = check_receipt(data, codes=plan)
        theirs = javascript.ask(
            "receipt",
            data=base64.b64encode(data).decode(),
            trust=None,
            opened=None,
            codes=plan.decode(),
            curves=True,
        )
        ours = [[each.name, each.state.value, each.detail] for each in checked.checks]
        assert (theirs["verdict"], theirs["steps"]) == (checked.verdict, ours)
