"""Keys and ids of entries, and the limits of ids, texts and values, each with the service whose limit it is.

Every reader of an entry or a message uses these functions, so that no part accepts what another cannot store. Those
that find a problem never raise: they describe it without a fan's values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from fairdraw.documents import MAX_DEPTH as MAX_DEPTH
from fairdraw.documents import is_too_deep as is_too_deep
from fairdraw.terms import SELECTION_ID as SELECTION_ID
from fairdraw.terms import is_selection_id as is_selection_id

# DynamoDB's limits of a partition key and of a sort key, in bytes of UTF-8 ("Quotas and limits").
PK_BYTES = 2048
SK_BYTES = 1024
# Ours: `CAMPAIGN#` and `ENTRY#` before them stay far below DynamoDB's limits, `<campaignId>:<entryId>` below what an
# index of MongoDB takes.
CAMPAIGN_ID_BYTES = 64
ENTRY_ID_BYTES = 512
# A map with these names is a reference to a database (DBRef): MongoDB validates it as one, and the driver reads it back
# as one. BSON ends a field's name at its first NUL. Other names with `$` or a dot are stored from MongoDB 5.0 on.
_REFERENCE_NAMES = frozenset({"$ref", "$id", "$db"})
_INT64 = 2**63
# Unicode's category Cc.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# What json reads and no encoding writes: halves of a character. Each is shown as the control character SUBSTITUTE,
# which no id may hold, so that a text with it is never taken for another id.
_SURROGATE = re.compile("[\ud800-\udfff]")
_SUBSTITUTE = "\x1a"
# The ids that are usual need one look.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# E.164 has 15 digits at most.
_PERSONAL = re.compile(r"\s*(?:[^@\s]{1,64}@[^@\s]+\.[^@\s]+|\+[0-9]{8,15})\s*")
_SHOWN = 120
_DOTS = "..."


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON may escape one half of a character alone."""
    return text.isascii() or _SURROGATE.search(text) is None


def has_control(text: str) -> bool:
    """Whether it holds a control character, a line feed among them."""
    return _CONTROL.search(text) is not None


def encodable(text: str) -> str:
    """The text itself, or one that can be encoded and is no valid id."""
    return text if text.isascii() else _SURROGATE.sub(_SUBSTITUTE, text)


# Most entries of a batch are of one campaign.
@lru_cache(maxsize=256)
def campaign_id_problem(text: str) -> str | None:
    """What is wrong with the id of a campaign; it holds no `:`, which separates it from the entry's."""
    if _PLAIN_ID.fullmatch(text):
        return None
    return _id_problem(text, CAMPAIGN_ID_BYTES) or ("holds a colon" if ":" in text else None)


def is_personal(text: str) -> bool:
    """Whether an id is a mail address or a phone number: ids are in logs, events and the archive."""
    return _PERSONAL.fullmatch(text) is not None


def entry_id_problem(text: str) -> str | None:
    return None if _PLAIN_ID.fullmatch(text) else _id_problem(text, ENTRY_ID_BYTES)


def _id_problem(text: str, most_bytes: int) -> str | None:
    if not text:
        return "is empty"
    if not is_encodable(text):
        return "cannot be encoded as UTF-8"
    if len(text.encode()) > most_bytes:
        return f"is longer than {most_bytes} bytes"
    return "holds a control character" if _CONTROL.search(text) else None


# This runs for every value of every entry: loops, and no call for what is as usual.


def unstorable(value: Any, levels: int = MAX_DEPTH) -> str | None:
    """Why MongoDB cannot hold a plain value (as `adapters.aws.tables` makes them); None: it can."""
    kind = value.__class__
    if kind is str:
        return None if is_encodable(value) else "holds text that cannot be encoded as UTF-8"
    if kind is int:
        return None if -_INT64 <= value < _INT64 else "holds a number of more than 64 bits"
    if kind is dict or kind is list:
        if not levels:
            return f"is nested deeper than {MAX_DEPTH} levels"
        if kind is dict:
            for name in value:
                is_usual = name.__class__ is str and name.isidentifier() and name.isascii()
                if not is_usual and (problem := field_name_problem(name)):
                    return problem
        for each in value.values() if kind is dict else value:
            is_usual = each.__class__ is str and each.isascii()
            if not is_usual and (problem := unstorable(each, levels - 1)):
                return problem
        return None
    return None if value is None or kind in (bool, float, bytes) else f"holds a value of type {kind.__name__}"


def field_name_problem(name: object) -> str | None:
    """Why a map with this name cannot be stored."""
    if not isinstance(name, str) or not is_encodable(name):
        return "holds a field name that cannot be encoded as UTF-8"
    if "\x00" in name:
        return "holds a field name with a NUL"
    return "holds a field name that MongoDB keeps for references" if name in _REFERENCE_NAMES else None


def shown(text: str) -> str:
    """A text of others for people: nothing in it moves a cursor or hides a line, and a long one is cut."""
    short = text if len(text) <= _SHOWN else text[: _SHOWN - len(_DOTS)] + _DOTS
    return short if short.isprintable() else "".join(map(_printable, short))


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


CAMPAIGN_PREFIX = "CAMPAIGN#"
ENTRY_PREFIX = "ENTRY#"
# What the form for files answers with: a key in the bucket of artefacts.
UPLOAD_NAME = re.compile(r"uploads/[0-9a-f]{32}/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")


def quoted(text: str) -> str:
    """An id that a person typed, for an error. A text that is none is not repeated: it may be a password or an address
    in the wrong field.
    """
    return repr(text) if is_selection_id(text) else "(no id, so not repeated)"


def similar(text: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, in brackets for an error; empty if none is near."""
    near = get_close_matches(text, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


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
