"""Erase a fan's entry from every store, and repeat erasures: of entries that a backup or a writer brought back behind a
tombstone (`pending`), and of everything in the ledger after a restore of either store (`replay`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.domain.entry import is_erased, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.operation import CAMPAIGN, Call, Effect, Input, Report, Table, operation
from regworkers_core.operations.erasure.erase import Eraser, ErasureReport, OnPhase
from regworkers_core.operations.erasure.erase import erase as erase_one
from regworkers_core.operations.erasure.facts import ErasureLedger
from regworkers_core.operations.on_call import OneEntry
from regworkers_core.replication.keys import require_campaign
from regworkers_core.runtime import Runtime

LISTED = 1000


@dataclass(slots=True)
class AgainReport:
    """What came back of erased fans."""

    dry_run: bool
    # Erasures that were looked at; 0 for `pending`.
    recorded: int = 0
    looked_at: int = 0
    # Entries that contain erased data.
    found: int = 0
    # The first LISTED ids, with the time of their erasure.
    entries: list[tuple[str, str]] = field(default_factory=list)
    # What was erased again.
    reports: list[ErasureReport] = field(default_factory=list)
    # Why nothing was done.
    refused_because: str = ""

    @property
    def done(self) -> int:
        return sum(each.finished for each in self.reports)

    @property
    def finished(self) -> bool:
        """Whether no erased data is left."""
        return self.found == (0 if self.dry_run else self.done) and not self.refused_because

    @property
    def left(self) -> list[str]:
        return [f"{each.key.shown}: {line}" for each in self.reports for line in each.left]

    @property
    def advice(self) -> str:
        """What is left to do, empty when nothing is."""
        if self.refused_because:
            return f"nothing was erased: {self.refused_because}"
        return "\n".join(self.left[:LISTED])

    @property
    def numbers(self) -> dict[str, int]:
        return {"recorded": self.recorded, "lookedAt": self.looked_at, "found": self.found, "done": self.done}

    def as_dict(self) -> dict[str, Any]:
        return {
            "dryRun": self.dry_run,
            **self.numbers,
            "entries": [{"id": id_, "erasedAt": at} for id_, at in self.entries],
            "refusedBecause": self.refused_because or None,
            "finished": self.finished,
            "advice": self.advice,
        }


def pending(
    runtime: Runtime,
    campaign_id: str | None = None,
    *,
    confirmed: int | None = None,
    on_progress: Progress = no_progress,
    on_phase: OnPhase = lambda _text: None,
) -> AgainReport:
    """Count entries of the demand table behind the tombstone of an erased fan; erase them again if `confirmed` is their
    number.

    Raises TransientFailure when a store cannot answer, a repeat continues; UsageError for an unknown campaign.
    """
    require_campaign(runtime, campaign_id)
    report = AgainReport(confirmed is None)
    found: dict[EntryKey, str] = {}
    on_phase("reading erased entries")
    for page in runtime.replica.erasures(campaign_id):
        items = runtime.demand_table.get(list(page))
        found |= {
            key: page[key]
            for key, item in items.items()
            if is_erased(lenient_order(item).created_at, page[key])
        }
        report.looked_at += len(page)
        on_progress(report.looked_at)
    return _erase_again(runtime, found, report, confirmed, on_progress, on_phase)


def replay(
    runtime: Runtime,
    campaign_id: str | None = None,
    *,
    confirmed: int | None = None,
    on_progress: Progress = no_progress,
    on_phase: OnPhase = lambda _text: None,
) -> AgainReport:
    """After a restore: count entries (of a campaign) in either store that the ledger lists as erased, or whose
    tombstone is lost; erase them again if `confirmed` is their number. Reads both stores once.

    Raises as `pending` does, and UsageError if the ledger's key is lost.
    """
    require_campaign(runtime, campaign_id)
    report = AgainReport(confirmed is None)
    on_phase("reading the ledger")
    ledger = ErasureLedger(runtime.objects, runtime.secrets)
    known = ledger.all()
    report.recorded = len(known)
    found: dict[EntryKey, str] = {}
    if known:
        on_phase("searching both stores for erased entries")
        for key, is_back in _all(runtime, campaign_id):
            report.looked_at += 1
            at = known.get(ledger.mark(key))
            if at is not None and is_back(at):
                found[key] = at
            if report.looked_at % LISTED == 0:
                on_progress(report.looked_at)
    return _erase_again(runtime, found, report, confirmed, on_progress, on_phase)


def _all(runtime: Runtime, campaign_id: str | None) -> Iterator[tuple[EntryKey, Callable[[str], bool]]]:
    """Every entry of every store, each with a function that says if an erasure at a given time is undone there."""
    for page in runtime.demand_table.pages(campaign_id):
        for key, item in page.items:
            created = lenient_order(item).created_at
            yield key, lambda at, created=created: is_erased(created, at)  # type: ignore[misc]
    replica = runtime.replica
    for key, stored in replica.scan() if campaign_id is None else replica.entries(campaign_id):
        kept = stored.erased_at or ""
        yield key, lambda at, kept=kept: kept < at  # type: ignore[misc]
    for key, order in runtime.superseded_entries.orders(campaign_id):
        yield key, lambda at, created=order.created_at: is_erased(created, at)  # type: ignore[misc]


def _erase_again(
    runtime: Runtime,
    found: dict[EntryKey, str],
    report: AgainReport,
    confirmed: int | None,
    on_progress: Progress,
    on_phase: OnPhase,
) -> AgainReport:
    report.found = len(found)
    report.entries = [(key.shown, at) for key, at in list(found.items())[:LISTED]]
    if confirmed is None:
        return report
    if confirmed != report.found:
        report.refused_because = f"{report.found} entries are back, but {confirmed} were confirmed"
        return report
    eraser = Eraser(runtime, list(found), on_phase=on_phase)
    on_phase(f"erasing {report.found} entries again")
    for number, (key, at) in enumerate(found.items(), 1):
        report.reports.append(eraser.run(key, at))
        on_progress(number)
    on_phase("searching dead letters")
    eraser.end(report.reports)
    return report


class Again(Input):
    words: ClassVar = ()
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: all of them.")
    after_restore: bool = Field(
        False,
        description="Read both stores against the ledger, after a restore of one. Without it only what a writer put "
        "back behind a tombstone is found.",
    )


@operation(
    "erase",
    "erase_entry",
    Effect.DELETE,
    target="entry_id",
    # It reads all dead letters.
    long=True,
    files="the codes that their issuer has to block",
)
def erase(call: Call, given: OneEntry) -> Report:
    """Erase a fan's entry from every store; its messages are not sent.

    That is the demand table, the replica with its former versions, invites, claims, and dead letters. Says what would
    be erased, and what is kept, until when and why. Fails if something is left to do: repeat it to continue, also after
    a kill.
    """
    key = given.key(call)
    report = erase_one(call.runtime, key, dry_run=not call.apply, on_phase=call.face.tell)
    again = call.face.name_of("erasures repeat", "--after-restore")
    unknown = (
        f"neither store knows this entry: check the ids. After a restore, {again} finds entries that were erased "
        "before it"
    )
    lines = io.StringIO()
    codes = [as_document(each) for each in report.codes]
    csv.writer(lines).writerows(
        [("code", "marketId", "position", "status"), *(each.values() for each in codes)]
    )
    columns = ("in", "as", "until", "because", "number")
    return Report(
        document=report.as_dict(),
        facts={"erasedAt": report.erased_at or None, **report.numbers, "codesForTheIssuer": len(codes)}
        if report.known
        else {},
        tables=[Table("what remains", columns, [[*as_document(each).values()] for each in report.stays])],
        said=[*report.notes, f"erased, as of {report.erased_at}"]
        if report.finished and call.apply
        else report.notes,
        files={"codes.csv": lines.getvalue().encode()} if codes else {},
        left=report.advice if report.known else unknown,
        counts={**report.numbers, "finished": report.finished},
        word=key.entry_id if report.known else "",
        question=f"{key.shown} will be erased permanently",
        changed=call.apply,
    )


@operation("erasures repeat", "repeat_erasures", Effect.DELETE, long=True, counted=True)
def repeat(call: Call, given: Again) -> Report:
    """Erase again what came back of erased fans: behind a tombstone, or after a restore of a store.

    Fails while something is left; repeat it to continue.
    """
    campaign_id = call.campaign_id(given.campaign_id) if given.campaign_id else None
    work = replay if given.after_restore else pending
    report = work(
        call.runtime,
        campaign_id,
        confirmed=call.confirmed,
        on_progress=partial(call.face.progress, unit="entries"),
        on_phase=call.face.tell,
    )
    return Report(
        document=report.as_dict(),
        facts=report.numbers,
        tables=[Table.first("entries", ("entry", "erased at"), report.entries, report.found)],
        left="" if report.finished else report.advice or f"{report.found} entries are back",
        counts=report.numbers,
        word=str(report.found) if report.found else "",
        question=f"{report.found} entries will be erased permanently",
        changed=call.apply,
    )
