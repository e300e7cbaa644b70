"""The public log in a receipt: what it shows about the draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, NoReturn

from fairdraw.errors import DrawError
from fairdraw.log.leaves import FAR_SECONDS, Kind, LogLeaf, cosigned_at, says_later
from fairdraw.log.note import Checkpoint, Note, NoteError, Signature, VerifierKey
from fairdraw.log.record import RecordLeaf, time_findings
from fairdraw.log.trust import LOG_KEYS, WEAK_QUORUM, LogKeys, Quorum, Trust, TrustedKey
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import Fields, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import verify_proof
from fairdraw.maths.opened import Opened
from fairdraw.maths.registration import size_problem
from fairdraw.proof.guarantee import Published
from fairdraw.terms import iso, seconds

NO_LOG = "this draw is in no public log: when it was committed to, and to what, is the operator's word alone"
NO_WITNESS = (
    "no witness is needed: only the operator vouches that all see the same log, and for the times in it"
)
NO_LEAD = "lead unknown: how long before its round the draw had to be committed to, no trust file says for this beacon"
ONLY_THESE_LEAVES = (
    "The log shows that these statements were in it, and in which order. That it has no other one about this draw shows"
    " only to those who read all of it."
)
RECEIPTS_KEYS = (
    "Some keys are taken as this receipt has them: compare their fingerprints with a source that the operator cannot"
    " change, or give a file of trusted keys (`--trust`)."
)
# Kinds of leaves that are about the campaign, and about a phase.
_OF_RECORD = frozenset({Kind.OPENED, Kind.AMENDED})
_OF_PHASE = frozenset({Kind.MANIFEST, Kind.REPLACED, Kind.NOTICE, Kind.RESULT, Kind.CODES})


class Unchecked(Exception):
    """A step that cannot be checked here. The message says why."""


@dataclass(frozen=True, slots=True)
class LoggedPhase:
    """What a receipt has of one phase."""

    # That of the phase, from 1.
    number: int
    manifest: Manifest
    manifest_hash: str
    # SHA-256 of summary.json; None if the receipt does not have it (phase 1 of an excluded entry).
    summary_hash: str | None
    # None if the receipt has nothing of it (later phases of an excluded entry).
    published: Published | None


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
class _Kept:
    """A checkpoint that was kept, and the path of a leaf to its root."""

    note: Note
    checkpoint: Checkpoint
    # That of the leaf.
    index: int
    # From the leaf to the root.
    proof: tuple[str, ...]

    @staticmethod
    def read(fields: Fields) -> _Kept:
        return _Kept(*_checkpoint(fields), fields.integer("index"), tuple(map(str, fields.list("proof"))))


class LogPart:
    """The key `log` of a receipt: a checkpoint, leaves of the campaign with their proofs, the checkpoints that give the
    times of some, and the operator's keys.
    """

    def __init__(self, fields: Fields, trust: Trust) -> None:
        self._note, self._checkpoint = _checkpoint(fields)
        self._entries = [_Entry.read(each) for each in fields.objects("entries", ("index", "leaf", "proof"))]
        for before, after in zip(self._entries, self._entries[1:], strict=False):
            if before.index >= after.index:
                fields.refuse("entries", f"indexes must increase, {after.index} follows {before.index}")
        kept = [_Kept.read(each) for each in fields.objects("kept", ("checkpoint", "index", "proof"))]
        self._kept = {each.index: each for each in kept}
        if len(self._kept) < len(kept):
            fields.refuse("kept", "one checkpoint for each leaf is allowed")
        given = LogKeys.read(fields.nested("keys", LOG_KEYS))
        self._given = [
            ("log", trust.keys.log, given.log),
            ("witness", trust.keys.quorum.witnesses, given.quorum.witnesses),
        ]
        self._log = trust.keys.log or given.log
        self.quorum: Quorum = trust.keys.quorum if trust.keys.quorum.members else given.quorum

    def keys(self) -> Iterator[TrustedKey]:
        for what, trusted, given in self._given:
            for key in trusted or given:
                yield TrustedKey.of(what, key.name, key.public, "trust" if trusted else "receipt")

    def leaves(self, kind: Kind) -> list[LogLeaf]:
        return [each.leaf for each in self._entries if each.leaf.kind is kind]

    def record(self, files: Sequence[Opened]) -> list[RecordLeaf]:
        """The files of the campaign's record that are in the log, without the times of their leaves."""
        pairs = zip(files, self._record_leaves(), strict=False)
        return [RecordLeaf(opened, entry.index, None) for opened, entry in pairs]

    def _record_leaves(self) -> list[_Entry]:
        return [each for each in self._entries if each.leaf.kind in _OF_RECORD]

    def manifest_index(self, phase: LoggedPhase) -> int:
        """The index of the phase's manifest. Raises DrawError if the log does not have it."""
        return self._manifest(phase).index

    def check(
        self,
        campaign_id: str,
        phases: Sequence[LoggedPhase],
        opened: Sequence[str],
        annulled: Annulled | None,
    ) -> str:
        """Check every leaf, and that the log has what the receipt shows: each phase, and the record of the campaign
        (`opened`: the hashes of its files, in order). Raises DrawError.
        """
        checkpoint = self._checkpoint
        for each in self._entries:
            if each.leaf.campaign_id != campaign_id:
                _wrong(f"leaf {each.index} of the log belongs to campaign {each.leaf.campaign_id}")
            if not verify_proof(each.line, each.index, checkpoint.size, each.proof, checkpoint.root.hex()):
                _wrong(f"the proof of leaf {each.index} does not lead to the root of the checkpoint")
            if each.leaf.kind in _OF_PHASE and each.leaf.phase > len(phases):
                _unknown(each)
        logged = [self._check_phase(each) for each in phases]
        self._check_opened(opened)
        notes = [("the checkpoint", self._note)]
        for kept in self._kept.values():
            self._check_kept(kept)
            notes.append((_kept_name(kept), kept.note))
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
            ]
        )

    def registration_findings(self, first: LoggedPhase) -> Iterator[str]:
        """Whether the manifest of the `first` phase has the list of registrations as it was last logged before it."""
        index = self.manifest_index(first)
        sizes = [
            each.leaf for each in self._entries if each.leaf.kind is Kind.REGISTRATIONS and each.index < index
        ]
        if problem := size_problem(first.manifest, sizes[-1].hash if sizes else None):
            yield problem

    def check_witnesses(
        self,
        first: LoggedPhase,
        due: str | None,
        lead: int | None,
        record: Sequence[Opened],
        findings: list[str],
    ) -> str:
        """Check that enough witnesses saw the checkpoint, and the manifest of the `first` phase `lead` seconds (None:
        unknown) before its round is signed at `due`; add what was late, of the campaign's `record` too, to `findings`.
        Raises DrawError, Unchecked.
        """
        quorum = self.quorum
        found = [seen_by(self._note, quorum)] if quorum.need else []
        _verify(self._note, quorum.witnesses)
        manifest = self._manifest(first)
        at = self.time_of(manifest)
        if at is None:
            _wrong("no checkpoint shows when enough witnesses saw the manifest in the log")
        if due is not None and lead is not None:
            before = (seconds(due) or 0.0) - at
            if before < lead:
                _wrong(
                    f"the manifest was in the log at {iso(at)}, its round was signed at {due}: at least {lead} s must"
                    " be between"
                )
            found.append(f"the manifest was in the log at {iso(at)}, {int(before)} s before its round")
        findings += self._late(manifest, at, due, record)
        if not quorum.need:
            raise Unchecked(NO_WITNESS)
        if not quorum.colluders:
            raise Unchecked(WEAK_QUORUM)
        if lead is None:
            raise Unchecked(NO_LEAD)
        return "\n".join(found)

    def _late(self, manifest: _Entry, at: float, due: str | None, record: Sequence[Opened]) -> Iterator[str]:
        """What of the record and of the manifest, which was in the log `at`, was late or says another time."""
        timed = [(entry, self.time_of(entry)) for entry in self._record_leaves()]
        pairs = zip(record, timed, strict=False)
        yield from time_findings([RecordLeaf(opened, entry.index, seen) for opened, (entry, seen) in pairs])
        for entry, seen in (*timed, (manifest, at)):
            if seen is not None and says_later(entry.leaf, seen):
                yield (
                    f"leaf {entry.index} ({entry.leaf.kind}) says {entry.leaf.time}, and was in the log at {iso(seen)}"
                    " already"
                )
        if due is not None and (seconds(due) or 0.0) - at > FAR_SECONDS:
            yield f"its round ({due}) is more than 7 days after its manifest was in the log ({iso(at)})"

    def time_of(self, entry: _Entry) -> float | None:
        """When a leaf was in the log, in seconds since the epoch: by the witnesses, or by its own time where none is
        needed; None if the receipt does not show it. Raises DrawError.
        """
        if not self.quorum.need:
            return seconds(entry.leaf.time)
        if (kept := self._kept.get(entry.index)) is None:
            return None
        try:
            at = cosigned_at(kept.note, self.quorum)
        except NoteError as error:
            _wrong(str(error))
        return at if at < inf else None

    def _check_opened(self, opened: Sequence[str]) -> None:
        """Check that every leaf of the campaign's record is that of one of its files, in their order."""
        found = self._record_leaves()
        for each in found:
            number = each.leaf.phase
            if number >= len(opened) or each.leaf.hash != opened[number]:
                _unknown(each)
        # The last files may wait for the log.
        if [each.leaf.phase for each in found] != [*range(len(found))]:
            _wrong("the leaves of the campaign's record are not in its order, or one is missing")

    def _check_kept(self, kept: _Kept) -> None:
        """Check that a leaf was in the log of that checkpoint."""
        before, origin, what = kept.checkpoint, self._checkpoint.origin, _kept_name(kept)
        entry = next((each for each in self._entries if each.index == kept.index), None)
        if entry is None:
            _wrong(f"{what} is about no leaf of the receipt")
        if before.origin != origin:
            _wrong(f"{what} is of the log {before.origin}, not of {origin}")
        if not verify_proof(entry.line, entry.index, before.size, kept.proof, before.root.hex()):
            _wrong(f"the proof of leaf {entry.index} does not lead to the root of {what}")

    def _manifest(self, phase: LoggedPhase) -> _Entry:
        found = self._of(Kind.MANIFEST, phase)
        own = next((each for each in found if each.leaf.hash == phase.manifest_hash), None)
        if own is None:
            _wrong(f"phase {phase.number}: the log has no manifest {phase.manifest_hash}")
        return own

    def _check_phase(self, phase: LoggedPhase) -> _Entry:
        """Check the leaves of a phase; return that of its manifest."""
        own, published = self._manifest(phase), phase.published
        before = () if published is None else published.replaced
        earlier = {each.manifest_hash for each in before}
        for each in self._of(Kind.MANIFEST, phase):
            if each.leaf.hash != own.leaf.hash and not (each.index < own.index and each.leaf.hash in earlier):
                _unknown(each)
        replaced = {sha256_hex(each.to_bytes()) for each in before}
        for each in self._of(Kind.REPLACED, phase):
            if each.leaf.hash not in replaced:
                _unknown(each)
        if published is not None:
            notices = self._of(Kind.NOTICE, phase)
            notice = None if published.notice is None else sha256_hex(published.notice.to_bytes())
            if notices and notices[-1].leaf.hash != notice:
                _unknown(notices[-1])
            if notice is not None and not notices:
                _wrong(f"phase {phase.number}: the log has no notice {notice}")
        results = self._of(Kind.RESULT, phase)
        if len(results) != 1 or phase.summary_hash not in (None, results[0].leaf.hash):
            found = ", ".join(each.leaf.hash for each in results) or "-"
            _wrong(
                f"phase {phase.number}: the log has the results {found}, not one: {phase.summary_hash or '-'}"
            )
        if results[0].index < own.index:
            _wrong(f"phase {phase.number}: its result was in the log before its manifest")
        return own

    def _of(self, kind: Kind, phase: LoggedPhase) -> list[_Entry]:
        return [each for each in self._entries if (each.leaf.kind, each.leaf.phase) == (kind, phase.number)]


def seen_by(note: Note, quorum: Quorum) -> str:
    """Which witnesses are named on a checkpoint, whose signatures are verified apart. Raises DrawError for too few."""
    known = {(key.name, key.key_id): key for key in quorum.witnesses}
    signed = {(each.name, each.key_id) for each in note.signatures}
    keys = [key for name, key in known.items() if name in signed]
    witnesses = "1 trusted witness" if len(keys) == 1 else f"{len(keys)} trusted witnesses"
    found = f"{witnesses} cosigned the checkpoint (needed: {quorum})"
    if not quorum.is_met_by(keys):
        _wrong(found)
    collude = "1 of them" if quorum.colluders == 1 else f"{quorum.colluders} of them"
    return (
        f"{found}: {', '.join(sorted(key.name for key in keys))}; {collude} would have to collude with the operator"
        " to vouch for two histories"
    )


def _kept_name(kept: _Kept) -> str:
    return f"the checkpoint of {kept.checkpoint.size} leaves"


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
