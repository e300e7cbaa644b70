"""What a run did, in sentences and tables, from the metadata that it recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import dagster as dg
from markdown_it import MarkdownIt

from fairdraw.terms import outcomes_in_words
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.downloads import link_to
from regworkers_core.operations.health.scheduler import CAMPAIGN_TAG
from regworkers_dagster.runs import ENDED, OPERATOR_TAG, PARTITION_TAG

_RECORDED = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION)
# An op keeps its metadata with its output; one that left something to do, with its failure.
_OF_A_STEP = (dg.DagsterEventType.STEP_OUTPUT, dg.DagsterEventType.STEP_FAILURE)
_OF_A_RUN = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED)
# A draw has eight steps; a drain observes every few seconds, and only its last ones are shown.
_MOST_EVENTS = 40
_STATES = {
    dg.DagsterRunStatus.SUCCESS: "It is done.",
    dg.DagsterRunStatus.FAILURE: "It ended, and something is left to do.",
    dg.DagsterRunStatus.CANCELED: "It was stopped.",
    dg.DagsterRunStatus.STARTED: "It runs.",
    dg.DagsterRunStatus.CANCELING: "It is being stopped.",
}
# Where an object is stored; what ends a sentence is no part of it. In an attribute it stays as it is.
_ADDRESS = re.compile(r"(?<![\"'=])s3://([\w.=/-]*[\w/])", re.ASCII)
# Metadata of Dagster's own, for its catalog.
_OF_DAGSTER = "dagster/"


class Link(NamedTuple):
    text: str
    address: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one step recorded."""

    # The asset; empty: the only one.
    title: str
    # Its sentences.
    said: Sequence[str]
    # Plain values by name.
    values: Mapping[str, Any]
    # Tables and plots as HTML, by name.
    pages: Mapping[str, str]
    # Files and pages that it made.
    links: Sequence[Link]
    # The word that confirms what this previews; empty: there is none.
    word: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as a page shows it."""

    run_id: str
    job: str
    # How far it is, as a sentence.
    state: str
    # Whether it goes on no more.
    ended: bool
    # Whether it succeeded.
    fine: bool
    # Who launched it; empty: a sensor or a schedule.
    who: str
    # An ISO time; None: not yet.
    began: str | None
    # An ISO time; None: it goes on.
    finished: str | None
    # The campaign that it is about; empty: none, or not known yet.
    campaign_id: str
    # What was given.
    config: Mapping[str, Any]
    # What is wrong, or left to do, in one sentence each.
    left: Sequence[str] = ()
    # What it recorded.
    parts: Sequence[Part] = ()

    @property
    def word(self) -> str:
        return next((part.word for part in self.parts if part.word), "")


def look(instance: dg.DagsterInstance, run_id: str) -> Seen | None:
    """The run with what it recorded; None for one that is not known."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return None
    kinds = {*_RECORDED, *_OF_A_STEP, *_OF_A_RUN}
    found = instance.get_records_for_run(run_id, of_type=kinds, limit=_MOST_EVENTS, ascending=False)
    events = [each.event_log_entry.dagster_event for each in reversed(found.records)]
    return brief(record, [event for event in events if event is not None])


def brief(record: dg.RunRecord, events: Sequence[dg.DagsterEvent] = ()) -> Seen:
    """The run with these of its events."""
    run = record.dagster_run
    left = [*_left(events)]
    if run.status is dg.DagsterRunStatus.FAILURE and events and not left:
        left = ["It failed unexpectedly, and nothing more is known here: its run in Dagster has the log."]
    return Seen(
        run.run_id,
        run.job_name,
        _STATES.get(run.status, "It waits for its turn."),
        run.status in ENDED,
        run.status is dg.DagsterRunStatus.SUCCESS,
        run.tags.get(OPERATOR_TAG, ""),
        iso(record.start_time) if record.start_time else None,
        iso(record.end_time) if record.end_time else None,
        run.tags.get(CAMPAIGN_TAG) or run.tags.get(PARTITION_TAG, ""),
        run.run_config,
        left,
        [*_parts(events)],
    )


def of_campaign(instance: dg.DagsterInstance, campaign_id: str, most: int) -> list[Seen]:
    """The latest runs about the campaign, the newest first."""
    found = {
        record.dagster_run.run_id: record
        for tag in (CAMPAIGN_TAG, PARTITION_TAG)
        for record in instance.get_run_records(dg.RunsFilter(tags={tag: campaign_id}), limit=most)
    }
    newest = sorted(found.values(), key=lambda each: each.create_timestamp, reverse=True)
    return [brief(each) for each in newest[:most]]


def _left(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """What failures say for people: the text of the declared ones, never a trace."""
    for event in events:
        if event.event_type is dg.DagsterEventType.STEP_FAILURE:
            declared = event.step_failure_data.user_failure_data
            if declared is not None and declared.description:
                yield sentence(declared.description)
        elif event.event_type is dg.DagsterEventType.RUN_CANCELED and event.message:
            yield sentence(event.message)


def sentence(text: str) -> str:
    """A text as a sentence."""
    text = text.strip()
    # A name is kept as it is.
    text = text[:1].upper() + text[1:] if text.partition(" ")[0].islower() else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _parts(events: Sequence[dg.DagsterEvent]) -> Iterator[Part]:
    recorded: dict[str, Mapping[str, dg.MetadataValue]] = {}
    done: Mapping[str, dg.MetadataValue] = {}
    for event in events:
        kind = event.event_type
        if kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            recorded[made.asset_key.to_user_string()] = made.metadata
        elif kind is dg.DagsterEventType.ASSET_OBSERVATION:
            observed = event.asset_observation_data.asset_observation
            recorded[observed.asset_key.to_user_string()] = observed.metadata
        elif kind is dg.DagsterEventType.STEP_OUTPUT:
            done = event.step_output_data.metadata or {}
        elif kind is dg.DagsterEventType.STEP_FAILURE:
            declared = event.step_failure_data.user_failure_data
            done = (declared.metadata if declared else None) or {}
    if done:
        # The record on an asset is the same once more.
        yield part_of("", done)
    else:
        for name, metadata in recorded.items():
            yield part_of(name, metadata)


def part_of(title: str, metadata: Mapping[str, dg.MetadataValue]) -> Part:
    """What was recorded, by what a page does with it."""
    said: list[str] = []
    values: dict[str, Any] = {}
    pages: dict[str, str] = {}
    links: list[Link] = []
    word = ""
    for name, each in metadata.items():
        if name.startswith(_OF_DAGSTER):
            continue
        if isinstance(each, dg.MarkdownMetadataValue):
            pages[in_words(name)] = as_html(str(each.value))
        elif isinstance(each, dg.UrlMetadataValue):
            links.append(Link("Open the page" if name == "open" else in_words(name), str(each.value)))
        elif isinstance(each, dg.TableMetadataValue):
            values[in_words(name)] = [dict(record.data) for record in each.records]
        elif name == "said":
            said.append(sentence(str(each.value)))
        elif name == "confirm":
            word = str(each.value)
        elif name == "outcomes" and isinstance(each, dg.JsonMetadataValue):
            values[in_words(name)] = outcomes_in_words(cast(Mapping[str, int], each.value))
        else:
            values[in_words(name)] = each.value
    return Part(in_words(title), said, values, pages, links, word)


def in_words(name: str) -> str:
    """`manifestHash` and `manifest_hash` as `Manifest hash`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("_", " "))
    words = " ".join(word if word.isupper() else word.lower() for word in words.split())
    return words[:1].upper() + words[1:]


def located(html: str, prefix: str) -> str:
    """HTML in which the address of a stored object is a link, below `prefix`, if the web application serves it, else
    the name of its bucket and its key.
    """

    def shown(found: re.Match[str]) -> str:
        path = link_to(found[0])
        return f'<a href="{prefix}{path}">{found[1]}</a>' if path else found[1]

    return _ADDRESS.sub(shown, html)


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def as_html(text: str) -> str:
    """Markdown as HTML without styles of its own, which the policy of the page forbids."""
    made: str = _markdown().render(text)
    made = made.replace(' style="text-align:right"', ' class="number"')
    # A header without a text is none.
    made = re.sub(r"<th[^>]*></th>", "<td></td>", made)
    return made.replace("<table>", '<div class="wide" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )
