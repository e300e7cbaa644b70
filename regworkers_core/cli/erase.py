"""`regworkers erase`: one fan's entry, what came back after its erasure, and every erasure after a restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.changes import Deletion, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer, facts, progress, rows
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.erasure.again import AgainReport, ErasureHooks, pending, replay
from regworkers_core.operations.erasure.erase import ErasureReport, erase
from regworkers_core.operations.on_call import OneEntry
from regworkers_core.runtime import Runtime

_REPLAY = "replay"
_SHOWN = 100


@flatten_options
def erase_command(
    change: Deletion,
    campaign_id: Annotated[
        str | None,
        typer.Argument(metavar="[CAMPAIGN|replay]", help="id or slug, or replay", show_default=False),
    ] = None,
    entry_id: Annotated[
        str | None, typer.Argument(metavar="[ENTRY]", help="its id in the campaign", show_default=False)
    ] = None,
    only_pending: Annotated[
        bool, typer.Option("--pending", help="erase what came back behind the tombstone of an erased fan")
    ] = False,
    campaign: Annotated[
        str | None, typer.Option(help="with replay or --pending: only this campaign, by id or slug")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Erase a fan's entry from every store.

      regworkers erase <campaignId> <entryId>      one entry, and what remains, until when and why
      regworkers erase --pending                   entries that a writer or a backup put back
      regworkers erase replay                      every erasure again, after a restore of the table or of MongoDB

    Without --apply it reports what would be erased. --apply prompts for the entry's id, or for the number of entries.
    Exits 1 if something is left to do. If it is killed, the same command continues. docs/erasure.md lists what is
    erased and what remains.
    """
    replays = campaign_id == _REPLAY and entry_id is None
    if replays or only_pending:
        if only_pending and campaign_id is not None:
            raise UsageError(
                "--pending takes no entry: it finds them; --campaign C limits it to one campaign"
            )
        _again(replays, campaign, change, form)
        return
    if campaign_id is None or entry_id is None:
        raise UsageError("name CAMPAIGN and ENTRY, or --pending, or replay: `regworkers erase --help`")
    if campaign is not None:
        raise UsageError("--campaign needs replay or --pending")
    named = {"campaign_id": campaign_id, "entry_id": entry_id}
    given = OneEntry.of(named, lambda name: name.removesuffix("_id").upper())
    runtime = Runtime.load()
    _one(runtime, EntryKey(runtime.campaigns.id_of(campaign_id), given.entry_id), change, form)


def _one(runtime: Runtime, key: EntryKey, change: Deletion, form: Format) -> None:
    report = _erased(runtime, key, dry_run=not (change.apply and change.yes))
    if change.apply and not change.yes and report.known:
        change.confirm(f"{key.shown} will be erased permanently", key.entry_id)
        report = _erased(runtime, key, dry_run=False)
    answer(report.as_dict(), form, _erasure_text(report), finding=not report.finished)


def _erased(runtime: Runtime, key: EntryKey, *, dry_run: bool) -> ErasureReport:
    with audited(runtime, "erase", key.document_id, dry_run=dry_run) as came_to, _followed() as hooks:
        report = erase(runtime, key, dry_run=dry_run, on_phase=hooks.on_phase)
        came_to |= report.numbers | {"finished": report.finished}
    return report


def _again(replays: bool, campaign: str | None, change: Deletion, form: Format) -> None:
    runtime = Runtime.load()
    campaign = campaign and runtime.campaigns.id_of(campaign)
    what, work = ("erase replay", replay) if replays else ("erase pending", pending)
    with _followed() as hooks:
        report = work(runtime, campaign, hooks=hooks)
    if change.apply and report.found:
        change.confirm(f"{report.found} entries will be erased permanently", str(report.found))
        with (
            audited(runtime, what, campaign or "all campaigns", {"confirmed": report.found}) as came_to,
            _followed() as hooks,
        ):
            report = work(runtime, campaign, confirmed=report.found, hooks=hooks)
            came_to |= report.numbers
    answer(report.as_dict(), form, _again_text(report), finding=not report.finished)


@contextmanager
def _followed() -> Iterator[ErasureHooks]:
    with progress("entries", "reading") as show:
        yield ErasureHooks(
            on_progress=lambda seen: show(completed=seen),
            on_phase=lambda phase: show(description=phase),
        )


def _erasure_text(report: ErasureReport) -> RenderableType:
    if not report.known:
        return Text(
            f"neither store has {report.key.shown}: check the ids. After a restore, `regworkers erase replay` finds"
            " the entries that were erased before it"
        )
    done = "would be erased" if report.dry_run else "erased"
    parts: list[RenderableType] = [facts(report.numbers, title=f"{report.key.shown}: {done}")]
    if report.stays:
        columns = ("in", "as", "until", "because", "")
        stays = [(each.where, each.what, each.until, each.why, each.number) for each in report.stays]
        parts.append(rows(columns, stays, title="what remains"))
    if report.codes:
        codes = [(each.code, each.market_id, each.position, each.status) for each in report.codes]
        parts.append(rows(("code", "market", "position", ""), codes, title="for the issuer to block"))
    parts += [Text(line) for line in (*report.notes, report.advice) if line]
    if report.dry_run:
        parts.append(Text("nothing was erased: add --apply to erase it"))
    elif report.finished:
        parts.append(Text(f"erased, as of {report.erased_at}"))
    return Group(*parts)


def _again_text(report: AgainReport) -> RenderableType:
    parts: list[RenderableType] = [facts(report.numbers)]
    if report.entries:
        shown = report.entries[:_SHOWN]
        more = [(f"and {report.found - len(shown)} more", "")] if report.found > len(shown) else []
        parts.append(rows(("entry", "erased at"), [*shown, *more]))
    parts += [Text(report.advice)] if report.advice else []
    if report.dry_run and report.found:
        parts.append(Text(f"nothing was erased: add --apply to erase {report.found} entries"))
    return Group(*parts)
