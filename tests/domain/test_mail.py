"""Mail addresses: which are well-formed, and when two are the same."""

from __future__ import annotations

import unicodedata

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regworkers_core.domain.claim import MAX_LENGTH, comparable, is_mail

ADDRESSES = st.from_regex(
    r"[A-Za-z0-9._+-]{1,12}@[A-Za-z0-9-]{1,6}(\.[A-Za-z0-9-]{1,6}){0,3}", fullmatch=True
)


@pytest.mark.parametrize(
    "text",
    [
        "fan@example.com",
        "Fan.Name+tag@Sub.Example.co.uk",
        "  fan@example.com\n",
        "fän@example.com",
        "fan@münchen.de",
        "fan@xn--mnchen-3ya.de",
        "用户@例子.广告",
        "fan@example.test",
    ],
)
def test_these_are_addresses(text: str) -> None:
    assert is_mail(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fan",
        "fan@",
        "@example.com",
        "fan@@example.com",
        "a b@example.com",
        ".fan@example.com",
        "fan.@example.com",
        "fan..x@example.com",
        "fan@-example.com",
        "fan@example",
        "fan@example.local",
        "fan@127.0.0.1",
        "fan@example.com\x00",
        "\u202efan@example.com",
        "fan@" + "a" * 64 + ".com",
        "a" * (MAX_LENGTH - 11) + "@example.com",
        "fan@example.com" * 10_000,
    ],
)
def test_these_are_none(text: str) -> None:
    assert not is_mail(text)


@given(ADDRESSES)
@example("a@b--c.com")
@example("a@b.invalid")
@example("a@b.ARPA")
@settings(max_examples=200)
def test_the_quick_look_never_takes_what_the_library_refuses(text: str) -> None:
    try:
        validate_email(text, check_deliverability=False, test_environment=True)
        valid = True
    except EmailNotValidError:
        valid = False
    assert is_mail(text) is valid


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Fan@Example.COM", "fan@example.com"),
        (" fan@example.com ", "fan@example.com"),
        ("fan@MÜNCHEN.de", "fan@xn--mnchen-3ya.de"),
        ("fa\u0308n@example.com", "f\u00e4n@example.com"),
    ],
)
def test_these_are_the_same(one: str, other: str) -> None:
    assert comparable(one) == comparable(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f.an@gmail.com", "fan@gmail.com"),
        ("fan+tag@gmail.com", "fan@gmail.com"),
        ("f\u0430n@example.com", "fan@example.com"),
        ("fan@ex\u0430mple.com", "fan@example.com"),
    ],
)
def test_dots_tags_and_similar_characters_stay_different_people(one: str, other: str) -> None:
    assert comparable(one) != comparable(other)


@given(st.text(st.characters(exclude_categories=[]), max_size=40) | ADDRESSES)
@settings(max_examples=200)
def test_every_text_has_one_comparable_form(text: str) -> None:
    is_mail(text)
    once = comparable(text)
    if is_mail(text):
        assert comparable(once) == once
        assert comparable(unicodedata.normalize("NFD", text)) == once
