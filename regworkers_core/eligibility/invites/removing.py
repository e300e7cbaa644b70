"""`regworkers invites remove`: invites that should not be there, by a list or by their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from regworkers_core.domain.invite import Invite, InviteType
from regworkers_core.eligibility.invites.lists import (
    Hooks,
    Line,
    ListReport,
    Work,
    one_at_a_time,
    work_off,
    write_limit,
)
from regworkers_core.eligibility.invites.terms import campaign_of_invites
from regworkers_core.runtime import Runtime

REMOVED, ABSENT = REMOVAL_OUTCOMES = ("removed", "absent")


def remove_invites(
    runtime: Runtime,
    slug_or_id: str,
    type_: InviteType,
    lines: Iterator[Line],
    *,
    rejects: Path,
    run_id: str,
    dry_run: bool = True,
    rate: float | None = None,
    hooks: Hooks | None = None,
) -> ListReport:
    """Remove the invites of all values in `lines`, expired ones included. Who entered by one keeps the entry.

    Raises UsageError for an unknown campaign, a list that cannot be read, or another list under way;
    TransientFailure when a store stays away (a repeat goes on).
    """
    hooks = hooks or Hooks()
    report = ListReport(campaign_of_invites(runtime, slug_or_id), type_, dry_run, REMOVAL_OUTCOMES)
    with ExitStack() as held:
        lease = None
        if not dry_run:
            lease = held.enter_context(one_at_a_time(runtime, report.campaign_id, type_, run_id, hooks.sleep))
        work = _removal_work(runtime, report, write_limit(runtime, rate, hooks))
        work_off(runtime, lines, work, report, rejects=rejects, lease=lease, hooks=hooks)
    return report


def _removal_work(runtime: Runtime, report: ListReport, wait_to_write: Callable[[int], object]) -> Work:
    def work(values: Sequence[str]) -> Counter[str]:
        keys = [Invite(report.campaign_id, report.type, value, 0).table_key for value in values]
        standing = runtime.invites.ttls(keys)
        if standing and not report.dry_run:
            wait_to_write(len(standing))
            runtime.invites.remove(list(standing))
        return Counter({REMOVED: len(standing), ABSENT: len(keys) - len(standing)})

    return work
