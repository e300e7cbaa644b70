"""A campaign is corrected so that no entry is worse off, and the log has it first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdraw.documents import camel
from fairdraw.log.leaves import Kind
from regworkers_core.domain.campaign import DEFINED, Campaign, CampaignStatus
from regworkers_core.domain.eligibility import EligibilityTerms
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseKey
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import amending, opening
from regworkers_core.selection.campaigns.amending import Amended, amend, delete, is_looser, touched
from regworkers_core.selection.campaigns.opening import (
    AFTERWARDS,
    close_campaign,
    is_logged,
    log_open,
    open_campaign,
)
from regworkers_core.selection.campaigns.registry import draft
from tests.selection.campaigns.test_opening import leaves, not_logged, opened, record, without
from tests.support.campaigns import create, definition
from tests.support.entries import key, put
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

BERLIN = {
    "marketId": "berlin",
    "name": "Berlin",
    "capacity": 10,
    "reserves": [{"segment": "loyal", "seats": 4}, {"segment": "local", "seats": 2}],
}
WHOLE: dict[str, Any] = {
    "markets": [BERLIN, {"marketId": "paris", "capacity": 2}],
    "eligibility": {"regions": ["DE", "AT"], "minAge": 18, "maxPerUnit": 2, "requireVerifiedPhone": True},
    "draw": {"waitlistSize": 100},
}


def corrected(
    runtime: Runtime,
    reason: str = "more fans came",
    on_step: Callable[[str], None] = lambda _: None,
    **new: Any,
) -> Amended:
    def changed(campaign: Campaign) -> Mapping[str, Any]:
        return {"campaignId": campaign.campaign_id, **campaign.definition, **new}

    return amend(runtime, "summer", changed, reason=reason, run_id="r", on_step=on_step)


def market(**changes: Any) -> list[Any]:
    return [{**BERLIN, **changes}, {"marketId": "paris", "capacity": 2}]


def test_an_open_campaign_is_corrected_in_the_log_first_and_then_in_its_document(runtime: Runtime) -> None:
    opened(runtime, **WHOLE)
    assert runtime.campaign_cache.find("summer").value.name == "Summer – Été"  # type: ignore[union-attr]
    seen: list[tuple[int, str]] = []

    def before_it_acts(_step: str) -> None:
        seen.append((len(record(runtime)), runtime.campaigns.require_id("summer").closes_at))

    later = "2099-02-01T00:00:00.000Z"
    done = corrected(
        runtime,
        on_step=before_it_acts,
        name="Summer",
        closesAt=later,
        markets=market(
            capacity=12, reserves=[{"segment": "loyal", "seats": 5}, {"segment": "local", "seats": 2}]
        ),
        eligibility={"regions": ["DE", "AT", "CH"], "minAge": 16},
        draw={"waitlistSize": None},
        autoDraw=True,
    )
    assert not done.plan.refused and done.not_logged == ""
    assert seen == [(2, "2099-01-01T00:00:00.000Z")]
    assert [each[:2] for each in leaves(runtime)] == [(Kind.OPENED, 0), (Kind.AMENDED, 1)]
    first, file = record(runtime)
    assert (file.closes_at, file.name, file.markets[0].capacity) == (later, "Summer", 12)
    assert file.reason == "more fans came" and file.previous == first.hash  # type: ignore[attr-defined]
    campaign = runtime.campaigns.require_id("summer")
    assert campaign.definition == done.plan.after.definition and is_logged(runtime, campaign)
    assert campaign.opened is not None and campaign.opened.hash == file.hash
    (amendment,) = campaign.amendments
    assert (amendment.reason, amendment.run_id) == ("more fans came", "r")
    assert {each.field: (each.before, each.now) for each in amendment.changes} == {
        "name": ("Summer – Été", "Summer"),
        "closesAt": ("2099-01-01T00:00:00.000Z", later),
        "markets.berlin.capacity": ("10", "12"),
        "markets.berlin.reserves": ("loyal 4, local 2", "loyal 5, local 2"),
        "eligibility.regions": ("DE, AT", "DE, AT, CH"),
        "eligibility.minAge": ("18", "16"),
        "eligibility.maxPerUnit": ("2", ""),
        "eligibility.requireVerifiedPhone": ("True", ""),
        "draw.waitlistSize": ("100", ""),
        "autoDraw": ("False", "True"),
    }
    assert runtime.campaign_cache.find("summer").value.closes_at == later  # type: ignore[union-attr]
    # The same again changes nothing, and logs nothing.
    assert not corrected(
        runtime, **{name: done.plan.after.definition[name] for name in ("name", "closesAt")}
    ).plan.changes
    assert len(record(runtime)) == 2 and not_logged(runtime) == []


@pytest.mark.parametrize(
    ("field", "new"),
    [
        ("closesAt", {"closesAt": "2098-01-01T00:00:00.000Z"}),
        ("opensAt", {"opensAt": "2026-01-02T00:00:00.000Z"}),
        ("slug", {"slug": "another"}),
        ("eventId", {"eventId": "tour"}),
        ("codes.caseless", {"codes": {"caseless": True}}),
        ("codes.expireAfterHours", {"codes": {"expireAfterHours": 48}}),
        ("registration.log", {"registration": {"log": "on"}}),
        ("draw.winsPerUnit", {"draw": {"waitlistSize": 100, "winsPerUnit": 2}}),
        ("draw.waitlistSize", {"draw": {"waitlistSize": 99}}),
        ("markets.berlin.capacity", {"markets": market(capacity=9)}),
        ("markets.paris.capacity", {"markets": [BERLIN]}),
        ("markets.rome.capacity", {"markets": [*market(), {"marketId": "rome", "capacity": 1}]}),
        ("markets.berlin.laterReserves", {"markets": market(laterReserves=[{"segment": "x", "seats": 1}])}),
        # Seats of all, or the place of a segment, would go to another one.
        (
            "markets.berlin.reserves",
            {"markets": market(reserves=[*BERLIN["reserves"], {"segment": "x", "seats": 1}])},  # type: ignore[misc]
        ),
        ("markets.berlin.reserves", {"markets": market(reserves=[*BERLIN["reserves"]][::-1])}),  # type: ignore[misc]
        ("markets.berlin.reserves", {"markets": market(reserves=[])}),
        ("eligibility.minAge", {"eligibility": {**WHOLE["eligibility"], "minAge": 19}}),
        ("eligibility.inviteOnly", {"eligibility": {**WHOLE["eligibility"], "inviteOnly": True}}),
        ("eligibility.regions", {"eligibility": {**WHOLE["eligibility"], "regions": ["DE"]}}),
        ("eligibility.maxPerUnit", {"eligibility": {**WHOLE["eligibility"], "maxPerUnit": 1}}),
    ],
)
def test_what_would_harm_is_refused_by_its_field_and_with_it_all_of_the_correction(
    runtime: Runtime, field: str, new: dict[str, Any]
) -> None:
    opened(runtime, **WHOLE)
    before = runtime.campaigns.require_id("summer")
    refused = corrected(runtime, **{"name": "Also", **new}).plan.refused
    assert refused.get(field)
    assert runtime.campaigns.require_id("summer") == before and len(record(runtime)) == 1


TERMS = st.builds(
    EligibilityTerms,
    invite_only=st.booleans(),
    regions=st.lists(st.sampled_from(["DE", "AT", "CH"]), unique=True).map(tuple),
    min_age=st.none() | st.integers(16, 18),
    require_verified_phone=st.booleans(),
    max_per_unit=st.none() | st.integers(1, 3),
)


@given(TERMS, TERMS, st.sampled_from(["", "DE", "AT", "CH", "FR"]), st.integers(15, 19), st.integers(0, 3))
def test_looser_rules_admit_all_whom_the_rules_before_admit(
    old: EligibilityTerms, new: EligibilityTerms, region: str, age: int, others: int
) -> None:
    def admits(terms: EligibilityTerms) -> bool:
        return (
            not terms.invite_only
            and not terms.require_verified_phone
            and (
                (not terms.regions or region in terms.regions)
                and (terms.min_age is None or age >= terms.min_age)
                and (terms.max_per_unit is None or others < terms.max_per_unit)
            )
        )

    names = [camel(each.name) for each in fields(EligibilityTerms)]
    if all(is_looser(name, old, new) for name in names):
        assert not admits(old) or admits(new)
    assert all(is_looser(name, old, old) for name in names) and not is_looser("another", old, old)


def test_a_draft_is_corrected_in_everything_and_the_log_hears_nothing(runtime: Runtime) -> None:
    create(runtime, **WHOLE)
    create(runtime, "other", slug="taken")
    new = definition(
        slug="autumn",
        opensAt="2026-09-01T00:00:00.000Z",
        markets=[{"marketId": "rome", "capacity": 1}],
        eventId="tour",
    )
    done = corrected(runtime, reason="", **{name: new[name] for name in new if name != "campaignId"})
    assert not done.plan.refused and leaves(runtime) == []
    campaign = runtime.campaigns.require("autumn")
    assert (campaign.event_id, campaign.market_ids) == ("tour", ("rome",)) and len(campaign.amendments) == 1
    with pytest.raises(UsageError, match="slug 'taken'"):
        corrected(runtime, slug="taken")
    with pytest.raises(UsageError, match="capacity"):
        corrected(runtime, markets=[{"marketId": "rome", "capacity": -1}])
    assert runtime.campaigns.require_id("summer") == campaign


def test_what_codes_and_the_log_rest_on_stays_in_a_draft(runtime: Runtime) -> None:
    create(runtime, markets=WHOLE["markets"])
    runtime.database["codes"].insert_one(
        {"_id": "c", "campaignId": "summer", "marketId": "paris", "position": 1, "status": "AVAILABLE"}
    )
    refused = corrected(runtime, markets=[BERLIN], codes={"caseless": True}).plan.refused
    assert refused["codes.caseless"] and refused["markets.paris.capacity"] == "the market has codes"
    # An opening that failed after its record.
    opened(runtime, "tour")
    runtime.database["campaigns"].update_one(
        {"_id": "tour"}, {"$set": {"status": "DRAFT", "transitions": []}}
    )
    found = amend(
        runtime,
        "tour",
        lambda each: {"campaignId": "tour", **each.definition, "eventId": "x", "name": "y"},
        reason="r",
        run_id="r",
    )
    assert [*found.plan.refused] == ["eventId"] and touched(runtime, runtime.campaigns.require_id("tour"))


def test_a_correction_that_comes_too_late_changes_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(runtime, **WHOLE)
    with pytest.raises(RequestError, match="needs a reason"):
        corrected(runtime, reason=" ", name="x")
    soon = runtime.campaigns.require_id("summer").closes_at
    monkeypatch.setattr(runtime, "clock", lambda: now)
    for now, refused in ((4070908679.0, False), (4070908681.0, True)):
        assert iso(now) < soon
        assert bool(corrected(runtime, name=f"at {now}").plan.refused) is refused
    monkeypatch.undo()
    close_campaign(runtime, "summer", reason="r", run_id="r")
    done = corrected(runtime, name="x")
    assert "CLOSED" in done.plan.refused["name"]


@pytest.mark.parametrize(
    "other", [{"status": "CLOSED"}, {"name": "theirs"}, {"closesAt": "2099-06-01T00:00:00.000Z"}]
)
def test_a_change_that_comes_between_wins_and_the_log_has_what_is(
    runtime: Runtime, other: dict[str, Any]
) -> None:
    opened(runtime, **WHOLE)

    def meanwhile(_step: str) -> None:
        runtime.database["campaigns"].update_one({"_id": "summer"}, {"$set": other})

    with pytest.raises(UsageError, match="changed meanwhile"):
        corrected(runtime, on_step=meanwhile, name="ours")
    stored = runtime.database["campaigns"].find_one({"_id": "summer"}) or {}
    assert stored["name"] != "ours" and "amendments" not in stored
    if "status" not in other:
        assert log_open(runtime).logged == ("summer",)
        assert [each.name for each in record(runtime)][1:] == ["ours", stored["name"]]
        assert record(runtime)[-1].reason == AFTERWARDS  # type: ignore[attr-defined]


def test_a_write_lands_exactly_over_what_was_judged(runtime: Runtime) -> None:
    opened(runtime, **WHOLE)
    before = runtime.campaigns.require_id("summer")
    after = before.defined_as(draft({"campaignId": "summer", **before.definition, "name": "ours"}))

    class Between:
        """Another writer is faster between the read and the write."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def update_one(self, *given: Any, **more: Any) -> Any:
            self._inner.update_one({"_id": "summer"}, {"$set": {"name": "theirs"}})
            return self._inner.update_one(*given, **more)

    campaigns = type(runtime.campaigns)(Between(runtime.database["campaigns"]), runtime.dependency("mongo"))
    assert campaigns.amend(before, after) is False
    assert runtime.campaigns.require_id("summer").name == "theirs"
    # The lost answer of a write of ours is no other writer's.
    now = runtime.campaigns.require_id("summer")
    assert runtime.campaigns.amend(now, after) and runtime.campaigns.require_id("summer") == after
    assert runtime.campaigns.amend(now, after) is False


def test_a_log_that_cannot_be_written_leaves_the_campaign_as_it_is(runtime: Runtime) -> None:
    opened(runtime, **WHOLE)
    with pytest.raises(TransientFailure):
        corrected(without(runtime, "s3"), name="x")
    assert runtime.campaigns.require_id("summer").amendments == () and not_logged(runtime) == []


def test_a_draft_of_which_nothing_exists_is_deleted_and_no_other_campaign(runtime: Runtime) -> None:
    create(runtime)
    corrected(runtime, reason="", name="x")
    assert runtime.campaign_cache.find("summer").value is not None  # type: ignore[union-attr]
    delete(runtime, "summer", run_id="r")
    assert runtime.campaigns.get("summer") is None
    assert runtime.campaign_cache.find("summer").value is None  # type: ignore[union-attr]
    opened(runtime, "open")
    for campaign_id in ("invited", "entered", "struck", "coded"):
        create(runtime, campaign_id)
    put(runtime, key("e", "invited"), SK="INVITE#email#x", entityType="INVITE")
    runtime.database["entries"].insert_one({"_id": "entered:e", "campaignId": "entered", "entryId": "e"})
    runtime.draws.open("struck", 1, {}, token=1)
    runtime.database["codes"].insert_one(
        {"_id": "c", "campaignId": "coded", "marketId": "paris", "position": 1, "status": "AVAILABLE"}
    )
    for campaign_id, why in (
        ("open", "it is OPEN"),
        ("invited", "invites"),
        ("entered", "entries"),
        ("struck", "strikes"),
        ("coded", "codes"),
    ):
        with pytest.raises(RequestError, match=why):
            delete(runtime, campaign_id, run_id="r")
    drafts = [each for each in runtime.campaigns.list() if each.status is CampaignStatus.DRAFT]
    # It was opened since it was read.
    found = runtime.campaigns.require_id("coded")
    runtime.database["campaigns"].update_one({"_id": "coded"}, {"$set": {"status": "OPEN"}})
    assert len(drafts) == 4 and runtime.campaigns.delete(found) is False


def test_the_commands_change_what_is_named_and_say_what_they_did(runtime: Runtime) -> None:
    create(runtime, draw={"winsPerUnit": 2})

    def said(*words: str, code: int = 0) -> Any:
        done = regworkers(runtime, "campaign", *words, "--format", "json")
        assert done.code == code, done.stderr
        return done.document

    amended = ("amend", "summer", "--name", "Autumn", "--reason", "a new name")
    # A dry run that finds something to change ends with 1.
    for words, code, name in ((amended, 1, "Summer – Été"), ((*amended, "--apply", "--yes"), 0, "Autumn")):
        assert "Autumn" in str(said(*words, code=code))
        found = runtime.campaigns.require_id("summer")
        assert (found.name, found.draw.wins_per_unit) == (name, 2)
    said("pause", "summer", "--reason", "a wrong import")
    said("resume", "summer")
    for words in ((), ("--apply", "--yes")):
        assert runtime.campaigns.get("summer") is not None
        said("delete", "summer", *words)
    assert runtime.campaigns.get("summer") is None


def test_every_field_of_a_definition_has_a_place_in_it() -> None:
    made = {"campaign_id", "status", "unit_key_hash", "code_key", "opened", "refused", "transitions"}
    # `campaign pass-on` sets how seats pass on.
    made |= {"amendments", "fence", "pass_on"}
    assert {each.name for each in fields(Campaign)} == made | {*DEFINED}


def test_a_correction_that_died_before_it_was_written_is_repeated_without_a_further_leaf(
    runtime: Runtime,
) -> None:
    opened(runtime)

    def dies(_step: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corrected(runtime, on_step=dies, name="Summer")
    assert corrected(runtime, name="Summer").plan.changes
    assert [each[:2] for each in leaves(runtime)] == [(Kind.OPENED, 0), (Kind.AMENDED, 1)]
    campaign = runtime.campaigns.require_id("summer")
    assert campaign.name == "Summer" and is_logged(runtime, campaign) and len(campaign.amendments) == 1


def test_a_draft_that_is_being_opened_is_corrected_once_it_is_open_or_not_at_all(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(runtime)
    with ThreadPoolExecutor(1) as other:
        begun: list[Future[Amended]] = []

        def logged(_runtime: Runtime, _campaigns: list[str]) -> None:
            # A draft may close earlier, and an open campaign may not.
            begun.append(other.submit(corrected, runtime, closesAt="2098-01-01T00:00:00.000Z"))
            _waits_or_ends(begun[0], entered)

        entered = _entered(monkeypatch, amending)
        monkeypatch.setattr(opening, "count_entries", logged)
        assert open_campaign(runtime, "summer", reason="test", run_id="o").not_logged == ""
        assert begun[0].result(30).plan.refused.keys() == {"closesAt"}
    assert [each[:2] for each in leaves(runtime)] == [(Kind.OPENED, 0)]
    campaign = runtime.campaigns.require_id("summer")
    assert is_logged(runtime, campaign) and not campaign.amendments


def test_a_draft_that_is_being_corrected_is_opened_as_it_is_then(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(runtime)
    with ThreadPoolExecutor(1) as other:
        begun: list[Future[Any]] = []

        def planned(_step: str) -> None:
            begun.append(other.submit(open_campaign, runtime, "summer", reason="test", run_id="o"))
            _waits_or_ends(begun[0], entered)

        entered = _entered(monkeypatch, opening)
        assert not corrected(runtime, on_step=planned, eventId="tour").plan.refused
        assert begun[0].result(30).not_logged == ""
    assert [each[:2] for each in leaves(runtime)] == [(Kind.OPENED, 0)]
    campaign = runtime.campaigns.require_id("summer")
    assert campaign.event_id == "tour" and campaign.status is CampaignStatus.OPEN
    assert is_logged(runtime, campaign) and not_logged(runtime) == []


def _entered(monkeypatch: pytest.MonkeyPatch, module: Any) -> threading.Event:
    """Set when the module asks for the lease of a campaign."""
    entered, lease = threading.Event(), module.campaign_lease

    def asks(*given: Any) -> Any:
        entered.set()
        return lease(*given)

    monkeypatch.setattr(module, "campaign_lease", asks)
    return entered


def _waits_or_ends(run: Future[Any], entered: threading.Event) -> None:
    """Until the run waits for the lease, which is held, or has done what it must not do meanwhile."""
    assert entered.wait(30)
    with suppress(TimeoutError):
        run.result(0.3)


def test_a_run_that_logs_waits_for_a_correction_that_is_not_yet_written(runtime: Runtime) -> None:
    opened(runtime, **WHOLE)
    asked = threading.Event()
    other = Runtime(runtime.settings)

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(runtime.leases, name)

        def get(self, key: LeaseKey) -> Any:
            seen = runtime.leases.get(key)
            if "campaign-summer" in key.pk:
                asked.set()
            return seen

    vars(other)["leases"] = Watched()
    with ThreadPoolExecutor() as pool:
        logging: list[Future[Any]] = []

        def meanwhile(_step: str) -> None:
            assert not_logged(runtime) == ["summer"], "the document is not what the log has"
            logging.append(pool.submit(log_open, other))
            assert asked.wait(30)

        assert corrected(runtime, on_step=meanwhile, name="ours").not_logged == ""
        logging[0].result()
    assert [each.name for each in record(runtime)] == ["Summer – Été", "ours"]
