import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from carcond.analysis.label_errors import (
    MIN_GROUPS,
    confident_joint,
    out_of_sample,
    suspect_labels,
    suspect_task,
    wrong_labels,
)
from carcond.arrays import UNKNOWN, BoolArray, FloatArray, IntArray
from carcond.data.folds import grouped_folds
from carcond.taxonomy import CLEANLINESS, DAMAGE, Task

DIMENSION = 24


def clouds(count: int, classes: int, seed: int = 0, apart: float = 8.0) -> tuple[FloatArray, IntArray]:
    """Photos in one cloud a class."""
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    centres = apart * np.linalg.qr(rng.normal(size=(DIMENSION, classes)))[0].T
    return (centres[truth] + rng.normal(size=(count, DIMENSION))).astype(np.float32), truth


def flip(truth: IntArray, classes: int, share: float, seed: int = 0) -> tuple[IntArray, IntArray]:
    """Labels of which a share is wrong, and the positions of those."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(truth), round(share * len(truth)), replace=False)
    labels = truth.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return labels, wrong


def alone(count: int) -> IntArray:
    return np.arange(count, dtype=np.int64)


def plain_joint(probabilities: FloatArray, indices: IntArray) -> list[list[int]]:
    """The confident joint as the paper writes it down (arXiv 1911.00068, equations 1 and 2)."""
    count = probabilities.shape[1]
    joint = [[0] * count for _ in range(count)]
    thresholds = []
    for k in range(count):
        own = [float(p[k]) for p, given in zip(probabilities, indices, strict=True) if given == k]
        thresholds.append(sum(own) / len(own) if own else float("inf"))
    for p, given in zip(probabilities, indices, strict=True):
        reached = [k for k in range(count) if p[k] >= thresholds[k]]
        if reached:
            joint[given][max(reached, key=lambda k: float(p[k]))] += 1
    return joint


@pytest.mark.parametrize("seed", range(6))
def test_the_confident_joint_is_that_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), size=80).astype(np.float32)
    indices = rng.integers(0, 2 if seed == 0 else 3, 80)
    assert confident_joint(probabilities, indices).tolist() == plain_joint(probabilities, indices)


def test_as_many_labels_of_a_class_are_thought_wrong_as_the_joint_says() -> None:
    sure, torn = [0.9, 0.1], [0.45, 0.55]
    probabilities = np.array([sure] * 8 + [torn, [0.05, 0.95]] + [[0.1, 0.9]] * 10, dtype=np.float32)
    indices = np.array([0] * 10 + [1] * 10)
    # Of ten labels of class 0 eight are counted as 0, one as 1, and the torn one not at all: 10 * 1 / 9 = 1.1.
    assert np.flatnonzero(wrong_labels(probabilities, indices)).tolist() == [9]


def test_each_photo_is_judged_by_heads_that_have_not_seen_its_group() -> None:
    # Each group is a place of its own, and its label is chance: only who has seen a group knows its label.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    embeddings = (20 * rng.normal(size=(30, 60))[groups] + rng.normal(size=(120, 60))).astype(np.float32)
    labels = (np.arange(30) % 2)[groups]
    apart = out_of_sample(embeddings, labels, groups, 2)
    leaking = out_of_sample(embeddings, labels, alone(120), 2)
    own = np.arange(120), labels
    assert (leaking[own] > 0.5).mean() > 0.85
    assert (apart[own] > 0.5).mean() < 0.75


@pytest.mark.parametrize("trusted", [np.ones(200, dtype=bool), np.arange(200) % 9 > 0])
def test_logits_are_those_of_scikit_learn_averaged_over_three_deals_of_five_folds(trusted: BoolArray) -> None:
    embeddings, truth = clouds(200, 2, apart=1.5)
    probabilities = out_of_sample(embeddings, truth, alone(200), 2, seed=3, trusted=trusted)
    logits = np.zeros(200)
    for deal in range(3):
        fold = grouped_folds(truth, alone(200), 5, 3 + deal)
        for k in range(5):
            fitted = (fold != k) & trusted
            seen = embeddings[fitted]
            scale = np.sqrt(seen.var(axis=0).mean())
            model = LogisticRegression(C=0.01, class_weight="balanced", tol=1e-6)
            model.fit((seen - seen.mean(axis=0)) / scale, truth[fitted])
            logits[fold == k] += model.decision_function((embeddings[fold == k] - seen.mean(axis=0)) / scale) / 3
    tempered = np.log(probabilities[:, 1] / probabilities[:, 0])
    temperature = (logits @ logits) / (logits @ tempered)
    np.testing.assert_allclose(tempered * temperature, logits, atol=0.02)
    assert 0.05 < temperature < 1  # so strong a penalty makes heads too modest


def test_a_class_without_a_trusted_photo_is_fitted_on_all_of_its_photos() -> None:
    embeddings, truth = clouds(60, 2)
    np.testing.assert_array_equal(
        out_of_sample(embeddings, truth, alone(60), 2, trusted=truth == 0),
        out_of_sample(embeddings, truth, alone(60), 2),
    )


def test_a_second_round_without_the_suspected_labels_finds_more_of_the_wrong_ones() -> None:
    first, second = [], []
    for seed in range(4):
        embeddings, truth = clouds(300, 2, seed, apart=2.5)
        labels, wrong = flip(truth, 2, 0.1, seed)
        one_round = out_of_sample(embeddings, labels, alone(300), 2)[np.arange(300), labels]
        two_rounds = suspect_task(DAMAGE, embeddings, labels, alone(300)).suspicion
        first.append(np.isin(np.argsort(one_round)[:30], wrong).mean())
        second.append(np.isin(np.argsort(-two_rounds)[:30], wrong).mean())
    assert np.mean(second) > np.mean(first) + 0.01


@pytest.mark.parametrize("task", [DAMAGE, CLEANLINESS])
def test_flipped_labels_are_the_most_suspected(task: Task) -> None:
    embeddings, truth = clouds(300, len(task.classes))
    labels, wrong = flip(truth, len(task.classes), 0.05)
    found = suspect_task(task, embeddings, labels, alone(300))
    assert set(np.argsort(-found.suspicion)[: len(wrong)].tolist()) == set(wrong.tolist())
    assert len(np.intersect1d(found.ranked(), wrong)) > 0.6 * len(wrong)  # the joint is an estimate
    assert len(np.setdiff1d(found.ranked(), wrong)) <= 2
    assert found.likely[wrong].tolist() == truth[wrong].tolist()
    assert found.suspicion[wrong].min() > 0.5


def test_labels_that_fit_are_hardly_ever_suspected() -> None:
    embeddings, truth = clouds(300, 2)
    assert suspect_task(DAMAGE, embeddings, truth, alone(300)).suspected.sum() <= 3


def test_the_same_labels_give_the_same_suspects() -> None:
    embeddings, truth = clouds(100, 2, apart=2.0)
    first, second = (suspect_task(DAMAGE, embeddings, truth, alone(100)) for _ in range(2))
    np.testing.assert_array_equal(first.suspicion, second.suspicion)


def test_photos_without_a_label_of_a_task_are_not_judged_for_it() -> None:
    embeddings, truth = clouds(120, 2)
    labels, wrong = flip(truth, 2, 0.05)
    known = np.arange(120) % 3 > 0
    found = suspect_labels(
        embeddings,
        {"damage": np.where(known, labels, UNKNOWN), "cleanliness": np.full(120, UNKNOWN)},
        alone(120),
    )
    assert set(found) == {"damage"}
    assert found["damage"].judged.tolist() == known.tolist()
    assert not found["damage"].suspected[~known].any()
    assert set(found["damage"].ranked().tolist()) <= {i for i in wrong.tolist() if known[i]}
    assert found["damage"].suspected.any()


def test_a_class_of_too_few_photos_is_named_and_not_judged() -> None:
    embeddings, truth = clouds(90, 3)
    labels = np.where((truth == 2) & (np.arange(90) >= 3 * (MIN_GROUPS - 1)), UNKNOWN, truth)
    found = suspect_task(CLEANLINESS, embeddings, labels, alone(90))
    assert found.too_few == ("very_dirty",)
    assert not found.judged[labels == 2].any()
    assert found.judged[labels == 0].all()


def test_many_photos_of_few_groups_are_too_few() -> None:
    embeddings, truth = clouds(80, 2)
    groups = np.where(truth == 0, np.arange(80), 1000 + np.arange(80) % 3)
    found = suspect_task(DAMAGE, embeddings, truth, groups)
    assert found.too_few == ("intact", "damaged")
    assert not found.judged.any()
    assert len(found.ranked()) == 0


def test_no_photo_at_all_is_no_error() -> None:
    nothing = np.empty(0, dtype=np.int64)
    found = suspect_task(DAMAGE, np.empty((0, DIMENSION), np.float32), nothing, nothing)
    assert found.too_few == ()
    assert not found.suspected.any()
