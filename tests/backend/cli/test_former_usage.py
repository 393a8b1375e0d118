import pytest
from typer.testing import CliRunner

from backend.cli.former_usage import current_arguments
from backend.cli.main import app


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("status 1 --json", "status --project 1 --json"),
        ("connect 5 --undo", "connect --project 5 --undo"),
        ("quality 1", "quality --project 1"),
        ("review 1 --top 20", "review --project 1 --top 20"),
        ("versions list 1 --all", "versions list --project 1 --all"),
        ("versions show 1 7", "versions show --project 1 7"),
        ("versions pin 1 --why x", "versions pin --project 1 --why x"),
        ("train export.json --photos p", "finetune export.json --photos p"),
    ],
)
def test_the_last_releases_way_is_read_as_the_new_one_with_a_line(
    former: str, current: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert current_arguments(former.split()) == current.split()
    written = capsys.readouterr()
    assert written.out == ""
    assert "goes with the next release" in written.err
    assert written.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--help",
        "status --project 1",
        "status --project=1 --json",
        "versions",
        "versions show 7 --project 1",
        "versions --help",
        "versions nothing 1",
        "quality --photos photos",
        "explain car.jpg",
        "finetune export.json --photos 1",
    ],
)
def test_the_new_way_is_left_alone(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert current_arguments(arguments.split()) == arguments.split()
    assert capsys.readouterr().err == ""


def test_a_command_that_there_is_not_is_refused() -> None:
    result = CliRunner().invoke(app, ["statis", "--project", "1"])
    assert result.exit_code == 2
    assert "No such command 'statis'" in result.output
