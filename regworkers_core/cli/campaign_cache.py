"""`regworkers campaign cache ...`: what Redis holds of a campaign, and whether it is correct."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.changes import Deletion, audited
from regworkers_core.cli.options import CampaignArgument, flatten_options, quick_runtime
from regworkers_core.cli.output import Format, FormatOption, answer, facts, rows
from regworkers_core.operations.runbooks.campaign_configuration import (
    CachedCampaign,
    CopyComparison,
    KeyState,
    cache_store,
    clear_cached,
    compare_campaign,
    read_cached,
)

app = typer.Typer(no_args_is_help=True)
cache_app = typer.Typer(help="Show, clear and compare campaigns in Redis.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@cache_app.command("show")
def show_command(campaign: CampaignArgument, form: FormatOption = Format.TEXT) -> None:
    """Show the keys of a campaign in Redis, with TTL, state and content."""
    runtime = quick_runtime()
    found = read_cached(runtime, campaign)
    if not found.exists:
        # Redis has nothing. The other sources know whether the campaign exists, and refuse a typo.
        compare_campaign(runtime, campaign)
    answer(_document(campaign, found), form, _shown(found))


@cache_app.command("clear")
def clear_command(campaign: CampaignArgument, form: FormatOption = Format.TEXT) -> None:
    """Delete the keys of a campaign in Redis; the next check reads the source."""
    runtime = quick_runtime()
    with audited(runtime, "campaign cache clear", campaign) as result:
        found = clear_cached(runtime, campaign)
        result["keys"] = sum(each.state is not KeyState.ABSENT for each in found.keys)
    document = {**_document(campaign, found), "cleared": found.exists}
    gone = ", ".join(each.key for each in found.keys if each.state is not KeyState.ABSENT)
    words = f"deleted {gone}; the next check reads the source" if gone else "there was nothing to delete"
    answer(document, form, Text(words))


@cache_app.command("compare")
def compare_command(
    campaign: CampaignArgument,
    every: Annotated[bool, typer.Option("--all", help="show every field, also where all agree")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare a campaign in Redis, MongoDB and the Campaign Service.

    Exits 1 if they differ or one does not answer. An empty cache is no difference.
    """
    comparison = compare_campaign(quick_runtime(), campaign)
    answer(comparison.as_dict(), form, _side_by_side(comparison, every), finding=not comparison.fine)


@cache_app.command("take-over")
@flatten_options
def take_over_command(change: Deletion, form: FormatOption = Format.TEXT) -> None:
    """Make this Redis the cache of this environment: delete every campaign in it.

    Without --apply, say whose cache it is.
    """
    runtime = quick_runtime()
    store = cache_store(runtime)
    was = store.marked_by()
    words = f"this Redis is the cache of {f'environment {was!r}' if was else 'no environment'}"
    if change.dry_run:
        document = {"was": was, "is": was, "deleted": 0}
        answer(document, form, Text(f"{words}; --apply makes it that of {store.owner!r}"))
        return
    change.confirm(f"{words}, and its campaigns will be deleted", runtime.settings.environment)
    with audited(runtime, "campaign cache take-over", store.owner) as result:
        result["deleted"] = deleted = store.take_over()
    document = {"was": was, "is": store.owner, "deleted": deleted}
    answer(document, form, Text(f"deleted {deleted} keys; this Redis is the cache of {store.owner!r} now"))


def _document(named: str, found: CachedCampaign) -> dict[str, Any]:
    return {"asked": named, "keys": [each.as_dict() for each in found.keys]}


def _shown(found: CachedCampaign) -> RenderableType:
    lines = [
        (
            each.key,
            each.state.value if each.error is None else f"{each.state.value}: {each.error}",
            _left(each.left_seconds, each.state.value),
            each.content if isinstance(each.content, str) else None,
        )
        for each in found.keys
    ]
    parts: list[RenderableType] = [rows(("key", "", "TTL left", "leads to"), lines)]
    parts += [facts(each.content, title=each.key) for each in found.keys if isinstance(each.content, dict)]
    return Group(*parts)


def _left(seconds: float | None, state: str) -> str | None:
    if state == "absent":
        return None
    return "none" if seconds is None else f"{seconds:.0f} s"


def _side_by_side(comparison: CopyComparison, every: bool) -> RenderableType:
    names = list(comparison.sides)
    heads = [
        (name, side.state.value if side.error is None else f"{side.state.value}: {side.error}")
        for name, side in comparison.sides.items()
    ]
    lines = [
        ("≠" if differs else "", field, *(values.get(name) for name in names))
        for field, values, differs in comparison.lines
        if differs or every
    ]
    parts: list[RenderableType] = [rows(("", f"cache source: {comparison.source}"), heads)]
    if lines:
        parts.append(rows(("", "field", *names), lines))
    count = sum(differs for _, _, differs in comparison.lines)
    words = "no difference" if not count else "1 difference" if count == 1 else f"{count} differences"
    if comparison.lines:
        parts.append(Text(f"{words} in {len(comparison.lines)} fields, among the sources that answered"))
    else:
        parts.append(Text("no source answered: nothing was compared"))
    if comparison.advice:
        parts.append(Text(comparison.advice))
    return Group(*parts)
