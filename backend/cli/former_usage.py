"""The command line of the last release, which still works and names the new one."""

from collections.abc import Sequence

import typer

# Commands that took the project as their first argument.
_WITH_PROJECT = ("connect", "status", "quality", "review")
_VERSIONS = ("list", "show", "promote", "rollback", "pin", "unpin")


def current_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as this release reads them, with a line on standard error where they were the last one's."""
    given = list(arguments)
    current = given.copy()
    if given[:1] == ["train"]:
        current[0] = "finetune"
    place = 1 if given[:1] and given[0] in _WITH_PROJECT else 2 if given[:1] == ["versions"] else 0
    named = place == 2 and given[1:2] and given[1] not in _VERSIONS
    if place and not named and not any(each.partition("=")[0] == "--project" for each in given):
        number = given[place : place + 1]
        if number and number[0].isascii() and number[0].isdigit():
            current.insert(place, "--project")
    if current != given:
        former, now = " ".join(given[:2]), " ".join(current[: place + 2])
        typer.echo(f"carcond {former}: write carcond {now}; the former way goes with the next release", err=True)
    return current
