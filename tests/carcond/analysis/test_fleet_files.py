from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from carcond.analysis.fleet_files import read_fleet, visits
from carcond.errors import LabelTableError

DATE_TIME_ORIGINAL = 0x9003


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def photograph(path: Path, taken: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[DATE_TIME_ORIGINAL] = taken
    Image.new("RGB", (40, 30)).save(path, "JPEG", exif=exif)


def test_a_table_tells_file_car_and_day(tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "fleet.csv", "file,car,date", "a/1.jpg,red,2026-05-31", "b.jpg, blue ,2026-05-31T23:59:00"
    )
    first, second = read_fleet(table, "car")
    assert (first.name, first.path) == ("a/1.jpg", tmp_path / "a" / "1.jpg")
    assert (first.subject, first.car, first.day) == ("red", "red", date(2026, 5, 31))
    assert (second.subject, second.day) == ("blue", date(2026, 5, 31))


def test_photos_are_summed_up_by_driver_and_judged_by_car(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "fleet.csv", "file,car,driver,date", "1.jpg,red,anna,", "2.jpg,,boris,2026-05-31")
    first, second = read_fleet(table, "driver")
    assert (first.subject, first.car, first.day) == ("anna", "red", None)
    assert (second.subject, second.car) == ("boris", "boris")


@pytest.mark.parametrize(
    ("lines", "by", "words"),
    [
        (["file,driver", "1.jpg,anna"], "car", "car"),
        (["photo,car", "1.jpg,red"], "car", "file"),
        (["file,car"], "car", "at least one row"),
        (["file,car", "1.jpg,"], "car", "line 2"),
        (["file,car,date", "1.jpg,red,", "2.jpg,red,31.05.2026"], "car", "line 3.*31.05.2026"),
    ],
)
def test_a_malformed_table_is_refused_with_the_place(tmp_path: Path, lines: list[str], by: str, words: str) -> None:
    with pytest.raises(LabelTableError, match=words):
        read_fleet(write_csv(tmp_path / "fleet.csv", *lines), by)


def test_a_folder_is_a_car_and_the_camera_tells_the_day(tmp_path: Path) -> None:
    photograph(tmp_path / "red" / "1.jpg", "2026:05:31 10:00:00")
    photograph(tmp_path / "red" / "left" / "2.jpg")
    photograph(tmp_path / "blue" / "1.jpg", "no date")
    (tmp_path / "blue" / "broken.jpg").write_bytes(b"no photo")
    found = {file.name: (file.subject, file.day) for file in read_fleet(tmp_path, "car")}
    assert found == {
        "red/1.jpg": ("red", date(2026, 5, 31)),
        "red/left/2.jpg": ("red", None),
        "blue/1.jpg": ("blue", None),
        "blue/broken.jpg": ("blue", None),
    }


def test_a_photo_beside_the_folders_belongs_to_no_car(tmp_path: Path) -> None:
    photograph(tmp_path / "red" / "1.jpg")
    photograph(tmp_path / "lost.jpg")
    with pytest.raises(LabelTableError, match=r"lost\.jpg in none of them"):
        read_fleet(tmp_path, "car")


def test_photos_of_one_car_and_day_are_one_visit_and_visits_go_by_day(tmp_path: Path) -> None:
    lines = [
        "4.jpg,red,2026-06-01",
        "1.jpg,red,2026-05-31",
        "2.jpg,red,2026-05-31",
        "3.jpg,blue,2026-05-31",
        "0.jpg,red,",
    ]
    files = read_fleet(write_csv(tmp_path / "fleet.csv", "file,car,date", *lines), "car")
    found = [[files[position].name for position in together] for together in visits(files)]
    assert found == [["0.jpg"], ["3.jpg"], ["1.jpg", "2.jpg"], ["4.jpg"]]
