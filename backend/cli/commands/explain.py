"""`carcond explain`: class activation maps of a photo."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.project.serving_model import ServingModel
from backend.services import get_services
from carcond.json_fields import sanitize_line
from carcond.model.explain import Explanation
from carcond.model.explain import explain as explain_answers
from carcond.registry.registry import version_number


def explain(
    photo: Annotated[Path, typer.Argument(help="a photo of a car")],
    output: Annotated[Path, typer.Option(help="the picture to write; its extension sets the format, like .png")],
    project: Annotated[int | None, typer.Option(help="number in Label Studio; needed when there are several")] = None,
    version: Annotated[str, typer.Option(help="like 7, 0007 or carcond-0007 (default: the serving one)")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Overlay the class activation map of each task on a photo, side by side.

    Example: carcond explain car.jpg --output why.png

    Example: carcond explain car.jpg --output why.png --project 1 --version 7 --json
    """
    # Encoding is not needed by other commands.

    services = get_services()
    model = ServingModel.of(services, project)
    if version:
        model = model.instead(services, version_number(version))
    seen = model.assess(photo)
    explanation = explain_answers(seen.photo, seen.feature_map, model.version.heads)
    try:
        explanation.picture.save(output)
    except (OSError, ValueError) as error:  # the latter for an ending that is no format
        raise typer.BadParameter(f"the picture cannot be written: {error}", param_hint="--output") from error
    if as_json:
        print(json.dumps({**_facts(explanation, seen.version), "picture": str(output)}, indent=2))
        return
    print(f"{seen.version}: {', '.join(answer.caption for answer in explanation.answers.values())}")
    print(f"See {sanitize_line(output, 1000)}")


def _facts(explanation: "Explanation", version: str) -> dict[str, Any]:
    box = explanation.suspected_damage
    return {
        "version": version,
        "tasks": {
            key: {
                "class": answer.condition.key,
                "confidence": round(answer.confidence, 4),
                "probabilities": {
                    class_key: round(float(probability), 4)
                    for class_key, probability in zip(answer.task.class_keys, answer.probabilities, strict=True)
                },
            }
            for key, answer in explanation.answers.items()
        },
        "suspected_damage": asdict(box) if box else None,
    }
