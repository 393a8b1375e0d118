"""Redis record of the turns: their number for each project, and end and duration of the last one."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from redis import Redis

# Hashes with a field for each project.
_COUNTS = "carcond:turns:count"
_LAST = "carcond:turns:last"


@dataclass(frozen=True)
class Turns:
    """Successful turns of one project.

    Attributes:
        count: number of turns since Redis was empty.
        ended: when the last one ended, Unix time.
        seconds: stage -> its duration in the last one.
        unlearned: labels that Label Studio had before the last one, and that no version knew after it.
    """

    count: int
    ended: float
    seconds: Mapping[str, float]
    unlearned: int = 0


def record_turn(redis: Redis, project_id: int, seconds: Mapping[str, float], unlearned: int = 0) -> None:
    """Record a turn that has just succeeded.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    with redis.pipeline() as pipeline:  # both or neither
        pipeline.hincrby(_COUNTS, str(project_id), 1)
        last = {"ended": time.time(), "seconds": dict(seconds), "unlearned": unlearned}
        pipeline.hset(_LAST, str(project_id), json.dumps(last))
        pipeline.execute()


def forget_turns(redis: Redis, project_id: int) -> None:
    """Remove the record of a project that is served no more.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    with redis.pipeline() as pipeline:
        pipeline.hdel(_COUNTS, str(project_id))
        pipeline.hdel(_LAST, str(project_id))
        pipeline.execute()


def read_turns(redis: Redis) -> dict[int, Turns]:
    """Project -> its turns; a project without a successful one is absent.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    counts, last = redis.hgetall(_COUNTS), redis.hgetall(_LAST)
    return {int(project): Turns(int(counts[project]), **json.loads(row)) for project, row in last.items()}
