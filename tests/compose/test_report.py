import pytest

from tests.compose.engine import CheckError
from tests.compose.report import BarMissedError, Report, expect, expect_bar


def test_a_check_that_holds_says_what_was_found() -> None:
    report = Report()
    with report.check("size") as found:
        found.append("12 MB")
    with report.check("lint"):
        pass
    assert [(what, found) for what, found, _ in report.rows] == [("size", "12 MB"), ("lint", "good")]
    assert not report.failed


def test_a_broken_stack_ends_the_run() -> None:
    report = Report()
    with pytest.raises(CheckError, match="lost"), report.check("labels"):
        expect(False, "two labels are lost")
    assert report.failed
    assert report.rows[0][:2] == ("labels", "FAILED: two labels are lost")


def test_an_error_that_nobody_thought_of_is_in_the_table_too() -> None:
    report = Report()
    with pytest.raises(TimeoutError), report.check("labels"):
        raise TimeoutError
    assert report.rows[0][:2] == ("labels", "FAILED: TimeoutError")
    assert report.failed


def test_a_missed_bar_is_a_failure_but_the_checks_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    with report.check("up") as found:
        found.append("load average 12")
        expect_bar(False, "longer than 120 s")
    assert report.failed
    assert report.rows[0][:2] == ("up", "FAILED: longer than 120 s, load average 12")
    assert "longer than 120 s" in capsys.readouterr().err
    assert issubclass(BarMissedError, CheckError)


def test_the_table_has_a_row_for_each_check() -> None:
    report = Report(rows=[("lint", "good", 0.26), ("up", "FAILED: longer than 120 s", 130.0)])
    assert report.table().splitlines()[2:] == ["| lint | good | 0.3 |", "| up | FAILED: longer than 120 s | 130.0 |"]
