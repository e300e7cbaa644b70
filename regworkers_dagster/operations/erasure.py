"""The erasure of a fan's entry, by ids alone: what else is needed is found in the stores."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import dagster as dg
from pydantic import Field

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.observability.logs import bind
from regworkers_core.operations.erasure.erase import ErasureReport, erase
from regworkers_dagster.operations.audit import launched_by_hand
from regworkers_dagster.resources import Workers, plain_failures
from regworkers_dagster.tags import long_run


class ErasureConfig(dg.Config):
    """Which entry. Never a mail address or a name: config is kept with the run."""

    campaign_id: str = Field(default="", description="The campaign's id.")
    entry_id: str = Field(
        default="", description="The entry's id in the campaign; `regworkers trace` shows it."
    )
    confirm: str = Field(
        default="",
        description="The entry's id once more: erases it, for good. Empty: says what that would be.",
    )


@dg.op(name="erase", description="Takes one entry out of every store and tells what stays.")
def erase_op(context: dg.OpExecutionContext, config: ErasureConfig, workers: Workers) -> None:
    """Fails when something is left to do; launched again, it goes on."""
    bind(runId=context.run_id, worker="erase", campaignId=config.campaign_id)
    with plain_failures():
        key = EntryKey(config.campaign_id, config.entry_id)
        if problem := key.problem:
            raise UsageError(f"campaign_id and entry_id name no entry: {problem}")
        if config.confirm and config.confirm != config.entry_id:
            raise UsageError("confirm is not the entry's id: nothing was erased")
        dry_run = not config.confirm
        with launched_by_hand(
            context.run, workers.runtime, "erase_entry", key.document_id, dry_run=dry_run
        ) as result:
            report = erase(workers.runtime, key, dry_run=dry_run, on_phase=context.log.info)
            result |= report.numbers | {"finished": report.finished}
    metadata = _metadata(report)
    context.add_output_metadata(metadata)
    for note in report.notes:
        context.log.warning(note)
    if not report.known:
        raise dg.Failure("neither store knows this entry: check the ids", metadata, allow_retries=False)
    if not report.finished:
        raise dg.Failure(report.advice, metadata, allow_retries=False)


def _metadata(report: ErasureReport) -> dict[str, dg.MetadataValue]:
    """Counts, and what stays. Codes are listed at the terminal alone: they are as good as tickets."""
    columns = ("where", "what", "until", "why", "number")
    records = [
        dg.TableRecord({name: "–" if value is None else str(value) for name, value in each.as_dict().items()})
        for each in report.stays
    ]
    table = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in columns])
    return {
        **{name: dg.MetadataValue.int(number) for name, number in report.numbers.items()},
        "erased_at": dg.MetadataValue.text(report.erased_at or "–"),
        "dry_run": dg.MetadataValue.bool(report.dry_run),
        "codes_for_the_issuer": dg.MetadataValue.int(len(report.codes)),
        "stays": dg.MetadataValue.table(records, schema=table),
    }


@dg.job(
    # It looks through all dead letters.
    tags=long_run(),
    executor_def=dg.in_process_executor,
    description="Erases one fan's entry: out of the demand table, the replica with its former versions, invites, "
    "claims and dead letters; its messages are not sent. Without `confirm` it says what that would be, and what stays "
    "until when and why. Codes for the issuer: `regworkers erase <campaignId> <entryId>` lists them. "
    'Config: {"campaign_id": "...", "entry_id": "..."}; then also {"confirm": "<entry_id>"}.',
)
def erase_entry() -> None:
    """One op."""
    erase_op()
