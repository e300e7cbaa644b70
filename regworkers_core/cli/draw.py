"""`regworkers draw verify|check-receipt|verify-page|log|audit-registrations|log-key|code-proof`: proof of a draw."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fairdraw import commands
from fairdraw.answers import Answer
from fairdraw.commands import file_bytes
from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.check import FAILS, check_receipt
from fairdraw.proof.receipt_view import receipt_text
from fairdraw.verifier.assemble import has_signatures, page_hash, verifier_hash
from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import CampaignArgument, flatten_options, mounted
from regworkers_core.cli.output import Format, FormatOption, answer, progress
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime

app = typer.Typer(no_args_is_help=True)


def _verify(target: str, **given: Any) -> Answer:
    from regworkers_core.selection.public.source import artefacts_of

    with progress("steps", "verify") as show:
        return commands.verify(
            target,
            **given,
            artefacts=lambda named: artefacts_of(named, Runtime.load),
            tell=lambda text: show(advance=1, description=text),
        )


app.command("verify")(
    mounted(
        commands.verify,
        _verify,
        about="For a campaign without --manifest-hash the hashes of its record are compared, which proves less.",
        target="a folder with phase-1, ..., s3://bucket/prefix, or a campaign's id",
    )
)


app.command("check-receipt")(mounted(commands.check_receipt))


@app.command("verify-page")
def verify_page_command(
    file: Annotated[Path, typer.Argument(help="a page that checks a receipt, with or without one in it")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare a page that checks receipts with the page of this release.

    The receipt in it does not count. Exits 1 if the page differs, 2 if the file is no such page.
    """
    try:
        found, expected = page_hash(file_bytes(file)), verifier_hash()
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
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


def _log(campaign: str | None, *, from_: str | None, **given: Any) -> Answer:
    from regworkers_core.selection.public.source import in_bucket
    from regworkers_core.selection.public.witnesses import Witnesses

    if from_ is not None:
        return commands.log(campaign, from_=from_, **given)
    runtime = Runtime.load()
    named = campaign and runtime.campaigns.id_of(campaign)
    addresses = Witnesses.of(runtime).monitored
    return commands.log(named, place=in_bucket(runtime.objects), addresses=addresses, **given)


app.command("log")(
    mounted(
        commands.log,
        _log,
        campaign="show this campaign's leaves: id or slug; with --from its id",
        from_="a folder or https:// address with log and draws, instead of the bucket",
    )
)


def _audit(campaign: str, opening: Path, *, from_: str | None, **given: Any) -> Answer:
    from regworkers_core.selection.public.source import in_bucket

    if from_ is not None:
        return commands.audit_registrations(campaign, opening, from_=from_, **given)
    runtime = Runtime.load()
    named = runtime.campaigns.id_of(campaign)
    return commands.audit_registrations(named, opening, place=in_bucket(runtime.objects), **given)


app.command("audit-registrations")(
    mounted(
        commands.audit_registrations,
        _audit,
        campaign="id or slug of the campaign; with --from its id",
        from_="a folder or https:// address with draws and registrations, instead of the bucket",
    )
)


@app.command("log-key")
@flatten_options
def key_command(
    change: Change,
    replace: Annotated[bool, typer.Option("--change", help="replace the key; both sign for 30 days")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show the verifier key of the public log, which witnesses and verifiers need; make the key if there is none.

    --change --apply replaces it: give the new key to all witnesses within the 30 days in which both keys sign.
    """
    from regworkers_core.selection.public.public_log import PublicLog

    if change.apply and not replace:
        raise UsageError("--apply is for --change: without it the key is only shown")
    runtime = Runtime.load()
    log = PublicLog.of(runtime)
    if change.apply:
        with audited(runtime, "draw log-key", log.origin, {"change": True}):
            log.change_key()
    else:
        log.ensure_key()
    current, *former = map(str, log.verifier_keys())
    advice = "nothing was changed: add --apply to change the key" if replace and change.dry_run else ""
    answer({"origin": log.origin, "key": current, "former": former, "advice": advice}, form)


@app.command("code-proof")
def code_command(
    campaign_id: CampaignArgument,
    ref: Annotated[str, typer.Argument(help="the reference that the confirmation gave")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Show a winner's receipt with the code in it: as JSON for `fairdraw check-receipt` and its page.

    It is for the winner only. Exits 1 if the ref has no code, or the receipt does not hold.
    """
    from regworkers_core.selection.assign.plan import code_proof
    from regworkers_core.selection.public.source import cache_folder
    from regworkers_core.selection.registrations.opening import receipts_of

    runtime = Runtime.load()
    campaign_id = runtime.campaigns.id_of(campaign_id)
    proof = code_proof(runtime, campaign_id, ref)
    if proof is None:
        answer({"campaignId": campaign_id, "ref": ref, "code": None}, form, finding=True)
        return
    receipt = receipts_of(runtime, campaign_id, cache_folder()).receipt(ref) | {"code": proof.part}
    checked = check_receipt(canonical_bytes(receipt), codes=proof.planned)
    answer(receipt, form, Text(receipt_text(receipt, checked)), finding=checked.verdict == FAILS)
