"""One turn of the loop: read the changes, embed, refit, publish.

A turn can be killed at any point and started again: Label Studio has the labels, versions are written
whole or not at all, and predictions are moved in place.
"""

import itertools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import httpx
import numpy as np

from backend.label_studio.client import PredictionDraft, ProjectInfo
from backend.label_studio.label_config import LabelBinding, bind_label_config
from backend.loop.damage_boxes import DamageBoxes
from backend.loop.embedding import Progress, embed_new_photos
from backend.loop.encoder_trial import candidate_encoder, labels_learnt
from backend.loop.next_in_line import open_tasks
from backend.loop.photo_predictions import PhotoPredictions
from backend.loop.predictions import RankedDrafts, rank_drafts
from backend.loop.publishing import Publisher, is_current
from backend.loop.refit import Refitter, hold_pin
from backend.loop.settling import settle
from backend.loop.sync import sync_project
from backend.loop.waiting_photos import unseen_photos
from backend.pool.facts import NONE
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.arrays import IntArray
from carcond.errors import EncoderError, LabelStudioError, ModelMirrorError, ProjectGoneError, RegistryError
from carcond.fault_points import reach
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.registry import COLD_START_VERSION, Version, is_ours, pin_words
from carcond.store.tables import PredictionRow
from carcond.taxonomy import TASKS

logger = logging.getLogger(__name__)

# Embedding time budget of one turn; then the photos embedded so far are published, and the next turn continues.
_EMBEDDING_SECONDS = 20.0

# Number of predictions that a refresh makes at a time.
_REFRESHED = 200


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
        snapshot = self._settled(encoder_id)
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
            snapshot = self._settled(version.heads.encoder_id)
        watch.lap("refit")
        served = project.model_version
        opened = open_tasks(self._store, self._project_id, served, snapshot, datetime.now(UTC))
        held = PhotoPredictions(snapshot.task_ids, snapshot.facts.held)
        ranked = self._rank(snapshot, version, binding, held, opened)
        watch.lap("rank")
        beside = ranked.rest[np.isin(ranked.rest, snapshot.rows(opened))]
        drafts = self._not_current([*ranked.queue, *ranked.of_rest(beside)])
        self._progress("publishing", 0, len(drafts))
        self._publisher(version, binding).publish(drafts, served_version=served, version=_name(version), beside=opened)
        reach("turn.published")
        watch.lap("publish")
        moved = np.isin(ranked.rest, beside)
        stale = len(_outdated(ranked, ranked.rest[~moved], snapshot, held, _name(version)))
        self._prune()
        self._services.remove_pools(self._project_id, {snapshot.encoder_id, candidate})
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
        held = PhotoPredictions(snapshot.task_ids, snapshot.facts.held)
        ranked = self._rank(snapshot, version, binding, held)
        rest = _outdated(ranked, ranked.rest, snapshot, held, _name(version))
        explored = snapshot.pool().holdout
        rest = rest[np.argsort(held.lateness(explored)[rest], kind="stable")]
        queue, unreadable = self._not_current(ranked.queue), self._not_current(self._unreadable(snapshot, ranked))
        blocks = (ranked.of_rest(rest[start : start + _REFRESHED]) for start in range(0, len(rest), _REFRESHED))
        publisher, total = self._publisher(version, binding), len(queue) + len(rest) + len(unreadable)
        done = 0
        for drafts in itertools.chain([queue], blocks, [unreadable]):
            progress = partial(self._report_refresh, total, done)
            left = publisher.refresh(drafts, interrupted, progress)
            done += len(drafts) - left
            if left:
                return total - done
        self._read()  # these writes count as changes: read them now, not in the next turn
        return 0

    def _report_refresh(self, total: int, before: int, written: int) -> None:
        self._progress("refreshing predictions", before + written, total)

    def _unlearned(self, project: ProjectInfo, snapshot: Snapshot) -> int:
        """Labels that are not in the store, and those on embedded photos that no version was fitted or measured on.

        Before the first version there is none to know, nor are photos that cannot be read or are yet to be embedded.
        """
        unread = max(0, project.labelled_count - self._store.labelled_count(self._project_id))
        usable = len(snapshot.rows(snapshot.labels))
        # The newest may be refused, and the labels may be those of the serving one again.
        versions = [version for version in (self._registry.newest(), self._registry.current()) if version]
        known = max((version.card.labels.used for version in versions), default=usable)
        return unread + max(0, usable - known)

    def _prune(self) -> None:
        try:
            self._services.prune_versions(self._project_id)
        except (RegistryError, ModelMirrorError) as error:  # the next turn tries again
            logger.error("project %d: %s", self._project_id, error)

    def _publisher(self, version: Version | None, binding: LabelBinding) -> Publisher:
        boxes = DamageBoxes(self._services, binding, version.heads if version else None)
        connections = self._services.settings.publish_connections
        return Publisher(
            self._services.api,
            self._store,
            self._project_id,
            connections,
            lambda draft: boxes.drawn(draft, self._store.photo_urls(self._project_id, [draft.task_id])),
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
                self._services.remove_pools(self._project_id, ())
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
        return Snapshot.take(self._services, self._project_id, encoder_id)

    def _settled(self, encoder_id: str) -> Snapshot:
        """A snapshot after photos that have arrived are assigned to train or hold-out, permanently."""
        snapshot = self._snapshot(encoder_id)
        changed = settle(self._store, self._project_id, snapshot)
        return self._snapshot(encoder_id) if changed else snapshot

    def _rank(
        self,
        snapshot: Snapshot,
        version: Version | None,
        binding: LabelBinding,
        held: PhotoPredictions,
        opened: Collection[int] = (),
    ) -> RankedDrafts:
        settings = self._services.settings
        pool, heads = snapshot.pool(held.kept_slots(opened, settings.slots)), version.heads if version else None
        return rank_drafts(snapshot.task_ids, pool, heads, _name(version), binding=binding, settings=settings)

    def _not_current(self, drafts: Sequence[PredictionDraft]) -> list[PredictionDraft]:
        """Drafts that Label Studio does not hold yet, as far as the queue is concerned."""
        ours: dict[int, list[PredictionRow]] = {}
        for row in self._store.predictions_of(self._project_id, [draft.task_id for draft in drafts]):
            if is_ours(row.model_version):
                ours.setdefault(row.task_id, []).append(row)
        return [draft for draft in drafts if not is_current(draft, ours.get(draft.task_id, ()), EXPLORATION_SLOT)]

    def _unreadable(self, snapshot: Snapshot, ranked: RankedDrafts) -> list[PredictionDraft]:
        """Empty predictions for photos that cannot be read, once there is a version to keep them out of the queue."""
        if not ranked.queue or ranked.queue[0].model_version == COLD_START_VERSION:
            return []
        facts = snapshot.facts
        unreadable = facts.task_ids[facts.has_problem & ~facts.gone & (facts.places == NONE)]
        return [
            PredictionDraft(task_id, [], 0.0, COLD_START_VERSION, None)
            for task_id in unreadable.tolist()
            if task_id not in snapshot.labels
        ]


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = round(now - self._began, 3)
        self._began = now


def _outdated(
    ranked: RankedDrafts, rows: IntArray, snapshot: Snapshot, held: PhotoPredictions, version: str
) -> IntArray:
    """Those of some rows behind the queue of which Label Studio does not hold the prediction yet."""
    explored = snapshot.pool().holdout
    with_place = rows if version == COLD_START_VERSION else rows[explored[rows]]
    scores = np.zeros(len(explored), dtype=np.float32)
    _, scores[with_place] = ranked.place_rest(with_place)
    return rows[~held.are_current(version, explored, scores)[rows]]


def _name(version: Version | None) -> str:
    return version.name if version else COLD_START_VERSION
