"""`python3 check_worker.py`: health check of this container's worker, for the container engine."""

import os
import socket
import sys
import time
from datetime import UTC, datetime

from redis import Redis

# A worker that waits for jobs reports once a minute, a busy one twice.
_SILENCE_S = 150.0


def main() -> None:
    """Exit with an error unless a worker of this host has reported lately."""
    redis = Redis.from_url(os.environ["REDIS_URL"], socket_connect_timeout=3, socket_timeout=3, decode_responses=True)
    here = socket.gethostname()
    for key in redis.smembers("rq:workers"):
        host, beat = redis.hmget(key, "hostname", "last_heartbeat")
        if host == here and beat and time.time() - _seconds(str(beat)) < _SILENCE_S:
            return
    sys.exit(f"no worker of {here} has reported within {_SILENCE_S:.0f} s")


def _seconds(beat: str) -> float:
    return datetime.fromisoformat(beat.replace("Z", "+00:00")).astimezone(UTC).timestamp()


if __name__ == "__main__":
    main()
