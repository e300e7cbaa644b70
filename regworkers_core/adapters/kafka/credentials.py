"""Chooses the newest certificate that the brokers accept. A broken renewal never replaces a working one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from fairdraw import scheduling
from regworkers_core.adapters.kafka.security import KafkaSecurity, Material, SecretStage
from regworkers_core.domain.reasons import TransientFailure, UsageError

log = structlog.get_logger(__name__)
_SILENT = logging.getLogger("regworkers.librdkafka")
# Requests to the brokers repeat within the time-out, because errors arrive between them.
_PIECE_SECONDS = 0.25


class Answer(Enum):
    """The result of an attempt to connect. SILENCE may be an outage, or brokers that close the connection."""

    CONNECTED = "connected"
    REFUSED = "refused"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class MaterialInUse:
    """Material in use, as librdkafka's settings. `verified`: the brokers accepted it."""

    options: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    verified: bool


class Tried(NamedTuple):
    answer: Answer
    reason: str  # of a failure


# Tries to connect with librdkafka's settings. Returns the result and, in words, the reason for a failure.
Try = Callable[[Mapping[str, Any]], tuple[Answer, str]]
# Called at every check with the reason why the newest material is not in use, or None.
Watcher = Callable[[str | None], None]


class Credentials:
    """The material in use by a process. Safe to share between threads. Nothing is read before the first use."""

    def __init__(
        self,
        security: KafkaSecurity,
        try_out: Try,
        *,
        check_seconds: float,
        monotonic: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._security, self._try = security, try_out
        self.check_seconds = check_seconds
        self._monotonic = monotonic
        self._lock = scheduling.lock()
        self._accepted: MaterialInUse | None = None
        self._checked_at = 0.0
        # Why the newest material is not in use; None while it is.
        self.refused: str | None = None
        self.watcher: Watcher | None = None

    @property
    def may_change(self) -> bool:
        return self._security.may_change

    def accepted(self) -> MaterialInUse:
        """The material in use, read at the first use only. Raises UsageError and TransientFailure if there is none."""
        known = self._accepted
        return known if known is not None else self.check()

    def fresh(self) -> MaterialInUse:
        """What `accepted` gives, but checks again when the last check is `check_seconds` ago."""
        known = self._accepted
        due = self.may_change and self._monotonic() - self._checked_at >= self.check_seconds
        return self.check() if known is None or due else known

    def check(self) -> MaterialInUse:
        """Read the current material, and use it if it is new and the brokers accept it.

        Raises UsageError and TransientFailure only while nothing is in use yet.
        """
        with self._lock:
            self._checked_at = self._monotonic()
            before, refused = self._accepted, self.refused
            try:
                accepted = self._chosen(before)
            except TransientFailure as failure:
                if before is None:
                    raise
                # The store is unavailable, which says nothing about what it holds.
                log.warning("certificate check failed", error=str(failure))
                return before
            self._accepted = accepted
            if self.refused != refused:
                _log_refusal(self.refused)
            if before is not None and accepted.fingerprint != before.fingerprint:
                log.info("new certificate in use", fingerprint=accepted.fingerprint[:12])
        if self.watcher is not None:
            self.watcher(self.refused)
        return accepted

    def _chosen(self, before: MaterialInUse | None) -> MaterialInUse:
        """The material to use from now on. Also sets `refused`."""
        try:
            material = self._security.material()
        except UsageError as error:
            kept = before or self._previous(None)
            if kept is None:
                raise
            self.refused = str(error)
            return kept
        newest = self._candidate(material)
        if not self._security.shows_certificate or not self._security.may_change:
            return newest
        if before is not None and before.verified and newest.fingerprint == before.fingerprint:
            self.refused = None
            return before
        answer, why = self._try(newest.options)
        if answer is Answer.CONNECTED:
            self.refused = None
            return MaterialInUse(newest.options, newest.fingerprint, verified=True)
        kept = self._working(before) if before is not None and before.verified else None
        kept = kept or self._previous(newest.fingerprint)
        if kept is not None:
            # Other material is accepted at the same time, so this is not an outage.
            self.refused = why
            return kept
        if answer is Answer.REFUSED:
            self.refused = why
        # In an outage the current material is as good as the former; the next check after it decides.
        return before or newest

    def _working(self, accepted: MaterialInUse) -> MaterialInUse | None:
        return accepted if self._try(accepted.options)[0] is Answer.CONNECTED else None

    def _previous(self, newest: str | None) -> MaterialInUse | None:
        """The previous version, if there is one and the brokers accept it."""
        if not self._security.has_stages:
            return None
        try:
            candidate = self._candidate(self._security.material(SecretStage.PREVIOUS))
        except UsageError:
            return None
        if candidate.fingerprint == newest or self._working(candidate) is None:
            return None
        return MaterialInUse(candidate.options, candidate.fingerprint, verified=True)

    def _candidate(self, material: Material) -> MaterialInUse:
        return MaterialInUse(self._security.options(material), material.fingerprint, verified=False)


def _log_refusal(refused: str | None) -> None:
    if refused is None:
        log.info("newest certificate in use")
    else:
        log.warning("new certificate rejected; keeping the current one", error=refused)


def try_out(bootstrap: str, *, timeout_seconds: float) -> Try:
    """Returns a `Try` that asks the brokers for their metadata."""

    def attempt(options: Mapping[str, Any]) -> Tried:
        errors: list[int] = []
        fixed: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "error_cb": lambda error: errors.append(error.code()),
        }
        try:
            client = AdminClient({**options, **fixed}, logger=_SILENT)
        except KafkaException:
            return Tried(
                Answer.REFUSED, "the key does not belong to the certificate, or one of them is damaged"
            )
        give_up = scheduling.monotonic() + timeout_seconds
        while (left := give_up - scheduling.monotonic()) > 0:
            try:
                client.list_topics(timeout=min(_PIECE_SECONDS, left))
            except KafkaException:
                # Serves the errors of the connections.
                client.poll(0)
                if KafkaError._SSL in errors or KafkaError._AUTHENTICATION in errors:
                    return Tried(
                        Answer.REFUSED,
                        "no TLS connection: brokers and this client do not trust each other",
                    )
                if KafkaError._ALL_BROKERS_DOWN in errors:
                    break
            else:
                return Tried(Answer.CONNECTED, "")
        return Tried(
            Answer.SILENCE,
            "the brokers close the connection: the certificate expired, or its issuer is unknown",
        )

    return attempt
