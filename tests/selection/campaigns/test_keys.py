"""The keys of a campaign: made once, read back, and never made again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fairdraw import bls
from fairdraw.maths.files import sha256_hex
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import (
    CampaignKeys,
    ensure_keys,
    read_keys,
    secret_needed,
    stored_keys,
)
from tests.support.campaigns import advance_to, create

pytestmark = pytest.mark.namespace("module")


def test_the_public_halves_are_in_the_document_and_the_keys_only_in_the_secret_store(
    runtime: Runtime,
) -> None:
    keys = ensure_keys(runtime, create(runtime))
    document = runtime.database["campaigns"].find_one({"_id": "summer"}) or {}
    assert document["unitKeyHash"] == sha256_hex(keys.unit)
    assert document["codeKey"] == bls.public_key(keys.code) and bls.is_key(document["codeKey"])
    assert runtime.secrets.get("campaign-keys/summer") == f"{keys.unit.hex()} {keys.code.hex()}"
    for secret in (keys.unit, keys.code):
        assert secret.hex() not in repr(document) and secret.hex() not in repr(keys)


def test_all_who_make_the_keys_at_once_have_the_same(runtime: Runtime) -> None:
    campaign = create(runtime)
    with ThreadPoolExecutor(4) as pool:
        found = {keys.text for keys in pool.map(lambda _: ensure_keys(runtime, campaign), range(4))}
    assert len(found) == 1
    assert ensure_keys(runtime, runtime.campaigns.require_id("summer")).text in found


def test_two_campaigns_have_keys_that_differ(runtime: Runtime) -> None:
    one, two = (ensure_keys(runtime, create(runtime, name)) for name in ("one", "two"))
    assert len({one.unit, two.unit, one.code, two.code}) == 4


def test_keys_that_are_lost_or_replaced_are_never_made_again(runtime: Runtime) -> None:
    campaign = create(runtime)
    assert read_keys(runtime, campaign) is None
    ensure_keys(runtime, campaign)
    campaign = runtime.campaigns.require_id("summer")
    name = f"{runtime.names.prefix}campaign-keys/summer"
    client = runtime.aws.client("secretsmanager")
    other = CampaignKeys.generate().text
    for value, expected in ((other, "other keys than"), ("hunter2 hunter2", "is not the keys of a campaign")):
        client.put_secret_value(SecretId=name, SecretString=value)
        with pytest.raises(UsageError, match=expected) as error:
            ensure_keys(runtime, campaign)
        assert value not in str(error.value) and name in str(error.value)
    client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    with pytest.raises(UsageError, match=f"lost: restore the secret {name}"):
        ensure_keys(runtime, campaign)
    assert runtime.secrets.get("campaign-keys/summer") is None


def test_a_code_key_beyond_the_order_of_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match="order of the group"):
        CampaignKeys.parse(f"{'0' * 64} {'f' * 64}")


def test_a_campaign_needs_its_secret_from_its_opening_until_it_is_completed(runtime: Runtime) -> None:
    for name in ("bare", "lost", "fine"):
        create(runtime, name)
        advance_to(runtime, name, CampaignStatus.OPEN)
    create(runtime, "draft")
    for name in ("lost", "fine"):
        ensure_keys(runtime, runtime.campaigns.require_id(name))
    runtime.aws.client("secretsmanager").delete_secret(SecretId=f"{runtime.names.prefix}campaign-keys/lost")
    needed = {each.campaign_id: secret_needed(runtime, each) for each in runtime.campaigns.list()}
    assert needed.pop("draft") == ""
    stored = stored_keys(runtime)
    assert {name for name, secret in needed.items() if secret not in stored} == {"bare", "lost"}
    advance_to(runtime, "fine", CampaignStatus.COMPLETED)
    assert secret_needed(runtime, runtime.campaigns.require_id("fine")) == ""
