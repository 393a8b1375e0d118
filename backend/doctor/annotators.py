"""People who label past the queue: they get the tab's order, and with it neither slots nor the hold-out's share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb

from backend.doctor.examination import ProjectExamination
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.people import name_of, names
from backend.label_studio.way_in import AS_DISPLAYED, LABEL_ALL, browser_base, project_url
from backend.snapshot import model_selected_tasks
from carcond.data.split import HOLDOUT
from carcond.errors import LabelStudioError
from carcond.store.tables import AnnotationRow

PAST_THE_QUEUE = Kind(
    "labels-past-the-queue",
    Level.WARNING,
    "The hold-out hardly grows, and two people get the same photo.",
    "{count} of {all} people label past the queue: {people}.",
    "Label Studio serves the order of the tab to whoever came by an address with labeling=1, or chose "
    f"{AS_DISPLAYED}, or opens photos from their row: without slots, without the photos sampled for the hold-out, and "
    "without keeping a photo for one person.",
    f"They open {{url}} and click {LABEL_ALL}. Their browser keeps it until they choose {AS_DISPLAYED}.",
)

_NEWEST = 100
_LEAST = 30
# Significance level: one person in a thousand who follows the queue is named wrongly.
_SIGNIFICANCE = 0.001


@dataclass(frozen=True)
class DrawnShare:
    """Photos sampled for the hold-out among the newest ones that a person was the first to label.

    Attributes:
        annotator: id in Label Studio.
        labels: number of photos.
        drawn: number of them that were sampled for the hold-out.
    """

    annotator: int
    labels: int
    drawn: int

    def is_too_small(self, share: float) -> bool:
        """True if the queue, which serves this share of sampled photos, gives that few with p <= 0.001.

        An exact binomial test, one-sided.
        """
        n, k = self.labels, self.drawn
        return n >= _LEAST and sum(comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k + 1)) < _SIGNIFICANCE


def check_annotators(project: ProjectExamination) -> Iterator[Finding]:
    """Check that every annotator gets the hold-out's share of photos."""
    services = project.whole.services
    share = 1 / (services.settings.slots + 1)
    held = {photo.task_id for photo in services.store.photos(project.id) if photo.side == HOLDOUT}
    annotations = services.store.annotations(project.id)
    left = len(held - {row.task_id for row in annotations})
    shares = drawn_shares(annotations, model_selected_tasks(services.store, project.id), held)
    # Photos that a person should have been served and was not are still there, unless the hold-out was used up.
    past = [each for each in shares if each.is_too_small(share) and each.labels * share - each.drawn <= left]
    if not past:
        judged = sum(each.labels >= _LEAST for each in shares)
        yield fine(f"{judged} of {len(shares)} have labelled enough to tell")
        return
    known = _names(project.whole.api)
    people = "; ".join(
        f"{name_of(known, each.annotator)} ({each.drawn} of the newest {each.labels} labels are of drawn photos, "
        f"{each.labels * share:.0f} expected)"
        for each in past
    )
    url = project_url(browser_base(services.settings), project.id)
    yield PAST_THE_QUEUE.found(count=len(past), all=len(shares), people=people, url=url)


def drawn_shares(annotations: Sequence[AnnotationRow], served: set[int], drawn: set[int]) -> list[DrawnShare]:
    """Share of sampled photos among each person's newest labels, in order of their ids.

    Args:
        annotations: of a project, in order of id.
        served: task ids that the queue could serve; labels that were there before it, or imported, do not count.
        drawn: task ids sampled for the hold-out.

    Returns:
        One for each person who was the first to label a photo of the queue. Second labels do not count: their authors
        look for wrong labels, or were served the photo because it is half labelled.
    """
    labelled: dict[int, list[int]] = {}
    seen: set[int] = set()
    for row in annotations:
        if not row.cancelled and row.task_id in served and row.task_id not in seen:
            seen.add(row.task_id)
            labelled.setdefault(row.annotator, []).append(row.task_id)
    newest = {annotator: tasks[-_NEWEST:] for annotator, tasks in sorted(labelled.items())}
    return [DrawnShare(who, len(tasks), sum(task in drawn for task in tasks)) for who, tasks in newest.items()]


def _names(api: LabelStudioApi) -> dict[int, str]:
    try:
        return names(api)
    except LabelStudioError:  # numbers are better than no finding
        return {}
