"""`regworkers erase`: a fan's entry out of everywhere, what came back after it, and all of it after a restore."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, progress, rows
from regworkers_core.cli.trace import entry_key
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.erasure.again import AgainReport, Hooks, pending, replay
from regworkers_core.operations.erasure.erase import ErasureReport, erase
from regworkers_core.runtime import Runtime

_REPLAY = "replay"
_SHOWN = 100


def register(app: typer.Typer) -> None:
    app.command("erase")(erase_command)


def erase_command(
    campaign_id: Annotated[
        str | None, typer.Argument(metavar="[CAMPAIGN|replay]", help="its id, or replay", show_default=False)
    ] = None,
    entry_id: Annotated[
        str | None, typer.Argument(metavar="[ENTRY]", help="its id in the campaign", show_default=False)
    ] = None,
    only_pending: Annotated[
        bool, typer.Option("--pending", help="take out what came back behind the tombstone of an erased fan")
    ] = False,
    campaign: Annotated[str | None, typer.Option(help="with replay or --pending: only this campaign")] = None,
    confirm: Annotated[
        str,
        typer.Option(metavar="WORD", help="do it: the entry's id once more, or the number of entries found"),
    ] = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Take a fan's entry out of every store, or, without --confirm, say what that would be. Exit code 1 when something
    is left to do.

      regworkers erase <campaignId> <entryId>      one entry; what stays, until when and why
      regworkers erase --pending                   entries that a writer or a backup put back
      regworkers erase replay                      after a restore of the table or of MongoDB: every erasure once more

    Killed anywhere, the same command goes on. docs/erasure.md has what is taken out and what stays.
    """
    replays = campaign_id == _REPLAY and entry_id is None
    if replays or only_pending:
        if only_pending and campaign_id is not None:
            raise UsageError("--pending takes no entry: it finds them; --campaign C keeps it to one campaign")
        _again(replays, campaign, confirm, form)
        return
    if campaign_id is None or entry_id is None:
        raise UsageError("name CAMPAIGN and ENTRY, or --pending, or replay: `regworkers erase --help`")
    if campaign is not None:
        raise UsageError("--campaign goes with replay and --pending")
    _one(entry_key(campaign_id, entry_id), confirm, form)


def _one(key: EntryKey, confirm: str, form: Format) -> None:
    runtime = Runtime.load()
    if confirm:
        _require(confirm, key.entry_id)
    report = _erased(runtime, key, dry_run=not confirm)
    if not confirm and report.known and _somebody_is_there():
        typer.echo(f"{key.shown} would be erased, for good", err=True)
        _require(typer.prompt("type the entry's id to erase it", err=True), key.entry_id)
        report = _erased(runtime, key, dry_run=False)
    answer(report.as_dict(), form, _erasure_text(report))
    if not report.finished:
        raise typer.Exit(FINDING)


def _erased(runtime: Runtime, key: EntryKey, *, dry_run: bool) -> ErasureReport:
    with by_hand(runtime, "erase", key.document_id, dry_run=dry_run) as came_to, _followed() as hooks:
        report = erase(runtime, key, dry_run=dry_run, on_phase=hooks.on_phase)
        came_to |= report.numbers | {"finished": report.finished}
    return report


def _again(replays: bool, campaign: str | None, confirm: str, form: Format) -> None:
    runtime = Runtime.load()
    number = _number(confirm) if confirm else None
    what, work = ("erase replay", replay) if replays else ("erase pending", pending)
    target = campaign or "all campaigns"
    with (
        by_hand(runtime, what, target, {"confirmed": number}, dry_run=number is None) as came_to,
        _followed() as hooks,
    ):
        report = work(runtime, campaign, confirmed=number, hooks=hooks)
        came_to |= report.numbers
    command = f"regworkers {'erase replay' if replays else 'erase --pending'}"
    command += f" --campaign {campaign}" if campaign else ""
    answer(report.as_dict(), form, _again_text(report, f"{command} --confirm {report.found}"))
    if not report.finished:
        raise typer.Exit(FINDING)


@contextmanager
def _followed() -> Iterator[Hooks]:
    with progress("entries") as bar:
        task = bar.add_task("looking", total=None)
        yield Hooks(
            on_progress=lambda seen: bar.update(task, completed=seen),
            on_phase=lambda phase: bar.update(task, description=phase),
        )


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _require(typed: str, expected: str) -> None:
    if typed.strip() != expected:
        raise UsageError("what was typed is not the entry's id: nothing was erased")


def _number(confirm: str) -> int:
    if not confirm.isascii() or not confirm.isdigit():
        raise UsageError("--confirm takes the number of entries that were found: nothing was erased")
    return int(confirm)


def _erasure_text(report: ErasureReport) -> RenderableType:
    if not report.known:
        return Text(
            f"neither store knows {report.key.shown}: check the ids. After a restore, `regworkers erase replay` finds"
            " who was erased before it"
        )
    done = "would be taken out" if report.dry_run else "taken out"
    parts: list[RenderableType] = [facts(report.numbers, title=f"{report.key.shown}: {done}")]
    if report.stays:
        columns = ("stays in", "as", "until", "because", "")
        stays = [(each.where, each.what, each.until, each.why, each.number) for each in report.stays]
        parts.append(rows(columns, stays, title="what stays"))
    if report.codes:
        codes = [(each.code, each.market_id, each.position, each.status) for each in report.codes]
        parts.append(rows(("code", "market", "position", ""), codes, title="for the issuer to block"))
    parts += [Text(line) for line in (*report.notes, report.advice) if line]
    if report.dry_run:
        parts.append(Text(f"nothing is erased yet: repeat it with --confirm {report.key.entry_id}"))
    elif report.finished:
        parts.append(Text(f"erased, as of {report.erased_at}"))
    return Group(*parts)


def _again_text(report: AgainReport, command: str) -> RenderableType:
    parts: list[RenderableType] = [facts(report.numbers)]
    if report.entries:
        shown = report.entries[:_SHOWN]
        more = [(f"and {report.found - len(shown)} more", "")] if report.found > len(shown) else []
        parts.append(rows(("entry", "erased at"), [*shown, *more], whole=("entry",)))
    parts += [Text(report.advice)] if report.advice else []
    if report.dry_run and report.found:
        parts.append(Text(f"nothing is erased yet: `{command}` does"))
    return Group(*parts)
