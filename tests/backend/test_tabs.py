import pytest

from backend.tabs import put_tab, read_tabs, remove_tab
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio


@pytest.mark.parametrize(
    ("changed", "until"),
    [
        ("2026-01-02T03:04:05.999999Z", "2026-01-02T03:04:06.000000Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06.000000Z"),
        ("2026-01-02T03:04:59.5+00:00", "2026-01-02T03:05:00.000000Z"),
        ("2026-01-02T03:04:05.5+02:00", "2026-01-02T01:04:06.000000Z"),
    ],
)
def test_the_tab_shows_tasks_unchanged_since_the_full_second_after(
    studio: FakeLabelStudio, changed: str, until: str
) -> None:
    tab = put_tab(studio, PROJECT, "again", [3, 4], changed)
    these, unchanged = studio.tabs[tab]["filters"]["items"]
    assert these["value"] == "3 4"
    assert unchanged["value"] == until


def test_the_first_tab_of_a_project_comes_with_the_one_that_shows_all(studio: FakeLabelStudio) -> None:
    put_tab(studio, PROJECT, "again", [3], "2026-01-02T03:04:05Z")
    put_tab(studio, PROJECT, "other", [3], "2026-01-02T03:04:05Z")
    assert [tab.title for tab in read_tabs(studio, PROJECT)] == ["Default", "again", "other"]


def test_all_tabs_of_a_title_are_removed_and_no_other(studio: FakeLabelStudio) -> None:
    for title in ("again", "mine", "again"):
        studio.request("POST", "/api/dm/views/", json={"project": PROJECT, "data": {"title": title}})
    assert remove_tab(studio, PROJECT, "again")
    assert [tab.title for tab in read_tabs(studio, PROJECT)] == ["mine"]
    assert not remove_tab(studio, PROJECT, "again")


def test_a_tab_without_a_title_is_read_as_one(studio: FakeLabelStudio) -> None:
    studio.tabs[7] = {}
    assert [(tab.id, tab.title) for tab in read_tabs(studio, PROJECT)] == [(7, "")]
