"""The lease of a draw, and why a run is fenced: another one took its draw over, or the lease table knows less."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from regworkers_core.adapters.mongo.draws import Fenced, lease_name
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.leases import Lease, LeaseBusy, held_lease
from regworkers_core.runtime import Runtime


class DrawBusy(Failure):
    """Another run works on this draw. Nothing is wrong: it goes on there."""

    def __init__(self, campaign_id: str) -> None:
        super().__init__(f"another run works on the draw of {campaign_id}: nothing to do here")


@contextmanager
def draw_lease(
    runtime: Runtime, campaign_id: str, run_id: str, *, sleep: Callable[[float], object] = time.sleep
) -> Iterator[Lease]:
    """The lease of a campaign's draw. Raises DrawBusy while another run holds it, and when one took it over;
    UsageError when the lease table knows less than the draw; TransientFailure.
    """
    try:
        with held_lease(
            runtime.leases,
            lease_name(campaign_id),
            run_id,
            lease_seconds=runtime.settings.selection.lease_seconds,
            sleep=sleep,
        ) as lease:
            try:
                yield lease
            except Fenced:
                busy = DrawBusy(campaign_id)
                raise table_behind(runtime, campaign_id, lease) or busy from None
    except LeaseBusy:
        raise DrawBusy(campaign_id) from None


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
