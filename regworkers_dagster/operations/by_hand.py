"""Jobs that people launch: config in, one call into the core, numbers and links out.

`launchable` makes a job of a function, whose config class is the launchpad. Around it stands what every such job
needs: known troubles end the run with one line, what changes something is in the audit log before it is done, and what
came of it stands on the run, on the asset of the campaign, and under the tag `regworkers/campaign`.
"""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import dagster as dg

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.snapshot import SELECTION_JOBS
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operations import downloads, uploads
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import DrawBusy
from regworkers_dagster.operations.audit import launched_by_hand, who_launched
from regworkers_dagster.resources import Workers
from regworkers_dagster.selection.specs import CAMPAIGN_PARTITIONS
from regworkers_dagster.selection.steps import draw_failures, facts_as_metadata, no_campaign
from regworkers_dagster.tags import CAMPAIGN_TAG, RESUMED, long_run, short_run

# Shown on many launchpads.
CAMPAIGN = "The campaign, by id or slug."
UPLOAD = "The name that the upload form answers with (`uploads/...`). Uploads are kept for a day."
DRY_RUN = "Check and count only. Set it to false to do it."
REASON = "Why, in words: no fan's data. "

_TELL_SECONDS = 30.0
C = TypeVar("C", bound=dg.Config)


@dataclass(frozen=True, slots=True)
class Launch:
    """A run of such a job: what its function works with. `result` are counts for the audit log."""

    context: dg.OpExecutionContext
    runtime: Runtime
    stop: StopSignal
    result: dict[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.context.run_id)

    @property
    def who(self) -> str:
        """Who launched it, as the audit log has it."""
        return who_launched(self.context.run)

    def tell(self, text: str) -> None:
        """A line in the run's log."""
        self.context.log.info(text)

    def now_and_then(self) -> Callable[[str], None]:
        """As `tell`, for progress: a line every half minute, for each is an event that Dagster keeps."""
        told_at = time.monotonic()

        def tell(text: str) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= _TELL_SECONDS:
                told_at = time.monotonic()
                self.tell(text)

        return tell

    def uploaded(self, upload: str) -> AbstractContextManager[Path]:
        """The uploaded file on this machine. Raises RequestError."""
        return uploads.fetched(self.runtime, upload)

    def hand_out(self, name: str, file: Path | bytes) -> dg.UrlMetadataValue:
        """Keep a file for a day; the link that opens it from the UI."""
        return dg.MetadataValue.url(downloads.put(self.runtime, name, file))

    def campaign(self, named: str) -> Campaign:
        """By id, else by slug. Raises RequestError when there is none."""
        found = self.runtime.campaigns.find(require("campaignId", named))
        if found is None:
            raise RequestError(no_campaign(named))
        return found

    def campaign_id(self, named: str) -> str:
        """As `campaign`, of which only the id is needed."""
        return self.campaign(named).campaign_id


@dataclass(frozen=True, slots=True)
class Outcome:
    """`facts` are numbers, words, tables and links, never a fan's data. They also stand on `asset`, of the campaign's
    partition where it has some; as a materialisation if something `changed`. `failure` says what is left for a person
    to do: the run fails with it, after all of this is recorded.
    """

    campaign_id: str
    facts: Mapping[str, Any]
    asset: dg.AssetSpec | None = None
    changed: bool = False
    failure: str = ""
    # Of several assets, where one launch does several steps.
    events: tuple[dg.AssetMaterialization | dg.AssetObservation, ...] = field(default=())


def require(name: str, value: str) -> str:
    """The value without blanks around it. Raises RequestError for a field that was left empty."""
    if not value.strip():
        raise RequestError(
            f"{name} is missing in the config: the description of the field says what belongs there"
        )
    return value.strip()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue | None:
    """A table for the UI; None, which is not shown, for one without rows."""
    if not rows:
        return None
    lines = [columns, ["---"] * len(columns), *rows]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines))


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def launchable(
    name: str,
    *,
    description: str,
    reads: bool = False,
    previews: bool = False,
    long: bool = False,
    resumed: bool = False,
) -> Callable[[Callable[[Launch, C], Outcome]], dg.JobDefinition]:
    """A job of a function. `reads`: it changes nothing, so it is not in the audit log; `previews`: the same while its
    field `confirm` is empty. `long`: its time grows with the campaign. `resumed`: a worker that dies is followed by
    another one, which goes on.
    """

    def make(function: Callable[[Launch, C], Outcome]) -> dg.JobDefinition:
        config_type: type[dg.Config] = get_type_hints(function)["config"]
        # An op may not have the name of the job.
        step = f"do_{name}"

        def op(context: dg.OpExecutionContext, config: Any, workers: Workers) -> Iterator[Any]:
            bind(runId=context.run_id, worker=name)
            with ExitStack() as around:
                around.enter_context(draw_failures(context))
                stop = around.enter_context(StopSignal().on_signals())
                runtime = workers.runtime
                given = {key: value for key, value in config.model_dump().items() if value}
                dry_run = reads or bool(given.pop("dryRun", False)) or (previews and not config.confirm)
                target = str(given.pop("campaignId", "") or given.get("confirm", ""))
                result = around.enter_context(
                    launched_by_hand(context.run, runtime, name, target, given, dry_run=dry_run)
                )
                try:
                    outcome = function(Launch(context, runtime, stop, result), config)
                except DrawBusy as busy:
                    raise RequestError(str(busy)) from None
                except UsageError as error:
                    if name in SELECTION_JOBS:
                        raise
                    # Who launched it sees what is wrong with it: it is no trouble that calls another person.
                    raise RequestError(str(error)) from None
                if outcome.failure:
                    result["failure"] = outcome.failure
            yield from _recorded(context, outcome)

        op.__annotations__["config"] = config_type

        def mapping(val: Mapping[str, Any]) -> dict[str, Any]:
            # A field that was emptied has its default.
            given = {key: value for key, value in val.items() if value is not None}
            return {"ops": {step: {"config": given}}}

        body = dg.op(name=step, description=function.__doc__, out=dg.Out(dg.Nothing))(op)

        @dg.job(
            name=name,
            config=dg.ConfigMapping(mapping, config_schema=config_type.to_config_schema()),
            tags={**(RESUMED if resumed else {}), **(long_run() if long else short_run())},
            executor_def=dg.in_process_executor,
            description=description,
        )
        def job() -> None:
            body()

        return job

    return make


def _recorded(context: dg.OpExecutionContext, outcome: Outcome) -> Iterator[Any]:
    """Yielded, for what an op only logs is lost when it fails."""
    metadata = facts_as_metadata(outcome.facts)
    instance = context.instance
    if is_selection_id(outcome.campaign_id):
        instance.add_run_tags(context.run_id, {CAMPAIGN_TAG: outcome.campaign_id})
        instance.add_dynamic_partitions(str(CAMPAIGN_PARTITIONS.name), [outcome.campaign_id])
    if outcome.asset is not None:
        kind = dg.AssetMaterialization if outcome.changed else dg.AssetObservation
        of = outcome.campaign_id if outcome.asset.partitions_def is not None else None
        yield kind(outcome.asset.key, partition=of, metadata=metadata)
    yield from outcome.events
    if outcome.failure:
        raise dg.Failure(description=outcome.failure, metadata=metadata, allow_retries=False)
    yield dg.Output(None, metadata=metadata)
