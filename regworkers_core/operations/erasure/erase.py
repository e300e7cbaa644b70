"""Erases one entry in steps; a repeat finds completed steps done.

1. The ledger: from here on the erasure is a fact with a time, and what is created later is another registration.
2. The tombstone in the replica, at once and not by the stream: no save drain writes an erased state over it, whatever
   it has read before.
3. Messages that are not sent.
4. Dead letters and their copies, which are found by the id and by what entry, claims and invites say of the fan.
5. Invites and claims, which are found by what the entry says of the fan.
6. The entry in the demand table, exactly as it was read: if a writer has changed it meanwhile, repeat from 2.
7. What is found by the entry's id alone: former versions, the history of failures, rows of drills.

What names the fan is removed late because it leads to everything before it: after a kill, or when a dead-letter queue
could not be read whole, the same command continues. A former address is known only by its claim and its invite, so
these stay until every queue was read. Until step 6 the entry is behind a tombstone that refuses it, which reconcile
calls `erased`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairdraw import scheduling
from fairdraw.documents import as_document, as_json
from regworkers_core.adapters.aws.tables import MAX_GET
from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.adapters.mongo.outbox import ERASED, OPEN
from regworkers_core.domain.claim import CLAIM_LEASE_SECONDS, Claim, TableKey
from regworkers_core.domain.entry import Order, is_erased
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.operations.erasure.dead_letters import (
    ErasedEntry,
    RemovedDeadLetters,
    remove_dead_letters,
)
from regworkers_core.operations.erasure.facts import (
    EntryFacts,
    ErasureLedger,
    HeldCode,
    Stay,
    drawn_keys,
    held_codes,
    read_facts,
    what_stays,
)
from regworkers_core.operations.erasure.former import FormerIdentities
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.scratch_database import left_behind
from regworkers_core.runtime import Runtime

RUN = "erase"
# A writer may change the entry meanwhile; each time its state is newer.
_ROUNDS = 4

OnPhase = Callable[[str], None]


@dataclass(slots=True)
class Removed:
    """What was removed (in a dry run: would be)."""

    # Items of the demand table.
    source: int = 0
    # Documents of the replica.
    replica: int = 0
    invites: int = 0
    # Claims of duplicates.
    claims: int = 0
    messages: int = 0
    # Versions that an acceptance replaced.
    superseded: int = 0
    # Documents of dead letters.
    failures: int = 0
    # Rows of files of a judgement.
    staged: int = 0

    def as_dict(self) -> dict[str, int]:
        return {
            "entryInTheDemandTable": self.source,
            "entryInTheReplica": self.replica,
            "invites": self.invites,
            "claims": self.claims,
            "messagesSuperseded": self.messages,
            "supersededEntries": self.superseded,
            "recordedFailures": self.failures,
            "stagedRows": self.staged,
        }


@dataclass(slots=True)
class ErasureReport:
    """The result for one entry."""

    # The entry.
    key: EntryKey
    dry_run: bool
    # Empty if nothing is known of it, and in a dry run before the first erasure.
    erased_at: str = ""
    # Whether any store knows it.
    known: bool = True
    # The time is that of an earlier erasure, after which the fan may have registered again.
    again: bool = False
    # What was removed.
    removed: Removed = field(default_factory=Removed)
    # What was removed of dead letters.
    dead_letters: RemovedDeadLetters = field(default_factory=RemovedDeadLetters)
    # What is left for a reason.
    stays: list[Stay] = field(default_factory=list)
    # They are for the issuer, and are never logged.
    codes: list[HeldCode] = field(default_factory=list)
    # When, if an operator should know.
    registered_again: str = ""
    # What is not done.
    left: list[str] = field(default_factory=list)
    # What the operator should know.
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is left of what was erased."""
        return self.known and not self.left

    @property
    def finished(self) -> bool:
        return self.complete and not self.registered_again

    @property
    def advice(self) -> str:
        """What is left to do, empty when nothing is."""
        lines = list(self.left)
        if self.registered_again:
            lines.append(
                f"the fan registered again at {self.registered_again}, after this erasure: repeat the command to"
                " erase that, too"
            )
        return "\n".join(lines)

    @property
    def numbers(self) -> dict[str, int]:
        """Counts only: for logs, metadata and the audit log."""
        dead_letters = self.dead_letters
        return {**self.removed.as_dict(), "deadLetters": dead_letters.messages, "copies": dead_letters.copies}

    def as_dict(self) -> dict[str, Any]:
        document = as_document(
            self, "dry_run", "known", "erased_at", "stays", "notes", "registered_again", "finished", "advice"
        )
        return {
            "campaignId": self.key.campaign_id,
            "entryId": self.key.entry_id,
            **document,
            "erasedAt": self.erased_at or None,
            "takenOut": self.numbers,
            "codesForTheIssuer": as_json(self.codes),
            "registeredAgain": self.registered_again or None,
        }


class Eraser:
    """Erases the entries `keys`: `run` hides each behind its tombstone, `end` searches dead letters once for all and
    removes them.
    """

    def __init__(
        self,
        runtime: Runtime,
        keys: Collection[EntryKey],
        *,
        sleep: Callable[[float], object] = scheduling.sleep,
        on_phase: OnPhase = lambda _text: None,
        on_step: OnStep = no_step,
    ) -> None:
        self._runtime, self._sleep = runtime, sleep
        self._on_phase, self._on_step = on_phase, on_step
        self.ledger = ErasureLedger(runtime.objects, runtime.secrets)
        self._former = FormerIdentities(runtime, IdentitySecret(runtime.secrets), keys)
        self._wanted: list[ErasedEntry] = []
        self._hidden: list[tuple[EntryFacts, ErasureReport]] = []
        # Entries of which nothing may be left, with all that was known of them.
        self._emptied: dict[EntryKey, EntryFacts] = {}

    def look(self, key: EntryKey) -> ErasureReport:
        """Count what an erasure would remove. Changes nothing."""
        facts = self._read(key)
        report = ErasureReport(key, True, self._begun(facts), known=facts.known)
        if not facts.known:
            return report
        removed = report.removed
        removed.source, removed.replica = int(facts.source is not None), int(facts.live)
        removed.invites = len(self._runtime.invites.ttls(facts.invites)) if facts.invites else 0
        removed.claims, removed.superseded = len(self._held_claims(facts)), len(facts.former)
        removed.failures = len(self._runtime.dead_letters.of_entry(key))
        scratches = left_behind(self._runtime, older_than_seconds=0)
        removed.staged = sum(scratch.count(key) for scratch in scratches)
        statuses = self._runtime.outbox.statuses(drawn_keys(self._runtime, facts))
        removed.messages = sum(status in OPEN for status in statuses.values())
        self._report_what_stays(report, facts)
        self._wanted.append(ErasedEntry(key, facts.texts))
        return report

    def run(self, key: EntryKey, at: str = "") -> ErasureReport:
        """Begin to erase the current state, or with `at` (an ISO time from the ledger) what was created up to then.

        Raises TransientFailure when a store cannot answer: a repeat continues.
        """
        report = ErasureReport(key, False, again=bool(at))
        facts = self._read(key)
        if not facts.known and not at:
            report.known = False
            return report
        report.erased_at = at or self._begin(facts)
        self.ledger.write(key, report.erased_at)
        self._on_step("erase.after_ledger")
        if report.erased_at > iso(self._runtime.clock()):
            report.notes.append(
                f"the entry's createdAt is ahead of the clock: no registration under this id is accepted until "
                f"{report.erased_at}"
            )
        self._report_what_stays(report, facts)
        self._hide(facts, report)
        self._wanted.append(ErasedEntry(key, facts.texts))
        self._hidden.append((facts, report))
        return report

    def end(self, reports: Sequence[ErasureReport], *, dry_run: bool = False) -> None:
        """Search dead letters once for all entries, then remove these and close their erasures. The first report has
        the numbers. While messages are held by others, the entries stay with their invites and claims: these name the
        fans.
        """
        if not reports:
            return
        dead_letters = reports[0].dead_letters = remove_dead_letters(
            self._runtime, self._wanted, dry_run=dry_run
        )
        if dry_run:
            return
        self._on_step("erase.after_dead_letters")
        if dead_letters.unseen:
            for report in reports:
                report.left.append(_held_by_others(dead_letters))
            return
        for facts, report in self._hidden:
            self._remove(facts, report)
        claims: dict[EntryKey, list[Claim]] = {}
        for campaign_id in {key.campaign_id for key in self._emptied}:
            claims |= self._former.claims(campaign_id)
        for _, report in self._hidden:
            if (erased := self._emptied.get(report.key)) is not None:
                report.left += self._former.left(erased, claims.get(report.key, []))
            if report.complete:
                self.ledger.close(report.key, report.erased_at)

    def _read(self, key: EntryKey) -> EntryFacts:
        return self._former.added_to(read_facts(self._runtime, key))

    def _begun(self, facts: EntryFacts) -> str:
        """The time of an erasure that is not complete, or that covers the current state; empty: neither."""
        last = self.ledger.of_entry(facts.key)
        return last.at if last.at and (not last.done or facts.newest() <= last.at) else ""

    def _begin(self, facts: EntryFacts) -> str:
        """The time of an erasure that began, even if the fan has registered again since; else a new one."""
        if begun := self._begun(facts):
            return begun
        # A writer's clock may be ahead of ours.
        return max(iso(self._runtime.clock()), facts.newest())

    def _hide(self, facts: EntryFacts, report: ErasureReport) -> None:
        """Everything up to the dead letters."""
        if not _is_of(facts, report):
            # Another registration: it keeps everything, even what it shares with the erased one.
            self._bury(facts, report, Order())
            return
        self._bury(facts, report, facts.source_order)
        self._on_step("erase.after_tombstone")
        self._supersede(facts, report)
        self._on_step("erase.after_messages")

    def _remove(self, facts: EntryFacts, report: ErasureReport) -> None:
        """Invites, claims and the entry; then what is found by its id. All dead letters that name it were read."""
        runtime, key = self._runtime, report.key
        for _ in range(_ROUNDS):
            if not _is_of(facts, report):
                break
            if self._forget_identities(facts, report):
                if facts.source is None:
                    break
                if runtime.demand_table.remove(key, facts.source):
                    report.removed.source = 1
                    break
            # What a writer has changed may name the fan otherwise.
            facts = self._read(key)
            self._hide(facts, report)
            again = remove_dead_letters(runtime, [ErasedEntry(key, facts.texts)], dry_run=False)
            if again.unseen:
                report.left.append(_held_by_others(again))
                return
        else:
            raise TransientFailure("dynamodb", "the entry is changed by other writers: repeat this")
        self._on_step("erase.after_entry")
        self._by_id(report)
        if report.removed.source or report.removed.replica:
            # Send its event now, since the stream may be late: a repeat has the same id, and consumers drop it.
            stored = runtime.replica.get([key])[key]
            if stored.fields is None:
                item = ReplicationItem(key, Op.REMOVE, stored.order)
                send_keys(runtime.queue(runtime.names.replication_queue), [item])
        self._on_step("erase.after_event")
        self._verify(report, facts)

    def _forget_identities(self, facts: EntryFacts, report: ErasureReport) -> bool:
        """Remove invites and claims, unless the table's entry is no longer as it was read: a registration that came
        meanwhile relies on them. Returns whether they were removed.
        """
        runtime, removed, key = self._runtime, report.removed, report.key
        claims = self._old_claims(facts)
        if runtime.demand_table.get([key]).get(key) != facts.source:
            return False
        if facts.invites and (invites := list(runtime.invites.ttls(facts.invites))):
            runtime.invites.remove(invites)
            removed.invites += len(invites)
        self._on_step("erase.after_invites")
        for claim in claims:
            removed.claims += runtime.entry_claims.release(claim)
        self._on_step("erase.after_claims")
        return True

    def _bury(self, facts: EntryFacts, report: ErasureReport, order: Order) -> None:
        self._runtime.replica.erase(facts.key, order, at=report.erased_at, run_id=RUN)
        if facts.live and facts.replica is not None:
            report.removed.replica |= is_erased(facts.replica.order.created_at, report.erased_at)

    def _held_claims(self, facts: EntryFacts) -> list[Claim]:
        keys = sorted(self._former.claim_keys(facts) | {claim.key for claim in facts.claims})
        items: dict[TableKey, dict[str, Any]] = {}
        for start in range(0, len(keys), MAX_GET):
            items |= self._runtime.entry_claims.read(keys[start : start + MAX_GET])
        claims = [Claim.of(item) for item in items.values()]
        return [claim for claim in claims if claim.entry_id == facts.key.entry_id]

    def _old_claims(self, facts: EntryFacts) -> list[Claim]:
        """The same, once a registration that relies on one has written its entry or given up."""
        claims = self._held_claims(facts)
        youngest = max((claim.claimed_at for claim in claims), default=0.0)
        wait = youngest + CLAIM_LEASE_SECONDS - self._runtime.clock()
        # Do not wait for long because of a clock that is far ahead.
        if 0 < wait <= CLAIM_LEASE_SECONDS:
            self._on_phase(f"waiting {wait:.0f} s for a registration that may be in progress")
            self._sleep(wait)
            return self._held_claims(facts)
        return claims

    def _supersede(self, facts: EntryFacts, report: ErasureReport) -> None:
        keys = drawn_keys(self._runtime, facts)
        if not keys:
            return
        name = lease_name(facts.key.campaign_id)
        seconds = self._runtime.settings.selection.lease_seconds
        try:
            with held_lease(self._runtime.leases, name, RUN, lease_seconds=seconds):
                report.removed.messages += self._runtime.outbox.supersede(
                    keys, why=ERASED, at=iso(self._runtime.clock())
                )
        except LeaseBusy:
            report.notes.append(
                "a draw is running: its sender supersedes the messages itself, because of the tombstone"
            )

    def _by_id(self, report: ErasureReport) -> None:
        runtime, key, removed = self._runtime, report.key, report.removed
        removed.superseded += runtime.superseded_entries.forget(key)
        self._on_step("erase.after_superseded")
        removed.failures += runtime.dead_letters.forget(key)
        self._on_step("erase.after_failures")
        for scratch in left_behind(runtime, older_than_seconds=0):
            removed.staged += scratch.forget(key)
        self._on_step("erase.after_staged")

    def _verify(self, report: ErasureReport, erased: EntryFacts) -> None:
        """Read both sides again, so that the report says only what was seen."""
        facts, at = read_facts(self._runtime, report.key), report.erased_at
        created = facts.source_order.created_at
        if facts.source is None:
            self._emptied[report.key] = erased
        elif is_erased(created, at):
            report.left.append("a writer put the erased entry back: `regworkers erasures repeat` erases it")
        elif not report.again:
            report.registered_again = created
        if not facts.replica or facts.replica.erased_at is None or facts.replica.erased_at < at:
            report.left.append("the tombstone disappeared: repeat the command")

    def _report_what_stays(self, report: ErasureReport, facts: EntryFacts) -> None:
        report.codes = held_codes(self._runtime, facts)
        report.stays = list(what_stays(self._runtime, facts, len(report.codes)))
        erased_before = facts.replica is not None and facts.replica.erased_at is not None
        if facts.source is None and not facts.live and not erased_before and not facts.claims:
            report.notes.append(
                "the entry no longer exists and has no claim, so its mail address is unknown: remove an invite by"
                f" mail with `regworkers invites remove {facts.key.campaign_id} email`"
            )


def _is_of(facts: EntryFacts, report: ErasureReport) -> bool:
    """Whether the table's entry, if there is one, is what this erasure is about, and not a later registration."""
    return facts.source is None or is_erased(facts.source_order.created_at, report.erased_at)


def _held_by_others(dead_letters: RemovedDeadLetters) -> str:
    return (
        f"other consumers hold messages of {', '.join(dead_letters.unseen)}: repeat this in a minute; until then the"
        " entry stays in the demand table, behind its tombstone, with its invites and claims"
    )


def erase(
    runtime: Runtime,
    key: EntryKey,
    *,
    dry_run: bool,
    sleep: Callable[[float], object] = scheduling.sleep,
    on_phase: OnPhase = lambda _text: None,
    on_step: OnStep = no_step,
) -> ErasureReport:
    """Erase one entry everywhere, or report in a dry run what that would remove. After a kill, a repeat continues.

    Raises TransientFailure when a store cannot answer, UsageError while another command works on dead letters.
    """
    eraser = Eraser(runtime, [key], sleep=sleep, on_phase=on_phase, on_step=on_step)
    on_phase("reading the entry" if dry_run else "erasing the entry")
    report = eraser.look(key) if dry_run else eraser.run(key)
    if report.known:
        on_phase("searching dead letters")
        eraser.end([report], dry_run=dry_run)
    return report
