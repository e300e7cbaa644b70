"""The `campaigns` collection: looking campaigns up, and status changes that happen once."""

from __future__ import annotations

from collections.abc import Collection as Ids
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import structlog

from fairdraw.documents import as_json
from regworkers_core.adapters.mongo.store import Store
from regworkers_core.domain.campaign import (
    Campaign,
    CampaignStatus,
    LoggedTerms,
    PassOn,
    RefusedTerms,
    Transition,
)
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.keys import quoted, similar
from regworkers_core.domain.reasons import RequestError, UsageError

log = structlog.get_logger(__name__)


class Campaigns(Store):
    """Every method raises TransientFailure when MongoDB cannot answer, and UsageError for a campaign whose
    document breaks the contract.
    """

    def known(self, ids: Ids[str]) -> set[str]:
        """Those of `ids` that exist."""
        return {each["_id"] for each in self._find({"_id": {"$in": sorted(ids)}}, {"_id": 1})}

    def get(self, campaign_id: str) -> Campaign | None:
        return self._one({"_id": campaign_id})

    def find(self, slug_or_id: str) -> Campaign | None:
        """The campaign of that id, else of that slug."""
        return self.get(slug_or_id) or self._one({"slug": slug_or_id})

    def id_of(self, slug_or_id: str) -> str:
        """The id of the campaign. A name that is not found is an id: entries and draws outlive the document of their
        campaign.
        """
        found = None if self.known({slug_or_id}) else self._one({"slug": slug_or_id})
        return found.campaign_id if found else slug_or_id

    def require(self, slug_or_id: str, hint: str = "") -> Campaign:
        """The campaign of that id, else of that slug. Raises RequestError, with `hint` at the end of its text, when
        there is none.
        """
        return self.find(slug_or_id) or self._refuse(slug_or_id, hint)

    def require_id(self, campaign_id: str) -> Campaign:
        """The campaign of that id. Raises RequestError when there is none."""
        return self.get(campaign_id) or self._refuse(campaign_id)

    def _refuse(self, named: str, hint: str = "") -> NoReturn:
        near = self.similar(named)
        raise RequestError(
            f"there is no campaign {quoted(named)}{near}: see `regworkers campaign list`{hint}"
        )

    def similar(self, named: str) -> str:
        """The id or slug that was probably meant, in brackets for an error; empty if none is near."""
        names = (each for one in self._find({}, {"slug": 1}) for each in one.values())
        return similar(named, sorted({each for each in names if isinstance(each, str)}))

    def list(self, status: CampaignStatus | None = None) -> list[Campaign]:
        """All, or those of one status, by id. One that breaks the contract is logged and left out, so that it does not
        hide the others.
        """
        query = {} if status is None else {"status": status.value}
        found = []
        for document in self._find(query, sort=[("_id", 1)]):
            try:
                found.append(read_campaign(document))
            except UsageError as error:
                log.warning("campaign left out", error=str(error))
        return found

    def create(self, campaign: Campaign) -> None:
        """Raises UsageError when the id or the slug is taken."""
        from pymongo.errors import DuplicateKeyError

        document = campaign.as_document()
        try:
            # A repeat after a lost answer finds its own document.
            self._dependency.call(self._collection.insert_one, document)
        except DuplicateKeyError:
            stored = self._first({"_id": campaign.campaign_id})
            if stored == document:
                return
            if stored is not None:
                raise UsageError(
                    f"campaign {campaign.campaign_id} exists already: `regworkers campaign show "
                    f"{campaign.campaign_id}`, or choose another id"
                ) from None
            raise UsageError(
                f"another campaign has the slug {campaign.slug!r}: choose another with --slug"
            ) from None

    def advance(
        self,
        campaign_id: str,
        from_: CampaignStatus,
        to: CampaignStatus,
        *,
        token: int,
        at: str,
        reason: str,
        run_id: str,
    ) -> bool:
        """Change the status and record the transition, in one update; False when the status is not `from_` or a
        greater token than `token` has written.
        """
        before = self.get(campaign_id)
        if before is None or before.status is not from_ or before.fence > token:
            return False
        transition = Transition(from_, to, at, reason, run_id, token)
        # Exactly over what was read, so that a write between the two wins.
        guard = {"_id": campaign_id, "status": from_.value, "fence": before.fence or {"$exists": False}}
        # The whole list: the fence in the guard proves that it is the one that was read.
        kept = [*before.transitions, transition]
        update = {"$set": {"status": to.value, "fence": token, "transitions": as_json(kept)}}
        answer = self._update_one(guard, update)
        if answer.matched_count:
            return True
        # A repeat of a write whose answer was lost is refused, although the write is ours.
        now = self.get(campaign_id)
        return now is not None and bool(now.transitions) and now.transitions[-1] == transition

    def amend(self, before: Campaign, after: Campaign) -> bool:
        """Put what `after` has otherwise, over what was read; False where another writer was faster. Raises UsageError
        for a slug that is taken.
        """
        from pymongo.errors import DuplicateKeyError

        stored = self._first({"_id": before.campaign_id})
        if stored is None or read_campaign(stored) != before:
            return False
        old, new = before.as_document(), after.as_document()
        changed = {name: new.get(name) for name in {**old, **new} if old.get(name) != new.get(name)}
        guard = _as_read(stored, (*changed, "status", "fence"))
        try:
            answer = self._update_one({"_id": before.campaign_id, **guard}, {"$set": changed})
        except DuplicateKeyError:
            raise UsageError(f"another campaign has the slug {after.slug!r}: choose another") from None
        # A repeat of a write whose answer was lost is refused, although the write is ours.
        return bool(answer.matched_count) or self.get(before.campaign_id) == after

    def delete(self, campaign: Campaign) -> bool:
        """Delete it as it was read, a DRAFT; False where another writer was faster."""
        stored = self._first({"_id": campaign.campaign_id})
        if stored is None or read_campaign(stored) != campaign:
            return False
        guard = _as_read(stored, ("opened", "codeKey", "amendments", "fence"))
        draft = {"_id": campaign.campaign_id, "status": CampaignStatus.DRAFT.value, **guard}
        return self._dependency.call(self._collection.delete_one, draft).deleted_count == 1

    def set_keys(self, campaign_id: str, unit_key_hash: str, code_key: str) -> bool:
        """Name the public halves of a campaign's keys; False for one that names any, or is gone."""
        guard = {"_id": campaign_id, "unitKeyHash": None, "codeKey": None}
        update = {"$set": {"unitKeyHash": unit_key_hash, "codeKey": code_key}}
        return bool(self._update_one(guard, update).matched_count)

    def set_opened(self, campaign_id: str, opened: LoggedTerms) -> bool:
        """Name the last file about a campaign in the log; False if it names one with a later leaf, is gone, or another
        writer was faster.
        """
        before = self.get(campaign_id)
        if before is None or (before.opened is not None and before.opened.index > opened.index):
            return False
        guard = {"_id": campaign_id, "opened.hash": before.opened and before.opened.hash}
        return bool(self._update_one(guard, {"$set": {"opened": as_json(opened)}}).matched_count)

    def set_pass_on(self, before: Campaign, pass_on: PassOn | None) -> bool:
        """Set whether and how seats pass on by themselves; False if that was changed since `before` was read."""
        names = ("rounds", "everyHours", "quiet")
        known = as_json(before.pass_on) if before.pass_on else dict.fromkeys(names)
        guard = {"_id": before.campaign_id, **{f"passOn.{name}": known[name] for name in names}}
        update = {"$set": {"passOn": as_json(pass_on)}} if pass_on else {"$unset": {"passOn": ""}}
        return bool(self._update_one(guard, update).matched_count)

    def set_refused(self, campaign_id: str, refused: RefusedTerms) -> None:
        """Name the terms that the log cannot have, over any before."""
        self._update_one({"_id": campaign_id}, {"$set": {"refused": as_json(refused)}})

    def _one(self, query: dict[str, Any]) -> Campaign | None:
        document = self._first(query)
        return None if document is None else read_campaign(document)


def _as_read(stored: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What a document matches whose fields of these names are as they were read. The embedded server compares no lists,
    so of a list it is the number of its elements and their plain values.
    """
    found: dict[str, Any] = {}
    elements: list[dict[str, Any]] = []
    for name in names:
        if name not in stored:
            found[name] = {"$exists": False}
            continue
        for path, value in _leaves(name, stored[name]):
            found[path] = {"$size": len(value)} if isinstance(value, list) else {"$eq": value}
            elements += [{path: _like(each)} for each in value] if isinstance(value, list) else []
    return {**found, "$and": elements} if elements else found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value


def _like(element: Any) -> dict[str, Any]:
    if not isinstance(element, Mapping):
        return {"$all": [element]}
    return {
        "$elemMatch": {key: each for key, each in element.items() if not isinstance(each, Mapping | list)}
    }
