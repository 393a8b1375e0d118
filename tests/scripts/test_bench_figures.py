import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from carcond.analysis.live_replay import LiveSettings
from carcond.analysis.replay_set import ReplayDataset
from carcond.data.label_table import TaskLabels
from carcond.data.synthetic_photos import draw_samples
from carcond.settings import get_settings
from carcond.taxonomy import DAMAGE
from scripts.bench import app
from scripts.bench_figures import markdown_table, run_live


@pytest.fixture
def models_dir(tiny_models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("CARCOND_MODELS_DIR", str(tiny_models_dir))
    get_settings.cache_clear()
    yield tiny_models_dir
    get_settings.cache_clear()


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.slow
def test_all_tables_are_written_from_drawn_photos(models_dir: Path, tmp_path: Path) -> None:
    draw_samples(tmp_path / "photos", 50, seed=7, labels=True)
    labels = tmp_path / "photos" / "labels.csv"
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "group"])
        writer.writeheader()
        writer.writerows(row | {"group": str(i)} for i, row in enumerate(rows))
    options = ["--labels", tmp_path / "labels.csv", "--photos", tmp_path / "photos", "--seeds", "2"]
    arguments = ["figures", *map(str, options), "--columns", "damage,cleanliness", "--models-dir", str(models_dir)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    strategies, published, calibration, holdout = (cells(table) for table in result.stdout.strip().split("\n\n"))
    assert [row[1] for row in strategies[2:6]] == ["`random`", "`margin`", "`badge`", "`live`"]
    assert [row[0] for row in strategies[2:]] == ["damage", "", "", "", "cleanliness", "", "", ""]
    assert all(0 <= float(cell) <= 1 for row in strategies[2:] for cell in row[2:5])
    assert [row[1] for row in published[2:]] == ["1", "5", "20"] * 2
    assert [len(table) for table in (calibration, holdout)] == [2 + 2 * 2, 2 + 2 * 3]


def test_a_table_names_a_set_once() -> None:
    table = markdown_table(["set", "n"], [["a", "1"], ["a", "2"], ["b", "3"]])
    assert table == "| set | n |\n| --- | --- |\n| a | 1 |\n|  | 2 |\n| b | 3 |"


def test_the_holdout_of_a_run_is_compared_with_its_test_photos() -> None:
    """All test photos are labelled wrongly, so that accuracy is better on the hold-out by almost 1."""
    rng = np.random.default_rng(0)
    damage = rng.integers(0, 2, 250)
    embeddings = rng.normal(size=(250, 6)).astype(np.float32)
    embeddings[:, 0] += 12 * damage
    test = np.arange(250) % 5 == 0
    turned = TaskLabels(DAMAGE, np.where(test, 1 - damage, damage))
    run = run_live(ReplayDataset(embeddings, {"damage": turned}, np.arange(250), test), LiveSettings(), 0, [20, 100])
    assert run.gaps[:, 0] == pytest.approx([100, 100], abs=5)
    assert (run.gaps[:, 1] < -1).all()
    assert run.macro_f1 == pytest.approx([0, 0], abs=0.05)
    assert set(run.probabilities) == {100}
    assert run.probabilities[100].shape == (50, 2)
    assert not np.array_equal(run.probabilities[100], run.training_probabilities[100])
