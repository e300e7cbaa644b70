"""The parts of a receipt, the checker that runs the steps, and the check of an entry that was not in the draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from fairdraw.errors import DrawError
from fairdraw.maths.beside import ANNULLED, Annulled
from fairdraw.maths.files import CUTOFFS, STRIKES, Fields, is_hash, parse_canonical, sha256_hex, short
from fairdraw.maths.leaves import Leaf, Position, parse_leaf
from fairdraw.maths.manifest import STRIKE_REASON, Manifest, parse_strikes
from fairdraw.maths.merkle import verify_proof
from fairdraw.maths.rules import MarketCutoffs, parse_cutoffs
from fairdraw.proof import guarantee
from fairdraw.proof.beacon import chain_of, check_round
from fairdraw.proof.guarantee import Published, published_lines
from fairdraw.proof.logged import (
    NO_LOG,
    NO_WITNESS,
    ONLY_THESE_LEAVES,
    RECEIPTS_KEYS,
    LoggedPhase,
    LogPart,
    Trust,
    TrustedKey,
    Unchecked,
)
from fairdraw.terms import LEAD_SECONDS, is_selection_id, signed_at

# Receipts of a version before have no key `log`, and are checked as well.
VERSION, BEFORE_THE_LOG = 3, 2
DRAWN = "draw"
EXCLUDED = "excluded"
RECEIPT = "receipt"
_PHASE = ("cutoffs", "cutoffsHash", "manifest", "manifestHash", "published", "result", "resultHash", "strike")
_INCLUSION = ("index", "leaf", "proof")


class State(StrEnum):
    """How a step ended. `unchecked`: it cannot be checked from what is here."""

    PASSED = "passed"
    FAILED = "failed"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one step. `detail` says what was compared, what is wrong, or why nothing was checked."""

    name: str
    state: State
    detail: str


Step = Callable[[], str]


class StepChecker:
    """Runs the steps of a check in order. A step that depends on a failed one fails as well."""

    def __init__(self, fields: Fields, trust: Trust) -> None:
        self.checks: list[CheckResult] = []
        self.trust = trust
        self.ref = fields.text("ref", is_selection_id, "a ref")
        self._guarantee = fields.text("guarantee", bool, "a sentence")
        self.campaign_id = fields.text("campaignId", is_selection_id, "a campaign's id")
        self._round_at = fields.raw("roundAt")
        self.annulled: Annulled | None = None
        if fields.raw("annulled") is not None:
            text = fields.text("annulled", lambda _text: True, f"the text of {ANNULLED}")
            self.annulled = Annulled.parse(text.encode())
        self._log: LogPart | None = None
        if fields.raw("version") != BEFORE_THE_LOG and fields.raw("log") is not None:
            self._log = LogPart(fields.nested("log", ("checkpoint", "entries", "keys", "kept")), trust)

    def steps(self) -> list[tuple[str, Step]]:
        raise NotImplementedError

    def limits(self) -> tuple[str, ...]:
        raise NotImplementedError

    def phases(self) -> list[LoggedPhase]:
        raise NotImplementedError

    def keys(self) -> tuple[TrustedKey, ...]:
        """The keys that the check relies on."""
        return () if self._log is None else tuple(self._log.keys())

    def run(self) -> None:
        for name, step in (*self.steps(), ("log", self._check_log), ("witnesses", self._check_witnesses)):
            try:
                found = CheckResult(name, State.PASSED, step())
            except DrawError as error:
                found = CheckResult(name, State.FAILED, error.message)
            except Unchecked as error:
                found = CheckResult(name, State.UNCHECKED, str(error))
            self.checks.append(found)

    def all_limits(self) -> tuple[str, ...]:
        limits = list(self.limits())
        if self._log is None:
            limits.append(f"{NO_LOG[0].upper()}{NO_LOG[1:]}.")
        else:
            limits.append(ONLY_THESE_LEAVES)
            if not self._log.quorum.need:
                limits.append(f"{NO_WITNESS[0].upper()}{NO_WITNESS[1:]}.")
        if any(key.given == "receipt" for key in self.keys()):
            limits.append(RECEIPTS_KEYS)
        return tuple(limits)

    def _check_log(self) -> str:
        if self._log is None:
            raise Unchecked(NO_LOG)
        return self._log.check(self.campaign_id, self.phases(), (), self.annulled)

    def _check_witnesses(self) -> str:
        if self._log is None:
            raise Unchecked(NO_LOG)
        return self._log.check_witnesses(self.phases()[0].manifest)

    def check_campaign(self, manifest: Manifest) -> None:
        if manifest.campaign_id != self.campaign_id:
            wrong(
                f"the manifest belongs to campaign {manifest.campaign_id}, the receipt to {self.campaign_id}"
            )

    def check_published(self, parts: Sequence[tuple[Manifest, Published]]) -> str:
        """Compare what the operator published beside the artefacts of the phases with their manifests."""
        for manifest, published in parts:
            for error in published.problems(manifest):
                wrong(f"phase {manifest.phase}: {error}")
        if (annulled := self.annulled) is not None:
            if annulled.campaign_id != self.campaign_id:
                wrong(f"{ANNULLED} belongs to campaign {annulled.campaign_id}")
            for manifest, _ in parts:
                if manifest.phase == annulled.phase:
                    annulled.check(manifest)
        return "\n".join(
            line for manifest, published in parts for line in published_lines(manifest.phase, published)
        )

    def check_source(self, manifest: Manifest, published: Published) -> None:
        """Check the time of the randomness and the receipt's statement about it. Both arguments belong to phase 1."""
        check_round(manifest, chain_of(manifest.seed_source.chain), LEAD_SECONDS)
        if self._round_at != signed_at(manifest.seed_source):
            wrong(
                f"roundAt: the round of the manifest is signed at {signed_at(manifest.seed_source)}, the receipt says"
                f" {short(self._round_at)}"
            )
        if not guarantee.fits(self._guarantee, manifest.seed_source, published):
            wrong("the stated guarantee does not belong to this seed source")


class Inclusion:
    """A leaf and its path to the Merkle root."""

    def __init__(self, path: str, document: object) -> None:
        fields = Fields(RECEIPT, path, document, _INCLUSION)
        self.line = fields.text("leaf", bool, "a leaf")
        self.leaf: Leaf = parse_leaf(self.line)
        self.index = fields.integer("index")
        self.proof = [str(each) for each in fields.list("proof")]

    def check(self, manifest: Manifest) -> None:
        if not verify_proof(self.line, self.index, manifest.count, self.proof, manifest.root):
            wrong(
                f"the proof of leaf {self.index} of {manifest.count} ({self.leaf.ref}) does not lead to the root"
                f" {manifest.root} of the manifest"
            )


class PhasePart:
    def __init__(self, number: int, document: object, ref: str) -> None:
        fields = Fields(RECEIPT, f"phases[{number - 1}]", document, _PHASE)
        text = fields.text("manifest", str.isascii, "the text of manifest.json").encode()
        self.number = number
        self.manifest = Manifest.parse(text)
        self.manifest_hash = sha256_hex(text)
        self.stated_manifest_hash = fields.text("manifestHash", is_hash, "64 lower-case hex digits")
        self.result_hash = fields.text("resultHash", is_hash, "64 lower-case hex digits")
        cutoffs = fields.text("cutoffs", str.isascii, "the text of cutoffs.json").encode()
        self.cutoffs_hash = sha256_hex(cutoffs)
        self.stated_cutoffs_hash = fields.text("cutoffsHash", is_hash, "64 lower-case hex digits")
        self.cutoffs: dict[str, MarketCutoffs] = parse_cutoffs(parse_canonical(cutoffs, CUTOFFS))
        self.published = Published.parse(RECEIPT, f"phases[{number - 1}].published", fields.raw("published"))
        self.position = Position.parse(fields.text("result", bool, "a line of result.txt"), ref)
        self.strike: str | None = None
        if fields.raw("strike") is not None:
            line = fields.text("strike", str.isascii, "a line of strikes.txt")
            strikes = parse_strikes(line.encode() + b"\n")
            if list(strikes) != [ref]:
                raise DrawError(STRIKES, f"the strike {short(line)} does not belong to {ref}")
            self.strike = strikes[ref]


def wrong(message: str) -> NoReturn:
    raise DrawError(RECEIPT, message)


class Excluded(StepChecker):
    """The check of an entry that was not in the draw: its neighbours are adjacent, so no leaf is between them."""

    def __init__(self, fields: Fields, trust: Trust) -> None:
        super().__init__(fields, trust)
        text = fields.text("manifest", str.isascii, "the text of manifest.json").encode()
        self._manifest, self._manifest_hash = Manifest.parse(text), sha256_hex(text)
        self._published = Published.parse(RECEIPT, "published", fields.raw("published"))
        self._reasons = fields.list("reasons")
        self._before, self._after = (
            None if fields.raw(side) is None else Inclusion(side, fields.raw(side))
            for side in ("before", "after")
        )

    def steps(self) -> list[tuple[str, Step]]:
        return [
            ("manifest", self._check_manifest),
            ("published", lambda: self.check_published([(self._manifest, self._published)])),
            ("absence", self._check_absence),
            ("reason", self._check_reason),
        ]

    def limits(self) -> tuple[str, ...]:
        return (
            "The reason is the operator's decision: a receipt shows that the entry was not in the draw, not that"
            " it should not have been.",
            "Only a replay of the draw shows that all leaves are sorted by ref, so that it has none elsewhere.",
        )

    def phases(self) -> list[LoggedPhase]:
        return [LoggedPhase(self._manifest.phase, self._manifest, self._manifest_hash, (), self._published)]

    def _check_manifest(self) -> str:
        self.check_campaign(self._manifest)
        self.check_source(self._manifest, self._published)
        return f"manifestHash {self._manifest_hash}"

    def _check_absence(self) -> str:
        before, after, count = self._before, self._after, self._manifest.count
        for each in (before, after):
            if each is not None:
                each.check(self._manifest)
        low, high = (before.index if before else -1), (after.index if after else count)
        if high != low + 1:
            wrong(f"leaves {low} and {high} are not adjacent: there are leaves between them")
        if (before and not before.leaf.ref < self.ref) or (after and not self.ref < after.leaf.ref):
            wrong(f"{self.ref} does not belong between its neighbours")
        return f"not among the {count} leaves: it would be between leaves {low} and {high} (from 0)"

    def _check_reason(self) -> str:
        for reason in self._reasons:
            if not isinstance(reason, str) or not STRIKE_REASON.fullmatch(reason):
                wrong(f"{short(reason)} is not a reason: A-Z and _ only")
        if not self._reasons:
            wrong("the receipt gives no reason")
        return ", ".join(self._reasons)
