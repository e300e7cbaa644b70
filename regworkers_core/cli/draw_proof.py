"""`regworkers draw verify|receipt|check-receipt|verify-page|publish-page`: proof of a draw."""

from __future__ import annotations

import sys
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from fairdraw import commands
from fairdraw.answers import Answer, visible
from fairdraw.commands import TRUST, file_bytes
from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.check import FAILS, check_receipt
from fairdraw.proof.receipt_view import receipt_text
from fairdraw.verifier.assemble import has_signatures, page_hash, verifier_hash, verifier_page
from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import flatten_options, mounted, write_file
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime

if TYPE_CHECKING:
    pass


class ReceiptFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    HTML = "html"


app = typer.Typer()


def _verify(target: str, **given: Any) -> Answer:
    from regworkers_core.selection.public.source import artefacts_of

    with progress("steps", "verify") as show:
        return commands.verify(
            target,
            **given,
            artefacts=lambda named: artefacts_of(named, Runtime.load),
            on_progress=lambda phase, step: show(advance=1, description=f"phase {phase}: {step}"),
        )


app.command("verify")(
    mounted(
        commands.verify,
        _verify,
        about="For a campaign without --manifest-hash the hashes of its record are compared, which proves less.",
        target="a folder with phase-1, ..., s3://bucket/prefix, or a campaign's id",
    )
)


@app.command("receipt")
def receipt_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug; with --from its id")],
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="the reference that the confirmation gave, or an entryId (not with --from)"
        ),
    ],
    source: Annotated[
        Path | None, typer.Option("--from", help="artefacts in this folder instead of the published ones")
    ] = None,
    form: Annotated[
        ReceiptFormat,
        typer.Option("--format", help="text or a page that checks itself for people, json for scripts"),
    ] = ReceiptFormat.TEXT,
    output: Annotated[Path | None, typer.Option(help="write it to this file instead of stdout")] = None,
    trust: Annotated[Path | None, typer.Option("--trust", help=TRUST)] = None,
) -> None:
    """Show one entrant's receipt: proof, key, rank, cut-offs, outcome.

    It may name other members of the household: give it to the entrant only. Exits 1 if it is not valid.
    """
    from fairdraw.large.receipts import folder_source
    from regworkers_core.selection.public.source import cache_folder, campaign_source

    trusted = commands.trusted_keys(trust)
    cache = cache_folder()
    if source is not None:
        found = folder_source(source, cache)
    else:
        runtime = Runtime.load()
        campaign_id = runtime.campaigns.id_of(campaign_id)
        found = campaign_source(runtime, campaign_id, cache)
    receipt = found.receipt(ref)
    if found.note:
        typer.echo(found.note, err=True)
    if receipt["campaignId"] != campaign_id:
        raise UsageError(f"{source} is the draw of {receipt['campaignId']}, not of {campaign_id}")
    data = canonical_bytes(receipt)
    checked = check_receipt(data, trusted)
    if form is ReceiptFormat.HTML:
        data = verifier_page(data)
    elif form is ReceiptFormat.TEXT:
        data = visible(receipt_text(receipt, checked), keep="\n").encode()
    if output is not None:
        write_file(output, data)
    else:
        sys.stdout.buffer.write(data + (b"" if data.endswith(b"\n") else b"\n"))
        sys.stdout.flush()
    if checked.verdict == FAILS:
        raise typer.Exit(FINDING)


app.command("check-receipt")(mounted(commands.check_receipt))


@app.command("verify-page")
def verify_page_command(
    file: Annotated[Path, typer.Argument(help="a page that checks a receipt, with or without one in it")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare a page that checks receipts with the page of this release.

    The receipt in it does not count. Exits 1 if the page differs, 2 if the file is no such page.
    """
    found, expected = page_hash(file_bytes(file)), verifier_hash()
    same, ours = found == expected, f"regworkers {version('regworkers')}"
    if not has_signatures():
        ours += ", in a build that cannot check signatures: run `make verifier` to compare with the release"
    if same:
        text = Text(f"the page of {ours}\n  SHA-256 {found}", "bold green")
    else:
        text = Text(f"NOT the page of {ours}", "bold red")
        if has_signatures() and found == verifier_hash(signatures=False):
            text.append(
                "\n  It is the page of a build of the same release that cannot check signatures", "default"
            )
        text.append(f"\n  SHA-256 of the file {found}\n  of this release     {expected}", "default")
    document = {
        "same": same,
        "release": version("regworkers"),
        "signatures": has_signatures(),
        "found": found,
        "expected": expected,
    }
    answer(document, form, text, finding=not same)


@app.command("publish-page")
@flatten_options
def publish_page_command(
    change: Change,
    campaign_id: Annotated[
        str | None, typer.Argument(metavar="[CAMPAIGN]", help="id or slug; not with --from")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="exported artefacts in this folder, without a server")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="write artefacts and page to this folder, for any host of files")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Publish the page of a draw: odds, audit, hashes, and the proof of every entry.

    With --apply it is put beside the artefacts in S3; without it the command shows what would be put. A repeat puts
    nothing, a later phase replaces the page. With --output it is also written to a folder.
    """
    from regworkers_core.selection.public.publish import page_from_folder, publish_page

    if (campaign_id is None) == (source is None):
        raise UsageError("give either a campaign or --from with a folder of exported artefacts")
    with progress("leaves", "proofs") as show:
        if source is not None:
            if output is None or change.apply:
                raise UsageError("--from writes to a folder: give --output, and no --apply")
            done = page_from_folder(source, output, on_leaves=lambda more: show(advance=more))
        else:
            runtime = Runtime.load()
            found = runtime.campaigns.id_of(str(campaign_id))
            arguments = {"output": output and str(output)}
            with audited(runtime, "draw publish-page", found, arguments, dry_run=change.dry_run) as result:
                done = publish_page(
                    runtime,
                    found,
                    output=output,
                    apply=change.apply,
                    on_leaves=lambda more: show(advance=more),
                )
                result["put"] = len(done.put)
    document = done.as_dict()
    if source is None and not done.put:
        document["advice"] = "nothing to put: the page is as published"
    elif source is None and change.dry_run:
        document["advice"] = "nothing was put: add --apply to publish it"
    answer(document, form)
