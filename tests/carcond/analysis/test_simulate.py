import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, f1_score

from carcond.analysis.replay import Curve, label_counts, measure_full
from carcond.analysis.replay import replay as replay_at
from carcond.analysis.replay_heads import METRICS
from carcond.analysis.replay_set import ReplayDataset
from carcond.analysis.simulate import TaskCurves, simulate
from carcond.analysis.simulation_report import labels_needed, mean_and_band, report
from carcond.arrays import UNKNOWN
from carcond.data.label_table import TaskLabels
from carcond.errors import LabelTableError
from carcond.model.head_fitting import fit_head
from carcond.model.single_thread import one_core
from carcond.query.strategy import Strategy, parse_strategies, parse_strategy
from carcond.taxonomy import CLEANLINESS, DAMAGE

STRATEGIES = ("random", "margin", "entropy-power", "confidence-distinct", "bald", "badge", "live")


@pytest.fixture(autouse=True)
def on_one_core() -> Iterator[None]:
    """As `simulate` replays."""
    with one_core():
        yield


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def draw_problem(count: int = 120, dimension: int = 8, seed: int = 0) -> ReplayDataset:
    """Two tasks; cleanliness is unknown for a third of the photos; every fourth photo is measured on."""
    rng = np.random.default_rng(seed)
    damage = rng.integers(0, 2, count)
    cleanliness = rng.integers(0, 3, count)
    embeddings = rng.normal(size=(count, dimension))
    embeddings[:, 0] += 3 * damage
    embeddings[:, 1] += 3 * cleanliness
    cleanliness[::3] = UNKNOWN
    labels = {"cleanliness": TaskLabels(CLEANLINESS, cleanliness), "damage": TaskLabels(DAMAGE, damage)}
    sources = {"left": np.arange(count) < count // 2, "right": np.arange(count) >= count // 2}
    return ReplayDataset(embeddings.astype(np.float32), labels, np.arange(count), np.arange(count) % 4 == 1, sources)


def replay(dataset: ReplayDataset, strategy: Strategy, seed: int) -> Curve:
    return replay_at(dataset, strategy, seed, label_counts(len(dataset.pool())))


@cache
def drawn_curves(names: str) -> dict[str, TaskCurves]:
    return run(draw_problem(80), names)


def run(dataset: ReplayDataset, names: str, seeds: int = 2, processes: int = 1) -> dict[str, TaskCurves]:
    return simulate(dataset.by_task(), parse_strategies(names), seeds, quiet, processes)


# Replaying


def test_measurements_grow_apart_and_end_with_the_whole_pool() -> None:
    assert label_counts(45) == [10, 20, 30, 40, 45]
    counts = label_counts(3000)
    assert counts[18:24] == [190, 200, 225, 250, 275, 300]
    assert counts[-1] == 3000


@pytest.mark.parametrize("name", STRATEGIES)
def test_with_all_labels_every_strategy_that_trains_on_them_reaches_the_full_score(name: str) -> None:
    dataset = draw_problem(60).by_task()[1]
    curve = replay(dataset, parse_strategy(name.replace("live", "joint-slots")), seed=0)
    np.testing.assert_allclose(curve.values["damage"][""][-1, :2], measure_full(dataset)["damage"][:2], atol=0.04)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_replay_is_the_same_for_the_same_seed(name: str) -> None:
    dataset = draw_problem(60)
    first, second = (replay(dataset, parse_strategy(name), seed=3) for _ in range(2))
    for task in dataset.labels:
        np.testing.assert_array_equal(first.values[task][""], second.values[task][""])


def test_random_orders_differ_from_seed_to_seed() -> None:
    dataset = draw_problem(60)
    first, second = (replay(dataset, parse_strategy("random"), seed) for seed in (0, 1))
    assert not np.array_equal(first.values["damage"][""], second.values["damage"][""])


def test_metrics_are_those_of_scikit_learn_on_the_test_photos() -> None:
    dataset = draw_problem()
    labels, pool = dataset.labels["damage"], dataset.pool()
    head = fit_head(DAMAGE, dataset.embeddings[pool], labels.indices[pool])
    predicted = head.probabilities(dataset.embeddings[dataset.measured()]).argmax(axis=1)
    accuracy, macro_f1, _ = measure_full(dataset)["damage"]
    truth = labels.indices[dataset.measured()]
    assert accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_test_photos_are_never_learnt_from() -> None:
    """Their classes are turned round: a model that had seen them would not be wrong everywhere."""
    dataset = draw_problem().by_task()[1]
    damage = dataset.labels["damage"]
    turned = TaskLabels(DAMAGE, np.where(dataset.measured(), 1 - damage.indices, damage.indices))
    honest = measure_full(dataset)["damage"][0]
    fooled = measure_full(replace(dataset, labels={"damage": turned}))["damage"][0]
    assert fooled == pytest.approx(1 - honest)


def test_exploration_labels_are_paid_for_and_not_trained_on() -> None:
    """With all labels made, a strategy that explores has learnt from nine tenths of them."""
    dataset = draw_problem(80).by_task()[1]
    with_all = replay(dataset, parse_strategy("joint-slots"), 0)
    live = replay(dataset, parse_strategy("live"), 0)
    np.testing.assert_array_equal(with_all.labels, live.labels)
    assert not np.array_equal(with_all.values["damage"][""][-1], live.values["damage"][""][-1])


def test_before_two_classes_are_seen_the_only_one_is_predicted() -> None:
    dataset = draw_problem().by_task()[1]
    rare = np.where(dataset.measured(), dataset.labels["damage"].indices, 0)
    rare[dataset.pool()[-1]] = 1
    alone = replace(dataset, labels={"damage": TaskLabels(DAMAGE, rare)})
    curve = replay(alone, parse_strategy("random"), seed=0)
    assert curve.values["damage"][""][0, 0] == pytest.approx((rare[dataset.measured()] == 0).mean())


def test_uncertainty_finds_a_rare_class_sooner_than_chance() -> None:
    rng = np.random.default_rng(0)
    damage = (np.arange(600) % 20 == 0).astype(np.int64)
    embeddings = rng.normal(size=(600, 6)).astype(np.float32)
    embeddings[:, 0] += 3 * damage
    dataset = ReplayDataset(embeddings, {"damage": TaskLabels(DAMAGE, damage)}, np.arange(600), np.arange(600) >= 300)
    curves = run(dataset, "random,margin", seeds=3)["damage"].values
    at_100 = label_counts(300).index(100)
    assert curves["margin"][""][:, at_100, 1].mean() > curves["random"][""][:, at_100, 1].mean()


# Simulating


@pytest.mark.slow
def test_two_processes_find_what_one_finds() -> None:
    dataset = draw_problem(60)
    one, two = (run(dataset, "random,margin", processes=processes) for processes in (1, 2))
    for task, curves in one.items():
        for name, values in curves.values.items():
            np.testing.assert_array_equal(values[""], two[task].values[name][""])


def test_each_task_has_a_queue_over_the_photos_that_say_something_of_it() -> None:
    dataset = draw_problem(60)
    curves = run(dataset, "random")
    known = dataset.labels["cleanliness"].known & ~dataset.measured()
    assert curves["cleanliness"].labels[-1] == known.sum() < curves["damage"].labels[-1] == 45


def test_together_the_tasks_share_one_queue() -> None:
    curves = simulate([draw_problem(60)], parse_strategies("margin"), 2, quiet, 1)
    np.testing.assert_array_equal(curves["cleanliness"].labels, curves["damage"].labels)


def test_progress_is_told_after_each_replay() -> None:
    told: list[tuple[int, int]] = []
    strategies = parse_strategies("random,margin")
    simulate(draw_problem(40).by_task(), strategies, 2, lambda *each: told.append(each), 1)
    assert told == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize("trained", [[], [0, 0, 0]])
def test_a_task_that_cannot_be_learnt_is_refused(trained: Sequence[int]) -> None:
    indices = np.array([*trained, 0, 1])
    test = np.arange(len(indices)) >= len(trained)
    labels = {"damage": TaskLabels(DAMAGE, indices)}
    dataset = ReplayDataset(np.ones((len(indices), 2), np.float32), labels, np.arange(len(indices)), test)
    with pytest.raises(LabelTableError, match="at least two classes of damage"):
        run(dataset, "random")


def test_a_task_without_test_photos_is_refused() -> None:
    dataset = draw_problem()
    with pytest.raises(LabelTableError, match="0 test rows"):
        run(replace(dataset, test=np.zeros(120, dtype=bool)), "random")


# Reporting


def test_the_report_is_json_with_a_mean_and_a_band_for_each_measurement() -> None:
    curves = drawn_curves("random,margin")
    told = json.loads(json.dumps(report(curves)))
    assert set(told["tasks"]) == {"cleanliness", "damage"}
    curve = told["tasks"]["damage"]["margin"]
    assert set(curve) == {"labels", *METRICS}
    assert [len(each) for each in curve.values()] == [len(curves["damage"].labels)] * 4
    assert all(len(point) == 2 and 0 <= point[0] <= 1 for metric in METRICS for point in curve[metric])
    assert set(told["full"]["damage"]) == {"labels", *METRICS}


def test_slices_are_measured_by_themselves_and_add_up() -> None:
    told = report(drawn_curves("random,margin"))
    by = told["by"]["damage"]
    assert {name: each["photos"] for name, each in by.items()} == {"left": 10, "right": 10}
    whole = told["tasks"]["damage"]["random"]["accuracy"]
    halves = [by[name]["strategies"]["random"]["accuracy"] for name in ("left", "right")]
    for point, left, right in zip(whole, *halves, strict=True):
        assert point[0] == pytest.approx((left[0] + right[0]) / 2, abs=1e-4)


def test_the_band_is_that_of_a_bootstrap_of_the_mean() -> None:
    runs = np.random.default_rng(0).normal(0.8, 0.05, size=(40, 1)).astype(np.float32)
    mean, band = mean_and_band(runs)
    interval = bootstrap((runs[:, 0],), np.mean, method="basic", rng=np.random.default_rng(0)).confidence_interval
    assert mean[0] - band[0] == pytest.approx(interval.low, abs=0.003)
    assert mean[0] + band[0] == pytest.approx(interval.high, abs=0.003)


def test_labels_needed_are_interpolated_and_the_median_of_the_seeds() -> None:
    labels = np.array([10, 20, 30])
    runs = np.array([[0.5, 0.7, 0.9], [0.8, 0.8, 0.8], [0.1, 0.2, 0.7]], dtype=np.float32)
    assert labels_needed(labels, runs, 0.6) == pytest.approx(15)


def test_a_score_that_most_seeds_never_reach_has_no_label_count() -> None:
    runs = np.array([[0.5, 0.6], [0.5, 0.7], [0.5, 0.9]], dtype=np.float32)
    assert labels_needed(np.array([10, 20]), runs, 0.8) is None


def test_labels_needed_are_told_relative_to_random() -> None:
    needed = report(drawn_curves("random,margin"))["needed"]["damage"]["macro_f1"]
    assert set(needed) == {"0.90", "0.95", "0.98"}
    assert needed["0.90"]["random"]["relative"] == pytest.approx(1)
    margin = needed["0.90"]["margin"]
    assert margin["relative"] == pytest.approx(margin["labels"] / needed["0.90"]["random"]["labels"])


def test_without_random_nothing_is_told_relative_to_it() -> None:
    needed = report(drawn_curves("margin"))["needed"]["damage"]["accuracy"]
    assert needed["0.90"]["margin"]["relative"] is None
