import os
from pathlib import Path

import pytest

from carcond.data.photo_folder import PhotoFolder, photo_files, rewritten_name, shown_name


@pytest.mark.parametrize(
    ("name", "rewritten"),  # as Django's get_valid_filename gave them
    [
        ("red car (1).jpg", "red_car_1.jpg"),
        ("Моя машина №2.jpg", "Моя_машина_2.jpg"),
        (" a  b.png", "a__b.png"),
        ("x+y&z.jpeg", "xyz.jpeg"),
        ("DSC_0001.JPG", "DSC_0001.JPG"),
    ],
)
def test_names_are_rewritten_as_an_upload_does(name: str, rewritten: str) -> None:
    assert rewritten_name(name) == rewritten


def touch(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_an_uploaded_photo_is_found_by_the_name_it_had_before(tmp_path: Path) -> None:
    photo = touch(tmp_path / "day" / "red car (1).jpg")
    assert PhotoFolder(tmp_path).find("data/upload/3/0a1b2c3d-red_car_1.jpg") == photo


def test_a_photo_that_could_be_two_files_is_not_found(tmp_path: Path) -> None:
    touch(tmp_path / "red car (1).jpg")
    touch(tmp_path / "night" / "red car 1.jpg")
    assert PhotoFolder(tmp_path).find("data/upload/3/0a1b2c3d-red_car_1.jpg") is None


def test_only_uploads_are_found_by_a_rewritten_name(tmp_path: Path) -> None:
    touch(tmp_path / "red car.jpg")
    assert PhotoFolder(tmp_path).find("cars/red_car.jpg") is None


def test_names_that_are_no_utf_8_can_be_written_and_stay_apart(tmp_path: Path) -> None:
    for name in ("кот.jpg", "кит.jpg"):
        touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name.encode("cp1251"))))
    shown = {shown_name(file.relative_to(tmp_path)).encode() for file in photo_files(tmp_path)}
    assert shown == {rb"\udcea\udce8\udcf2.jpg", rb"\udcea\udcee\udcf2.jpg"}


def test_other_names_are_shown_as_they_are() -> None:
    assert shown_name(Path("ночь/кот 😀.jpg")) == "ночь/кот 😀.jpg"
