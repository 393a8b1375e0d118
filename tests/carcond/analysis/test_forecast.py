import json
from dataclasses import replace

import numpy as np
import pytest

from carcond.analysis.forecast import forecast
from carcond.analysis.learning_curve import METRICS, LabelHistory
from carcond.model.head_fitting import fit_linear
from tests.carcond.histories import draw_history


def first(history: LabelHistory, count: int) -> LabelHistory:
    """The history as it was after so many labels."""
    parts = ("embeddings", "indices", "groups", "holdout", "drawn", "imported")
    return replace(history, **{name: getattr(history, name)[:count] for name in parts})


def accuracy(history: LabelHistory, count: int) -> float:
    """Of a head fitted on what is not held out of the first `count` labels, on ten thousand further photos."""
    known = first(history, count)
    train = ~known.holdout
    weight, bias = fit_linear(known.embeddings[train], known.indices[train], 2)
    rng = np.random.default_rng(1)
    indices = rng.integers(0, 2, 10_000)
    embeddings = rng.normal(size=(10_000, history.embeddings.shape[1]))
    embeddings[:, 0] += 2.0 * indices
    return float(((embeddings @ weight.T + bias).argmax(axis=1) == indices).mean())


@pytest.mark.slow
def test_the_interval_holds_what_a_hundred_labels_bring() -> None:
    """125 labels, of which 100 are trained on, from 150, 250 and 400 on; the end is measured."""
    inside, gains, true = [], [], []
    for seed in range(8):
        history = draw_history(525, seed)
        for count in (150, 250, 400):
            found = forecast(first(history, count)).gains["accuracy"]
            came = accuracy(history, count + 125) - accuracy(history, count)
            inside.append(found.low <= came <= found.high)
            gains.append(found.gain)
            true.append(came)
    assert np.mean(inside) >= 0.85
    assert np.mean(gains) == pytest.approx(np.mean(true), abs=0.012)


def test_a_curve_that_has_ended_is_flat() -> None:
    history = draw_history(800, dimension=4, distance=8.0, held=0.4)
    found = forecast(history)
    assert found.gains["accuracy"].state == "flat"
    assert found.as_json()["state"] == "flat"


def test_labels_that_say_nothing_of_the_photo_do_not_promise_anything() -> None:
    found = forecast(draw_history(800, dimension=4, distance=6.0, noise=0.5, held=0.3))
    assert found.gains["accuracy"].gain < 0.012
    assert found.gains["accuracy"].low <= 0


def test_a_curve_that_rises_is_seen_to_rise() -> None:
    found = forecast(draw_history(160, dimension=400, distance=4.0, held=0.3))
    assert found.gains["accuracy"].state == found.as_json()["state"] == "rising"
    assert found.gains["accuracy"].gain > 0.01


@pytest.mark.parametrize(
    ("count", "held", "missing"),
    [
        (40, 0.25, "30 more labels to train on"),
        (100, 0.05, "5 more hold-out labels"),
        (30, 0.1, "33 more labels to train on, 7 more hold-out labels"),
    ],
)
def test_too_few_labels_say_what_is_missing(count: int, held: float, missing: str) -> None:
    found = forecast(draw_history(count, held=held))
    assert (found.gains, found.missing) == ({}, missing)
    assert found.as_json()["state"] == "too few labels"


def test_one_class_is_too_few() -> None:
    history = draw_history(200)
    assert forecast(replace(history, indices=np.ones(200, dtype=np.int64))).missing == "5 more labels of a second class"


def test_it_is_the_same_each_time_and_json_ready() -> None:
    history = draw_history(150)
    found = forecast(history).as_json()
    assert found == forecast(history).as_json() == json.loads(json.dumps(found))
    assert set(METRICS) <= set(found)


def test_low_gain_and_high_are_in_order() -> None:
    for seed in range(5):
        for gain in forecast(draw_history(120, seed)).gains.values():
            assert gain.low <= gain.gain <= gain.high


def test_the_holdout_alone_says_how_good_it_is_now() -> None:
    history = draw_history(300)
    trained = np.flatnonzero(~history.holdout)
    weight, bias = fit_linear(history.embeddings[trained], history.indices[trained], 2)
    held = history.holdout
    right = (history.embeddings[held] @ weight.T + bias).argmax(axis=1) == history.indices[held]
    assert forecast(history).gains["accuracy"].now == pytest.approx(right.mean())


def test_labels_may_come_sorted_by_class() -> None:
    history = draw_history(200)
    order = np.argsort(history.indices, kind="stable")
    parts = ("embeddings", "indices", "groups", "holdout", "drawn", "imported")
    assert forecast(replace(history, **{name: getattr(history, name)[order] for name in parts})).gains


def test_a_holdout_of_one_class_has_a_forecast_of_accuracy_alone() -> None:
    history = draw_history(200, held=0.2)
    one = replace(history, indices=np.where(history.holdout, 1, history.indices))
    found = forecast(one)
    assert set(found.gains) == {"accuracy"}
    assert found.as_json()["state"] == found.gains["accuracy"].state
