"""Receipts: what one entrant needs to check an outcome, extracted from the artefacts of a draw.

Lookups search sorted files and read one block of the Merkle tree, so a receipt out of ten million entries takes
milliseconds once both indexes of the leaves exist (of the tree, and of the units with several entries).

A receipt contains leaves of other entrants where it must (of the household, or the neighbours of an absent ref): it is
for the entrant and for support.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdraw.errors import DrawError, UsageError
from fairdraw.large.lookups import SortedFile, starts_of, write_unit_index
from fairdraw.maths.files import (
    CUTOFFS,
    LEAVES,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
    sha256_hex,
)
from fairdraw.maths.leaves import Leaf, Position, parse_leaf
from fairdraw.maths.manifest import Manifest, SeedFile
from fairdraw.maths.merkle import Proof, proof_of
from fairdraw.maths.opened import read_opened
from fairdraw.maths.phase import Summary
from fairdraw.maths.registration import NOTICE_PREFIX, OpenedRegistration
from fairdraw.maths.rules import entry_key, unit_key
from fairdraw.proof import guarantee
from fairdraw.proof.beacon import chain_of
from fairdraw.proof.checker import DRAWN, EXCLUDED, VERSION
from fairdraw.proof.guarantee import Published
from fairdraw.proof.inputs import drawn_folders, phase_folders
from fairdraw.terms import CHAIN_FILE, is_selection_id, signed_at

Receipt = dict[str, Any]
# Returns the reasons for which an entry was left out of the draw, by its ref; empty if it was not.
Reasons = Callable[[str], Sequence[str]]


def no_reasons(ref: str) -> Sequence[str]:
    """Reasons where only the published artefacts are known, which do not list excluded entries."""
    return ()


# Returns the part of a receipt that is from the public log, by campaign and number of phases; None if there is none.
LogPartOf = Callable[[str, int], Receipt | None]


def no_log(campaign_id: str, phases: int) -> None:
    """Where only the artefacts are known, which do not have the log."""
    return


@dataclass(frozen=True, slots=True)
class RegistrationSource:
    """The registrations of a draw."""

    # Has the entries of its tree that its manifest counts, one a line, in their order.
    entries: Path
    # What the operator has of a registration, by the ref of its entry; None: nothing.
    opened: Callable[[str], OpenedRegistration | None]


class NoReceipt(UsageError):
    """The argument is not a ref, or the ref is neither in the draw nor among the excluded entries."""


def build_receipt(
    folder: Path,
    ref: str,
    *,
    index: Path | None = None,
    reasons: Reasons = no_reasons,
    log: LogPartOf = no_log,
    registrations: RegistrationSource | None = None,
) -> Receipt:
    """Build the receipt of `ref` from the artefacts in `folder/phase-<n>`.

    `index` is the path of the index of leaves.txt; those of the units, results and strikes are beside it. All are
    written if missing; without `index` every receipt hashes whole files. `reasons` is called for a ref without a leaf.
    `log` gives the draw's part of the public log, `registrations` the list of registrations.

    Raises NoReceipt for an invalid or unknown ref, UsageError if the folder has no result, DrawError for a damaged
    artefact.
    """
    if not is_selection_id(ref):
        # It may be a mail address, so it is not repeated.
        raise NoReceipt("a ref is 1 to 64 characters of A-Z a-z 0-9 _ -: the given text is not a ref")
    phases = drawn_folders(folder)
    manifests = [Manifest.parse((each / MANIFEST).read_bytes()) for each in phases]
    published = [_published(each) for each in phase_folders(folder)]
    annulled = next((each.annulled for each in published if each.annulled), None)
    first, described = manifests[0], folder / CHAIN_FILE
    chain_text = _text(described) if described.is_file() else None
    source = first.seed_source
    chain = chain_of(source.chain, None if chain_text is None else chain_text.encode())
    common: Receipt = {
        "version": VERSION,
        "campaignId": first.campaign_id,
        "ref": ref,
        "guarantee": guarantee.of_source(chain, source.round, published[0]),
        "roundAt": signed_at(chain, source.round),
        "annulled": None if annulled is None else annulled.to_bytes().decode(),
        "chain": chain_text,
        "opened": [each.to_bytes().decode() for each in read_opened(folder)],
        "registration": None,
        "log": log(first.campaign_id, len(phases)),
    }
    leaves = phases[0] / LEAVES
    with SortedFile(leaves) as lines:
        found = lines.find(ref)
        if found is None:
            if not (why := reasons(ref)):
                raise NoReceipt(
                    f"{ref} is neither in the draw of {first.campaign_id} nor among its excluded entries: check"
                    f" the reference in the confirmation, or run `regworkers trace {first.campaign_id} <entryId>`"
                )
            common["registration"] = _registration(registrations, ref, first, index, drawn=False)
            before, after = (line and _inclusion(leaves, line.ref, index) for line in lines.around(ref))
            return {
                **common,
                "kind": EXCLUDED,
                "before": before,
                "after": after,
                "reasons": sorted(why),
                "manifest": _text(phases[0] / MANIFEST),
                "published": published[0].as_document(),
                "phases": [_texts(each, MANIFEST, SUMMARY) for each in phases[1:]],
            }
        leaf = parse_leaf(found.text)
    common["registration"] = _registration(registrations, ref, first, index, drawn=True)
    seed = SeedFile.parse((phases[0] / SEED).read_bytes())
    unit = _unit(leaves, leaf, index)
    parts = [
        _phase(each, ref, beside, manifest, index)
        for each, beside, manifest in zip(phases, published, manifests, strict=False)
    ]
    last = Position.parse(parts[-1]["result"]["line"], ref)
    # Those of the unit that are ahead, the struck ones too, at most as many as may win.
    ahead = sorted((entry_key(seed.seed, each), each) for each in unit if each != ref)[: first.wins_per_unit]
    return {
        **common,
        "kind": DRAWN,
        "inclusion": _inclusion(leaves, ref, index),
        "seed": _text(phases[0] / SEED),
        "key": unit_key(seed.seed, first.draw_id, leaf.unit, leaf.weight),
        "entryKey": entry_key(seed.seed, ref),
        "market": last.market,
        "rank": int(last.rank) if last.rank else None,
        "outcome": last.outcome,
        "siblings": [] if last.rank else [_inclusion(leaves, each, index) for _, each in ahead],
        "together": len(unit) - 1,
        "phases": parts,
    }


def _published(folder: Path) -> Published:
    published, errors = Published.read(folder)
    for error in errors:
        raise error
    return published


def _phase(folder: Path, ref: str, published: Published, manifest: Manifest, index: Path | None) -> Receipt:
    summary = Summary.parse((folder / SUMMARY).read_bytes())
    # An index belongs to one content of a file.
    by_result, by_strikes = (
        index and index.with_suffix(f".{each}") for each in (summary.result_hash, manifest.strikes_hash)
    )
    try:
        result = proof_of(folder / RESULT, ref, index=by_result)
    except KeyError:
        raise DrawError(
            RESULT, f"{ref} has a leaf but no line here: run `regworkers draw verify` for details"
        ) from None
    try:
        struck = proof_of(folder / STRIKES, ref, index=by_strikes)
    except KeyError:
        strike = None
    else:
        strike = {
            "index": struck.index,
            "line": struck.leaf,
            "proof": list(struck.hashes),
            "size": struck.count,
        }
    return {
        **_texts(folder, CUTOFFS, MANIFEST, SUMMARY),
        "result": {"line": result.leaf, "proof": list(result.hashes)},
        "strike": strike,
        "published": published.as_document(),
    }


def _registration(
    source: RegistrationSource | None, ref: str, manifest: Manifest, index: Path | None, *, drawn: bool
) -> Receipt | None:
    """What the receipt has of the entry's registration; None if nothing is known of one."""
    own = None if source is None else source.opened(ref)
    if source is None or own is None or manifest.registrations is None:
        return None
    if own.at is None or own.salt is None or own.index >= manifest.registrations.size:
        return {"class": own.class_, "index": own.index, "reason": own.reason}
    # An index belongs to one content of a file.
    by_root = index and index.with_suffix(f".{manifest.registrations.root}")
    proof = proof_of(source.entries, own.index, index=by_root)
    made: Receipt = {
        "at": own.at,
        "index": own.index,
        "leaf": proof.leaf,
        "notices": [],
        "proof": list(proof.hashes),
        "salt": own.salt,
    }
    begin = f"{NOTICE_PREFIX}{own.index}|".encode()
    with source.entries.open("rb") as entries:
        noted = [number for number, entry in enumerate(entries) if entry.startswith(begin)]
    for number in noted:
        notice = proof_of(source.entries, number, index=by_root)
        made["notices"].append({"index": number, "proof": list(notice.hashes), "text": notice.leaf})
    if not drawn and own.unit not in (None, ref):
        made["unit"] = own.unit
    return made


def _inclusion(leaves: Path, ref: str, index: Path | None) -> Receipt:
    proof: Proof = proof_of(leaves, ref, index=index)
    return {"leaf": proof.leaf, "index": proof.index, "proof": list(proof.hashes)}


def _unit(leaves: Path, leaf: Leaf, index: Path | None) -> list[str]:
    """The refs of the unit."""
    if leaf.unit == leaf.ref:
        return [leaf.ref]
    with SortedFile(leaves) as lines:
        if index is None:
            found = lines.holding(f"|{leaf.unit}|{leaf.weight}|")
        else:
            units = index.with_suffix(".units")
            if not units.exists():
                write_unit_index(leaves, units)
            found = [lines.at(start) for start in starts_of(leaf.unit, units)]
    # Two units may have one hash.
    unit = [other.ref for other in (parse_leaf(line.text) for line in found) if other.unit == leaf.unit]
    # The index of the units has no unit of one leaf.
    return unit or [leaf.ref]


def _texts(folder: Path, *names: str) -> Receipt:
    """The texts of files by their names without extension."""
    return {name.partition(".")[0]: _text(folder / name) for name in names}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("ascii")
    except UnicodeDecodeError:
        raise DrawError(path.name, "not ASCII") from None


def no_entries(_entry_id: str) -> str | None:
    """Used where only the published artefacts are known, which contain no entry ids."""
    return None


@dataclass(frozen=True, slots=True)
class ReceiptSource:
    """The arguments of `build_receipt`."""

    folder: Path
    index: Path | None
    reasons: Reasons = no_reasons
    # The ref of an entry, by the entry's id.
    ref_of: Callable[[str], str | None] = no_entries
    log: LogPartOf = no_log
    registrations: RegistrationSource | None = None
    # Phases that were drawn and that no receipt covers yet.
    not_confirmed: Sequence[int] = ()

    def receipt(self, named: str) -> Receipt:
        """The receipt of a ref, else of the entry with this id. Raises as `build_receipt`."""
        try:
            return self._build(named)
        except NoReceipt:
            ref = self.ref_of(named)
            if ref is None:
                raise
        return self._build(ref)

    @property
    def note(self) -> str:
        """Say which drawn phases the receipts do not cover; empty if they cover all."""
        phases = ", ".join(map(str, self.not_confirmed))
        return phases and f"phase {phases} is drawn and not confirmed yet: the receipt ends before it"

    def _build(self, ref: str) -> Receipt:
        return build_receipt(
            self.folder,
            ref,
            index=self.index,
            reasons=self.reasons,
            log=self.log,
            registrations=self.registrations,
        )


def folder_source(folder: Path, cache: Path) -> ReceiptSource:
    """Artefacts in a folder, which is not changed: the index of its leaves is written to the cache."""
    manifest = folder / "phase-1" / MANIFEST
    if not manifest.is_file():
        raise UsageError(f"{folder} contains no phase-1/{MANIFEST}: give the folder of a draw")
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ReceiptSource(folder, cache / f"{sha256_hex(manifest.read_bytes())}.index")
