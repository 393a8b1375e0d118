import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from carcond.analysis.fleet import fleet_facts
from carcond.analysis.fleet_files import FleetFile
from carcond.model.inference import PhotoCondition
from carcond.reports.fleet_plot import save_fleet_plot
from tests.carcond.conditions import FINE, photo_condition

CLEAN, DIRTY, DUSTY = (0.9, 0.05, 0.05), (0.05, 0.05, 0.9), (0.1, 0.8, 0.1)
INTACT, DAMAGED, UNSURE = (0.95, 0.05), (0.05, 0.95), (0.4, 0.6)


class Fleet:
    """Photos of cars and what they show."""

    def __init__(self) -> None:
        self.files: list[FleetFile] = []
        self.seen: list[PhotoCondition | str] = []

    def add(self, car: str, day: str, seen: PhotoCondition | str, driver: str = "") -> None:
        name = f"{len(self.files)}.jpg"
        when = date.fromisoformat(day) if day else None
        self.files.append(FleetFile(name, Path(name), driver or car, car, when))
        self.seen.append(seen)

    def facts(self) -> dict[str, Any]:
        facts = fleet_facts(self.files, self.seen, "car")
        assert json.loads(json.dumps(facts)) == facts
        return facts

    def row(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.facts()["rows"] if row["name"] == name]
        return dict(row)


@pytest.fixture
def fleet() -> Fleet:
    """A car that got dirty and then damaged, one that was washed, and one of which a photo is dark."""
    made = Fleet()
    made.add("red", "2026-04-01", photo_condition(CLEAN, INTACT))
    made.add("red", "2026-05-02", photo_condition(DIRTY, INTACT))
    made.add("red", "2026-05-20", photo_condition(DIRTY, INTACT))
    made.add("red", "2026-05-20", photo_condition(DIRTY, DAMAGED))
    made.add("blue", "2026-04-03", photo_condition(DUSTY, INTACT))
    made.add("blue", "2026-05-04", photo_condition(CLEAN, INTACT))
    made.add("green", "2026-05-04", photo_condition(stats=replace(FINE, brightness=0.01)))
    return made


def test_a_fleet_is_counted(fleet: Fleet) -> None:
    facts = fleet.facts()
    assert (facts["photos"], facts["visits"], facts["subjects"], facts["by"]) == (7, 6, 3, "car")


def test_a_fleet_is_as_its_cars_were_at_their_latest_visits(fleet: Fleet) -> None:
    facts = fleet.facts()
    assert facts["dirty"] == facts["damaged"] == {"share": 0.5, "count": 1, "known": 2}


def test_a_car_has_its_latest_condition_and_the_shares_of_its_visits(fleet: Fleet) -> None:
    row = fleet.row("red")
    assert (row["visits"], row["photos"], row["last"]) == (3, 4, "2026-05-20")
    assert (row["cleanliness"], row["damage"]) == ("very_dirty", "damaged")
    assert row["damage_confidence"] == pytest.approx(0.95)
    assert row["dirty"] == {"share": 0.6667, "count": 2, "known": 3}
    assert row["damaged"] == {"share": 0.3333, "count": 1, "known": 3}


def test_the_trend_is_what_changed_since_the_visit_before(fleet: Fleet) -> None:
    assert fleet.row("red")["trend"] == "new damage"
    assert fleet.row("blue")["trend"] == "cleaner"
    assert fleet.row("green")["trend"] == ""
    fleet.add("blue", "2026-06-01", photo_condition(CLEAN, INTACT))
    assert fleet.row("blue")["trend"] == "same"
    fleet.add("blue", "2026-07-01", photo_condition(DIRTY, DAMAGED))
    assert fleet.row("blue")["trend"] == "new damage, dirtier"
    fleet.add("blue", "2026-08-01", photo_condition(DIRTY, INTACT))
    assert fleet.row("blue")["trend"] == "repaired"


def test_what_is_not_sure_is_no_trend(fleet: Fleet) -> None:
    fleet.add("blue", "2026-06-01", photo_condition(CLEAN, UNSURE))
    assert fleet.row("blue")["trend"] == "same"
    fleet.add("blue", "2026-07-01", photo_condition(CLEAN, DAMAGED))
    assert fleet.row("blue")["trend"] == "new damage"


def test_a_latest_visit_of_which_nothing_is_known_is_no_trend(fleet: Fleet) -> None:
    fleet.add("blue", "2026-06-01", photo_condition(stats=replace(FINE, width=100)))
    assert fleet.row("blue")["trend"] == ""


def test_another_car_of_a_driver_is_no_trend() -> None:
    fleet = Fleet()
    fleet.add("red", "2026-05-01", photo_condition(CLEAN, INTACT), driver="anna")
    fleet.add("blue", "2026-05-02", photo_condition(DIRTY, DAMAGED), driver="anna")
    assert fleet.row("anna")["visits"] == 2
    assert fleet.row("anna")["trend"] == ""


def test_months_show_the_trend_of_the_fleet(fleet: Fleet) -> None:
    months = {each["month"]: (each["dirty"]["share"], each["damaged"]["share"]) for each in fleet.facts()["months"]}
    assert months == {"2026-04": (0.5, 0.0), "2026-05": (0.6667, 0.3333)}


def test_who_was_dirty_is_reminded_and_who_was_damaged_is_warned(fleet: Fleet) -> None:
    facts = fleet.facts()
    assert facts["reminders"] == [{"name": "red", "day": "2026-05-20", "text": "please wash before the next ride"}]
    (warning,) = facts["warnings"]
    assert (warning["name"], warning["day"]) == ("red", "2026-05-20")
    assert "new since the visit before" in warning["text"]
    fleet.add("red", "2026-06-01", photo_condition(DUSTY, DAMAGED))
    assert [each["text"] for each in fleet.facts()["reminders"]] == ["a wash would be good soon"]
    assert [each["text"] for each in fleet.facts()["warnings"]] == ["damaged: have it checked before the next ride"]


def test_who_was_washed_is_reminded_no_more(fleet: Fleet) -> None:
    fleet.add("red", "2026-06-01", photo_condition(CLEAN, INTACT))
    assert fleet.facts()["reminders"] == fleet.facts()["warnings"] == []


def test_what_is_not_sure_warns_nobody_and_is_for_a_human(fleet: Fleet) -> None:
    fleet.add("blue", "2026-06-01", photo_condition(CLEAN, UNSURE))
    facts = fleet.facts()
    assert [each["name"] for each in facts["warnings"]] == ["red"]
    dark, unsure = facts["for_a_human"]
    assert (dark["name"], dark["files"], dark["reasons"]) == ("green", ["6.jpg"], ["too dark"])
    assert (unsure["name"], unsure["day"], unsure["reasons"]) == ("blue", "2026-06-01", ["damage damaged, 60% sure"])


def test_a_photo_that_cannot_be_read_is_for_a_human_and_the_others_count(fleet: Fleet) -> None:
    fleet.add("blue", "2026-05-04", "no photo at all")
    facts = fleet.facts()
    assert fleet.row("blue")["cleanliness"] == "clean"
    assert ["7.jpg: no photo at all"] in [each["reasons"] for each in facts["for_a_human"]]


def test_a_fleet_without_any_readable_photo_knows_nothing() -> None:
    fleet = Fleet()
    fleet.add("red", "", "broken")
    facts = fleet.facts()
    assert facts["dirty"] == {"share": None, "count": 0, "known": 0}
    assert facts["months"] == []
    assert (fleet.row("red")["cleanliness"], fleet.row("red")["last"]) == ("unknown", "")


def test_the_plot_is_a_picture_with_both_colours(fleet: Fleet, tmp_path: Path) -> None:
    save_fleet_plot(fleet.facts(), tmp_path / "plots" / "fleet.png")
    with Image.open(tmp_path / "plots" / "fleet.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()
    for colour in ([0x8C, 0x5A, 0x1E], [0xB3, 0x20, 0x2C]):
        assert colour in pixels


def test_a_plot_without_dates_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    fleet.add("red", "", photo_condition())
    words: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.text", lambda axes, x, y, text, **place: words.append(text))
    save_fleet_plot(fleet.facts(), tmp_path / "fleet.png")
    assert words == ["no photo has a date"]
