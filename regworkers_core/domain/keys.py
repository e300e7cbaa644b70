"""Keys of the demand table and ids of the replica, and the way between them."""

from __future__ import annotations

import re
from typing import NamedTuple

CAMPAIGN_PREFIX = "CAMPAIGN#"
ENTRY_PREFIX = "ENTRY#"
# Every id that a draw hashes or names: refs, units, markets, segments, campaigns.
SELECTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_selection_id(text: str) -> bool:
    """Whether the whole text is such an id."""
    return SELECTION_ID.fullmatch(text) is not None


class EntryKey(NamedTuple):
    """`PK=CAMPAIGN#<campaign_id>`, `SK=ENTRY#<entry_id>`; in the replica `_id=<campaign_id>:<entry_id>`."""

    campaign_id: str
    entry_id: str

    @property
    def pk(self) -> str:
        return CAMPAIGN_PREFIX + self.campaign_id

    @property
    def sk(self) -> str:
        return ENTRY_PREFIX + self.entry_id

    @property
    def document_id(self) -> str:
        return f"{self.campaign_id}:{self.entry_id}"

    @classmethod
    def parse(cls, pk: object, sk: object) -> EntryKey | None:
        """The entry under this table key, or None when the key is not an entry's (an invite's, say)."""
        if not isinstance(pk, str) or not isinstance(sk, str):
            return None
        campaign_id, entry_id = pk.removeprefix(CAMPAIGN_PREFIX), sk.removeprefix(ENTRY_PREFIX)
        if campaign_id == pk or entry_id == sk or not campaign_id or not entry_id:
            return None
        return cls(campaign_id, entry_id)
