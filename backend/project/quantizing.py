"""Quantization of the encoder that serves a project, used only if its answers on the project's photos stay the same."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from backend.photo_pipeline import FETCHES_PER_REQUEST
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.arrays import UNKNOWN, FloatArray
from carcond.data.dataset import labelled_set
from carcond.data.images import decode_photo, to_pixels
from carcond.data.split import photo_draw
from carcond.errors import EncoderError, PhotoFetchError, UnreadableImageError
from carcond.evaluation.quantization_gate import MIN_PHOTOS, ComparedPhotos, compare_encoders, objections
from carcond.model.encoder import BATCH_SIZE, Encoder, encoder_directory, encoders_dir
from carcond.model.encoder_card import ONNX_NAME, EncoderCard, Quantization, file_sha256, read_card, save_encoder
from carcond.model.quantization import count_convolutions, quantize
from carcond.registry.registry import Version

CALIBRATION_PHOTOS = 64
"""Photos that the ranges of the activations are measured on."""

COMPARED_PHOTOS = 400
"""Maximum number of photos in the comparison."""

# Shares of the convolutions, from the first one on, that stay in fp32, as docs/encoder.md measures: the first ones have
# few channels of very different ranges, and large activations that cost time to round. The first accepted is taken.
_FLOAT_SHARES = (1 / 6, 1 / 3)

Tell = Callable[[str], None]
"""Progress callback with a line of text."""

# Task id -> class index by task key, `UNKNOWN` where not labelled; and the photo's group.
_HoldoutLabels = Mapping[int, tuple[Mapping[str, int], int]]


def quantize_encoder(services: Services, project_id: int, tell: Tell) -> EncoderCard:
    """Quantize the serving encoder to int8 and compare the answers on the project's photos.

    The result is a candidate of the project: it serves once it has embedded all photos, unless the gate finds it worse.

    Args:
        services: of this process.
        project_id: of the photos.
        tell: progress callback.

    Raises:
        EncoderError: the answers differ by more than `carcond.evaluation.quantization_gate` allows, there are too few
            photos or labels to compare, nothing serves the project, or it is served by a quantized encoder.
        ModelMirrorError: models cannot be exchanged with other hosts.
    """
    services.pull_models(project_id)
    version = services.registry(project_id).current()
    if version is None:
        raise EncoderError(f"project {project_id} has no version whose answers could be compared: label photos first")
    base = services.encoder(version.heads.encoder_id)
    if base.card.quantization:
        raise EncoderError(f"project {project_id} is served by {base.encoder_id}, which is quantized already")
    # Not in /tmp, which is memory in a container: the pixels may be a GB.
    encoders = encoders_dir(services.settings.models_dir)
    with tempfile.TemporaryDirectory(dir=encoders, prefix=".quantizing-") as folder:
        card = _Attempt(services, project_id, version, base, Path(folder), tell).run()
    if services.mirror:
        services.mirror.push_encoders()
    return card


@dataclass(frozen=True)
class _Attempt:
    """The quantization of one encoder; `folder` holds temporary files."""

    services: Services
    project_id: int
    version: Version
    base: Encoder
    folder: Path
    tell: Tell

    def run(self) -> EncoderCard:
        calibration, compared = self._photos()
        directory = encoder_directory(self.services.settings.models_dir, self.base.encoder_id)
        convolutions = count_convolutions(directory / ONNX_NAME)
        refusals = []
        for in_float in sorted({round(share * convolutions) for share in _FLOAT_SHARES}):
            attempt = f"{convolutions - in_float} of {convolutions} convolutions in int8"
            self.tell(f"quantizing, {attempt}")
            onnx_file = self.folder / f"{in_float}.onnx"
            quantize(directory / ONNX_NAME, onnx_file, _batches(calibration), in_float)
            quantized = self.base.with_network(onnx_file, self.services.settings.encoder_threads)
            comparison = compare_encoders(self.base, quantized, self.version.heads, compared)
            refused = objections(comparison)
            if not refused:
                quantization = Quantization(
                    project=self.project_id,
                    base=self.base.encoder_id,
                    version=self.version.name,
                    convolutions=convolutions,
                    float_convolutions=in_float,
                    calibration_photos=len(calibration),
                    comparison=comparison,
                )
                return self._save(onnx_file, quantization)
            refusals.append(f"{attempt}: {'; '.join(refused)}")
            self.tell(f"refused, {refusals[-1]}")
        raise EncoderError(f"no quantization of {self.base.encoder_id} is accepted. " + ". ".join(refusals))

    def _save(self, onnx_file: Path, quantization: Quantization) -> EncoderCard:
        encoder_id = f"{self.base.backbone}-int8-{file_sha256(onnx_file)[:8]}"
        if (encoders_dir(self.services.settings.models_dir) / encoder_id).exists():
            raise EncoderError(
                f"{encoder_id} is what this quantization gives, and it was made before: `carcond versions list` shows "
                "how its trial went. More labels or photos would give another one"
            )
        changes = {
            "encoder_id": encoder_id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "quantization": quantization,
        }
        card = self.base.card.model_copy(update=changes)
        return read_card(
            save_encoder(encoders_dir(self.services.settings.models_dir), card, onnx_file, self.base.car_head)
        )

    def _photos(self) -> tuple[FloatArray, ComparedPhotos]:
        """Photos ``(C, 3, S, S)`` to calibrate on, and others to compare: of the hold-out, and unlabelled ones.

        Raises:
            EncoderError: there are too few.
        """
        snapshot = Snapshot.take(self.services, self.project_id, self.base.encoder_id)
        holdout = self._holdout_labels(snapshot)
        self._check_labels(holdout)
        unlabelled = set(snapshot.task_ids[snapshot.unlabelled].tolist())
        at_random = sorted(snapshot.task_ids.tolist(), key=lambda task_id: photo_draw(self.project_id, task_id))
        unseen = [i for i in at_random if i in holdout] + [i for i in at_random if i in unlabelled]
        # Those that the heads were fitted on cannot be compared, so they are the first to be calibrated on.
        fitted = [i for i in at_random if i not in holdout and i not in unlabelled]
        calibrating = (fitted + unseen[::-1])[:CALIBRATION_PHOTOS]
        compared = [i for i in unseen if i not in set(calibrating)][:COMPARED_PHOTOS]
        self.tell(f"fetching {len(calibrating) + len(compared)} photos")
        urls = self.services.store.photo_urls(self.project_id, [*calibrating, *compared])
        calibrated, calibration = self._pixels(calibrating, urls, self.folder / "calibration")
        read, pixels = self._pixels(compared, urls, self.folder / "compared")
        if len(read) < MIN_PHOTOS or not calibrated:
            raise EncoderError(
                f"expected at least {MIN_PHOTOS} photos of project {self.project_id} that can be fetched and that the "
                f"heads were not fitted on, beside {CALIBRATION_PHOTOS} to calibrate on, got {len(read)}: import more "
                "photos"
            )
        known = {task_id: holdout.get(task_id, ({}, 0)) for task_id in read}
        self._check_labels(known)  # some may not have been fetched
        classes = {
            key: np.array([stated.get(key, UNKNOWN) for stated, _ in known.values()], dtype=np.int64)
            for key in self.version.heads.by_task
        }
        groups = np.array([group for _, group in known.values()], dtype=np.int64)
        return calibration, ComparedPhotos(pixels, classes, groups)

    def _holdout_labels(self, snapshot: Snapshot) -> _HoldoutLabels:
        photos = self.services.store.photos_of(self.project_id, list(snapshot.labels))
        labelled = labelled_set(photos, snapshot.labels, *snapshot.labelled_embeddings())
        return {
            example.task_id: (
                {key: int(indices[i]) for key, indices in labelled.classes.items()},
                int(labelled.groups[i]),
            )
            for i, example in enumerate(labelled.usable)
            if labelled.holdout[i]
        }

    def _check_labels(self, holdout: _HoldoutLabels) -> None:
        least = self.services.settings.gate_min_photos
        for key in self.version.heads.by_task:
            count = sum(classes.get(key, UNKNOWN) != UNKNOWN for classes, _ in holdout.values())
            if count < least:
                raise EncoderError(
                    f"expected at least {least} hold-out labels of {key} to compare calibration errors on "
                    f"(CARCOND_GATE_MIN_PHOTOS), got {count}: label more photos"
                )

    def _pixels(self, tasks: Sequence[int], urls: Mapping[int, str], file: Path) -> tuple[list[int], FloatArray]:
        """Ids of the tasks whose photos could be read, and their pixels ``(N, 3, S, S)``, in a file."""
        size = self.base.spec.size
        pixels = np.memmap(file, np.float32, "w+", shape=(max(1, len(tasks)), 3, size, size))
        file.unlink()  # gone with this process, however it ends
        read: list[int] = []
        with ThreadPoolExecutor(FETCHES_PER_REQUEST) as pool:
            for start in range(0, len(tasks), BATCH_SIZE):
                batch = tasks[start : start + BATCH_SIZE]
                for task_id, photo in zip(batch, pool.map(self._read, [urls[i] for i in batch]), strict=True):
                    if photo is not None:
                        pixels[len(read)] = photo
                        read.append(task_id)
        return read, pixels[: len(read)]

    def _read(self, url: str) -> FloatArray | None:
        try:
            data = self.services.photos.fetch(url)
            max_pixels = self.services.settings.max_photo_pixels
            return to_pixels(decode_photo(data, target=self.base.spec.size, max_pixels=max_pixels), self.base.spec)
        except (PhotoFetchError, UnreadableImageError):  # the turns log and retry it
            return None


def _batches(pixels: FloatArray) -> Iterator[FloatArray]:
    for start in range(0, len(pixels), BATCH_SIZE):
        yield np.ascontiguousarray(pixels[start : start + BATCH_SIZE])
