"""A campaign is in the public log as it opened and as it was changed, and no log holds up an opening."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fairdraw.log.leaves import Kind
from fairdraw.log.note import COSIGNATURE, SignerKey
from fairdraw.maths.opened import Opened, opened_name, parse_opened
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys, stored_keys
from regworkers_core.selection.campaigns.opening import (
    AFTERWARDS,
    LoggingRound,
    close_campaign,
    decide,
    is_logged,
    log_open,
    open_campaign,
    waits_for_log,
    why_refused,
)
from regworkers_core.selection.draw.changes import Striking
from regworkers_core.selection.draw.terms import parse_strikes
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_local.load import CAMPAIGNS, Loader, LoadPlan
from tests.support.campaigns import advance_to, create

pytestmark = pytest.mark.namespace("module")

Leaves = list[tuple[str, int, str]]


def record(runtime: Runtime, campaign_id: str = "summer") -> tuple[Opened, ...]:
    files = []
    while found := runtime.objects.get_tagged(f"draws/{campaign_id}/{opened_name(len(files))}"):
        files.append(found.data)
    return parse_opened(files)


def leaves(runtime: Runtime, campaign_id: str = "summer") -> Leaves:
    log = PublicLog.of(runtime).read()
    return [(leaf.kind, leaf.phase, leaf.hash) for _, leaf in log.of_campaign(campaign_id)] if log else []


def changed(runtime: Runtime, fields: dict[str, Any], campaign_id: str = "summer") -> None:
    """As another writer changes it in MongoDB."""
    runtime.database["campaigns"].update_one({"_id": campaign_id}, {"$set": fields})


def opened(runtime: Runtime, campaign_id: str = "summer", **fields: Any) -> None:
    create(runtime, campaign_id, **fields)
    assert open_campaign(runtime, campaign_id, reason="test", run_id="r").not_logged == ""


def not_logged(runtime: Runtime) -> list[str]:
    return [each.campaign_id for each in runtime.campaigns.list() if waits_for_log(runtime, each)]


def without(runtime: Runtime, service: str) -> Runtime:
    """A runtime for which one AWS service is unavailable."""
    aws = runtime.settings.aws
    update = {"endpoints": {**aws.endpoints, service: "http://127.0.0.1:9"}}
    retry = runtime.settings.retry.model_copy(update={"attempts": 1})
    return Runtime(runtime.settings.model_copy(update={"aws": aws.model_copy(update=update), "retry": retry}))


def test_an_opening_is_logged_first_with_everything_that_the_campaign_promises(runtime: Runtime) -> None:
    markets = [
        {
            "marketId": "paris",
            "capacity": 2,
            "reserves": [{"segment": "loyal", "seats": 1}],
            "laterReserves": [{"segment": "local", "seats": 9}],
        },
        {"marketId": "berlin", "capacity": 3},
    ]
    key = {"id": "k1", "key": "ab" * 32}
    opened(
        runtime,
        markets=markets,
        eventId="tour",
        issuerKeys=[key],
        codes={"caseless": True},
        registration={"log": "on"},
    )
    campaign = runtime.campaigns.require_id("summer")
    [file] = record(runtime)
    assert [each.market_id for each in file.markets] == ["berlin", "paris"]
    assert (
        file.markets[1].later_reserves[0].seats == 9
        and file.event_id == "tour"
        and file.caseless
        and file.registration
    )
    assert file.as_document()["issuerKeys"] == [key]
    assert (file.unit_key_hash, file.code_key) == (campaign.unit_key_hash, campaign.code_key)
    assert leaves(runtime) == [(Kind.OPENED, 0, file.hash)]
    assert campaign.opened is not None and campaign.opened.hash == file.hash
    assert is_logged(runtime, campaign) and campaign.status is CampaignStatus.OPEN
    log = PublicLog.of(runtime).read()
    assert log is not None and log.leaf(campaign.opened.index).time <= campaign.transitions[0].at


def test_the_hash_reaches_the_cache_and_differs_between_two_campaigns(runtime: Runtime) -> None:
    hashes = set()
    for name in ("one", "two"):
        opened(runtime, name)
        for _ in range(2):
            found = runtime.campaign_cache.find(name)
        assert found.value.opened.hash == record(runtime, name)[-1].hash  # type: ignore[union-attr]
        hashes.add(found.value.opened.hash)  # type: ignore[union-attr]
    assert len(hashes) == 2


def test_a_campaign_that_is_closed_early_is_logged_with_its_true_end(runtime: Runtime) -> None:
    opened(runtime)
    Striking(runtime, "summer", run_id="r").strike(parse_strikes(f"{'0' * 32}|BOT\n"), dry_run=False)
    for _ in range(2):
        assert close_campaign(runtime, "summer", reason="sold out", run_id="r").not_logged == ""
    campaign = runtime.campaigns.require_id("summer")
    first, second = record(runtime)
    assert second.closes_at == campaign.transitions[-1].at < first.closes_at
    assert second.as_document()["reason"] == "sold out"
    assert leaves(runtime) == [(Kind.OPENED, 0, first.hash), (Kind.AMENDED, 1, second.hash)]


def test_an_early_closing_waits_for_no_log_and_may_be_repeated(runtime: Runtime) -> None:
    opened(runtime)
    done = close_campaign(without(runtime, "s3"), "summer", reason="sold out", run_id="r")
    assert done.advanced.changed and "s3" in done.not_logged and len(record(runtime)) == 1
    assert close_campaign(runtime, "summer", reason="sold out", run_id="r").not_logged == ""
    assert len(record(runtime)) == 2


def test_what_others_change_in_the_database_is_logged_after_it_acted(runtime: Runtime) -> None:
    opened(runtime)
    changed(runtime, {"closesAt": "2098-01-01T00:00:00.000Z"})
    assert not_logged(runtime) == ["summer"]
    assert log_open(runtime).logged == ("summer",) and not not_logged(runtime)
    first, second = record(runtime)
    assert second.as_document()["reason"] == AFTERWARDS and "logged after it acted" in AFTERWARDS
    assert second.closes_at == "2098-01-01T00:00:00.000Z"
    assert leaves(runtime) == [(Kind.OPENED, 0, first.hash), (Kind.AMENDED, 1, second.hash)]
    assert runtime.campaigns.require_id("summer").opened.hash == second.hash  # type: ignore[union-attr]
    # Back again is a change, too; nothing is none.
    changed(runtime, {"closesAt": first.closes_at})
    log_open(runtime)
    assert log_open(runtime).logged == () and len(record(runtime)) == 3


def test_a_campaign_that_others_opened_gets_keys_and_is_logged(runtime: Runtime) -> None:
    create(runtime)
    changed(runtime, {"status": "OPEN"})
    create(runtime, "draft")
    assert log_open(runtime).logged == ("summer",)
    assert [kind for kind, _, _ in leaves(runtime)] == [Kind.OPENED]
    assert not leaves(runtime, "draft")


MARKET = {"marketId": "rome", "capacity": 1}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eventId": "another"}, "eventId may never change, and is 'another' instead of 'tour'"),
        ({"eventId": None}, "eventId may never change, and is None instead of 'tour'"),
        ({"codes": {"caseless": True}}, "caseless may never change, and is True instead of False"),
        ({"markets": [MARKET]}, "markets may never change, and is rome instead of berlin, paris"),
        ({"unitKeyHash": "ab" * 32}, "unitKeyHash may never change, and is 'abab"),
        ({"codeKey": "ab" * 96}, "codeKey may never change, and is 'abab"),
    ],
)
def test_a_change_that_no_amendment_may_make_is_found_once_and_said_until_it_is_set_back(
    runtime: Runtime, fields: dict[str, Any], said: str
) -> None:
    opened(runtime, eventId="tour")
    before = runtime.database["campaigns"].find_one({"_id": "summer"}) or {}
    changed(runtime, fields)
    create(runtime, "winter")
    advance_to(runtime, "winter", CampaignStatus.OPEN)
    done = log_open(runtime)
    assert done.logged == ("winter",)
    why = done.problems["summer"]
    assert why.startswith(f"campaign summer cannot be in the public log as it was changed: {said}")
    assert "Set it back in the campaign's document" in why and len(record(runtime)) == 1
    # Nothing that a further run could do.
    assert not not_logged(runtime) and log_open(runtime) == LoggingRound((), {}, {"summer": why})
    (summer, _) = read_campaigns(runtime)
    assert summer.refused == why
    # Another value is tried; the former one was logged.
    changed(runtime, {"name": "Another"})
    assert not_logged(runtime) == ["summer"]
    changed(runtime, {name: before.get(name) for name in (*fields, "name")})
    assert not not_logged(runtime) and not why_refused(runtime, runtime.campaigns.require_id("summer"))
    assert read_campaigns(runtime)[0].refused == ""


def test_a_chain_that_changed_is_set_back_in_the_settings(runtime: Runtime) -> None:
    opened(runtime)
    selection = runtime.settings.selection
    beacon = selection.beacon.model_copy(update={"other_chain": ""})
    assert beacon.chain.hash != selection.beacon.chain.hash
    update = {"selection": selection.model_copy(update={"beacon": beacon})}
    elsewhere = Runtime(runtime.settings.model_copy(update=update))
    why = log_open(elsewhere).problems["summer"]
    assert "chain may never change" in why and "Set it back in the settings (selection.beacon)" in why
    assert not log_open(elsewhere).problems and log_open(runtime) == LoggingRound((), {}, {})


def test_an_opening_that_no_file_can_have_is_said_as_such_and_tried_once(runtime: Runtime) -> None:
    create(runtime)
    closing = {"from": "OPEN", "to": "CLOSED", "at": "2025-01-01T00:00:00.000Z"}
    changed(runtime, {"status": "OPEN", "transitions": [closing]})
    why = log_open(runtime).problems["summer"]
    assert why.startswith("campaign summer cannot be in the public log as it opened: closesAt: a time after")
    assert why.endswith("Correct the campaign's document in MongoDB (`campaigns`)")
    assert not not_logged(runtime) and not record(runtime)
    changed(runtime, {"transitions": []})
    assert log_open(runtime).logged == ("summer",)


def test_a_campaign_that_closes_before_it_opens_says_what_the_log_cannot_have(runtime: Runtime) -> None:
    opened(runtime, opensAt="2098-01-01T00:00:00.000Z")
    done = close_campaign(runtime, "summer", reason="cancelled", run_id="r")
    assert done.advanced.changed and "as it was changed: closesAt: a time after opensAt" in done.not_logged


def test_what_another_writer_replaced_and_logged_meanwhile_is_not_logged_again(runtime: Runtime) -> None:
    opened(runtime)
    changed(runtime, {"name": "One"})

    def on_step(name: str) -> None:
        if name == "campaigns.after_reading" and len(record(runtime)) == 1:
            changed(runtime, {"name": "Two"})
            decide(runtime, "summer")

    decide(runtime, "summer", on_step=on_step)
    first, second = record(runtime)
    assert second.name == "Two"
    assert log_open(runtime).logged == ("summer",) and len(record(runtime)) == 2
    assert leaves(runtime) == [(Kind.OPENED, 0, first.hash), (Kind.AMENDED, 1, second.hash)]


def test_the_files_follow_the_changes_of_a_campaign_that_several_writers_log_at_once(
    runtime: Runtime,
) -> None:
    opened(runtime)
    names = [f"name {number:02}" for number in range(8)]

    def change(_: int) -> None:
        for name in names:
            changed(runtime, {"name": name})
            decide(runtime, "summer")

    def log(_: int) -> None:
        while runtime.campaigns.require_id("summer").name != names[-1]:
            log_open(runtime)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda work: work(0), [change, log, log, log]))
    assert [each.name for each in record(runtime)[1:]] == names
    assert not log_open(runtime).problems and not not_logged(runtime)


def test_nothing_is_logged_after_the_draw_is_committed(runtime: Runtime) -> None:
    opened(runtime)
    Striking(runtime, "summer", run_id="r").strike(parse_strikes(f"{'0' * 32}|BOT\n"), dry_run=False)
    runtime.database["draws"].update_one({"_id": "summer"}, {"$set": {"phases.1.manifest": "{}"}})
    changed(runtime, {"name": "Another"})
    decide(runtime, "summer")
    assert len(record(runtime)) == 1


def test_it_opens_while_the_log_is_unavailable_and_is_logged_later(runtime: Runtime) -> None:
    create(runtime)
    done = open_campaign(without(runtime, "s3"), "summer", reason="now", run_id="r")
    assert done.advanced.changed and done.not_logged
    campaign = runtime.campaigns.require_id("summer")
    assert campaign.status is CampaignStatus.OPEN and campaign.opened is None
    assert log_open(runtime).logged == ("summer",)
    assert is_logged(runtime, runtime.campaigns.require_id("summer"))


def test_it_opens_without_witnesses_and_counts_as_logged_once_they_have_seen_it(runtime: Runtime) -> None:
    create(runtime)
    selection = runtime.settings.selection
    key = str(SignerKey("witness.example/w", b"w" * 32).verifier(COSIGNATURE))
    witness = {"url": "http://127.0.0.1:9", "vkey": key}
    log = type(selection.log).model_validate({"witnesses": [witness], "needed": 1})
    alone = Runtime(
        runtime.settings.model_copy(update={"selection": selection.model_copy(update={"log": log})})
    )
    done = open_campaign(alone, "summer", reason="now", run_id="r")
    assert done.advanced.changed and "0 of 1 needed witnesses" in done.not_logged
    campaign = runtime.campaigns.require_id("summer")
    assert campaign.opened is not None and campaign.opened.terms is None and not leaves(runtime)
    assert "0 of 1 needed witnesses" in log_open(alone).problems["summer"]
    assert log_open(runtime).logged == ("summer",)
    assert leaves(runtime) == [(Kind.OPENED, 0, campaign.opened.hash)]


def test_it_does_not_open_while_its_keys_cannot_be_read_back(runtime: Runtime) -> None:
    ensure_keys(runtime, create(runtime))
    runtime.aws.client("secretsmanager").delete_secret(
        SecretId=f"{runtime.names.prefix}campaign-keys/summer", ForceDeleteWithoutRecovery=True
    )
    with pytest.raises(UsageError, match="keys of campaign summer are lost"):
        open_campaign(runtime, "summer", reason="now", run_id="r")
    assert runtime.campaigns.require_id("summer").status is CampaignStatus.DRAFT


@pytest.mark.parametrize("died_at", ["campaigns.after_record", "campaigns.after_leaf"])
def test_a_run_that_died_is_continued_with_the_same_file(runtime: Runtime, died_at: str) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.OPEN)

    def on_step(name: str) -> None:
        if name == died_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide(runtime, "summer", on_step=on_step)
    [before] = record(runtime)
    log_open(runtime)
    assert record(runtime) == (before,) and leaves(runtime) == [(Kind.OPENED, 0, before.hash)]


def test_of_several_writers_each_file_and_leaf_is_one(runtime: Runtime) -> None:
    opened(runtime)
    changed(runtime, {"name": "Another"})
    with ThreadPoolExecutor(4) as pool:
        found = {each.hash for each in pool.map(lambda _: decide(runtime, "summer"), range(4))}
    PublicLog.of(runtime).publish()
    assert len(found) == 1 and len(record(runtime)) == len(leaves(runtime)) == 2


def test_the_demo_campaigns_are_logged(runtime: Runtime) -> None:
    Loader(runtime, LoadPlan()).write_campaigns()
    for each in CAMPAIGNS:
        assert is_logged(runtime, runtime.campaigns.require(each.campaign_id))


def test_evaluations_see_what_the_log_lacks_and_which_keys_a_campaign_needs(runtime: Runtime) -> None:
    create(runtime)
    (draft,) = read_campaigns(runtime)
    assert (draft.not_logged, draft.keys) == ("", "")
    changed(runtime, {"status": "OPEN"})
    (bare,) = read_campaigns(runtime)
    assert bare.not_logged and bare.keys not in stored_keys(runtime)
    log_open(runtime)
    (fine,) = read_campaigns(runtime)
    assert not fine.not_logged and fine.keys in stored_keys(runtime)
    changed(runtime, {"name": "Another"})
    (differs,) = read_campaigns(runtime)
    assert differs.not_logged == runtime.campaigns.require_id("summer").opened.hash  # type: ignore[union-attr]
