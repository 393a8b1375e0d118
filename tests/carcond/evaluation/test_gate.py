import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import f1_score, recall_score

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.evaluation.gate import Comparison, ModelOnHoldout, Verdict, compare, evaluate_candidate
from carcond.model.heads import Head, Heads
from carcond.model.version_card import FIGURES
from carcond.taxonomy import CLEANLINESS, DAMAGE, TASK_BY_KEY, Task


def sure_of(answers: IntArray, class_count: int, confidence: float = 0.9) -> FloatArray:
    """Probabilities ``(N, K)`` of a version that is equally sure of each of its answers."""
    rest = (1 - confidence) / (class_count - 1)
    return np.where(np.eye(class_count, dtype=bool)[answers], confidence, rest).astype(np.float32)


def drawn_answers(indices: IntArray, accuracy: float, rng: np.random.Generator) -> IntArray:
    wrong = (indices + rng.integers(1, indices.max() + 1, len(indices))) % (indices.max() + 1)
    return np.where(rng.random(len(indices)) < accuracy, indices, wrong)


def contender(name: str, probabilities: dict[str, FloatArray]) -> ModelOnHoldout:
    """A version that gives these probabilities: photo i is the i-th unit vector, and its logits a head's column."""
    count = len(next(iter(probabilities.values())))
    heads = {
        key: Head(TASK_BY_KEY[key], np.log(each).T, np.zeros(each.shape[1], np.float32), 1.0, cross_fitted=True)
        for key, each in probabilities.items()
    }
    return ModelOnHoldout(name, Heads("tiny", heads), np.eye(count, dtype=np.float32), np.arange(count))


def damage_contender(name: str, answers: IntArray, confidence: float = 0.9) -> ModelOnHoldout:
    return contender(name, {"damage": sure_of(answers, 2, confidence)})


def verdict_on(
    candidate: ModelOnHoldout,
    serving: ModelOnHoldout | None,
    margin: float = 0.02,
    min_photos: int = 20,
    **classes: IntArray,
) -> Verdict:
    return evaluate_candidate(candidate, serving, classes, margin=margin, min_photos=min_photos)


EVEN = np.arange(40) % 2
INVERTED = 1 - EVEN


# The figures and their intervals


def plain_interval(serving: IntArray, candidate: IntArray, indices: IntArray, figure: str) -> tuple[float, float]:
    """Photo by photo, with the doubtful photos of each class written out, and scikit-learn's figures."""
    rng = np.random.default_rng(1)
    others = indices.max()
    photos: list[tuple[int, int, int, float]] = [
        (int(c), int(s), int(k), 1.0) for c, s, k in zip(indices, serving, candidate, strict=True)
    ]
    for c in np.unique(indices):
        for s in range(others + 1):
            for k in range(others + 1):
                weight = 0.5 * (1 if s == c else 1 / others) * (1 if k == c else 1 / others)
                photos.append((int(c), s, k, weight))
    drawn = []
    for _ in range(200):
        sample = []
        for c in np.unique(indices):
            members = [photo for photo in photos if photo[0] == c]
            weights = np.array([photo[3] for photo in members])
            chosen = rng.choice(len(members), int((indices == c).sum()), p=weights / weights.sum())
            sample += [members[i] for i in chosen]
        truth, before, after = ([photo[i] for photo in sample] for i in range(3))
        present = np.unique(indices)
        if figure == "macro_f1":
            options = {"labels": present, "average": "macro", "zero_division": 0.0}
            drawn.append(f1_score(truth, after, **options) - f1_score(truth, before, **options))
        else:
            recalls = [
                recall_score(truth, each, labels=present, average=None, zero_division=0.0) for each in (before, after)
            ]
            drawn.append(recalls[1].min() - recalls[0].min())
    low, high = np.quantile(drawn, [0.05, 0.95])
    return float(low), float(high)


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["macro_f1", "worst_recall"])
@pytest.mark.parametrize(("class_count", "photos"), [(2, 30), (3, 24)])
def test_the_interval_is_that_of_a_plain_bootstrap(class_count: int, photos: int, figure: str) -> None:
    rng = np.random.default_rng(class_count)
    indices = rng.integers(0, class_count, photos)
    serving, candidate = drawn_answers(indices, 0.9, rng), drawn_answers(indices, 0.6, rng)
    found = compare(sure_of(serving, class_count), sure_of(candidate, class_count), indices)[figure]
    assert (found.low, found.high) == pytest.approx(plain_interval(serving, candidate, indices, figure), abs=0.06)


@pytest.mark.parametrize("class_count", [2, 3])
def test_the_figures_are_those_of_scikit_learn(class_count: int) -> None:
    rng = np.random.default_rng(class_count)
    indices = rng.integers(0, class_count, 40)
    serving, candidate = drawn_answers(indices, 0.9, rng), drawn_answers(indices, 0.6, rng)
    found = compare(sure_of(serving, class_count), sure_of(candidate, class_count), indices)
    for answers, side in ((serving, "serving"), (candidate, "candidate")):
        assert getattr(found["macro_f1"], side) == pytest.approx(f1_score(indices, answers, average="macro"))
        assert getattr(found["worst_recall"], side) == pytest.approx(recall_score(indices, answers, average=None).min())
    assert found["macro_f1"].difference == found["macro_f1"].candidate - found["macro_f1"].serving


def test_the_interval_of_the_probability_score_is_that_of_scipys_paired_t() -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 3, 50)
    serving, candidate = (rng.dirichlet(np.ones(3), 50).astype(np.float32) for _ in range(2))
    found = compare(serving, candidate, indices)["probability_score"]
    scores = [
        [1 - sum((p[k] - (k == c)) ** 2 for k in range(3)) / 2 for p, c in zip(each, indices, strict=True)]
        for each in (serving, candidate)
    ]
    reference = ttest_rel(scores[1], scores[0]).confidence_interval(0.90)
    assert (found.serving, found.candidate) == pytest.approx((np.mean(scores[0]), np.mean(scores[1])))
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_a_class_that_does_not_occur_takes_no_part() -> None:
    indices = np.array([0, 1] * 15)
    found = compare(sure_of(indices, 3), sure_of(np.where(np.arange(30) < 3, 2, indices), 3), indices)
    assert found["macro_f1"].serving == found["worst_recall"].serving == 1
    assert 0.8 < found["worst_recall"].candidate < 1


def test_the_same_photos_give_the_same_comparison() -> None:
    serving, candidate = sure_of(EVEN, 2), sure_of(INVERTED, 2)
    assert compare(serving, candidate, EVEN) == compare(serving, candidate, EVEN)


def test_equal_versions_do_not_differ() -> None:
    for comparison in compare(sure_of(EVEN, 2), sure_of(EVEN, 2), EVEN).values():
        assert comparison.difference == 0
        assert comparison.low <= 0 <= comparison.high


@pytest.mark.parametrize("missed", [1, 2])
def test_a_few_photos_of_a_rare_class_are_no_proof(missed: int) -> None:
    """All that there is of the class is missed; a bootstrap alone would be certain."""
    indices = np.repeat([0, 1, 2], [20, 20, missed])
    candidate = np.where(indices == 2, 1, indices)
    found = compare(sure_of(indices, 3), sure_of(candidate, 3), indices)
    assert found["worst_recall"].difference == -1
    assert not any(comparison.finds_worse(0.02) for comparison in found.values())


def test_a_version_that_is_as_right_and_much_less_honest_is_found_by_its_probabilities() -> None:
    answers = np.where(np.arange(40) < 8, INVERTED, EVEN)
    found = compare(sure_of(answers, 2, 0.8), sure_of(answers, 2, 0.999), EVEN)
    assert {name for name, comparison in found.items() if comparison.difference} == {"probability_score"}
    assert found["probability_score"].difference < -0.02


@pytest.mark.parametrize(
    ("difference", "high", "worse"), [(-0.1, -0.01, True), (-0.1, 0.01, False), (-0.01, -0.005, False)]
)
def test_worse_is_beyond_the_margin_and_beyond_chance(difference: float, high: float, worse: bool) -> None:
    assert Comparison(0.9, 0.9 + difference, difference, -0.2, high).finds_worse(0.02) is worse


# How often it errs, on drawn answers


@pytest.mark.parametrize("photos", [20, 40])
def test_versions_of_equal_quality_are_seldom_refused(photos: int) -> None:
    rng = np.random.default_rng(photos)
    refused = 0
    for _ in range(100):
        indices = rng.integers(0, 3, photos)
        one, other = (sure_of(drawn_answers(indices, 0.85, rng), 3, 0.85) for _ in range(2))
        refused += any(comparison.finds_worse(0.02) for comparison in compare(one, other, indices).values())
    assert refused <= 10


@pytest.mark.parametrize(("class_count", "photos"), [(2, 40), (3, 20)])
def test_a_guessing_version_is_nearly_always_refused(class_count: int, photos: int) -> None:
    """It knows that it guesses, as a calibrated version that learnt from shuffled labels does."""
    rng = np.random.default_rng(class_count)
    refused = 0
    for _ in range(100):
        indices = rng.integers(0, class_count, photos)
        serving = sure_of(drawn_answers(indices, 0.9, rng), class_count)
        guessing = sure_of(drawn_answers(indices, 1 / class_count, rng), class_count, 1 / class_count + 0.05)
        refused += any(comparison.finds_worse(0.02) for comparison in compare(serving, guessing, indices).values())
    assert refused >= 95


# The verdict


def test_the_first_version_is_accepted() -> None:
    verdict = verdict_on(damage_contender("candidate", INVERTED), None, damage=EVEN)
    assert verdict.facts() == {"accepted": True, "reason": "first version", "against": None, "tasks": {}}


def test_a_worse_candidate_is_refused_with_numbers() -> None:
    verdict = verdict_on(damage_contender("candidate", INVERTED), damage_contender("carcond-0004", EVEN), damage=EVEN)
    assert not verdict.accepted
    assert verdict.reason.startswith("worse, damage: macro-F1 0.000 after 1.000 on 40 photos (-1.000, ")
    facts = verdict.facts()
    assert facts["against"] == "carcond-0004"
    assert set(facts["tasks"]["damage"]) == {"photos", "tested", *FIGURES}
    assert facts["tasks"]["damage"]["worst_recall"]["difference"] == -1
    assert json.loads(json.dumps(facts)) == facts


def test_a_better_candidate_is_accepted_and_not_the_other_way_round() -> None:
    better, worse = damage_contender("a", EVEN), damage_contender("b", np.where(np.arange(40) < 16, INVERTED, EVEN))
    accepted = verdict_on(better, worse, damage=EVEN)
    assert (accepted.accepted, accepted.reason) == (True, "not found worse, damage on 40 photos")
    assert not verdict_on(worse, better, damage=EVEN).accepted


def test_a_wide_margin_lets_a_worse_candidate_through() -> None:
    serving, candidate = (
        damage_contender("a", EVEN),
        damage_contender("b", np.where(np.arange(40) < 10, INVERTED, EVEN)),
    )
    assert not verdict_on(candidate, serving, damage=EVEN).accepted
    assert verdict_on(candidate, serving, margin=0.5, damage=EVEN).accepted


def test_one_worse_task_is_enough() -> None:
    indices = np.arange(40) % 3
    serving = contender("a", {"damage": sure_of(EVEN, 2), "cleanliness": sure_of(indices, 3)})
    candidate = contender("b", {"damage": sure_of(EVEN, 2), "cleanliness": sure_of((indices + 1) % 3, 3)})
    verdict = verdict_on(candidate, serving, damage=EVEN, cleanliness=indices)
    assert not verdict.accepted
    assert "damage" not in verdict.reason


def test_too_few_holdout_labels_are_said_and_not_tested() -> None:
    labels = np.where(np.arange(40) < 19, EVEN, UNKNOWN)
    serving, candidate = damage_contender("a", EVEN), damage_contender("b", INVERTED)
    verdict = verdict_on(candidate, serving, damage=labels)
    assert (verdict.accepted, verdict.reason) == (True, "damage: too few hold-out labels, 19 of 20")
    assert verdict.facts()["tasks"] == {
        "damage": {"photos": 19, "tested": False, "untested": "too few hold-out labels, 19 of 20"}
    }
    assert not verdict_on(candidate, serving, damage=np.where(np.arange(40) < 20, EVEN, UNKNOWN)).accepted


def test_photos_without_a_label_of_the_task_do_not_count() -> None:
    """On those labelled both are right; on the others the candidate would be wrong."""
    labels = np.where(np.arange(40) < 30, EVEN, UNKNOWN)
    candidate = damage_contender("b", np.where(np.arange(40) < 30, EVEN, INVERTED))
    verdict = verdict_on(candidate, damage_contender("a", EVEN), damage=labels)
    assert verdict.accepted
    assert verdict.tasks["damage"].photos == 30


def test_a_candidate_that_lost_a_task_is_refused_while_the_label_config_asks_for_it() -> None:
    serving = contender("carcond-0004", {"damage": sure_of(EVEN, 2), "cleanliness": sure_of(EVEN, 3)})
    candidate = damage_contender("candidate", EVEN)
    verdict = verdict_on(candidate, serving, damage=EVEN, cleanliness=EVEN)
    assert not verdict.accepted
    assert "it cannot tell cleanliness, which carcond-0004 can" in verdict.reason
    assert evaluate_candidate(candidate, serving, {"damage": EVEN}, margin=0.02, min_photos=20, tasks=[DAMAGE]).accepted


def test_a_task_that_the_serving_version_cannot_tell_is_not_tested() -> None:
    candidate = contender("b", {"damage": sure_of(EVEN, 2), "cleanliness": sure_of(EVEN, 3)})
    verdict = verdict_on(candidate, damage_contender("carcond-0004", EVEN), damage=EVEN, cleanliness=EVEN)
    assert verdict.reason == "not found worse, damage on 40 photos; cleanliness: carcond-0004 cannot tell it"


@pytest.mark.parametrize("tasks", [[CLEANLINESS], []])
def test_without_a_task_to_compare_it_says_so(tasks: list[Task]) -> None:
    same = damage_contender("a", EVEN)
    verdict = evaluate_candidate(same, same, {"damage": EVEN}, margin=0.02, min_photos=20, tasks=tasks)
    assert (verdict.accepted, verdict.reason) == (True, "no task to compare")


def test_an_empty_holdout_is_too_few_labels() -> None:
    serving, candidate = damage_contender("a", EVEN), damage_contender("b", EVEN)
    empty = np.empty(0, dtype=np.int64)
    none = ModelOnHoldout("a", serving.heads, serving.embeddings[:0], empty)
    other = ModelOnHoldout("b", candidate.heads, candidate.embeddings[:0], empty)
    assert verdict_on(other, none, damage=empty).accepted


def test_a_candidate_is_not_favoured_by_the_holdout_labels_on_which_its_temperature_was_chosen() -> None:
    """By its temperature it would be sure and right; by those chosen without each photo's own label it guesses."""
    plain = damage_contender("a", EVEN, 0.9)
    head = replace(plain.heads.by_task["damage"], fold_temperatures=np.full(5, 100, np.float32))
    favoured = replace(plain, heads=replace(plain.heads, by_task={"damage": head}))
    score = verdict_on(favoured, plain, damage=EVEN).tasks["damage"].comparisons["probability_score"]
    assert score.serving == pytest.approx(0.99)
    assert score.candidate == pytest.approx(0.75, abs=0.02)
