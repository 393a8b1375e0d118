"""A project's serving version with its encoder, with which commands predict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.services import Services
from carcond.errors import RegistryError, UnreadableImageError
from carcond.model.encoder import Encoder
from carcond.model.inference import PhotoCondition, read_condition
from carcond.registry.registry import Version, serving_projects

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ServingModel:
    """Predicts the condition that photos show.

    Attributes:
        project: number of the project.
        version: its serving version.
        encoder: that the version was fitted on.
        max_pixels: limit of width x height of a photo.
    """

    project: int
    version: Version
    encoder: Encoder
    max_pixels: int

    @classmethod
    def of(cls, services: Services, project: int | None) -> "ServingModel":
        """Load the serving version of a project.

        Args:
            services: of the registry.
            project: None for the only one that has a version.

        Raises:
            RegistryError: there is none, or there are several.
            EncoderError: its encoder is missing or broken.
        """
        models_dir = services.settings.models_dir
        if project is not None:
            services.pull_models(project)
        projects = serving_projects(models_dir)
        if project is None and len(projects) > 1:
            raise RegistryError(f"expected --project, one of {', '.join(map(str, projects))}")
        chosen = project or (projects[0] if projects else None)
        version = services.registry(chosen).current() if chosen in projects else None
        if chosen is None or version is None:
            where = "" if chosen is None else f" of project {chosen}"
            raise RegistryError(
                f"there is no model version{where} in {models_dir}: one is made after the first labels of two classes. "
                "For a stack that scripts/up started, load its settings first: set -a; . .carcond/environment; set +a"
            )
        encoder = services.encoder(version.heads.encoder_id)
        return cls(chosen, version, encoder, services.settings.max_photo_pixels)

    def instead(self, services: Services, number: int) -> "ServingModel":
        """Load another version of the same project.

        Raises:
            RegistryError: there is no such version, or it is broken.
            EncoderError: its encoder is missing or broken.
        """
        version = services.registry(self.project).load(number)
        return replace(self, version=version, encoder=services.encoder(version.heads.encoder_id))

    def assess(self, file: Path) -> PhotoCondition:
        """Predict the condition that a photo shows.

        Raises:
            UnreadableImageError: it is no photo, or cannot be read.
        """
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UnreadableImageError(f"the file cannot be read ({error.strerror})") from error
        return read_condition(data, self.encoder, self.version.heads, self.version.name, self.max_pixels)

    def look_at_all(self, files: Sequence[Path], progress: Progress) -> list[PhotoCondition | str]:
        """Predict the conditions of photos, in their order; for those that cannot be read, the reason instead."""
        seen: list[PhotoCondition | str] = []
        for done, file in enumerate(files, start=1):
            try:
                seen.append(self.assess(file))
            except UnreadableImageError as error:
                seen.append(str(error))
            progress(done, len(files))
        return seen
