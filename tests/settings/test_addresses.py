"""Addresses with a login: no part of a password becomes a host, which errors print."""

from __future__ import annotations

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import load_settings
from regworkers_core.settings.connections import MongoSettings


@pytest.mark.parametrize("name", ["REGWORKERS_MONGO__URI", "REGWORKERS_REDIS__URL"])
@pytest.mark.parametrize("password", ["p@ssSENT", "SENT/WORD", "p@ssSENT/WORD", "SENT?x", "SENT#x"])
def test_a_password_that_is_not_escaped_is_refused_without_a_part_of_it(
    name: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"scheme://u:{password}@h:1/0")
    with pytest.raises(UsageError) as refused:
        load_settings()
    assert "percent-encoded" in str(refused.value) and "SENT" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["mongodb://h:1", "mongodb+srv://u:p%40s%2Fx@h/db?tls=true", "mongodb://u:p@a:1,b:2/?x=y"]
)
def test_an_escaped_one_is_taken(address: str) -> None:
    taken = MongoSettings(uri=address).uri  # type: ignore[arg-type]
    assert taken is not None and taken.get_secret_value() == address
