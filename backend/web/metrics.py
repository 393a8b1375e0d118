"""`GET /metrics`: metrics for Prometheus.

Requests are counted here, in the one process that answers them. All else is read at each scrape from store,
registries and Redis, which copies of the backend share: each reports the same values, so take `max`, not the sum.
"""

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from backend.jobs.queue import get_job_queue
from backend.jobs.queue_state import queue_metrics
from backend.services import Services
from backend.web.project_metrics import ProjectMetrics
from carcond.errors import CarcondError

logger = logging.getLogger(__name__)

# Seconds. Label Studio gives a webhook one, and a prediction a hundred.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100)


class Metrics:
    """The metrics of one web process."""

    def __init__(self, services: Services) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "carcond_http_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "carcond_http_request_duration_seconds",
            "How long requests took to answer.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        projects = ProjectMetrics(services)
        self._registry.register(_Parts({"store": projects.collect, "redis": lambda: queue_metrics(get_job_queue())}))
        ProcessCollector(registry=self._registry)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: the pattern, not the path: anybody may request any path.
            status: the status code of the answer.
            seconds: its duration.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text, and its content type.

        Args:
            accept: the request's header, in which Prometheus names the formats that it reads.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """All metrics, as objects."""
        yield from self._registry.collect()


class _Parts(Collector):
    """Metrics of parts of the stack. An unreachable part is reported as such, and its metrics are left out."""

    def __init__(self, parts: dict[str, Callable[[], Iterable[Metric]]]) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        reachable = GaugeMetricFamily(
            "carcond_part_reachable", "Whether the backend reaches a part of the stack: 1 or 0.", labels=["part"]
        )
        for name, collect in self._parts.items():
            try:
                metrics = list(collect())
            except (CarcondError, RedisError) as error:
                logger.warning("metrics without %s: %s", name, error)
                metrics = []
                reachable.add_metric([name], 0)
            else:
                reachable.add_metric([name], 1)
            yield from metrics
        yield reachable
