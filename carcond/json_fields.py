"""Reading decoded JSON that may lack anything or hold something else than expected."""

from collections.abc import Mapping
from typing import Any, TypeGuard

_MAX_NAME = 80
_LARGEST = 1e15


def sanitize_line(text: object, limit: int = _MAX_NAME) -> str:
    """One printable line: control and direction characters could rewrite a terminal or turn a line around."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def mapping(part: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object under a name; empty where there is none."""
    value = part.get(name)
    return value if isinstance(value, Mapping) else {}


def rows(part: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The objects of the list under a name."""
    value = part.get(name)
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def text(part: Mapping[str, Any], name: str) -> str:
    """The text under a name, made `plain`; empty where there is none."""
    value = part.get(name)
    return "" if value is None else sanitize_line(value)


def format_timestamp(stated: str) -> str:
    """A time in ISO 8601, UTC, as people read it; any other text as it is."""
    day, _, time = stated.removesuffix("+00:00").partition("T")
    return f"{day} {time} UTC" if time and stated.endswith("+00:00") else stated


def flag(part: Mapping[str, Any], name: str) -> bool | None:
    """The truth value under a name, None where there is none."""
    value = part.get(name)
    return value if isinstance(value, bool) else None


def count(part: Mapping[str, Any], name: str) -> int | None:
    """The whole number under a name, None where there is none."""
    value = number(part, name)
    return None if value is None else int(value)


def number(part: Mapping[str, Any], name: str) -> float | None:
    """The finite number under a name, None where there is none."""
    value = part.get(name)
    return float(value) if is_number(value) else None


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a decoded JSON value is a number that can be shown: neither infinite nor absurdly large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
