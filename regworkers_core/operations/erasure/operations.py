"""Erase a fan's entry from every store, and repeat erasures."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import ClassVar

from pydantic import Field

from fairdraw.documents import as_document
from regworkers_core.operation import CAMPAIGN, Call, Effect, Input, Report, Table, operation
from regworkers_core.operations.erasure.again import pending, replay
from regworkers_core.operations.erasure.erase import erase as erase_one
from regworkers_core.operations.on_call import OneEntry


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
