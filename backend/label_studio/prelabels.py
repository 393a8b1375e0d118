"""Pre-labels of an annotation: the model's answers that its page opened with, and those that it did not show.

A prediction moves on to newer versions while a page shows it, so it does not tell what was shown. The annotation does:
a region that began as a suggestion keeps its id and score, and `origin` is ``prediction`` while it has the suggested
value and ``prediction-changed`` once an annotator has changed it. Answers that are not shown are in the prediction,
which is not moved any more once its task is labelled.
"""

from collections.abc import Sequence
from typing import Any

from backend.label_studio.answers import finite_number
from backend.label_studio.client import StoredPrediction
from backend.label_studio.label_config import ChoiceBinding, LabelBinding, answer_region_id
from carcond.data.annotations import Prelabel
from carcond.data.label_studio_export import region_words
from carcond.registry.version_names import SUPERSEDED_VERSION, is_ours

_KEPT, _CHANGED = "prediction", "prediction-changed"


def read_prelabels(
    binding: LabelBinding, result: Sequence[dict[str, Any]], predictions: Sequence[StoredPrediction]
) -> dict[str, Prelabel]:
    """Task key -> the model's answer when the annotator labelled; a task of which none is known is absent.

    Args:
        binding: of the label config.
        result: regions of the annotation.
        predictions: all predictions of the annotation's task, as they are now.
    """
    ours = sorted((each for each in predictions if is_ours(each.model_version)), key=lambda each: each.model_version)
    found: dict[str, Prelabel] = {}
    for task, choice in binding.choices.items():
        name = answer_region_id(task)
        suggested = [region for each in ours for region in each.result if region.get("id") == name]
        shown = next((region for region in result if region.get("id") == name and _began_as_suggestion(region)), None)
        # A superseded prediction may be of another photo, which was exchanged.
        hidden = [
            each.hidden[task] for each in ours if task in each.hidden and each.model_version != SUPERSEDED_VERSION
        ]
        if shown:
            found[task] = Prelabel(_suggested_class(choice, shown, suggested), float(shown["score"]), shown=True)
        elif hidden and not suggested:
            found[task] = Prelabel(*hidden[-1], shown=False)
    return found


def _began_as_suggestion(region: dict[str, Any]) -> bool:
    score = finite_number(region.get("score"))
    return region.get("origin") in (_KEPT, _CHANGED) and score is not None and 0 <= score <= 1


def _suggested_class(choice: ChoiceBinding, region: dict[str, Any], suggested: Sequence[dict[str, Any]]) -> str | None:
    """The class that a region was suggested with; None if it was changed and no prediction has it any more."""
    if region["origin"] == _CHANGED:
        # Of the versions that the prediction has had, the one with the region's score is what the page showed.
        region = next((each for each in suggested if each.get("score") == region["score"]), {})
    classes = {choice.class_by_word[word] for word in region_words(region) if word in choice.class_by_word}
    return classes.pop() if len(classes) == 1 else None
