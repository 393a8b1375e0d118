from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carcond.data.label_table import read_rows
from carcond.model.encoder import Encoder
from scripts.bench_views import bench_views, time_encoders
from tests.conftest import MakeEncoder


@pytest.fixture
def encoders(tmp_path: Path, make_tiny_encoder: MakeEncoder) -> dict[str, Encoder]:
    one, two = make_tiny_encoder(tmp_path, 0), make_tiny_encoder(tmp_path, 1, views=(32, 64))
    return {"64": Encoder.load(one, threads=1), "32+64": Encoder.load(two, threads=1)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Dark damaged cars of two sources, bright intact ones of two others, and the table of them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["file,damage,group,source"]
    for number in range(40):
        damaged = number % 2
        pixels = np.random.default_rng(number).integers(0, 100, (30, 40, 3)) + (0 if damaged else 150)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{('intact', 'damaged')[damaged]},car {number // 4},shop {number % 4}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_gain_is_measured_against_the_first_views(
    encoders: dict[str, Encoder], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.bench_views._LEAST_SOURCE", 10)
    said: list[str] = []
    rows = bench_views(
        {**encoders, "again": encoders["64"]},
        read_rows(photos / "labels.csv"),
        photos,
        tmp_path / "cache",
        stand_ins={},
        labels=[10, 20, 1000],
        seeds=2,
        source="source",
        say=said.append,
    )
    assert [(row["task"], row["labels"]) for row in rows] == [
        ("damage", "10"),
        ("damage", "20"),
        ("damage", "two sources left out"),
    ]
    for row in rows:  # dark and bright cars are told apart by all
        assert (row["64"], row["32+64"], row["again"]) == ("100.0", "+0.0 ±0.0", "+0.0 ±0.0")
    assert "encoding photos in 32+64: 40 of 40" in said


def test_each_encoder_is_timed(encoders: dict[str, Encoder]) -> None:
    times = time_encoders(encoders)
    assert list(times) == ["64", "32+64"]
    assert all(ms > 0 for ms in times.values())
