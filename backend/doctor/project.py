"""A project's settings: order of photos, display of predictions, and label config."""

from collections.abc import Iterator

import httpx

from backend.doctor.examination import ProjectExamination
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.label_studio.label_config import LabelBinding, bind_label_config
from backend.label_studio.provision import SAMPLING
from carcond.errors import LabelConfigError, LabelStudioError
from carcond.json_fields import sanitize_line
from carcond.registry.registry import COLD_START_VERSION
from carcond.taxonomy import TASK_BY_KEY, TASKS

GONE = Kind(
    "project-gone",
    Level.FAULT,
    "Commands say HTTP 404.",
    "Label Studio at {url} has no project {project}.",
    "It was deleted, or LABEL_STUDIO_URL names another Label Studio than the one it is in.",
    "If it was deleted, there is nothing to do: the worker forgets it at its next turn. Else correct LABEL_STUDIO_URL.",
)
UNKNOWN = Kind(
    "project-unknown",
    Level.FAULT,
    "Commands say that the project is not known here.",
    "carcond has never served project {project} with these settings.",
    "A project is known once its backend is connected; each data folder knows its own.",
    "carcond connect --project {project}. For a stack that scripts/up started, load its settings first: "
    "set -a; . .carcond/environment; set +a",
)
SAMPLED = Kind(
    "sampling",
    Level.FAULT,
    "Photos come in order of import, or at random.",
    "The project's task sampling is {sampling}, and not {wanted}.",
    "The most instructive photos are then not served first, and labels are wasted.",
    "carcond connect --project {project} (Settings > General cannot set it: the choice is greyed out there).",
)
HIDDEN = Kind(
    "predictions-hidden",
    Level.FAULT,
    "Nothing is pre-selected.",
    "The project does not show predictions.",
    "Annotators get no pre-labels.",
    "carcond connect --project {project}, or Settings > Annotation > Prelabeling: use predictions to prelabel tasks.",
)
TITLE = Kind(
    "model-version-is-title",
    Level.FAULT,
    "Photos come at random, and the score column is empty.",
    "Label Studio orders by the predictions of {version}, which is the backend's title and no version.",
    "Connecting a backend sets it so; no prediction has that version.",
    "The worker's next turn sets it, within a minute. If it does not, see the worker's log; by hand: Settings > "
    "Annotation > Prelabeling, choose {expected}.",
)
OTHER_VERSION = Kind(
    "model-version-other",
    Level.WARNING,
    "Pre-labels and order are of another version than carcond status shows.",
    "Label Studio shows and orders by {version}, and {expected} serves.",
    "Somebody chose it in Label Studio, or a turn has not come to it yet.",
    "The worker's next turn sets it, within a minute. If it does not, see the worker's log.",
)
UNBOUND = Kind(
    "label-config-unusable",
    Level.FAULT,
    "No pre-labels, and no version is ever made.",
    "The label config asks for neither task: {error}.",
    "Choices are recognised by their words.",
    "Under Settings > Labeling Interface > Code, add: {choices}",
)
LACKING = Kind(
    "label-config-lacks-task",
    Level.WARNING,
    "One of the two tasks is never asked for.",
    "The label config does not ask for {task}.",
    "Nothing is learnt of it. That may be meant.",
    "If it is not meant, add under Settings > Labeling Interface > Code: {choices}",
)
STRANGE_WORDS = Kind(
    "label-config-unknown-words",
    Level.WARNING,
    "Photos with some answers are not learnt from, and those answers are never pre-selected.",
    "The label config has words that mean no class: {words}.",
    "A label with such a word counts as no label.",
    "Under Settings > Labeling Interface, use words of the list, or give them as alias: {known}",
)
MISSING_WORDS = Kind(
    "label-config-lacks-class",
    Level.WARNING,
    "One answer cannot be given.",
    "The label config has no word for these classes: {classes}.",
    "They can neither be labelled nor pre-selected. That may be meant.",
    "If it is not meant, add under Settings > Labeling Interface > Code: {choices}",
)


def check_project(project: ProjectExamination) -> Iterator[Finding]:
    """Check that Label Studio has the project; requests all that other checks use."""
    try:
        info = project.info
    except LabelStudioError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        yield GONE.found(project=project.id, url=project.whole.label_studio)
        return
    _ = project.backends, project.webhooks
    yield fine(f"{info.title!r}, {info.task_count} photos")


def check_served(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the loop knows the project."""
    if project.id not in project.whole.services.store.project_ids():
        yield UNKNOWN.found(project=project.id)


def check_sampling(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the queue's order is followed, and pre-labels are shown."""
    if project.info.sampling != SAMPLING:
        yield SAMPLED.found(project=project.id, sampling=repr(project.info.sampling), wanted=repr(SAMPLING))
    if not project.info.raw.get("show_collab_predictions", True):
        yield HIDDEN.found(project=project.id)


def check_model_version(project: ProjectExamination) -> Iterator[Finding]:
    """Check that Label Studio orders by the version that serves."""
    version, expected = project.info.model_version, serving_version(project)
    if any(version == row["title"] for row in project.backends):
        yield TITLE.found(version=repr(version), expected=expected)
    elif version != expected and project.info.task_count:
        yield OTHER_VERSION.found(version=repr(version) if version else "no version", expected=expected)
    else:
        yield fine(version or "none yet: there are no photos")


def serving_version(project: ProjectExamination) -> str:
    """The version that serves by the registry."""
    version = project.whole.services.registry(project.id).current()
    return version.name if version else COLD_START_VERSION


def check_label_config(project: ProjectExamination) -> Iterator[Finding]:
    """Check that the label config asks for our tasks, in known words."""
    try:
        binding = bind_label_config(project.info.label_config)
    except LabelConfigError as error:
        yield UNBOUND.found(error=error, choices=" ".join(_choices(key) for key in TASK_BY_KEY))
        return
    for task in TASKS:
        if task.key not in binding.choices:
            yield LACKING.found(task=task.key, choices=_choices(task.key))
    if binding.unknown_words:
        yield STRANGE_WORDS.found(words=", ".join(map(repr, binding.unknown_words)), known=_known_words(binding))
    yield from _lacking_classes(binding)


def _lacking_classes(binding: LabelBinding) -> Iterator[Finding]:
    for key, choices in binding.choices.items():
        lacking = [c.en for c in TASK_BY_KEY[key].classes if c.key not in choices.word_by_class]
        if lacking:
            tags = "".join(f'<Choice value="{word}"/>' for word in lacking)
            yield MISSING_WORDS.found(
                classes=", ".join(lacking), choices=f"{tags} in {sanitize_line(choices.from_name)}"
            )


def _known_words(binding: LabelBinding) -> str:
    return "; ".join(
        " | ".join(f"{c.en}, {c.ru}" for c in TASK_BY_KEY[key].classes) for key in TASK_BY_KEY if key in binding.choices
    )


def _choices(task_key: str) -> str:
    """Choices that ask for a task, over an image named `image`."""
    tags = "".join(f'<Choice value="{c.en}"/>' for c in TASK_BY_KEY[task_key].classes)
    return f'<Choices name="{task_key}" toName="image" choice="single">{tags}</Choices>'
