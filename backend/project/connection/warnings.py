"""Warnings before a project is connected."""

from collections.abc import Iterator, Mapping
from typing import Any

from backend.label_studio.answers import read_count
from backend.label_studio.client import ProjectInfo
from backend.label_studio.label_config import LabelBinding
from backend.project.connection.photo_sample import PhotoSample
from carcond.registry.registry import is_ours
from carcond.taxonomy import TASKS


def connection_warnings(
    project: ProjectInfo, binding: LabelBinding, sample: PhotoSample, facts: Mapping[str, Any]
) -> Iterator[str]:
    """Sentences, the most important first.

    Args:
        project: as it is.
        binding: what its label config asks for.
        sample: check of its photos.
        facts: of `backend.project.connection.plan.ConnectionPlan`.
    """
    yield from _of_photos(sample)
    yield from _of_words(binding)
    yield from _of_others(project, facts)
    annotators = read_count(project.raw, "maximum_annotations", 1)
    if annotators > 1:
        yield (
            f"each photo is asked of {annotators} annotators: Label Studio shows half-labelled photos first, in an "
            "order of its own, and only then follows the queue"
        )


def _of_photos(sample: PhotoSample) -> Iterator[str]:
    if sample.hosts_to_allow:
        yield (
            "photos are at hosts that backend and worker may not ask. Start both with "
            f"CARCOND_PHOTO_HOSTS={','.join([*sample.allowed_hosts, *sample.hosts_to_allow])}"
        )
    others = {task: text for task, text in sample.problems.items() if task not in sample.at_closed_hosts}
    if others:
        task, text = next(iter(others.items()))
        yield f"{len(others)} of {sample.tried} photos that were tried cannot be had, like that of task {task}: {text}"
    if sample.encoder is None:
        yield f"nothing is learnt without an encoder: {sample.encoder_problem}"


def _of_words(binding: LabelBinding) -> Iterator[str]:
    if binding.unknown_words:
        words = ", ".join(repr(word) for word in binding.unknown_words)
        yield f"these choices mean nothing to carcond, and are neither predicted nor learnt: {words}"
    for task in TASKS:
        if task.key not in binding.choices:
            yield f"the label config does not ask for {task.en.lower()}: it is not predicted"
            continue
        missing = [c.en for c in task.classes if c.key not in binding.choices[task.key].word_by_class]
        if missing:
            yield f"the label config has no word for {', '.join(missing)}: that answer is left open"


def _of_others(project: ProjectInfo, facts: Mapping[str, Any]) -> Iterator[str]:
    if facts["other_backends"]:
        yield (
            "other ML backends stay connected, and the first one goes on answering what Label Studio itself asks for; "
            "the order, and the answers chosen in the label stream, become carcond's"
        )
    if facts["own_predictions"]:
        yield (
            f"{facts['own_predictions']} predictions of a carcond are here already: those of unlabelled photos are "
            "taken over, and undo removes them"
        )
    if project.model_version and not is_ours(project.model_version) and not facts["labelled"]:
        yield (
            "there are no labels yet: until two classes of a task are labelled, photos open with no answer chosen in "
            f"place of those of {project.model_version}"
        )
