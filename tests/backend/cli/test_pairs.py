"""Options of the form name=value."""

import pytest
import typer

from backend.cli.pairs import parse_pairs


def test_pairs_are_read_without_spaces_and_a_value_may_hold_a_sign() -> None:
    assert parse_pairs([" a = b ", "c=d=e"]) == {"a": "b", "c": "d=e"}


@pytest.mark.parametrize("text", ["", "a", "=b", " =b", "a=", "a= "])
def test_what_is_no_pair_is_refused_with_what_came(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected name=value, got"):
        parse_pairs([text])


def test_a_value_may_be_empty_where_that_is_allowed() -> None:
    assert parse_pairs(["a="], allow_no_value=True) == {"a": ""}
    with pytest.raises(typer.BadParameter):
        parse_pairs(["=b"], allow_no_value=True)
