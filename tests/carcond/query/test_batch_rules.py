import numpy as np
import pytest
from scipy.spatial.distance import cdist

from carcond.arrays import IntArray
from carcond.query.batch_rules import BATCH_RULES, Candidates, badge, distinct, power, slots, top_k


def draw_candidates(count: int = 60, dimension: int = 6, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    return Candidates(
        rng.normal(size=(count, dimension)).astype(np.float32) + 2,
        rng.uniform(size=count).astype(np.float32),
        {
            "damage": rng.dirichlet([1, 1], size=count).astype(np.float32),
            "cleanliness": rng.dirichlet([1, 1, 1], size=count).astype(np.float32),
        },
    )


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("name", BATCH_RULES)
@pytest.mark.parametrize("count", [1, 10, 60, 80])
def test_a_batch_has_distinct_photos_and_the_length_asked_for_or_all(name: str, count: int) -> None:
    batch = BATCH_RULES[name](draw_candidates(), count, generator())
    assert len(batch) == min(count, 60)
    assert len(np.unique(batch)) == len(batch)
    assert batch.min() >= 0
    assert batch.max() < 60


@pytest.mark.parametrize("name", BATCH_RULES)
def test_the_same_seed_gives_the_same_batch(name: str) -> None:
    rule = BATCH_RULES[name]
    np.testing.assert_array_equal(rule(draw_candidates(), 10, generator()), rule(draw_candidates(), 10, generator()))


@pytest.mark.parametrize("name", BATCH_RULES)
def test_equal_photos_that_nothing_is_known_of_make_a_batch(name: str) -> None:
    same = Candidates(np.ones((12, 4), np.float32), np.zeros(12, np.float32), {"a": np.full((12, 2), 0.5, np.float32)})
    assert len(np.unique(BATCH_RULES[name](same, 5, generator()))) == 5


def test_top_takes_the_highest_scores_in_order() -> None:
    candidates = draw_candidates()
    np.testing.assert_array_equal(
        top_k(candidates, 5, generator()), sorted(range(60), key=lambda i: -candidates.scores[i])[:5]
    )


def test_power_draws_each_photo_in_proportion_to_its_score() -> None:
    """Against numpy's own weighted draw without replacement, over many draws."""
    scores = np.array([1, 2, 3, 4, 10], dtype=np.float32)
    candidates = Candidates(np.zeros((5, 2), np.float32), scores, {})
    rng, reference = np.random.default_rng(0), np.random.default_rng(1)
    draws = 4000
    found, expected = np.zeros(5), np.zeros(5)
    for _ in range(draws):
        found[power(candidates, 2, rng)] += 1
        expected[reference.choice(5, 2, replace=False, p=scores / scores.sum())] += 1
    np.testing.assert_allclose(found / draws, expected / draws, atol=0.04)


def test_power_leaves_photos_of_score_zero_to_the_end() -> None:
    scores = np.array([0, 0.5, 0, 0.1], dtype=np.float32)
    batch = power(Candidates(np.zeros((4, 2), np.float32), scores, {}), 4, generator())
    assert set(batch[:2]) == {1, 3}


def test_distinct_skips_a_near_duplicate_of_a_better_photo() -> None:
    embeddings = np.array([[1, 0], [0.99, 0.01], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.3, 0.2, 0.1], dtype=np.float32)
    batch = distinct(Candidates(embeddings, scores, {}), 3, generator())
    assert list(batch) == [0, 2, 3]


def test_distinct_fills_up_with_near_duplicates_when_nothing_else_is_left() -> None:
    embeddings = np.array([[1, 0], [0.99, 0.01], [-1, 0]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.3], dtype=np.float32)
    assert list(distinct(Candidates(embeddings, scores, {}), 3, generator())) == [0, 2, 1]


def test_slots_takes_one_photo_of_each_group_of_candidates() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(36) % 9
    embeddings = (10 * np.eye(9)[group] + 0.01 * rng.normal(size=(36, 9))).astype(np.float32)
    batch = slots(Candidates(embeddings, rng.uniform(size=36).astype(np.float32), {}), 9, generator())
    assert set(group[batch]) == set(range(9))


def test_slots_looks_at_two_candidates_for_each_photo_of_the_batch() -> None:
    candidates = draw_candidates()
    best = set(np.argsort(-candidates.scores)[:10])
    assert set(slots(candidates, 5, generator())) <= best


def slow_badge(candidates: Candidates, count: int, rng: np.random.Generator) -> IntArray:
    """k-means++ on outer products that are written out, one photo at a time."""
    centred = candidates.embeddings - candidates.embeddings.mean(axis=0)
    gradients = []
    for photo, embedding in enumerate(centred):
        parts = []
        for probabilities in candidates.probabilities.values():
            error = probabilities[photo].astype(np.float64)
            error[error.argmax()] -= 1
            parts.append(np.outer(error, embedding).ravel())
        gradients.append(np.concatenate(parts))
    rows = np.array(gradients)
    chosen = [int(np.linalg.norm(rows, axis=1).argmax())]
    while len(chosen) < count:
        distances = cdist(rows, rows[chosen], "sqeuclidean").min(axis=1)
        distances[chosen] = 0
        chosen.append(int(rng.choice(len(rows), p=distances / distances.sum())))
    return np.array(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_badge_draws_what_written_out_gradients_draw(seed: int) -> None:
    candidates = draw_candidates(seed=seed)
    found = badge(candidates, 15, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, slow_badge(candidates, 15, np.random.default_rng(seed)))


def test_badge_draws_uncertain_photos_rather_than_certain_ones() -> None:
    candidates = draw_candidates(100)
    probabilities = np.tile(np.array([1, 0], np.float32), (100, 1))
    probabilities[:10] = 0.5
    batch = badge(Candidates(candidates.embeddings, candidates.scores, {"damage": probabilities}), 10, generator())
    # All certain photos have the gradient zero: they are one more group, which may be drawn from once.
    assert len(set(batch) - set(range(10))) <= 1
