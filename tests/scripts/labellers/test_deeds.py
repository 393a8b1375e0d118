from collections import Counter

from scripts.labellers.deeds import SHARES, Deed, plan_deeds


def test_every_kind_of_deed_is_done_at_least_once_and_most_photos_are_just_labelled() -> None:
    counts = Counter(plan_deeds(40, "1"))
    assert all(counts[deed] >= 1 for deed in SHARES)
    assert counts[Deed.LABEL] > 20
    assert counts.total() == 40


def test_the_first_photos_are_just_labelled_since_there_is_nothing_to_go_back_to() -> None:
    assert plan_deeds(40, "1")[:3] == [Deed.LABEL] * 3


def test_few_photos_make_a_short_plan() -> None:
    assert [len(plan_deeds(count, "1")) for count in (0, 1, 2, 5)] == [0, 1, 2, 5]


def test_the_same_seed_plans_the_same() -> None:
    assert plan_deeds(30, "a") == plan_deeds(30, "a")
    assert plan_deeds(30, "a") != plan_deeds(30, "b")
