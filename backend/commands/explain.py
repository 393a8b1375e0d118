"""`carcond explain`: where in a photo the answer was seen."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carcond.card_values import plain
from carcond.errors import RegistryError, UnreadableImageError

if TYPE_CHECKING:
    from backend.services import Services
    from carcond.explain import Explanation
    from carcond.registry import Version


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
    from backend.services import get_services  # noqa: PLC0415
    from carcond.explain import explain_photo  # noqa: PLC0415

    services = get_services()
    try:
        data = photo.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{photo} cannot be read: {error.strerror}") from error
    chosen = _version(services, _only_project(services) if project is None else project, version)
    encoder = services.encoder(chosen.heads.encoder_id)
    explanation = explain_photo(data, encoder, chosen.heads, services.settings.max_photo_pixels)
    try:
        explanation.picture.save(output)
    except (OSError, ValueError) as error:  # the latter for an ending that is no format
        raise typer.BadParameter(f"the picture cannot be written: {error}", param_hint="--output") from error
    facts = _facts(explanation, chosen.name) | {"picture": str(output)}
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{chosen.name}: {', '.join(answer.caption for answer in explanation.answers.values())}")
    print(f"See {plain(output, 1000)}")


def _only_project(services: "Services") -> int:
    names = [path.name for path in (services.settings.models_dir / "projects").glob("*/") if path.name.isdecimal()]
    projects = sorted(int(name) for name in names if services.registry(int(name)).numbers())
    if len(projects) != 1:
        raise RegistryError(
            f"expected versions of one project in {services.settings.models_dir}, found those of "
            f"{', '.join(map(str, projects)) or 'none'}: name one with --project"
        )
    return projects[0]


def _version(services: "Services", project: int, version: str) -> "Version":
    from carcond.registry import version_number  # noqa: PLC0415

    services.pull_models(project)
    registry = services.registry(project)
    if version:
        return registry.load(version_number(version))
    serving = registry.current()
    if serving is None:
        raise RegistryError(
            f"project {project} has no version in {registry.root}: label photos of two classes first, or load the "
            "settings of your stack: set -a; . .carcond/environment; set +a"
        )
    return serving


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
