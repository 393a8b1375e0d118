"""Redis record of the seconds from a label's arrival in Label Studio until the order that knows it was published.

Both moments are read from clocks: Label Studio's and the worker's. They have to be kept in time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from redis import Redis

BUCKETS_S: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0, math.inf)
"""Upper bounds of the histogram. 10 s is the service level."""

# Project -> `updated_at` of the newest label that was counted.
_NEWEST = "carcond:latency:newest"
# Upper bound, or "sum" -> number of labels, or their seconds.
_HISTOGRAM = "carcond:latency:histogram"


@dataclass(frozen=True)
class LabelLatency:
    """Labels of all projects since Redis was empty.

    Attributes:
        counts: labels of at most so many seconds, for each of `BUCKETS_S`.
        seconds: their sum.
    """

    counts: Sequence[int]
    seconds: float


def newest_counted(redis: Redis, project_id: int) -> str | None:
    """`updated_at` of the newest label of a project that was counted; None before its first turn.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    newest = redis.hget(_NEWEST, str(project_id))
    return newest.decode() if isinstance(newest, bytes) else newest


def record_labels(redis: Redis, project_id: int, arrived: Sequence[str], published: float) -> None:
    """Count the labels of one turn. Those of a project's first turn came before carcond did: they do not count.

    Args:
        redis: of the jobs.
        project_id: the project.
        arrived: `updated_at` of labels that no turn has counted.
        published: when their order was published, Unix time.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    newest = newest_counted(redis, project_id)
    moments = [] if newest is None else [_unix_time(moment) for moment in arrived]
    seconds = [max(0.0, published - moment) for moment in moments if moment is not None]
    with redis.pipeline() as pipeline:  # all or nothing
        pipeline.hset(_NEWEST, str(project_id), max([newest or "", *arrived]))
        for bound in BUCKETS_S if seconds else ():
            pipeline.hincrby(_HISTOGRAM, str(bound), sum(value <= bound for value in seconds))
        pipeline.hincrbyfloat(_HISTOGRAM, "sum", sum(seconds))
        pipeline.execute()


def read_latency(redis: Redis) -> LabelLatency:
    """The histogram.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    *counts, seconds = redis.hmget(_HISTOGRAM, [*map(str, BUCKETS_S), "sum"])
    return LabelLatency([int(count or 0) for count in counts], float(seconds or 0))


def _unix_time(moment: str) -> float | None:
    """None for a text that is no time: statistics must not end a turn."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
