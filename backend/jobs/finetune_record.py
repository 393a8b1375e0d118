"""Redis record of a project's last fine-tuning: who requested it, its progress, and its outcome."""

import json
import time
from typing import Any, Literal

from redis import Redis

State = Literal["waiting", "running", "done", "failed", "cancelled"]

UNDER_WAY = ("waiting", "running")
"""States of a fine-tuning that has not ended; one whose worker was killed is under way."""


class FinetuneRecord:
    """The record of one project, a hash whose values are JSON. Each method raises `RedisError` without Redis.

    Fields: `state`, `who` requested it, when it was `asked`, `began` and `ended` (Unix time), `labels` of the project
    when it began, `stage` with `done` and `total` (and `epoch`, `epochs`, `seconds_left` of the training), `starts`
    without a completed epoch between them, the `reason` of a failure, `cancel` when somebody has requested that,
    `afresh` when the one before was cancelled, and of a complete one `encoder_id` and `facts`.
    """

    def __init__(self, redis: Redis, project_id: int) -> None:
        self._redis = redis
        self._key = f"carcond:finetune:{project_id}"

    def read(self) -> dict[str, Any]:
        """All fields; empty when there never was a fine-tuning."""
        fields: dict[bytes, bytes] = self._redis.hgetall(self._key)  # type: ignore[assignment]  # no decoding was asked for
        return {name.decode(): json.loads(value) for name, value in fields.items()}

    def begin(self, who: str) -> None:
        """Begin a new record; the number of labels and the cancellation of the previous fine-tuning are kept."""
        before = self.read()
        fields = {"labels": before.get("labels"), "afresh": before.get("state") == "cancelled"}
        with self._redis.pipeline() as pipeline:
            pipeline.delete(self._key)
            pipeline.hset(self._key, mapping=_packed(state="waiting", who=who, asked=time.time(), **fields))
            pipeline.execute()

    def write(self, **fields: Any) -> None:
        """Set fields."""
        self._redis.hset(self._key, mapping=_packed(**fields))

    def end(self, state: State, **fields: Any) -> None:
        """Record the outcome."""
        self.write(state=state, ended=time.time(), **fields)

    @property
    def is_under_way(self) -> bool:
        """True if it has not ended."""
        return self.read().get("state") in UNDER_WAY

    @property
    def is_cancelled(self) -> bool:
        """True if somebody has cancelled it."""
        return self._redis.hexists(self._key, "cancel")


def _packed(**fields: Any) -> dict[Any, Any]:
    return {name: json.dumps(value) for name, value in fields.items()}
