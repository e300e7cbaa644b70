"""Whether the check in JavaScript and that in Python give the same answer to random and to changed receipts.

`python -m tests.fairdraw.verifier.agreement --receipts 20000 --folders 20000` compares as many receipts of each kind,
prints which steps ran, and compares what both say of as many folders of draws.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

from fairdraw import bls
from fairdraw.log.note import COSIGNATURE
from fairdraw.log.trust import Trust
from fairdraw.maths.files import sha256_hex
from fairdraw.proof import beacon
from fairdraw.proof.check import check_receipt
from fairdraw.proof.logged import Unchecked
from fairdraw.terms import QUICKNET_HASH
from tests.fairdraw.verifier.draws import FORMER, LOCAL, LOG, WITNESSES, random_receipts
from tests.fairdraw.verifier.folders import compare_folders
from tests.fairdraw.verifier.forgeries import Forgery, Receipt, canonical, forged, restated
from tests.fairdraw.verifier.log_forgeries import FORGERIES
from tests.fairdraw.verifier.mutations import mutated
from tests.fairdraw.verifier.node import BUNDLE, Node, node


class Question(NamedTuple):
    """What both are asked."""

    receipt: bytes
    # The text of a trust file.
    trust: str | None = None
    # The hash of a file of a campaign's record.
    opened: str | None = None


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
        patches.enter_context(patch.object(bls, "is_key", bool))
        for name in ("ed25519.Ed25519PublicKey", "mldsa.MLDSA44PublicKey"):
            patches.enter_context(patch(f"cryptography.hazmat.primitives.asymmetric.{name}", _NoCurve))
        yield


@dataclass
class Compared:
    """What was compared: how often each verdict, state of a step and finding was there, and what differed."""

    verdicts: Counter[str] = field(default_factory=Counter)
    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    # By how they begin.
    findings: Counter[str] = field(default_factory=Counter)
    differing: list[tuple[Question, Any, Any]] = field(default_factory=list)

    def add(self, other: Compared) -> None:
        self.verdicts += other.verdicts
        self.states += other.states
        self.findings += other.findings
        self.differing += other.differing

    def __str__(self) -> str:
        steps = sorted({name for name, _ in self.states})
        lines = [f"verdicts: {', '.join(f'{number} {name}' for name, number in self.verdicts.most_common())}"]
        for step in steps:
            counts = (f"{self.states[step, state]} {state}" for state in ("passed", "failed", "unchecked"))
            lines.append(f"  {step}: {', '.join(counts)}")
        counted = (f"{number} {name}" for name, number in self.findings.most_common())
        return "\n".join([*lines, f"findings: {', '.join(counted)}"])


def python_answer(question: Question) -> Any:
    data, trust, opened = question
    answer = check_receipt(data, Trust() if trust is None else Trust.parse(trust.encode()), opened).as_dict()
    steps = [[each["name"], each["state"], each["detail"]] for each in answer.pop("checks")]
    return json.loads(json.dumps(answer | {"steps": steps}))


def compare(node: Node, questions: list[Question], *, curves: bool) -> Compared:
    """Ask both about each receipt with its trust file. Without `curves` both leave signatures out."""
    found = Compared()
    with ExitStack() if curves else without_curves():
        for question in questions:
            data, trust, opened = question
            encoded = base64.b64encode(data).decode()
            theirs = node.ask("receipt", data=encoded, trust=trust, opened=opened, curves=curves)
            ours = python_answer(question)
            if ours != theirs:
                found.differing.append((question, ours, theirs))
            found.verdicts[ours["verdict"]] += 1
            found.findings.update(re.split(r"[-.: ]", each)[0] for each in ours["findings"])
            for name, state, _ in ours["steps"]:
                found.states[name.partition("-")[0], state] += 1
    return found


def differences(ours: Any, theirs: Any) -> dict[str, Any]:
    """Where two answers are not the same, step by step: what Python says, and what JavaScript says."""
    parts = [{**answer, **{each[0]: each for each in answer["steps"]}} for answer in (ours, theirs)]
    found = {key: [part.get(key) for part in parts] for part in parts for key in part if key != "steps"}
    return {key: pair for key, pair in found.items() if pair[0] != pair[1]}


def random_trust(rng: Random, receipt: Receipt) -> str | None:
    """A trust file or a policy: the keys of the receipt, others, or only some; at times none."""
    if rng.random() < 0.3:
        return None
    keys = (receipt.get("log") or {}).get("keys", {"need": 0, "witnesses": []})
    if keys["witnesses"] and 2 * keys["need"] > len(keys["witnesses"]) and rng.random() < 0.8:
        return json.dumps(keys | {"beacon": {LOCAL.hash: {"lead": 600}}})
    own: Any = {LOCAL.hash: {"lead": rng.choice((1, 600, 601))}}
    chains: Any = (own, own, {}, {QUICKNET_HASH: {"lead": 700}}, {"ab" * 32: {"lead": 9}})
    witnesses = rng.sample(WITNESSES, rng.choice((0, 1, 1, 3)))
    texts = [str(each.verifier(COSIGNATURE)) for each in witnesses]
    log = [str(rng.choice((LOG, LOG, LOG, FORMER)).verifier())]
    # Names in a policy are octets, those of keys are characters.
    if witnesses and all(map(str.isascii, texts)) and rng.random() < 0.4:
        lines = [f"log {log[0]}", *(f"witness w{at} {each}" for at, each in enumerate(texts))]
        members = " ".join(f"w{at}" for at in range(len(texts)))
        return "\n".join([*lines, f"group g {rng.choice(('all', 'any', '1'))} {members}", "quorum g", ""])
    document = {
        "beacon": rng.choice(chains),
        "log": log if witnesses else rng.choice(([], log)),
        "need": rng.randint(len(witnesses) // 2 + 1, len(witnesses)) if witnesses else 0,
        "witnesses": [rng.choice((each, f"{each} https://w.example")) for each in texts],
    }
    return json.dumps(document, indent=rng.choice((None, 1)))


def random_opened(rng: Random, receipt: Receipt) -> str | None:
    """The hash of a file of the campaign's record, mostly none."""
    texts = receipt["opened"]
    if rng.random() < 0.85:
        return None
    return sha256_hex(str(rng.choice(texts)).encode()) if texts and rng.random() < 0.8 else "ab" * 32


def receipts_to_compare(rng: Random, folder: Path, count: int) -> tuple[list[Question], list[Question]]:
    """`count` random receipts; as many with random changes, and some forgeries of each kind."""
    made: list[Receipt] = list(random_receipts(rng, folder, count))
    random = [Question(canonical(each), random_trust(rng, each), random_opened(rng, each)) for each in made]
    changed = [Question(mutated(rng, each, made), random_trust(rng, each)) for each in made]
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
            found += map(Question, dict.fromkeys((canonical(made), canonical(restated(made)))))
    return found


# Receipts that are made and compared at a time.
_PART = 500


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=10_000, help="of each kind")
    parser.add_argument("--folders", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    kinds = {"random": Compared(), "changed": Compared()}
    for start in range(0, given.receipts, _PART):
        rng = Random(f"{given.seed} {start}")
        with tempfile.TemporaryDirectory(prefix="regworkers-receipts-") as folder:
            made = receipts_to_compare(rng, Path(folder), min(_PART, given.receipts - start))
        for found, questions in zip(kinds.values(), made, strict=True):
            found.add(compare(node(), questions, curves=BUNDLE.exists()))
    with tempfile.TemporaryDirectory(prefix="regworkers-folders-") as folder:
        folders = compare_folders(Random(given.seed), Path(folder), given.folders)
    for kind, found in kinds.items():
        curves = "with" if BUNDLE.exists() else "without"
        number, differ = found.verdicts.total(), len(found.differing)
        print(f"{number} {kind} receipts, {curves} curves, {differ} differ; {found}")
        for question, ours, theirs in found.differing[:3]:
            print(json.dumps(differences(ours, theirs), indent=1), f"trust {question.trust}", sep="\n")
            print(f"opened {question.opened}, receipt {base64.b64encode(question.receipt).decode()}")
    print(f"{given.folders} folders, {len(folders.differing)} differ; {dict(folders.verdicts)}")
    for made, answers in folders.differing[:3]:
        print(f"{', then '.join(made) or 'no change'}: {answers}")
    return 1 if folders.differing or any(found.differing for found in kinds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
