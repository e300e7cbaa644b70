"""Whether the check in JavaScript and that in Python give the same answer to random and to changed receipts.

`python -m tests.fairdraw.verifier.agreement --receipts 10000` compares as many of each kind, and prints which steps
ran.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NoReturn
from unittest.mock import patch

from fairdraw.log.note import COSIGNATURE
from fairdraw.log.trust import Trust
from fairdraw.proof import beacon
from fairdraw.proof.check import check_receipt
from fairdraw.proof.logged import Unchecked
from fairdraw.terms import QUICKNET, QUICKNET_HASH
from tests.fairdraw.verifier.draws import FORMER, LOG, WITNESSES, random_receipts
from tests.fairdraw.verifier.forgeries import Forgery, Receipt, canonical, forged, restated
from tests.fairdraw.verifier.log_forgeries import FORGERIES
from tests.fairdraw.verifier.mutations import mutated
from tests.fairdraw.verifier.node import BUNDLE, Node, node

# A receipt, and the text of a trust file or None.
Question = tuple[bytes, str | None]
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

    def add(self, other: Compared) -> None:
        self.verdicts += other.verdicts
        self.states += other.states
        self.differing += other.differing

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


def compare(node: Node, questions: list[Question], *, curves: bool) -> Compared:
    """Ask both about each receipt with its trust file. Without `curves` both leave signatures out."""
    found = Compared()
    with ExitStack() if curves else without_curves():
        for data, trust in questions:
            encoded = base64.b64encode(data).decode()
            theirs = node.ask("receipt", data=encoded, trust=trust, curves=curves)
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


def receipts_to_compare(rng: Random, folder: Path, count: int) -> tuple[list[Question], list[Question]]:
    """`count` random receipts; as many with random changes, and some forgeries of each kind."""
    made: list[Receipt] = list(random_receipts(rng, folder, count))
    random = [(canonical(each), random_trust(rng)) for each in made]
    changed = [(mutated(rng, each, made), random_trust(rng)) for each in made]
    return random, changed + forgeries_of(rng, made, most=count // 5)


def forgeries_of(rng: Random, receipts: Sequence[Receipt], most: int) -> list[Question]:
    """At most `most` forgeries of each kind, each alone, and with what follows from it."""
    found: list[Question] = []
    for forge in FORGERIES:
        chosen: list[tuple[Receipt, Forgery]] = []
        for receipt in rng.sample(receipts, len(receipts)):
            # Not those that do not have what is forged.
            with suppress(KeyError, IndexError, TypeError, ValueError):
                forgeries = list(forge(receipt, receipts))
                forged(receipt, forgeries[0])
                chosen += [(receipt, forgery) for forgery in forgeries]
            if len(chosen) > 3 * most:
                break
        for receipt, forgery in rng.sample(chosen, min(most, len(chosen))):
            made = forged(receipt, forgery)
            found += [(data, None) for data in dict.fromkeys((canonical(made), canonical(restated(made))))]
    return found


# Receipts that are made and compared at a time.
_PART = 500


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=10_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    kinds = {"random": Compared(), "changed": Compared()}
    with node() as javascript:
        for start in range(0, given.receipts, _PART):
            rng = Random(f"{given.seed} {start}")
            with tempfile.TemporaryDirectory(prefix="regworkers-receipts-") as folder:
                made = receipts_to_compare(rng, Path(folder), min(_PART, given.receipts - start))
            for found, questions in zip(kinds.values(), made, strict=True):
                found.add(compare(javascript, questions, curves=BUNDLE.exists()))
    for kind, found in kinds.items():
        curves = "with" if BUNDLE.exists() else "without"
        number, differ = found.verdicts.total(), len(found.differing)
        print(f"{number} {kind} receipts, {curves} curves, {differ} differ; {found}")
        for data, trust, ours, theirs in found.differing[:3]:
            print(f"receipt {data!r}\ntrust {trust!r}\nPython {ours}\nJavaScript {theirs}")
    return 1 if any(found.differing for found in kinds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
