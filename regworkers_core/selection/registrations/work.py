"""Appends the rounds of the drain `register`, one bundle each, and counts what came of their entries."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from fairdraw.errors import DrawError
from fairdraw.maths.registration import NoticeKind
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.dependency import REDELIVERY
from regworkers_core.engine.drain import Settlement
from regworkers_core.observability.tracing import span
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.source import FAILED_SECONDS, RegistrationSource, Round
from regworkers_core.selection.registrations.steps import NewLeaf

log = structlog.get_logger(__name__)


_KINDS = {NoticeKind.WITHDRAWN: "withdrawn", NoticeKind.ERASED: "erased", NoticeKind.UNIT: "other_unit"}


class RegisterWork:
    """A `Work[Round]`. `counts` are of entries of trees, leaves and notices."""

    def __init__(self, runtime: Runtime, source: RegistrationSource) -> None:
        self._runtime, self._source = runtime, source

    def __call__(self, rounds: Sequence[Round]) -> Settlement[Round]:
        settlement = Settlement[Round]()
        for each in rounds:
            with span("registrations", entries=len(each.steps)):
                self._append(each, settlement)
        return settlement

    def _append(self, made: Round, settlement: Settlement[Round]) -> None:
        settlement.counts["received"] += len(made.steps)
        wait_seconds = max(1.0, REDELIVERY.backoff(1))
        try:
            if self._source.may_append():
                made.appended = made.appender.append(made.steps)
                self._runtime.registrations.done(made.done)
                self._count(made, settlement)
                settlement.done.append(made)
                return
        except TransientFailure as failure:
            log.warning("not appended", dependency=failure.dependency, error=failure.error)
        except (DrawError, UsageError) as error:
            self._source.failed(made.campaign_id, error)
            wait_seconds = FAILED_SECONDS
        settlement.again.append((made, wait_seconds))
        settlement.counts["returned"] += len(made.steps)

    def _count(self, made: Round, settlement: Settlement[Round]) -> None:
        now = self._runtime.clock()
        settlement.counts["applied"] += len(made.appended)
        settlement.counts["stale"] += len(made.steps) - len(made.appended)
        settlement.counts.update(
            "registered" if isinstance(step, NewLeaf) else _KINDS[step.notice.kind] for step in made.appended
        )
        saved = (seconds(step.registrant.replicated_at) for step in made.appended)
        settlement.lags.extend(now - at for at in saved if at is not None)
