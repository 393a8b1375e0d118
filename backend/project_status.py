"""What is known of a project: what serves it, what it learnt from, what more labels would bring, and its jobs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError

from backend.jobs import JobQueue
from backend.services import Services
from backend.snapshot import asked_for
from carcond.card_values import plain
from carcond.errors import CarcondError, EncoderError, RegistryError
from carcond.examples import LabelledSet, labelled_set, merge_annotations
from carcond.registry import Registry, Version, version_name
from carcond.split import HOLDOUT
from carcond.tables import AnnotationRow, Photo


def project_status(services: Services, queue: JobQueue, project_id: int) -> dict[str, Any]:
    """All of it, JSON-ready; takes seconds with a thousand labels.

    Returns:
        The serving version's card, or `version` None before the first; and

        - `serving`: `version`, and `since`, `who` and `why` from the record of promotions; None before the first.
        - `newest`: the newest version, whether it was `accepted` by the gate (None: not tested), and the `reason`.
        - `photos`: in Label Studio; `photos_left`: to be labelled; `photos_unreadable`; `photos_skipped`.
        - `labels`: photos in `train` and `holdout`, and those `unusable`, now: newer than the card's may be.
        - `forecast`: task -> see `carcond.forecast.Forecast.as_json`.
        - `labels_saved`: task -> see `carcond.labels_saved.LabelsSaved.as_json`.
        - `jobs`: `reachable`; if Redis is, how many are `waiting` and `failed`, how many `workers` are alive, and
          when the last turn ended; else the `reason`.
        - `next_step`: what to do, in words.
    """
    registry = services.registry(project_id)
    version = registry.current()
    annotations, photos = services.store.annotations(project_id), services.store.photos(project_id)
    labels = merge_annotations(annotations)
    skipped = {row.task_id for row in annotations if row.cancelled} - labels.keys()
    left = [p for p in photos if p.task_id not in labels and p.task_id not in skipped and not p.problem]
    labelled = _labelled(services, project_id, version, photos, annotations)
    facts: dict[str, Any] = {
        **(version.card if version else {"version": None}),
        "project": project_id,
        "serving": _serving(registry, version),
        "newest": _newest(registry),
        "photos": len(photos),
        "photos_left": len(left),
        "photos_unreadable": sum(p.problem is not None for p in photos),
        "photos_skipped": len(skipped),
        "labels": _label_counts(photos, labelled, len(labels)),
        **_learning(services, project_id, photos, annotations, labelled),
        "jobs": _jobs(queue, project_id),
    }
    return facts | {"next_step": next_step(facts)}


def _labelled(
    services: Services,
    project_id: int,
    version: Version | None,
    photos: list[Photo],
    annotations: list[AnnotationRow],
) -> LabelledSet | None:
    """None when there is no encoder yet."""
    try:
        encoder_id = version.heads.encoder_id if version else services.encoder_id()
    except EncoderError:
        return None
    task_ids, embeddings = services.store.embeddings(project_id, encoder_id)
    return labelled_set(photos, merge_annotations(annotations), task_ids, embeddings)


def _label_counts(photos: list[Photo], labelled: LabelledSet | None, total: int) -> dict[str, int]:
    held = int(labelled.holdout.sum()) if labelled else 0
    usable = len(labelled.holdout) if labelled else 0
    return {"train": usable - held, "holdout": held, "unusable": total - usable}


def _learning(
    services: Services,
    project_id: int,
    photos: list[Photo],
    annotations: list[AnnotationRow],
    labelled: LabelledSet | None,
) -> dict[str, Any]:
    # Imported here: they need what fits heads, and those who read a project's versions only do not.
    from carcond.forecast import forecast  # noqa: PLC0415
    from carcond.labels_saved import labels_saved  # noqa: PLC0415
    from carcond.learning_curve import Origin, label_histories  # noqa: PLC0415

    if labelled is None:
        return {"forecast": {}, "labels_saved": {}}
    asked = asked_for(services.store, project_id)
    # Annotations are numbered as they are made; their times move when one is corrected.
    made: dict[int, int] = {}
    for row in annotations:
        if not row.cancelled:
            made.setdefault(row.task_id, row.annotation_id)
    drawn = {p.task_id for p in photos if p.drawn and p.side == HOLDOUT}
    origins = {
        e.task_id: Origin(made[e.task_id], drawn=e.task_id in drawn, imported=e.task_id not in asked)
        for e in labelled.usable
    }
    histories = label_histories(labelled, origins)
    return {
        "forecast": {task: forecast(history).as_json() for task, history in histories.items()},
        "labels_saved": {task: labels_saved(history).as_json() for task, history in histories.items()},
    }


def _serving(registry: Registry, version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    try:
        record = [each for each in registry.promotions() if each.version == version.number]
    except RegistryError:
        record = []
    since = record[-1].facts() if record else {}
    return {"version": version.name, "since": since.get("when") or version.card.get("created")} | {
        name: since.get(name) for name in ("who", "why")
    }


def _newest(registry: Registry) -> dict[str, Any] | None:
    numbers = registry.numbers()
    if not numbers:
        return None
    try:
        gate = registry.load(numbers[-1]).card.get("gate")
    except RegistryError as error:
        return {"version": version_name(numbers[-1]), "accepted": None, "reason": str(error)}
    gate = gate if isinstance(gate, Mapping) else {}
    return {"version": version_name(numbers[-1]), "accepted": gate.get("accepted"), "reason": gate.get("reason")}


def _jobs(queue: JobQueue, project_id: int) -> dict[str, Any]:
    from rq import Worker  # noqa: PLC0415

    from backend.queue_metrics import is_alive  # noqa: PLC0415
    from backend.turn_log import read_turns  # noqa: PLC0415

    try:
        turns = read_turns(queue.redis).get(project_id)
        return {
            "reachable": True,
            "waiting": {each.name: each.count for each in queue.queues()},
            "failed": sum(each.failed_job_registry.get_job_count(cleanup=False) for each in queue.queues()),
            "workers": sum(map(is_alive, Worker.all(connection=queue.redis))),
            "last_turn": datetime.fromtimestamp(turns.ended, UTC).isoformat(timespec="seconds") if turns else None,
        }
    except (RedisError, CarcondError) as error:
        return {"reachable": False, "reason": plain(f"Redis cannot be reached ({type(error).__name__})")}


def next_step(facts: Mapping[str, Any]) -> str:
    """What to do next about a project, in words."""
    jobs, newest = facts["jobs"], facts["newest"] or {}
    states = {task["state"] for task in facts["forecast"].values()}
    steps = (
        (
            not jobs["reachable"],
            "Start Redis, or mend REDIS_URL: without it nothing is learnt, though pre-labels are still served.",
        ),
        (not jobs.get("workers"), "Start a worker (python -m backend.worker): without one nothing is learnt."),
        (not facts["photos"], "Import photos into the project in Label Studio."),
        (
            facts["version"] is None,
            "Label photos: the first version is made once two classes of one task are labelled.",
        ),
        (
            newest.get("accepted") is False,
            f"See why {newest.get('version')} was refused (carcond versions show); {facts['version']} goes on serving.",
        ),
        (not facts["photos_left"], "All photos are labelled. Import more, or take the version into use."),
        (states == {"flat"}, "More labels of this kind will hardly help: stop, or bring photos of another kind."),
    )
    return next((words for applies, words in steps if applies), "Go on labelling.")
