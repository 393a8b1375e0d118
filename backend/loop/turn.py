"""One turn of the loop: read the changes, embed, refit, publish.

A turn can be killed at any point and started again: Label Studio has the labels, versions are written
whole or not at all, and predictions are moved in place.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx
import numpy as np

from backend.label_studio.client import PredictionDraft, ProjectInfo
from backend.label_studio.label_config import LabelBinding, bind_label_config
from backend.loop.damage_boxes import DamageBoxes
from backend.loop.embedding import Progress, embed_new_photos, unseen_photos
from backend.loop.encoder_trial import candidate_encoder, labels_learnt
from backend.loop.next_in_line import open_tasks
from backend.loop.predictions import RankedDrafts, rank_drafts
from backend.loop.publishing import Publisher, is_current
from backend.loop.refit import Refitter, hold_pin
from backend.loop.sync import sync_project
from backend.services import Services
from backend.snapshot import Snapshot, model_selected_tasks
from carcond.data.split import assign_splits, draw_holdout, split_imported
from carcond.errors import EncoderError, LabelStudioError, ModelMirrorError, ProjectGoneError, RegistryError
from carcond.fault_points import reach
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.registry import COLD_START_VERSION, Version, is_ours, pin_words
from carcond.store.tables import PredictionRow
from carcond.taxonomy import TASKS

logger = logging.getLogger(__name__)

# Embedding time budget of one turn; then the photos embedded so far are published, and the next turn continues.
_EMBEDDING_SECONDS = 20.0

# Our predictions by task id.
_Stored = Mapping[int, Sequence[PredictionRow]]


@dataclass(frozen=True)
class TurnReport:
    """Result of one turn.

    Attributes:
        version: the serving version after the turn.
        refitted: whether this turn made it.
        labelled: photos with a label, in train or hold-out.
        photos_left: photos still to be embedded by the next turn.
        stale: predictions of unlabelled tasks still to be moved to the version by `refresh`.
        seconds: stage -> its duration.
        refused: the newest version and why the gate refused it; empty when it did not.
        candidate: id of the encoder that may take over; empty for none.
        candidate_unseen: photos that it has yet to embed before its trial.
        learnt: photos with a label when the last encoder was fine-tuned on this project, 0 without one.
        pinned: the pinned version, by whom and why, and the candidate that it holds back; empty for none.
        unlearned: labels that Label Studio had before the turn and that no version knows after it; 0 is promised.
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
    pinned: str = ""
    unlearned: int = 0


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
            LabelStudioError: Label Studio refused or is unreachable; the next turn continues.
            LabelConfigError: the project asks for neither task.
            EncoderError: there is no encoder.
            ModelMirrorError: models cannot be exchanged with other hosts; the next turn continues.
        """
        watch = _Stopwatch()
        project, binding = self._read()
        pin = hold_pin(self._registry)
        reach("turn.read")
        watch.lap("read")
        encoder_id = self._serving_encoder()
        left = self._embed(encoder_id)
        reach("turn.embedded")
        watch.lap("embed")
        snapshot = self._snapshot(encoder_id)
        self._settle(snapshot)
        reach("turn.settled")
        candidate = candidate_encoder(self._services, self._project_id, self._registry.current())
        unseen = unseen_photos(self._store, self._project_id, candidate) if candidate else 0
        asked = [task for task in TASKS if task.key in binding.choices]
        refitter = Refitter(self._services, self._project_id, self._progress)
        refit = None
        if candidate and not unseen and not pin:
            # Only with the whole pool embedded: half of it would make a worse version, and a queue of half the pool.
            # A candidate has one trial, which it could only lose while a version is pinned.
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
            self._settle(snapshot)
        watch.lap("refit")
        served = project.model_version
        opened = open_tasks(self._store, self._project_id, served, snapshot.unlabelled, datetime.now(UTC))
        stored = self._predictions()
        ranked = self._rank(snapshot, version, binding, stored, opened)
        watch.lap("rank")
        beside = [draft for draft in ranked.rest if draft.task_id in opened]
        drafts = _not_current([*ranked.queue, *beside], stored)
        self._progress("publishing", 0, len(drafts))
        self._publisher(snapshot, version, binding).publish(
            drafts, served_version=served, version=_name(version), beside=opened
        )
        reach("turn.published")
        watch.lap("publish")
        stale = len(_not_current(ranked.rest, self._predictions()))  # as they are after the publish
        self._prune()
        watch.lap("prune")
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
            refit.held or (pin_words(pin) if pin else ""),
            self._unlearned(project, snapshot),
        )

    def refresh(self, interrupted: Callable[[], bool]) -> int:
        """Move the predictions of all other unlabelled tasks to the serving version incrementally.

        Args:
            interrupted: checked before each write: a turn is more urgent than this.

        Returns:
            Number of predictions that are still to be moved.
        """
        _, binding = self._read()
        snapshot = self._snapshot(self._serving_encoder())
        version = self._registry.current()
        stored = self._predictions()
        ranked = self._rank(snapshot, version, binding, stored)
        drafts = _not_current([*ranked.queue, *ranked.rest, *self._unreadable(snapshot, ranked)], stored)
        drafts.sort(key=lambda draft: _lateness(draft, stored.get(draft.task_id, ())))
        self._progress("refreshing predictions", 0, len(drafts))
        left = self._publisher(snapshot, version, binding).refresh(
            drafts, interrupted, lambda done: self._progress("refreshing predictions", done, len(drafts))
        )
        if not left:
            self._read()  # these writes count as changes: read them now, not in the next turn
        return left

    def _unlearned(self, project: ProjectInfo, snapshot: Snapshot) -> int:
        """Labels that are not in the store, and those on embedded photos that no version was fitted or measured on.

        Before the first version there is none to know, nor are photos that cannot be read or are yet to be embedded.
        """
        unread = max(0, project.labelled_count - self._store.labelled_count(self._project_id))
        usable = len(snapshot.labels.keys() & set(snapshot.task_ids.tolist()))
        # The newest may be refused, and the labels may be those of the serving one again.
        versions = [version for version in (self._registry.newest(), self._registry.current()) if version]
        known = max((version.card.labels.used for version in versions), default=usable)
        return unread + max(0, usable - known)

    def _prune(self) -> None:
        try:
            self._services.prune_versions(self._project_id)
        except (RegistryError, ModelMirrorError) as error:  # the next turn tries again
            logger.error("project %d: %s", self._project_id, error)

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
                # Deleted: the reconcile must not request turns for it for ever. Its versions stay on disk.
                self._store.retire_project(self._project_id)
                raise ProjectGoneError(str(error), error.status) from error
            raise
        binding = bind_label_config(project.label_config)
        sync_project(self._services.api, self._store, project, binding, self._services.settings)
        return project, binding

    def _embed(self, encoder_id: str) -> int:
        """Embed new photos with the encoder of the serving version, and return the number that is left."""
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
        """Assign photos that have arrived to train or hold-out, permanently."""
        asked = model_selected_tasks(self._store, self._project_id)
        classes = {task_id: label.classes for task_id, label in snapshot.labels.items()}
        generator = np.random.default_rng((self._project_id, sum(p.side is not None for p in snapshot.photos)))
        changed = split_imported(snapshot.photos, classes, asked, generator)
        changed += assign_splits(snapshot.photos, snapshot.labels)
        changed += draw_holdout(snapshot.photos)
        self._store.update_photos(
            self._project_id, [{"task_id": p.task_id, "side": p.side, "drawn": p.drawn} for p in changed]
        )

    def _rank(
        self,
        snapshot: Snapshot,
        version: Version | None,
        binding: LabelBinding,
        stored: _Stored,
        opened: Collection[int] = (),
    ) -> RankedDrafts:
        pool, heads = snapshot.pool(self._kept_slots(stored, opened)), version.heads if version else None
        return rank_drafts(
            snapshot.task_ids, pool, heads, _name(version), binding=binding, settings=self._services.settings
        )

    def _kept_slots(self, stored: _Stored, opened: Collection[int]) -> dict[int, int]:
        """Slots 1..C of tasks that stay in theirs: they have two predictions, or get a second one as `opened` do."""
        slots = {
            task_id: max(row.slot or EXPLORATION_SLOT for row in rows)
            for task_id, rows in stored.items()
            if len(rows) > 1 or task_id in opened
        }
        return {task_id: slot for task_id, slot in slots.items() if 0 < slot <= self._services.settings.slots}

    def _unreadable(self, snapshot: Snapshot, ranked: RankedDrafts) -> list[PredictionDraft]:
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

    def _predictions(self) -> dict[int, list[PredictionRow]]:
        """Our predictions by task id, as Label Studio holds them."""
        stored: dict[int, list[PredictionRow]] = {}
        for row in self._store.predictions(self._project_id):
            if is_ours(row.model_version):
                stored.setdefault(row.task_id, []).append(row)
        return stored


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._began, 3)
        self._began = now


def _not_current(drafts: Sequence[PredictionDraft], stored: _Stored) -> list[PredictionDraft]:
    """Drafts that Label Studio does not hold yet, as far as the queue is concerned."""
    return [draft for draft in drafts if not is_current(draft, stored.get(draft.task_id, ()), EXPLORATION_SLOT)]


def _lateness(draft: PredictionDraft, rows: Sequence[PredictionRow]) -> int:
    """0 for photos that a refresh moves first.

    First those that were sampled for the hold-out while other slots served them with answers, then those with two
    predictions: they have been next in line, and a page may have one of them open.
    """
    if draft.slot == EXPLORATION_SLOT and any(row.slot != EXPLORATION_SLOT for row in rows):
        return 0
    return 1 if len(rows) > 1 else 2


def _name(version: Version | None) -> str:
    return version.name if version else COLD_START_VERSION
