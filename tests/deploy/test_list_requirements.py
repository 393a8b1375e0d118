import ast
from pathlib import Path

import pytest

from docker.list_requirements import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    main()
    return {path.stem: path.read_text().splitlines() for path in tmp_path.glob("*.txt")}


def test_only_the_list_for_training_names_pytorch(lists: dict[str, list[str]]) -> None:
    assert not any(package.startswith("torch") for package in lists["runtime"])
    assert any(package.startswith("torch>") for package in lists["training"])


def test_training_keeps_the_releases_of_the_runtime(lists: dict[str, list[str]]) -> None:
    assert set(lists["runtime"]) < set(lists["training"])


def test_what_builds_the_package_is_listed_apart(lists: dict[str, list[str]]) -> None:
    assert [package.split(">")[0] for package in lists["build"]] == ["setuptools"]


def test_nothing_imports_the_package_that_is_left_out(lists: dict[str, list[str]]) -> None:
    assert not any(package.startswith("label-studio-sdk") for package in lists["runtime"])
    imported = {name for folder in ("carcond", "backend", "docker") for name in imports_below(ROOT / folder)}
    assert "flask" in imported
    assert "label_studio_sdk" not in imported


def imports_below(folder: Path) -> set[str]:
    """The first part of the name of every module that a folder's files import."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names
