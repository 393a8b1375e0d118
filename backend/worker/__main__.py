"""The worker process: runs jobs of the given queues, and reconciles periodically.

    python -m backend.worker
    python -m backend.worker --queues finetune

Without `--queues` it takes all jobs but fine-tunings: one of these would keep it from turns for hours. They need a
worker of their own, on a machine with a GPU if there is one.
"""

import argparse
import ctypes
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.serializers import JSONSerializer

from backend.jobs.finetune_requests import resume_finetunings
from backend.jobs.queue import ALL_QUEUES, FINETUNES, JOBS, LOOP_QUEUES, TURNS, JobQueue, get_job_queue, reconcile
from backend.services import Services, get_services
from carcond.errors import CarcondError
from carcond.fault_points import reach
from carcond.files import restrict_umask
from carcond.json_fields import sanitize_line

logger = logging.getLogger(__name__)

# Imported once here, so that a job, which runs in a fork of this process, does not wait for them.
_USED_BY_JOBS = (
    "backend.loop.turn",
    "imagehash",
    "scipy.optimize",
    "sklearn.cluster",
    "sklearn.linear_model",
    "sklearn.metrics",
)
_PR_SET_PDEATHSIG = 1
# People wait for Label Studio and for the web process, not for this one, which may share their cores.
_NICENESS = 5


class LoopWorker(Worker):
    """An RQ worker that also recovers lost jobs, at its start and then periodically.

    A worker for turns requests one for every project, and one for fine-tunings resumes those whose worker was killed.
    """

    def __init__(self, queue: JobQueue, services: Services, queues: Sequence[str] = LOOP_QUEUES) -> None:
        every = int(services.settings.reconcile_every_s)
        super().__init__(
            queue.queues(queues),
            connection=queue.redis,
            serializer=JSONSerializer,
            maintenance_interval=every,
            # The worker wakes up from waiting this often, less 15 s.
            worker_ttl=every + 15,
        )
        self._job_queue = queue
        self._services = services
        self._listens_to = queues
        self._busy_with = ""

    def run_maintenance_tasks(self) -> None:
        """Called by RQ at the start and then between jobs."""
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        self._register_again()
        projects = self._services.store.project_ids()
        # Jobs run in forks of this process, which must not share an open connection to the database.
        self._services.store.close()
        if TURNS in self._listens_to:
            reconcile(self._job_queue, projects)
        if FINETUNES in self._listens_to:
            resume_finetunings(self._job_queue, projects)

    def _register_again(self) -> None:
        """Renew a registration that expired while the machine slept: this worker would stay invisible for ever."""
        is_listed = self.connection.sismember(self.redis_workers_keys, self.key)
        if is_listed and self.connection.hexists(self.key, "birth"):
            return
        # Heartbeats since then have left a key that would count as another worker of this name.
        self.connection.delete(self.key)
        self.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        self.set_state(self.get_state())

    def handle_warm_shutdown_request(self) -> None:
        """Called by RQ on a stop signal: it does not wait for a fine-tuning, which can be resumed."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        if self.horse_pid and self._busy_with == FINETUNES:
            self.kill_horse()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Called by RQ for each job, in the worker itself.

        RQ runs any function that a job in Redis names. This worker runs the project's own only: whoever can write
        into Redis, or a queue left by another release, shall not choose what it runs.
        """
        if (name := _function(job)) not in JOBS:
            logger.error("job %s in the queue %s is dropped: it names %s, no job of carcond", job.id, queue.name, name)
            job.delete()
            return
        self._busy_with = queue.name
        reach("job.taken")
        super().execute_job(job, queue)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Runs in the fork: it must not outlive a killed worker, or two turns of a project would run."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        super().main_work_horse(job, queue)


def _function(job: Job) -> str:
    """Dotted name of the function that a job calls, in one printable line."""
    try:
        return sanitize_line(job.func_name)
    except DeserializationError:
        return "nothing that can be read"


def main() -> None:
    """Run a worker until a stop signal."""
    restrict_umask()
    queues = _parse_arguments()
    os.nice(_NICENESS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "rq"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for module in _USED_BY_JOBS if TURNS in queues else ():
        importlib.import_module(module)
    try:
        # Tried here, since RQ ends without a word, and with success, on an error of its maintenance.
        get_services().store.close()
        LoopWorker(get_job_queue(), get_services(), queues).work(logging_level="WARNING")
    except (CarcondError, RedisError) as error:
        sys.exit(f"the worker cannot run: {error}")


def _parse_arguments() -> list[str]:
    parser = argparse.ArgumentParser(prog="python -m backend.worker", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--queues",
        nargs="+",
        metavar="QUEUE",
        choices=ALL_QUEUES,
        default=list(LOOP_QUEUES),
        help="queues to take jobs from, most urgent first: %(choices)s (default: all but finetune)",
    )
    queues: list[str] = parser.parse_args().queues
    return queues


if __name__ == "__main__":
    main()
