from pathlib import Path

import numpy as np
import pytest

from carcond.model.heads import Head, Heads
from carcond.model.version_card import Gate, Labels, VersionCard
from carcond.registry.baseline import find_baseline
from carcond.registry.registry import Registry
from carcond.taxonomy import DAMAGE

HEADS = Heads(
    "tiny", {"damage": Head(DAMAGE, np.ones((2, 8), np.float32), np.zeros(2, np.float32), 1.0, cross_fitted=True)}
)


def serve(registry: Registry, labels: int, who: str = "loop") -> int:
    number = registry.write(HEADS, VersionCard(labels=Labels(train=labels)), [])
    registry.promote(number, who)
    return number


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Versions 1 to 6 of 10 to 60 labels."""
    registry = Registry(tmp_path, 7)
    for labels in range(10, 70, 10):
        serve(registry, labels)
    return registry


def found(registry: Registry, labels: int) -> int | None:
    baseline = find_baseline(registry, labels)
    return baseline.number if baseline else None


@pytest.mark.parametrize(("labels", "expected"), [(19, None), (20, 1), (61, 3), (79, 3), (80, 4)])
def test_it_is_the_latest_that_served_with_half_of_the_labels_or_fewer(
    registry: Registry, labels: int, expected: int | None
) -> None:
    assert found(registry, labels) == expected


def test_the_serving_version_is_none(registry: Registry) -> None:
    assert found(registry, 500) is None


def test_a_project_without_versions_has_none(tmp_path: Path) -> None:
    assert found(Registry(tmp_path, 7), 100) is None


def test_a_refused_version_that_never_served_is_none(registry: Registry) -> None:
    registry.write(HEADS, VersionCard(labels=Labels(train=35), gate=Gate(accepted=False)), [])
    assert found(registry, 70) == 3


def test_versions_that_were_rolled_back_are_none(registry: Registry) -> None:
    registry.promote(2, "anna", "calls wet cars dirty", "rollback")
    serve(registry, 70)
    assert found(registry, 70) == 2


def test_what_served_before_a_person_chose_is_not_looked_at(registry: Registry) -> None:
    serve(registry, 60, who="anna")
    serve(registry, 70)
    assert found(registry, 70) is None
    assert found(registry, 120) == 7


def test_a_broken_card_is_passed_over(registry: Registry) -> None:
    (registry.root / "versions" / "0003" / "card.json").write_text("{")
    assert found(registry, 61) == 2
