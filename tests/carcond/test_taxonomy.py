import pytest

from carcond.taxonomy import CLEANLINESS, DAMAGE, TASK_BY_KEY, TASKS, find_class, name_in, normalise_word


def test_there_are_three_degrees_of_dirt_and_two_of_damage_in_the_order_of_the_logits() -> None:
    assert CLEANLINESS.class_keys == ("clean", "slightly_dirty", "very_dirty")
    assert DAMAGE.class_keys == ("intact", "damaged")
    assert TASKS == (CLEANLINESS, DAMAGE)
    assert TASK_BY_KEY == {"cleanliness": CLEANLINESS, "damage": DAMAGE}


def test_no_word_means_two_classes() -> None:
    meanings: dict[str, set[str]] = {}
    for task in TASKS:
        for condition in task.classes:
            for word in (condition.key, condition.en, condition.ru, *condition.words):
                meanings.setdefault(normalise_word(word), set()).add(condition.key)
    assert {word: keys for word, keys in meanings.items() if len(keys) > 1} == {}


def test_every_key_and_name_finds_its_own_class() -> None:
    for task in TASKS:
        for condition in task.classes:
            for word in (condition.key, condition.en, condition.ru, *condition.words):
                assert find_class(word) == (task, condition)


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("Clean", "clean"),
        ("SLIGHTLY DIRTY", "slightly_dirty"),
        ("slightly-dirty", "slightly_dirty"),
        ("  very   dirty ", "very_dirty"),
        ("Слегка_Грязный", "slightly_dirty"),
        ("повреждённый", "damaged"),
        ("Не битый", "intact"),
        ("not damaged", "intact"),
    ],
)
def test_case_separators_and_the_letter_yo_do_not_matter(word: str, key: str) -> None:
    found = find_class(word)
    assert found is not None
    assert found[1].key == key


@pytest.mark.parametrize("word", ["", " ", "rusty", "clean car", "not clean", "нечистый"])
def test_an_unknown_word_means_nothing_rather_than_something_near(word: str) -> None:
    assert find_class(word) is None


def test_tasks_and_classes_have_a_name_in_both_languages() -> None:
    damaged = DAMAGE.condition("damaged")
    assert [name_in(language, each) for each in (DAMAGE, damaged) for language in ("en", "ru")] == [
        "Damage", "Целостность", "damaged", "битый"
    ]  # fmt: skip
    with pytest.raises(KeyError):
        DAMAGE.condition("clean")
