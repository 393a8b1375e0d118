import time

from redis import Redis

from backend.jobs.turn_log import Turns, read_turns, record_turn


def test_before_the_first_turn_there_is_nothing(redis: Redis) -> None:
    assert read_turns(redis) == {}


def test_turns_are_counted_for_each_project_and_the_last_one_is_told(redis: Redis) -> None:
    record_turn(redis, 7, {"read": 0.5, "refit": 1.25})
    began = time.time()
    record_turn(redis, 7, {"read": 0.125})
    record_turn(redis, 8, {"publish": 2.0}, unlearned=3)
    turns = read_turns(redis)
    assert turns[7] == Turns(2, turns[7].ended, {"read": 0.125})
    assert began <= turns[7].ended <= time.time()
    assert (turns[8].count, turns[8].seconds, turns[8].unlearned) == (1, {"publish": 2.0}, 3)
