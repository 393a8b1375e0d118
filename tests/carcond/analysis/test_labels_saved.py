import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from carcond.analysis.labels_saved import LabelsSaved, labels_saved
from carcond.analysis.learning_curve import LabelHistory
from carcond.arrays import FloatArray
from carcond.data.split import LEAST_IMPORTED
from tests.carcond.histories import draw_history


def better_chosen(history: LabelHistory) -> LabelHistory:
    """As if what a model chose told far more: chosen photos lie without noise at the middle of their class."""
    embeddings = history.embeddings.copy()
    chosen = ~history.holdout
    embeddings[chosen, 1:] *= 0.1
    return replace(history, embeddings=embeddings)


def worse_chosen(history: LabelHistory) -> LabelHistory:
    """Half of the chosen labels were thrown by a coin."""
    rng = np.random.default_rng(0)
    tossed = ~history.holdout & (rng.random(len(history.indices)) < 0.5)
    return replace(history, indices=np.where(tossed, rng.integers(0, 2, len(tossed)), history.indices))


@cache
def chosen_by_chance() -> list[LabelsSaved]:
    return [labels_saved(draw_history(200, seed, dimension=30, held=0.35)) for seed in range(30)]


def test_of_labels_chosen_by_chance_one_is_in_the_interval_as_often_as_it_says() -> None:
    inside = [each.low <= 1 <= each.high for each in chosen_by_chance() if each.low and each.high]
    assert len(inside) == 30
    assert np.mean(inside) >= 0.9


def test_of_labels_chosen_by_chance_neither_kind_is_favoured() -> None:
    ratios = np.array([each.ratio for each in chosen_by_chance()], dtype=float)
    assert 0.8 < np.exp(np.log(ratios).mean()) < 1.25


def many_dimensions(seed: int) -> LabelHistory:
    return draw_history(500, seed, dimension=150, distance=3.0, held=0.4)


def ratios(histories: Iterable[LabelHistory]) -> FloatArray:
    return np.array([labels_saved(history).ratio for history in histories], dtype=np.float32)


def test_better_labels_need_fewer() -> None:
    found = ratios(better_chosen(many_dimensions(seed)) for seed in range(4))
    assert np.median(found) < 0.5
    assert (found < ratios(many_dimensions(seed) for seed in range(4))).all()


def test_worse_labels_need_more() -> None:
    found = ratios(worse_chosen(many_dimensions(seed)) for seed in range(4))
    assert np.median(found) > 2
    assert (found > ratios(many_dimensions(seed) for seed in range(4))).all()


def test_a_wide_interval_is_told_as_not_known() -> None:
    found = labels_saved(draw_history(200, held=0.2))
    assert found.missing.startswith("between ")
    assert found.low is not None
    assert found.as_json()["known"] is False
    assert "saved" not in found.as_json()


@pytest.mark.parametrize("held", [0.0, 0.1])
def test_too_few_drawn_labels_say_how_many_are_missing(held: float) -> None:
    found = labels_saved(draw_history(100, held=held))
    assert (found.ratio, found.as_json()["known"]) == (None, False)
    assert found.missing.startswith(f"{30 - int(100 * held)} more labels of drawn photos")


def test_drawn_labels_of_one_class_are_too_few() -> None:
    history = draw_history(200, held=0.3)
    indices = np.where(history.drawn, 0, history.indices)
    assert labels_saved(replace(history, indices=indices)).missing == "5 more labels of drawn photos of a second class"


def test_holdout_photos_that_were_not_drawn_are_left_out() -> None:
    """Near-duplicates of drawn photos, and imported ones, are no random sample of the pool."""
    history = draw_history(300, held=0.4)
    drawn = history.drawn & (np.cumsum(history.drawn) <= 60)
    found = labels_saved(replace(history, drawn=drawn))
    alone = drawn | ~history.holdout
    parts = ("embeddings", "indices", "groups", "holdout", "drawn", "imported")
    without = replace(history, **{name: getattr(replace(history, drawn=drawn), name)[alone] for name in parts})
    assert found.drawn == 60
    assert (found.chosen, found.compared) == (labels_saved(without).chosen, labels_saved(without).compared)


def test_nothing_is_said_where_the_model_also_learnt_from_an_imported_set() -> None:
    history = draw_history(300, held=0.3)
    imported = np.arange(300) < LEAST_IMPORTED
    assert "imported" in labels_saved(replace(history, imported=imported)).missing
    assert "imported" not in labels_saved(replace(history, imported=imported & (np.arange(300) > 5))).missing


def test_what_is_known_says_which_share_of_labels_is_saved() -> None:
    facts = LabelsSaved(chosen=900, drawn=100, compared=80, ratio=0.5, low=0.3, high=0.9).as_json()
    assert facts["saved"] == pytest.approx({"share": 0.5, "low": 0.1, "high": 0.7})
    assert facts["known"] is True
    assert facts == json.loads(json.dumps(facts))


def test_it_is_the_same_each_time() -> None:
    history = draw_history(200, held=0.3)
    assert labels_saved(history) == labels_saved(history)
