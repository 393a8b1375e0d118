"""What a person is told when all is up."""

from pathlib import Path

import pytest

from backend.label_studio.way_in import LABEL_ALL
from scripts import up
from scripts.reach import EVERYWHERE
from scripts.stack import Stack, StackOptions

INVITATION = "http://desk.example.com:8080/user/signup/?token=abc"


def _told(options: StackOptions, capsys: pytest.CaptureFixture[str], are_drawn: bool = False) -> str:
    stack = Stack(options)
    stack.stop()
    up._welcome(stack, up._Place(3, are_drawn))
    return capsys.readouterr().out


def test_the_address_is_the_projects_list_with_what_to_click(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _told(StackOptions(tmp_path), capsys)
    assert "http://127.0.0.1:8080/projects/3/data\n" in told
    assert LABEL_ALL in told
    assert "WARNING" not in told
    assert "add_photos" not in told


def test_who_sees_drawings_is_told_how_to_add_photos_to_that_very_stack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "my data"
    assert f"scripts/add_photos DIR --data '{data}'" in _told(StackOptions(data), capsys, are_drawn=True)


@pytest.mark.parametrize(
    ("address", "where"), [("192.0.2.7", "desk.example.com"), (EVERYWHERE, "all addresses of this machine")]
)
def test_what_host_opens_is_said_with_the_invitation(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    where: str,
) -> None:
    monkeypatch.setattr("scripts.stack.listening_address", lambda host: address)
    monkeypatch.setattr(up, "invite_link", lambda api, base: f"{base}/user/signup/?token=abc")
    told = _told(StackOptions(tmp_path, host="desk.example.com"), capsys)
    assert "http://desk.example.com:8080/projects/3/data\n" in told
    assert INVITATION in told
    assert f"Label Studio answers on {where}, port 8080, without TLS" in told
