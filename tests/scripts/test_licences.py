import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from scripts import licences
from scripts.licences import Package, packages, page

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_every_installed_package_is_on_the_page() -> None:
    """How a release states its licence may change, and other platforms install less: names are what has to be there."""
    listed = _names(licences.PAGE.read_text(encoding="utf-8"))
    assert _names(page()) - listed == set(), "run .venv/bin/python scripts/licences.py"


def _names(text: str) -> set[str]:
    return {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")}


def test_every_package_that_carcond_asks_for_is_listed() -> None:
    asked = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    listed = {package.name for package in packages()}
    assert {Requirement(text).name.lower() for text in asked} <= listed
    assert "label-studio-ml" in listed


def test_each_licence_is_stated_and_each_that_is_not_permissive_has_been_looked_at() -> None:
    remarks = {package.name: package.remark for package in packages()}
    assert [name for name, remark in remarks.items() if "NOT LOOKED AT" in remark] == []
    assert remarks["psycopg"]
    assert not remarks["flask"]


def test_a_remark_is_kept_only_as_long_as_its_package_is() -> None:
    assert set(licences._REMARKS) <= {package.name for package in packages()}


def test_a_licence_that_is_partly_permissive_is_not() -> None:
    assert Package("x", "MPL-2.0 AND MIT").remark
    assert Package("x", "not stated").remark
    assert not Package("x", "Apache-2.0 OR BSD-2-Clause").remark
