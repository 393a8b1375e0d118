"""All findings together."""

from collections import Counter
from pathlib import Path

import pytest

from backend.doctor.checks import kinds
from backend.doctor.finding import Kind, Level

TESTS = Path(__file__).parents[2]


def test_no_two_kinds_have_one_name() -> None:
    assert Counter(kind.name for kind in kinds()).most_common(1)[0][1] == 1


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_each_kind_is_complete_and_made_to_happen_in_a_test(kind: Kind) -> None:
    assert kind.level in (Level.FAULT, Level.WARNING)
    for text in (kind.symptom, kind.why, kind.example.what, kind.example.fix):
        assert text
        assert "{" not in text
    tests = [TESTS / "e2e" / "test_doctor.py", *(TESTS / "backend" / "doctor").glob("test_*.py")]
    assert any(f'"{kind.name}"' in path.read_text(encoding="utf-8") for path in tests)
