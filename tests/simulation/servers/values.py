"""DynamoDB's attribute values: checked, copied, measured and compared as it does."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Any

from tests.simulation.servers.client import Refused

Value = Mapping[str, Any]
Item = dict[str, Any]
MAX_ITEM_BYTES = 400 * 1024
_MAX_DEPTH = 32
_DIGITS = Context(prec=38, Emax=125, Emin=-130, traps=[Inexact, InvalidOperation, Overflow])


class Binaries:
    """Whether this process ever stored one. Until then answers need no search for them."""

    stored = False


def invalid(message: str) -> Refused:
    return Refused("ValidationException", message)


def text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def stored(item: Mapping[str, Value]) -> tuple[Item, int]:
    """A copy as DynamoDB keeps it, and its size. Raises Refused for what it does not keep."""
    size, kept = 0, {}
    for name, value in item.items():
        if len(value) != 1:
            raise invalid("Supplied AttributeValue is empty or has more than one datatype set")
        ((kind, content),) = value.items()
        if kind == "S":
            size += text_bytes(name) + text_bytes(content)
            kept[name] = {"S": content}
        else:
            kept[name], more = _kept(kind, content, 0)
            size += text_bytes(name) + more
    return kept, size


def stored_value(value: Value) -> Item:
    """One value, as `stored`."""
    ((kind, content),) = value.items()
    return _kept(kind, content, 0)[0]


def _kept(kind: str, content: Any, depth: int) -> tuple[Item, int]:
    if kind == "S":
        return {"S": content}, text_bytes(content)
    if kind == "N":
        text = number(content)
        return {"N": text}, len(text) // 2 + 1
    if kind == "BOOL" or kind == "NULL":
        return {kind: content}, 1
    if kind == "B":
        data = binary(content)
        Binaries.stored = True
        return {"B": data}, len(data)
    if kind in _SETS:
        return _set(kind, content)
    if depth > _MAX_DEPTH:
        raise invalid("Nesting Levels have exceeded supported limits")
    if kind == "L":
        parts = [_kept(*_one(each), depth + 1) for each in content]
        return {"L": [part for part, _ in parts]}, 3 + sum(size + 1 for _, size in parts)
    if kind == "M":
        named = {name: _kept(*_one(each), depth + 1) for name, each in content.items()}
        size = 3 + sum(text_bytes(name) + more + 1 for name, (_, more) in named.items())
        return {"M": {name: part for name, (part, _) in named.items()}}, size
    raise invalid(f"Supplied AttributeValue has an unknown datatype {kind}")


_SETS = {"SS": "S", "NS": "N", "BS": "B"}


def _set(kind: str, content: Any) -> tuple[Item, int]:
    if not content:
        raise invalid("An AttributeValue may not contain an empty set")
    parts = [_kept(_SETS[kind], each, 0) for each in content]
    members = [part[_SETS[kind]] for part, _ in parts]
    if len(set(members)) < len(members):
        raise invalid("Input collection contains duplicates")
    return {kind: sorted(members)}, sum(size for _, size in parts)


def _one(value: Value) -> tuple[str, Any]:
    if len(value) != 1:
        raise invalid("Supplied AttributeValue is empty or has more than one datatype set")
    ((kind, content),) = value.items()
    return kind, content


def number(text: str) -> str:
    """In the form in which DynamoDB returns it: without exponent, leading and trailing zeros."""
    if text.isdecimal() and text.isascii() and len(text) <= 38 and (text[0] != "0" or text == "0"):
        return text
    try:
        value = _DIGITS.create_decimal(text)
    except (InvalidOperation, Inexact, Overflow):
        raise invalid("The parameter cannot be converted to a numeric value, or has over 38 digits") from None
    if not value.is_finite():
        raise invalid("The parameter cannot be converted to a numeric value")
    written = f"{value:f}"
    if "." in written:
        written = written.rstrip("0").rstrip(".")
    return "0" if written in ("-0", "") else written


def binary(content: str | bytes) -> bytes:
    """Bytes from boto3, base64 from the wire."""
    return base64.b64decode(content) if isinstance(content, str) else bytes(content)


def on_the_wire(value: Any) -> Any:
    """Binary values as base64 texts, in which the large answers leave them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: on_the_wire(each) for name, each in value.items()}
    return [on_the_wire(each) for each in value] if isinstance(value, list) else value


def equal(left: Value | None, right: Value | None) -> bool:
    """Values of an expression may be written in another form, such as `1.0`. A missing attribute equals nothing."""
    if left is None or right is None:
        return False
    return left == right or ("S" not in left and stored_value(left) == stored_value(right))


def order(left: Value | None, right: Value | None) -> int | None:
    """Negative, zero or positive; None where the two cannot be compared."""
    if left is None or right is None:
        return None
    ((kind, one),) = left.items()
    other = right.get(kind)
    if other is None or kind not in ("S", "N", "B"):
        return None
    if kind == "N":
        first, second = Decimal(one), Decimal(other)
        return (first > second) - (first < second)
    if kind == "B":
        one, other = binary(one), binary(other)
    return int(one > other) - int(one < other)
