"""Campaigns, fans and invites as the checks of the benchmark want them, and the bare calls of the same fans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import redis
from botocore.config import Config
from pymongo import MongoClient

from benchmarks.replication.data import settings
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.campaign_store import CampaignStore
from regworkers_core.adapters.mongo.entrants import EACH
from regworkers_core.adapters.mongo.entry_documents import IDENTITY_EMAIL
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.claim import Invite, InviteType, TableKey, invite_key
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.check import check_eligibility
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_local.load import DemoCampaign
from regworkers_local.state import StackState
from tests.support.runtimes import remove_namespace

OPEN, INVITE_ONLY = "open", "inviteOnly"
# An id and a slug that differ, or a check by slug would be answered like one by id.
_IDS = {OPEN: "cmp-7f3a", INVITE_ONLY: "cmp-91c2"}
_FANS = 200
_DAY_SECONDS = 86_400

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """One namespace; every call takes the number of a fan. All fans are eligible, none has entered."""

    runtime: Runtime
    campaigns: Mapping[str, Campaign]
    # What a check of a fan reads in the demand table, by campaign.
    keys: Mapping[str, list[list[TableKey]]]
    _redis: Any
    _dynamodb: Any
    _entries: Any

    def asked(self, kind: str, by: str, fan: int) -> Item:
        """A check as a caller makes it."""
        campaign = self.campaigns[kind]
        name = campaign.slug if by == "slug" else campaign.campaign_id
        fields = {"email": _mail(fan), "firstName": "Test", "lastName": "User", "markets": ["berlin"]}
        return {"campaignSlug": name, "entry": fields, "doTransfer": False}

    def check(self, kind: str, by: str) -> Callable[[int], object]:
        items = [self.asked(kind, by, fan) for fan in range(_FANS)]
        return lambda number: check_eligibility(self.runtime, [items[number % _FANS]])

    def check_many(self, kind: str, by: str, together: int) -> Callable[[int], object]:
        items = [self.asked(kind, by, fan % _FANS) for fan in range(together)]
        return lambda number: check_eligibility(self.runtime, items)

    def bare(self, kind: str) -> Callable[[int], object]:
        """One GET and one BatchGet of as many keys as a check of the fan reads, by unmodified clients; the answers
        are not looked at.
        """
        get, batch_get = self.bare_get(kind), self.bare_batch_get(kind)

        def both(number: int) -> None:
            get(number)
            batch_get(number)

        return both

    def bare_of_three(self, kind: str) -> Callable[[int], object]:
        """With the one query of the replica, by which a check finds entries that others wrote."""
        two, campaign_id = self.bare(kind), self.campaigns[kind].campaign_id
        queries = [{IDENTITY_EMAIL: _mail(fan), "campaignId": campaign_id} for fan in range(_FANS)]

        def three(number: int) -> None:
            two(number)
            list(self._entries.find(queries[number % _FANS], limit=EACH))

        return three

    def bare_get(self, kind: str) -> Callable[[int], object]:
        key = CampaignStore.key(self.campaigns[kind].campaign_id)
        return lambda number: self._redis.get(key)

    def bare_batch_get(self, kind: str) -> Callable[[int], object]:
        table = self.runtime.names.demand_table
        requests = [
            {
                table: {
                    "Keys": [{"PK": {"S": pk}, "SK": {"S": sk}} for pk, sk in keys],
                    "ConsistentRead": True,
                }
            }
            for keys in self.keys[kind]
        ]
        return lambda number: self._dynamodb.batch_get_item(RequestItems=requests[number % _FANS])


@contextmanager
def world(state: StackState, threads: int = 1) -> Iterator[World]:
    """With bare clients whose pools are as large as `threads` need."""
    runtime = Runtime(settings(state, "bench-checks-"))
    try:
        list(provision(runtime))
        yield _made(runtime, threads)
    finally:
        remove_namespace(runtime)


def _made(runtime: Runtime, threads: int) -> World:
    campaigns = {kind: _campaign(kind, id_) for kind, id_ in _IDS.items()}
    hashes = IdentitySecret(runtime.secrets).hash()
    keys: dict[str, list[list[TableKey]]] = {kind: [] for kind in campaigns}
    for kind, campaign in campaigns.items():
        runtime.campaigns.create(campaign)
        for fan in range(_FANS):
            read = [hashes.claim_key(campaign.campaign_id, Identity.EMAIL, _mail(fan))]
            if kind == INVITE_ONLY:
                read.append(invite_key(campaign.campaign_id, InviteType.EMAIL, _mail(fan)))
                _invite(runtime, campaign, fan)
            keys[kind].append(read)
    aws, url, uri = runtime.settings.aws, runtime.settings.redis.url, runtime.settings.mongo.uri
    assert url is not None and uri is not None
    client: MongoClient[Item] = MongoClient(uri.get_secret_value())
    made = World(
        runtime,
        campaigns,
        keys,
        redis.Redis.from_url(url.get_secret_value()),
        boto3.client(
            "dynamodb",
            endpoint_url=aws.endpoint_url,
            region_name=aws.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(max_pool_connections=max(10, threads)),
        ),
        client[runtime.database.name]["entries"],
    )
    for kind in campaigns:
        for by in ("slug", "id"):
            (answer,) = check_eligibility(runtime, [made.asked(kind, by, 0)])
            if answer["status"] != "ELIGIBLE":
                raise RuntimeError(f"a fan of the benchmark is not eligible: {answer}")
    return made


def _campaign(kind: str, campaign_id: str) -> Campaign:
    document = DemoCampaign(campaign_id, campaign_id).document() | {"slug": f"{kind.lower()}-tour"}
    return read_campaign(document | {"eligibility": {"inviteOnly": kind == INVITE_ONLY}})


def _invite(runtime: Runtime, campaign: Campaign, fan: int) -> None:
    ttl = int(time.time()) + 30 * _DAY_SECONDS
    item = attributes(Invite(campaign.campaign_id, InviteType.EMAIL, _mail(fan), ttl).as_item())
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=item)


def _mail(fan: int) -> str:
    return f"fan{fan}@example.com"
