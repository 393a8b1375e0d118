"""`carcond explain`: where in a photo the answer was seen."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carcond.card_values import plain
from carcond.registry import version_number

if TYPE_CHECKING:
    from carcond.explain import Explanation


def explain(
    photo: Annotated[Path, typer.Argument(help="a photo of a car")],
    output: Annotated[Path, typer.Option(help="where the picture goes; its ending says the format, like .png")],
    project: Annotated[int | None, typer.Option(help="whose model answers; may be left out when there is one")] = None,
    version: Annotated[str, typer.Option(help="like 7, 0007 or carcond-0007; the serving one when left out")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Lay over a photo what speaks for each answer, one picture a task, side by side.

    Example: carcond explain car.jpg --output why.png

    Example: carcond explain car.jpg --output why.png --project 1 --version 7 --json
    """
    # Encoding is not needed by other commands.
    from backend.judge import Judge  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415
    from carcond.explain import explain as explain_answers  # noqa: PLC0415

    services = get_services()
    judge = Judge.of(services, project)
    if version:
        judge = judge.instead(services, version_number(version))
    seen = judge.look_at(photo)
    explanation = explain_answers(seen.photo, seen.feature_map, judge.version.heads)
    try:
        explanation.picture.save(output)
    except (OSError, ValueError) as error:  # the latter for an ending that is no format
        raise typer.BadParameter(f"the picture cannot be written: {error}", param_hint="--output") from error
    if as_json:
        print(json.dumps({**_facts(explanation, seen.version), "picture": str(output)}, indent=2))
        return
    print(f"{seen.version}: {', '.join(answer.caption for answer in explanation.answers.values())}")
    print(f"See {plain(output, 1000)}")


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
