from typing import Any

import pytest

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.people import invite_link, name_of, names


class _Organization(LabelStudioApi):
    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)

    def request(self, method: str, path: str, json: Any = None, params: dict[str, Any] | None = None) -> Any:
        assert (method, path) == ("GET", "/api/users/")
        return self.rows


def _row(user: int, first: str = "", last: str = "", email: str = "") -> dict[str, Any]:
    return {"id": user, "first_name": first, "last_name": last, "email": email}


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (_row(3, "Anna", "Kim", "anna@example.com"), "Anna Kim"),
        (_row(3, "Anna", "", "anna@example.com"), "Anna"),
        (_row(3, "", " Kim ", "anna@example.com"), "Kim"),
        (_row(3, email="anna@example.com"), "anna@example.com"),
        (_row(3), "user 3"),
        ({"id": 3, "first_name": None, "email": None}, "user 3"),
    ],
)
def test_a_person_is_called_by_name_or_else_by_e_mail_address(row: dict[str, Any], name: str) -> None:
    assert names(_Organization(row)) == {3: name}


def test_two_people_of_one_name_are_told_apart_by_their_ids() -> None:
    rows = [_row(3, "Deleted", "User", "Deleted"), _row(4, "Deleted", "User", "Deleted"), _row(5, "Anna")]
    assert names(_Organization(*rows)) == {3: "Deleted User (3)", 4: "Deleted User (4)", 5: "Anna"}


def test_somebody_unknown_is_called_by_number() -> None:
    assert name_of({3: "Anna"}, 3) == "Anna"
    assert name_of({3: "Anna"}, 7) == "user 7"


def test_the_invite_link_has_the_address_that_the_other_persons_browser_knows() -> None:
    class _Inviting(_Organization):
        def request(self, method: str, path: str, json: Any = None, params: dict[str, Any] | None = None) -> Any:
            assert (method, path) == ("GET", "/api/invite")
            return {"token": "abc", "invite_url": "/user/signup/?token=abc"}

    for base in ("http://192.168.1.20:8080", "http://192.168.1.20:8080/"):
        assert invite_link(_Inviting(), base) == "http://192.168.1.20:8080/user/signup/?token=abc"
