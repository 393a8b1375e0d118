"""What Redis keeps of the turns: how many each project had, and when the last one ended and how long it took."""

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
    """The turns of one project that ended well.

    Attributes:
        count: how many there were since Redis was empty.
        ended: when the last one ended, Unix time.
        seconds: stage -> how long it took in the last one.
    """

    count: int
    ended: float
    seconds: Mapping[str, float]


def record_turn(redis: Redis, project_id: int, seconds: Mapping[str, float]) -> None:
    """Keep that a turn ended well just now.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    with redis.pipeline() as pipeline:  # both or neither
        pipeline.hincrby(_COUNTS, str(project_id), 1)
        pipeline.hset(_LAST, str(project_id), json.dumps({"ended": time.time(), "seconds": dict(seconds)}))
        pipeline.execute()


def read_turns(redis: Redis) -> dict[int, Turns]:
    """Project -> its turns; a project of which none ended well is absent.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    counts, last = redis.hgetall(_COUNTS), redis.hgetall(_LAST)
    return {int(project): Turns(int(counts[project]), **json.loads(row)) for project, row in last.items()}
