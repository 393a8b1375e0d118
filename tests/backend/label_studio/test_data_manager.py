import pytest

from backend.label_studio.data_manager import (
    NEXT_TO_LABEL,
    put_first_tab,
    put_tab,
    read_tabs,
    remove_tab,
    unchanged_tasks,
)
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
    tab = put_tab(studio, PROJECT, unchanged_tasks("again", [3, 4], changed))
    these, unchanged = studio.tabs[tab]["filters"]["items"]
    assert these["value"] == "3 4"
    assert unchanged["value"] == until


def test_the_first_tab_of_a_project_comes_with_the_one_that_shows_all(studio: FakeLabelStudio) -> None:
    put_tab(studio, PROJECT, unchanged_tasks("again", [3], "2026-01-02T03:04:05Z"))
    put_tab(studio, PROJECT, unchanged_tasks("other", [3], "2026-01-02T03:04:05Z"))
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


def test_next_to_label_is_made_once_before_all_other_tabs(studio: FakeLabelStudio) -> None:
    studio.request("POST", "/api/dm/views/", json={"project": PROJECT, "data": {"title": "mine"}})
    assert put_first_tab(studio, PROJECT, NEXT_TO_LABEL)
    written = list(studio.writes)
    assert not put_first_tab(studio, PROJECT, NEXT_TO_LABEL)
    assert studio.writes == written
    assert [tab.title for tab in read_tabs(studio, PROJECT)] == [NEXT_TO_LABEL.title, "mine"]


def test_a_project_without_tabs_gets_the_one_that_shows_all_behind_next_to_label(studio: FakeLabelStudio) -> None:
    put_first_tab(studio, PROJECT, NEXT_TO_LABEL)
    assert [tab.title for tab in read_tabs(studio, PROJECT)] == [NEXT_TO_LABEL.title, "Default"]


def test_a_first_tab_that_a_person_moved_and_arranged_stays_there_and_gets_its_order_back(
    studio: FakeLabelStudio,
) -> None:
    put_first_tab(studio, PROJECT, NEXT_TO_LABEL)
    first, second = read_tabs(studio, PROJECT)
    studio.request("POST", "/api/dm/views/order/", json={"project": PROJECT, "ids": [second.id, first.id]})
    studio.tabs[first.id] |= {"ordering": ["tasks:id"], "columnsWidth": {"tasks:id": 50}}
    assert not put_first_tab(studio, PROJECT, NEXT_TO_LABEL)
    assert [tab.title for tab in read_tabs(studio, PROJECT)] == ["Default", NEXT_TO_LABEL.title]
    assert studio.tabs[first.id]["ordering"] == ["tasks:predictions_score"]
    assert studio.tabs[first.id]["columnsWidth"] == {"tasks:id": 50}


def test_a_tab_shows_the_photo_and_the_columns_of_its_content(studio: FakeLabelStudio) -> None:
    hidden = studio.tabs[put_tab(studio, PROJECT, NEXT_TO_LABEL)]["hiddenColumns"]["explore"]
    assert "tasks:predictions_score" not in hidden
    assert {"tasks:id", "tasks:predictions_results"} <= set(hidden)
