"""Why a run is fenced: another one took its draw over, or the lease table knows less than the draw."""

from __future__ import annotations

from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.leases import Lease
from regworkers_core.runtime import Runtime


def table_behind(runtime: Runtime, campaign_id: str, lease: Lease) -> UsageError | None:
    """What to say of a run that was fenced although it holds its lease still: its lease table was made anew, or
    restored from long ago, and counts tokens that the draw has seen before. None when another run took over.

    Raises TransientFailure.
    """
    if not lease.renew():
        return None
    record = runtime.draws.get(campaign_id)
    seen = "another" if record is None else str(record.token)
    return UsageError(
        f"the draw of {campaign_id} was written under token {seen}, and `{runtime.names.lease_table}` is only at"
        f" {lease.token}: was another table restored? Wait for the right one, or set `token` of the draw's document"
        " to 0"
    )
