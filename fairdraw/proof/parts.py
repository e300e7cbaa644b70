"""The parts of a receipt that are proven: a leaf, and of each phase its terms, a line of the result and a strike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from fairdraw.errors import DrawError
from fairdraw.maths.files import CUTOFFS, STRIKES, Fields, parse_canonical, sha256_hex, short
from fairdraw.maths.leaves import Leaf, Position, parse_leaf
from fairdraw.maths.manifest import Manifest, changed_terms, parse_strikes
from fairdraw.maths.merkle import verify_proof
from fairdraw.maths.phase import Summary
from fairdraw.maths.rules import MarketCutoffs, parse_cutoffs
from fairdraw.proof.guarantee import Published
from fairdraw.terms import OF_STRUCK

RECEIPT = "receipt"
_PHASE = ("cutoffs", "manifest", "published", "result", "strike", "summary")
_INCLUSION = ("index", "leaf", "proof")


def wrong(message: str) -> NoReturn:
    raise DrawError(RECEIPT, message)


class Inclusion:
    """A leaf and its path to the Merkle root."""

    def __init__(self, path: str, document: object) -> None:
        fields = Fields(RECEIPT, path, document, _INCLUSION)
        self.line = fields.text("leaf", bool, "a leaf")
        self.leaf: Leaf = parse_leaf(self.line)
        self.index = fields.integer("index")
        self.proof = proof_in(fields)

    def check(self, manifest: Manifest) -> None:
        if not verify_proof(self.line, self.index, manifest.count, self.proof, manifest.root):
            wrong(
                f"the proof of leaf {self.index} of {manifest.count} ({self.leaf.ref}) does not lead to the root"
                f" {manifest.root} of the manifest"
            )


def proof_in(fields: Fields) -> list[str]:
    return [str(each) for each in fields.list("proof")]


class CommittedPhase:
    """The manifest of a phase and the summary of its results; None where the receipt has no summary."""

    def __init__(self, number: int, fields: Fields) -> None:
        text = fields.text("manifest", str.isascii, "the text of manifest.json").encode()
        self.number = number
        self.manifest = Manifest.parse(text)
        self.manifest_hash = sha256_hex(text)
        self.summary: Summary | None = None
        self.summary_hash = ""

    def read_summary(self, fields: Fields) -> Summary:
        text = fields.text("summary", str.isascii, "the text of summary.json").encode()
        self.summary, self.summary_hash = Summary.parse(text), sha256_hex(text)
        return self.summary


def check_phases(phases: Sequence[CommittedPhase]) -> str:
    """Check that each phase follows from the one before, and that its summary is about it."""
    for each in phases:
        if each.manifest.phase != each.number:
            wrong(f"the manifest says phase {each.manifest.phase}, expected is {each.number}")
        if each.summary is not None and each.summary.manifest_hash != each.manifest_hash:
            wrong(
                f"phase {each.number}: the manifest has SHA-256 {each.manifest_hash}, the summary says"
                f" {each.summary.manifest_hash}"
            )
    for place, after in enumerate(phases[1:], 1):
        before, earlier = phases[place - 1], [each.manifest for each in phases[:place]]
        for error in changed_terms(earlier, after.manifest):
            wrong(f"phase {after.number}: {error.message}")
        previous = after.manifest.previous
        if previous is None or previous["manifestHash"] != before.manifest_hash:
            wrong(f"phase {after.number} does not follow from the manifest of phase {before.number}")
        if before.summary is not None and previous["resultHash"] != before.summary.result_hash:
            wrong(f"phase {after.number} does not follow from the result of phase {before.number}")
    return "\n".join(
        f"phase {each.number}: manifestHash {each.manifest_hash}"
        + (f", summary {each.summary_hash}" if each.summary_hash else "")
        for each in phases
    )


class PhasePart(CommittedPhase):
    """What a receipt has of one phase of the entry."""

    def __init__(self, number: int, document: object, ref: str) -> None:
        path = f"phases[{number - 1}]"
        fields = Fields(RECEIPT, path, document, _PHASE)
        super().__init__(number, fields)
        self.results = self.read_summary(fields)
        cutoffs = fields.text("cutoffs", str.isascii, "the text of cutoffs.json").encode()
        self.cutoffs_hash = sha256_hex(cutoffs)
        self.cutoffs: dict[str, MarketCutoffs] = parse_cutoffs(parse_canonical(cutoffs, CUTOFFS))
        self.published = Published.parse(RECEIPT, f"{path}.published", fields.raw("published"))
        result = fields.nested("result", ("line", "proof"))
        self._line = result.text("line", bool, "a line of result.txt")
        self._proof = proof_in(result)
        self.position = Position.parse(self._line, ref)
        # The reason for which the entry is struck, and the line of strikes.txt with its path to the root.
        self.strike: str | None = None
        self._strike: StrikeProof | None = None
        if fields.raw("strike") is not None:
            self._strike = StrikeProof(fields.nested("strike", ("index", "line", "proof", "size")), ref)
            self.strike = self._strike.reason

    @property
    def is_struck(self) -> bool:
        """Whether the entry is struck by its line of the result, or by what the receipt says."""
        return self.strike is not None or self.position.outcome in OF_STRUCK

    def check_result(self, index: int) -> str:
        """Check that the line of the entry, the `index`-th one, is in the result."""
        root, count = self.results.result_root, self.manifest.count
        if not verify_proof(self._line, index, count, self._proof, root):
            wrong(
                f"the proof of line {index} of {count} ({self._line}) does not lead to the root {root} of the result"
            )
        return f"{self._line}: line {index} of {count} (from 0) under root {root}"

    def check_strike(self) -> str:
        """Check that the strike of the entry is in the list of strikes."""
        root = self.manifest.strikes_root
        if self._strike is None:
            wrong(f"the result says {self.position.outcome}, the receipt has no strike")
        return self._strike.check(root)


class StrikeProof:
    """A line of strikes.txt and its path to the root."""

    def __init__(self, fields: Fields, ref: str) -> None:
        self._line = fields.text("line", str.isascii, "a line of strikes.txt")
        strikes = parse_strikes(self._line.encode() + b"\n")
        if list(strikes) != [ref]:
            raise DrawError(STRIKES, f"the strike {short(self._line)} does not belong to {ref}")
        self.reason = strikes[ref]
        self._index, self._size = fields.integer("index"), fields.integer("size")
        self._proof = proof_in(fields)

    def check(self, root: str) -> str:
        if not verify_proof(self._line, self._index, self._size, self._proof, root):
            wrong(f"the proof of the strike {self._line} does not lead to the root {root} of the strikes")
        return f"{self._line}: line {self._index} of {self._size} (from 0) under root {root}"
