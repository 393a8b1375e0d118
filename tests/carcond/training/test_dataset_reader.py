"""Labelled sets in all forms, with everything in them that can be wrong."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.converter import Converter
from PIL import Image

from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import LabelTableError
from carcond.training.data_report import TrainingReport
from carcond.training.dataset import VALIDATION, TrainingSet
from carcond.training.dataset_reader import ReadOptions, read_training_set

CONFIG = """
<View>
  <Image name="photo" value="$image"/>
  <Choices name="dirt" toName="photo">
    <Choice value="Чистый"/><Choice value="Пыльный"/><Choice value="Грязный"/><Choice value="Ржавый"/>
  </Choices>
  <RectangleLabels name="box" toName="photo"><Label value="Битый"/><Label value="Номер"/></RectangleLabels>
</View>
"""
GUESS_NOTHING = ReadOptions({}, 0.2, 0, 10_000_000)
INTACT_UNLESS_MARKED = ReadOptions({"damage": "intact"}, 0.2, 0, 10_000_000)


def draw(file: Path, seed: int) -> None:
    """A picture whose perceptual hash is far from that of every other seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BILINEAR).save(file)


def choice(*words: str) -> dict[str, Any]:
    return {"from_name": "dirt", "to_name": "photo", "type": "choices", "value": {"choices": list(words)}}


def box(word: str) -> dict[str, Any]:
    value = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": [word]}
    size = {"original_width": 64, "original_height": 64, "image_rotation": 0}
    return {"from_name": "box", "to_name": "photo", "type": "rectanglelabels", "value": value, **size}


def annotation(*result: dict[str, Any], by: int = 1, **more: Any) -> dict[str, Any]:
    times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "lead_time": 1.0}
    return {"id": by, "completed_by": by, "result": list(result), "was_cancelled": False, **times, **more}


def task(number: int, image: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": image, **data}, "annotations": list(annotations)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(10):
        draw(tmp_path / "photos" / f"car {number}.png", number)
    return tmp_path / "photos"


def write(photos: Path, tasks: Sequence[dict[str, Any]]) -> Path:
    path = photos.parent / "export.json"
    path.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    return path


def read(path: Path, photos: Path, options: ReadOptions = GUESS_NOTHING) -> tuple[TrainingSet, TrainingReport]:
    return read_training_set(path, photos, options, lambda done, total: None)


def labels(training: TrainingSet) -> dict[str, dict[str, str]]:
    return {photo.file.name: dict(photo.label.classes) for photo in training.photos}


ADDRESSES = [
    "/data/upload/1/0a1b2c3d-car_0.png",
    "http://127.0.0.1:8080/data/local-files/?d=photos/car%201.png",
    "s3://bucket/day/car 2.png",
]


def test_photos_are_found_wherever_label_studio_has_them(photos: Path) -> None:
    words = ("Чистый", "Пыльный", "Грязный")
    tasks = [task(i, address, annotation(choice(words[i]))) for i, address in enumerate(ADDRESSES)]
    training, report = read(write(photos, tasks), photos)
    assert labels(training) == {
        "car 0.png": {"cleanliness": "clean"},
        "car 1.png": {"cleanliness": "slightly_dirty"},
        "car 2.png": {"cleanliness": "very_dirty"},
    }
    assert report.as_json()["used"] == 3


@pytest.mark.parametrize("form", ["JSON_MIN", "CSV"])
def test_flat_forms_say_what_the_full_one_does(photos: Path, form: str) -> None:
    tasks = [
        task(0, ADDRESSES[0], annotation(choice("Пыльный"), box("Битый"), box("Битый"))),
        task(1, ADDRESSES[1], annotation(choice("Чистый")), annotation(choice("Чистый"), by=2)),
        task(2, ADDRESSES[2], annotation(choice("Ржавый"), box("Номер"))),
        task(3, "s3://bucket/none.png", annotation(choice("Грязный"))),
    ]
    whole = write(photos, tasks)
    converter: Any = Converter
    made = converter(CONFIG, str(photos))
    if form == "CSV":
        made.convert_to_csv(str(whole), str(photos.parent / "flat"), is_dir=False, sep=",", header=True)
    else:
        made.convert_to_json_min(str(whole), str(photos.parent / "flat"), is_dir=False)
    (flat,) = (photos.parent / "flat").iterdir()
    training, report = read(flat, photos)
    expected, expected_report = read(whole, photos)
    assert labels(training) == labels(expected)
    assert report.as_json() == expected_report.as_json()
    assert {each["label"]: each["count"] for each in report.as_json()["unmapped_labels"]} == {"Ржавый": 1, "Номер": 1}
    assert report.missing_photos == ["none.png"]


def test_a_table_says_the_same_and_its_rows_need_no_guess(photos: Path) -> None:
    path = photos.parent / "labels.csv"
    rows = [
        {"file": "car 0.png", "damage": "битый", "cleanliness": ""},
        {"file": "car 1.png", "damage": "", "cleanliness": "rusty"},
        {"file": "car 2.png", "damage": "clean", "cleanliness": "clean"},
        {"file": "car 3.png", "damage": "intact", "cleanliness": ""},
        {"file": "car 3.png", "damage": "damaged", "cleanliness": ""},
        {"file": "none.png", "damage": "damaged", "cleanliness": ""},
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    training, report = read(path, photos)
    assert labels(training) == {"car 0.png": {"damage": "damaged"}, "car 2.png": {"cleanliness": "clean"}}
    told = report.as_json()
    assert [each["label"] for each in told["unmapped_labels"]] == ["clean", "rusty"]
    assert [(each["photo"], each["classes"]) for each in told["conflicts"]] == [("car 3.png", ["damaged", "intact"])]
    assert told["missing_photos"] == ["none.png"]
    assert told["skipped"] == [{"photo": "car 1.png", "reason": "its labels mean no class"}]


def test_each_photo_that_is_not_used_is_in_one_list(photos: Path) -> None:
    (photos / "car 5.png").write_bytes(b"no photo")
    tasks = [
        task(0, "car 0.png", annotation(choice("Чистый"))),
        task(1, "car 1.png", annotation(choice("Чистый")), annotation(choice("Грязный"), by=2)),
        task(2, "car 2.png", annotation(choice("Чистый", "Грязный"))),
        task(3, "car 3.png", annotation(choice("Чистый"), was_cancelled=True)),
        task(4, "car 4.png", annotation()),
        task(5, "car 5.png", annotation(choice("Чистый"))),
        task(6, "car 6.png"),
        task(7, "car 7.png", annotation(choice("Ржавый"))),
        task(8, "gone.png", annotation(choice("Чистый"))),
    ]
    _, report = read(write(photos, tasks), photos)
    told = report.as_json()
    assert told["used"] == 1
    assert [each["photo"] for each in told["conflicts"]] == ["car 1.png", "car 2.png"]
    assert {each["photo"]: each["reason"] for each in told["skipped"]} == {
        "car 3.png": "skipped by its annotator",
        "car 4.png": "annotated without an answer",
        "car 6.png": "not annotated",
        "car 7.png": "its labels mean no class",
    }
    assert [each["photo"] for each in told["unreadable_photos"]] == ["car 5.png"]
    assert told["missing_photos"] == ["gone.png"]


def test_no_damage_box_means_intact_only_when_that_is_asked_for(photos: Path) -> None:
    path = write(photos, [task(0, "car 0.png", annotation(choice("Чистый"))), task(1, "car 1.png", annotation())])
    assert labels(read(path, photos)[0]) == {"car 0.png": {"cleanliness": "clean"}}
    assert labels(read(path, photos, INTACT_UNLESS_MARKED)[0]) == {
        "car 0.png": {"cleanliness": "clean", "damage": "intact"},
        "car 1.png": {"damage": "intact"},
    }


@pytest.mark.parametrize(
    "said",
    [
        annotation(choice("Чистый"), box("Вмятина")),
        annotation(choice("Чистый"), was_cancelled=True),
        annotation(choice("Чистый"), box("Битый")),
    ],
)
def test_a_photo_with_a_mark_that_means_no_class_or_that_was_skipped_is_not_intact(
    photos: Path, said: dict[str, Any]
) -> None:
    training, _ = read(write(photos, [task(0, "car 0.png", said)]), photos, INTACT_UNLESS_MARKED)
    assert all(photo.label.classes.get("damage") != "intact" for photo in training.photos)


def test_the_majority_of_annotators_decides(photos: Path) -> None:
    said = [annotation(choice(word), by=i) for i, word in enumerate(("Чистый", "Грязный", "Грязный"))]
    training, report = read(write(photos, [task(0, "car 0.png", *said)]), photos)
    assert labels(training) == {"car 0.png": {"cleanliness": "very_dirty"}}
    assert report.conflicts == []


def test_what_several_tasks_say_of_one_file_is_said_of_one_photo(photos: Path) -> None:
    path = write(
        photos,
        [
            task(0, "car 0.png", annotation(choice("Чистый"), by=1)),
            task(1, "s3://bucket/car 0.png", annotation(box("Битый"), by=2)),
        ],
    )
    training, _ = read(path, photos)
    assert labels(training) == {"car 0.png": {"cleanliness": "clean", "damage": "damaged"}}


def test_copies_of_a_photo_that_are_labelled_otherwise_are_a_conflict(photos: Path) -> None:
    (photos / "copy.png").write_bytes((photos / "car 0.png").read_bytes())
    path = write(
        photos,
        [
            task(0, "car 0.png", annotation(choice("Чистый"), box("Битый"))),
            task(1, "copy.png", annotation(choice("Грязный"), box("Битый"))),
        ],
    )
    training, report = read(path, photos)
    assert labels(training) == {"car 0.png": {"damage": "damaged"}, "copy.png": {"damage": "damaged"}}
    assert [each["photo"] for each in report.conflicts] == ["car 0.png", "copy.png"]
    assert len({photo.group for photo in training.photos}) == 1


def test_photos_of_one_car_and_near_duplicates_stay_together(photos: Path) -> None:
    with Image.open(photos / "car 9.png") as image:
        image.resize((48, 48)).save(photos / "small.png")
    tasks = [task(i, f"car {i}.png", annotation(box("Битый")), car=f"plate {i // 2}") for i in range(8)]
    tasks += [task(9, "car 9.png", annotation(box("Битый"))), task(10, "small.png", annotation(box("Битый")))]
    training, _ = read(write(photos, tasks), photos)
    assert [photo.group for photo in training.photos] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for group in range(1, 6):
        assert len({photo.side for photo in training.photos if photo.group == group}) == 1


def test_test_photos_are_held_out_and_a_fifth_of_the_others_is_for_validation(photos: Path) -> None:
    tasks = [
        task(
            i, f"car {i}.png", annotation(choice("Чистый" if i % 2 else "Грязный")), split="test" if i < 2 else "train"
        )
        for i in range(10)
    ]
    training, report = read(write(photos, tasks), photos)
    assert training.positions(HOLDOUT).tolist() == [0, 1]
    assert len(training.positions(VALIDATION)) in (1, 2)
    assert report.sides[TRAIN] == len(training.positions(TRAIN))
    assert training.measured_side() == HOLDOUT


def test_a_split_with_other_words_is_refused(photos: Path) -> None:
    path = write(photos, [task(0, "car 0.png", annotation(choice("Чистый")), split="val")])
    with pytest.raises(LabelTableError, match="expected train or test in split, got val"):
        read(path, photos)


@pytest.mark.parametrize("name", ["absent.csv", "absent.json", "empty.csv"])
def test_a_file_that_cannot_be_read_is_refused(photos: Path, name: str) -> None:
    (photos / "empty.csv").touch()
    with pytest.raises(LabelTableError):
        read(photos / name, photos)


def test_a_report_can_be_written_whatever_names_an_export_has(photos: Path) -> None:
    (photos / "car 0.png").rename(photos / "\udcea.png")
    path = photos.parent / "export.json"
    names = ["\udcea.png", "\ud800.png", *(f"car {number}.png" for number in range(1, 10))]
    path.write_text(json.dumps([task(1 + i, f"/{name}", annotation(choice("Чистый"))) for i, name in enumerate(names)]))
    training, report = read(path, photos)
    assert r"\udcea.png" in [photo.name for photo in training.photos]
    assert json.dumps(report.as_json()["missing_photos"], ensure_ascii=False).encode() == rb'["\\ud800.png"]'
