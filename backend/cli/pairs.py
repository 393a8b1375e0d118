"""Options of the form name=value, that may be repeated."""

from collections.abc import Iterable

import typer


def parse_pairs(texts: Iterable[str], *, allow_no_value: bool = False) -> dict[str, str]:
    """The pairs of texts "name=value", without the spaces around both.

    Args:
        texts: as they were given.
        allow_no_value: whether "name=" is a pair, too.

    Raises:
        typer.BadParameter: a text is no pair.
    """
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not (value.strip() or allow_no_value):
            raise typer.BadParameter(f"expected name=value, got {text!r}")
        pairs[name.strip()] = value.strip()
    return pairs
