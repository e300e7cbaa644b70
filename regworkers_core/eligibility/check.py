"""`check_eligibility`: a list of checks in, a list of answers out, in the same order.

Read each check, gather the facts of all, judge each, write those that are to be written, queue their events. Nothing
that a check holds and nothing that a dependency does raises: the answer says it. What is not done when the time of the
call is over is missing in the answer, so that whoever waits for it gets one.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog

from regworkers_core.adapters.aws.direct_calls import DirectCalls
from regworkers_core.adapters.aws.entry_claims import EntryClaims
from regworkers_core.adapters.aws.event_queue import EventQueue
from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.adapters.mongo.entrants import Entrants
from regworkers_core.domain.claim import CLOCKS_SECONDS, WRITE_GRACE_SECONDS
from regworkers_core.domain.eligibility import Known, Missing, Source, Status
from regworkers_core.domain.events import eligibility_judged
from regworkers_core.domain.reasons import Failure, RequestError, TransientFailure, UsageError
from regworkers_core.eligibility.caller import TRUSTED, Caller
from regworkers_core.eligibility.case import AsOf
from regworkers_core.eligibility.gather import Gathered, Gatherer, Limits
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.eligibility.judge import Judgement, judge
from regworkers_core.eligibility.request import read_check
from regworkers_core.eligibility.rule import rule_set
from regworkers_core.eligibility.subject import Problem
from regworkers_core.eligibility.transfer import REFUSED, IdTaken, TakenBy, TooOld, Transfer, Transferred
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, describe, entries_passed
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# Checks that are gathered together: what bounds the memory of a call.
_TOGETHER = 1_000
# How often a transfer is judged before it is left to a repeat of the call.
_JUDGEMENTS = 2
# For another attempt at queueing the events, not for a long retry: the entries stand, and their callers wait.
_QUEUE_AGAIN_SECONDS = 1.0
# A campaign is looked up in the cache before its source is waited for.
_CACHE_SECONDS = 1.0
EXAMPLE = '[{"campaignSlug": "...", "entry": {"email": "...", "firstName": "...", "lastName": "..."}}]'


def check_eligibility(
    runtime: Runtime,
    items: object,
    *,
    callers: Sequence[Caller] | None = None,
    on_step: OnStep = no_step,
) -> list[dict[str, Any]]:
    """One answer document for each item; see docs/eligibility.md for both. `callers` says of each item who asks;
    without them all are trusted.

    Raises RequestError when `items` is no list, UsageError when the settings lack the address of a dependency.
    """
    if not isinstance(items, list | tuple):
        raise RequestError(f"a list of checks is due, like {EXAMPLE}: found {_kind(items)}")
    end = time.monotonic() + runtime.settings.eligibility.call_seconds
    checker = _checker(runtime)
    answers: list[dict[str, Any]] = []
    for start in range(0, len(items), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        answers += checker.check(items[part], on_step, end, callers and callers[part])
    return answers


class Checker:
    """Everything that a check needs, wired once. Safe to share between threads. `attempt_seconds` is what one attempt
    at the table or the queue can take.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        transfer: Transfer,
        analytics: Queue,
        *,
        clock: Callable[[], float],
        attempt_seconds: float = 0.0,
    ) -> None:
        self._gatherer, self._transfer = gatherer, transfer
        self._events, self._clock = EventQueue(analytics), clock
        self._attempt_seconds = attempt_seconds

    @classmethod
    def of(cls, runtime: Runtime) -> Checker:
        """Raises UsageError when the settings lack an address, or give a call too little time."""
        settings, aws = runtime.settings.eligibility, runtime.settings.aws
        # Clients of its own, since somebody waits: those of the drains are more patient than a whole call may be.
        patience = min(settings.read_seconds, aws.read_timeout_seconds)
        attempt = aws.connect_timeout_seconds + patience
        _require_time(settings.call_seconds, attempt)
        dynamodb = runtime.aws.client("dynamodb", read_timeout_seconds=patience)
        table = EntryClaims(
            dynamodb,
            runtime.dependency("dynamodb"),
            runtime.names.demand_table,
            batches=DirectCalls(dynamodb),
        )
        gatherer = Gatherer(
            runtime.campaign_cache,
            table,
            Entrants(runtime.database["entries"], runtime.dependency("mongo")),
            lambda: runtime.services.user,
            IdentitySecret(runtime.secrets),
            limits=Limits(
                settings.user_budget_seconds,
                settings.read_seconds,
                settings.threads,
                runtime.settings.cache.wait_seconds + _CACHE_SECONDS,
            ),
        )
        analytics = SqsQueue(
            runtime.aws.client("sqs", read_timeout_seconds=patience),
            runtime.dependency("sqs"),
            runtime.names.analytics_queue,
            batch_bytes=aws.sqs_batch_bytes,
        )
        transfer = Transfer(table, attempt_seconds=attempt, clock=runtime.clock)
        return cls(gatherer, transfer, analytics, clock=runtime.clock, attempt_seconds=attempt)

    def check(
        self,
        items: Sequence[object],
        on_step: OnStep,
        end: float = math.inf,
        callers: Sequence[Caller] | None = None,
    ) -> list[dict[str, Any]]:
        """Everything is over by `end` (monotonic seconds): the last attempt at the table leaves the time for one at
        the queue.
        """
        began = time.monotonic()
        last_write = end - 2 * self._attempt_seconds
        asking = callers or [TRUSTED] * len(items)
        checks = [read_check(item, caller) for item, caller in zip(items, asking, strict=True)]
        gathered = self._gatherer.gather(checks, last_write)
        as_of = AsOf.at(self._clock())
        # Entries that this call has added to a household, which the replica cannot know yet.
        added: Counter[tuple[str, str]] = Counter()
        answers, events = [], []
        passed: list[Passed] = []
        for each in gathered:
            if not each.check.do_transfer:
                answers.append(_told(each, as_of))
                continue
            answer, event = self._transferred(each, added, last_write, on_step)
            answers.append(answer)
            events += [event] if event else []
            if answer["transfer"]["entryId"] and each.campaign is not None:
                id_ = each.check.correlation_id
                passed.append(Passed(id_, each.campaign.campaign_id, answer["transfer"]["entryId"]))
        self._publish(events, end - self._attempt_seconds)
        entries_passed("entry judged", passed)
        # One line a call, whatever came of it: where the way of an entry begins, and how slow calls are found.
        log.info(
            "checks answered",
            checks=len(answers),
            created=sum(answer.get("transfer", {}).get("state") == "created" for answer in answers),
            fans=sum(each.is_a_fans for each in checks),
            # A backend that is not in `eligibility.trustedCallers` shows here: its fans' weights count for nothing.
            notTaken=sum(bool(each.not_taken) for each in checks),
            durationMs=round((time.monotonic() - began) * 1000),
            correlationIds=[each.check.correlation_id for each in gathered],
        )
        return answers

    def _transferred(
        self, gathered: Gathered, added: Counter[tuple[str, str]], end: float, on_step: OnStep
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The answer, and the event of an entry that stands at its first version."""
        check = gathered.check
        gathered = _with_household(gathered, added)
        standing = gathered.standing
        done: Transferred | TakenBy | IdTaken | TooOld | None = None
        if standing is not None:
            done = self._transfer.existing(standing, check)
            gathered = _with(gathered, done)
        gathered, as_of, judgement = self._judge(gathered)
        if done is None and standing is not None and standing.own is not None:
            for _ in range(_JUDGEMENTS):
                if judgement.status is not Status.ELIGIBLE:
                    break
                try:
                    done = self._transfer.write(
                        standing.own, standing, check, as_of, end=end, on_step=on_step
                    )
                except TransientFailure as failure:
                    judgement = _not_written(judgement, failure.dependency, failure.error)
                except (Failure, UsageError) as failure:
                    judgement = _not_written(judgement, "dynamodb", str(failure))
                if isinstance(done, TakenBy | IdTaken):
                    gathered = _with(gathered, done)
                    judgement = judge(gathered.check.subject, gathered.facts, as_of)
                if not isinstance(done, TooOld):
                    break
                gathered, as_of, judgement = self._judge(gathered)
            else:
                judgement = _not_written(judgement, "dynamodb", "claiming took too long to go on safely")
        answer = judgement.as_answer(gathered.facts, as_of, check.correlation_id, to_a_fan=check.is_a_fans)
        if not isinstance(done, Transferred):
            return {**answer, "transfer": dict(REFUSED)}, None
        if done.created and check.subject.unit is not None:
            added[done.key.campaign_id, check.subject.unit] += 1
        return {**answer, "transfer": done.as_answer()}, _event(done, judgement, as_of, check.correlation_id)

    def _judge(self, gathered: Gathered) -> tuple[Gathered, AsOf, Judgement]:
        """At a moment of its own, which becomes the entry's: with that of others, an entry could be let in before the
        closing and be created after it.
        """
        as_of = AsOf.at(self._clock())
        gathered = gathered.at(as_of.seconds)
        return gathered, as_of, judge(gathered.check.subject, gathered.facts, as_of)

    def _publish(self, events: Sequence[dict[str, Any]], end: float) -> None:
        """Queue the events. The entries stand: what cannot be queued is logged, and the repeat of a call, which
        finds its entry, queues it again.
        """
        if not events:
            return
        try:
            left = max(0.0, min(_QUEUE_AGAIN_SECONDS, end - time.monotonic()))
            unconfirmed = self._events.send(events, within_seconds=left)
        except Exception as error:
            log.warning("events not queued", events=len(events), error=describe(error))
            return
        if unconfirmed:
            first = next(iter(unconfirmed.values()))
            log.warning("events not queued", events=len(unconfirmed), error=first.error)


def _require_time(call_seconds: float, attempt_seconds: float) -> None:
    """For two attempts in a call (see `check`), and for one that begins and ends while its entry may be put."""
    if call_seconds <= 2 * attempt_seconds or attempt_seconds >= WRITE_GRACE_SECONDS - CLOCKS_SECONDS:
        raise UsageError(
            f"eligibility.callSeconds ({call_seconds:g}) leaves no time to write an entry: it must be above twice"
            " aws.connectTimeoutSeconds and eligibility.readSeconds together, which must be below"
            f" {WRITE_GRACE_SECONDS - CLOCKS_SECONDS:g}"
        )


_wiring = threading.Lock()


def _checker(runtime: Runtime) -> Checker:
    """One for each runtime, so that its threads and the secret are kept. It lies where the runtime keeps its other
    parts, and goes with it.
    """
    with _wiring:
        parts = vars(runtime)
        if "eligibility_checker" not in parts:
            parts["eligibility_checker"] = Checker.of(runtime)
        checker: Checker = parts["eligibility_checker"]
        return checker


def _told(gathered: Gathered, as_of: AsOf) -> dict[str, Any]:
    gathered = gathered.at(as_of.seconds)
    judgement = judge(gathered.check.subject, gathered.facts, as_of)
    check = gathered.check
    return judgement.as_answer(gathered.facts, as_of, check.correlation_id, to_a_fan=check.is_a_fans)


def _not_written(judgement: Judgement, dependency: str, error: str) -> Judgement:
    """Whether the entry stands is as unknown as any other fact: a repeat finds out."""
    log.warning("entry not written", dependency=dependency, error=error)
    return replace(judgement, missing={"transfer": Missing(dependency, error)})


def _with(gathered: Gathered, done: object) -> Gathered:
    """With what a transfer has found out, for a judgement that says so."""
    if isinstance(done, TakenBy):
        by = Known(frozenset({done.identity}), Source.DATABASE)
        return replace(gathered, facts=replace(gathered.facts, duplicates=by))
    if isinstance(done, IdTaken):
        subject = gathered.check.subject
        invalid = (*subject.invalid, Problem("entryId", "is that of another person's entry"))
        return replace(gathered, check=replace(gathered.check, subject=replace(subject, invalid=invalid)))
    return gathered


def _with_household(gathered: Gathered, added: Counter[tuple[str, str]]) -> Gathered:
    household, unit = gathered.facts.household, gathered.check.subject.unit
    if gathered.campaign is None or unit is None or isinstance(household, Missing):
        return gathered
    more = added[gathered.campaign.campaign_id, unit]
    counted = replace(household, value=household.value + more)
    return replace(gathered, facts=replace(gathered.facts, household=counted)) if more else gathered


def _event(
    done: Transferred, judgement: Judgement, as_of: AsOf, correlation_id: str
) -> dict[str, Any] | None:
    """Of an entry as it was written. One that changed since has had its event long ago. None, too, for a repeat that is
    not ELIGIBLE: the entry was, and anybody may have typed its address with another age, or after the closing.
    """
    if done.order.version != 1 or not (done.created or judgement.status is Status.ELIGIBLE):
        return None
    verdict = {
        "status": judgement.status.value,
        "reasons": [each.code for each in judgement.reasons],
        "ruleSet": rule_set(),
        "asOf": as_of.text,
    }
    return eligibility_judged(done.key, done.order, verdict, correlation_id)


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, dict) else type(value).__name__
