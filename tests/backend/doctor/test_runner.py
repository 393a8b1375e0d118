import threading
import time
from collections.abc import Iterator

import pytest

from backend.doctor.checks import PROJECT_CHECKS, STACK_CHECKS
from backend.doctor.finding import CannotSayError, Finding, Kind, Level, fine
from backend.doctor.runner import Check, Job, Runner
from carcond.errors import StoreError

WRONG = Kind("wrong", Level.FAULT, "nothing works", "it is {state}", "it matters", "mend {state}")
ODD = Kind("odd", Level.WARNING, "hardly anything", "it is odd", "it may matter", "look")


def check(name: str, *findings: Finding, needs: tuple[str, ...] = (), seconds: float = 10.0) -> Check:
    return Check(name, f"the {name}", lambda _: findings, needs, seconds)


def raising(name: str, error: Exception) -> Check:
    def run(_: object) -> list[Finding]:
        raise error

    return Check(name, f"the {name}", run)


def run(*checks: Check) -> list[tuple[str, Level, str]]:
    found = Runner().run([Job(each, None) for each in checks])
    return [(finding.check, finding.level, finding.what) for finding in found]


def test_findings_come_in_the_order_of_the_checks_whatever_order_they_end_in() -> None:
    def slow(_: object) -> Iterator[Finding]:
        time.sleep(0.05)
        yield fine("late")

    assert run(Check("a", "the a", slow), check("b", fine("early"))) == [
        ("a", Level.FINE, "late"),
        ("b", Level.FINE, "early"),
    ]


def test_a_check_that_finds_nothing_is_fine() -> None:
    assert run(check("a")) == [("a", Level.FINE, "")]


def test_what_builds_on_a_fault_is_not_checked_and_names_the_first_one() -> None:
    assert run(check("a", WRONG.found(state="bad")), check("b", needs=("a",)), check("c", needs=("b",))) == [
        ("a", Level.FAULT, "it is bad"),
        ("b", Level.UNCHECKED, "first mend the a"),
        ("c", Level.UNCHECKED, "first mend the a"),
    ]


def test_a_warning_stops_nobody() -> None:
    assert run(check("a", ODD.found()), check("b", needs=("a",)))[1] == ("b", Level.FINE, "")


def test_a_check_waits_for_what_it_needs_though_it_comes_first() -> None:
    assert run(check("b", needs=("a",)), check("a", WRONG.found(state="bad")))[0][1] == Level.UNCHECKED


def test_an_error_is_told_and_others_go_on() -> None:
    found = run(
        raising("a", StoreError("the store is locked")),
        raising("b", CannotSayError("nothing to look at")),
        raising("c", KeyError("secret")),
        check("d"),
    )
    assert found == [
        ("a", Level.UNCHECKED, "the store is locked"),
        ("b", Level.UNCHECKED, "nothing to look at"),
        ("c", Level.UNCHECKED, "an unexpected KeyError"),
        ("d", Level.FINE, ""),
    ]


def test_what_hangs_is_given_up_and_others_go_on() -> None:
    release = threading.Event()

    def hang(_: object) -> Iterator[Finding]:
        release.wait()
        yield fine("")

    found = run(Check("a", "the a", hang, seconds=0.05), check("b", needs=("a",)), check("c"))
    release.set()
    assert found == [
        ("a", Level.UNCHECKED, "it took longer than 0.05 s"),
        ("b", Level.UNCHECKED, "first mend the a"),
        ("c", Level.FINE, ""),
    ]


def test_projects_are_looked_at_apart() -> None:
    def only_second(project: int) -> Iterator[Finding]:
        if project == 2:
            yield WRONG.found(state="bad")

    checks = (Check("a", "the a", only_second), check("b", needs=("a", "stack")))
    runner = Runner()
    runner.run([Job(check("stack"), None)])
    found = runner.run([Job(each, project, project) for project in (1, 2) for each in checks])
    assert [(f.project, f.check, f.level) for f in found] == [
        (1, "a", Level.FINE),
        (1, "b", Level.FINE),
        (2, "a", Level.FAULT),
        (2, "b", Level.UNCHECKED),
    ]
    assert runner.passed("a", 1)
    assert not runner.passed("a", 2)


def test_what_other_programs_say_cannot_command_a_terminal() -> None:
    assert "\x1b" not in WRONG.found(state="\x1b[2J").what


@pytest.mark.parametrize("checks", [STACK_CHECKS, (*STACK_CHECKS, *PROJECT_CHECKS)])
def test_all_that_a_check_needs_is_there_and_comes_before_it(checks: tuple[Check, ...]) -> None:
    known: set[str] = set()
    for each in checks:
        assert set(each.needs) <= known
        assert each.name not in known
        known.add(each.name)
