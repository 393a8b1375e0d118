"""The versions of a project as text."""

import pytest

from backend.project.versions import scores_text
from carcond.model.version_card import Metrics


@pytest.mark.parametrize(
    ("photos", "text"), [(1, "1 photo only"), (9, "9 photos only"), (10, "1.000 / 0.875"), (0, "– / –")]
)
def test_a_score_of_a_handful_of_photos_is_not_told_as_one(photos: int, text: str) -> None:
    scores = Metrics(photos=photos, accuracy=1.0, macro_f1=0.875) if photos else None
    assert scores_text(scores) == text
