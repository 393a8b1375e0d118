from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from carcond.analysis.agreement import Answers, cohen_kappa, krippendorff_alpha, pairwise_agreement
from carcond.arrays import UNKNOWN, IntArray

# The reliability data of Krippendorff 2011, part C: four observers, twelve units, values 1 to 5, some missing.
PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
CLASSES = ("1", "2", "3", "4", "5")
DEGREES = ("clean", "slightly_dirty", "very_dirty")


def answers_of(table: str, classes: Sequence[str] = CLASSES) -> Answers:
    """Answers from a table with a row for each annotator and a column for each photo."""
    photos = zip(*(line.split() for line in table.split("\n") if line), strict=True)
    opinions = [{who: {"t": word} for who, word in enumerate(photo, start=1) if word != "."} for photo in photos]
    return Answers.of(opinions, "t", classes)


def plain_alpha(indices: IntArray, ordinal: bool) -> float:
    """Alpha as one minus observed over expected disagreement, pair of answers by pair of answers."""
    units = [[int(value) for value in row if value != UNKNOWN] for row in indices]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]

    def distance(c: int, k: int) -> float:
        if not ordinal:
            return float(c != k)
        low, high = min(c, k), max(c, k)
        between = sum(values.count(g) for g in range(low, high + 1))
        return (between - (values.count(low) + values.count(high)) / 2) ** 2

    n = len(values)
    observed = sum(distance(a, b) / (len(unit) - 1) for unit in units for a, b in permutations(unit, 2)) / n
    expected = sum(distance(a, b) for a, b in permutations(values, 2)) / (n * (n - 1))
    return 1 - observed / expected


def test_alpha_is_that_of_the_published_example() -> None:
    counts = answers_of(PUBLISHED).counts()
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=0.0005)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(0.815, abs=0.0005)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_alpha_is_that_of_a_count_of_all_pairs(seed: int, level: str) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (25, 1))
    indices = np.where(rng.random((25, 4)) < 0.7, truth, rng.integers(0, 3, (25, 4)))
    indices[rng.random((25, 4)) < 0.3] = UNKNOWN
    counts = Answers(range(4), indices, 3).counts()
    expected = plain_alpha(indices, level == "ordinal")
    assert krippendorff_alpha(counts, "ordinal" if level == "ordinal" else "nominal") == pytest.approx(expected)


def test_ordinal_alpha_takes_a_disagreement_of_neighbours_less_hard() -> None:
    near = answers_of("a b c a b c a\na b c a b c b", "abc").counts()
    far = answers_of("a b c a b c a\na b c a b c c", "abc").counts()
    neighbours, opposites = krippendorff_alpha(near, "ordinal"), krippendorff_alpha(far, "ordinal")
    assert neighbours is not None
    assert opposites is not None
    assert neighbours > opposites + 0.1


def test_of_two_classes_ordinal_alpha_is_the_nominal() -> None:
    counts = answers_of("a b a b b a .\na b b b b a a", "ab").counts()
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(krippendorff_alpha(counts))


@pytest.mark.parametrize("table", ["a b . a\n. . b .", "a a a\na a a"])
def test_alpha_is_not_known_without_a_photo_of_two_or_with_one_class_only(table: str) -> None:
    assert krippendorff_alpha(answers_of(table, "ab").counts()) is None


def test_no_answers_at_all_are_no_error() -> None:
    nothing = Answers.of([], "t", CLASSES)
    assert krippendorff_alpha(nothing.counts()) is None
    assert pairwise_agreement(nothing) == []
    assert nothing.conflicts().tolist() == []


def test_kappa_is_that_of_a_published_example() -> None:
    # Fifty proposals read by two: both yes 20, both no 15, yes and no 5, no and yes 10.
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(first, second, 2) == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 3, 40), rng.integers(0, 2, 40)
    assert cohen_kappa(first, second, 3) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_is_not_known_where_both_say_one_thing_throughout() -> None:
    assert cohen_kappa(np.zeros(5, dtype=np.int64), np.zeros(5, dtype=np.int64), 2) is None


def test_pairs_are_compared_on_the_photos_that_both_answered() -> None:
    pairs = pairwise_agreement(answers_of("a b a b .\na a . b b\n. . . . a", "ab"))
    assert [(p.first, p.second, p.photos, p.agreement) for p in pairs] == [
        (1, 2, 3, pytest.approx(2 / 3)),
        (2, 3, 1, 0.0),
    ]


def test_conflicts_are_the_photos_on_which_annotators_disagree() -> None:
    assert answers_of("a b . b\na a . .\na b b .", "ab").conflicts().tolist() == [1]


def test_an_answer_to_another_task_or_of_no_class_is_no_answer() -> None:
    opinions = [{1: {"cleanliness": "clean", "damage": "intact"}, 2: {"damage": "damaged"}, 3: {"cleanliness": "?"}}]
    answers = Answers.of(opinions, "cleanliness", DEGREES)
    assert answers.annotators == [1]
    assert answers.indices.tolist() == [[0]]
