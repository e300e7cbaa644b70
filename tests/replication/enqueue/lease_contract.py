"""What every lease table must do; run against the fake and against a real DynamoDB."""

from __future__ import annotations

from dataclasses import replace

from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable


def check_lease_table(table: LeaseTable) -> None:
    key, other = LeaseKey("LEASE#contract", "A"), LeaseKey("LEASE#contract", "B")
    assert table.get(key) is None
    assert table.rows("LEASE#contract") == []

    row = LeaseRow(key, owner="a", token=1, counter=1, scope="arn", state={"checkpoint": "7"})
    assert table.swap(row, None), "a row that does not exist can be created"
    assert not table.swap(replace(row, owner="b"), None), "and only once"
    assert table.get(key) == row

    assert table.renew(key, "a", 1, {"checkpoint": "9"}, "009")
    assert table.renew(key, "a", 1, {"checkpoint": "9"}, "009"), "repeating a write is harmless"
    assert not table.renew(key, "a", 1, {"checkpoint": "8"}, "008"), "never backwards"
    assert not table.renew(key, "a", 2), "another token"
    assert not table.renew(key, "b", 1), "another owner"
    assert not table.renew(other, "a", 1), "an absent row is never created"
    seen = table.get(key)
    assert seen == replace(row, counter=3, state={"checkpoint": "9"}, position="009")

    assert not table.swap(replace(row, token=2), row), "the counter moved since that look"
    assert not table.remove(row)
    assert table.swap(replace(seen, owner="b", token=2, counter=4), seen)
    assert not table.renew(key, "a", 1, {"checkpoint": "10"}, "010"), "the old owner is fenced off"
    assert not table.release(key, "a", 1)

    assert table.release(key, "b", 2)
    free = table.get(key)
    assert free is not None
    assert (free.owner, free.token, free.state, free.position) == ("", 2, {"checkpoint": "9"}, "009")
    assert not table.renew(key, "b", 2), "released is released"

    assert table.swap(LeaseRow(other, owner="c", token=1, counter=1), None)
    assert [found.key for found in table.rows("LEASE#contract")] == [key, other]
    for left in table.rows("LEASE#contract"):
        assert table.remove(left)
    assert table.rows("LEASE#contract") == []
