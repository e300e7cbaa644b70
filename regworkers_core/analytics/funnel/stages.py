"""The stages of the funnel, and where each is read from."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """In the order in which an entry passes them."""

    REGISTERED = "registered"
    REPLICATED = "replicated"
    ELIGIBLE = "eligible"
    WON = "won"
    CODED = "coded"
    NOTIFIED = "notified"

    @property
    def source(self) -> str:
        return _SOURCES[self]


STAGES = tuple(Stage)
# Counted in every market that the entry wishes for; the stages behind them in the one that it won.
WISHED = (Stage.REGISTERED, Stage.REPLICATED, Stage.ELIGIBLE)
# What has no market of the campaign, no segment, or no day that can be read.
NONE = "–"
_SOURCES = {
    Stage.REGISTERED: "entries of the demand table now, by a consistent read; those that were removed are not among "
    "them",
    Stage.REPLICATED: "live entries of the replica (MongoDB `entries`) now",
    Stage.ELIGIBLE: "entries of the pool that the draw has frozen (`pool.parquet`): judged eligible, and able to take "
    "part",
    Stage.WON: "entries with the outcome WINNER in the latest phase that is drawn (`outcomes.parquet`)",
    Stage.CODED: "entries with a row in `selections`, over all phases: each has an access code",
    Stage.NOTIFIED: "entries whose winner's message the mailer's queue has confirmed (`outbox`: SENT)",
}
