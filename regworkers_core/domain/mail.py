"""Mail addresses: which are well-formed, and when two of them are the same.

The raw address is always kept. Dots and plus tags are left alone: two such addresses may be two people, so they
may be a signal for clusters of abuse, never a ground for granting an invite or refusing a fan.
"""

from __future__ import annotations

import unicodedata

import idna
from email_validator import EmailNotValidError, validate_email

# RFC 5321 4.5.3.1.3 as corrected by its erratum 1690. Also what keeps a hostile text from costing time.
MAX_LENGTH = 254


def is_mail(text: str) -> bool:
    """Whether `text`, trimmed, is an address that mail can be sent to (syntax only; nobody is asked)."""
    trimmed = text.strip()
    if len(trimmed) > MAX_LENGTH:
        return False
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


def domain_of(text: str) -> str:
    """The domain in its comparable form, empty where there is none."""
    _, at, domain = comparable(text).rpartition("@")
    return domain if at else ""


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except idna.IDNAError:
        return domain.lower()
