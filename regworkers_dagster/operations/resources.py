"""`find_resources`: run by the pipeline after each deployment; what stands on AWS against what is declared."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from pathlib import Path

import dagster as dg
from pydantic import Field

from regworkers_core.infrastructure.discovery.compare import Discovery, discover
from regworkers_core.infrastructure.discovery.terraform import read_state
from regworkers_core.observability.logs import bind
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import OPERATION_TAG, short_run

# What one run shows of a long list; the command shows all.
_ROWS = 100


class FindConfig(dg.Config):
    """The defaults compare AWS with the settings alone."""

    terraform_file: str = Field(
        default="",
        description="Output of `terraform show -json`, where the run can read it. Empty: Terraform is left out.",
    )


@dg.op(name="find", description="Compares what stands on AWS with what is declared; changes nothing.")
def find_op(context: dg.OpExecutionContext, config: FindConfig, tick_workers: Workers) -> None:
    """Fails its run with any difference, and when something could not be read."""
    bind(runId=context.run_id, worker="find_resources")
    with plain_failures():
        state = read_state(Path(config.terraform_file)) if config.terraform_file else None
        found = discover(tick_workers.runtime, state)
    context.add_output_metadata(of_discovery(found))
    if found.differing or found.blind:
        raise dg.Failure(
            description=in_words(found), metadata=of_discovery(found), allow_retries=not found.differing
        )


def of_discovery(found: Discovery) -> dict[str, dg.MetadataValue]:
    lines = [
        (line.kind.value, line.name, text)
        for line in found.lines
        for text in (*line.differences, *(f"could not read: {why}" for why in line.unread))
    ]
    lines += [(line.kind.value, line.name, "nobody declares it") for line in found.strays]
    lines += [("", what, f"could not read: {why}") for what, why in found.unread.items()]
    table = "\n".join(f"| {kind} | `{name}` | {text} |" for kind, name, text in lines[:_ROWS])
    header = "| kind | name | |\n|---|---|---|\n"
    metadata: dict[str, dg.MetadataValue] = {
        "resources": dg.MetadataValue.int(len(found.lines)),
        "differing": dg.MetadataValue.int(len(found.differing)),
        "strays": dg.MetadataValue.int(len(found.strays)),
        "could_not_read": dg.MetadataValue.bool(found.blind),
    }
    return metadata | ({"report": dg.MetadataValue.md(header + table)} if lines else {})


def in_words(found: Discovery) -> str:
    """One line for the run's page."""
    if found.empty:
        return f"nothing of {found.environment} stands: `regworkers provision`, or deploy/terraform"
    if not found.differing:
        return "something could not be read; whatever could is as declared"
    names = ", ".join(line.name for line in found.differing[:5])
    return f"{len(found.differing)} resources differ from what is declared: {names}"


@dg.job(
    tags={OPERATION_TAG: "find-resources", **short_run()},
    executor_def=dg.in_process_executor,
    description="Compares tables, queues, bucket, log groups, dashboards, alarms, policies and roles with what the "
    "settings declare. Run after each deployment; fails on a difference, as `regworkers aws find-resources` does.",
)
def find_resources() -> None:
    """One op."""
    find_op()
