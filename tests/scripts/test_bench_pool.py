import json

from typer.testing import CliRunner

from scripts.bench import app


def test_turns_of_two_sizes_are_measured_and_compared() -> None:
    options = ["--photos", "60,120", "--dimension", "8", "--labels", "30", "--turns", "1", "--json"]
    result = CliRunner().invoke(app, ["pool", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [row["photos"] for row in report["rows"]] == [60, 120]
    assert all(row["requests"] > 0 and row["peak_mb"] > 0 for row in report["rows"])
    assert [(each["from"], each["to"]) for each in report["exponents"]] == [(60, 120)]
