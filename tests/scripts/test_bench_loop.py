import pytest

from scripts.bench_loop import median_stages, split_wait


def test_what_no_stage_of_the_turn_took_was_the_time_until_it_began() -> None:
    assert split_wait(1.5, {"read": 0.2, "publish": 0.9}) == {"until the turn": 0.4, "read": 0.2, "publish": 0.9}


def test_the_median_of_each_stage_is_taken_for_itself() -> None:
    waits = [{"read": 0.1, "publish": 0.9}, {"read": 0.3, "publish": 0.7}, {"read": 0.2, "publish": 0.8}]
    assert median_stages(waits) == pytest.approx({"read": 0.2, "publish": 0.8})


def test_without_a_version_there_are_no_stages() -> None:
    assert median_stages([]) == {}
