"""Jobs, workers and turns as Prometheus metrics, read from Redis."""

import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from backend.jobs.label_latency import BUCKETS_S, read_latency
from backend.jobs.queue import ALL_QUEUES, JobQueue
from backend.jobs.turn_log import read_turns

# An idle worker sends a heartbeat once a minute, a busy one twice.
_SILENCE_S = 150.0


def queue_metrics(queue: JobQueue) -> Iterator[Metric]:
    """The metrics of all jobs.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    yield from _jobs(queue.queues(ALL_QUEUES))
    yield _workers(queue)
    yield from _turns(queue)
    yield _latency(queue)


def _jobs(queues: Sequence[Queue]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("carcond_waiting_jobs", "Jobs that wait for a worker.", labels=["queue"])
    oldest = GaugeMetricFamily(
        "carcond_oldest_waiting_job_seconds",
        "Seconds for which the oldest waiting job has waited, 0 without one.",
        labels=["queue"],
    )
    failed = GaugeMetricFamily("carcond_failed_jobs", "Jobs that failed within the last hour.", labels=["queue"])
    for each in queues:
        waiting.add_metric([each.name], each.count)
        oldest.add_metric([each.name], waited(each))
        failed.add_metric([each.name], each.failed_job_registry.get_job_count(cleanup=False))
    yield from (waiting, oldest, failed)


def _workers(queue: JobQueue) -> Metric:
    workers = GaugeMetricFamily("carcond_workers", "Live workers that take jobs of the queue.", labels=["queue"])
    for name in ALL_QUEUES:
        workers.add_metric([name], alive_workers(queue, name))
    return workers


def waited(queue: Queue) -> float:
    """Seconds for which the first job of a queue has waited."""
    jobs = Job.fetch_many(queue.get_job_ids(0, 1), connection=queue.connection, serializer=JSONSerializer)
    since = [job.enqueued_at for job in jobs if job and job.enqueued_at]  # it may have been taken in between
    return max(0.0, _age(since[0])) if since else 0.0


def alive_workers(queue: JobQueue, name: str) -> int:
    """Number of live workers that take jobs of the queue of this name."""
    return sum(map(is_alive, Worker.all(queue=queue.queues([name])[0])))


def is_alive(worker: BaseWorker) -> bool:
    """True if a worker has sent a heartbeat lately."""
    return worker.last_heartbeat is not None and _age(worker.last_heartbeat) < _SILENCE_S


def _age(moment: datetime) -> float:
    # RQ's timestamps are in UTC, with or without a time zone.
    return time.time() - moment.replace(tzinfo=UTC).timestamp()


def _turns(queue: JobQueue) -> Iterator[Metric]:
    turns = CounterMetricFamily("carcond_turns", "Successful turns of the loop.", labels=["project"])
    ended = GaugeMetricFamily(
        "carcond_last_turn_timestamp_seconds", "End of the last successful turn, in Unix time.", labels=["project"]
    )
    seconds = GaugeMetricFamily(
        "carcond_last_turn_seconds", "Duration of a stage of the last turn, in seconds.", labels=["project", "stage"]
    )
    unlearned = GaugeMetricFamily(
        "carcond_unlearned_labels",
        "Labels that Label Studio had before the last turn and that no version knew after it.",
        labels=["project"],
    )
    for project, log in read_turns(queue.redis).items():
        unlearned.add_metric([str(project)], log.unlearned)
        turns.add_metric([str(project)], log.count)
        ended.add_metric([str(project)], log.ended)
        for stage, value in log.seconds.items():
            seconds.add_metric([str(project), stage], value)
    yield from (turns, ended, seconds, unlearned)


def _latency(queue: JobQueue) -> Metric:
    latency = read_latency(queue.redis)
    buckets = [
        ("+Inf" if math.isinf(bound) else str(bound), count)
        for bound, count in zip(BUCKETS_S, latency.counts, strict=True)
    ]
    return HistogramMetricFamily(
        "carcond_label_to_order_seconds",
        "Seconds from a label in Label Studio to the publication of the order that knows it, over all projects.",
        buckets=buckets,
        sum_value=latency.seconds,
    )
