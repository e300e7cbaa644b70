"""A small evaluator of Terraform modules: enough of its language for ours, so that what a module says can be compared
without Terraform. What it does not know is an error, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import eq, mul, ne
from pathlib import Path
from typing import Any

import hcl2
import orjson

_TOKEN = re.compile(r'\s*(?:(\d+)|([A-Za-z_][\w-]*)|(")|(!=|==|[][(){}.,=:*?]))')
_ARNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "aws_sqs_queue": lambda values: f"arn:aws:sqs:REGION:ACCOUNT:{values['name']}",
    "aws_kms_key": lambda values: "arn:aws:kms:REGION:ACCOUNT:key/1",
    "aws_iam_policy": lambda values: f"arn:aws:iam::ACCOUNT:policy/{values['name']}",
}
# What AWS itself fills in where a module is silent.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"aws_sqs_queue": {"visibility_timeout_seconds": 30}}


@dataclass(slots=True)
class Scope:
    """Names by their first part: `var`, `local`, `each`, and each type of resource."""

    folder: Path
    names: dict[str, Any]
    functions: dict[str, Callable[..., Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.functions = {
            "jsonencode": lambda value: orjson.dumps(value).decode(),
            "jsondecode": orjson.loads,
            "file": lambda path: Path(path).read_text(encoding="utf-8"),
            "replace": lambda text, old, new: text.replace(old, new),
            "toset": lambda values: {value: value for value in values},
            "merge": lambda *maps: {name: value for each in maps for name, value in each.items()},
            "filemd5": lambda path: f"md5 of {path}",
        }


def evaluate(folder: Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The part `values` of what `terraform show -json` would print. Raises ValueError for what it cannot evaluate."""
    resources: dict[str, dict[str, Any]] = {}
    locals_: dict[str, Any] = {}
    for path in sorted(folder.glob("*.tf")):
        document = _parsed(path.read_text(encoding="utf-8"))
        for block in document.get("locals", ()):
            locals_ |= block
        for block in document.get("resource", ()):
            for kind, named in block.items():
                resources.setdefault(kind.strip('"'), {}).update(
                    {name.strip('"'): body for name, body in named.items()}
                )
    names: dict[str, Any] = {"var": dict(variables), "local": {}, "path": {"module": str(folder)}}
    scope = Scope(folder, names)
    found: list[dict[str, Any]] = []

    def take(key: tuple[str, str], node: Any) -> None:
        if key[0] == "local":
            names["local"][key[1]] = _value(node, scope)
        else:
            found.extend([*_instances(key, node, scope)])

    # A local may name a resource, and a resource a local.
    bodies = {("local", name): node for name, node in locals_.items()}
    bodies |= {(kind, name): body for kind, named in resources.items() for name, body in named.items()}
    _until_known(bodies, take)
    return {"root_module": {"resources": found}}


@cache
def _parsed(text: str) -> Any:
    """Parsing takes much longer than all the rest."""
    return _bare(hcl2.loads(text))


def _bare(node: Any) -> Any:
    """Without what the parser notes besides: comments, which nodes are blocks."""
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if not key.startswith("__")}
    return [_bare(each) for each in node] if isinstance(node, list) else node


def _until_known(open_: dict[Any, Any], take: Callable[[Any, Any], Any]) -> None:
    """In the order in which they can be evaluated: one that needs another waits for it."""
    while open_:
        before = len(open_)
        for key, node in list(open_.items()):
            try:
                take(key, node)
            except KeyError:
                continue
            del open_[key]
        if len(open_) == before:
            raise ValueError(f"cannot be evaluated: {sorted(map(str, open_))}")


def _instances(key: tuple[str, str], body: Mapping[str, Any], scope: Scope) -> Iterator[dict[str, Any]]:
    kind, name = key
    made: dict[Any, Any] = {}
    each = {None: None} if "for_each" not in body else _value(body["for_each"], scope)
    for index, value in each.items():
        names = {**scope.names, "each": {"key": index, "value": value}}
        inner = Scope(scope.folder, names)
        values = {**_DEFAULTS.get(kind, {}), **_block(body, inner)}
        arn = _ARNS[kind](values) if kind in _ARNS else None
        made[index] = values | {"arn": arn, "id": values.get("bucket"), "version": "1", "version_id": "v1"}
        address = f"{kind}.{name}" + ("" if index is None else f'["{index}"]')
        yield {"address": address, "mode": "managed", "type": kind, "values": values}
    scope.names.setdefault(kind, {})[name] = made.get(None, made)


def _block(body: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """The arguments and blocks of a body, dynamic ones included: these name what they repeat over by their label."""
    values = {name: _value(node, scope) for name, node in body.items() if name not in ("for_each", "dynamic")}
    for block in body.get("dynamic", ()):
        for label, repeated in block.items():
            label = label.strip('"')
            found = _value(repeated["for_each"], scope)
            items = found.items() if isinstance(found, dict) else enumerate(found)
            for key, value in items:
                inner = Scope(scope.folder, {**scope.names, label: {"key": key, "value": value}})
                (content,) = repeated["content"]
                values.setdefault(label, []).append(_block(content, inner))
    return values


def _value(node: Any, scope: Scope) -> Any:
    if isinstance(node, list):
        return [_value(each, scope) for each in node]
    if isinstance(node, dict) and "dynamic" in node:
        return _block(node, scope)
    if isinstance(node, dict):
        return {_text(key, scope): _value(value, scope) for key, value in node.items()}
    if not isinstance(node, str):
        return node
    if node.startswith('"'):
        return _Parser(node, scope).all()
    if node.startswith("${"):
        return _Parser(node[2:-1], scope).all()
    raise ValueError(f"neither a string nor an expression: {node}")


def _text(key: str, scope: Scope) -> str:
    return str(_Parser(key, scope).all()) if key.startswith('"') else key


class _Parser:
    """One expression."""

    def __init__(self, text: str, scope: Scope) -> None:
        self._text, self._scope, self._at = text, scope, 0
        # In the branch of a condition that is not taken: read, and not evaluated.
        self._skips = False

    def all(self) -> Any:
        value = self._condition()
        if self._text[self._at :].strip():
            raise ValueError(f"not understood: {self._text[self._at :]}")
        return value

    def _next(self) -> re.Match[str] | None:
        return _TOKEN.match(self._text, self._at)

    def _peek(self) -> str:
        token = self._next()
        return token[0].strip() if token else ""

    def _take(self, wanted: str = "") -> str:
        token = self._next()
        if token is None or (wanted and token[0].strip() != wanted):
            raise ValueError(f"{wanted or 'more'} expected at {self._text[self._at :][:40]!r}")
        self._at = token.end()
        return token[0].strip()

    def _condition(self) -> Any:
        holds = self._product()
        if self._peek() != "?":
            return holds
        self._take()
        first = self._branch(taken=holds)
        self._take(":")
        second = self._branch(taken=not holds)
        return first if holds else second

    def _branch(self, *, taken: bool) -> Any:
        before, self._skips = self._skips, self._skips or not taken
        value = self._condition()
        self._skips = before
        return value

    def _product(self) -> Any:
        value = self._part()
        while self._peek() in ("*", "!=", "=="):
            operator, other = self._take(), self._part()
            if not self._skips:
                value = {"*": mul, "!=": ne, "==": eq}[operator](value, other)
        return value

    def _part(self) -> Any:
        value = self._primary()
        while self._peek() in (".", "["):
            if self._take() == ".":
                name = self._take()
            else:
                name = self._condition()
                self._take("]")
            value = None if self._skips else value[name]
        return value

    def _primary(self) -> Any:
        word = self._peek()
        if word == '"':
            return self._string()
        if word == "[":
            return list(self._several("[", "]", self._condition))
        if word == "{":
            return dict(self._several("{", "}", self._pair))
        if word.isdigit():
            return int(self._take())
        self._take()
        if word in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[word]
        if self._peek() == "(":
            arguments = self._several("(", ")", self._condition)
            return None if self._skips else self._scope.functions[word](*arguments)
        return None if self._skips else self._scope.names[word]

    def _several(self, start: str, end: str, one: Callable[[], Any]) -> list[Any]:
        self._take(start)
        found = []
        while self._peek() != end:
            found.append(one())
            if self._peek() == ",":
                self._take()
        self._take(end)
        return found

    def _pair(self) -> tuple[str, Any]:
        key = self._string() if self._peek() == '"' else self._take()
        if self._peek() not in ("=", ":"):
            raise ValueError(f"= expected at {self._text[self._at :][:40]!r}")
        self._take()
        return str(key), self._condition()

    def _string(self) -> str:
        self._take('"')
        found = ""
        while self._text[self._at] != '"':
            if self._text.startswith("${", self._at):
                self._at += 2
                found += str(self._condition())
                self._take("}")
            else:
                found += self._text[self._at]
                self._at += 1
        self._at += 1
        return found
