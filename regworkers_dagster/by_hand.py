"""Jobs that people launch: config in, one call into the core, numbers and links out.

`launchable` makes a job of a function, whose config class is the launchpad. It adds what every such job needs: a known
failure ends the run with one line, a change is in the audit log before it is made, and the result is recorded on the
run, on the asset of the campaign, and under the tag `regworkers/campaign`.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import dagster as dg
from pydantic import Field

from fairdraw.documents import camel
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.domain.reasons import RequestError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import bind
from regworkers_core.operation import CAMPAIGN
from regworkers_core.operations import downloads, uploads
from regworkers_core.operations.health.scheduler import CAMPAIGN_TAG
from regworkers_core.runtime import Runtime
from regworkers_dagster.factories import one_op_job
from regworkers_dagster.launching import recorded, refusals
from regworkers_dagster.metadata import facts_as_metadata
from regworkers_dagster.resources import STORES, plain_failures
from regworkers_dagster.runs import (
    RESUMED,
    launched_by_hand,
    long_run,
    short_run,
    throttled,
    who_launched,
)

# Shown on many launchpads.
REASON = "Why, in words: no fan's data. "

C = TypeVar("C", bound=dg.Config)


class CampaignConfig(dg.Config):
    campaign_id: str = Field(default="", description=CAMPAIGN)


@dataclass(frozen=True, slots=True)
class Launch:
    """A run of such a job, for its function."""

    # The run.
    context: dg.OpExecutionContext
    runtime: Runtime
    stop: StopSignal
    # Counts for the audit log.
    result: dict[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.context.run_id)

    @property
    def who(self) -> str:
        """The person who launched it, as in the audit log."""
        return who_launched(self.context.run)

    def tell(self, text: str) -> None:
        """A line in the run's log."""
        self.context.log.info(text)

    def progress(self) -> Callable[[str], None]:
        """Do as `tell`, for progress."""
        return throttled(self.tell)

    def uploaded(self, upload: str) -> AbstractContextManager[Path]:
        """The uploaded file on this machine. Raises RequestError."""
        return uploads.fetched(self.runtime, upload)

    def hand_out(self, name: str, file: Path | bytes) -> dg.UrlMetadataValue:
        """Store a file for a day. Returns the link that opens it from the UI."""
        return dg.MetadataValue.url(downloads.put(self.runtime, name, file))

    def campaign(self, named: str) -> Campaign:
        """The campaign of this id, else of this slug; the run is found by it from now on. Raises RequestError when
        there is none.
        """
        found = self.runtime.campaigns.require(
            require("campaign_id", named), ", or the partitions of `campaigns`"
        )
        self.context.instance.add_run_tags(self.run_id, {CAMPAIGN_TAG: found.campaign_id})
        return found

    def campaign_id(self, named: str) -> str:
        return self.campaign(named).campaign_id

    def entry_key(self, campaign: str, entry_id: str) -> EntryKey:
        """The key of an entry, also of a campaign that is not known. Raises RequestError for what names no entry."""
        campaign_id = self.runtime.campaigns.id_of(require("campaign_id", campaign))
        key = EntryKey(campaign_id, require("entry_id", entry_id))
        if problem := key.problem:
            raise RequestError(f"campaign_id and entry_id name no entry: {problem}")
        return key


@dataclass(frozen=True, slots=True)
class LaunchOutcome:
    """The result of a launch."""

    campaign_id: str
    # Numbers, words, tables and links, never a fan's data.
    facts: Mapping[str, Any]
    # The facts are also recorded on it, for the campaign's partition if it has partitions.
    asset: dg.AssetSpec | None = None
    # They are recorded as a materialisation.
    changed: bool = False
    # What is left for a person to do: the run fails with it, after all of this is recorded.
    failure: str = ""
    # For a launch of several steps: the events of their assets.
    events: tuple[dg.AssetMaterialization | dg.AssetObservation, ...] = field(default=())


def require(name: str, value: str) -> str:
    """The value without surrounding blanks. Raises RequestError for an empty field."""
    if not value.strip():
        raise RequestError(
            f"{name} is missing in the config: the description of the field says what to enter"
        )
    return value.strip()


def launchable(
    name: str,
    *,
    description: str,
    reads: bool = False,
    previews: bool = False,
    long: bool = False,
    resumed: bool = False,
    uses: Set[str] = STORES,
) -> Callable[[Callable[[Launch, C], LaunchOutcome]], dg.JobDefinition]:
    """A job of a function. `reads`: it changes nothing, so it is not in the audit log; `previews`: the same while its
    field `confirm` is empty. `long`: its time grows with the campaign. `resumed`: a run whose worker died is followed
    by another one, which resumes it. `uses` are the resources that it touches.
    """

    def make(function: Callable[[Launch, C], LaunchOutcome]) -> dg.JobDefinition:
        def body(context: dg.OpExecutionContext, config: Any, runtime: Runtime) -> Iterator[Any]:
            bind(runId=context.run_id, worker=name)
            with ExitStack() as around:
                around.enter_context(plain_failures(context))
                stop = around.enter_context(StopSignal().on_signals())
                given = {key: value for key, value in config.model_dump().items() if value}
                changes = bool(given.pop("apply", not hasattr(config, "apply")))
                dry_run = reads or not changes or bool(given.pop("dry_run", False))
                dry_run = dry_run or (previews and not config.confirm)
                named = (given.get(name) for name in ("confirm", "drain", "alert"))
                target = str(given.pop("campaign_id", "") or next(filter(None, named), ""))
                # Rows of the audit log have their names in camelCase, from every caller.
                arguments = {camel(key): value for key, value in given.items()}
                result = around.enter_context(
                    launched_by_hand(context.run, runtime, name, target, arguments, dry_run=dry_run)
                )
                with refusals(name):
                    outcome = function(Launch(context, runtime, stop, result), config)
                if outcome.failure:
                    result["failure"] = outcome.failure
            if is_selection_id(outcome.campaign_id):
                context.instance.add_run_tags(context.run_id, {CAMPAIGN_TAG: outcome.campaign_id})
            yield from recorded(
                context,
                facts_as_metadata(outcome.facts),
                campaign_id=outcome.campaign_id,
                asset=outcome.asset,
                changed=outcome.changed,
                left=outcome.failure,
                events=outcome.events,
            )

        body.__annotations__["config"], body.__doc__ = get_type_hints(function)["config"], function.__doc__
        return one_op_job(
            name,
            # An op may not have the name of the job.
            step=f"do_{name}",
            description=description,
            tags={**(RESUMED if resumed else {}), **(long_run() if long else short_run())},
            is_flat=True,
            uses=uses,
        )(body)

    return make
