import re
from pathlib import Path

import pytest

from backend.label_studio.way_in import (
    LABEL_ALL,
    SUBMIT_KEYS,
    browser_base,
    numbered_steps,
    project_url,
    tab_url,
    task_url,
)
from carcond.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
READ_BY_PEOPLE = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(path for folder in ("backend", "docker", "deploy") for path in (ROOT / folder).rglob("*") if path.is_file()),
    *(ROOT / "scripts" / name for name in ("up.py", "add_photos.py")),
]


@pytest.mark.parametrize("base", ["http://ls.example.com", "http://ls.example.com/"])
def test_addresses_are_those_of_the_projects_list(base: str) -> None:
    assert project_url(base, 3) == "http://ls.example.com/projects/3/data"
    assert tab_url(base, 3, 5) == "http://ls.example.com/projects/3/data?tab=5"
    assert task_url(base, 3, 7) == "http://ls.example.com/projects/3/data?task=7"


def test_browsers_get_label_studios_own_name_where_it_has_one() -> None:
    inner = Settings(label_studio_url="http://label-studio:8080", label_studio_host="")
    outer = Settings(label_studio_url="http://label-studio:8080", label_studio_host="https://ls.example.com/")
    assert browser_base(inner) == "http://label-studio:8080"
    assert browser_base(outer) == "https://ls.example.com"


def test_the_steps_say_what_to_click_and_which_key_submits() -> None:
    assert [line[:3] for line in numbered_steps().splitlines()] == ["1. ", "2. ", "3. ", "4. "]
    assert LABEL_ALL in numbered_steps()
    assert SUBMIT_KEYS in numbered_steps()


def test_nothing_that_people_read_gives_an_address_that_passes_the_queue_by() -> None:
    texts = {path: path.read_bytes() for path in READ_BY_PEOPLE if path.name != "way_in.py"}
    assert [path for path, text in texts.items() if re.search(rb"[?&]labeling=1", text)] == []
