"""Refitting: a candidate is fitted on all labels, judged by the gate, written, and promoted when it was accepted.

It can be killed at any point. A candidate that was written and not promoted is found by its fingerprint in the next
turn: it is promoted then, unless it was refused, or has served before and was rolled back.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from backend.embedding import Progress
from backend.encoders import tuning_of
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.card_values import mapping, plain
from carcond.errors import NotEnoughLabelsError, RegistryError
from carcond.examples import LabelledSet, labelled_set
from carcond.gate import Contender, Verdict, judge
from carcond.head_fitting import fit_heads
from carcond.heads import BoolArray, Heads
from carcond.landmark import find_landmark
from carcond.promotions import LOOP
from carcond.registry import COLD_START_VERSION, Registry, Version
from carcond.report_card import report_card
from carcond.split import TRAIN
from carcond.taxonomy import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refit:
    """What came of a refit.

    Attributes:
        serving: the serving version afterwards, None before the first one.
        promoted: whether the refit made it the serving one.
        refused: why the candidate that was fitted just now may not serve; empty when there is none, or it may.
    """

    serving: Version | None
    promoted: bool = False
    refused: str = ""


class Refitter:
    """Refits the heads of one project."""

    def __init__(self, services: Services, project_id: int, progress: Progress) -> None:
        self._services = services
        self._project_id = project_id
        self._progress = progress
        self._registry: Registry = services.registry(project_id)

    def refit(self, snapshot: Snapshot, tasks: Sequence[Task]) -> Refit:
        """Fit and judge a candidate, unless the newest version knows the same labels already.

        Args:
            snapshot: its labelled photos have their sides.
            tasks: those that the label config asks for.
        """
        labelled = labelled_set(snapshot.photos, snapshot.labels, snapshot.task_ids, snapshot.embeddings)
        fingerprint = labelled.fingerprint(snapshot.encoder_id)
        serving = self._registry.current()
        if serving and serving.card.get("fingerprint") == fingerprint:
            return Refit(serving)
        try:
            newest = self._registry.newest()
            if newest and newest.card.get("fingerprint") == fingerprint:
                return self._promote(newest)
            candidate = self._make(snapshot, labelled, serving, tasks)
            return self._promote(candidate) if candidate else Refit(serving)
        except RegistryError as error:
            # A full disk must not stop the version that serves.
            logger.error("project %d: %s", self._project_id, error)
            return Refit(serving)

    def _make(
        self, snapshot: Snapshot, labelled: LabelledSet, serving: Version | None, tasks: Sequence[Task]
    ) -> Version | None:
        """Write a candidate; None with too few labels."""
        self._progress("fitting heads", 0, 0)
        began = time.monotonic()
        encoder_id = snapshot.encoder_id
        try:
            train = ~labelled.holdout
            fresh = self._fresh(labelled, encoder_id)[train]
            heads = fit_heads(encoder_id, *labelled.side(holdout=False), groups=labelled.groups[train], fresh=fresh)
        except NotEnoughLabelsError as error:
            logger.info("project %d: no new version: %s", self._project_id, error)
            return None
        fitted = time.monotonic()
        verdict = self._judge(snapshot, labelled, heads, serving, tasks)
        card = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "parent": _name(serving),
            "encoder_id": encoder_id,
            "fingerprint": labelled.fingerprint(encoder_id),
            "fit_seconds": round(fitted - began, 3),
            "gate": verdict.facts(),
            **report_card(labelled, heads),
        }
        number = self._registry.write(heads, card, [example.row() for example in labelled.examples])
        candidate = Version(number, heads, card)
        if candidate.is_refused:
            logger.warning("project %d: %s does not serve: %s", self._project_id, candidate.name, verdict.reason)
        return candidate

    def _fresh(self, labelled: LabelledSet, encoder_id: str) -> BoolArray:
        """``(N,)``, True for photos that the encoder was not trained on, nor on a photo of the same group."""
        tuning = tuning_of(self._services, self._project_id, encoder_id)
        trained_on = set(tuning.trained_on) if tuning else set()
        known = np.array([example.task_id in trained_on for example in labelled.usable], dtype=np.bool_)
        fresh: BoolArray = ~np.isin(labelled.groups, labelled.groups[known])
        return fresh

    def _promote(self, candidate: Version) -> Refit:
        """Make the candidate the serving version if it may."""
        # Read again: somebody may have rolled back while the candidate was fitted, here or on another host.
        self._services.pull_serving(self._project_id)
        serving = self._registry.current()
        reason = plain(mapping(candidate.card, "gate").get("reason") or "", 1000)
        if candidate.is_refused:
            return Refit(serving, refused=f"{candidate.name}: {reason}")
        if candidate.card.get("parent") != _name(serving) or self._registry.has_served(candidate.number):
            return Refit(serving)
        self._registry.promote(candidate.number, LOOP, reason)
        return Refit(candidate, promoted=True)

    def _judge(
        self,
        snapshot: Snapshot,
        labelled: LabelledSet,
        heads: Heads,
        serving: Version | None,
        tasks: Sequence[Task],
    ) -> Verdict:
        """Compare a candidate with the serving version and with the landmark; a refusal by either holds."""
        verdict = self._compare(snapshot, labelled, heads, serving, tasks)
        landmark = find_landmark(self._registry, int((~labelled.holdout).sum()))
        if landmark is None or not verdict.accepted:
            return verdict
        long_step = self._compare(snapshot, labelled, heads, landmark, tasks)
        return verdict if long_step.accepted else long_step

    def _compare(
        self,
        snapshot: Snapshot,
        labelled: LabelledSet,
        heads: Heads,
        other: Version | None,
        tasks: Sequence[Task],
    ) -> Verdict:
        settings = self._services.settings
        embeddings, classes = labelled.side(holdout=True)
        candidate, before = Contender("candidate", heads, embeddings), None
        if other:
            task_ids, kept = snapshot.task_ids, snapshot.embeddings
            if other.heads.encoder_id != snapshot.encoder_id:
                task_ids, kept = self._services.store.embeddings(self._project_id, other.heads.encoder_id)
            position = {task_id: i for i, task_id in enumerate(task_ids.tolist())}
            fitted_on = self._fitted_on(other)
            held = [e.task_id for e, out in zip(labelled.usable, labelled.holdout, strict=True) if out]
            both = [i for i, task_id in enumerate(held) if task_id in position and task_id not in fitted_on]
            candidate = Contender("candidate", heads, embeddings[both])
            before = Contender(other.name, other.heads, kept[[position[held[i]] for i in both]])
            classes = {task: indices[both] for task, indices in classes.items()}
        return judge(
            candidate,
            before,
            classes,
            margin=settings.gate_margin,
            min_photos=settings.gate_min_photos,
            tasks=tasks,
        )

    def _fitted_on(self, version: Version) -> set[int]:
        """Task ids that a version was fitted on. Sides of the split are for ever, unless the store was lost."""
        try:
            return {row["task"] for row in self._registry.labels(version.number) if row["side"] == TRAIN}
        except RegistryError as error:
            logger.error("project %d: %s", self._project_id, error)
            return set()


def _name(version: Version | None) -> str:
    return version.name if version else COLD_START_VERSION
