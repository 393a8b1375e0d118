"""One turn of the loop: read the news, embed, refit, publish.

A turn can be killed at any point and begun anew: Label Studio has the labels, versions are written
whole or not at all, and predictions are moved in place.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import httpx
import numpy as np

from backend.damage_boxes import DamageBoxes
from backend.embedding import Progress, embed_new_photos, unseen_photos
from backend.encoders import candidate_encoder, labels_learnt
from backend.label_config import LabelBinding, bind_label_config
from backend.labelstudio import PredictionDraft, ProjectInfo
from backend.pool import Pool, RankedPool, rank_pool
from backend.publishing import Publisher
from backend.refit import Refitter
from backend.services import Services
from backend.snapshot import Snapshot, asked_for
from backend.sync import sync_project
from carcond.errors import EncoderError, LabelStudioError, ProjectGoneError
from carcond.registry import COLD_START_VERSION, Version, is_ours
from carcond.selection import EXPLORATION_SLOT
from carcond.split import HOLDOUT, draw_holdout, settle_sides, split_imported
from carcond.tables import Photo
from carcond.taxonomy import TASKS

logger = logging.getLogger(__name__)

# At most so long are photos embedded before what there is gets published; the next turn goes on.
_EMBEDDING_SECONDS = 20.0
# At most so many drawn photos wait in the exploration slot: the few most confident of them are
# served last, and more of them would make the hold-out look harder than the pool.
_MAX_EXPLORATION = 4


@dataclass(frozen=True)
class TurnReport:
    """What one turn did.

    Attributes:
        version: the serving version after the turn.
        refitted: whether this turn made it.
        labelled: photos with a label, in train or hold-out.
        photos_left: photos still to be embedded by the next turn.
        stale: predictions of unlabelled tasks still to be moved to the version by `refresh`.
        seconds: stage -> how long it took.
        refused: the newest version and why the gate refused it; empty when it did not.
        candidate: id of the encoder that may take over; empty for none.
        candidate_unseen: photos that it has yet to see before its trial.
        learnt: photos with a label when the last encoder was fine-tuned on this project, 0 without one.
    """

    version: str
    refitted: bool
    labelled: int
    photos_left: int
    stale: int
    seconds: Mapping[str, float]
    refused: str = ""
    candidate: str = ""
    candidate_unseen: int = 0
    learnt: int = 0


class Loop:
    """The loop of one project."""

    def __init__(self, services: Services, project_id: int, progress: Progress) -> None:
        self._services = services
        self._project_id = project_id
        self._progress = progress
        self._store = services.store
        self._registry = services.registry(project_id)

    def turn(self) -> TurnReport:
        """Bring model, predictions and order up to date with Label Studio's labels.

        Raises:
            LabelStudioError: Label Studio refused or is not there; the next turn goes on.
            LabelConfigError: the project asks for neither task.
            EncoderError: there is no encoder.
            ModelMirrorError: models cannot be exchanged with other hosts; the next turn goes on.
        """
        watch = _Stopwatch()
        project, binding = self._read()
        watch.lap("read")
        encoder_id = self._serving_encoder()
        left = self._embed(encoder_id)
        watch.lap("embed")
        snapshot = self._snapshot(encoder_id)
        self._settle(snapshot)
        candidate = candidate_encoder(self._services, self._project_id, self._registry.current())
        unseen = unseen_photos(self._store, self._project_id, candidate) if candidate else 0
        asked = [task for task in TASKS if task.key in binding.choices]
        refitter = Refitter(self._services, self._project_id, self._progress)
        refit = None
        if candidate and not unseen:
            # Only now: half of the photos would make a worse version, and a queue of half the pool.
            refit = refitter.refit(self._snapshot(candidate), asked)
        if refit is None or not refit.promoted:
            refused = refit.refused if refit else ""
            refit = refitter.refit(snapshot, asked)
            refit = replace(refit, refused=refit.refused or refused)
        self._services.push_versions(self._project_id)
        version = refit.serving
        if version and version.heads.encoder_id != snapshot.encoder_id:
            # It has taken over, or somebody has rolled back meanwhile.
            left = self._embed(version.heads.encoder_id)
            snapshot = self._snapshot(version.heads.encoder_id)
        watch.lap("refit")
        self._explore(snapshot)
        ranked = self._rank(snapshot, version, binding)
        watch.lap("rank")
        self._progress("publishing", 0, len(ranked.queue))
        self._publisher(snapshot, version, binding).publish_queue(
            self._not_current(ranked.queue),
            ranked.rest,
            served_version=project.model_version,
            version=_name(version),
            head=ranked.round_length,
        )
        watch.lap("publish")
        stale = len(self._not_current(ranked.rest))
        return TurnReport(
            _name(version),
            refit.promoted,
            len(snapshot.labels),
            left,
            stale,
            watch.seconds,
            refit.refused,
            candidate,
            unseen,
            labels_learnt(self._services, self._project_id),
        )

    def refresh(self, interrupted: Callable[[], bool]) -> int:
        """Move the predictions of all other unlabelled tasks to the serving version, bit by bit.

        Args:
            interrupted: asked before each write: a turn is more urgent than this.

        Returns:
            How many predictions are still to be moved.
        """
        _, binding = self._read()
        snapshot = self._snapshot(self._serving_encoder())
        version = self._registry.current()
        ranked = self._rank(snapshot, version, binding)
        drafts = [*ranked.queue, *ranked.rest, *self._unreadable(snapshot, ranked)]
        left = self._publisher(snapshot, version, binding).refresh(self._not_current(drafts), interrupted)
        if not left:
            self._read()  # what was just written counts as news: read it now, not in the next turn
        return left

    def _publisher(self, snapshot: Snapshot, version: Version | None, binding: LabelBinding) -> Publisher:
        boxes = DamageBoxes(self._services, binding, version.heads if version else None)
        urls = {photo.task_id: photo.url for photo in snapshot.photos}
        connections = self._services.settings.publish_connections
        return Publisher(
            self._services.api, self._store, self._project_id, connections, lambda draft: boxes.drawn(draft, urls)
        )

    def _read(self) -> tuple[ProjectInfo, LabelBinding]:
        self._progress("reading labels", 0, 0)
        self._services.pull_models(self._project_id)
        try:
            project = self._services.api.project(self._project_id)
        except LabelStudioError as error:
            if error.status == httpx.codes.NOT_FOUND:
                # Deleted: the reconcile shall not ask for it for ever. What was learned stays on disk.
                self._store.retire_project(self._project_id)
                raise ProjectGoneError(str(error), error.status) from error
            raise
        binding = bind_label_config(project.label_config)
        sync_project(self._services.api, self._store, project, binding, self._services.settings)
        return project, binding

    def _embed(self, encoder_id: str) -> int:
        """Show new photos to the encoder of the serving version, and say how many are left."""
        try:
            return embed_new_photos(self._services, self._project_id, encoder_id, _EMBEDDING_SECONDS, self._progress)
        except EncoderError as error:
            serving = self._registry.current()
            if serving is None:
                raise
            logger.error("project %d: new photos cannot be seen by %s: %s", self._project_id, serving.name, error)
            return 0

    def _serving_encoder(self) -> str:
        version = self._registry.current()
        return version.heads.encoder_id if version else self._services.encoder_id()

    def _snapshot(self, encoder_id: str) -> Snapshot:
        return Snapshot.take(self._store, self._project_id, encoder_id)

    def _settle(self, snapshot: Snapshot) -> None:
        """Give labelled photos their sides of the split, for ever."""
        asked = asked_for(self._store, self._project_id)
        classes = {task_id: label.classes for task_id, label in snapshot.labels.items()}
        generator = np.random.default_rng((self._project_id, sum(p.side is not None for p in snapshot.photos)))
        held_out = split_imported(snapshot.photos, classes, asked, generator)
        self._keep_sides([*held_out, *settle_sides(snapshot.photos, snapshot.labels)])

    def _keep_sides(self, photos: Sequence[Photo]) -> None:
        changes = [{"task_id": p.task_id, "side": p.side, "drawn": p.drawn} for p in photos]
        self._store.update_photos(self._project_id, changes)

    def _explore(self, snapshot: Snapshot) -> None:
        """Keep the exploration slot filled."""
        unlabelled = snapshot.unlabelled
        wanted = max(1, min(_MAX_EXPLORATION, len(unlabelled) // (self._services.settings.slots + 1)))
        drawn_before = sum(photo.drawn for photo in snapshot.photos)
        generator = np.random.default_rng((self._project_id, drawn_before))
        self._keep_sides(draw_holdout(snapshot.photos, unlabelled, wanted, generator))

    def _rank(self, snapshot: Snapshot, version: Version | None, binding: LabelBinding) -> RankedPool:
        photos = {photo.task_id: photo for photo in snapshot.photos}
        rows = [photos[task_id] for task_id in snapshot.task_ids.tolist()]
        unlabelled = snapshot.unlabelled
        pool = Pool(
            snapshot.task_ids,
            snapshot.embeddings,
            np.array([row.task_id in unlabelled for row in rows], dtype=bool),
            np.array([row.side == HOLDOUT for row in rows], dtype=bool),
            np.array([row.drawn for row in rows], dtype=bool),
        )
        return rank_pool(pool, version.heads if version else None, _name(version), binding, self._services.settings)

    def _unreadable(self, snapshot: Snapshot, ranked: RankedPool) -> list[PredictionDraft]:
        """Empty predictions for photos that cannot be read, once there is a version to keep them out of the queue."""
        if not ranked.queue or ranked.queue[0].model_version == COLD_START_VERSION:
            return []
        embedded = set(snapshot.task_ids.tolist())
        unreadable = [p.task_id for p in snapshot.photos if p.problem and not p.gone and p.task_id not in embedded]
        return [
            PredictionDraft(task_id, [], 0.0, COLD_START_VERSION, None)
            for task_id in unreadable
            if task_id not in snapshot.labels
        ]

    def _not_current(self, drafts: Sequence[PredictionDraft]) -> list[PredictionDraft]:
        """The drafts that Label Studio does not hold yet, as far as the queue is concerned."""
        stored: dict[int, list[tuple[str, bool, bool]]] = {}
        for row in self._store.predictions(self._project_id):
            if not is_ours(row.model_version):
                continue
            traits = (row.model_version, row.slot is None, row.slot == EXPLORATION_SLOT)
            stored.setdefault(row.task_id, []).append(traits)
        return [
            draft
            for draft in drafts
            if stored.get(draft.task_id) != [(draft.model_version, draft.slot is None, draft.slot == EXPLORATION_SLOT)]
        ]


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._began, 3)
        self._began = now


def _name(version: Version | None) -> str:
    return version.name if version else COLD_START_VERSION
