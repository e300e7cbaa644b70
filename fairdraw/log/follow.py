"""A log as everybody can follow it, from static files: it is verified whole, and each draw in it is accounted for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from fairdraw.errors import DrawError, UsageError
from fairdraw.log import tree
from fairdraw.log.account import DrawAccount, LogRead
from fairdraw.log.across import shared
from fairdraw.log.http import HttpAnswer, LogHttp, NoAnswer
from fairdraw.log.leaves import CHECKPOINT, Kind, LeafTimes, LogLeaf, LogState
from fairdraw.log.note import Checkpoint, Note, NoteError, VerifierKey
from fairdraw.log.parts import published
from fairdraw.log.place import Place, Read, in_log
from fairdraw.log.registered import LateMinute
from fairdraw.log.trust import WEAK_QUORUM, LogKeys, Trust
from fairdraw.maths.files import sha256_hex
from fairdraw.terms import iso

# The answer to a GET.
Get = Callable[[str], HttpAnswer]
_GET = LogHttp(10.0).get
_NO_TRUST = Trust()


class Asked(NamedTuple):
    """The answer of one witness."""

    name: str
    # A sentence.
    text: str
    # Whether it signed another history than the one that is shown here.
    is_finding: bool = False


def ask_witnesses(
    witnesses: Sequence[VerifierKey],
    addresses: Mapping[VerifierKey, str],
    state: LogState,
    log_keys: Sequence[VerifierKey],
    get: Get,
) -> list[Asked]:
    """Compare what each witness signed last with `state`, which has the leaves that wait, too."""
    origin = hashlib.sha256(state.origin.encode()).hexdigest()
    found = []
    for key in witnesses:
        if (address := addresses.get(key)) is None:
            found.append(Asked(key.name, "not asked: its address is not known"))
            continue
        try:
            status, body = get(f"{address}/{origin}/checkpoint")
            if status != 200:
                raise NoAnswer(f"status {status}")
            note = Note.parse(body)
            checkpoint = Checkpoint.parse(note.text)
            if not note.verified([key]) or not note.verified(log_keys) or checkpoint.origin != state.origin:
                raise NoAnswer("no checkpoint of this log that it signed")
        except (NoAnswer, NoteError) as error:
            found.append(Asked(key.name, f"no answer: {error}"))
            continue
        found.append(_compared(key.name, checkpoint, state))
    return found


def _compared(name: str, checkpoint: Checkpoint, state: LogState) -> Asked:
    size = checkpoint.size
    if size > state.size:
        return Asked(
            name,
            f"signed {size} leaves, and only {state.size} are here: an old log is shown, or another one",
            True,
        )
    if tree.root_over(state.nodes[:size]) != checkpoint.root:
        return Asked(name, f"signed other first {size} leaves: two people are shown two logs", True)
    return Asked(name, f"signed the same first {size} leaves")


class WithoutResult(NamedTuple):
    """A campaign that opened, and whose draw has no result."""

    campaign_id: str
    # Empty if the file of the campaign's record cannot be read.
    name: str
    # When it was logged.
    at: str
    # It has a leaf that says so.
    annulled: bool

    @staticmethod
    def of(account: DrawAccount, opened: LogLeaf) -> WithoutResult:
        name = account.record[0].opened.name if account.record else ""
        return WithoutResult(account.id, name, opened.time, account.is_annulled)


@dataclass(frozen=True, slots=True)
class FollowedLog:
    """A log as it was found."""

    # Its name, which checkpoints begin with.
    origin: str
    # The number of its leaves.
    size: int
    # The root over all of them.
    root: str
    # The note, to be compared with later ones.
    checkpoint: str
    keys: tuple[str, ...]
    # How many witnesses have to cosign.
    needed: int
    # The time at which each cosigned, by name.
    witnesses: dict[str, str]
    # How many leaves are decided and not published.
    waiting: int
    # The campaigns whose draw was annulled.
    annulled: tuple[str, ...]
    # The leaves that were asked for, with their indexes.
    leaves: tuple[tuple[int, LogLeaf], ...]
    # What is wrong, as sentences.
    findings: tuple[str, ...]
    # What could not be checked, as sentences.
    remarks: tuple[str, ...]
    # What came into lists of registrations after their campaigns closed.
    late: tuple[LateMinute, ...]
    # Campaigns that opened, and have no result: all of them, whichever was asked for.
    without_result: tuple[WithoutResult, ...]
    # What each witness says that it signed last.
    asked: tuple[Asked, ...]

    def as_dict(self) -> dict[str, Any]:
        shown = [{"index": index, **leaf.as_document()} for index, leaf in self.leaves]
        return as_document(self) | {"leaves": shown}


def follow(
    place: Place,
    *,
    now: float,
    campaign_id: str | None = None,
    trust: Trust = _NO_TRUST,
    kept: bytes | None = None,
    get: Get = _GET,
) -> FollowedLog:
    """Verify the log, and account for every draw in it, or for one campaign's. `kept` is a checkpoint that was read
    earlier: the log must continue it. `get` asks the witnesses whose addresses `trust` has.

    Raises UsageError where there is no log; DrawError if it does not hold together, so that nothing in it can be
    relied on.
    """
    read = place.read
    found = published(read, trust.keys)
    if found is None:
        raise UsageError("there is no log: no draw has written to it yet, or this is not its place")
    state, keys = found
    note = state.note
    if note is None:
        raise AssertionError("a log that was verified has a checkpoint")
    try:
        cosigned = note.verified(keys.quorum.witnesses)
    except NoteError as error:
        raise DrawError(CHECKPOINT, str(error)) from None
    findings, remarks = list(_tiles(read, state)), []
    if not keys.quorum.is_met_by([each.key for each in cosigned]):
        findings.append(f"{len(cosigned)} witnesses cosigned the checkpoint (needed: {keys.quorum})")
    if keys.quorum.need and not keys.quorum.colluders:
        remarks.append(f"{keys.quorum} witnesses are needed: {WEAK_QUORUM}")
    if kept is not None:
        findings += _continues(state, kept, keys)
    longer = _with_waiting(read, state)
    asked = ask_witnesses(keys.quorum.witnesses, trust.addresses, longer, keys.log, get)
    findings += [f"{each.name} {each.text}" for each in asked if each.is_finding]
    leaves = [(index, state.leaf(index)) for index in range(state.size)]
    campaigns = dict.fromkeys(leaf.campaign_id for _, leaf in leaves if leaf.kind is not Kind.KEY)
    log = LogRead(place, state, LeafTimes(state, keys, in_log(read)), trust, now)
    accounts = [DrawAccount(log, each) for each in campaigns]
    # The comparison of a campaign with the others needs them all.
    own = {each.id: each.findings() for each in accounts}
    chosen = [each for each in accounts if campaign_id in (None, each.id)]
    for each in chosen:
        findings += own[each.id] + each.registration_findings()
        remarks += each.remarks
    for text in shared(accounts, place):
        if campaign_id is None or campaign_id in text.campaigns:
            (findings if text.is_finding else remarks).append(text.text)
    return FollowedLog(
        origin=state.origin,
        size=state.size,
        root=state.checkpoint.root.hex(),
        checkpoint=str(note),
        keys=tuple(map(str, keys.log)),
        needed=keys.quorum.need,
        witnesses={each.key.name: iso(each.at or 0) for each in cosigned},
        waiting=longer.size - state.size,
        annulled=tuple(each.id for each in chosen if each.is_annulled),
        leaves=tuple(each for each in leaves if campaign_id in (None, each[1].campaign_id)),
        findings=tuple(findings),
        remarks=tuple(remarks),
        late=tuple(minute for each in chosen for minute in each.late),
        without_result=tuple(
            WithoutResult.of(each, leaf)
            for each in accounts
            for _, leaf in leaves
            if leaf.kind is Kind.OPENED and leaf.campaign_id == each.id and not each.has_result
        ),
        asked=tuple(asked),
    )


def _tiles(read: Read, state: LogState) -> Iterator[str]:
    growing, verified = tree.GrowingTree(), set(tree.bundle_paths(state.size))
    for entry in state.entries:
        growing.append(entry)
    for path, data in [*growing.full(), *growing.partial()]:
        if path not in verified and (stored := read(f"log/{path}")) != data:
            what = "is missing" if stored is None else "has other hashes than the entries"
            yield f"{path} {what}: other monitors of this log cannot read it"


def _continues(state: LogState, kept: bytes, keys: LogKeys) -> Iterator[str]:
    """Compare with a checkpoint that was signed earlier."""
    try:
        note = Note.parse(kept)
        before = Checkpoint.parse(note.text)
        signed = note.verified(keys.log)
    except NoteError as error:
        raise UsageError(f"the checkpoint that was kept is not one: {error}") from None
    if before.origin != state.origin:
        raise UsageError(f"the checkpoint that was kept is of the log {before.origin}, not of {state.origin}")
    by = "signed by this log" if signed else "signed by a key that is not of this log any more"
    current = {sha256_hex(str(key).encode()) for key in keys.log}
    later = [state.leaf(index) for index in range(before.size, state.size)]
    if not signed and not any(leaf.kind is Kind.KEY and leaf.hash in current for leaf in later):
        yield "the log has another key than the one that signed the checkpoint that was kept, and no leaf says so"
    if before.size > state.size:
        yield (
            f"the log has {state.size} leaves, an earlier checkpoint ({by}) had {before.size}: an old log is shown"
        )
    elif tree.root_over(state.nodes[: before.size]) != before.root:
        yield f"the log was rewritten: its first {before.size} leaves are not those of an earlier checkpoint ({by})"


def _with_waiting(read: Read, state: LogState) -> LogState:
    """The log with the entries that are decided and not published. Raises DrawError."""
    while (data := read(f"log/{(path := tree.bundle_path(state.size + 1))}")) is not None:
        state = state.with_entry(tree.read_bundle(data, path)[-1])
    return state
