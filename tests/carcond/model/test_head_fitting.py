import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.special import softmax as reference_softmax
from scipy.stats import lognorm
from sklearn.linear_model import LogisticRegression

from carcond.arrays import UNKNOWN, BoolArray, FloatArray, IntArray, softmax
from carcond.data.folds import stratified_folds
from carcond.errors import NotEnoughLabelsError
from carcond.model.head_fitting import Holdout, fit_heads, fit_linear, fit_temperature
from carcond.model.heads import Head
from carcond.taxonomy import CLEANLINESS, DAMAGE, TASKS, Task
from tests.carcond.drawn_sets import draw_set


def uncalibrated(head: Head, embeddings: FloatArray) -> FloatArray:
    return softmax(head.logits(embeddings))


@pytest.mark.parametrize("count", [8, 40, 300])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_probabilities_at_temperature_one_are_those_of_scikit_learn(task: Task, count: int) -> None:
    embeddings, indices = draw_set(count, len(task.classes))
    head = fit_heads("tiny", embeddings, {task.key: indices}).by_task[task.key]

    scaled = (embeddings - embeddings.mean(axis=0)) / np.sqrt(embeddings.var(axis=0).mean())
    reference = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000, tol=1e-8).fit(
        scaled.astype(np.float64), indices
    )
    np.testing.assert_allclose(uncalibrated(head, embeddings), reference.predict_proba(scaled), atol=3e-3)


@pytest.mark.parametrize(("task", "count"), [(DAMAGE, 30), (CLEANLINESS, 60)])
def test_few_photos_in_many_dimensions_get_the_head_that_scikit_learn_fits_on_all(task: Task, count: int) -> None:
    """Inside, the fit happens in the few directions in which the photos differ."""
    embeddings, indices = draw_set(count, len(task.classes), dimension=300)
    unseen, _ = draw_set(40, len(task.classes), dimension=300, seed=1)
    mean, scale = embeddings.mean(axis=0), float(np.sqrt(embeddings.var(axis=0).mean()))
    reference = LogisticRegression(C=0.01, class_weight="balanced", max_iter=5000, tol=1e-8)
    reference.fit((embeddings - mean) / scale, indices)
    head = fit_heads("tiny", embeddings, {task.key: indices}).by_task[task.key]
    for photos in (embeddings, unseen):
        expected = reference.predict_proba((photos - mean) / scale)
        np.testing.assert_allclose(uncalibrated(head, photos), expected, atol=0.01)


def test_copies_of_one_photo_among_few_are_no_obstacle() -> None:
    embeddings, indices = draw_set(20, 2, dimension=100)
    twice, labels = np.concatenate([embeddings, embeddings]), np.concatenate([indices, indices])
    head = fit_heads("tiny", twice, {"damage": labels}).by_task["damage"]
    assert np.isfinite(head.weight).all()
    assert (head.probabilities(embeddings).argmax(axis=1) == indices).mean() > 0.9


def test_two_fits_on_the_same_labels_are_equal_to_the_last_bit() -> None:
    embeddings, indices = draw_set(120, 3)
    first, second = (fit_heads("tiny", embeddings.copy(), {"cleanliness": indices.copy()}) for _ in range(2))
    one, other = first.by_task["cleanliness"], second.by_task["cleanliness"]
    assert one.weight.tobytes() == other.weight.tobytes()
    assert one.bias.tobytes() == other.bias.tobytes()
    assert one.temperature == other.temperature


def test_photos_with_an_unknown_label_do_not_touch_the_head() -> None:
    embeddings, indices = draw_set(50, 2)
    expected = fit_heads("tiny", embeddings, {"damage": indices}).by_task["damage"]
    strangers = np.full((30, embeddings.shape[1]), 100, dtype=np.float32)
    masked = fit_heads(
        "tiny",
        np.concatenate([strangers, embeddings]),
        {"damage": np.concatenate([np.full(30, UNKNOWN), indices])},
    ).by_task["damage"]
    np.testing.assert_array_equal(masked.weight, expected.weight)
    np.testing.assert_array_equal(masked.bias, expected.bias)
    assert masked.temperature == expected.temperature


def test_each_head_masks_its_own_unknown_labels() -> None:
    embeddings, cleanliness = draw_set(60, 3)
    damage = (cleanliness == 0).astype(np.int64)
    damage[:30] = UNKNOWN
    together = fit_heads("tiny", embeddings, {"cleanliness": cleanliness, "damage": damage})
    alone = fit_heads("tiny", embeddings[30:], {"damage": damage[30:]})
    np.testing.assert_array_equal(together.by_task["damage"].weight, alone.by_task["damage"].weight)


@pytest.mark.parametrize("present", [(0, 1), (0, 2), (1, 2)])
def test_a_class_that_no_label_has_shown_gets_a_probability_of_about_zero(present: tuple[int, int]) -> None:
    embeddings, indices = draw_set(40, 2)
    head = fit_heads("tiny", embeddings, {"cleanliness": np.array(present)[indices]}).by_task["cleanliness"]
    (unseen,) = {0, 1, 2} - set(present)
    assert head.probabilities(embeddings)[:, unseen].max() < 1e-6


def test_an_unseen_class_stays_at_zero_at_the_highest_temperature() -> None:
    embeddings, indices = draw_set(40, 2)
    fitted = fit_heads("tiny", embeddings, {"cleanliness": indices}).by_task["cleanliness"]
    hot = Head(fitted.task, fitted.weight, fitted.bias, temperature=20.0, cross_fitted=True)
    assert hot.probabilities(embeddings)[:, 2].max() < 1e-6


def test_a_task_with_one_labelled_class_has_no_head() -> None:
    embeddings, indices = draw_set(20, 2)
    heads = fit_heads("tiny", embeddings, {"cleanliness": np.zeros(20, dtype=np.int64), "damage": indices})
    assert set(heads.by_task) == {"damage"}


@pytest.mark.parametrize("index", [0, UNKNOWN])
def test_no_task_with_two_labelled_classes_is_not_enough(index: int) -> None:
    embeddings, _ = draw_set(10, 2)
    with pytest.raises(NotEnoughLabelsError, match="at least two classes"):
        fit_heads("tiny", embeddings, {"cleanliness": np.full(10, index), "damage": np.full(10, UNKNOWN)})


def test_no_photo_at_all_is_not_enough() -> None:
    with pytest.raises(NotEnoughLabelsError, match="at least two classes"):
        fit_heads("tiny", np.zeros((0, 0), dtype=np.float32), {"damage": np.zeros(0, dtype=np.int64)})


def test_one_photo_of_each_class_is_enough_and_leaves_the_temperature_at_one() -> None:
    embeddings, _ = draw_set(2, 2)
    head = fit_heads("tiny", embeddings, {"damage": np.array([0, 1])}).by_task["damage"]
    assert head.temperature == 1.0
    assert not head.cross_fitted
    np.testing.assert_array_equal(head.probabilities(embeddings).argmax(axis=1), [0, 1])


def test_the_temperature_is_chosen_once_two_classes_have_three_labels_each() -> None:
    embeddings, _ = draw_set(6, 2)
    few = fit_heads("tiny", embeddings[:5], {"damage": np.array([0, 0, 0, 1, 1])})
    enough = fit_heads("tiny", embeddings, {"damage": np.array([0, 0, 0, 1, 1, 1])})
    assert not few.by_task["damage"].cross_fitted
    assert enough.by_task["damage"].cross_fitted


def test_a_class_rarer_than_the_folds_is_learnt_all_the_same() -> None:
    embeddings, indices = draw_set(41, 2)
    indices[40] = 2
    embeddings[40] += 8
    head = fit_heads("tiny", embeddings, {"cleanliness": indices}).by_task["cleanliness"]
    assert head.cross_fitted
    assert head.probabilities(embeddings[40:]).argmax() == 2


def doubled(count: int, copies: int = 4) -> tuple[FloatArray, IntArray, IntArray]:
    """Hard photos, each `copies` times over with hardly a change, and their groups."""
    rng = np.random.default_rng(3)
    indices = np.arange(count) % 2
    embeddings = (rng.normal(size=(count, 64)) + 0.1 * indices[:, None]).astype(np.float32)
    repeated = np.repeat(embeddings, copies, axis=0)
    noise = 0.01 * rng.normal(size=repeated.shape)
    return (repeated + noise).astype(np.float32), np.repeat(indices, copies), np.repeat(np.arange(count), copies)


def test_near_duplicates_in_one_group_do_not_make_the_head_too_sure() -> None:
    embeddings, indices, groups = doubled(30)
    blind = fit_heads("tiny", embeddings, {"damage": indices}).by_task["damage"]
    aware = fit_heads("tiny", embeddings, {"damage": indices}, groups=groups).by_task["damage"]
    np.testing.assert_array_equal(blind.weight, aware.weight)
    assert aware.cross_fitted
    assert aware.temperature > 2 * blind.temperature


def test_groups_of_one_photo_change_nothing() -> None:
    embeddings, indices = draw_set(40, 2)
    plain = fit_heads("tiny", embeddings, {"damage": indices}).by_task["damage"]
    grouped = fit_heads("tiny", embeddings, {"damage": indices}, groups=np.arange(40)[::-1]).by_task["damage"]
    assert grouped.temperature == plain.temperature


def test_groups_go_with_the_labels_that_are_known() -> None:
    embeddings, indices, groups = doubled(30)
    known = np.arange(len(indices)) % 3 > 0
    masked = fit_heads("tiny", embeddings, {"damage": np.where(known, indices, UNKNOWN)}, groups=groups)
    alone = fit_heads("tiny", embeddings[known], {"damage": indices[known]}, groups=groups[known])
    assert masked.by_task["damage"].temperature == alone.by_task["damage"].temperature


def test_a_class_seen_in_one_group_only_leaves_the_temperature_at_one() -> None:
    embeddings, indices = draw_set(20, 2)
    head = fit_heads("tiny", embeddings, {"damage": indices}, groups=indices).by_task["damage"]
    assert head.temperature == 1.0
    assert not head.cross_fitted


def test_equal_embeddings_of_two_classes_give_an_even_chance() -> None:
    embeddings = np.full((8, 5), 0.25, dtype=np.float32)
    heads = fit_heads("tiny", embeddings, {"damage": np.array([0, 1] * 4)})
    np.testing.assert_allclose(heads.probabilities(embeddings)["damage"], 0.5, atol=1e-4)


# Calibration


def nll(logits: FloatArray, indices: IntArray, temperature: float) -> float:
    scaled = logits.astype(np.float64) / temperature
    return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(indices)), indices]).mean())


def sample_logits(sharpness: float, seed: int = 0, count: int = 2000) -> tuple[FloatArray, IntArray]:
    """Logits that are `sharpness` times those the classes were drawn from."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(scale=1.5, size=(count, 3))
    indices = np.array([rng.choice(3, p=row) for row in reference_softmax(honest, axis=1)])
    return (sharpness * honest).astype(np.float32), indices


@pytest.mark.parametrize("count", [13, 100, 2000])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0, 10.0])
def test_the_temperature_is_that_of_a_slow_grid_search(sharpness: float, count: int) -> None:
    logits, indices = sample_logits(sharpness, count=count)
    grid = np.geomspace(0.05, 20, 1000)
    losses = [count * nll(logits, indices, each) - lognorm.logpdf(each, s=0.5) - np.log(each) for each in grid]
    assert fit_temperature(logits, indices) == pytest.approx(grid[np.argmin(losses)], rel=0.01)


def test_a_weight_counts_a_photo_so_many_times() -> None:
    logits, indices = sample_logits(3.0, count=60)
    times = np.arange(60) % 4
    repeated = fit_temperature(np.repeat(logits, times, axis=0), np.repeat(indices, times))
    assert fit_temperature(logits, indices, times.astype(np.float64)) == pytest.approx(repeated, rel=1e-6)


def test_a_dozen_photos_that_were_all_told_right_do_not_make_a_head_very_sure() -> None:
    logits, _ = sample_logits(1.0)
    told = logits.argmax(axis=1)
    assert 0.4 < fit_temperature(logits[:12], told[:12]) < 0.9
    assert fit_temperature(logits, told) < 0.2


@pytest.mark.parametrize("sharpness", [0.2, 3.0, 10.0])
def test_the_temperature_undoes_logits_that_are_too_sharp_or_too_flat(sharpness: float) -> None:
    assert fit_temperature(*sample_logits(sharpness)) == pytest.approx(sharpness, rel=0.1)


def test_calibration_improves_the_likelihood_of_new_photos_when_the_head_was_too_sure() -> None:
    temperature = fit_temperature(*sample_logits(5.0, seed=0))
    logits, indices = sample_logits(5.0, seed=1)
    assert temperature > 1
    assert nll(logits, indices, temperature) < nll(logits, indices, 1.0) - 0.1


def test_logits_that_are_always_wrong_get_the_highest_temperature() -> None:
    logits, _ = sample_logits(1.0)
    assert fit_temperature(logits, logits.argmin(axis=1)) == pytest.approx(20, rel=0.01)


def test_a_photo_that_the_head_got_badly_wrong_counts() -> None:
    logits, indices = sample_logits(40.0)
    assert (logits[np.arange(len(indices)), indices] < -30).any()
    assert fit_temperature(logits, indices) == pytest.approx(20, rel=0.01)


def test_a_photo_whose_class_its_fold_never_saw_does_not_count() -> None:
    logits, indices = sample_logits(2.0)
    unseen = np.array([[1.0, -1.0, -1e4]] * 200, dtype=np.float32)
    with_unseen = fit_temperature(np.concatenate([logits, unseen]), np.concatenate([indices, np.full(200, 2)]))
    assert with_unseen == fit_temperature(logits, indices)


def test_the_fitted_temperature_makes_probabilities_honest_on_new_photos() -> None:
    embeddings, indices = draw_set(4000, 3)
    head = fit_heads("tiny", embeddings[:1000], {"cleanliness": indices[:1000]}).by_task["cleanliness"]
    logits = head.logits(embeddings[1000:])
    assert nll(logits, indices[1000:], head.temperature) <= nll(logits, indices[1000:], 1.0)


def seen_by_a_tuned_encoder(seed: int, fresh: BoolArray) -> tuple[FloatArray, IntArray]:
    """Photos that the encoder was trained on lie close together by class, and the fresh ones overlap."""
    rng = np.random.default_rng(seed)
    indices = np.arange(len(fresh)) % 2
    embeddings = 0.3 * rng.normal(size=(len(fresh), 32))
    apart, spread = np.where(fresh, 0.7, 2.0), np.where(fresh, 1.0, 0.2)
    embeddings[:, 0] = apart * (2 * indices - 1) + spread * rng.normal(size=len(fresh))
    return embeddings.astype(np.float32), indices


def test_the_temperature_is_chosen_on_fresh_photos_only() -> None:
    fresh = np.arange(180) % 3 == 0
    embeddings, indices = seen_by_a_tuned_encoder(5, fresh)
    blind = fit_heads("tiny", embeddings, {"damage": indices}).by_task["damage"]
    aware = fit_heads("tiny", embeddings, {"damage": indices}, fresh=fresh).by_task["damage"]
    np.testing.assert_array_equal(blind.weight, aware.weight)
    assert aware.cross_fitted
    # By hand: logits of each fresh photo from a head that was fitted without its fold.
    fold = stratified_folds(indices, 5, 0)
    logits = np.zeros((180, 2), np.float32)
    for k in range(5):
        weight, bias = fit_linear(embeddings[fold != k], indices[fold != k], 2)
        logits[fold == k] = embeddings[fold == k] @ weight.T + bias
    assert aware.temperature == pytest.approx(fit_temperature(logits[fresh], indices[fresh]), rel=0.05)
    assert aware.temperature > 1.5 * blind.temperature


def test_the_confidence_of_such_a_head_is_right_for_further_fresh_photos() -> None:
    fresh = np.arange(180) % 3 == 0
    embeddings, indices = seen_by_a_tuned_encoder(5, fresh)
    further, truth = seen_by_a_tuned_encoder(6, np.ones(2000, dtype=np.bool_))
    gaps = []
    for known_apart in (None, fresh):
        head = fit_heads("tiny", embeddings, {"damage": indices}, fresh=known_apart).by_task["damage"]
        probabilities = head.probabilities(further)
        right = probabilities.argmax(axis=1) == truth
        gaps.append(abs(float(probabilities.max(axis=1).mean() - right.mean())))
    blind, aware = gaps
    assert aware < 0.05 < blind


def test_too_few_fresh_photos_leave_the_temperature_at_one() -> None:
    embeddings, indices = draw_set(40, 2)
    fresh = np.arange(40) < 5  # two of one class
    head = fit_heads("tiny", embeddings, {"damage": indices}, fresh=fresh).by_task["damage"]
    assert head.temperature == 1.0
    assert not head.cross_fitted
    nothing = fit_heads("tiny", embeddings, {"damage": indices}, fresh=np.zeros(40, dtype=np.bool_))
    assert not nothing.by_task["damage"].cross_fitted


# With a hold-out


def hard_and_ordinary(hard: int, ordinary: int, seed: int = 0) -> tuple[FloatArray, IntArray, BoolArray]:
    """Photos of two classes, of which the hard ones lie close to the boundary, as chosen ones do."""
    rng = np.random.default_rng(seed)
    is_hard = np.arange(hard + ordinary) < hard
    indices = rng.integers(0, 2, hard + ordinary)
    embeddings = 0.5 * rng.normal(size=(hard + ordinary, 16))
    embeddings[:, 0] += np.where(is_hard, 0.3, 1.0) * (2 * indices - 1)
    return embeddings.astype(np.float32), indices, is_hard


def test_the_temperature_is_that_of_the_training_photos_and_ten_times_the_holdout_at_the_same_sum_of_weights() -> None:
    embeddings, indices, is_hard = hard_and_ordinary(150, 30)
    groups = np.arange(1000, 1030)
    holdout = Holdout(embeddings[~is_hard], {"damage": indices[~is_hard]}, groups)
    head = fit_heads("tiny", embeddings[is_hard], {"damage": indices[is_hard]}, holdout=holdout).by_task["damage"]
    fold = stratified_folds(indices[is_hard], 5, 0)
    logits = np.zeros((150, 2), np.float32)
    for k in range(5):
        weight, bias = fit_linear(embeddings[is_hard][fold != k], indices[is_hard][fold != k], 2)
        logits[fold == k] = embeddings[is_hard][fold == k] @ weight.T + bias
    held = head.logits(embeddings[~is_hard])

    def expected(kept: BoolArray) -> float:
        count = 150 + kept.sum()
        grid = np.geomspace(0.05, 20, 4000)
        losses = []
        for each in grid:
            total = 150 * nll(logits, indices[:150], each) + 10 * kept.sum() * nll(
                held[kept], indices[150:][kept], each
            )
            losses.append(total * count / (150 + 10 * kept.sum()) - lognorm.logpdf(each, s=0.5) - np.log(each))
        return float(grid[np.argmin(losses)])

    assert head.temperature == pytest.approx(expected(np.ones(30, dtype=np.bool_)), rel=0.01)
    assert head.fold_temperatures is not None
    for k, found in enumerate(head.fold_temperatures):
        assert found == pytest.approx(expected(groups % 5 != k), rel=0.01)


def test_weights_are_never_fitted_on_the_holdout() -> None:
    embeddings, indices, is_hard = hard_and_ordinary(60, 30)
    train = embeddings[is_hard], {"damage": indices[is_hard]}
    holdout = Holdout(embeddings[~is_hard], {"damage": 1 - indices[~is_hard]}, np.arange(30))
    alone, beside = fit_heads("tiny", *train), fit_heads("tiny", *train, holdout=holdout)
    np.testing.assert_array_equal(alone.by_task["damage"].weight, beside.by_task["damage"].weight)
    assert beside.by_task["damage"].temperature > 2 * alone.by_task["damage"].temperature


def test_a_head_fitted_on_hard_photos_is_calibrated_for_ordinary_ones_by_the_holdout() -> None:
    embeddings, indices, is_hard = hard_and_ordinary(150, 3030)
    held, new = slice(150, 180), slice(180, None)
    gaps = []
    for holdout in (None, Holdout(embeddings[held], {"damage": indices[held]}, np.arange(30))):
        head = fit_heads("tiny", embeddings[is_hard], {"damage": indices[is_hard]}, holdout=holdout).by_task["damage"]
        probabilities = head.probabilities(embeddings[new])
        right = probabilities.argmax(axis=1) == indices[new]
        gaps.append(abs(float(probabilities.max(axis=1).mean() - right.mean())))
    blind, aware = gaps
    assert 2 * aware < blind


def test_the_label_of_a_holdout_photo_has_no_part_in_the_probability_that_it_is_measured_by() -> None:
    embeddings, indices, is_hard = hard_and_ordinary(60, 30)
    groups = np.arange(30) // 2  # pairs that share a group
    found = []
    for turned in (False, True):
        classes = indices[~is_hard].copy()
        if turned:
            classes[:2] = 1 - classes[:2]
        holdout = Holdout(embeddings[~is_hard], {"damage": classes}, groups)
        head = fit_heads("tiny", embeddings[is_hard], {"damage": indices[is_hard]}, holdout=holdout).by_task["damage"]
        found.append(head.holdout_probabilities(embeddings[~is_hard], groups))
    np.testing.assert_array_equal(found[0][:2], found[1][:2])
    assert np.abs(found[0][2:10] - found[1][2:10]).max() > 0.001


def test_with_too_few_training_labels_for_folds_the_temperature_is_chosen_on_the_holdout() -> None:
    embeddings, indices, is_hard = hard_and_ordinary(30, 30)
    some = np.concatenate([np.flatnonzero(indices[:30] == k)[:2] for k in (0, 1)])
    holdout = Holdout(embeddings[~is_hard], {"damage": indices[~is_hard]}, np.arange(30))
    head = fit_heads("tiny", embeddings[some], {"damage": indices[some]}, holdout=holdout).by_task["damage"]
    assert head.cross_fitted
    logits = head.logits(embeddings[~is_hard])
    assert head.temperature == pytest.approx(fit_temperature(logits, indices[~is_hard]), rel=1e-5)


def test_a_holdout_without_labels_of_the_task_changes_nothing() -> None:
    embeddings, indices = draw_set(60, 2)
    expected = fit_heads("tiny", embeddings, {"damage": indices}).by_task["damage"]
    for classes in ({}, {"damage": np.full(3, UNKNOWN)}):
        holdout = Holdout(embeddings[:3], classes, np.arange(3))
        head = fit_heads("tiny", embeddings, {"damage": indices}, holdout=holdout).by_task["damage"]
        assert head.temperature == expected.temperature
        assert head.fold_temperatures is None
