"""`regworkers certs generate`: renew Kafka's client certificates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from fairdraw.documents import as_document
from regworkers_core.adapters.vault import Vault
from regworkers_core.cli.changes import ask, audited
from regworkers_core.cli.output import Format, FormatOption, answer
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Environment, settings_of


class Method(StrEnum):
    USER = "user"
    APP = "app"


class Target(StrEnum):
    STORE = "secret-store"
    CI = "ci"


_CHOICES = "qa/dev, preprod or prod"


app = typer.Typer(no_args_is_help=True)


@app.command("generate")
def generate_command(
    environment: Annotated[
        str | None,
        typer.Option(
            "--env", envvar="REGWORKERS_CERTS_ENV", help=f"{_CHOICES} [default: a prompt]", show_default=False
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            envvar="REGWORKERS_CERTS_METHOD",
            help="how to log in to Vault [default: a prompt]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Target, typer.Option("--to", help="the environment's secret store, or PEM for a CI variable")
    ] = Target.STORE,
    output: Annotated[
        Path | None,
        typer.Option(help="with --to ci: a new file [default: stdout]", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not prompt")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what Vault would be asked for; do not ask it")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Renew a certificate with Vault, verify it, then store or print it.

    Prompts for what is missing, without echo. Without a terminal set VAULT_USERNAME and VAULT_PASSWORD, or
    VAULT_ROLE_ID and VAULT_SECRET_ID.
    """
    from regworkers_core.operations import certificates

    if output is not None and target is not Target.CI:
        raise UsageError("--output needs --to ci")
    if output is not None and output.exists():
        raise UsageError(f"{output} exists already: name a new file")
    chosen = certificates.CHOICES.get(_choice(environment))
    if chosen is None:
        raise UsageError(f"--env must be one of {_CHOICES} (got {environment})")
    runtime = Runtime(settings_of(chosen))
    plan = certificates.plan(runtime, chosen)
    plan_document: dict[str, Any] = {**as_document(plan), "to": _where(runtime, chosen, target, output)}
    if dry_run:
        answer({**plan_document, "advice": "nothing was issued: this is the plan"}, form)
        return
    if not yes:
        _confirm(plan_document)
    # A laptop often reaches Vault and the secret store of an environment, but not its MongoDB. Both have logs of their
    # own.
    unrecorded = runtime.settings.mongo.uri is None
    arguments = {"to": target.value, "commonName": plan.common_name}
    with audited(runtime, "certs generate", chosen, arguments, dry_run=unrecorded):
        with _vault(runtime) as vault:
            _log_in(vault, method)
            issued = vault.issue(plan.common_name)
        inspection = certificates.verified(runtime, issued)
        if target is Target.STORE:
            certificates.store(runtime, issued)
    if target is Target.CI and output is None:
        variable = certificates.CI_VARIABLES[chosen]
        answer({"variable": variable, "pem": issued.bundle}, form, Text(issued.bundle, end=""))
        return
    if output is not None:
        _write(output, issued.bundle)
    answer({**plan_document, **as_document(inspection), "advice": _advice(chosen, target)}, form)


def _choice(environment: str | None) -> str:
    found = environment or ask(f"environment ({_CHOICES})", "REGWORKERS_CERTS_ENV")
    return "qa/dev" if found in ("qa", "dev") else found


@contextmanager
def _vault(runtime: Runtime) -> Iterator[Vault]:
    """Vault, whose token is revoked at the end. Raises UsageError if Vault does not answer."""
    vault = runtime.vault
    try:
        yield vault
    except TransientFailure as failure:
        raise UsageError(str(failure)) from None
    finally:
        vault.close()


def _log_in(vault: Vault, method: Method | None) -> None:
    found = method
    if found is None:
        typed = ask("log in as (user or app)", "REGWORKERS_CERTS_METHOD")
        with suppress(ValueError):
            found = Method(typed)
    if found is Method.USER:
        vault.login_user(
            ask("name", "VAULT_USERNAME", hidden=True), ask("password", "VAULT_PASSWORD", hidden=True)
        )
    elif found is Method.APP:
        vault.login_app(
            ask("role id", "VAULT_ROLE_ID", hidden=True), ask("secret id", "VAULT_SECRET_ID", hidden=True)
        )
    else:
        raise UsageError(f"--method must be user or app (got {typed})")


def _where(runtime: Runtime, environment: Environment, target: Target, output: Path | None) -> str:
    from regworkers_core.operations import certificates

    if target is Target.CI:
        where = "stdout" if output is None else f"file {output}"
        return f"{where}, for the CI variable {certificates.CI_VARIABLES[environment]}"
    secrets = [runtime.names.prefix + each for each in certificates.secrets_of(runtime)]
    return "secret " + " and ".join(secrets)


def _confirm(plan_document: dict[str, Any]) -> None:
    """Show the plan on stderr and prompt. Raises UsageError unless the answer is yes."""
    for name, value in plan_document.items():
        typer.echo(f"{name}: {value}", err=True)
    if ask("issue it? (yes/no)") not in ("y", "yes"):
        raise UsageError("nothing was done")


def _write(path: Path, text: str) -> None:
    """Write a new file that only its owner can read. Raises UsageError."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({type(error).__name__})") from None


def _advice(environment: Environment, target: Target) -> str:
    from regworkers_core.operations import certificates

    if target is Target.CI:
        return f"store the file as {certificates.CI_VARIABLES[environment]} in CI, then delete it"
    return "workers load it within kafka.tls.checkSeconds; the former one is kept as the previous version"
