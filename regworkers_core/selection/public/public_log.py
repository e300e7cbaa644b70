"""The log on the artefacts' bucket, below `log/`: how the operator writes it.

A bundle of entries is put once under a name that says how long the log becomes. So the first writer decides what the
next entry is, and every other one continues from there: nothing that was decided is lost or written twice, whichever
process dies. Tiles follow from the bundles. The checkpoint is published last, under If-Match, with as many cosignatures
as the settings need; until then the entries wait, and the next writer publishes them. Before that it is put once below
`checkpoints/`, because the times of its cosignatures show later when a manifest was in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fairdraw.log.leaves import (
    CHANGE_SECONDS,
    CHECKPOINT,
    KEYS,
    Kind,
    LogLeaf,
    LogState,
    kept_note,
    kept_path,
    key_leaf,
    verified_note,
)
from fairdraw.log.note import (
    Checkpoint,
    Note,
    NoteError,
    SignerKey,
    VerifierKey,
    signed,
)
from fairdraw.maths.files import canonical_bytes
from regworkers_core.adapters.aws.objects import ObjectStore, Tagged
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.log_edge import FOLDER, LogEdge
from regworkers_core.selection.public.witnesses import Witnesses

SECRET = "log-key"  # noqa: S105 - the name of the secret, not its value
_DESCRIPTION = "Signs the public log of draws. Change it by `regworkers draw log-key --change` only."
# Writers that come between; each has published an entry of its own.
_ATTEMPTS = 50


class Secrets(Protocol):
    """What of the secret store the log's keys need."""

    def get(self, name: str, *, previous: bool = False) -> str | None: ...
    def put(self, name: str, value: str, *, description: str) -> None: ...
    def create(self, name: str, value: str, *, description: str) -> str: ...


class NotWitnessed(TransientFailure):
    """Too few witnesses cosigned the log: what is in it waits to be published."""

    def __init__(self, found: int, needed: int, problems: Sequence[str]) -> None:
        why = f": {'; '.join(problems)}" if problems else ""
        super().__init__("witnesses", f"{found} of {needed} needed witnesses cosigned the log{why}")


@dataclass(frozen=True, slots=True)
class Placed:
    """A leaf in the log, as it was first written. `waiting` says why it is not published yet; None if it is."""

    index: int
    leaf: LogLeaf
    waiting: NotWitnessed | None = None

    def require(self) -> LogLeaf:
        """The leaf. Raises NotWitnessed for one that is not published yet."""
        if self.waiting is not None:
            raise self.waiting
        return self.leaf


class _Published(NamedTuple):
    edge: LogEdge
    waiting: NotWitnessed | None = None


class _Signed(NamedTuple):
    note: Note
    waiting: NotWitnessed | None


class PublicLog:
    """The log of one environment. Each call but `read` reads and writes its last tiles only, however long it is.

    Every method raises TransientFailure when S3 or the secret store cannot answer, DrawError for files that are not
    those of a log, UsageError for a key that is missing or not the log's.
    """

    def __init__(
        self,
        objects: ObjectStore,
        secrets: Secrets,
        origin: str,
        witnesses: Witnesses,
        *,
        clock: Callable[[], float],
        on_step: OnStep = no_step,
    ) -> None:
        self._objects, self._secrets, self.origin = objects, secrets, origin
        self._witnesses, self._clock, self._on_step = witnesses, clock, on_step

    @classmethod
    def of(cls, runtime: Runtime, on_step: OnStep = no_step) -> PublicLog:
        settings = runtime.settings.selection.log
        return cls(
            runtime.objects,
            runtime.secrets,
            settings.origin or f"{runtime.names.bucket}/log",
            Witnesses.of(runtime),
            clock=runtime.clock,
            on_step=on_step,
        )

    def read(self) -> LogState | None:
        """The published log, read whole and verified; None before its first leaf."""
        tagged = self._objects.get_tagged(FOLDER + CHECKPOINT)
        return None if tagged is None else self._whole(tagged.data, self.verifier_keys())

    def verifier_keys(self) -> list[VerifierKey]:
        """The keys that sign the log: the current one, then the one before it. Empty before the first leaf."""
        return [key.verifier() for key in self._signers()]

    def append(self, kind: Kind, campaign_id: str, phase: int, hash_: str) -> Placed:
        """Put a leaf into the log unless it says so already, and publish it. Idempotent."""
        return self.append_all(campaign_id, phase, [(kind, hash_)])[0]

    def append_all(self, campaign_id: str, phase: int, facts: Sequence[tuple[Kind, str]]) -> list[Placed]:
        """Do as `append` for several kinds and hashes, which become public with one checkpoint."""
        at = iso(self._clock())
        wanted = [LogLeaf(campaign_id, hash_, kind, phase, at) for kind, hash_ in facts]

        def decided(edge: LogEdge) -> None:
            for leaf in wanted:
                edge.decide(leaf)

        edge, waiting = self._publish(decided)
        places = [edge.decide(leaf) for leaf in wanted]
        return [Placed(index, edge.leaf(index), waiting) for index in places]

    def decide(self, leaves: Sequence[LogLeaf]) -> list[int]:
        """Decide that the log has these leaves, in this order, and return their indexes. Idempotent. No witness is
        asked: `publish`, or the next writer, publishes what was decided.
        """
        edge = self._edge()
        edge.read_waiting()
        return [edge.decide(leaf) for leaf in leaves]

    def publish(self) -> NotWitnessed | None:
        """Publish what waits. Returns why it waits on, None if it does not."""
        return self._publish(LogEdge.read_waiting).waiting

    def catch_up(self) -> None:
        """Publish what waits, and have the newest checkpoint cosigned again, which proves that the log can be written
        now. Raises NotWitnessed.
        """
        if (waiting := self._publish(LogEdge.read_waiting, fresh=True).waiting) is not None:
            raise waiting

    def waiting(self) -> int:
        """The number of leaves that are decided and not published."""
        edge = self._edge()
        edge.read_waiting()
        return edge.size - edge.published

    def ensure_key(self) -> VerifierKey:
        """The key that signs the log, made now for a log that has none."""
        tagged = self._objects.get_tagged(FOLDER + CHECKPOINT)
        return self._current(is_new=tagged is None)[0].verifier()

    def change_key(self) -> VerifierKey:
        """Replace the key, and say so in the log; both keys sign for 30 days. A repeat within these ends the change
        that was begun.

        Raises UsageError for a log without a leaf and while both keys sign, NotWitnessed for a change that waits for
        witnesses: repeat it.
        """
        edge = self._edge()
        if edge.note is None:
            raise UsageError("the log has no leaf yet, so its key is new: there is nothing to change")
        signers = self._current(is_new=False)
        begun = edge.changed_at(signers[0].verifier())
        if begun is not None and self._clock() < begun + CHANGE_SECONDS:
            raise UsageError(
                f"the log's key was changed at {iso(begun)}: both keys sign until {iso(begun + CHANGE_SECONDS)},"
                " change it again after that"
            )
        if self._signs(signers[0], edge.note):
            new = SignerKey.generate(self.origin)
            self._secrets.put(SECRET, new.text, description=_DESCRIPTION)
            self._on_step("log.after_new_key")
        if (waiting := self.publish()) is not None:
            raise waiting
        return self._signers()[0].verifier()

    # Reading

    def _edge(self) -> LogEdge:
        tagged = self._objects.get_tagged(FOLDER + CHECKPOINT)
        return self._edge_at(tagged, self.verifier_keys())

    def _edge_at(self, tagged: Tagged | None, keys: Sequence[VerifierKey]) -> LogEdge:
        """The end of the log at this checkpoint."""
        note = None if tagged is None else verified_note(tagged.data, keys)
        if note is not None:
            self._require_own(Checkpoint.parse(note.text).origin)
        return LogEdge(self._objects, self.origin, note, self._on_step)

    def _whole(self, checkpoint: bytes, keys: Sequence[VerifierKey]) -> LogState:
        def read(path: str) -> bytes | None:
            return checkpoint if path == CHECKPOINT else self._bytes(path)

        state = LogState.verified(read, keys)
        self._require_own(state.origin)
        return state

    def _require_own(self, origin: str) -> None:
        if origin != self.origin:
            raise UsageError(
                f"the log in this bucket has the origin {origin}, the settings say {self.origin}: a log keeps"
                " its origin, set selection.log.origin to it"
            )

    def _bytes(self, path: str) -> bytes | None:
        tagged = self._objects.get_tagged(FOLDER + path)
        return None if tagged is None else tagged.data

    # Keys

    def _signers(self) -> list[SignerKey]:
        texts = [self._secrets.get(SECRET)]
        texts += [self._secrets.get(SECRET, previous=True)] if texts[0] is not None else []
        try:
            return [SignerKey.parse(text) for text in texts if text is not None]
        except NoteError as error:
            raise UsageError(f"secret {SECRET} is not a key of the log: {error}") from None

    def _current(self, *, is_new: bool) -> list[SignerKey]:
        signers = self._signers()
        if not signers and is_new:
            made = SignerKey.generate(self.origin).text
            signers = [SignerKey.parse(self._secrets.create(SECRET, made, description=_DESCRIPTION))]
        if not signers:
            raise UsageError(
                f"the key of the log is not in the secret store: restore the secret {SECRET}, another key could not"
                " continue the log"
            )
        return signers

    @staticmethod
    def _signs(key: SignerKey, note: Note) -> bool:
        return bool(note.verified([key.verifier()]))

    # Writing

    def _publish(self, extend: Callable[[LogEdge], None], *, fresh: bool = False) -> _Published:
        """Read the end of the log, extend it and publish that; again if another writer came between."""
        for _ in range(_ATTEMPTS):
            tagged = self._objects.get_tagged(FOLDER + CHECKPOINT)
            signers = self._current(is_new=tagged is None)
            current = signers[0].verifier()
            edge = self._edge_at(tagged, [key.verifier() for key in signers])
            changed = edge.note is not None and not self._signs(signers[0], edge.note)
            if changed:
                # The key was changed: the log says so before the new key signs anything else.
                edge.decide(key_leaf(current, self._clock()))
            extend(edge)
            if edge.size == edge.published and tagged is not None and not fresh:
                return _Published(edge)
            edge.put_tiles()
            begun = edge.changed_at(current) if len(signers) > 1 else None
            both = begun is not None and self._clock() < begun + CHANGE_SECONDS
            used = signers if both else signers[:1]
            note, waiting = self._signed(edge, used)
            if waiting is not None:
                return _Published(edge, waiting)
            edge.put_facts()
            self._put_keys(used)
            if changed and tagged is not None:
                self._sign_kept(self._whole(tagged.data, [key.verifier() for key in signers]), *signers)
            for key in used:
                self._keep(edge.checkpoint, note, key.verifier())
            self._on_step("log.after_kept")
            tag = None if tagged is None else tagged.tag
            if self._objects.put_over(FOLDER + CHECKPOINT, str(note).encode(), tag) is not None:
                self._on_step("log.after_checkpoint")
                return _Published(edge)
        raise TransientFailure("s3", f"{_ATTEMPTS} other writers of the log came between")

    def _keep(self, checkpoint: Checkpoint, note: Note, key: VerifierKey) -> None:
        path = FOLDER + kept_path(checkpoint.size, key)
        kept_note(self._objects.put_once(path, str(note).encode()), checkpoint, key)

    def _sign_kept(self, state: LogState, new: SignerKey, old: SignerKey) -> None:
        """Keep the kept checkpoints by a new key, too: later receipts name only that one."""
        for size in range(1, state.size + 1):
            if (data := self._bytes(kept_path(size, old.verifier()))) is not None:
                note = state.kept(data, size, old.verifier())
                both = note.with_signatures(new.sign(note.text))
                self._keep(Checkpoint.parse(note.text), both, new.verifier())

    def _put_keys(self, signers: Sequence[SignerKey]) -> None:
        """Publish the keys by which the next checkpoint is signed, for those who read the log without our settings."""
        keys = {
            "log": [str(key.verifier()) for key in signers],
            "need": self._witnesses.needed,
            "witnesses": [str(key) for key in self._witnesses.keys],
        }
        data, stored = canonical_bytes(keys), self._objects.get_tagged(FOLDER + KEYS)
        if stored is None or stored.data != data:
            # Another writer publishes the same, or its own settings with its own checkpoint.
            self._objects.put_over(FOLDER + KEYS, data, None if stored is None else stored.tag)

    def _signed(self, edge: LogEdge, signers: Sequence[SignerKey]) -> _Signed:
        note = signed(edge.checkpoint.text, *signers)
        cosigned, problems = self._witnesses.cosign(note, edge.tree, edge.published)
        missing = len(cosigned) < self._witnesses.needed
        waiting = NotWitnessed(len(cosigned), self._witnesses.needed, problems) if missing else None
        return _Signed(note.with_signatures(*cosigned), waiting)


def log_leaves(runtime: Runtime, campaign_id: str, phase: int, kind: Kind, *hashes: str) -> None:
    """Append leaves about a phase whose manifest is in the log. Raises as `PublicLog`, NotWitnessed while too few
    witnesses vouch for them: no leaf is lost, and the step is repeated.
    """
    placed = PublicLog.of(runtime).append_all(campaign_id, phase, [(kind, each) for each in hashes])
    placed[-1].require()
