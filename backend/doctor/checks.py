"""All checks, in the order in which they are reported, and the run of an examination."""

from collections.abc import Sequence
from types import ModuleType

from backend.doctor import (
    annotators,
    backend_service,
    database,
    jobs,
    label_studio,
    machine,
    models,
    photos,
    predictions,
    project,
    tasks,
    variables,
    webhook,
)
from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.finding import Finding, Kind
from backend.doctor.runner import Check, Job, Runner

ROOMS: tuple[ModuleType, ...] = (
    label_studio,
    database,
    jobs,
    models,
    machine,
    variables,
    project,
    backend_service,
    webhook,
    tasks,
    predictions,
    annotators,
    photos,
)

STACK_CHECKS = (
    Check("label-studio", "Label Studio", label_studio.check_label_studio),
    Check("label-studio-version", "Label Studio's version", label_studio.check_version, ("label-studio",)),
    Check("token", "the token", label_studio.check_token, ("label-studio",)),
    Check("database", "the store", database.check_database),
    Check("redis", "Redis", jobs.check_redis),
    Check("redis-persistence", "Redis's disk", jobs.check_persistence, ("redis",)),
    Check("workers", "workers", jobs.check_workers, ("redis",)),
    Check("queue", "waiting jobs", jobs.check_queue, ("redis",)),
    Check("object-store", "the object store", models.check_object_store, ("database",), seconds=30.0),
    Check("encoder", "the encoder", models.check_encoder),
    Check("disk", "disk space", machine.check_disk),
    Check("clock", "the clock", machine.check_clock, ("label-studio",)),
    Check("packages", "packages", machine.check_packages),
    Check("variables", "environment variables", variables.check_variables),
)
PROJECT_CHECKS = (
    Check("project", "the project", project.check_project, ("token",)),
    Check("served", "known here", project.check_served, ("database", "project")),
    Check("backend", "the backend", backend_service.check_backend, ("project",)),
    Check("webhook", "the webhook", webhook.check_webhook, ("project",)),
    Check("sampling", "the order of photos", project.check_sampling, ("project",)),
    Check("label-config", "the label config", project.check_label_config, ("project",)),
    Check("model-version", "the version shown", project.check_model_version, ("project",)),
    Check("tasks", "tasks", tasks.check_tasks, ("project",), seconds=30.0),
    Check("predictions", "predictions", predictions.check_predictions, ("project",)),
    Check("annotators", "who labels", annotators.check_annotators, ("database", "project")),
    Check("photos", "photos", photos.check_photos, ("project",)),
    Check("unreadable-photos", "photos read so far", photos.check_known_problems, ("database",)),
    Check("version", "the promoted version", models.check_version),
    Check("gate", "the gate", models.check_gate),
)


def kinds() -> list[Kind]:
    """All kinds of findings, in the order of the modules."""
    return [value for room in ROOMS for value in vars(room).values() if isinstance(value, Kind)]


def examine(whole: Examination, projects: Sequence[int]) -> list[Finding]:
    """Run all checks.

    Args:
        whole: the stack to check.
        projects: their numbers in Label Studio; empty for all that the store knows.
    """
    runner = Runner()
    found = runner.run([Job(check, whole) for check in STACK_CHECKS])
    if not projects and runner.passed("database"):
        projects = whole.services.store.project_ids()
    subjects = [ProjectExamination(whole, number) for number in projects]
    return found + runner.run([Job(check, each, each.id) for each in subjects for check in PROJECT_CHECKS])
