"""`check_eligibility`: a list of checks in, a list of answers out, in the same order.

Reads each check, gathers the facts of all, judges each, writes the entries of transfers and queues their events. No
content of a check and no failure of a dependency raises: the answer says what failed. What is not done when the time
of the call is over is missing in the answer, so that the caller always gets one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.claims import EntryClaims
from regworkers_core.adapters.aws.cloudwatch import Metrics
from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.adapters.mongo.entrants import Entrants
from regworkers_core.domain.claim import CLOCKS_SECONDS, WRITE_GRACE_SECONDS
from regworkers_core.domain.eligibility import FactSource, Known, Missing, Status
from regworkers_core.domain.events import ProducerRole, eligibility_judged
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import Failure, RequestError, TransientFailure, UsageError
from regworkers_core.eligibility.case import AsOf, FieldProblem
from regworkers_core.eligibility.gather import Gathered, Gatherer
from regworkers_core.eligibility.identity import TRUSTED, Caller, IdentitySecret
from regworkers_core.eligibility.request import read_check
from regworkers_core.eligibility.rules import Verdict, judge, rule_set
from regworkers_core.eligibility.transfer import REFUSED, IdTaken, TakenBy, TooOld, Transfer, Transferred
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, describe, entries_passed
from regworkers_core.observability.metrics import UNKNOWN_VERDICTS, Metering
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# Checks that are gathered together; this bounds the memory of a call.
_TOGETHER = 1_000
# Judgements of one transfer before the caller has to repeat it.
_JUDGEMENTS = 2
# Enough for a second attempt to queue the events; the entries exist already, and their callers wait.
_QUEUE_AGAIN_SECONDS = 1.0
# The cache is asked first, then the wait for the campaign's source begins.
_CACHE_SECONDS = 1.0
# In an outage every call has UNKNOWN verdicts: one metric in this time for each process is enough.
_COUNT_SECONDS = 10.0
EXAMPLE = '[{"campaignSlug": "...", "entry": {"email": "...", "firstName": "...", "lastName": "..."}}]'


def check_eligibility(
    runtime: Runtime, items: object, *, callers: Sequence[Caller] | None = None
) -> list[dict[str, Any]]:
    """Return one answer document for each item; docs/eligibility.md has both formats. `callers` has the caller of each
    item; without it all are trusted.

    Raises RequestError if `items` is not a list, UsageError if the settings lack the address of a dependency.
    """
    if not isinstance(items, list | tuple):
        raise RequestError(f"expected a list of checks such as {EXAMPLE}, got {_kind(items)}")
    end = scheduling.monotonic() + runtime.settings.eligibility.call_seconds
    checker = _checker(runtime)
    answers: list[dict[str, Any]] = []
    for start in range(0, len(items), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        answers += checker.check(items[part], no_step, end, callers and callers[part])
    return answers


class _Done(NamedTuple):
    answer: dict[str, Any]
    event: dict[str, Any] | None  # of an entry that exists at its first version
    key: EntryKey | None  # of an entry that exists


class _Judged(NamedTuple):
    gathered: Gathered
    as_of: AsOf
    verdict: Verdict


class Checker:
    """Checks and transfers, wired once. Safe to share between threads. `attempt_seconds` is the longest that one
    attempt at the table or the queue can take.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        transfer: Transfer,
        events: EventQueue,
        *,
        clock: Callable[[], float],
        attempt_seconds: float = 0.0,
        metrics: Metrics | None = None,
    ) -> None:
        self._gatherer, self._transfer = gatherer, transfer
        self._metrics, self._unknown, self._put_at = metrics, 0, -math.inf
        self._events, self._clock = events, clock
        self._attempt_seconds = attempt_seconds

    @classmethod
    def of(cls, runtime: Runtime) -> Checker:
        """Wire a checker. Raises UsageError if the settings lack an address, or give a call too little time."""
        settings, aws = runtime.settings.eligibility, runtime.settings.aws
        # Clients with short time-outs, since a caller waits: a drain's clients may wait longer than a whole call.
        read_timeout = min(settings.read_seconds, aws.read_timeout_seconds)
        attempt = aws.connect_timeout_seconds + read_timeout
        _require_time(settings.call_seconds, attempt)
        dynamodb = runtime.aws.client("dynamodb", read_timeout_seconds=read_timeout)
        table = EntryClaims(dynamodb, runtime.dependency("dynamodb"), runtime.names.demand_table)
        gatherer = Gatherer(
            runtime.campaign_cache,
            table,
            Entrants(runtime.database["entries"], runtime.dependency("mongo")),
            lambda: runtime.services.user,
            IdentitySecret(runtime.secrets),
            settings=settings,
            campaign_seconds=runtime.settings.cache.wait_seconds + _CACHE_SECONDS,
        )
        analytics = runtime.queue(runtime.names.analytics_queue, read_seconds=read_timeout)
        transfer = Transfer(table, attempt_seconds=attempt, clock=runtime.clock)
        events = runtime.event_queue(ProducerRole.ELIGIBILITY, analytics)
        metrics = runtime.metrics_by(aws_read_seconds=read_timeout)
        return cls(gatherer, transfer, events, clock=runtime.clock, attempt_seconds=attempt, metrics=metrics)

    def check(
        self,
        items: Sequence[object],
        on_step: OnStep,
        end: float = math.inf,
        callers: Sequence[Caller] | None = None,
    ) -> list[dict[str, Any]]:
        """Answer all items by `end` (monotonic seconds): the last attempt at the table leaves time for one at the
        queue.
        """
        began = scheduling.monotonic()
        last_write = end - 2 * self._attempt_seconds
        asking = callers or [TRUSTED] * len(items)
        checks = [read_check(item, caller) for item, caller in zip(items, asking, strict=True)]
        gathered = self._gatherer.gather(checks, last_write)
        as_of = AsOf.at(self._clock())
        # Entries that this call added to each household: the replica does not have them yet.
        added: Counter[tuple[str, str]] = Counter()
        answers, events = [], []
        passed: list[Passed] = []
        for each in gathered:
            if not each.check.do_transfer:
                answers.append(_answer(each, as_of))
                continue
            answer, event, key = self._transferred(each, added, last_write, on_step)
            answers.append(answer)
            events += [event] if event else []
            if key is not None:
                passed.append(Passed(each.check.correlation_id, key.campaign_id, key.entry_id))
        self._publish(events, end - self._attempt_seconds)
        entries_passed("entry judged", passed)
        unknown = sum(answer["status"] == Status.UNKNOWN for answer in answers)
        self._count(unknown, end)
        # One line per call, whatever its result: the start of an entry's trace, and the place to find slow calls.
        log.info(
            "checks answered",
            checks=len(answers),
            created=sum(answer.get("transfer", {}).get("state") == "created" for answer in answers),
            unknown=unknown,
            fans=sum(each.is_a_fans for each in checks),
            # Shows a backend that is missing in `eligibility.trustedCallers`: the weights that it sends are dropped.
            notTaken=sum(bool(each.not_taken) for each in checks),
            durationMs=round((scheduling.monotonic() - began) * 1000),
            correlationIds=[each.check.correlation_id for each in gathered],
        )
        return answers

    def _transferred(
        self, gathered: Gathered, added: Counter[tuple[str, str]], end: float, on_step: OnStep
    ) -> _Done:
        check = gathered.check
        gathered = _with_household(gathered, added)
        earlier = gathered.earlier
        done: Transferred | TakenBy | IdTaken | TooOld | None = None
        if earlier is not None:
            done = self._transfer.existing(earlier, check)
            gathered = _with(gathered, done)
        gathered, as_of, verdict = self._judge(gathered)
        if done is None and earlier is not None and earlier.own is not None:
            for _ in range(_JUDGEMENTS):
                if verdict.status is not Status.ELIGIBLE:
                    break
                try:
                    done = self._transfer.write(earlier.own, earlier, check, as_of, end=end, on_step=on_step)
                except TransientFailure as failure:
                    verdict = _not_written(verdict, failure.dependency, failure.error)
                except (Failure, UsageError) as failure:
                    verdict = _not_written(verdict, "dynamodb", str(failure))
                if isinstance(done, TakenBy | IdTaken):
                    gathered = _with(gathered, done)
                    verdict = judge(gathered.check.subject, gathered.facts, as_of)
                if not isinstance(done, TooOld):
                    break
                gathered, as_of, verdict = self._judge(gathered)
            else:
                verdict = _not_written(
                    verdict, "dynamodb", "claiming the identities took too long; repeat the call"
                )
        answer = verdict.as_answer(gathered.facts, as_of, check.correlation_id, to_a_fan=check.is_a_fans)
        if not isinstance(done, Transferred):
            return _Done({**answer, "transfer": dict(REFUSED)}, None, None)
        if done.created and check.subject.unit is not None:
            added[done.key.campaign_id, check.subject.unit] += 1
        answer["transfer"] = done.as_answer(names_it=check.is_vouched_for)
        return _Done(answer, _event(done, verdict, as_of, check.correlation_id), done.key)

    def _judge(self, gathered: Gathered) -> _Judged:
        """Judge at this moment, which becomes the entry's `createdAt`: at the shared moment of the call, an entry could
        be eligible before the closing and be written after it.
        """
        as_of = AsOf.at(self._clock())
        gathered = gathered.at(as_of.seconds)
        return _Judged(gathered, as_of, judge(gathered.check.subject, gathered.facts, as_of))

    def _count(self, unknown: int, end: float) -> None:
        """Put the number of UNKNOWN verdicts, if there is time for it: at once, then every 10 s."""
        self._unknown += unknown
        now = scheduling.monotonic()
        due = self._unknown and now - self._put_at >= _COUNT_SECONDS
        if self._metrics is not None and due and end - now > self._attempt_seconds:
            counted, self._unknown, self._put_at = self._unknown, 0, now
            self._metrics.put([Metering(UNKNOWN_VERDICTS, counted)])

    def _publish(self, events: Sequence[dict[str, Any]], end: float) -> None:
        """Queue the events. An event that cannot be queued is logged; a repeated call, which finds its entry, queues it
        again.
        """
        if not events:
            return
        try:
            left = max(0.0, min(_QUEUE_AGAIN_SECONDS, end - scheduling.monotonic()))
            unconfirmed = self._events.send(events, within_seconds=left)
        except Exception as error:
            log.warning("events not queued", events=len(events), error=describe(error))
            return
        if unconfirmed:
            first = next(iter(unconfirmed.values()))
            log.warning("events not queued", events=len(unconfirmed), error=first.error)


def _require_time(call_seconds: float, attempt_seconds: float) -> None:
    """Require time for two attempts in a call (see `check`), and for one put within the grace time of its entry."""
    if call_seconds <= 2 * attempt_seconds or attempt_seconds >= WRITE_GRACE_SECONDS - CLOCKS_SECONDS:
        raise UsageError(
            f"eligibility.callSeconds ({call_seconds:g}) leaves no time to write an entry: it must be above twice"
            " aws.connectTimeoutSeconds and eligibility.readSeconds together, which must be below"
            f" {WRITE_GRACE_SECONDS - CLOCKS_SECONDS:g}"
        )


_wiring = scheduling.lock()


def _checker(runtime: Runtime) -> Checker:
    """Return the runtime's checker, which keeps its threads and the secret. It is stored beside the runtime's other
    parts and ends with it.
    """
    with _wiring:
        parts = vars(runtime)
        if "eligibility_checker" not in parts:
            parts["eligibility_checker"] = Checker.of(runtime)
        checker: Checker = parts["eligibility_checker"]
        return checker


def _answer(gathered: Gathered, as_of: AsOf) -> dict[str, Any]:
    gathered = gathered.at(as_of.seconds)
    verdict = judge(gathered.check.subject, gathered.facts, as_of)
    check = gathered.check
    return verdict.as_answer(gathered.facts, as_of, check.correlation_id, to_a_fan=check.is_a_fans)


def _not_written(verdict: Verdict, dependency: str, error: str) -> Verdict:
    """Report the entry as a missing fact: whether it exists is unknown until the call is repeated."""
    log.warning("entry not written", dependency=dependency, error=error)
    return replace(verdict, missing={"transfer": Missing(dependency, error)})


def _with(gathered: Gathered, done: object) -> Gathered:
    """Add what the transfer found to the facts, so that the verdict names it."""
    if isinstance(done, TakenBy):
        by = Known(frozenset({done.identity}), FactSource.DATABASE)
        return replace(gathered, facts=replace(gathered.facts, duplicates=by))
    if isinstance(done, IdTaken):
        subject = gathered.check.subject
        invalid = (*subject.invalid, FieldProblem("entryId", "belongs to another person's entry"))
        return replace(gathered, check=replace(gathered.check, subject=replace(subject, invalid=invalid)))
    return gathered


def _with_household(gathered: Gathered, added: Counter[tuple[str, str]]) -> Gathered:
    household, unit = gathered.facts.household, gathered.check.subject.unit
    if gathered.campaign is None or unit is None or isinstance(household, Missing):
        return gathered
    more = added[gathered.campaign.campaign_id, unit]
    counted = replace(household, value=household.value + more)
    return replace(gathered, facts=replace(gathered.facts, household=counted)) if more else gathered


def _event(done: Transferred, verdict: Verdict, as_of: AsOf, correlation_id: str) -> dict[str, Any] | None:
    """Return the event of an entry as it was written. None for an entry that has changed since: its event was sent
    before. None also for a repeat that is not ELIGIBLE: the entry was, and a repeat may have another age, or come after
    the closing.
    """
    if done.order.version != 1 or not (done.created or verdict.status is Status.ELIGIBLE):
        return None
    summary = {
        "status": verdict.status.value,
        "reasons": [each.code for each in verdict.reasons],
        "ruleSet": rule_set(),
        "asOf": as_of.text,
    }
    return eligibility_judged(done.key, done.order, summary, correlation_id)


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, dict) else type(value).__name__
