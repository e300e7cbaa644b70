"""Every config that a page of the documentation shows is one that the program takes, as it is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from regworkers_core.domain.messages import QUEUES, decode
from regworkers_core.domain.redemption import Statement
from regworkers_core.eligibility import handler
from regworkers_core.selection.campaigns.registry import draft, read_definition
from regworkers_core.settings import PROJECT_ROOT, Settings
from regworkers_core.settings.documents import snake
from regworkers_dagster.definitions import defs

PAGES = sorted(
    [*(PROJECT_ROOT / "docs").rglob("*.md"), PROJECT_ROOT / "README.md", PROJECT_ROOT / "deploy/README.md"]
)
_FENCE = re.compile(r"^ *```(\w+)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# `echo '{...}' > x.json`, and the job that takes the file.
_WRITTEN = re.compile(r"^\s*echo '(.*?)' > (\S+)$", re.MULTILINE | re.DOTALL)
_TAKEN = re.compile(r"(?:dagster job execute [^\n]*-j|dg launch --job) (\w+)(?:[^\n]*? -c (\S+))?")
# A launchpad's config as a block begins with a comment that names the job.
_LAUNCHPAD = re.compile(r"\A# [^\n]*\bjob (\w+)\b")


def takes(job: str, config: Mapping[str, Any]) -> None:
    """Raises unless the job exists and its launchpad takes this config."""
    dg.validate_run_config(defs.resolve_job_def(job), dict(config))


def run_configs() -> Iterator[Any]:
    """(job, config) of every example that launches a job, by page."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for language, block in _FENCE.findall(text):
            if language in ("sh", "bash", "text"):
                files = {file: written for written, file in _WRITTEN.findall(block)}
                for job, file in _TAKEN.findall(block):
                    yield pytest.param(job, files.get(file, "{}"), id=f"{page.name}-{job}")
            elif language in ("yaml", "yml") and (named := _LAUNCHPAD.match(block)):
                yield pytest.param(named[1], block, id=f"{page.name}-{named[1]}")


@pytest.mark.parametrize(("job", "config"), list(run_configs()))
def test_a_documented_run_config_is_taken_by_its_job(job: str, config: str) -> None:
    takes(job, yaml.safe_load(config) or {})


def is_campaign(document: Any) -> bool:
    return isinstance(document, dict) and "campaignId" in document and "markets" in document


def is_settings(document: Any) -> bool:
    return isinstance(document, dict) and {snake(str(key)) for key in document} <= set(Settings.model_fields)


def snaked(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    return {snake(str(key)): snaked(value) for key, value in document.items()}


def read_campaign(document: Any, text: str, folder: Path) -> object:
    """As `campaign create --file` does."""
    (folder / "campaign.yml").write_text(text, "utf-8")
    return draft(read_definition(folder / "campaign.yml"))


KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str, Path], object]], ...] = (
    (is_campaign, read_campaign),
    (is_settings, lambda document, _text, _folder: Settings(**snaked(document))),
    (
        lambda document: str(document.get("type", "")).startswith("codes."),
        lambda _document, text, _folder: [
            Statement.parse(item, each.type)
            for each in [decode(text.strip(), *QUEUES["redemption-queue"])]
            for item in each.items
        ],
    ),
    (handler._is_appsync, lambda document, _text, _folder: handler._checks(document)),
)


def documents() -> Iterator[Any]:
    """Every YAML and JSON example that is no run config."""
    for page in PAGES:
        for language, block in _FENCE.findall(page.read_text("utf-8")):
            if language in ("yaml", "yml") and not _LAUNCHPAD.match(block):
                yield pytest.param([yaml.safe_load(block)], block, id=page.name)
            elif language in ("json", "jsonc"):
                yield pytest.param(list(values(block)), block, id=page.name)


def values(block: str) -> Iterator[Any]:
    """One JSON value after the other."""
    decoder, rest = json.JSONDecoder(), block.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].strip()


@pytest.mark.parametrize(("found", "text"), list(documents()))
def test_a_documented_file_is_one_that_the_program_reads(found: list[Any], text: str, tmp_path: Path) -> None:
    for document in found:
        reads = [read for fits, read in KINDS if fits(document)]
        assert reads, f"say in the page what reads this, and here how: {document}"
        for read in reads:
            read(document, text, tmp_path)


def test_the_examples_were_found() -> None:
    """A page that is written otherwise must not slip through."""
    assert len(list(run_configs())) >= 8
    assert len(list(documents())) >= 3
    for page in PAGES:
        text = page.read_text("utf-8")
        assert not re.search(r"(?:> |-c |--\w+ )/tmp/", text), "an example writes into the working directory"
        assert len(re.findall(r"(?:-j|--job) \w+ -c ", text)) == sum(
            bool(file) for _, block in _FENCE.findall(text) for _, file in _TAKEN.findall(block)
        ), page


def test_a_config_that_a_job_does_not_take_is_noticed() -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="accepts"):
        takes("confirm_draw", {"confirm": "spring-tour:1", "accepts": ["bias_audit"]})


def test_a_publication_is_confirmed_by_one_job() -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="confirm"):
        takes("draw", {"ops": {"publication": {"config": {"confirm": "spring-tour:1"}}}})
