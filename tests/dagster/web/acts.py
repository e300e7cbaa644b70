"""Operations as a later change may declare them, and the jobs that Dagster makes of them."""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import ClassVar, Literal

import dagster as dg
from pydantic import Field

from regworkers_core.domain.reasons import RequestError
from regworkers_core.operation import (
    AtTerminal,
    Call,
    Effect,
    GivenFile,
    Input,
    OfCampaign,
    Remark,
    Report,
    Seats,
    SegmentSeats,
    Table,
    operation,
)
from regworkers_core.selection.campaigns.operations import close as close_campaign
from regworkers_dagster.launching import job
from regworkers_dagster.resources import connections


class Hall(StrEnum):
    LARGE = "large"
    SMALL = "small"


class Given(OfCampaign):
    first: ClassVar = ("seats",)
    seats: Seats = Field({}, description="Seats by market, as `codes_status` counts them.")
    reserves: SegmentSeats = Field({}, description="Seats by market and segment.")
    names: dict[str, str] = Field({}, description="Names by market.", examples=[{"b": "Bern"}])
    places: list[int] = Field([], description="Some places.")
    words_: list[str] = Field([], description="Some words.")
    number: int = Field(3, ge=1, le=9, description="A number from 1 to 9.")
    share: float | None = Field(None, description="A share, which may be missing.")
    flag: bool = Field(True, description="A flag to set.")
    hall: Hall | None = Field(None, description="A hall.")
    mode: Literal["fast", "slow"] = Field("slow", description="How.")
    upload: GivenFile = Field("", description="A file to read.")
    folder: AtTerminal[str] = Field("", description="Where a terminal writes.")


# What waits for it goes on once a test sets it.
GO_ON = threading.Event()


def _answer(call: Call, given: Given) -> Report:
    if given.names.get("berlin") == "wait":
        GO_ON.wait(20)
    if given.names.get("berlin") == "refuse":
        raise RequestError("berlin has no such name")
    if given.names.get("berlin") == "break":
        raise ZeroDivisionError("ada@fans.example")
    call.face.found(given.campaign_id)
    return Report(
        document={
            "campaignId": given.campaign_id,
            "countedAt": "2026-12-01T05:00:00.000Z",
            "tookSeats": sum(given.seats.values()),
            "byMarket": given.seats,
            "page": f"s3://kept/reports/{given.campaign_id}/phase-1/report.html",
        },
        tables=[Table("taken seats", ("market", "seats"), [(name, n) for name, n in given.seats.items()])],
        said=["the seats were counted, and `rename_market` is next"],
        remarks=[Remark("warning", "few are left", "see s3://kept/pipeline/few.csv.")],
        word=f"{given.campaign_id}:seats",
        changed=call.apply,
    )


@operation("market look", "look_at_market", role="manager")
def look(call: Call, given: Given) -> Report:
    """Look at the seats of a market.

    Nothing is changed, `count_seats` aside.
    """
    return _answer(call, given)


@operation("market rename", "rename_market", Effect.CHANGE, role="manager")
def rename(call: Call, given: Given) -> Report:
    """Rename a market."""
    return _answer(call, given)


@operation("market drop", "drop_market", Effect.DELETE, role="manager")
def drop(call: Call, given: Given) -> Report:
    """Drop a market."""
    return _answer(call, given)


@operation("market close", "close_market", Effect.DELETE, role="manager", instant=True)
def close(call: Call, given: Given) -> Report:
    """Close a market."""
    return _answer(call, given)


@operation("market empty", "empty_market", Effect.CHANGE, role="manager", instant=True)
def empty(call: Call, given: OfCampaign) -> Report:
    """Empty a market."""
    call.face.found(given.campaign_id)
    return Report(document={"seats": 0}, left="" if given.campaign_id == "summer" else "a seat is taken")


class Nothing(Input):
    words = ()


@operation("", "count_seats", Effect.ADD)
def count(call: Call, given: Nothing) -> Report:
    """Count all seats."""
    return Report(document={"seats": 7})


OPERATIONS = {each.job: each for each in (look, rename, drop, close, empty, count, close_campaign)}
defs = dg.Definitions(jobs=[job(each, {}) for each in OPERATIONS.values()], resources=connections())
