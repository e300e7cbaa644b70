"""`regworkers provision|config init|producer-key|aws iam-policy`: resources, settings, keys and policies."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.text import Text

from fairdraw.documents import as_document
from regworkers_core.cli.changes import Adoption, Change, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.events import ProducerRole, role_named
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.infrastructure.policies.platform import ROLES, WORKERS, role_policy
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.infrastructure.provision_aws import Provisioned, ProvisionOutcome
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from regworkers_core.settings.documents import write_configs


@flatten_options
def provision_command(
    change: Adoption,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INDEX",
            help="leave this index as it is, such as entries.byMail; repeatable",
            show_default=False,
        ),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Create missing resources and adopt those that exist; with --apply change what differs.

    Resources are tables, queues, the keys of events, the bucket, indexes, topics and log groups. Exits 1 where you have
    to act first, for example on values that prevent a unique index.
    """
    from regworkers_core.infrastructure.provision import provision

    runtime = Runtime.load()
    done: list[Provisioned] = []
    with (
        audited(runtime, "provision", runtime.names.prefix or "everything", {"keep": keep}) as result,
        progress("resources", "provision") as show,
    ):

        def tell(line: str) -> None:
            console = Console(stderr=True)
            if not console.is_terminal:
                console.print(line, markup=False, highlight=False)
            show(description=line)

        for each in provision(runtime, change=change.apply, keep=keep or (), on_line=tell):
            done.append(each)
            show(completed=len(done), description=each.kind)
        result.update(Counter(each.outcome.value for each in done))
    document = [as_document(each, "kind", "name", "outcome", "note") for each in done]
    table = rows(("kind", "name", ""), [(each.kind, each.name, each.outcome) for each in done])
    # Sentences are below the table: on a narrow terminal a column would break them up.
    below = [f"{each.kind} {each.name} {each.outcome}: {each.note}" for each in done if each.note]
    differ = sum(each.outcome is ProvisionOutcome.DIFFERS for each in done)
    below += [f"{differ} were left as they are: add --apply to change them"] if differ else []
    answer(
        document,
        form,
        Group(table, *map(Text, below)),
        finding=any(each.outcome is ProvisionOutcome.BLOCKED for each in done),
    )


@flatten_options
def producer_key_command(
    role: Annotated[str, typer.Argument(help=", ".join(ProducerRole))],
    change: Change,
    replace: Annotated[
        bool, typer.Option("--change", help="replace the key; the former one is accepted for 29 days")
    ] = False,
    leaked: Annotated[
        bool,
        typer.Option("--leaked", help="with --change: nothing that the key has signed is accepted any more"),
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show which keys sign a role's events, by their ids; with --change --apply replace the key.

    Processes use a new key within five minutes. What a leaked key has signed and is not published yet ends on the
    dead-letter queue with the reason FORGED.
    """
    if (change.apply or leaked) and not replace:
        raise UsageError("--apply and --leaked are for --change: without it the keys are only shown")
    of = role_named(role)
    runtime = Runtime.load()
    keys = runtime.producer_keys
    if change.apply:
        with audited(runtime, "producer-key", of.value, {"change": True, "leaked": leaked}) as result:
            result["key"] = keys.change(of, leaked=leaked).id
    accepted = keys.current(of)
    if not accepted:
        raise UsageError(f"{of} has no key: run `regworkers provision`")
    current, *former = accepted
    advice = "nothing was changed: add --apply to change the key" if replace and change.dry_run else ""
    document = {
        "role": of.value,
        "key": current.id,
        "since": current.since,
        "former": [each.id for each in former],
    }
    until = {"formerUntil": iso(current.former_until)} if former else {}
    answer({**document, **until, "advice": advice}, form)


config_app = typer.Typer(no_args_is_help=True)


@config_app.command("init")
def config_init_command(form: FormatOption = Format.TEXT) -> None:
    """Write the settings of every environment as files to edit, where an installed wheel looks for them.

    The folder is that of REGWORKERS_CONFIG_DIR, else ~/.config/regworkers. A file that exists is never replaced.
    """
    written = write_configs()
    answer({"folder": str(written[0].parent), "files": [path.name for path in written]}, form)


_ACCOUNT, _LOG_BUCKET = "ACCOUNT", "LOG_BUCKET"
app = typer.Typer(no_args_is_help=True)


@app.command("iam-policy")
def iam_policy_command(
    role: Annotated[str | None, typer.Option(help=" or ".join(ROLES), show_default=False)] = None,
    account: Annotated[str, typer.Option(help="the account's 12-digit number")] = _ACCOUNT,
    log_bucket: Annotated[str, typer.Option(help="the bucket of Dagster's compute logs")] = _LOG_BUCKET,
    list_workers: Annotated[
        bool, typer.Option("--list", help="list the workers, what each is for, and its roles")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Print the least-privilege IAM policy of one role, or of all roles.

    The JSON document is for `aws iam create-policy`. A role has the rights of all its workers.
    """
    if account != _ACCOUNT and not re.fullmatch(r"\d{12}", account):
        raise UsageError(f"--account must be 12 digits (got {account!r})")
    if role is not None and role not in ROLES:
        raise UsageError(f"--role must be {' or '.join(ROLES)} (got {role!r})")
    if list_workers:
        roles_of = {each.name: [name for name, of in ROLES.items() if each.name in of] for each in WORKERS}
        table = rows(
            ("worker", "for", "roles"),
            [(each.name, each.does, ", ".join(roles_of[each.name])) for each in WORKERS],
        )
        listed = [{"worker": each.name, "for": each.does, "roles": roles_of[each.name]} for each in WORKERS]
        answer(listed, form, table)
        return
    place = place_of(load_settings(), account=account, log_bucket=log_bucket)
    policies = {each: role_policy(each, place) for each in ROLES if role in (None, each)}
    answer(policies if role is None else policies[role], Format.JSON)
