"""Status of a project's fine-tuning and of the encoder it made, as facts and as a line of text."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.exceptions import RedisError

from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.queue import FINETUNES, JobQueue
from backend.jobs.queue_state import alive_workers
from backend.loop.encoder_trial import trial, tuned_encoders
from backend.services import Services
from carcond.json_fields import count, mapping, number, sanitize_line, text

_TIMES = ("asked", "began", "ended")


def finetune_facts(services: Services, queue: JobQueue, project_id: int) -> dict[str, Any]:
    """Status of the project's last fine-tuning, JSON-ready.

    Returns:
        The fields of `backend.jobs.finetune_record.FinetuneRecord`, with times in ISO 8601, UTC, and the `state`
        "never" before the first, "unknown" while Redis cannot be reached; `has_worker`: whether a live worker takes
        fine-tunings; `encoder`: outcome of the encoder that was fine-tuned last, see
        `backend.loop.encoder_trial.trial`, None before it.
    """
    tuned = tuned_encoders(services, project_id)
    encoder = trial(services, project_id, tuned[-1].encoder_id) if tuned else None
    try:
        record = FinetuneRecord(queue.redis, project_id).read()
        workers = alive_workers(queue, FINETUNES)
    except RedisError:
        return {"state": "unknown", "encoder": encoder}
    times = {
        name: datetime.fromtimestamp(record[name], UTC).isoformat("T", "seconds") for name in _TIMES & record.keys()
    }
    return {"state": "never"} | record | times | {"has_worker": workers > 0, "encoder": encoder}


def finetune_text(facts: Mapping[str, Any]) -> str:
    """The facts in a line or two; empty when there never was a fine-tuning."""
    lines = [_state_line(facts), _encoder_line(mapping(facts, "encoder"))]
    return "\n".join(line for line in lines if line)


def _state_line(facts: Mapping[str, Any]) -> str:
    state, ended = facts.get("state"), text(facts, "ended")
    made = text(facts, "encoder_id") or "no epoch was better than the encoder as it was, which stays"
    lines = {
        "waiting": f"waits since {text(facts, 'asked')}, {_asker(facts)}",
        "running": f"{_progress(facts)}, {_asker(facts)}",
        "done": f"done {ended}: {made}",
        "failed": f"failed {ended}: {sanitize_line(facts.get('reason') or '', 300)}",
        "cancelled": f"cancelled {ended}",
        "unknown": "not known: Redis cannot be reached",
    }
    return lines.get(str(state), "")


def _asker(facts: Mapping[str, Any]) -> str:
    asked = f"asked for by {text(facts, 'who')}"
    if facts.get("has_worker"):
        return asked
    return f"{asked}; no worker takes it: start one with python -m backend.worker --queues finetune"


def _progress(facts: Mapping[str, Any]) -> str:
    if facts.get("cancel"):
        return "is being cancelled"
    stage = text(facts, "stage") if facts.get("stage") else "begins"
    done = f" {count(facts, 'done')} of {count(facts, 'total')}" if facts.get("total") else ""
    epoch = f", {count(facts, 'epoch')} of {count(facts, 'epochs')} epochs" if stage == "training" else ""
    seconds = number(facts, "seconds_left") if stage == "training" else None
    left = "" if seconds is None else f", {timedelta(seconds=round(seconds))} left"
    return f"{stage}{done}{epoch}{left}"


def _encoder_line(encoder: Mapping[str, Any]) -> str:
    if not encoder:
        return ""
    name, version = text(encoder, "encoder_id"), text(encoder, "version")
    match encoder.get("verdict"):
        case "accepted":
            return f"{name} was accepted with {version}"
        case "refused":
            reason = sanitize_line(encoder.get("reason") or "", 300)
            return f"{name} was refused with {version}, the old encoder stays: {reason}"
    left = count(encoder, "photos_left")
    return f"{name} has yet to see {left} photos" if left else f"{name} waits for its trial"
