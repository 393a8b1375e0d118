"""`carcond finetune`: fine-tune the encoder on a project's labels, in the background."""

import json
from typing import Annotated

import typer

from backend.commands.person import this_person
from carcond.errors import TrainingError


def finetune(
    project: Annotated[int, typer.Option(help="the project's number in Label Studio")],
    cancel: Annotated[bool, typer.Option("--cancel", help="end the one under way, and forget what it learnt")] = False,
    status: Annotated[bool, typer.Option("--status", help="only tell how far it is")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Fine-tune the encoder on a project's labels, by a worker that does such jobs (docs/finetune.md).

    What is learnt takes over only when the gate does not find it worse.

    Example: carcond finetune --project 1
    Example: carcond finetune --project 1 --status
    """
    from backend.commands.project import check_project  # noqa: PLC0415 - `carcond --help` needs no services
    from backend.finetune_jobs import cancel_finetuning, start_finetuning  # noqa: PLC0415
    from backend.finetune_view import finetune_facts, finetune_text  # noqa: PLC0415
    from backend.jobs import get_job_queue  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415

    if cancel and status:
        raise typer.BadParameter("expected --cancel or --status, got both")
    services, queue = get_services(), get_job_queue()
    check_project(services, project)
    services.pull_models(project)
    if cancel:
        if not cancel_finetuning(queue, project):
            raise TrainingError(f"project {project} has no fine-tuning under way")
    elif not status and not start_finetuning(queue, project, this_person()):
        raise TrainingError(
            f"a fine-tuning of project {project} is under way: see it with --status, or end it with --cancel"
        )
    facts = finetune_facts(services, queue, project)
    print(json.dumps(facts, indent=2) if as_json else finetune_text(facts))
