"""IAM roles, as an ARN names them and as a service sees a session of one."""

from __future__ import annotations

import re
from typing import NamedTuple

_ACCOUNT = r"arn:(?P<partition>aws[a-z-]*):{service}::(?P<account>[0-9]{{12}}):"
# The name is the last part: a role may lie under a path, which a session's ARN does not have. Within an account a name
# is unique whatever its path ("IAM and STS quotas": 64 of these characters).
_NAME = r"(?P<name>[A-Za-z0-9+=,.@_-]{1,64})"
_ROLE = re.compile(_ACCOUNT.format(service="iam") + rf"role/(?:[\x21-\x7e]*/)?{_NAME}")
_SESSION = re.compile(_ACCOUNT.format(service="sts") + rf"assumed-role/{_NAME}/[A-Za-z0-9+=,.@_-]{{2,64}}")


class Role(NamedTuple):
    partition: str
    account: str
    name: str

    @classmethod
    def named(cls, arn: str) -> Role | None:
        """The role of `arn:aws:iam::<account>:role/<path>/<name>`; None for any other text."""
        return cls._of(_ROLE, arn)

    @classmethod
    def of_session(cls, arn: object) -> Role | None:
        """The role of `arn:aws:sts::<account>:assumed-role/<name>/<session>`; None for any other value."""
        return cls._of(_SESSION, arn) if isinstance(arn, str) else None

    @classmethod
    def _of(cls, form: re.Pattern[str], arn: str) -> Role | None:
        found = form.fullmatch(arn)
        return None if found is None else cls(found["partition"], found["account"], found["name"])
