"""`carcond quality`: faults of photos and labels."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.commands.project import check_project
from backend.cli.simulation_view import progress_bar
from backend.loop.embedding import look_at_kept_photos
from backend.project.label_review import project_facts
from backend.project.quality_view import quality_text
from backend.services import get_services
from carcond.analysis.label_errors import suspect_labels
from carcond.analysis.label_quality import quality_report, suspect_facts
from carcond.analysis.photo_set import embed_labelled, rate_folder, read_file_labels
from carcond.errors import EncoderError
from carcond.model.encoder import Encoder, find_encoder
from carcond.settings import Settings, get_settings


def quality(
    project: Annotated[int | None, typer.Option(help="number in Label Studio")] = None,
    photos: Annotated[Path | None, typer.Option(help="report on this folder instead of a project")] = None,
    labels: Annotated[Path | None, typer.Option(help="a CSV file, or an export of Label Studio")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Report on pictures, class balance, near-duplicates, agreement and suspected labels.

    Example: carcond quality --project 1

    Example: carcond quality --photos photos --labels labels.csv --json
    """
    if (project is None) == (photos is None):
        raise typer.BadParameter("expected --project or --photos, one of the two")
    if labels and photos is None:
        raise typer.BadParameter("--labels belongs to --photos: a project has its labels")
    settings = get_settings()
    facts = _project_facts(project) if photos is None else _folder_facts(settings, photos, labels)
    print(json.dumps(facts, indent=2) if as_json else quality_text(facts))


def _project_facts(project: int | None) -> dict[str, Any]:
    services, project_id = get_services(), project or 0
    check_project(services, project_id)
    with progress_bar("measuring photos") as progress:
        look_at_kept_photos(services, project_id, lambda _, done, total: progress(done, total))
    return project_facts(services, project_id)


def _folder_facts(settings: Settings, folder: Path, path: Path | None) -> dict[str, Any]:
    labels = read_file_labels(path, folder) if path else {}
    with progress_bar("measuring photos") as progress:
        rated = rate_folder(folder, labels, settings.max_photo_pixels, progress)
    facts = quality_report(rated)
    if not labels:
        return facts
    try:
        encoder = Encoder.load(find_encoder(settings.models_dir), settings.encoder_threads)
    except EncoderError as error:
        print(f"labels were not judged: {error}", file=sys.stderr)
        return facts
    cache, limit = settings.models_dir / "cache", settings.max_photo_pixels
    with progress_bar("encoding photos") as progress:
        seen = embed_labelled(rated, folder, labels, encoder, cache_dir=cache, max_pixels=limit, progress=progress)
    return facts | suspect_facts(suspect_labels(seen.embeddings, seen.classes, seen.groups), seen.classes, seen.names)
