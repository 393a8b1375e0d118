import math

import pytest
from redis import Redis

from backend.jobs.label_latency import BUCKETS_S, newest_counted, read_latency, record_labels

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


def at(seconds: float) -> str:
    return f"2026-01-01T12:00:{seconds:09.6f}Z"


def counts(redis: Redis) -> dict[float, int]:
    return dict(zip(BUCKETS_S, read_latency(redis).counts, strict=True))


def test_before_any_label_all_counts_are_zero(redis: Redis) -> None:
    assert set(counts(redis).values()) == {0}
    assert newest_counted(redis, 7) is None


def test_labels_older_than_the_first_turn_do_not_count(redis: Redis) -> None:
    record_labels(redis, 7, [at(3), at(1)], NOON + 3600)
    assert counts(redis)[math.inf] == 0
    assert newest_counted(redis, 7) == at(3)


def test_labels_are_counted_up_to_each_bound(redis: Redis) -> None:
    record_labels(redis, 7, [], NOON)
    record_labels(redis, 7, [at(1), at(18.5), at(20)], NOON + 20)
    assert counts(redis) == {1: 1, 2: 2, 5: 2, 10: 2, 20: 3, 60: 3, 300: 3, math.inf: 3}
    assert read_latency(redis).seconds == pytest.approx(19 + 1.5 + 0)
    record_labels(redis, 8, [], NOON)
    record_labels(redis, 8, [at(0)], NOON + 400)
    assert counts(redis)[math.inf] - counts(redis)[300] == 1


def test_a_clock_of_label_studio_that_is_fast_makes_no_negative_seconds(redis: Redis) -> None:
    record_labels(redis, 7, [], NOON)
    record_labels(redis, 7, [at(5)], NOON)
    assert (counts(redis)[1], read_latency(redis).seconds) == (1, 0)


def test_a_turn_without_labels_forgets_nothing(redis: Redis) -> None:
    record_labels(redis, 7, [at(1)], NOON)
    record_labels(redis, 7, [], NOON)
    assert newest_counted(redis, 7) == at(1)


def test_a_label_without_a_time_is_not_counted_and_stops_nothing(redis: Redis) -> None:
    record_labels(redis, 7, [], NOON)
    record_labels(redis, 7, ["yesterday", at(1)], NOON + 3)
    assert counts(redis)[math.inf] == 1
