import pytest
from typer.testing import CliRunner

from backend.cli.main import app


@pytest.mark.parametrize("command", [["connect", "--project", "5"], ["doctor"]])
@pytest.mark.parametrize("url", ["backend.example.com:9090", "http://", "http://somebody:s3cret@backend.example.com"])
def test_an_address_of_the_backend_is_one_and_holds_no_password(command: list[str], url: str) -> None:
    """It is printed, and connecting keeps it on record."""
    result = CliRunner().invoke(app, [*command, "--backend", url])
    assert result.exit_code == 2
    assert "CARCOND_BASIC_AUTH_PASSWORD" in result.output
    assert "s3cret" not in result.output
