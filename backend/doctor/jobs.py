"""Redis, the workers and the jobs that wait for them."""

from collections.abc import Iterator
from typing import Any

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from backend.doctor.examination import Examination, shown_url
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.jobs.queue import FINETUNES, TURNS, JobQueue
from backend.jobs.queue_state import waited

AWAY = Kind(
    "redis-unreachable",
    Level.FAULT,
    "Labels are kept and pre-labels served, and nothing is learnt; webhooks are answered with HTTP 503.",
    "Redis does not answer at {url} ({error}).",
    "It holds the jobs.",
    "Start it (scripts/up, docker compose up redis), or set REDIS_URL to its address as seen from here.",
)
PASSWORD = Kind(
    "redis-password",
    Level.FAULT,
    "Labels are kept and pre-labels served, and nothing is learnt.",
    "Redis at {url} refuses the password in REDIS_URL.",
    "It holds the jobs.",
    "Set REDIS_URL=redis://:PASSWORD@HOST:PORT/0 with Redis's requirepass. For a stack that scripts/up started: "
    "set -a; . .carcond/environment; set +a",
)
FORGETFUL = Kind(
    "redis-without-persistence",
    Level.WARNING,
    "After a restart of Redis labels are learnt up to a minute late, and failed jobs are forgotten.",
    "Redis at {url} keeps nothing on disk.",
    "Jobs that wait are lost when it stops; the worker makes new ones when it next reconciles.",
    "redis-cli CONFIG SET appendonly yes, and for good: appendonly yes in redis.conf",
)
NO_WORKER = Kind(
    "no-worker",
    Level.FAULT,
    "Labels are kept, and nothing is learnt; the version never moves.",
    "No worker is alive.",
    "Workers learn from labels, embed photos and order the queue.",
    "python -m backend.worker (scripts/up starts it; in Compose: docker compose up --detach worker)",
)
NO_FINETUNER = Kind(
    "no-finetune-worker",
    Level.WARNING,
    "A fine-tuning waits and waits.",
    "A fine-tuning waits, of project {projects}, and no worker that is alive takes any.",
    "Ordinary workers leave them alone: one would keep them from turns for hours.",
    "python -m backend.worker --queues finetune",
)
STUCK = Kind(
    "queue-grows",
    Level.FAULT,
    "The version does not move, though a worker is alive.",
    "{count} turns wait, the first one since {seconds} s, and no worker takes it.",
    "A worker hangs, is busy with something long, or listens to another queue.",
    "See what it does: .carcond/logs/worker.log, or docker compose logs worker. Then restart it, or add workers: "
    "docker compose up --detach --scale worker=2",
)
FAILED = Kind(
    "jobs-failed",
    Level.WARNING,
    "The version moves late or not at all.",
    "{count} jobs failed within the last hour; the last one: {error}",
    "What they were to learn is left to the next turn.",
    "Mend what it says. The whole of it: .carcond/logs/worker.log, or docker compose logs worker",
)

# A turn that was requested twice without being taken is stuck; shorter waits are another project's turn.
_RECONCILES = 2


def check_redis(whole: Examination) -> Iterator[Finding]:
    """Check that Redis answers."""
    url = shown_url(whole.settings.redis_url)
    try:
        whole.queue.redis.ping()
    except AuthenticationError:
        yield PASSWORD.found(url=url)
    except ResponseError as error:  # a command without a password, for one
        yield PASSWORD.found(url=url) if "NOAUTH" in str(error) else AWAY.found(url=url, error=error)
    except (RedisError, ValueError) as error:
        yield AWAY.found(url=url, error=type(error).__name__)
    else:
        yield fine(f"answers at {url}")


def check_persistence(whole: Examination) -> Iterator[Finding]:
    """Check that Redis keeps jobs on disk."""
    redis = whole.queue.redis
    if redis.info("persistence").get("aof_enabled"):
        yield fine("append-only file")
        return
    try:
        snapshots = redis.config_get("save").get("save")
    except ResponseError:  # not allowed where others run Redis; they answer for its disk
        yield fine("Redis does not report it")
        return
    yield fine("snapshots") if snapshots else FORGETFUL.found(url=shown_url(whole.settings.redis_url))


def check_workers(whole: Examination) -> Iterator[Finding]:
    """Check that a worker is alive, and one for fine-tunings if any wait."""
    turning, finetuning = _listening_to(whole, TURNS), _listening_to(whole, FINETUNES)
    yield fine(f"{turning} for the loop, {finetuning} for fine-tuning") if turning else NO_WORKER.found()
    waiting = whole.queue.waiting_finetunings()
    if waiting and not finetuning:
        yield NO_FINETUNER.found(projects=", ".join(map(str, sorted(waiting))))


def _listening_to(whole: Examination, queue: str) -> int:
    """Number of live workers that take jobs of a queue."""
    return sum(queue in queues for queues in whole.workers)


def check_queue(whole: Examination) -> Iterator[Finding]:
    """Check that turns are taken and succeed."""
    queues = {each.name: each for each in whole.queue.queues()}
    seconds, waiting = waited(queues[TURNS]), queues[TURNS].count
    is_stuck = _listening_to(whole, TURNS) > 0 and seconds > _RECONCILES * whole.settings.reconcile_every_s
    if is_stuck:
        yield STUCK.found(count=waiting, seconds=round(seconds))
    failed = sum(each.failed_job_registry.get_job_count(cleanup=False) for each in queues.values())
    if failed:
        yield FAILED.found(count=failed, error=_last_error(whole.queue))
    if not failed and not is_stuck:
        yield fine(f"{waiting} turns wait")


def _last_error(queue: JobQueue) -> str:
    """Last line of the traceback of the job that failed last."""
    jobs: list[Any] = []
    for each in queue.queues():
        registry = each.failed_job_registry
        jobs += [each.fetch_job(job_id) for job_id in registry.get_job_ids(-3, -1)]
    known = [job for job in jobs if job and job.ended_at]
    result = max(known, key=lambda job: job.ended_at).latest_result() if known else None
    lines = (result.exc_string or "").strip().splitlines() if result else []
    return lines[-1][:300] if lines else "no message"
