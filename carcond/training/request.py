"""The request that a trainer process reads, and the names of the files that it exchanges with its parent."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from carcond.data.annotations import ConsensusLabel
from carcond.data.split import TRAIN
from carcond.model.encoder_card import ONE_VIEW, Tuning
from carcond.training.dataset import TrainingPhoto, TrainingSet
from carcond.training.settings import TrainingSettings

REQUEST, PROGRESS, OUTCOME, MODELS = "request.json", "progress.json", "outcome.json", "models"


class RequestedPhoto(BaseModel):
    """A labelled photo: task id, file, classes by task key, split, group and source."""

    model_config = ConfigDict(frozen=True)

    task: int
    file: Path
    classes: dict[str, str]
    side: str
    group: int
    source: str


class TrainingRequest(BaseModel):
    """Data, base encoder and settings of a fine-tuning.

    Attributes:
        project: number of the project of the labels.
        base: id of the encoder that the training starts from.
        base_weights: hash of its weights, see `carcond.model.encoder_card.EncoderCard`.
        backbone: timm's name of the network.
        weights: source of its weights, see `carcond.training.pretrained_weights.load_backbone`.
        views: sides of the views of a photo, in pixels.
        settings: of the training.
        max_pixels: limit of width x height of a photo.
        labels: number of labelled photos of the project.
        photos: those to train and to validate on; the hold-out is not among them.
    """

    model_config = ConfigDict(frozen=True)

    project: int
    base: str
    base_weights: str
    backbone: str
    weights: str
    views: tuple[int, ...] = ONE_VIEW
    settings: TrainingSettings
    max_pixels: int
    labels: int
    photos: tuple[RequestedPhoto, ...]

    def tuning(self) -> Tuning:
        """Provenance for the new encoder's card."""
        trained_on = tuple(photo.task for photo in self.photos if photo.side == TRAIN)
        return Tuning(project=self.project, base=self.base, trained_on=trained_on, labels=self.labels)


def training_set(photos: Sequence[RequestedPhoto]) -> TrainingSet:
    """Training set of the requested photos."""
    return TrainingSet(
        [
            TrainingPhoto(str(p.task), p.file, ConsensusLabel(p.classes, {}, ()), p.side, p.group, p.source)
            for p in photos
        ]
    )
