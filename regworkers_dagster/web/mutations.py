"""Puts the person's name on each launch that `rights` allows, instead of a name or a pod that the client chose, and
writes a row of `operator_actions` for every other change in the UI, which only operators may make.

The resolvers of GraphQL's mutations are wrapped, so the form of a request does not matter: aliases, fragments, several
changes in one document, arguments as variables or in the text. A mutation that is not named here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple

import structlog
from dagster import AssetKey
from dagster_graphql.schema.errors import GraphenePythonError
from graphene import Schema
from graphql import GraphQLError, GraphQLUnionType, default_field_resolver, get_named_type

from regworkers_core.adapters.mongo.activity import OperatorActions
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_dagster.definitions import pod_of_assets
from regworkers_dagster.factories import POD_TAGS
from regworkers_dagster.internals import SerializableErrorInfo
from regworkers_dagster.runs import OPERATOR_TAG, OUR_TAGS, PARTITION_TAG
from regworkers_dagster.web.guard import Operators, Person
from regworkers_dagster.web.rights import (
    JobsOf,
    NotAllowed,
    Rights,
    continued,
    job_of,
    keys_of_backfill,
    keys_without_job,
    wanted,
)

log = structlog.get_logger()

Arguments = dict[str, Any]
Resolver = Callable[..., Any]

# Their runs have the tag, and the runs' own steps are in the audit log.
LAUNCHES = frozenset(
    {
        "launchMultipleRuns",
        "launchPartitionBackfill",
        "launchPipelineExecution",
        "launchPipelineReexecution",
        "launchRun",
        "launchRunReexecution",
    }
)
# It copies the tags of the backfill that it repeats and accepts none, so it is recorded.
REPEATS_A_BACKFILL = "reexecutePartitionBackfill"
_RESUMES_A_BACKFILL = "resumePartitionBackfill"
# Every other change, for operators: recorded before it is made. One that a newer Dagster adds is refused until someone
# has read what it does and names it here.
CHANGES = frozenset(
    {
        "addDynamicPartition",
        "cancelPartitionBackfill",
        "deleteAppManagedComponent",
        "deleteConcurrencyLimit",
        "deleteDynamicPartitions",
        "deletePipelineRun",
        "deleteRun",
        "freeConcurrencySlots",
        "freeConcurrencySlotsForRun",
        "refreshComponentState",
        "reloadRepositoryLocation",
        "reloadWorkspace",
        "reportAssetCheckEvaluations",
        "reportRunlessAssetEvents",
        "resetSchedule",
        "resetSensor",
        "scheduleDryRun",
        "sensorDryRun",
        "setAppManagedComponent",
        "setAutoMaterializePaused",
        "setConcurrencyLimit",
        "setSensorCursor",
        "shutdownRepositoryLocation",
        "startSchedule",
        "startSensor",
        "stopRunningSchedule",
        "stopSensor",
        "terminatePipelineExecution",
        "terminateRun",
        "terminateRuns",
        "wipeAssets",
        REPEATS_A_BACKFILL,
        _RESUMES_A_BACKFILL,
    }
)
# They change only what the UI shows to its user next.
OF_THE_UI = frozenset({"logTelemetry", "setNuxSeen"})

# Arguments that name an object, the best name first. All others (cursors, descriptions, metadata) are free text and are
# not stored.
_NAMES = (
    "sensorName",
    "scheduleName",
    "runId",
    "runIds",
    "backfillId",
    "parentRunId",
    "path",
    "partitionKey",
    "partitionKeys",
    "concurrencyKey",
    "repositoryLocationName",
    "locationName",
    "componentId",
    "defsStateKey",
    "checkName",
    "partitionsDefName",
)
_NUMBERS = ("limit", "paused", "passed", "wipeMaterializations", "terminatePolicy", "strategy", "stepKey")
# Tags that steer: sensors and schedules, retries, time limits, the order of the queue, pods.
_STEERING = ("dagster/", ".dagster/", POD_TAGS, OUR_TAGS)
# What a client says of a run of a job that has partitions.
_PARTITION_TAGS = frozenset(
    {
        PARTITION_TAG,
        "dagster/asset_partition_range_start",
        "dagster/asset_partition_range_end",
    }
)
_PLAIN = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_MAX_LIST_ITEMS = 20


class Mutations:
    """`actions` is called for every change, because addresses may have changed; it raises UsageError."""

    def __init__(self, operators: Operators, rights: Rights, actions: Callable[[], OperatorActions]) -> None:
        self._operators, self._rights, self._actions = operators, rights, actions

    def wrap(self, schema: Schema) -> None:
        mutations = schema.graphql_schema.mutation_type
        for name, field in ({} if mutations is None else mutations.fields).items():
            resolve = field.resolve or default_field_resolver
            if name in LAUNCHES:
                field.resolve = self._launching(name, resolve)
            elif name in CHANGES:
                field.resolve = self._recording(name, resolve)
            elif name not in OF_THE_UI:
                field.resolve = _refusing(name)

    def _launching(self, name: str, resolve: Resolver) -> Resolver:
        def launch(root: Any, info: Any, **arguments: Any) -> Any:
            try:
                person = self._person(info)

                def jobs_of(asset: AssetKey) -> Sequence[str]:
                    of_asset = _jobs_of(info.context, asset)
                    return [job for job in of_asset if person.may(job)]

                self._rights.require(person, name, wanted(arguments, info.context.instance, jobs_of))
            except NotAllowed as refused:
                return _refusal(str(refused), info)
            except (Failure, UsageError) as failure:
                return _refusal(f"not launched, because it could not be recorded: {failure}", info)
            has_partitions = partial(has_partitions_of, info.context)
            return resolve(root, info, **tagged(arguments, person.name, jobs_of, has_partitions))

        return launch

    def _recording(self, name: str, resolve: Resolver) -> Resolver:
        def change(root: Any, info: Any, **arguments: Any) -> Any:
            what = f"ui {name}"
            try:
                person = self._person(info)
                self._rights.require_operator(person, name)
                if name in (REPEATS_A_BACKFILL, _RESUMES_A_BACKFILL):
                    jobs_of = partial(_jobs_of, info.context)
                    self._rights.require(person, name, continued(arguments, info.context.instance, jobs_of))
                who = person.name
                target, facts = described(arguments, named(info.context, arguments))
                actions = self._actions()
                action_id = actions.begins(what, target, facts, who=who)
            except NotAllowed as refused:
                return _refusal(str(refused), info)
            except (Failure, UsageError) as failure:
                return _refusal(f"not done, because it could not be recorded: {failure}", info)

            def ended(answer: Any) -> Any:
                if name == REPEATS_A_BACKFILL:
                    _rename(info.context.instance, answer, who)
                actions.try_end(action_id, what, *outcome(answer))
                return answer

            async def ends(answer: Awaitable[Any]) -> Any:
                try:
                    found = await answer
                except BaseException as error:
                    actions.try_end(action_id, what, "failed", {"error": type(error).__name__})
                    raise
                return ended(found)

            try:
                answer = resolve(root, info, **arguments)
            except BaseException as error:
                actions.try_end(action_id, what, "failed", {"error": type(error).__name__})
                raise
            return ends(answer) if isawaitable(answer) else ended(answer)

        return change

    def _person(self, info: Any) -> Person:
        if info.context.read_only:
            raise NotAllowed("this server is read-only")
        connection = info.context.source
        person = None if connection is None else self._operators.who(connection)
        if person is None:
            raise NotAllowed("not signed in: make changes through the proxy, which names the person")
        return person


def _refusing(name: str) -> Resolver:
    def refuse(_root: Any, info: Any, **_arguments: Any) -> Any:
        log.warning("change refused", mutation=name, why="it is not known")
        return _refusal(
            f"{name} is not known here: it is neither judged nor recorded, so it is not done", info
        )

    return refuse


def _refusal(why: str, info: Any) -> Any:
    """The refusal as one of Dagster's own errors, if the mutation has them: the UI shows those best."""
    kind = get_named_type(info.return_type)
    if isinstance(kind, GraphQLUnionType) and any(each.name == "PythonError" for each in kind.types):
        error = SerializableErrorInfo(f"{why}\n", [], None)
        return GraphenePythonError(error)  # type: ignore[no-untyped-call]
    raise GraphQLError(why)


def tagged(
    arguments: Mapping[str, Any],
    who: str,
    jobs_of: JobsOf,
    has_partitions: Callable[[Mapping[str, Any]], bool],
) -> Arguments:
    """The arguments of a launch with the person's tag, without the client's tags of Dagster and of ours, which steer
    sensors, retries, limits and pods: Dagster adds those of the job. The partition of a job that has partitions stays.
    Assets that are launched without a job get the pod of theirs.
    """

    def execution_of(params: Mapping[str, Any]) -> Arguments:
        metadata = params.get("executionMetadata") or {}
        pod = _pod(keys_without_job(params) or (), jobs_of)
        kept = _PARTITION_TAGS if has_partitions(params) else frozenset[str]()
        return {
            **params,
            "executionMetadata": {**metadata, "tags": _tags(metadata.get("tags"), who, pod, kept)},
        }

    changed = dict(arguments)
    if execution := arguments.get("executionParams"):
        changed["executionParams"] = execution_of(execution)
    if executions := arguments.get("executionParamsList"):
        changed["executionParamsList"] = [execution_of(each) for each in executions]
    if params := arguments.get("reexecutionParams"):
        changed["reexecutionParams"] = {**params, "extraTags": _tags(params.get("extraTags"), who)}
    if params := arguments.get("backfillParams"):
        pod = _pod(keys_of_backfill(params), jobs_of)
        changed["backfillParams"] = {**params, "tags": _tags(params.get("tags"), who, pod)}
    return changed


def _pod(assets: Sequence[AssetKey], jobs_of: JobsOf) -> dict[str, str]:
    return pod_of_assets(map(jobs_of, assets)) if assets else {}


def _jobs_of(context: Any, asset: AssetKey) -> Sequence[str]:
    graph = context.asset_graph
    return list(graph.get(asset).job_names) if graph.has(asset) else []


def has_partitions_of(context: Any, params: Mapping[str, Any]) -> bool:
    """Whether what an execution of these parameters launches has partitions."""
    assets = keys_without_job(params)
    if assets is not None:
        graph = context.asset_graph
        return any(graph.has(asset) and graph.get(asset).is_partitioned for asset in assets)
    name = job_of(params.get("selector") or {})
    return any(
        each.job_name == name
        for location in context.code_locations
        for repository in location.get_repositories().values()
        for each in repository.get_partition_sets()
    )


def _tags(
    tags: Sequence[Mapping[str, str]] | None,
    who: str,
    pod: Mapping[str, str] | None = None,
    kept: Set[str] = frozenset(),
) -> list[Mapping[str, str]]:
    others = [tag for tag in tags or () if tag["key"] in kept or not tag["key"].startswith(_STEERING)]
    ours = {OPERATOR_TAG: who, **(pod or {})}
    return [*others, *({"key": key, "value": value} for key, value in ours.items())]


def _rename(instance: Any, answer: Any, who: str) -> None:
    """Give a backfill that repeats another one the name of this person, and so its runs."""
    backfill = instance.get_backfill(getattr(answer, "backfill_id", None) or "")
    if backfill is not None:
        instance.update_backfill(backfill._replace(tags={**backfill.tags, OPERATOR_TAG: who}))


class Described(NamedTuple):
    text: str
    facts: dict[str, Any]


def described(arguments: Mapping[str, Any], name: str = "") -> Described:
    """The target of a change, and its arguments for the audit log: names and numbers, no free text and nothing that
    looks like a mail address. `name` is the name that belongs to an opaque id.
    """
    facts: dict[str, Any] = {}
    for key, value in _leaves(arguments):
        kept = _kept(value)
        if kept is None:
            continue
        if key in facts:
            before = facts[key] if isinstance(facts[key], list) else [facts[key]]
            kept = [*before, *(kept if isinstance(kept, list) else [kept])]
        facts[key] = kept[:_MAX_LIST_ITEMS] if isinstance(kept, list) else kept
    target = name or next((facts[key] for key in _NAMES if key in facts), "")
    return Described(", ".join(map(str, target)) if isinstance(target, list) else str(target), facts)


def _leaves(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            for each in value:
                yield from _leaves(each)
        elif key == "path" and isinstance(value, list):
            # The key of an asset.
            yield key, "/".join(map(str, value))
        elif key in _NAMES or key in _NUMBERS:
            yield key, value


def _kept(value: Any) -> Any:
    if isinstance(value, list):
        return [kept for each in value if (kept := _kept(each)) is not None]
    if isinstance(value, bool | int):
        return value
    text = str(getattr(value, "value", value))
    return text if _PLAIN.fullmatch(text) else None


def named(context: Any, arguments: Mapping[str, Any]) -> str:
    """The sensor or schedule of an opaque id; empty without such an id."""
    given = {arguments.get(key) for key in ("id", "job_origin_id", "schedule_origin_id")} - {None}
    if not given:
        return ""
    for location in context.code_locations:
        for repository in location.get_repositories().values():
            for each in (*repository.get_sensors(), *repository.get_schedules()):
                if {each.get_remote_origin_id(), each.get_compound_id().to_string()} & given:
                    return str(each.name)
    return ""


def outcome(answer: Any) -> Described:
    """`done` or `failed`, and the type of the answer: Dagster returns its errors instead of raising them."""
    meta = getattr(type(answer), "_meta", None)
    kind = meta.name if meta is not None else ""
    interfaces = [each._meta.name for each in getattr(meta, "interfaces", ())]
    failed = "Error" in interfaces or kind.endswith("Failure")
    return Described("failed" if failed else "done", {"answer": kind} if kind else {})
