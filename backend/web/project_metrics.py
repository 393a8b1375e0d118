"""Photos and versions of the projects as Prometheus metrics, read from the store and the registries."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from operator import attrgetter

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import func, select

from backend.services import Services
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import RegistryError
from carcond.model.version_card import Metrics
from carcond.registry.registry import Registry
from carcond.store.store import Store
from carcond.store.tables import AnnotationRow, Photo

_UNLABELLED = "unlabelled"
# Metric -> figure of a task in the card, and its help text.
_SCORES: Mapping[str, tuple[Callable[[Metrics], float | None], str]] = {
    "carcond_holdout_photos": (attrgetter("photos"), "Hold-out photos on which the serving version was measured."),
    "carcond_holdout_accuracy": (attrgetter("accuracy"), "Accuracy of the serving version on the hold-out, 0 to 1."),
    "carcond_holdout_macro_f1": (
        attrgetter("macro_f1"),
        "Macro-F1 of the serving version on the hold-out, 0 to 1; absent while it has one class.",
    ),
    "carcond_holdout_calibration_error": (
        attrgetter("after.ece"),
        "Expected calibration error of the serving version on the hold-out, 0 (calibrated) to 1.",
    ),
}


class ProjectMetrics:
    """Metrics of all projects. Caches immutable data, so that a scrape reads only what is new."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Project -> number of a version -> whether the gate accepted it.
        self._accepted: dict[int, dict[int, bool]] = {}

    def collect(self) -> Iterator[Metric]:
        """All metrics.

        Raises:
            StoreError: the store cannot be read.
        """
        store = self._services.store
        projects = store.project_ids()
        registries = {project: self._services.registry(project) for project in projects}
        yield from _photos(store, projects)
        yield from _serving(registries)
        yield from self._versions(registries)

    def _versions(self, registries: Mapping[int, Registry]) -> Iterator[Metric]:
        versions = _gauge("carcond_versions", "Versions that are kept.")
        refused = _gauge("carcond_refused_versions", "Kept versions that the gate refused.")
        in_a_row = _gauge(
            "carcond_refused_versions_in_a_row", "Number of the newest versions that the gate refused in a row."
        )
        for project, registry in registries.items():
            verdicts = self._verdicts(project, registry)
            versions.add_metric([str(project)], len(verdicts))
            refused.add_metric([str(project)], verdicts.count(False))
            in_a_row.add_metric([str(project)], [*reversed(verdicts), True].index(True))
        yield from (versions, refused, in_a_row)

    def _verdicts(self, project: int, registry: Registry) -> list[bool]:
        """Verdict of the gate for each version, True if accepted, in the order of their numbers."""
        known = self._accepted.get(project, {})
        self._accepted[project] = {
            number: known[number] if number in known else _was_accepted(registry, number)
            for number in registry.numbers()
        }
        return list(self._accepted[project].values())


def _was_accepted(registry: Registry, number: int) -> bool:
    try:
        return not registry.load(number).card.is_refused
    except RegistryError:  # a broken one has no verdict: it does not count as refused
        return True


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["project", *labels])


def _photos(store: Store, projects: Iterable[int]) -> Iterator[Metric]:
    photos = _gauge("carcond_photos", "Photos in Label Studio: unlabelled, or the split of the labelled ones.", "state")
    unreadable = _gauge("carcond_unreadable_photos", "Photos in Label Studio that could not be read.")
    rows = _count_photos(store)
    for project in projects:
        mine = [row for row in rows if row[0] == project]
        for state in (_UNLABELLED, TRAIN, HOLDOUT):
            photos.add_metric([str(project), state], sum(row[3] for row in mine if row[1] == state))
        unreadable.add_metric([str(project)], sum(row[3] for row in mine if row[2]))
    yield from (photos, unreadable)


def _count_photos(store: Store) -> list[tuple[int, str, bool, int]]:
    """Rows of project, state, whether unreadable, and number of photos."""
    labelled = (
        select(AnnotationRow.project_id, AnnotationRow.task_id).where(~AnnotationRow.cancelled).distinct().subquery()
    )
    is_same = (labelled.c.project_id == Photo.project_id) & (labelled.c.task_id == Photo.task_id)
    traits = (Photo.project_id, labelled.c.task_id.is_not(None), Photo.side, Photo.problem.is_not(None))
    query = select(*traits, func.count()).outerjoin(labelled, is_same).where(~Photo.gone).group_by(*traits)
    with store.session() as session:
        return [
            (project, _state(is_labelled, side), unreadable, count)
            for project, is_labelled, side, unreadable, count in session.execute(query)
        ]


def _state(is_labelled: bool, side: str | None) -> str:
    if not is_labelled:
        return _UNLABELLED
    return HOLDOUT if side == HOLDOUT else TRAIN


def _serving(registries: Mapping[int, Registry]) -> Iterator[Metric]:
    number = _gauge("carcond_serving_version", "Number of the serving version, 0 before the first.")
    pinned = _gauge("carcond_pinned_version", "Number of the version that a person has pinned, 0 while none is.")
    promoted = _gauge(
        "carcond_last_promotion_timestamp_seconds", "When the serving version began to serve, in Unix time."
    )
    scores = {name: _gauge(name, text, "task") for name, (_, text) in _SCORES.items()}
    for project, registry in registries.items():
        version = registry.current()
        number.add_metric([str(project)], version.number if version else 0)
        with suppress(RegistryError):  # a record that cannot be read has no pins
            pin = registry.pin()
            pinned.add_metric([str(project)], pin.version if pin else 0)
        with suppress(OSError):  # before the first version
            promoted.add_metric([str(project)], (registry.root / "current").stat().st_mtime)
        for name, (figure, _) in _SCORES.items():
            for task, metrics in version.card.holdout.items() if version else ():
                value = figure(metrics)
                if value is not None:  # older cards lack some
                    scores[name].add_metric([str(project), task], value)
    yield from (number, pinned, promoted, *scores.values())
