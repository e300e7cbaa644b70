"""Ids that begin with a dash: refs and derived entry ids are base64url, so one of 64 does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from typer.core import TyperGroup

_ID = re.compile(r"--?[A-Za-z0-9_-]+")


class Commands(TyperGroup):
    """The root of all commands: reads `trace C -abc` as an operator means it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_ids_apart(self, args))


def with_ids_apart(group: Any, args: Sequence[str]) -> list[str]:
    """The words with those that are ids behind `--`, where a parser takes them for what they are.

    A word with one dash is an id, since commands have no short options (one that has is left alone). One with two is
    one if an argument is missing without it and no option is called nearly so: a mistyped option stays an error.
    """
    command, depth = group, 0
    while depth < len(args) and (inner := getattr(command, "commands", {}).get(args[depth])):
        command, depth = inner, depth + 1
    words = list(args[depth:])
    if command is group or getattr(command, "commands", None) or "--" in words:
        return list(args)
    options = {name: each for each in command.params for name in each.opts if name.startswith("-")}
    options |= {name: each for each in command.params for name in each.secondary_opts}
    if any(not name.startswith("--") for name in options):
        return list(args)
    given, named, unknown = [], [], set[int]()
    for index, (word, is_value) in enumerate(_words(words, options)):
        if is_value or word.partition("=")[0] in options or word == "--help":
            named.append(index)
        else:
            given.append(index)
            if _ID.fullmatch(word):
                unknown.add(index)
    lacking = sum(each.required for each in command.params if each.param_type_name == "argument")
    lacking -= sum(not words[index].startswith("--") for index in given)
    for index in sorted(unknown):
        if words[index].startswith("--"):
            if lacking <= 0 or get_close_matches(words[index], options):
                return list(args)
            lacking -= 1
    if not unknown:
        return list(args)
    return [*args[:depth], *(words[each] for each in named), "--", *(words[each] for each in given)]


def _words(words: Sequence[str], options: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each word, and whether it is the value of the option before it."""
    is_value = False
    for word in words:
        yield word, is_value
        option = None if is_value else options.get(word)
        is_value = option is not None and not option.is_flag and not option.count
