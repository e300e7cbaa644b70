"""The settings of the log: its witnesses, and how many of them are needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from fairdraw.log.note import COSIGNATURE
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.public.witnesses import Witnesses
from regworkers_core.settings import Settings
from tests.selection.public.fakes import cosigner

FIRST, SECOND = (
    {"url": f"https://w{each}.example/", "vkey": str(cosigner(each).verifier(COSIGNATURE))} for each in (1, 2)
)


def with_log(**log: Any) -> Runtime:
    return Runtime(Settings(selection={"log": log}))  # type: ignore[arg-type]


def test_the_witnesses_are_those_of_the_settings() -> None:
    found = Witnesses.of(with_log(witnesses=[FIRST, SECOND], needed=1))
    assert found.keys == [cosigner(each).verifier(COSIGNATURE) for each in (1, 2)]
    assert found.needed == 1


def test_without_settings_there_is_none_and_none_is_needed() -> None:
    found = Witnesses.of(with_log())
    assert (found.keys, found.needed) == ([], 0)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ({"witnesses": [FIRST], "needed": 2}, "at most the number of witnesses, 1"),
        ({"witnesses": [FIRST, {**SECOND, "vkey": FIRST["vkey"]}]}, "every witness once"),
        ({"needed": -1}, "greater than or equal to 0"),
        ({"origin": "a b"}, "should match pattern"),
    ],
)
def test_settings_that_cannot_hold_are_refused(log: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_log(**log)


def test_one_key_under_two_names_is_refused_with_both_names() -> None:
    key = cosigner(1).verifier(COSIGNATURE)
    other = replace(key, name="another.example/w")
    with pytest.raises(ValidationError, match=f"{key.name} and {other.name} have the same key"):
        with_log(witnesses=[FIRST, SECOND, {**SECOND, "vkey": str(other)}], needed=2)


@pytest.mark.parametrize(
    ("vkey", "message"),
    [
        ("no key", "is not <name>"),
        (str(cosigner().verifier()), "a witness that this version understands has 0x04"),
    ],
)
def test_a_key_that_is_none_of_a_witness_names_the_setting(vkey: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"selection\.log\.witnesses\[0\]\.vkey: ") as error:
        Witnesses.of(with_log(witnesses=[{"url": "https://w", "vkey": vkey}]))
    assert message in str(error.value)


def test_the_origin_is_that_of_the_settings_or_the_buckets_folder(runtime: Runtime) -> None:
    assert PublicLog.of(runtime).origin == f"{runtime.names.bucket}/log"
    named = Runtime(
        runtime.settings.model_copy(update={"selection": with_log(origin="a.example/log").settings.selection})
    )
    assert PublicLog.of(named).origin == "a.example/log"
