"""Keys of the demand table and ids of the replica, and the way between them."""

from __future__ import annotations

import re
from typing import NamedTuple

from regworkers_core.domain.grammar import (
    CAMPAIGN_ID_BYTES,
    ENTRY_ID_BYTES,
    PK_BYTES,
    SK_BYTES,
    campaign_id_problem,
    encodable,
    entry_id_problem,
    is_encodable,
    shown,
)

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

    @property
    def problem(self) -> str | None:
        """Why replication refuses this key, without its ids; None: it does not."""
        if what := campaign_id_problem(self.campaign_id):
            return f"the campaign id {what}"
        if what := entry_id_problem(self.entry_id):
            return f"the entry id {what}"
        return None

    @property
    def can_be_in_table(self) -> bool:
        """Whether DynamoDB takes it as a key: a read of one that is longer fails with all that is read with it."""
        if len(self[0]) + len(self[1]) <= CAMPAIGN_ID_BYTES + ENTRY_ID_BYTES and "".join(self).isascii():
            return True
        texts = ((self.pk, PK_BYTES), (self.sk, SK_BYTES))
        return all(is_encodable(text) and len(text.encode()) <= most for text, most in texts)

    @property
    def shown(self) -> str:
        """The id for people, whatever it holds."""
        return shown(self.document_id)

    @classmethod
    def parse(cls, pk: object, sk: object) -> EntryKey | None:
        """The entry under this table key, or None when the key is not an entry's (an invite's, say). Its ids may have a
        `problem`; what no encoding can hold is replaced by a character that is one.
        """
        if not isinstance(pk, str) or not isinstance(sk, str):
            return None
        if not pk.startswith(CAMPAIGN_PREFIX) or not sk.startswith(ENTRY_PREFIX):
            return None
        return cls(encodable(pk[len(CAMPAIGN_PREFIX) :]), encodable(sk[len(ENTRY_PREFIX) :]))
