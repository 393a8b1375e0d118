import numpy as np
import pytest

from carcond.errors import StrategyError
from carcond.query.strategy import Beliefs, Strategy, choose_batch, parse_strategies, parse_strategy
from carcond.taxonomy import CLEANLINESS, DAMAGE


def beliefs() -> Beliefs:
    damage = np.array([[[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]]], dtype=np.float32)
    cleanliness = np.array([[[0.98, 0.01, 0.01], [0.98, 0.01, 0.01], [0.4, 0.4, 0.2]]], dtype=np.float32)
    embeddings = np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32)
    return Beliefs((CLEANLINESS, DAMAGE), embeddings, {"damage": damage, "cleanliness": cleanliness})


def test_a_name_of_one_word_starts_with_representative_photos_and_takes_the_best() -> None:
    assert parse_strategy("margin") == Strategy("margin", "margin", "top", "representative", 10, exploration=False)


def test_words_say_batch_rule_start_and_exploration_in_any_order() -> None:
    expected = Strategy("entropy-exploration-random10-power", "entropy", "power", "random", 10, exploration=True)
    assert parse_strategy("entropy-exploration-random10-power") == expected


def test_live_is_the_rule_of_the_queue() -> None:
    assert parse_strategy("live") == Strategy("live", "live")


@pytest.mark.parametrize(
    ("former", "current"),
    [("disagreement-power", "bald-power"), ("margin-grouped50-typical10", "margin-diverse50-representative10")],
)
def test_words_of_the_last_release_still_work_and_name_the_new_ones(
    former: str, current: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert parse_strategy(former) == parse_strategy(current)
    assert [record.getMessage() for record in caplog.records] == [
        f"the strategy {former} is called {current} now; the former name goes with the next release"
    ]


def test_badge_is_known_by_its_own_name() -> None:
    assert parse_strategy("badge").batch == "badge"


def test_only_bald_needs_an_ensemble() -> None:
    assert parse_strategy("bald-power").needs_ensemble
    assert not parse_strategy("entropy").needs_ensemble


@pytest.mark.parametrize("name", ["", "best", "power", "margin-best", "margin-representative0", "margin-", "Margin"])
def test_a_word_that_means_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(StrategyError, match=f"got '.*{name.rpartition('-')[2]}'"):
        parse_strategy(name)


def test_a_strategy_named_twice_is_taken_once() -> None:
    assert [each.name for each in parse_strategies("margin, random,margin")] == ["margin", "random"]


def test_no_strategy_is_refused() -> None:
    with pytest.raises(StrategyError, match="at least one"):
        parse_strategies(" ,")


@pytest.mark.parametrize("name", ["random", "confidence", "margin", "entropy", "joint", "badge"])
def test_a_batch_is_never_longer_than_what_is_left(name: str) -> None:
    batch = choose_batch(parse_strategy(name), beliefs(), 10, np.random.default_rng(0), labelled=10)
    assert sorted(batch) == [0, 1, 2]


@pytest.mark.parametrize("name", ["margin", "entropy", "joint"])
def test_the_photo_that_both_tasks_doubt_comes_first(name: str) -> None:
    assert choose_batch(parse_strategy(name), beliefs(), 1, np.random.default_rng(0), labelled=10)[0] == 2


def test_joint_also_works_while_a_task_has_no_head() -> None:
    known = beliefs()
    partial = Beliefs(known.tasks, known.embeddings, {"damage": known.by_task["damage"]})
    assert choose_batch(parse_strategy("joint"), partial, 1, np.random.default_rng(0), labelled=10)[0] == 1


def test_groups_give_way_to_the_batch_rule_once_so_many_are_labelled() -> None:
    """There are two kinds of photos, and the highest scores are all of one."""
    sure = np.linspace(0.5, 0.8, 8, dtype=np.float32)
    embeddings = np.repeat(np.array([[0, 9], [9, 0]], dtype=np.float32), 4, axis=0)
    known = Beliefs((DAMAGE,), embeddings, {"damage": np.stack([sure, 1 - sure], axis=1)[np.newaxis]})
    strategy = parse_strategy("margin-diverse50")
    few, many = (
        choose_batch(strategy, known, 4, np.random.default_rng(0), labelled=labelled).tolist() for labelled in (49, 50)
    )
    assert {position // 4 for position in few} == {0, 1}
    assert many == [0, 1, 2, 3]
