"""Status of a project: its serving version, labels, forecast of more labels, and jobs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError

from backend.jobs.queue import TURNS, JobQueue
from backend.jobs.queue_state import alive_workers
from backend.jobs.turn_log import read_turns
from backend.project.finetune_status import finetune_facts
from backend.project.label_advice import labelling_advice
from backend.project.learning_progress import learning_facts
from backend.services import Services
from carcond.analysis.anchoring import anchoring_facts
from carcond.data.dataset import merge_annotations
from carcond.data.split import HOLDOUT
from carcond.errors import CarcondError, RegistryError
from carcond.json_fields import sanitize_line
from carcond.registry.registry import Registry, Version, version_name


def project_status(
    services: Services, queue: JobQueue, project_id: int, learning: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Status of a project, JSON-ready; takes seconds with a thousand labels.

    Args:
        services: where it is read from.
        queue: the jobs.
        project_id: the project.
        learning: result of `learning_facts`, which takes nearly all of the time; None to compute it here.

    Returns:
        The serving version's card, or `version` None before the first; and

        - `serving`: `version`, and `since`, `who` and `why` from the record of promotions; None before the first.
        - `pinned`: `version`, `since`, `who` and `why` of the pinned version; None while none is pinned.
        - `newest`: the newest version, whether it was `accepted` by the gate (None: not tested), and the `reason`.
        - `photos`: in Label Studio; `photos_left`: to be labelled; `photos_unreadable`; `photos_skipped`.
        - `labels`, `curve`, `forecast` and `labels_saved`: see `backend.project.learning_progress.learning_facts`.
        - `anchoring`: task key -> rate at which all annotators together keep wrong pre-labels, see
          `carcond.analysis.anchoring.Anchoring`; a task without an answer to a known pre-label is absent.
        - `jobs`: `reachable`; if Redis is, the numbers of `waiting` and `failed` jobs and of live `workers` that
          take turns, and when the last turn ended; else the `reason`.
        - `finetune`: see `backend.project.finetune_status.finetune_facts`.
        - `next_step`: what to do, in words.
    """
    registry = services.registry(project_id)
    version = registry.current()
    annotations, photos = services.store.annotations(project_id), services.store.photos(project_id)
    labels = merge_annotations(annotations)
    skipped = {row.task_id for row in annotations if row.cancelled} - labels.keys()
    held_out = {photo.task_id for photo in photos if photo.side == HOLDOUT}
    left = [p for p in photos if p.task_id not in labels and p.task_id not in skipped and not p.problem]
    facts: dict[str, Any] = {
        **(version.card.facts() if version else {"version": None}),
        "project": project_id,
        "serving": _serving(registry, version),
        "pinned": pin_facts(registry),
        "newest": _newest(registry),
        "photos": len(photos),
        "photos_left": len(left),
        "photos_unreadable": sum(p.problem is not None for p in photos),
        "photos_skipped": len(skipped),
        **(learning or learning_facts(services, project_id)),
        "anchoring": {task: rows[0] for task, rows in anchoring_facts(annotations, held_out).items()},
        "jobs": _jobs(queue, project_id),
        "finetune": finetune_facts(services, queue, project_id),
    }
    return facts | {"next_step": next_step(facts)}


def _serving(registry: Registry, version: Version | None) -> dict[str, Any] | None:
    if version is None:
        return None
    try:
        record = [each for each in registry.promotions() if each.version == version.number]
    except RegistryError:
        record = []
    since = record[-1].facts() if record else {}
    return {"version": version.name, "since": since.get("when") or version.card.created} | {
        name: since.get(name) for name in ("who", "why")
    }


def pin_facts(registry: Registry) -> dict[str, Any] | None:
    """Pinned version, since when, by whom and why, JSON-ready; None while none is pinned."""
    try:
        pin = registry.pin()
    except RegistryError:
        return None
    return {"version": version_name(pin.version), "since": pin.when, "who": pin.who, "why": pin.why} if pin else None


def _newest(registry: Registry) -> dict[str, Any] | None:
    numbers = registry.numbers()
    if not numbers:
        return None
    try:
        card = registry.load(numbers[-1]).card
    except RegistryError as error:
        return {"version": version_name(numbers[-1]), "accepted": None, "reason": str(error)}
    return {"version": version_name(numbers[-1]), "accepted": card.accepted, "reason": card.reason}


def _jobs(queue: JobQueue, project_id: int) -> dict[str, Any]:
    try:
        turns, queues = read_turns(queue.redis).get(project_id), queue.queues()
        return {
            "reachable": True,
            "waiting": {each.name: each.count for each in queues},
            "failed": sum(each.failed_job_registry.get_job_count(cleanup=False) for each in queues),
            "workers": alive_workers(queue, TURNS),
            "last_turn": datetime.fromtimestamp(turns.ended, UTC).isoformat(timespec="seconds") if turns else None,
        }
    except (RedisError, CarcondError) as error:
        return {"reachable": False, "reason": sanitize_line(f"Redis cannot be reached ({type(error).__name__})")}


def next_step(facts: Mapping[str, Any]) -> str:
    """Next step for a person to take in a project, in words."""
    jobs, newest = facts["jobs"], facts["newest"] or {}
    steps = (
        (
            not jobs["reachable"],
            "Start Redis, or correct REDIS_URL: without it nothing is learnt, though pre-labels are still served.",
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
    )
    return next((words for applies, words in steps if applies), labelling_advice(facts["forecast"]))
