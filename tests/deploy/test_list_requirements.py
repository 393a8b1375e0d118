import ast
from pathlib import Path

import pytest

from docker.list_requirements import main

ROOT = Path(__file__).resolve().parents[2]


def lists(folder: Path, monkeypatch: pytest.MonkeyPatch, *extras: str) -> dict[str, list[str]]:
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["list_requirements.py", *extras])
    main()
    return {path.stem: path.read_text().splitlines() for path in folder.glob("*.txt")}


def test_only_the_list_for_training_names_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lists(tmp_path, monkeypatch)
    assert not any(package.startswith("torch") for package in made["runtime"])
    assert any(package.startswith("torch>") for package in made["train"])


def test_training_keeps_the_releases_of_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = lists(tmp_path, monkeypatch, "s3")
    assert set(made["runtime"]) < set(made["train"])


def test_what_builds_the_package_is_listed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [package.split(">")[0] for package in lists(tmp_path, monkeypatch)["build"]] == ["setuptools"]


def test_all_images_have_the_extras_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(package.startswith("s3fs") for package in lists(tmp_path, monkeypatch)["runtime"])
    made = lists(tmp_path, monkeypatch, "s3", "tensorboard")
    for name in ("runtime", "train"):
        assert {package.split(">")[0] for package in made[name]} >= {"s3fs", "tensorboardX", "flask"}


def test_an_extra_that_there_is_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="got s4"):
        lists(tmp_path, monkeypatch, "s4")


@pytest.mark.parametrize("heavy", ["label-studio-sdk", "matplotlib", "torch"])
def test_heavy_packages_are_not_in_the_small_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heavy: str) -> None:
    assert not any(package.startswith(heavy) for package in lists(tmp_path, monkeypatch)["runtime"])


def test_what_is_not_in_the_small_image_is_imported_by_nothing_that_it_runs() -> None:
    imported = {
        path.relative_to(ROOT).as_posix(): imports_of(path)
        for folder in ("carcond", "backend", "docker")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert "flask" in imported["backend/web/app.py"]
    assert not any("label_studio_sdk" in names for names in imported.values())
    # `--plot` of `carcond simulate` and `carcond fleet`, which say so, and `carcond finetune`, not for this image.
    drawing = {path for path, names in imported.items() if "matplotlib" in names}
    assert drawing == {"carcond/reports/curve_plot.py", "carcond/reports/fleet_plot.py", "carcond/training/curves.py"}


def imports_of(path: Path) -> set[str]:
    """The first part of the name of every module that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names
