"""Uploads from texts, and the invites as the table holds them."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from regworkers_core.adapters.aws.tables import attributes, plain_item
from regworkers_core.domain.claim import Invite, InviteType, invite_key
from regworkers_core.eligibility.invites.lists import ListReport, local_file
from regworkers_core.eligibility.invites.stored import Upload, upload_invites
from regworkers_core.runtime import Runtime

DAY = 86_400
EMAIL = InviteType.EMAIL


def in_days(days: float) -> int:
    return int(time.time() + days * DAY)


class Uploader:
    """Uploads lists for one campaign, out of a scratch folder."""

    def __init__(self, runtime: Runtime, campaign_id: str, folder: Path) -> None:
        self.runtime, self.campaign_id = runtime, campaign_id
        self.file, self.rejects = folder / "invites.csv", folder / "invites.csv.rejects.csv"

    def __call__(
        self, *lines: str, type_: InviteType = EMAIL, ttl: int | None = None, **options: Any
    ) -> ListReport:
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.again(type_=type_, ttl=ttl, **options)

    def again(self, *, type_: InviteType = EMAIL, ttl: int | None = None, **options: Any) -> ListReport:
        """The file as it is; `ttl` 0 leaves the time to the upload."""
        rejects = options.pop("rejects", self.rejects)
        options = {"campaign": self.campaign_id, "run_id": "test", **options}
        upload = Upload(type=type_, ttl=in_days(30) if ttl is None else ttl or None, **options)
        report = upload_invites(
            self.runtime, upload, local_file(self.file), name=str(self.file), rejects=rejects
        )
        assert report.adds_up, report.as_dict()
        return report

    @property
    def rejected(self) -> list[tuple[str, ...]]:
        """Rows of the rejects file without its header."""
        if not self.rejects.exists():
            return []
        with self.rejects.open(encoding="utf-8", newline="") as file:
            header, *found = [tuple(row) for row in csv.reader(file)]
        assert header == ("line", "reason", "found")
        return found

    def stored(self, value: str, type_: InviteType = EMAIL) -> dict[str, Any] | None:
        """The item as it lies in the table."""
        pk, sk = invite_key(self.campaign_id, type_, value)
        key = attributes({"PK": pk, "SK": sk})
        answer = self.runtime.dynamodb.get_item(
            TableName=self.runtime.names.demand_table, Key=key, ConsistentRead=True
        )
        return plain_item(answer["Item"]) if "Item" in answer else None

    def ttl_of(self, value: str, type_: InviteType = EMAIL) -> int | None:
        item = self.stored(value, type_)
        return None if item is None else int(item["ttl"])

    def put(self, value: str, ttl: int, type_: InviteType = EMAIL) -> None:
        """An invite that is there already, in its comparable form."""
        self.runtime.invites.write([Invite(self.campaign_id, type_, type_.comparable(value), ttl)])
