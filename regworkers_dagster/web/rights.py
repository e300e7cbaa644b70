"""Which launches a mutation asks for, and whether this person may have them: by the person's jobs, and by the rule of
two people.

A launch that the rule holds is a row of the audit log that stays `running`. Another person who launches the same job
with the same config ends it, and only this second launch starts a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from dagster import AssetKey
from dagster_graphql.schema.runs import parse_run_config_input

from regworkers_core.adapters.mongo.activity import OperatorActions
from regworkers_core.settings.operations import WebSettings
from regworkers_dagster.internals import is_implicit_asset_job_name, job_name_for_partition_set_snap_name
from regworkers_dagster.web.guard import Person

log = structlog.get_logger()

# The names of the jobs that materialise an asset.
JobsOf = Callable[[AssetKey], Sequence[str]]
# What starts one run with a config that the client sends.
_OF_ONE_RUN = frozenset({"launchPipelineExecution", "launchRun"})
_TWO_PEOPLE = "ui two people"
# What Dagster adds to the config of each job. Types of our own read no environment (`resources.plain`).
_OF_DAGSTER = ("resources", "execution", "loggers")


class NotAllowed(Exception):
    """Why a mutation is refused, for the person who sent it."""


class Wanted(NamedTuple):
    """One launch. `jobs` is the job or, for assets without one, every job that has all of them; empty: unknown. `steps`
    is the part of the job that runs.
    """

    jobs: frozenset[str]
    config: Any
    steps: Sequence[str] = ()


def wanted(arguments: Mapping[str, Any], instance: Any, jobs_of: JobsOf) -> list[Wanted]:
    """Every launch that the arguments of a mutation ask for."""
    single = arguments.get("executionParams")
    executions = [*([single] if single else ()), *(arguments.get("executionParamsList") or ())]
    found = [_of_execution(each, jobs_of) for each in executions]
    if again := arguments.get("reexecutionParams"):
        run = instance.get_run_by_id(again["parentRunId"])
        found.append(Wanted(frozenset(), {}) if run is None else _of_run(run, jobs_of))
    if backfill := arguments.get("backfillParams"):
        config = _config(backfill.get("runConfigData"))
        if selector := backfill.get("selector"):
            job = job_name_for_partition_set_snap_name(selector["partitionSetName"])
            found.append(Wanted(frozenset({job}), config))
        assets = keys_of_backfill(backfill)
        if assets or not selector:
            found.append(Wanted(_common(assets, jobs_of), config))
    return found


def continued(arguments: Mapping[str, Any], instance: Any, jobs_of: JobsOf) -> list[Wanted]:
    """What a mutation that repeats or resumes a backfill launches, with the config of that backfill. None for one that
    is not known.
    """
    again = arguments.get("reexecutionParams") or {}
    backfill = instance.get_backfill(arguments.get("backfillId") or again.get("parentRunId") or "")
    if backfill is None:
        return []
    jobs = frozenset({backfill.job_name}) if backfill.job_name else frozenset[str]()
    return [Wanted(jobs or _common(backfill.asset_selection or (), jobs_of), backfill.run_config or {})]


def keys_of_backfill(params: Mapping[str, Any]) -> list[AssetKey]:
    given = [each["assetKey"] for each in params.get("partitionsByAssets") or ()]
    return [AssetKey.from_graphql_input(each) for each in [*(params.get("assetSelection") or ()), *given]]


def keys_without_job(params: Mapping[str, Any]) -> list[AssetKey] | None:
    """The assets of an execution that names no job of ours; None for one that does."""
    selector = params.get("selector") or {}
    if not is_implicit_asset_job_name(job_of(selector)):
        return None
    checks = [each["assetKey"] for each in selector.get("assetCheckSelection") or ()]
    return [AssetKey.from_graphql_input(each) for each in [*(selector.get("assetSelection") or ()), *checks]]


def job_of(selector: Mapping[str, Any]) -> str:
    """The job as Dagster reads it, where both are given."""
    return selector.get("pipelineName") or selector.get("jobName") or ""


def _of_execution(params: Mapping[str, Any], jobs_of: JobsOf) -> Wanted:
    selector, assets = params.get("selector") or {}, keys_without_job(params)
    jobs = frozenset({job_of(selector)}) if assets is None else _common(assets, jobs_of)
    steps = [*(params.get("stepKeys") or ()), *(selector.get("solidSelection") or ())]
    return Wanted(jobs, _config(params.get("runConfigData")), steps)


def _of_run(run: Any, jobs_of: JobsOf) -> Wanted:
    if not is_implicit_asset_job_name(run.job_name):
        return Wanted(frozenset({run.job_name}), run.run_config)
    checks = [each.asset_key for each in run.asset_check_selection or ()]
    return Wanted(_common([*(run.asset_selection or ()), *checks], jobs_of), run.run_config)


def _common(assets: Iterable[AssetKey], jobs_of: JobsOf) -> frozenset[str]:
    each = [frozenset(jobs_of(asset)) for asset in assets]
    return frozenset.intersection(*each) if each else frozenset()


def _config(given: Any) -> Any:
    return parse_run_config_input(given or {}, raise_on_error=False)


# The fields by which a launch acts, and is no preview.
_ACTS = ("confirm", "apply")


def _confirms(config: Any) -> bool:
    if isinstance(config, Mapping):
        return any((key in _ACTS and bool(value)) or _confirms(value) for key, value in config.items())
    # What is no YAML is refused by Dagster.
    return False


def _reads_environment(config: Any) -> bool:
    return isinstance(config, Mapping) and any(_names_variable(config.get(part)) for part in _OF_DAGSTER)


def _names_variable(config: Any) -> bool:
    if isinstance(config, Mapping):
        return "env" in config or any(map(_names_variable, config.values()))
    return isinstance(config, list) and any(map(_names_variable, config))


class Rights:
    """Raises NotAllowed for what a person may not do. `actions` is called when a launch needs two people."""

    def __init__(self, settings: WebSettings, actions: Callable[[], OperatorActions]) -> None:
        self._two_people, self._seconds = frozenset(settings.two_people), settings.two_people_minutes * 60
        self._actions = actions

    def require_operator(self, person: Person, mutation: str) -> None:
        """Raises NotAllowed for anyone else."""
        if person.jobs is not None:
            log.warning("change refused", who=person.name, mutation=mutation)
            raise NotAllowed("none of your groups has the role operator, which this change needs: web.groups")

    def require(self, person: Person, mutation: str, launches: Sequence[Wanted]) -> None:
        """Raises NotAllowed for a launch that is not this person's to make, or not alone. Raises TransientFailure when
        the rule of two people cannot be recorded.
        """
        # Arguments that a newer Dagster may have: it is not known what they launch.
        for each in launches or [Wanted(frozenset(), {})]:
            if person.jobs is not None and not each.jobs & person.jobs:
                log.warning("launch refused", who=person.name, mutation=mutation, jobs=sorted(each.jobs))
                names = (
                    ", ".join(sorted(each.jobs))
                    or "this, which is no job or part of no job that they may launch"
                )
                raise NotAllowed(f"none of your groups may launch {names} (setting web.jobs)")
        if any(_reads_environment(each.config) for each in launches):
            log.warning("launch refused", who=person.name, mutation=mutation, why="it reads the environment")
            raise NotAllowed(
                "no launch reads the environment: write the value itself, or leave resources, execution and loggers out"
            )
        held = [each for each in launches if each.jobs & self._two_people and _confirms(each.config)]
        if held and (mutation not in _OF_ONE_RUN or len(launches) != 1):
            raise NotAllowed(
                "two people launch what confirms: each from the launchpad, not in bulk, and never as a repeat"
            )
        for each in held:
            self._second(person.name, each)

    def _second(self, who: str, launch: Wanted) -> None:
        job = min(launch.jobs & self._two_people)
        same = json.dumps([job, launch.config, sorted(launch.steps)], sort_keys=True, default=str)
        target = f"{job} {hashlib.sha256(same.encode()).hexdigest()[:16]}"
        actions = self._actions()
        first = actions.join(_TWO_PEOPLE, target, who=who, within_seconds=self._seconds)
        if first is None:
            actions.begins(_TWO_PEOPLE, target, {"minutes": self._seconds / 60}, who=who)
            raise NotAllowed(
                f"not launched yet: within {self._seconds / 60:g} minutes a second person has to launch {job} with "
                "the same config, after reading what it confirms"
            )
        if first == who:
            log.warning("launch refused", who=who, job=job, why="the same person twice")
            refused = actions.begins(_TWO_PEOPLE, target, {}, who=who)
            actions.try_end(refused, _TWO_PEOPLE, "failed", {"refused": "the same person twice"})
            raise NotAllowed(
                f"not launched: you asked for it yourself, so another person has to launch {job}"
            )
