"""Mail addresses: which are well-formed, and when two of them are the same.

The raw address is always kept. Dots and plus tags are left alone: two such addresses may be two people, so they
may be a signal for clusters of abuse, never a ground for granting an invite or refusing a fan.
"""

from __future__ import annotations

import re
import unicodedata

import idna
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

# RFC 5321 4.5.3.1.3 as corrected by its erratum 1690. Also what keeps a hostile text from costing time.
MAX_LENGTH = 254
# What nearly every address looks like, and what the library, a hundred times as slow, never refuses: atoms and plain
# labels without repeated hyphens, an alphabetic top-level domain. Others are left to the library.
_PLAIN = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+){0,9}@(?:[a-z0-9](?:-?[a-z0-9]){0,31}\.){1,9}(?P<top>[a-z]{2,24})",
    re.IGNORECASE,
)
_SPECIAL_TOPS = frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)


def is_mail(text: str) -> bool:
    """Whether `text`, trimmed, is an address that mail can be sent to (syntax only, without DNS)."""
    trimmed = text.strip()
    if len(trimmed) > MAX_LENGTH:
        return False
    plain = _PLAIN.fullmatch(trimmed)
    if plain and plain["top"].lower() not in _SPECIAL_TOPS:
        return True
    try:
        # `.test` is reserved for tests (RFC 2606), which is what qa is for.
        validate_email(trimmed, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


def comparable(text: str) -> str:
    """The form in which two addresses are compared: trimmed, NFC, domain in IDNA, lower case.

    Total: what is no address comes back trimmed, NFC and in lower case, so that equal texts stay equal.
    """
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    return f"{local.lower()}{at}{_ascii_domain(domain)}"


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except idna.IDNAError:
        return domain.lower()
