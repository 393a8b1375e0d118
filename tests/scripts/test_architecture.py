"""The picture of the rooms is what the imports say."""

import pytest

from scripts.architecture import (
    PICTURE,
    REPOSITORY,
    essential,
    layers,
    module_imports,
    picture,
    reachable,
    room_imports,
    room_of,
)

MODULES = module_imports(REPOSITORY)


def test_every_module_belongs_to_a_room() -> None:
    packages = {"backend", "carcond"}
    assert [module for module in MODULES if module not in packages and room_of(module) is None] == []


def test_no_module_of_carcond_imports_the_backend() -> None:
    assert [
        f"{module} imports {other}"
        for module, imported in MODULES.items()
        for other in imported
        if module.startswith("carcond") and other.startswith("backend")
    ] == []


def test_the_picture_is_that_of_the_imports() -> None:
    drawn = picture(room_imports(MODULES))
    assert PICTURE.read_text(encoding="utf-8") == drawn, "run .venv/bin/python scripts/architecture.py"


def test_imports_inside_functions_count() -> None:
    assert "backend.loop" in MODULES["backend.jobs"]


def test_an_import_that_follows_from_others_is_not_drawn() -> None:
    rooms = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set[str]()}
    assert essential(rooms) == {"top": {"middle"}, "middle": {"bottom"}, "bottom": set()}
    assert reachable(rooms, "top") == {"middle", "bottom"}


def test_a_room_stands_above_all_that_it_imports() -> None:
    rooms = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set[str]()}
    assert layers(rooms) == [["top"], ["middle"], ["bottom"]]


def test_rooms_that_import_each_other_in_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match="in a circle, got one, two"):
        layers({"one": {"two"}, "two": {"one"}, "three": {"one"}})
