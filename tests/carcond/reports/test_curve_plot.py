from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from carcond.errors import PlotError
from carcond.reports.curve_plot import check_can_plot, save_plot


def drawn_report(tasks: list[str]) -> dict[str, Any]:
    curve = [[0.5, 0.1], [0.8, 0.05], [0.9, 0.01]]
    strategies = {
        name: {"labels": [[10, 0], [20, 0], [30, 0]], "accuracy": curve, "macro_f1": curve, "ece": curve}
        for name in ("random", "margin")
    }
    full = {"labels": 30, "accuracy": 0.9, "macro_f1": 0.9, "ece": 0.02}
    return {"tasks": dict.fromkeys(tasks, strategies), "full": dict.fromkeys(tasks, full)}


def test_a_plot_is_written_as_png_and_svg_whatever_the_suffix(tmp_path: Path) -> None:
    png, svg = save_plot(drawn_report(["damage"]), tmp_path / "new" / "curves.pdf")
    assert png == tmp_path / "new" / "curves.png"
    with Image.open(png) as image:
        assert image.format == "PNG"
        assert image.width > 1000
    assert "<svg" in svg.read_text(encoding="utf-8")


def test_the_plot_has_a_row_for_each_task(tmp_path: Path) -> None:
    one, _ = save_plot(drawn_report(["damage"]), tmp_path / "one")
    two, _ = save_plot(drawn_report(["damage", "cleanliness"]), tmp_path / "two")
    with Image.open(one) as first, Image.open(two) as second:
        assert second.height == 2 * first.height


def test_without_the_package_that_draws_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    check_can_plot()
    monkeypatch.setattr("carcond.reports.curve_plot.find_spec", lambda name: None)
    with pytest.raises(PlotError, match="pip install matplotlib"):
        check_can_plot()
