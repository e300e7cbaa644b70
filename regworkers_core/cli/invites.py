"""`regworkers invites ...`: upload, count, check and remove invites."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from regworkers_core.cli.changes import Deletion, ask, at_terminal, audited, new_run_id
from regworkers_core.cli.options import CampaignArgument, flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import require_word
from regworkers_core.eligibility.invites.lists import (
    Hooks,
    InviteRow,
    ListReport,
    local_file,
    read_rows,
    read_values,
)
from regworkers_core.eligibility.invites.lookup import check_invite, count_invites
from regworkers_core.eligibility.invites.terms import campaign_of_invites, campaign_to_invite_to, parse_ttl
from regworkers_core.eligibility.invites.writing import remove_invites, upload_invites
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime

DEFAULT_FILE = Path("tools/uploadInvites/invites.csv")
_COUNTED_BYTES = 1024 * 1024

TypeArgument = Annotated[InviteType, typer.Argument(metavar="TYPE", help="email, globalUserId or memberId")]
RejectsOption = Annotated[
    Path | None, typer.Option(help="file for rejected lines [default: <file>.rejects.csv]")
]
RateOption = Annotated[
    float | None,
    typer.Option(min=1, help="at most this many writes a second [default: invites.itemsPerSecond]"),
]


app = typer.Typer(help="Upload, count, check and remove invites.", no_args_is_help=True)


@app.command("upload")
def upload_command(
    campaign: CampaignArgument,
    type_: TypeArgument,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help=f"CSV, UTF-8, with a header that has TYPE as a column [default: {DEFAULT_FILE} where it exists, after "
            "a confirmation]",
            show_default=False,
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Argument(
            metavar="[TTL]",
            help="until when: days (30), a date (2026-12-31), a time (2026-12-31T18:00:00Z) or epoch seconds "
            "[default: invites.ttlDays (30) days]",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="read and count only; rejects are written")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="also for a campaign that does not exist yet")
    ] = False,
    shorten: Annotated[
        bool, typer.Option("--shorten", help="also shorten invites that are valid longer than TTL")
    ] = False,
    until_close: Annotated[
        bool,
        typer.Option(
            "--until-close",
            help="without TTL: at least until invites.afterCloseDays (14) days after the campaign closes, as the draw "
            "needs them",
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="without FILE: take the default without a prompt"),
    ] = False,
    rejects: RejectsOption = None,
    rate: RateOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Invite the fans in FILE. Invites are effective at once.

    The same file may be uploaded again at any time, e.g. after an interruption. Invites that are valid longer are left
    unchanged. Exits 1 if lines were rejected, or if it was stopped.
    """
    runtime = Runtime.load()
    if file is None:
        file = _default_file(campaign, type_, sure=yes or dry_run)
    if ttl is not None and until_close:
        raise UsageError("give TTL or --until-close, not both")
    until, run_id = None if ttl is None else parse_ttl(ttl, runtime.clock()), new_run_id()
    campaign_id, _ = campaign_to_invite_to(runtime, campaign, force=force)
    arguments = {"type": type_.value, "file": file.name, "ttl": ttl, "shorten": shorten, "runId": run_id}
    with (
        audited(runtime, "invites upload", campaign_id, arguments, dry_run=dry_run) as result,
        _working("upload", _lines_in(file)) as hooks,
    ):
        report = upload_invites(
            runtime,
            campaign,
            type_,
            local_file(file),
            name=str(file),
            ttl=until,
            rejects=rejects or _rejects_of(file),
            run_id=run_id,
            dry_run=dry_run,
            force=force,
            shorten=shorten,
            until_close=until_close,
            rate=rate,
            hooks=hooks,
        )
        result |= _counts(report)
    _answer(report, file, form)


@app.command("count")
def count_command(
    campaign: CampaignArgument,
    type_: Annotated[
        InviteType | None, typer.Argument(metavar="[TYPE]", help="only this one", show_default=False)
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Count valid invites, and expired ones that DynamoDB still has."""
    runtime = Runtime.load()
    types = tuple(InviteType) if type_ is None else (type_,)
    with progress("invites", "count") as show:
        campaign_id, counts = count_invites(runtime, campaign, types, lambda seen: show(completed=seen))
    document = {
        "campaignId": campaign_id,
        "types": {each.type.value: {"valid": each.valid, "expired": each.expired} for each in counts},
    }
    table = rows(
        ("type", "valid", "expired"),
        [(each.type, each.valid, each.expired) for each in counts],
        title=f"invites of {campaign_id}",
    )
    answer(document, form, table)


@app.command("check")
def check_command(
    campaign: CampaignArgument,
    type_: TypeArgument,
    value: Annotated[str, typer.Argument(help="the address or id, or - to read it from stdin")],
    form: FormatOption = Format.TEXT,
) -> None:
    """Check whether a fan is invited, and until when.

    Exits 1 if not, 2 if VALUE cannot be invited.
    """
    named = _given([value])
    if len(named) != 1:
        raise UsageError(f"expected one {type_.value} on stdin, found {len(named)}")
    found = check_invite(Runtime.load(), campaign, type_, named[0])
    answer(found.as_dict(), form, finding=not found.invited)


@app.command("remove")
@flatten_options
def remove_command(
    campaign: CampaignArgument,
    type_: TypeArgument,
    change: Deletion,
    values: Annotated[
        list[str] | None,
        typer.Argument(help="the addresses or ids, or - to read them from stdin", show_default=False),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="a list of them, as for upload")] = None,
    rejects: RejectsOption = None,
    rate: RateOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Remove invites, by their values or by a file. An entry that an invite allowed remains.

    Exits 1 if lines were rejected.
    """
    named = _given(values or ())
    if bool(named) == (file is not None):
        raise UsageError("name the invites to remove, or a list of them with --file")
    runtime = Runtime.load()
    from_file = None if file is None else read_rows(local_file(file), str(file), type_)
    lines = read_values(named, type_) if from_file is None else from_file
    campaign_id, run_id = campaign_of_invites(runtime, campaign), new_run_id()
    if change.apply:
        number = len(named) if file is None else _lines_in(file)
        change.confirm(f"{number} invites of {campaign_id} will be removed", campaign_id)
    # Only the number of values that are typed in: they are fans' data.
    arguments = {
        "type": type_.value,
        "file": file and file.name,
        "values": len(named),
        "runId": run_id,
    }
    with (
        audited(runtime, "invites remove", campaign_id, arguments, dry_run=change.dry_run) as result,
        _working("remove", len(named) if file is None else _lines_in(file)) as hooks,
    ):
        report = remove_invites(
            runtime,
            campaign,
            type_,
            lines,
            rejects=rejects or _rejects_of(file or Path("removed-invites.csv")),
            run_id=run_id,
            dry_run=change.dry_run,
            rate=rate,
            hooks=hooks,
        )
        result |= _counts(report)
    if change.dry_run:
        report.advice = f"nothing was removed: add --apply to remove {report.outcomes['removed']} invites"
    _answer(report, file, form)


def _given(values: Sequence[str]) -> Sequence[str]:
    """The values, or those on stdin, one a line: typed words would stay in the shell's history."""
    if list(values) != ["-"]:
        return values
    read = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return [line.strip() for line in read.splitlines() if line.strip()]


def _default_file(campaign: str, type_: InviteType, *, sure: bool) -> Path:
    """The default list, once it is confirmed: a forgotten FILE must not invite the fans of an older list."""
    if not DEFAULT_FILE.exists():
        raise UsageError(f"name the list of invites: the default {DEFAULT_FILE} does not exist here")
    rows_in_it = sum(
        isinstance(line, InviteRow) for line in read_rows(local_file(DEFAULT_FILE), str(DEFAULT_FILE), type_)
    )
    found = f"{DEFAULT_FILE.resolve()} with {rows_in_it} rows"
    typer.echo(f"no FILE is given; the default is {found}", err=True)
    if not sure and not at_terminal():
        raise UsageError(f"no invite was written: name the list, or add --yes to take {found}")
    if not sure:
        require_word(ask(f"type {campaign} to invite them"), campaign)
    return DEFAULT_FILE


@contextmanager
def _working(what: str, lines: int | None) -> Iterator[Hooks]:
    """A progress bar. The first Ctrl-C lets writes in flight finish."""
    with progress("lines", what, total=lines) as show, StopSignal().on_signals() as stop:
        yield Hooks(stop=stop, on_progress=lambda report: show(completed=report.lines))


def _lines_in(file: Path) -> int | None:
    """Lines of the file without its header, for the progress bar; None if it cannot be read."""
    try:
        with file.open("rb") as raw:
            return sum(part.count(b"\n") for part in iter(lambda: raw.read(_COUNTED_BYTES), b""))
    except OSError:
        return None


def _rejects_of(file: Path) -> Path:
    return file.with_name(file.name + ".rejects.csv")


def _answer(report: ListReport, file: Path | None, form: Format) -> None:
    document: dict[str, Any] = {"file": None if file is None else str(file), **report.as_dict()}
    if form is Format.TEXT:
        document = {name: value for name, value in document.items() if value not in (None, {})}
        if report.dry_run and "removed" in document:
            document = {"would remove" if name == "removed" else name: document[name] for name in document}
    lines = [report.advice or ""]
    if report.rejected and not report.stopped:
        lines.append(
            f"{report.rejected.total():,} of {report.lines:,} lines were rejected and left out: see"
            f" {report.rejects_file}"
        )
    if advice := "\n".join(filter(None, lines)):
        document["advice"] = advice
    answer(document, form, finding=not report.clean)


def _counts(report: ListReport) -> dict[str, Any]:
    return {"lines": report.lines, **report.outcomes, "rejected": report.rejected.total()}
