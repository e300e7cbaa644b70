"""The public log in a receipt: what it shows about the draw; and the keys that are trusted, for it and the beacon."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from fairdraw.errors import DrawError
from fairdraw.log.leaves import LOG_KEYS, RESULT_LEAVES, Kind, LogKeys, LogLeaf
from fairdraw.log.note import (
    Checkpoint,
    Note,
    NoteError,
    Signature,
    VerifierKey,
)
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import Fields, parse_any_layout, sha256_hex
from fairdraw.maths.manifest import Manifest, ManifestSeedSource
from fairdraw.maths.merkle import verify_proof
from fairdraw.proof.beacon import SEED
from fairdraw.proof.guarantee import Published
from fairdraw.terms import CHAINS, LEAD_SECONDS, seconds, signed_at

TRUST = "trust file"
_BEACON_KEY = re.compile(r"[0-9a-f]{192}")
# Hex digits of a fingerprint, and of each of its groups.
_FINGERPRINT, _GROUP = 16, 4
NO_LOG = "this draw is in no public log: when it was committed to, and to what, is the operator's word alone"
NO_WITNESS = (
    "no witness is needed: only the operator vouches that all see the same log, and for the times in it"
)
# How the details call the earlier checkpoint.
AT_COMMIT = "the checkpoint of the commit"
NO_COMMITTED = (
    "the log has no checkpoint from the time of the commit: only the operator vouches that the manifest was in it"
    " before its round"
)
ONLY_THESE_LEAVES = (
    "The log shows that these statements were in it, and in which order; their times are the operator's. That it has no"
    " other one about this draw shows only to those who read all of it."
)
OPERATORS_KEYS = (
    "Some keys are taken as the operator gave them: compare their fingerprints with a source that the operator cannot"
    " change, or give a file of trusted keys (`--trust`)."
)


class Unchecked(Exception):
    """A step that cannot be checked here. The message says why."""


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key that a check relies on."""

    # `beacon`, `log` or `witness`.
    what: str
    name: str
    # The start of the SHA-256 of the public key.
    fingerprint: str
    # Who gave it: `operator`, or `trust` (the file).
    given: str

    @staticmethod
    def of(what: str, name: str, public: bytes, given: str) -> TrustedKey:
        digits = sha256_hex(public)[:_FINGERPRINT]
        groups = [digits[at : at + _GROUP] for at in range(0, _FINGERPRINT, _GROUP)]
        return TrustedKey(what, name, " ".join(groups), given)


@dataclass(frozen=True, slots=True)
class Trust:
    """A file of trusted keys: `{"beacon": {chain hash: public key}, "log": [key], "need": n, "witnesses": [key]}`.

    What it does not name is taken as the operator gave it: a chain, the log's keys, the witnesses with their number.
    """

    beacon: Mapping[str, str] = field(default_factory=dict)
    keys: LogKeys = field(default_factory=LogKeys)

    @staticmethod
    def parse(data: bytes) -> Trust:
        """Read a trust file in JSON, in any layout. Raises DrawError with the key and what was found."""
        try:
            document = parse_any_layout(data)
        except ValueError:
            raise DrawError(TRUST, "not a JSON document") from None
        fields = Fields(TRUST, "", document, ("beacon", *LOG_KEYS))
        chains = fields.nested("beacon")
        known = {
            chain: chains.text(chain, _BEACON_KEY.fullmatch, "192 lower-case hex digits")
            for chain in chains.names
        }
        return Trust(known, LogKeys.read(fields))

    def beacon_keys(self, manifest: Manifest) -> Iterator[TrustedKey]:
        """The key of the manifest's chain, if it has one that is known."""
        chain = str(manifest.seed_source.get("chain"))
        if chain in CHAINS:
            public = self.beacon.get(chain, CHAINS[chain].public_key)
            given = "trust" if chain in self.beacon else "operator"
            yield TrustedKey.of("beacon", CHAINS[chain].beacon_id, bytes.fromhex(public), given)

    def check_beacon(self, chain: str) -> None:
        """Raise DrawError if another key is trusted for the chain than that of which its hash was made."""
        if self.beacon.get(chain, CHAINS[chain].public_key) != CHAINS[chain].public_key:
            raise DrawError(SEED, f"the trusted key of chain {chain} is not the one that the hash is of")


@dataclass(frozen=True, slots=True)
class LoggedPhase:
    """What a receipt has of one phase."""

    # That of the phase, from 1.
    number: int
    manifest: Manifest
    manifest_hash: str
    # The hashes of result.txt and cutoffs.json, in the order of their leaves; none in the receipt of an excluded entry.
    results: tuple[str, ...]
    published: Published


@dataclass(frozen=True, slots=True)
class _Entry:
    """A leaf of the log."""

    # Its text in the log.
    line: str
    leaf: LogLeaf
    index: int
    # Its path to the root.
    proof: tuple[str, ...]

    @staticmethod
    def read(fields: Fields) -> _Entry:
        line = fields.text("leaf", bool, "a leaf")
        leaf = LogLeaf.parse(line.encode())
        return _Entry(line, leaf, fields.integer("index"), tuple(map(str, fields.list("proof"))))


@dataclass(frozen=True, slots=True)
class _Committed:
    """A checkpoint from the time of the commit, and the path of the manifest's leaf to its root."""

    note: Note
    checkpoint: Checkpoint
    proof: tuple[str, ...]

    @staticmethod
    def read(fields: Fields) -> _Committed:
        return _Committed(*_checkpoint(fields), tuple(map(str, fields.list("proof"))))


class LogPart:
    """The key `log` of a receipt: a checkpoint and one from the time of the commit, leaves of the campaign with their
    proofs, and the operator's keys.
    """

    def __init__(self, fields: Fields, trust: Trust) -> None:
        self._note, self._checkpoint = _checkpoint(fields)
        self._committed: _Committed | None = None
        if fields.raw("committed") is not None:
            self._committed = _Committed.read(fields.nested("committed", ("checkpoint", "proof")))
        self._entries = [_Entry.read(each) for each in fields.objects("entries", ("index", "leaf", "proof"))]
        for before, after in zip(self._entries, self._entries[1:], strict=False):
            if before.index >= after.index:
                fields.refuse("entries", f"indexes must increase, {after.index} follows {before.index}")
        given = LogKeys.read(fields.nested("keys", LOG_KEYS))
        self._given = [
            ("log", trust.keys.log, given.log),
            ("witness", trust.keys.witnesses, given.witnesses),
        ]
        self._log = trust.keys.log or given.log
        chosen = trust.keys if trust.keys.witnesses else given
        self._witnesses, self.need = chosen.witnesses, chosen.need

    def keys(self) -> Iterator[TrustedKey]:
        for what, trusted, given in self._given:
            for key in trusted or given:
                yield TrustedKey.of(what, key.name, key.public, "trust" if trusted else "operator")

    def check(self, campaign_id: str, phases: Sequence[LoggedPhase], annulled: Annulled | None) -> str:
        """Check every leaf, and that the log has what the receipt shows of each phase. Raises DrawError."""
        checkpoint = self._checkpoint
        for each in self._entries:
            if each.leaf.campaign_id != campaign_id:
                _wrong(f"leaf {each.index} of the log belongs to campaign {each.leaf.campaign_id}")
            if not verify_proof(each.line, each.index, checkpoint.size, each.proof, checkpoint.root.hex()):
                _wrong(f"the proof of leaf {each.index} does not lead to the root of the checkpoint")
        logged = [self._check_phase(each) for each in phases]
        notes = [("the checkpoint", self._note)]
        if (committed := self._committed) is not None:
            self._check_committed(committed, logged[0])
            notes.append((AT_COMMIT, committed.note))
        said = None if annulled is None else sha256_hex(annulled.to_bytes())
        for each in self._entries:
            if each.leaf.kind is Kind.ANNULLED and each.leaf.hash != said:
                _wrong(f"leaf {each.index} of the log annuls the draw, the receipt does not")
        keys = [key for key in self._log if key.name == checkpoint.origin]
        for what, note in notes:
            if not _signatures(note, keys):
                _wrong(f"no trusted key of a log named {checkpoint.origin} signed {what}")
        for _, note in notes:
            _verify(note, keys)
        return "\n".join(
            [
                f"{len(self._entries)} leaves about this draw are in the log {checkpoint.origin} of"
                f" {checkpoint.size} leaves",
                *(
                    f"phase {phase.number}: manifest {phase.manifest_hash} is leaf {entry.index}, logged at"
                    f" {entry.leaf.time}"
                    for phase, entry in zip(phases, logged, strict=True)
                ),
                *([] if committed is None else [f"{AT_COMMIT} has {committed.checkpoint.size} leaves"]),
            ]
        )

    def check_witnesses(self, first: Manifest) -> str:
        """Check that enough witnesses saw the checkpoint, and that of the commit in time, where a round says what in
        time is. `first` is the manifest of phase 1. Raises DrawError, Unchecked.
        """
        if not self.need:
            return NO_WITNESS
        found = [self._seen(self._note.signatures, "the checkpoint")]
        notes, at = [self._note], signed_at(first.seed_source)
        if at is not None and self._committed is not None:
            latest, note = (seconds(at) or 0.0) - LEAD_SECONDS, self._committed.note
            in_time = [each for each in note.signatures if each.cosigned_at <= latest]
            found.append(self._seen(in_time, f"{AT_COMMIT} at least {LEAD_SECONDS} s before its round"))
            notes.append(note)
        for note in notes:
            _verify(note, self._witnesses)
        if at is not None and self._committed is None:
            raise Unchecked(NO_COMMITTED)
        return "\n".join(found)

    def _seen(self, signatures: Sequence[Signature], what: str) -> str:
        known = {(key.name, key.key_id): key for key in self._witnesses}
        signed = {(each.name, each.key_id) for each in signatures}
        keys = [key for name, key in known.items() if name in signed]
        # One key under two names is one witness.
        count = len({key.public for key in keys})
        witnesses = "1 trusted witness" if count == 1 else f"{count} trusted witnesses"
        found = f"{witnesses} cosigned {what} (needed: {self.need})"
        if count < self.need:
            _wrong(found)
        return f"{found}: {', '.join(sorted({key.name for key in keys}))}"

    def _check_committed(self, committed: _Committed, manifest: _Entry) -> None:
        """Check that the manifest was in the log of that checkpoint."""
        before, origin = committed.checkpoint, self._checkpoint.origin
        if before.origin != origin:
            _wrong(f"{AT_COMMIT} is of the log {before.origin}, not of {origin}")
        proof = committed.proof
        if not verify_proof(manifest.line, manifest.index, before.size, proof, before.root.hex()):
            _wrong(f"the proof of leaf {manifest.index} does not lead to the root of {AT_COMMIT}")

    def _check_phase(self, phase: LoggedPhase) -> _Entry:
        """Check the leaves of a phase; return that of its manifest."""
        found = self._of(Kind.MANIFEST, phase)
        own = next((each for each in found if each.leaf.hash == phase.manifest_hash), None)
        if own is None:
            _wrong(f"phase {phase.number}: the log has no manifest {phase.manifest_hash}")
        published = phase.published
        earlier = {each.manifest_hash for each in published.replaced}
        for each in found:
            if each.leaf.hash != own.leaf.hash and not (each.index < own.index and each.leaf.hash in earlier):
                _unknown(each)
        replaced = {sha256_hex(each.to_bytes()) for each in published.replaced}
        for each in self._of(Kind.REPLACED, phase):
            if each.leaf.hash not in replaced:
                _unknown(each)
        notices = self._of(Kind.NOTICE, phase)
        notice = None if published.notice is None else sha256_hex(published.notice.to_bytes())
        if notices and notices[-1].leaf.hash != notice:
            _unknown(notices[-1])
        if notice is not None and not notices:
            _wrong(f"phase {phase.number}: the log has no notice {notice}")
        results = tuple(each.leaf.hash for each in self._of(Kind.RESULT, phase))
        if len(results) != RESULT_LEAVES or results != (phase.results or results):
            _wrong(
                f"phase {phase.number}: the log has the results {', '.join(results) or '-'}, not one with its cut-offs:"
                f" {', '.join(phase.results) or '-'}"
            )
        if phase.number == 1:
            self._check_commit(phase, own)
        return own

    def _check_commit(self, phase: LoggedPhase, manifest: _Entry) -> None:
        """Check what had to be in the log before the randomness was known, or before the manifest."""
        source = ManifestSeedSource.parse(phase.manifest.seed_source)
        at = signed_at(phase.manifest.seed_source)
        if at is not None and (seconds(manifest.leaf.time) or 0.0) + LEAD_SECONDS > (seconds(at) or 0.0):
            _wrong(
                f"the manifest was logged at {manifest.leaf.time}, its round was signed at {at}: at least"
                f" {LEAD_SECONDS} s must be between"
            )
        if source.commitment is not None and not any(
            each.leaf.hash == source.commitment and each.index < manifest.index
            for each in self._of(Kind.COMMITMENT, phase)
        ):
            _wrong(f"the log has no commitment {source.commitment} before the manifest")

    def _of(self, kind: Kind, phase: LoggedPhase) -> list[_Entry]:
        return [each for each in self._entries if (each.leaf.kind, each.leaf.phase) == (kind, phase.number)]


class _Signed(NamedTuple):
    note: Note
    checkpoint: Checkpoint


def _checkpoint(fields: Fields) -> _Signed:
    try:
        note = Note.parse(fields.text("checkpoint", bool, "a checkpoint"))
        return _Signed(note, Checkpoint.parse(note.text))
    except NoteError as error:
        fields.refuse("checkpoint", str(error))


def _signatures(note: Note, keys: Sequence[VerifierKey]) -> list[Signature]:
    names = {(key.name, key.key_id) for key in keys}
    return [each for each in note.signatures if (each.name, each.key_id) in names]


def _verify(note: Note, keys: Sequence[VerifierKey]) -> None:
    try:
        note.verified(keys)
    except NoteError as error:
        _wrong(str(error))


def _wrong(message: str) -> NoReturn:
    raise DrawError("receipt", message)


def _unknown(entry: _Entry) -> None:
    leaf = entry.leaf
    _wrong(
        f"phase {leaf.phase}: leaf {entry.index} of the log is {leaf.kind} {leaf.hash}, which the receipt does not name"
    )
