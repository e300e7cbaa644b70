"""Whether the check in JavaScript and that in Python give the same answer to random and to changed receipts."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NoReturn
from unittest.mock import patch

from regworkers_core.domain.selection import QUICKNET, QUICKNET_HASH
from regworkers_core.selection.proof import beacon
from regworkers_core.selection.proof.check import check_receipt
from regworkers_core.selection.proof.logged import Trust, Unchecked
from tests.selection.verifier.draws import COSIGNATURE, FORMER, LOG, WITNESSES, random_receipts
from tests.selection.verifier.mutations import Receipt, canonical, mutated
from tests.selection.verifier.node import BUNDLE, ask

# The two sentences that only JavaScript has, for a page without the curves.
_BEACON = "hash, round and time are right; the signature was not checked here: compare it with a relay of the beacon"
_LOG = "all else is right; the signatures were not checked here"


def _no_beacon(*_arguments: Any) -> NoReturn:
    raise Unchecked(_BEACON)


class _NoCurve:
    @classmethod
    def from_public_bytes(cls, _public: bytes) -> _NoCurve:
        return cls()

    def verify(self, _signature: bytes, _text: bytes) -> NoReturn:
        raise Unchecked(_LOG)


@contextmanager
def without_curves() -> Iterator[None]:
    """Python's check as on a page without the curves: it meets no signature that it could verify."""
    with ExitStack() as patches:
        patches.enter_context(patch.object(beacon, "_is_signed", _no_beacon))
        ed25519 = "cryptography.hazmat.primitives.asymmetric.ed25519.Ed25519PublicKey"
        patches.enter_context(patch(ed25519, _NoCurve))
        yield


@dataclass
class Compared:
    """What was compared: how often each verdict and each state of each step was the same, and what differed."""

    verdicts: Counter[str] = field(default_factory=Counter)
    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    differing: list[tuple[bytes, str | None, Any, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        steps = sorted({name for name, _ in self.states})
        lines = [f"verdicts: {', '.join(f'{number} {name}' for name, number in self.verdicts.most_common())}"]
        for step in steps:
            counts = (f"{self.states[step, state]} {state}" for state in ("passed", "failed", "unchecked"))
            lines.append(f"  {step}: {', '.join(counts)}")
        return "\n".join(lines)


def python_answer(data: bytes, trust: str | None) -> Any:
    given = Trust() if trust is None else Trust.parse(trust.encode())
    answer = check_receipt(data, given).as_dict()
    steps = [[each["name"], each["state"], each["detail"]] for each in answer.pop("checks")]
    return json.loads(json.dumps(answer | {"steps": steps}))


def compare(questions: list[tuple[bytes, str | None]], *, curves: bool) -> Compared:
    """Ask both about each receipt with its trust file. Without `curves` both leave signatures out."""
    asked = (
        {"ask": "receipt", "data": base64.b64encode(data).decode(), "trust": trust, "curves": curves}
        for data, trust in questions
    )
    found = Compared()
    with without_curves() if not curves else ExitStack():
        for (data, trust), theirs in zip(questions, ask(asked), strict=True):
            ours = python_answer(data, trust)
            if ours != theirs:
                found.differing.append((data, trust, ours, theirs))
            found.verdicts[ours["verdict"]] += 1
            for name, state, _ in ours["steps"]:
                found.states[name.partition("-")[0], state] += 1
    return found


def random_trust(rng: Random) -> str | None:
    """A trust file, mostly none: the right keys, others, or only some."""
    if rng.random() < 0.7:
        return None
    chains = ({}, {QUICKNET_HASH: QUICKNET.public_key}, {QUICKNET_HASH: "ab" * 96}, {"ab" * 32: "cd" * 96})
    witnesses = rng.sample(WITNESSES, rng.randint(0, 3))
    document = {
        "beacon": rng.choice(chains),
        "log": rng.choice(([], [str(LOG.verifier())], [str(FORMER.verifier())])),
        "need": rng.randint(0, len(witnesses)),
        "witnesses": [str(each.verifier(COSIGNATURE)) for each in witnesses],
    }
    return json.dumps(document, indent=rng.choice((None, 1)))


def receipts_to_compare(
    rng: Random, folder: Path, count: int
) -> tuple[list[tuple[bytes, str | None]], list[tuple[bytes, str | None]]]:
    """`count` random receipts, and as many changed ones, each with a trust file or None."""
    made: list[Receipt] = list(random_receipts(rng, folder, count))
    random = [(canonical(each), random_trust(rng)) for each in made]
    changed = [(mutated(rng, each, made), random_trust(rng)) for each in made]
    return random, changed


HAS_CURVES = BUNDLE.exists()
