"""The worker process: runs turns and refreshes, and reconciles once in a while."""

import ctypes
import importlib
import logging
import signal
import sys

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from backend.jobs import JobQueue, get_job_queue, reconcile
from backend.services import Services, get_services
from carcond.errors import CarcondError

logger = logging.getLogger(__name__)

# Imported once here, so that a job, which runs in a fork of this process, does not wait for them.
_USED_BY_JOBS = (
    "backend.loop",
    "imagehash",
    "scipy.optimize",
    "sklearn.cluster",
    "sklearn.linear_model",
    "sklearn.metrics",
)
_PR_SET_PDEATHSIG = 1


class LoopWorker(Worker):
    """An RQ worker that also nudges every project at its start and then periodically."""

    def __init__(self, queue: JobQueue, services: Services) -> None:
        every = int(services.settings.reconcile_every_s)
        super().__init__(
            queue.queues(),
            connection=queue.redis,
            serializer=JSONSerializer,
            maintenance_interval=every,
            # The worker looks up from waiting this often, less 15 s.
            worker_ttl=every + 15,
        )
        self._job_queue = queue
        self._services = services

    def run_maintenance_tasks(self) -> None:
        """Called by RQ at the start and then between jobs."""
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        projects = self._services.store.project_ids()
        # Jobs run in forks of this process, which must not share an open connection to the database.
        self._services.store.close()
        reconcile(self._job_queue, projects)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Runs in the fork: it must not outlive a killed worker, or two turns of a project would run."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        super().main_work_horse(job, queue)


def main() -> None:
    """Run a worker until it is told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "rq"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for module in _USED_BY_JOBS:
        importlib.import_module(module)
    try:
        # Tried here, since RQ ends without a word, and with success, on an error of its maintenance.
        get_services().store.close()
        LoopWorker(get_job_queue(), get_services()).work(logging_level="WARNING")
    except (CarcondError, RedisError) as error:
        sys.exit(f"the worker cannot run: {error}")


if __name__ == "__main__":
    main()
