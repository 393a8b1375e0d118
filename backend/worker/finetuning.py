"""A fine-tuning of a project: its labelled photos are fetched, a process trains, and the encoder is stored.

Its working data are in a folder of the models directory, `finetuning/<project>/`. Killed at any point and run
again, it resumes with the same photos from the last epoch.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from backend.services import Services
from backend.worker.trainer_process import run_trainer
from carcond.data.dataset import labelled_set, merge_annotations
from carcond.data.images import decode_photo
from carcond.data.split import TRAIN
from carcond.errors import PhotoFetchError, TrainingCancelledError, TrainingError, UnreadableImageError
from carcond.files import replace_text
from carcond.model.encoder import encoders_dir, find_encoder
from carcond.model.encoder_card import EncoderCard, read_card
from carcond.training.dataset import VALIDATION, validation_groups
from carcond.training.request import MODELS, REQUEST, RequestedPhoto, TrainingRequest, training_set
from carcond.training.settings import TrainingSettings, load_training_settings

_FETCHERS = 4
_BATCH = 16

Tell = Callable[[Mapping[str, Any]], None]
"""Progress callback with `stage`, `done` and `total`, and during training `epoch`, `epochs` and `seconds_left`."""


@dataclass(frozen=True)
class FineTuning:
    """The fine-tuning of one project.

    Attributes:
        services: of this process.
        project_id: of the labels to learn from.
        tell: progress callback.
        is_cancelled: checked now and then.
    """

    services: Services
    project_id: int
    tell: Tell
    is_cancelled: Callable[[], bool]

    @property
    def directory(self) -> Path:
        """Folder of the working data."""
        return self.services.settings.models_dir / "finetuning" / str(self.project_id)

    def run(self, note_labels: Callable[[int], None]) -> dict[str, Any]:
        """Fine-tune the encoder that is in use for all projects, on this project's labels.

        Always that one, and never an encoder that was fine-tuned before: it would know its validation photos.

        Args:
            note_labels: receives the number of labelled photos, before the training begins.

        Returns:
            `encoder_id`, None when no epoch improved it; and `facts`, see `carcond.training.finetune`.

        Raises:
            TrainingCancelledError: it was cancelled.
            OutOfMemoryError: there was not enough memory.
            TrainingError: settings, labels or photos do not allow it.
            EncoderError: there is no encoder to begin with.
            SettingsError: the file of training settings cannot be used.
            ModelMirrorError: models cannot be exchanged with other hosts.
        """
        settings = self.services.settings
        how = load_training_settings(settings.finetune_config, {})
        self.services.pull_models(self.project_id)
        base = read_card(find_encoder(settings.models_dir))
        request = self._begun(base, how) or self._request(base, how)
        note_labels(request.labels)
        outcome = run_trainer(self.directory, settings.finetune_memory_mb, self.tell, self.is_cancelled)
        if outcome["encoder_id"]:
            self._keep(outcome["encoder_id"])
        self.remove()
        return outcome

    def remove(self) -> None:
        """Remove the working data of a complete or cancelled fine-tuning."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _begun(self, base: EncoderCard, how: TrainingSettings) -> TrainingRequest | None:
        """Interrupted request to resume; None without one, or when encoder or settings have changed."""
        try:
            request = TrainingRequest.model_validate_json((self.directory / REQUEST).read_bytes())
        except (OSError, ValidationError):
            return None
        return request if (request.base, request.settings) == (base.encoder_id, how) else None

    def _request(self, base: EncoderCard, how: TrainingSettings) -> TrainingRequest:
        settings = self.services.settings
        self.remove()
        photos, labels = self._photos(how, how.image_size or base.input.size)
        request = TrainingRequest(
            project=self.project_id,
            base=base.encoder_id,
            base_weights=base.weights_sha256,
            backbone=settings.backbone,
            weights=settings.backbone_weights,
            views=base.views,
            settings=how,
            max_pixels=settings.max_photo_pixels,
            labels=labels,
            photos=photos,
        )
        sides = {photo.side for photo in photos}
        if sides != {TRAIN, VALIDATION}:
            self.remove()  # copies of photos are not kept for nothing
            raise TrainingError(
                f"expected labelled photos to train and to validate on, got {len(photos)} that can be read and are not "
                "held out: label more photos first"
            )
        replace_text(self.directory / REQUEST, request.model_dump_json())
        return request

    def _photos(self, how: TrainingSettings, size: int) -> tuple[tuple[RequestedPhoto, ...], int]:
        """Photos of the training split, on disk, and number of the project's labelled photos."""
        store = self.services.store
        serving = self.services.registry(self.project_id).current()
        encoder_id = serving.heads.encoder_id if serving else self.services.encoder_id()
        # A photo without a split may be sampled into the hold-out a moment later.
        rows = [row for row in store.photos(self.project_id) if row.side == TRAIN]
        labels = merge_annotations(store.annotations(self.project_id))
        labelled = labelled_set(rows, labels, *store.embeddings(self.project_id, encoder_id))
        wanted = [
            (example, int(group))
            for example, group in zip(labelled.usable, labelled.groups, strict=True)
            if example.label.classes
        ]
        urls = {row.task_id: row.url for row in rows}
        folder = self.directory / "photos"
        folder.mkdir(parents=True)
        there = self._fetch({e.task_id: urls[e.task_id] for e, _ in wanted}, folder, size)
        photos = [
            RequestedPhoto(
                task=example.task_id,
                file=folder / str(example.task_id),
                classes=dict(example.label.classes),
                side=TRAIN,
                group=group,
                source=example.source,
            )
            for example, group in wanted
            if example.task_id in there
        ]
        return _with_validation(photos, how), len(labels)

    def _fetch(self, urls: Mapping[int, str], folder: Path, size: int) -> set[int]:
        """Fetch photos. Those that cannot be fetched or read are skipped."""
        tasks, there = list(urls), set()
        with ThreadPoolExecutor(_FETCHERS) as pool:
            for start in range(0, len(tasks), _BATCH):
                if self.is_cancelled():
                    raise TrainingCancelledError("cancelled")
                batch = tasks[start : start + _BATCH]
                fetched = pool.map(lambda task: self._fetch_one(urls[task], folder / str(task), size), batch)
                there |= {task for task, good in zip(batch, fetched, strict=True) if good}
                self.tell({"stage": "fetching photos", "done": start + len(batch), "total": len(tasks)})
        return there

    def _fetch_one(self, url: str, file: Path, size: int) -> bool:
        try:
            data = self.services.photos.fetch(url)
            decode_photo(data, target=size, max_pixels=self.services.settings.max_photo_pixels)
        except (PhotoFetchError, UnreadableImageError):
            return False
        file.write_bytes(data)
        return True

    def _keep(self, encoder_id: str) -> None:
        """Move the new encoder to the others, here and on other hosts. Its trial decides whether it serves."""
        made = encoders_dir(self.directory / MODELS) / encoder_id
        target = encoders_dir(self.services.settings.models_dir) / encoder_id
        if not target.exists():  # else the same encoder was made before
            made.rename(target)
        if self.services.mirror:
            self.services.mirror.push_encoders()


def _with_validation(photos: Sequence[RequestedPhoto], how: TrainingSettings) -> tuple[RequestedPhoto, ...]:
    """Assign whole groups of the photos to validation, which selects the best epoch."""
    chosen = validation_groups(training_set(photos), how.validation_share, how.seed)
    return tuple(p.model_copy(update={"side": VALIDATION}) if p.group in chosen else p for p in photos)
