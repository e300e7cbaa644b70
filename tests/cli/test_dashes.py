"""Ids that begin with a dash are ids on the command line, and mistyped options stay errors."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from regworkers_core.cli.main import Commands

RUNNER = CliRunner()


def app() -> typer.Typer:
    made = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    inner = typer.Typer()
    made.add_typer(inner, name="draw")

    @made.command()
    def trace(campaign: str, entry: str, form: Annotated[str, typer.Option("--format")] = "text") -> None:
        print(campaign, entry, form)

    @inner.command()
    def receipt(campaign: str, ref: str, check: Annotated[bool, typer.Option("--check")] = False) -> None:
        print(campaign, ref, check)

    @inner.command()
    def remove(
        campaign: str, values: list[str], dry_run: Annotated[bool, typer.Option("--dry-run")] = False
    ) -> None:
        print(campaign, *values, dry_run)

    @inner.command()
    def logs(name: str, lines: Annotated[int, typer.Option("-n", "--lines")] = 5) -> None:
        print(name, lines)

    return made


def run(*words: str) -> Any:
    return RUNNER.invoke(app(), list(words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace", "C", "-abc"), "C -abc text"),
        (("trace", "-c", "-abc"), "-c -abc text"),
        (("trace", "C", "-abc", "--format", "json"), "C -abc json"),
        (("trace", "--format", "json", "C", "-abc"), "C -abc json"),
        (("trace", "C", "--format=json", "-abc"), "C -abc json"),
        (("trace", "C", "--", "-abc"), "C -abc text"),
        (("trace", "C", "--Xq7_-"), "C --Xq7_- text"),
        (("trace", "C", "--format", "-json", "-e"), "C -e -json"),
        (("draw", "receipt", "C", "-"), "C - False"),
        (("draw", "receipt", "--check", "C", "-x"), "C -x True"),
        (("draw", "remove", "C", "a", "-b", "--dry-run", "-c"), "C a -b -c True"),
        (("draw", "logs", "C", "-n", "3"), "C 3"),
    ],
)
def test_a_word_with_a_dash_is_an_id_where_no_option_is_called_so(words: tuple[str, ...], said: str) -> None:
    answer = run(*words)
    assert (answer.exit_code, answer.stdout.strip()) == (0, said)


@pytest.mark.parametrize(
    "words",
    [
        ("trace", "C", "e", "--fromat", "json"),
        ("trace", "C", "--fromat", "json"),
        ("draw", "remove", "C", "--dry-rnu"),
        ("draw", "remove", "C", "a", "--dryrun"),
        ("draw", "receipt", "C", "x", "-y"),
        ("draw", "logs", "-q"),
        ("trace", "-abc"),
        ("--fromat", "trace", "C", "e"),
    ],
)
def test_a_mistyped_option_is_an_error_and_taken_for_nothing_else(words: tuple[str, ...]) -> None:
    answer = run(*words)
    assert answer.exit_code == 2 and answer.stdout == ""


def test_help_is_help_at_any_position() -> None:
    assert "Usage" in run("trace", "C", "--help").stdout and "Usage" in run("--help").stdout


@given(st.text("ABab01_-", min_size=20, max_size=24))
def test_every_derived_id_can_be_typed(entry: str) -> None:
    answer = run("trace", "C", entry)
    assert answer.stdout.strip() == f"C {entry} text"
