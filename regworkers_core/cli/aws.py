"""`regworkers aws ...`: what stands on AWS against what is declared, who may do what, dashboards and alarms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import FINDING, TROUBLE, Format, FormatOption, answer, progress, rows
from regworkers_core.domain.alert import Severity
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.infrastructure.dashboards.publish_dashboards import Change as PartChange
from regworkers_core.infrastructure.dashboards.publish_dashboards import State, publish
from regworkers_core.infrastructure.discovery.compare import Discovery, Line, discover
from regworkers_core.infrastructure.discovery.terraform import read_state
from regworkers_core.infrastructure.policies.platform import WORKERS
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.operations.health.dependency_status import with_short_timeouts
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings

_ACCOUNT, _LOG_BUCKET = "ACCOUNT", "LOG_BUCKET"
# Of things that could not be read for the same reason.
_NAMED = 3
_TOPIC = re.compile(r"arn:[a-z-]+:[a-z]+:[a-z0-9-]*:\d{12}:\S+")


def register(app: typer.Typer) -> None:
    aws = typer.Typer(help="Resources, policies, dashboards and alarms on AWS.", no_args_is_help=True)
    aws.command("find-resources")(find_command)
    aws.command("iam-policy")(policy_command)
    aws.command("publish-dashboards")(publish_command)
    app.add_typer(aws, name="aws")


def find_command(
    terraform: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="output of `terraform show -json`", show_default=False),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Tables, queues, the bucket, log groups, dashboards, alarms, policies and roles of the environment that CONFIG_ENV
    names, against what its settings declare and, if given, what Terraform knows.

    Exit code 1 with any difference. Without one, 2 when something could not be read, which is not taken for absent.
    """
    state = None if terraform is None else read_state(terraform)
    found = discover(Runtime(with_short_timeouts(load_settings())), state)
    answer(found.as_dict(), form, _comparison(found))
    if found.differing:
        raise typer.Exit(FINDING)
    if found.blind:
        raise typer.Exit(TROUBLE)


def _comparison(found: Discovery) -> Group:
    columns = [
        "",
        "resource",
        "declared",
        "found",
        *(["terraform"] if found.with_terraform else []),
        "differences",
    ]
    lines = [
        [
            line.kind,
            line.name,
            "no" if line.declared is None else "if wanted" if line.optional else "yes",
            _found(line),
            *([_known(line)] if found.with_terraform else []),
            len(line.differences) or "",
        ]
        for line in found.lines
        # What may be absent and is: nobody asked for it.
        if not (line.optional and line.found is None and line.terraform is None)
    ]
    # Sentences stand below: a narrow terminal would leave them a column of a few letters.
    below = [f"{line.kind} {line.name}: {text}" for line in found.lines for text in line.differences]
    below += [f"nobody declares {line.kind} {line.name}" for line in found.strays]
    below += _unread(found)
    if found.empty:
        below.append(f"nothing of {found.environment} stands: `regworkers provision`, or deploy/terraform")
    return Group(rows(columns, lines, whole=("resource",)), *(Text(line) for line in below))


def _unread(found: Discovery) -> Iterator[str]:
    """A line for each reason, which is mostly the same for many."""
    by_reason: dict[str, list[str]] = {}
    for what, why in found.unread.items():
        by_reason.setdefault(why, []).append(what)
    for line in found.lines:
        for why in line.unread:
            by_reason.setdefault(why, []).append(f"{line.kind} {line.name}")
    for why, names in by_reason.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"could not read {', '.join(names[:_NAMED])}{more}: {why}"


def _found(line: Line) -> str:
    if line.found is None:
        return "–" if line.declared is None else "absent"
    if isinstance(line.found, Unread):
        return "could not read"
    return "partly read" if line.unread else "yes"


def _known(line: Line) -> str:
    return "absent" if line.terraform is None else "yes"


def policy_command(
    worker: Annotated[
        str | None,
        typer.Option(help=" or ".join(worker.name for worker in WORKERS), show_default=False),
    ] = None,
    account: Annotated[str, typer.Option(help="the account's number, 12 digits")] = _ACCOUNT,
    log_bucket: Annotated[str, typer.Option(help="the bucket of Dagster's compute logs")] = _LOG_BUCKET,
    list_workers: Annotated[
        bool, typer.Option("--list", help="the workers and whom their policies are for")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """The smallest policy of one worker, as JSON for `aws iam create-policy`; of all, by name, without --worker."""
    if account != _ACCOUNT and not re.fullmatch(r"\d{12}", account):
        raise UsageError(f"--account takes 12 digits, found {account!r}")
    chosen = [each for each in WORKERS if worker in (None, each.name)]
    if not chosen:
        raise UsageError(f"there is no worker {worker!r}: `regworkers aws iam-policy --list`")
    if list_workers:
        table = rows(("worker", "for"), [(each.name, each.does) for each in chosen])
        answer([{"worker": each.name, "for": each.does} for each in chosen], form, table)
        return
    place = place_of(load_settings(), account=account, log_bucket=log_bucket)
    policies = {each.name: each.policy(place) for each in chosen}
    answer(policies if worker is None else policies[worker], Format.JSON)


@flatten_options
def publish_command(
    change: Change,
    critical_topic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARN",
            help="whom critical alarms tell; may be repeated; none: as it stands",
            show_default=False,
        ),
    ] = None,
    warning_topic: Annotated[
        list[str] | None,
        typer.Option(metavar="ARN", help="whom alarms tell that are warnings; likewise", show_default=False),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare dashboard, alarms and saved queries with CloudWatch; with --apply write them."""
    topics = {Severity.CRITICAL: critical_topic or [], Severity.WARNING: warning_topic or []}
    for severity, names in topics.items():
        for each in names:
            if not _TOPIC.fullmatch(each):
                raise UsageError(f"--{severity}-topic takes an ARN, found {each!r}")
    runtime = Runtime.load()
    changes: list[PartChange] = []
    environment, dry_run = runtime.settings.environment, change.dry_run
    with (
        audited(
            runtime, "aws publish-dashboards", environment, {"topics": topics}, dry_run=dry_run
        ) as result,
        progress("parts") as bar,
    ):
        task = bar.add_task("compare" if dry_run else "publish", total=None)
        for part in publish(runtime, dry_run=dry_run, topics=topics):
            changes.append(part)
            bar.update(task, completed=len(changes))
        result["written"] = sum(each.written for each in changes)
    answer([each.as_dict() for each in changes], form, _changes(changes))


def _changes(changes: list[PartChange]) -> Group:
    lines = [(each.kind, each.name, "written" if each.written else each.state) for each in changes]
    diffs = [Text(f"{each.kind} {each.name}\n" + "\n".join(each.diff)) for each in changes if each.diff]
    open_ = sum(each.state in (State.NEW, State.DIFFERS) and not each.written for each in changes)
    last = [Text(f"nothing was written: add --apply to write {open_} parts")] if open_ else []
    return Group(rows(("", "name", ""), lines), *diffs, *last)
