import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from backend.cli.main import app
from carcond.errors import EncoderError, LabelTableError, PlotError, StrategyError
from carcond.settings import get_settings

COUNT = 40


@pytest.fixture
def folder(tmp_path: Path, tiny_models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Forty drawn photos, dark ones damaged, and their labels; the tiny encoder is in use."""
    monkeypatch.setenv("CARCOND_MODELS_DIR", str(tiny_models_dir))
    get_settings.cache_clear()
    (tmp_path / "photos" / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(COUNT):
        shade = 60 if i % 2 else 180
        pixels = rng.integers(shade - 50, shade + 50, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / "images" / f"{i}.png")
        damage, degree = ("damaged", f"degree{i % 4}") if i % 2 else ("intact", "")
        rows.append({"file": f"images/{i}.png", "damage": damage, "degree": degree, "source": "ab"[i // 20]})
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    yield tmp_path
    get_settings.cache_clear()


def arguments(folder: Path, *more: str) -> list[str]:
    fixed = ["simulate", "--labels", folder / "labels.csv", "--photos", folder / "photos", "--cache", folder / "cache"]
    return [*map(str, fixed), "--seeds", "2", "--processes", "1", "--strategies", "random,margin", *more]


def run(folder: Path, *more: str) -> str:
    result = CliRunner().invoke(app, arguments(folder, *more), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_json_has_curves_of_each_strategy_and_the_full_score(folder: Path) -> None:
    facts = json.loads(run(folder, "--json"))
    assert set(facts["tasks"]["damage"]) == {"random", "margin"}
    assert facts["full"]["damage"]["labels"] == 32
    assert facts["seeds"] == 2
    assert facts["left_out"] == 0


def test_without_json_it_tells_curves_and_labels_needed(folder: Path) -> None:
    text = run(folder)
    assert "macro-F1" in text
    assert "relative to random" in text


def test_without_a_split_each_seed_has_a_test_set_of_its_own(folder: Path) -> None:
    assert json.loads(run(folder, "--json"))["test_sets"] == 2
    assert "95 % band over 2 test sets" in " ".join(run(folder).split())


def with_columns(folder: Path, **columns: list[str]) -> None:
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *columns])
        writer.writeheader()
        writer.writerows(row | {name: cells[i] for name, cells in columns.items()} for i, row in enumerate(rows))


def test_a_split_is_kept_to_unless_it_should_rotate(folder: Path) -> None:
    with_columns(folder, split=["test" if i < 10 else "train" for i in range(COUNT)])
    facts = json.loads(run(folder, "--json"))
    assert (facts["test_sets"], facts["full"]["damage"]["labels"]) == (1, 30)
    facts = json.loads(run(folder, "--json", "--rotate"))
    assert (facts["test_sets"], facts["full"]["damage"]["labels"]) == (2, 32)


def test_the_calibration_error_at_50_labels_is_printed(folder: Path) -> None:
    rows = [line for line in (folder / "labels.csv").read_text().splitlines() if line]
    (folder / "labels.csv").write_text("\n".join([rows[0], *rows[1:] * 2]))
    with_columns(folder, group=[str(i) for i in range(2 * COUNT)])
    table = run(folder).partition("calibration error")[2]
    assert "50 labels" in table


def test_the_strategy_of_the_service_is_called_default_too(folder: Path) -> None:
    default = json.loads(run(folder, "--json", "--strategies", "default", "--publish-every", "10"))
    live = json.loads(run(folder, "--json", "--strategies", "live", "--publish-every", "10"))
    assert default == live
    assert live["publish_every"] == 10


def test_embeddings_are_kept_and_photos_not_needed_a_second_way(folder: Path) -> None:
    """The photos may also be given by the folder they lie in."""
    first = run(folder, "--json")
    (kept,) = (folder / "cache").iterdir()
    written = kept.stat().st_mtime_ns
    assert run(folder, "--json", "--photos", str(folder / "photos" / "images")) == first
    assert kept.stat().st_mtime_ns == written


def test_a_plot_is_drawn_on_request(folder: Path) -> None:
    run(folder, "--plot", str(folder / "curves.png"))
    assert (folder / "curves.png").is_file()
    assert (folder / "curves.svg").is_file()


def test_a_plot_that_cannot_be_drawn_is_refused_before_anything_is_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carcond.reports.curve_plot.find_spec", lambda name: None)
    with pytest.raises(PlotError, match="pip install matplotlib"):
        CliRunner().invoke(app, arguments(folder, "--plot", str(folder / "p")), catch_exceptions=False)
    assert not (folder / "cache").exists()


def test_rows_columns_and_slices_can_be_chosen(folder: Path) -> None:
    by = json.loads(run(folder, "--json", "--by", "source"))["by"]["damage"]
    assert set(by) == {"a", "b"}
    stood_in = json.loads(run(folder, "--json", "--columns", "damage=degree", "--where", "damage=damaged"))
    assert stood_in["full"]["damage"]["labels"] == 16


def test_an_unreadable_photo_is_left_out_and_told(folder: Path) -> None:
    (folder / "photos" / "images" / "7.png").write_bytes(b"broken")
    result = CliRunner().invoke(app, arguments(folder, "--json"), catch_exceptions=False)
    assert "7.png" in result.stderr
    assert json.loads(result.stdout)["left_out"] == 1


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (("--strategies", "best"), StrategyError, "got 'best'"),
        (("--columns", "damage=rust"), LabelTableError, "expected a column 'rust'"),
        (("--by", "rust"), LabelTableError, "expected a column 'rust'"),
        (("--where", "source=c"), LabelTableError, "that column has a, b"),
        (("--photos", "/nowhere"), LabelTableError, "none of the 40 photos is in /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, more: tuple[str, ...], error: type[Exception], message: str) -> None:
    result = CliRunner().invoke(app, arguments(folder, *more))
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_without_an_encoder_it_is_said_how_to_make_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_MODELS_DIR", str(folder / "none"))
    get_settings.cache_clear()
    result = CliRunner().invoke(app, arguments(folder))
    assert isinstance(result.exception, EncoderError)
    assert "carcond encoder" in str(result.exception)


@pytest.mark.parametrize("more", [("--where", "source"), ("--columns", "=x"), ("--seeds", "1")])
def test_a_malformed_option_is_refused(folder: Path, more: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, arguments(folder, *more)).exit_code == 2
