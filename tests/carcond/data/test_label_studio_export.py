import json
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.converter.converter import Converter

from carcond.data.annotations import Opinion
from carcond.data.label_studio_export import (
    ExportedAnnotation,
    ExportedTask,
    export_rows,
    find_photo,
    photo_path,
    read_export,
)
from carcond.data.label_table import read_rows, task_labels
from carcond.errors import LabelTableError

CONFIG = """
<View>
  <Image name="photo" value="$image"/>
  <Choices name="dirt" toName="photo">
    <Choice value="Чистый"/><Choice value="Пыльный"/><Choice value="Грязный"/>
  </Choices>
  <RectangleLabels name="box" toName="photo"><Label value="Битый"/><Label value="Номер"/></RectangleLabels>
</View>
"""


def choice(word: str) -> dict[str, Any]:
    return {"from_name": "dirt", "to_name": "photo", "type": "choices", "value": {"choices": [word]}}


def box(word: str) -> dict[str, Any]:
    value = {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": [word]}
    size = {"original_width": 100, "original_height": 100, "image_rotation": 0}
    return {"from_name": "box", "to_name": "photo", "type": "rectanglelabels", "value": value, **size}


def annotation(number: int, *result: dict[str, Any], by: int = 1, **more: Any) -> dict[str, Any]:
    times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": f"2026-01-01T00:00:{number:02}Z", "lead_time": 1.0}
    return {"id": number, "completed_by": by, "result": list(result), "was_cancelled": False, **times, **more}


TASKS = [
    {
        "id": 11,
        "data": {"image": "/data/upload/1/0a1b2c3d-red%20car.jpg", "source": "depot"},
        "annotations": [
            annotation(1, choice("Пыльный"), by=1),
            annotation(2, choice("Пыльный"), box("Битый"), by=2),
            annotation(3, choice("Чистый"), by=3),
        ],
    },
    {
        "id": 12,
        "data": {"image": "/data/local-files/?d=cars/night/b.jpg", "source": "street"},
        "annotations": [annotation(4, box("Номер")), annotation(5, was_cancelled=True)],
    },
    {"id": 13, "data": {"image": "s3://bucket/c.jpg"}, "annotations": [annotation(6, choice("Грязный"), by=2)]},
]


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "export.json", TASKS)


@pytest.fixture
def flat(tmp_path: Path, whole: Path) -> Path:
    """As Label Studio's own converter writes it."""
    with_annotations = [task for task in TASKS if task["id"] != 12]
    source = write(tmp_path / "to_convert.json", with_annotations)
    converter: Any = Converter
    converter(CONFIG, str(tmp_path)).convert_to_json_min(str(source), str(tmp_path / "flat"), is_dir=False)
    return tmp_path / "flat" / "result.json"


def test_choices_and_boxes_become_opinions_in_any_known_language(whole: Path) -> None:
    first, second, third = read_export(whole)
    assert [dict(opinion.classes) for opinion in first.opinions] == [
        {"cleanliness": "slightly_dirty"},
        {"cleanliness": "slightly_dirty", "damage": "damaged"},
        {"cleanliness": "clean"},
    ]
    assert second.opinions == []
    assert third.opinions == [Opinion(2, "2026-01-01T00:00:06Z", {"cleanliness": "very_dirty"})]


def test_words_that_mean_nothing_are_listed(whole: Path) -> None:
    assert [task.unknown_words for task in read_export(whole)] == [[], ["Номер"], []]


def test_a_missing_box_is_not_intact(whole: Path) -> None:
    assert "damage" not in read_export(whole)[2].opinions[0].classes


def test_rows_have_the_merged_classes_and_the_tasks_data(whole: Path) -> None:
    rows = read_rows(whole)
    assert [(row["file"], row["source"], row["cleanliness"], row["damage"]) for row in rows] == [
        ("data/upload/1/0a1b2c3d-red car.jpg", "depot", "slightly_dirty", "damaged"),
        ("cars/night/b.jpg", "street", "", ""),
        ("c.jpg", "", "very_dirty", ""),
    ]
    assert list(task_labels(rows)) == ["cleanliness"]


def test_the_flat_form_says_the_same(whole: Path, flat: Path) -> None:
    tasks = read_export(flat)
    assert (
        export_rows(tasks)[0].items()
        >= {
            "file": "data/upload/1/0a1b2c3d-red car.jpg",
            "cleanliness": "slightly_dirty",
            "damage": "damaged",
        }.items()
    )
    assert [len(task.opinions) for task in tasks] == [3, 1]


def test_one_annotator_counts_once_and_annotators_without_a_number_each() -> None:
    said = [Opinion(1, str(i), {"damage": "intact"}) for i in range(3)] + [Opinion(2, "9", {"damage": "damaged"})]
    same = ExportedTask({"image": "a.jpg"}, [ExportedAnnotation(opinion) for opinion in said])
    assert export_rows([same])[0].get("damage", "") == ""


def test_nested_annotators_are_known_by_their_id(tmp_path: Path) -> None:
    made = annotation(1, choice("Чистый")) | {"completed_by": {"id": 7, "email": "a@b.c"}}
    task = {"data": {"image": "a.jpg"}, "annotations": [made]}
    assert read_export(write(tmp_path / "e.json", [task]))[0].opinions[0].annotator == 7


def test_two_classes_of_one_task_are_unknown(tmp_path: Path) -> None:
    task = {"data": {"image": "a.jpg"}, "annotations": [annotation(1, choice("Чистый"), choice("Грязный"))]}
    assert read_export(write(tmp_path / "e.json", [task]))[0].opinions == []


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/local-files/?d=cars/a%20b.jpg", "cars/a b.jpg"),
        ("http://host:8080/data/local-files/?d=cars/a%2Bb.jpg", "cars/a+b.jpg"),
        ("/data/upload/3/12345678-x.png", "data/upload/3/12345678-x.png"),
        ("s3://bucket/day/x.webp", "day/x.webp"),
        ("https://host/day/x.jpg?token=1#top", "day/x.jpg"),
        ("x.jpg", "x.jpg"),
        ("http://[no address", ""),
        ("", ""),
    ],
)
def test_addresses_become_paths(address: str, path: str) -> None:
    assert photo_path(address) == path


def test_a_photo_is_found_by_its_longest_tail_and_without_the_upload_prefix(tmp_path: Path) -> None:
    for name in ("night/b.jpg", "b.jpg", "red car.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_photo(tmp_path, "cars/night/b.jpg") == tmp_path / "night" / "b.jpg"
    assert find_photo(tmp_path, "elsewhere/b.jpg") == tmp_path / "b.jpg"
    assert find_photo(tmp_path, "data/upload/1/0a1b2c3d-red car.jpg") == tmp_path / "red car.jpg"
    assert find_photo(tmp_path, "none.jpg") is None


def test_a_photo_outside_the_folder_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "secret.jpg").touch()
    assert find_photo(tmp_path / "photos", "../secret.jpg") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tasks": []}, "a list of tasks"),
        ([1, 2], "a list of tasks"),
        ([{"annotations": []}, {"data": {}}], "task 1 has none"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(LabelTableError, match=message):
        read_export(write(tmp_path / "e.json", content))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(LabelTableError, match="cannot be read as JSON"):
        read_export(tmp_path / "e.json")


@pytest.mark.parametrize("oddity", [None, 3, "x", [], [None], {"a": 1}])
def test_odd_parts_of_an_export_are_passed_by(tmp_path: Path, oddity: object) -> None:
    tasks = [
        {"data": oddity, "annotations": [oddity, {"result": oddity}, {"result": [{"value": oddity}]}]},
        {"data": {"image": oddity}, "annotations": [{"result": [{"value": {"choices": oddity}}]}]},
    ]
    assert [row["file"] for row in export_rows(read_export(write(tmp_path / "e.json", tasks)))] == ["", ""]
    flat = [{"image": oddity, "dirt": oddity}]
    assert [row["file"] for row in export_rows(read_export(write(tmp_path / "f.json", flat)))] == [""]


def test_a_skipped_an_empty_and_a_contradictory_annotation_are_kept_without_an_opinion(tmp_path: Path) -> None:
    made = [annotation(1, choice("Чистый"), was_cancelled=True), annotation(2, by=2)]
    both = annotation(3, choice("Чистый"), choice("Грязный"), box("Номер"), by=3)
    (task,) = read_export(write(tmp_path / "e.json", [{"data": {"image": "a.jpg"}, "annotations": [*made, both]}]))
    assert task.opinions == []
    assert [each.skipped for each in task.annotations] == [True, False, False]
    assert task.annotations[2].contradictions == {"cleanliness": ("clean", "very_dirty")}
    assert task.annotations[2].unknown_words == ("Номер",)


def test_a_word_without_a_class_is_told_in_a_flat_column_that_holds_answers(tmp_path: Path) -> None:
    flat = [
        {"image": "a.jpg", "dirt": "Чистый", "note": "new"},
        {"image": "b.jpg", "dirt": "Испорчен", "note": "old"},
    ]
    assert [task.unknown_words for task in read_export(write(tmp_path / "f.json", flat))] == [[], ["Испорчен"]]


@pytest.mark.parametrize("answer", ["Целый", "Битый"])
def test_beside_an_answer_a_suggested_box_that_nobody_touched_says_nothing(tmp_path: Path, answer: str) -> None:
    untouched = box("Битый") | {"origin": "prediction"}
    task = {"id": 1, "data": {"image": "a.jpg"}, "annotations": [annotation(1, untouched, choice(answer))]}
    (read,) = read_export(write(tmp_path / "export.json", [task]))
    assert read.opinions[0].classes == {"damage": "intact" if answer == "Целый" else "damaged"}
    assert read.annotations[0].contradictions == {}


def test_a_box_that_was_moved_contradicts_and_one_left_alone_states_damage(tmp_path: Path) -> None:
    moved, left = box("Битый") | {"origin": "prediction-changed"}, box("Битый") | {"origin": "prediction"}
    annotations = [annotation(1, moved, choice("Целый")), annotation(2, left, choice("Чистый"), by=2)]
    task = {"id": 1, "data": {"image": "a.jpg"}, "annotations": annotations}
    (read,) = read_export(write(tmp_path / "export.json", [task]))
    assert read.annotations[0].contradictions == {"damage": ("damaged", "intact")}
    assert read.annotations[1].opinion.classes == {"cleanliness": "clean", "damage": "damaged"}
