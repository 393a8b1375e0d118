"""Reading of Label Studio's answers, which may be `null`, lack anything, or come from another program.

Errors name types and no values: a webhook's headers hold a password.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from carcond.errors import LabelStudioError
from carcond.json_fields import is_number

Row = dict[str, Any]
"""A JSON object."""

Answers = Mapping[str, tuple[str, float]]
"""Answers of a model: task key -> (class key, its probability in 0..1)."""

_MAX_NUMBER = 2**63 - 1


def read_object(answer: object, what: str) -> Row:
    """An answer that should be an object.

    Args:
        answer: decoded JSON.
        what: its name in the error's text, such as "a project".

    Raises:
        LabelStudioError: it is none.
    """
    if not isinstance(answer, dict):
        raise LabelStudioError(f"expected {what} from Label Studio, got {_type_of(answer)}: is LABEL_STUDIO_URL right?")
    return answer


def read_objects(answer: object, what: str) -> list[Row]:
    """An answer that should be a list of objects; the parameters and the error are those of `read_object`."""
    if not isinstance(answer, list):
        raise LabelStudioError(f"expected {what} from Label Studio, got {_type_of(answer)}: is LABEL_STUDIO_URL right?")
    return [read_object(row, f"objects in {what}") for row in answer]


def read_id(row: Row, name: str = "id") -> int:
    """A whole number that must be there, 0 .. 2**63 - 1.

    Raises:
        LabelStudioError: there is none.
    """
    value = row.get(name)
    number = whole_number(value)
    if number is None:
        raise LabelStudioError(f"expected a whole number as {name!r} from Label Studio, got {_type_of(value)}")
    return number


def read_count(row: Row, name: str, default: int = 0) -> int:
    """A whole number; `default` for `null` and where there is none. Raises like `read_id`."""
    return default if row.get(name) is None else read_id(row, name)


def read_text(row: Row, name: str) -> str:
    """A text; empty for `null` and where there is none.

    Raises:
        LabelStudioError: it is something else.
    """
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise LabelStudioError(f"expected a text as {name!r} from Label Studio, got {_type_of(value)}")
    return value or ""


def read_timestamp(row: Row, name: str) -> str:
    """A time in ISO 8601, as it stands there.

    Raises:
        LabelStudioError: it is none.
    """
    value = read_text(row, name)
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise LabelStudioError(f"expected a time as {name!r} from Label Studio, got another text or none") from None
    return value


def finite_number(value: object) -> float | None:
    """A value that some program wrote as a number; None when it is none."""
    return float(value) if is_number(value) else None


def whole_number(value: object) -> int | None:
    """A value that some program wrote as a whole number, 0 .. 2**63 - 1; None when it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_NUMBER else None


def read_answers(value: object) -> Answers:
    """A model's answers that carcond wrote; what is none is left out, since any program may have written the field."""
    pairs = value.items() if isinstance(value, dict) else ()
    return {
        task: (pair[0], float(pair[1]))
        for task, pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
        if is_number(pair[1]) and 0 <= pair[1] <= 1
    }


def _type_of(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "nothing"}
    return names.get(type(value), "a number")
