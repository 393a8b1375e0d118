"""Requests that nobody should send: odd JSON, damaged payloads of Label Studio, broken forms, odd headers."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

FORM_TYPE = "multipart/form-data; boundary=x"

_NUMBERS = (0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1e308, float("nan"), float("inf"), 0.1)
_TEXTS = (
    "",
    "\0",
    "\ud800",
    "\u202e",
    "1.1795378294",
    "9" * 25,
    "٣",
    "../../../etc/passwd",
    "file:///etc/passwd",
    "http://169.254.169.254/",
    "//[",
    "<View>",
    "<View>" * 3_000,
    '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>',
    "x" * 20_000,
)
_ANY_CHARACTER = st.characters()  # lone surrogates among them
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_TEXTS),
    st.integers(),
    st.text(_ANY_CHARACTER, max_size=20),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(_ANY_CHARACTER, max_size=8), inner, max_size=4),
    max_leaves=12,
)
_brackets = st.sampled_from((b"[", b'{"a":', b'{"tasks":[', b"[]"))


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values inside a JSON value."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*at, key)
            yield from _places(inner, (*at, key))


@st.composite
def _damaged(draw: DrawFn, body: Any) -> Any:
    """A body in which some values are others or missing."""
    body = deepcopy(body)
    for _ in range(draw(st.integers(0, 4))):
        places = list(_places(body))
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        inner = body
        for key in way:
            inner = inner[key]
        if isinstance(inner, dict) and draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = draw(_values)
    return body


def _encoded(value: Any, escaped: bool) -> bytes:
    return json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


def json_bodies(*captured: Any) -> SearchStrategy[bytes]:
    """Bodies for a route that expects JSON, most of them like those that Label Studio has sent there."""
    likely = st.builds(_encoded, st.one_of([_damaged(body) for body in captured]), st.booleans())
    nested = st.builds(lambda bracket, depth: bracket * depth, _brackets, st.sampled_from((10, 2_000, 50_000)))
    return st.one_of(
        likely, likely, likely, st.builds(_encoded, _values, st.booleans()), st.binary(max_size=60), nested
    )


def _part(name: str, filename: str | None, content: bytes) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    heading = f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return heading.encode("utf-8", "surrogatepass") + content + b"\r\n"


def form_bodies(*photos: bytes) -> SearchStrategy[bytes]:
    """Bodies of `FORM_TYPE`, most of them with one of these photos."""
    files = st.sampled_from(photos) | st.binary(max_size=40)
    image = st.builds(_part, st.just("image"), st.text(_ANY_CHARACTER, max_size=8), files)
    names = st.sampled_from(("project", "language", "overlay", "image", "")) | st.text(_ANY_CHARACTER, max_size=6)
    contents = st.sampled_from((b"1", b"en", b"true", b"9" * 5_000, b"\xff", b"-1", b"1.0", b"\0")) | st.binary(
        max_size=9
    )
    field = st.builds(_part, names, st.none() | st.text(_ANY_CHARACTER, max_size=4), contents)
    parts = st.lists(st.one_of(image, field), max_size=4)
    ends = st.sampled_from((b"--x--\r\n", b"--x--\r\n", b"--x--\r\n", b"", b"--x", b"--y--"))
    return st.one_of(
        st.builds(lambda first, others, end: b"".join([first, *others, end]), image, parts, ends),
        st.builds(lambda all_parts, end: b"".join([*all_parts, end]), parts, ends),
        st.binary(max_size=60),
    )


_HEADERS = (
    "Accept",
    "Accept-Encoding",
    "Content-Encoding",
    "Content-Length",
    "Cookie",
    "Expect",
    "Host",
    "If-None-Match",
    "Range",
    "Transfer-Encoding",
    "X-Forwarded-For",
    "X-HTTP-Method-Override",
)
_HEADER_VALUES = ("chunked", "gzip", "-1", "0", "9" * 30, "bytes=0-,0-", "application/openmetrics-text", "*/*;q=x", "[")
_CONTENT_TYPES = (
    "application/json; charset=utf-16",
    "application/json; charset=none",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=\xff",
    "text/plain",
    ";;",
    "",
)
_AUTHORIZATIONS = ("Basic", "Basic \xff", "Basic Og==", "Basic /w==", "Bearer", "Bearer \xff", "Digest a", "")
_header_text = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
_queries = st.dictionaries(
    st.sampled_from(("project", "q", "\0")), st.text(max_size=10) | st.sampled_from(("1", "9" * 25, "\0")), max_size=2
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")


@st.composite
def requests(
    draw: DrawFn, path: str, method: str, bodies: SearchStrategy[bytes], content_type: str, keys: tuple[str, ...]
) -> dict[str, Any]:
    """Arguments of werkzeug's test client.

    Args:
        draw: Hypothesis's.
        path: of the route.
        method: that the route expects; one request in a few has another.
        bodies: strategy for the body.
        content_type: that the route expects; one request in a few has another.
        keys: values of Authorization that open the route; one request in a few has another.
    """

    def mostly(*usual: str, odd: SearchStrategy[str]) -> str:
        return draw(odd) if draw(st.integers(0, 5)) == 5 else draw(st.sampled_from(usual))

    others = draw(
        st.dictionaries(st.sampled_from(_HEADERS), _header_text | st.sampled_from(_HEADER_VALUES), max_size=2)
    )
    return {
        "path": path,
        "method": mostly(method, odd=st.sampled_from(_METHODS)),
        "data": draw(bodies),
        "query_string": draw(_queries),
        "headers": {
            **others,
            "Content-Type": mostly(content_type, odd=st.sampled_from(_CONTENT_TYPES) | _header_text),
            "Authorization": mostly(*keys, odd=st.sampled_from(_AUTHORIZATIONS) | _header_text),
        },
    }
