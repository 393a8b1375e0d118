"""Hypothesis strategies for damaged files and hostile JSON, made of real ones."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

# Values that programs stumble over: of the wrong type, out of range, half of a surrogate pair.
_ODD_NUMBERS = (0, -1, 1, 2**63, 10**400, 0.0, -0.5, 1e308, float("nan"), float("inf"), float("-inf"))
_ODD_TEXTS = ("", " ", "null", "1", "\x00", "\ud800", "\u202e", "x" * 1000, "2026-01-01T00:00:00Z", "-1e999")
_ODD_PARTS: tuple[Any, ...] = ([], {}, [None], [[]], {"": None}, {"id": None}, [{}])
_ODD = st.sampled_from([None, True, False, *_ODD_NUMBERS, *_ODD_TEXTS, *_ODD_PARTS])
json_values = st.recursive(
    _ODD | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON, and what Python takes for JSON: NaN, infinity, halves of surrogate pairs."""


@st.composite
def damaged_bytes(draw: st.DrawFn, originals: Sequence[bytes], keep_start: int = 0) -> bytes:
    """One of some files with bytes replaced, removed, doubled or inserted, or cut off.

    Args:
        draw: given by Hypothesis.
        originals: the files.
        keep_start: number of first bytes that stay, so that the damage is beyond a magic number.
    """
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["replace", "flip", "cut", "remove", "double", "insert"]))
        # Headers are where the decisions are: half of the damage is done there.
        last = max(keep_start, min(len(data), draw(st.sampled_from([64, 600, len(data)]))))
        place = draw(st.integers(keep_start, last))
        length = draw(st.sampled_from([1, 2, 4, 16, 256]))
        if kind == "cut":
            del data[place:]
        elif kind == "remove":
            del data[place : place + length]
        elif kind == "double":
            data[place:place] = data[place : place + length]
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=length))
        elif kind == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "replace":
            data[place : place + length] = draw(st.sampled_from([b"\x00", b"\xff", b"\x7f", b"\x80"])) * length
    return bytes(data)


@st.composite
def damaged_json(draw: st.DrawFn, original: Any) -> Any:
    """A JSON value with some of its parts replaced, removed, doubled, or wrapped."""
    holder = {"it": deepcopy(original)}
    for _ in range(draw(st.integers(1, 4))):
        parents = [part for part in _containers(holder) if part]
        parent = draw(st.sampled_from(parents)) if parents else holder
        key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "double", "wrap"]))
        if kind == "replace":
            parent[key] = deepcopy(draw(json_values))  # what is drawn is shared, and may be changed next
        elif kind == "wrap":
            parent[key] = draw(st.sampled_from([[parent[key]], {"it": parent[key]}, str(parent[key])]))
        elif kind == "remove" and parent is not holder:
            del parent[key]
        elif kind == "double" and isinstance(parent, list):
            parent.append(deepcopy(parent[key]))
    return holder["it"]


def _containers(value: Any) -> list[Any]:
    """All objects and lists in a value, itself first."""
    found = [value] if isinstance(value, dict | list) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [each for part in inner for each in _containers(part)]
