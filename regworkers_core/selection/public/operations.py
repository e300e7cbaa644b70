"""Hand out what a draw has published: receipts, artefacts, and the page."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from fairdraw import commands
from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.check import FAILS, check_receipt
from fairdraw.proof.checker import State
from fairdraw.proof.receipt_view import receipt_text
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.operation import Call, Default, Effect, Input, LocalFile, OfCampaign, Report, operation


class ReceiptOf(OfCampaign):
    words: ClassVar = ("campaign_id", "entry")
    entry: str = Field(
        description="The reference in the fan's confirmation, or the entry's id: a fan who complains has one of them "
        "in the platform's mails. No mail address, no name."
    )
    source: LocalFile = Field(
        "", description="Artefacts in this folder instead of the published ones; give the campaign's id."
    )
    trust: LocalFile = Field("", description=f"{commands.TRUST.capitalize()}.")


class ExportOf(OfCampaign):
    words: ClassVar = ("campaign_id", "folder")
    folder: LocalFile = Field(
        "", description="Where to copy the files. Empty: a folder of the campaign's name."
    )

    def default(self) -> Default | None:
        if self.folder:
            return None
        return Default(
            self.model_copy(update={"folder": self.campaign_id}), f"the folder {self.campaign_id}", ""
        )


class PublishPage(Input):
    campaign_id: str = Field("", description="The campaign, by id or slug.")
    source: LocalFile = Field(
        "", description="Instead of a campaign: exported artefacts in this folder, without a server."
    )
    output: LocalFile = Field(
        "", description="Write artefacts and page to this folder, for any host of files."
    )


@operation(
    "draw receipt",
    "make_receipt",
    duty="selection",
    size="report",
    role="manager",
    long=True,
    files="the receipt as a page that checks itself, and as JSON",
)
def receipt(call: Call, given: ReceiptOf) -> Report:
    """Make one entrant's receipt: proof, key, rank, cut-offs, outcome; as a page that checks itself, and as JSON.

    It may name other members of the household: give it to the entrant only. Fails if it is not valid.
    """
    # Late, for they bring DuckDB and pyarrow.
    from fairdraw.large.receipts import folder_source
    from regworkers_core.selection.public.source import cache_folder
    from regworkers_core.selection.registrations.opening import receipts_of

    trusted = commands.trusted_keys(Path(given.trust) if given.trust else None)
    campaign_id, cache = given.campaign_id, cache_folder()
    if given.source:
        source = folder_source(Path(given.source), cache)
    else:
        campaign_id = call.campaign_id(campaign_id)
        source = receipts_of(call.runtime, campaign_id, cache)
    made = source.receipt(given.entry)
    if source.note:
        call.face.say(source.note)
    if made["campaignId"] != campaign_id:
        raise UsageError(f"{given.source} is the draw of {made['campaignId']}, not of {campaign_id}")
    data = canonical_bytes(made)
    checked = check_receipt(data, trusted)
    unseen = [each.name for each in checked.checks if each.state is State.UNCHECKED]
    unseen += [] if checked.trusted else ["keys, which no file of trusted keys names"]
    return Report(
        document=made,
        # Neither log nor metadata name the entrant or the outcome.
        facts={"verdict": checked.verdict, "note": source.note or None},
        text=receipt_text(made, checked),
        files={"receipt.html": verifier_page(data), "receipt-data.json": data},
        said=[f"not checked here: {', '.join(unseen)}; the page of the receipt says why"] if unseen else [],
        left="the receipt does not hold: its page says why" if checked.verdict == FAILS else "",
    )


@operation(
    "draw export",
    "export_draw",
    duty="selection",
    size="large",
    role="manager",
    long=True,
    files="the artefacts as an archive",
)
def export(call: Call, given: ExportOf) -> Report:
    """Copy the artefacts of every phase of a draw into folders `phase-<n>`, for auditors and for its verification."""
    # Late, for it brings pyarrow.
    from regworkers_core.selection.public.source import export_phases

    campaign_id = call.campaign_id(given.campaign_id)
    record = call.runtime.draws.get(campaign_id)
    if record is None:
        # Raises for a name that was mistyped.
        call.campaign(campaign_id)
    folder = Path(given.folder) if given.folder else call.face.folder() / campaign_id
    written = export_phases(call.runtime.objects, record, folder) if record else []
    if not record or not written:
        raise RequestError(
            f"{campaign_id} has published nothing yet: draw it with `regworkers draw run {campaign_id}` or the job "
            "`draw`"
        )
    archive = folder.parent / f"draw-{campaign_id}.zip"
    if not given.folder:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
            for name in written:
                files.write(folder / name, f"{campaign_id}/{name}")
    pending = record.not_confirmed
    return Report(
        document={
            "campaignId": campaign_id,
            "folder": str(folder),
            "files": written,
            "notConfirmed": pending,
        },
        facts={"files": len(written)},
        text="\n".join([*(str(folder / name) for name in written), f"{len(written)} files"]),
        said=[f"phase {each} is not confirmed yet" for each in pending],
        files={} if given.folder else {archive.name: archive},
    )


@operation(
    "draw publish-page",
    "publish_draw_page",
    Effect.CHANGE,
    duty="selection",
    size="large",
    role="manager",
    asset="publication",
    long=True,
)
def publish(call: Call, given: PublishPage) -> Report:
    """Publish the page of a draw: odds, audit, hashes, and the proof of every entry, which a fan's browser checks.

    It is put beside the artefacts in S3 and covers the confirmed phases. A repeat puts nothing, a later phase replaces
    the page. Before a confirmed phase, a campaign that logs its registrations gets the page of its list, with the
    verifier for the fans' confirmations.
    """
    # Late, for they bring DuckDB and pyarrow.
    from regworkers_core.selection.public.page import INDEX
    from regworkers_core.selection.public.publish import PagePublished, page_from_folder, publish_page
    from regworkers_core.selection.registrations.page import ListPublished, publish_list

    done: PagePublished | ListPublished
    on_progress = partial(call.face.progress, unit="leaves")
    output = Path(given.output) if given.output else None
    if bool(given.campaign_id) == bool(given.source):
        raise RequestError("give either a campaign or a folder of exported artefacts")
    if given.source:
        if output is None or call.apply:
            raise UsageError("--from writes to a folder: give --output, and no --apply")
        done = page_from_folder(Path(given.source), output, on_progress=on_progress)
    else:
        campaign_id = call.campaign_id(given.campaign_id)
        record, campaign = call.runtime.draws.get(campaign_id), call.runtime.campaigns.get(campaign_id)
        if campaign is not None and campaign.logs_registrations and not (record and record.public_phases):
            done = publish_list(call.runtime, campaign, output=output, apply=call.apply)
        else:
            done = publish_page(
                call.runtime, campaign_id, output=output, apply=call.apply, on_progress=on_progress
            )
    document = done.as_dict()
    said = []
    if not given.source and not done.put:
        said = ["nothing to put: the page is as published"]
    elif not given.source and not call.apply:
        said = [f"nothing was put yet: {call.face.field('apply')} publishes it"]
    # A page that was not put cannot be opened.
    missing = INDEX in done.put and not call.apply
    return Report(
        document={**document, **({"advice": said[0]} if said else {})},
        facts={**document, "page": None if missing else document["page"]},
        said=said,
        counts={"put": len(done.put)},
        changed=call.apply,
    )
