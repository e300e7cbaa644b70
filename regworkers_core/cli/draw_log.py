"""`regworkers draw log|log-key|code-proof`, `regworkers witness`: the public log, its key, a witness of logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from fairdraw import scheduling
from fairdraw.documents import as_json
from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.draw_proof import TrustOption, trusted_keys
from regworkers_core.cli.options import CampaignArgument, file_bytes, flatten_options, write_file
from regworkers_core.cli.output import Format, FormatOption, answer
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime

if TYPE_CHECKING:
    from fairdraw.log.follow import FollowedLog
    from fairdraw.proof.logged import LogKeys

app = typer.Typer()


@app.command("log")
def log_command(
    campaign_id: Annotated[
        str | None,
        typer.Argument(
            metavar="CAMPAIGN", help="show this campaign's leaves: id or slug; with --from its id"
        ),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option("--from", help="a folder or https:// address with log and draws, instead of the bucket"),
    ] = None,
    trust: TrustOption = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="file with the checkpoint of the last time: the log must continue it; replaced if it does"
        ),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Verify the public log, and show what it says of draws.

    Exits 1 for a logged file that is missing or another one, a draw that has neither a result nor an annulment a day
    after its round, a manifest that was replaced in silence or too late, a code that is planned twice, a log that was
    rewritten, or too few witnesses.
    """
    from fairdraw.log.follow import follow
    from fairdraw.log.place import at_place
    from regworkers_core.selection.proof.source import in_bucket

    if place is not None:
        source = at_place(place)
    else:
        runtime = Runtime.load()
        source = in_bucket(runtime.objects)
        campaign_id = campaign_id and runtime.campaigns.id_of(campaign_id)
    kept = file_bytes(checkpoint) if checkpoint is not None and checkpoint.exists() else None
    trusted = None if trust is None else trusted_keys(trust).keys
    found = follow(
        source,
        now=scheduling.now(),
        campaign_id=campaign_id,
        trusted=trusted,
        kept=kept,
    )
    if checkpoint is not None and not found.findings:
        write_file(checkpoint, found.checkpoint.encode())
    answer(found.as_dict(), form, _shown(found, trusted, campaign_id), finding=found.findings)


def _shown(found: FollowedLog, trusted: LogKeys | None, campaign_id: str | None) -> RenderableType:
    parts: list[RenderableType] = [Text(f"FINDING: {each}", style="bold red") for each in found.findings]
    if not found.findings:
        parts.append(Text("the log holds together, and every draw in it is accounted for", "bold green"))
    parts += [Text(f"{each}: the operator annulled this draw", style="bold red") for each in found.annulled]
    parts.append(Text(f"{found.origin}: {found.size} leaves, root {found.root}"))
    by = "of your file" if trusted and trusted.log else "as the operator gave them"
    parts.append(Text(f"keys {by}: {', '.join(found.keys)}"))
    seen = ", ".join(f"{name} at {at}" for name, at in found.witnesses.items())
    parts.append(
        Text(f"cosigned by {seen or 'no witness'}; needed are {found.needed}")
        if found.needed or seen
        else Text("no witness: that all see the same log is the operator's word alone")
    )
    if found.waiting:
        waiting = "1 leaf waits" if found.waiting == 1 else f"{found.waiting} leaves wait"
        parts.append(Text(f"{waiting} for witnesses"))
    for index, leaf in found.leaves:
        of = "" if campaign_id else f" {leaf.campaign_id or '-'}"
        parts.append(Text(f"{index:>6} {leaf.time}{of} phase {leaf.phase} {leaf.kind:<10} {leaf.hash}"))
    return Group(*parts)


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
    from regworkers_core.selection.log.public_log import PublicLog

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
    """Show position and salt by which winners find their code in the public log.

    The salt is for the winner only. Exits 1 if the ref has no code.
    """
    from regworkers_core.selection.assign.digests import code_proofs

    runtime = Runtime.load()
    campaign_id = runtime.campaigns.id_of(campaign_id)
    found = code_proofs(runtime, campaign_id, ref)
    answer({"campaignId": campaign_id, "ref": ref, "codes": as_json(found)}, form, finding=not found)


def witness_command(
    folder: Annotated[Path, typer.Option(help="its key and state; made if missing")],
    log: Annotated[list[str], typer.Option(help="verifier key of a log; repeatable")],
    name: Annotated[str, typer.Option(help="name of a new witness, like witness.example/w1")] = "",
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one")] = 7380,
) -> None:
    """Run a witness of public logs: it cosigns every checkpoint that continues the one before.

    Prints its own verifier key and its address. The file fairdraw/log/witness.py does the same without this package.
    """
    from fairdraw.log.witness import serve

    try:
        serve(folder, name, log, host, port)
    except KeyboardInterrupt:
        return
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None
