"""What assets, jobs, sensors and schedules of one shape have in common: their owner, executor, config and status; and
what a job declares where it is defined: its duty, its size, and who launches it.

The tags of its runs follow, and so identity and size of their pods on Kubernetes: the tag `dagster-k8s/config` has
priority over the instance's and the code location's config. Outside Kubernetes nothing reads it. A job has the service
account and the secret of one duty. A run of no job here has the instance's account `regworkers-run`, which can only
write its logs.
"""

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_type_hints, is_typeddict

import dagster as dg

from fairdraw.documents import camel
from regworkers_core.operation import STORES, Duty, Size
from regworkers_core.settings import Settings, load_settings
from regworkers_dagster.resources import plain

POD_TAG = "dagster-k8s/config"
# All tags that change a run's pod begin with it.
POD_TAGS = "dagster-k8s/"
# On every job, and so on its runs: what it belongs to, and who launches it.
DUTY_TAG = "regworkers/duty"
FOR_TAG = "regworkers/for"


Who = Literal["manager", "on-call", "system"]


class Declared(NamedTuple):
    """What a job declares. `duty` is a role in regworkers_core/infrastructure/policies."""

    duty: Duty
    size: Size = "small"
    # Who launches it. What a manager may launch is for managers, also if a sensor or a schedule starts it as well.
    who: Who = "on-call"


@dataclass(frozen=True, slots=True)
class PodSize:
    """Resources of a pod, as Kubernetes writes them. The settings bound the memory of draws, reconciliations and the
    archive, which then spill."""

    # A request.
    cpu: str
    # A request.
    memory: str
    memory_limit: str
    # The space for temporary files: request and limit.
    disk: str


SMALL = PodSize("250m", "384Mi", "1Gi", "1Gi")
DRAIN = PodSize("500m", "512Mi", "1Gi", "1Gi")
# Reports with figures, and uploaded files.
REPORT = PodSize("500m", "1Gi", "2Gi", "4Gi")
# A draw of 10 million entries takes 828 MiB and 5 GB of disk (benchmarks/README.md).
LARGE = PodSize("2", "2Gi", "3Gi", "20Gi")
# The smallest first.
_SIZE_OF: dict[Size, PodSize] = {"small": SMALL, "drain": DRAIN, "report": REPORT, "large": LARGE}


def tags_of(declared: Declared) -> dict[str, str]:
    """The tags of a job with this declaration."""
    return {DUTY_TAG: declared.duty, FOR_TAG: declared.who, POD_TAG: _pod(declared.duty, declared.size)}


def _pod(duty: str, word: Size) -> str:
    size = _SIZE_OF[word]
    container = {
        "resources": {
            "requests": {"cpu": size.cpu, "memory": size.memory, "ephemeral-storage": size.disk},
            "limits": {"memory": size.memory_limit, "ephemeral-storage": size.disk},
        },
        "env_from": [{"secret_ref": {"name": f"regworkers-{duty}"}}],
    }
    config = {
        "container_config": container,
        "pod_spec_config": {"service_account_name": f"regworkers-{duty}"},
        # deploy/kubernetes/network-policies.yaml lets each duty reach what it needs.
        "pod_template_spec_metadata": {"labels": {"regworkers/duty": duty}},
    }
    return json.dumps(config)


def size_of(tags: Mapping[str, str]) -> int:
    """The place of a job's pod among the sizes, the smallest first, by the job's tags."""
    return [_pod(tags[DUTY_TAG], size) for size in _SIZE_OF].index(tags[POD_TAG])


# Dagster warns of a parameter that only Dagster itself passes, in every command.
warnings.filterwarnings("ignore", "Parameter `owners`", dg.BetaWarning)
Body = Callable[..., Any]
CAMPAIGN_PARTITIONS = dg.DynamicPartitionsDefinition(name="campaigns")
# The policy of what drains and sensors keep up to date: a sensor that finds it so records that every hour.
KEPT_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=3), warn_window=timedelta(hours=2))
APPLY = "Do it. Without, the job checks and counts only."


@dataclass(frozen=True, slots=True)
class Flow:
    """A group of assets in the UI's graph, with the team that owns them."""

    name: str
    owner: str

    def asset(
        self,
        name: str,
        description: str,
        kinds: set[str],
        *,
        folder: str = "",
        columns: Mapping[str, str] | None = None,
        **more: Any,
    ) -> dg.AssetSpec:
        """An asset of this flow. `folder` of the bucket has its files; a table has `columns` with their types. `tags`
        come on top of the flow's; `more` is passed to Dagster as it is.
        """
        tags = {"regworkers/flow": self.name, **more.pop("tags", {})}
        shown: dict[str, Any] = {**_place_of(name, kinds, folder)}
        if columns is not None:
            known = [dg.TableColumn(each, type_ or "string") for each, type_ in columns.items()]
            shown["dagster/column_schema"] = dg.TableSchema(known)
        return dg.AssetSpec(
            name,
            description=description,
            kinds=kinds,
            group_name=self.name,
            owners=[f"team:{self.owner}"],
            tags=tags,
            metadata=shown,
            **more,
        )


def columns_of(kind: Any) -> dict[str, str]:
    """The columns, with their types, of a collection whose documents are this TypedDict or made of this dataclass."""
    if is_typeddict(kind):
        return {name: type_.__name__ for name, type_ in get_type_hints(kind).items()}
    return {camel(each.name): str(each.type) for each in fields(kind)}


def _place_of(name: str, kinds: set[str], folder: str) -> dict[str, str]:
    """Where the rows of an asset are, under Dagster's own keys: a collection has the asset's name."""
    settings = _settings()
    if folder:
        return {"dagster/uri": f"s3://{settings.names.bucket}/{folder}"}
    if kinds == {"mongodb"}:
        return {"dagster/table_name": f"{settings.database_name}.{name}"}
    return {"dagster/table_name": settings.names.demand_table} if kinds == {"dynamodb"} else {}


@cache
def fields_of(config_type: type[dg.Config]) -> dict[str, dg.Field]:
    """The schema of a config: of every job, asset and check."""
    fields = {name: plain(field) for name, field in config_type.to_fields_dict().items()}
    for other, name in spellings_of(config_type).items():
        description = f"Another spelling of `{name}`."
        fields[other] = dg.Field(str, default_value="", description=description)
    return fields


def spellings_of(config_type: type[dg.Config]) -> Mapping[str, str]:
    """Other names of fields, by which documents from elsewhere give them: `spellings` of the config's class."""
    found: Mapping[str, str] = getattr(config_type, "spellings", {})
    return found


def flat(step: str, config_type: type[dg.Config]) -> dg.ConfigMapping:
    """The config of a job whose only step is `step`, without `ops:` around it."""

    def mapped(given: Mapping[str, Any]) -> dict[str, Any]:
        # A field that was emptied has its default.
        filled = {key: value for key, value in given.items() if value is not None}
        for other, name in spellings_of(config_type).items():
            if value := filled.pop(other, ""):
                filled[name] = filled.get(name) or value
        return {"ops": {step: {"config": filled}}}

    return dg.ConfigMapping(mapped, config_schema=fields_of(config_type))


# A key of the mapping itself: those below it are indented.
_KEY = re.compile(r"^\w+:", re.MULTILINE)


def in_order(config: str, fields: Sequence[str]) -> str:
    """A config in YAML with the lines of each field in the order of `fields`, and those of any other behind them."""
    begin = [each.start() for each in _KEY.finditer(config)] or [len(config)]
    parts = [config[at:end] for at, end in pairwise([*begin, len(config)])]
    parts.sort(key=lambda part: place_in(fields, part.partition(":")[0]))
    return config[: begin[0]] + "".join(parts)


def place_in(fields: Sequence[str], name: str) -> int:
    """The place of a field in their order; behind all of them if it is none of them."""
    return fields.index(name) if name in fields else len(fields)


# A further sentence of ours begins with A to Z, or with the name of a job.
_END = re.compile(r"(?<=\.)\s+(?=[A-Z`])")


def in_a_sentence(description: str) -> str:
    """What the list of jobs says of one. The whole text is that of its step, asset or check."""
    return _END.split(description, 1)[0]


def asset_job(
    name: str,
    selection: dg.AssetSelection,
    *,
    description: str,
    tags: Mapping[str, str],
    config: dg.ConfigMapping | None = None,
    hooks: Set[dg.HookDefinition] = frozenset(),
    declared: Declared,
) -> Any:
    """A job that materialises assets or runs checks, in one process."""
    return dg.define_asset_job(
        name,
        selection=selection,
        config=config,
        tags={**tags, **tags_of(declared)},
        executor_def=dg.in_process_executor,
        description=in_a_sentence(description),
        hooks=hooks,
    )


@cache
def _settings() -> Settings:
    """The settings as they are when the definitions load."""
    return load_settings()


def _of_the_last(periods: dg.TimeWindowPartitionsDefinition) -> Callable[..., dg.RunRequest]:
    def ended(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        *_, last = periods.get_partition_keys(current_time=context.scheduled_execution_time)
        return dg.RunRequest(partition_key=last)

    return ended


def schedule(
    name: str,
    job: Any,
    cron: str,
    description: str,
    run_config: Mapping[str, Any] | None = None,
    *,
    due: Callable[[dg.ScheduleEvaluationContext], bool] | None = None,
    uses: Set[str] = frozenset(),
    of: dg.TimeWindowPartitionsDefinition | None = None,
) -> dg.ScheduleDefinition:
    """A schedule in UTC of a job, or of an operation's by its name. `due` asks, with the resources `uses`, whether to
    start a run; None: always. A run of a job with partitions is of the last one that ended before its tick.
    """

    return dg.ScheduleDefinition(
        name=name,
        should_execute=due,
        required_resource_keys=set(uses),
        job=None if isinstance(job, str) else job,
        job_name=job if isinstance(job, str) else None,
        cron_schedule=cron,
        execution_timezone="UTC",
        run_config=run_config,
        execution_fn=None if of is None else _of_the_last(of),
        default_status=dg.DefaultScheduleStatus.RUNNING
        if _settings().sensors_on
        else dg.DefaultScheduleStatus.STOPPED,
        description=description,
    )


def sensor(
    name: str,
    tick: Body,
    *,
    every_seconds: int,
    description: str,
    jobs: Sequence[Any] = (),
    job_name: str | None = None,
    uses: Set[str] = STORES,
) -> dg.SensorDefinition:
    """A sensor that may start `jobs`, or the job of an operation, by its name. It touches the resources `uses`."""
    return dg.sensor(
        name=name,
        jobs=list(jobs) or None,
        job_name=job_name,
        minimum_interval_seconds=every_seconds,
        required_resource_keys=set(uses),
        default_status=dg.DefaultSensorStatus.RUNNING
        if _settings().sensors_on
        else dg.DefaultSensorStatus.STOPPED,
        description=description,
    )(tick)
