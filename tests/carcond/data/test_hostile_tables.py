"""Exports and tables of labels from anybody: read, or refused with an error of ours."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carcond.analysis.fleet_files import read_fleet
from carcond.analysis.photo_set import read_file_labels
from carcond.data.label_studio_export import find_photo, read_export
from carcond.data.label_table import measured_rows, read_rows, task_labels
from carcond.errors import LabelTableError
from carcond.training.dataset_reader import ReadOptions, read_training_set
from tests.damage import damaged_bytes, damaged_json, json_values

REGIONS = [
    {"from_name": "dirt", "to_name": "photo", "type": "choices", "value": {"choices": ["clean"]}},
    {"origin": "prediction", "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["damaged"]}},
]
WHOLE = [
    {
        "id": number,
        "data": {"image": f"/data/local-files/?d=cars/{number}.jpg", "source": "fleet"},
        "annotations": [
            {"id": number, "completed_by": who, "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z"}
            | {"result": REGIONS}
            for who in (1, {"id": 2})
        ],
    }
    for number in (1, 2)
]
FLAT = [
    {
        "id": n,
        "image": f"s3://cars/{n}.jpg",
        "driver": "A",
        "dirt": word,
        "box": [{"x": 1, "rectanglelabels": ["damaged"]}],
    }
    | {"annotator": n, "annotation_id": n, "updated_at": "2026-01-01T00:00:00Z", "lead_time": 1.5}
    for n, word in enumerate(["clean", "very dirty"])
]
TABLE = (
    b"file,cleanliness,damage,split,group,driver,date\n"
    b"a.jpg,clean,intact,train,1,A,2026-01-01\nb.jpg,very dirty,damaged,test,2,B,\n"
)
FLAT_TABLE = (
    b"id,image,dirt,box,annotator,updated_at\n"
    b'1,s3://cars/a.jpg,clean,"[{""rectanglelabels"": [""damaged""]}]",1,2026-01-01T00:00:00Z\n'
    b'2,s3://cars/b.jpg,"{""choices"": [""very dirty""]}",,2,2026-01-01T00:00:00Z\n'
)
ODD_ADDRESSES = st.sampled_from(
    (
        "x" * 300 + ".jpg",
        "a\x00.jpg",
        "http://[.jpg",
        "a/" * 3_000 + ".jpg",
        "s3://\ud800.jpg",
        "../../etc/passwd.png",
        "/data/local-files/?d=%00.jpg",
        "/data/local-files/?d=" + "%C3" * 200 + ".jpg",
        "..jpg",
        "///.webp",
    )
)


def check_reading(path: Path) -> None:
    """Read a file by every way in that commands use."""
    options = ReadOptions({}, validation_share=0.2, seed=0, max_pixels=1_000_000)
    readers: list[Callable[[], object]] = [
        lambda: check_rows(path),
        lambda: read_training_set(path, path.parent, options, lambda _done, _total: None),
        lambda: read_file_labels(path, path.parent),
        lambda: read_fleet(path, "driver"),
    ]
    for read in readers:
        try:
            read()
        except LabelTableError as error:
            assert "Traceback" not in str(error)  # noqa: PT017 - either is right


def check_rows(path: Path) -> None:
    rows = read_rows(path)
    assert all(isinstance(value, str) for row in rows for value in row.values())
    task_labels(rows)
    test = measured_rows(rows)
    assert test is None or test.shape == (len(rows),)
    if path.suffix == ".json":
        for task in read_export(path):
            assert find_photo(path.parent / "none", task.photo_address()) is None
            assert {key for opinion in task.opinions for key in opinion.classes} <= {"cleanliness", "damage"}


def check_json(text: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        check_reading(path)


@given(address=ODD_ADDRESSES, is_whole=st.booleans())
def test_a_photo_at_an_odd_address_is_missing_and_no_error(address: str, *, is_whole: bool) -> None:
    records: list[dict[str, Any]] = [{**WHOLE[0], "data": {"image": address}}, WHOLE[1]]
    check_json(json.dumps(records if is_whole else [{**FLAT[0], "image": address}, FLAT[1]]))


@pytest.mark.parametrize("odd", [{}, [], None, 1.5, {"id": 1}])
def test_records_whose_number_is_none_are_tasks_of_their_own(odd: Any, tmp_path: Path) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps([{**FLAT[0], "id": odd}, {**FLAT[1], "id": odd}]))
    assert len(read_export(path)) == 2


@given(records=damaged_json(WHOLE) | damaged_json(FLAT) | json_values, is_ascii=st.booleans())
def test_a_damaged_export_is_read_or_refused(records: Any, *, is_ascii: bool) -> None:
    check_json(json.dumps(records, ensure_ascii=is_ascii))


@given(data=damaged_bytes([json.dumps(WHOLE).encode(), json.dumps(FLAT).encode()]) | st.binary(max_size=200))
def test_an_export_with_damaged_bytes_is_read_or_refused(data: bytes) -> None:
    check_json(data)


@given(data=damaged_bytes([TABLE, FLAT_TABLE]) | st.binary(max_size=200), suffix=st.sampled_from([".csv", ".tsv"]))
def test_a_damaged_table_is_read_or_refused(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{suffix}"
        path.write_bytes(data)
        check_reading(path)


@pytest.mark.parametrize("cell", ["[" * 100_000, "[" + "1" * 10_000 + "]", '{"choices": [[]]}', "[NaN]"])
@pytest.mark.parametrize("annotator", ["1", "\N{SUPERSCRIPT TWO}", "9" * 5_000])
def test_odd_cells_of_label_studios_table_are_no_answers(cell: str, annotator: str, tmp_path: Path) -> None:
    quoted = cell.replace('"', '""')
    path = tmp_path / "table.csv"
    path.write_text(f'id,image,dirt,box,annotator\n1,s3://cars/a.jpg,clean,"{quoted}",{annotator}\n', encoding="utf-8")
    options = ReadOptions({}, validation_share=0.2, seed=0, max_pixels=1_000_000)
    training, report = read_training_set(path, tmp_path, options, lambda _done, _total: None)
    assert len(training.photos) == report.used == 0


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"a":' * 200_000, b"[" + b"1" * 10_000 + b"]"])
def test_json_that_python_cannot_hold_is_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.json"
        path.write_bytes(data)
        with pytest.raises(LabelTableError):
            read_export(path)
