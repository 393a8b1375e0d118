import pytest
from typer.testing import CliRunner

from backend.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "expected an export or --project"),
        ("export.json --project 1", "expected an export or --project"),
        ("--project 1 --epochs 3", "training options belong to an export"),
        ("--project 1 --photos photos", "training options belong to an export"),
        ("export.json --photos photos --status", "belong to --project"),
        ("export.json", "expected the folder of the photos"),
        ("--project 1 --cancel --status", "expected --cancel or --status, got both"),
        ("export.json --photos photos --loss-weight damage", "expected name=value, got 'damage'"),
    ],
)
def test_a_command_line_of_two_minds_is_refused(arguments: str, words: str) -> None:
    result = CliRunner().invoke(app, ["finetune", *arguments.split()])
    assert result.exit_code == 2
    assert words in " ".join(result.output.replace("│", " ").split())
