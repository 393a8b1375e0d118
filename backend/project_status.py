"""What is known of a project: what serves it, what it learnt from, what more labels would bring, and its jobs."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError

from backend.finetune_view import finetune_facts
from backend.jobs import TURNS, JobQueue
from backend.learning import learning_facts
from backend.services import Services
from carcond.card_values import plain
from carcond.errors import CarcondError, RegistryError
from carcond.examples import merge_annotations
from carcond.registry import Registry, Version, version_name


def project_status(
    services: Services, queue: JobQueue, project_id: int, learning: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All of it, JSON-ready; takes seconds with a thousand labels.

    Args:
        services: where it is read from.
        queue: the jobs.
        project_id: the project.
        learning: what `learning_facts` told, which takes nearly all of the time; None to have it computed.

    Returns:
        The serving version's card, or `version` None before the first; and

        - `serving`: `version`, and `since`, `who` and `why` from the record of promotions; None before the first.
        - `newest`: the newest version, whether it was `accepted` by the gate (None: not tested), and the `reason`.
        - `photos`: in Label Studio; `photos_left`: to be labelled; `photos_unreadable`; `photos_skipped`.
        - `labels`, `curve`, `forecast` and `labels_saved`: see `backend.learning.learning_facts`.
        - `jobs`: `reachable`; if Redis is, how many are `waiting` and `failed`, how many `workers` that take
          turns are alive, and when the last turn ended; else the `reason`.
        - `finetune`: see `backend.finetune_view.finetune_facts`.
        - `next_step`: what to do, in words.
    """
    registry = services.registry(project_id)
    version = registry.current()
    annotations, photos = services.store.annotations(project_id), services.store.photos(project_id)
    labels = merge_annotations(annotations)
    skipped = {row.task_id for row in annotations if row.cancelled} - labels.keys()
    left = [p for p in photos if p.task_id not in labels and p.task_id not in skipped and not p.problem]
    facts: dict[str, Any] = {
        **(version.card if version else {"version": None}),
        "project": project_id,
        "serving": _serving(registry, version),
        "newest": _newest(registry),
        "photos": len(photos),
        "photos_left": len(left),
        "photos_unreadable": sum(p.problem is not None for p in photos),
        "photos_skipped": len(skipped),
        **(learning or learning_facts(services, project_id)),
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
    from backend.queue_metrics import alive_workers  # noqa: PLC0415
    from backend.turn_log import read_turns  # noqa: PLC0415

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
