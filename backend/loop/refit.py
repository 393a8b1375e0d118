"""Refitting: a candidate is fitted on all labels, evaluated by the gate, written, and promoted if it was accepted.

It can be killed at any point. A candidate that was written and not promoted is found by its fingerprint in the next
turn: it is promoted then, unless it was refused, or has served before and was rolled back.

While a version is pinned, candidates are fitted, evaluated and written, and none is promoted. Once it is unpinned the
newest that was accepted takes over in the next turn.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from backend.loop.embedding import Progress
from backend.loop.encoder_trial import tuning_of
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.arrays import BoolArray
from carcond.data.dataset import LabelledSet, labelled_set
from carcond.data.split import TRAIN
from carcond.errors import NotEnoughLabelsError, RegistryError
from carcond.evaluation.gate import ModelOnHoldout, Verdict, evaluate_candidate
from carcond.evaluation.report_card import report_card
from carcond.model.head_fitting import Holdout, fit_heads
from carcond.model.heads import Heads
from carcond.model.version_card import Gate, VersionCard
from carcond.registry.baseline import find_baseline
from carcond.registry.promotions import LOOP, Promotion
from carcond.registry.registry import COLD_START_VERSION, Registry, Version, pin_words
from carcond.reports.card_page import card_page
from carcond.taxonomy import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refit:
    """Result of a refit.

    Attributes:
        serving: the serving version afterwards, None before the first one.
        promoted: whether the refit made it the serving one.
        refused: why the candidate that was fitted just now may not serve; empty when there is none, or it may.
        held: the newest candidate and the version pinned in its place; empty when none is held back.
    """

    serving: Version | None
    promoted: bool = False
    refused: str = ""
    held: str = ""


def hold_pin(registry: Registry) -> Promotion | None:
    """Make the pinned version serve should another one do.

    A candidate may have been promoted at the moment when somebody pinned a version, or the process that pinned it
    was killed after it had recorded the pin.

    Returns:
        The pin in force, None while no version is pinned, or the record cannot be read.
    """
    pin = None
    try:
        pin = registry.pin()
        if pin and registry.pointed() != pin.version:
            registry.promote(pin.version, LOOP, pin_words(pin))
    except RegistryError as error:
        logger.error("the pinned version under %s does not serve: %s", registry.root, error)
    return pin


class Refitter:
    """Refits the heads of one project."""

    def __init__(self, services: Services, project_id: int, progress: Progress) -> None:
        self._services = services
        self._project_id = project_id
        self._progress = progress
        self._registry: Registry = services.registry(project_id)

    def refit(self, snapshot: Snapshot, tasks: Sequence[Task]) -> Refit:
        """Fit and evaluate a candidate, unless the newest version was fitted on the same labels.

        Args:
            snapshot: its labelled photos are assigned to train or hold-out.
            tasks: those that the label config asks for.
        """
        photos = self._services.store.photos_of(self._project_id, list(snapshot.labels))
        labelled = labelled_set(photos, snapshot.labels, *snapshot.labelled_embeddings())
        fingerprint = labelled.fingerprint(snapshot.encoder_id)
        serving = self._registry.current()
        if serving and serving.card.fingerprint == fingerprint:
            return Refit(serving)
        try:
            newest = self._registry.newest()
            if newest and newest.card.fingerprint == fingerprint and not self._is_to_be_judged_anew(newest):
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
            holdout = Holdout(*labelled.side(holdout=True), labelled.groups[labelled.holdout])
            heads = fit_heads(
                encoder_id,
                *labelled.side(holdout=False),
                groups=labelled.groups[train],
                fresh=fresh,
                holdout=holdout,
            )
        except NotEnoughLabelsError as error:
            logger.info("project %d: no new version: %s", self._project_id, error)
            return None
        fitted = time.monotonic()
        verdict = self._judge(snapshot, labelled, heads, serving, tasks)
        card = VersionCard(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parent=_name(serving),
            encoder_id=encoder_id,
            fingerprint=labelled.fingerprint(encoder_id),
            fit_seconds=round(fitted - began, 3),
            gate=Gate(**verdict.facts()),
            **report_card(labelled, heads),
        )
        number = self._registry.write(heads, card, [example.row() for example in labelled.examples], card_page)
        candidate = Version(number, heads, card)
        if candidate.card.is_refused:
            logger.warning("project %d: %s does not serve: %s", self._project_id, candidate.name, verdict.reason)
        return candidate

    def _fresh(self, labelled: LabelledSet, encoder_id: str) -> BoolArray:
        """``(N,)``, True for photos that the encoder was not trained on, nor on a photo of the same group."""
        tuning = tuning_of(self._services, self._project_id, encoder_id)
        trained_on = set(tuning.trained_on) if tuning else set()
        known = np.array([example.task_id in trained_on for example in labelled.usable], dtype=np.bool_)
        fresh: BoolArray = ~np.isin(labelled.groups, labelled.groups[known])
        return fresh

    def _is_to_be_judged_anew(self, newest: Version) -> bool:
        """True if the newest version was compared with another one than that which was unpinned just now."""
        serving, waits = self._registry.current(), not self._registry.has_served(newest.number)
        return self._was_unpinned() and waits and newest.card.parent != _name(serving)

    def _was_unpinned(self) -> bool:
        """True if nothing was promoted since somebody unpinned a version."""
        history = self._registry.history()
        return bool(history) and history[-1].action == "unpin"

    def _promote(self, candidate: Version) -> Refit:
        """Make the candidate the serving version if it was accepted."""
        # Read again: somebody may have rolled back while the candidate was fitted, here or on another host.
        self._services.pull_serving(self._project_id)
        serving = self._registry.current()
        pin = self._registry.pin()
        refused = f"{candidate.name}: {candidate.card.reason}" if candidate.card.is_refused else ""
        if refused and serving and self._was_unpinned():
            candidate = self._held_back(candidate, serving)
        if candidate.card.is_refused:
            return Refit(serving, refused=refused)
        if candidate.card.parent != _name(serving) or self._registry.has_served(candidate.number):
            return Refit(serving)
        if pin:
            held = f"{candidate.name} is not served: {pin_words(pin)}"
            logger.info("project %d: %s", self._project_id, held)
            return Refit(serving, held=held)
        self._registry.promote(candidate.number, LOOP, candidate.card.reason)
        return Refit(candidate, promoted=True, refused=refused)

    def _held_back(self, refused: Version, serving: Version) -> Version:
        """The newest version that was accepted while the serving one was pinned; else the refused one."""
        if refused.heads.encoder_id != serving.heads.encoder_id:
            return refused  # the trial of another encoder: a candidate on the serving one is fitted after it
        since = [number for number in reversed(self._registry.numbers()) if number > serving.number]
        held = (
            version
            for version in self._registry.readable(since)
            if not version.card.is_refused
            and version.card.parent == serving.name
            and not self._registry.has_served(version.number)
        )
        return next(held, refused)

    def _judge(
        self,
        snapshot: Snapshot,
        labelled: LabelledSet,
        heads: Heads,
        serving: Version | None,
        tasks: Sequence[Task],
    ) -> Verdict:
        """Compare a candidate with the serving version and with the baseline; a refusal by either holds."""
        verdict = self._compare(snapshot, labelled, heads, serving, tasks)
        baseline = find_baseline(self._registry, int((~labelled.holdout).sum()))
        if baseline is None or not verdict.accepted:
            return verdict
        long_step = self._compare(snapshot, labelled, heads, baseline, tasks)
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
        groups = labelled.groups[labelled.holdout]
        candidate, before = ModelOnHoldout("candidate", heads, embeddings, groups), None
        if other:
            task_ids, kept = snapshot.labelled_embeddings()
            if other.heads.encoder_id != snapshot.encoder_id:
                other_id = other.heads.encoder_id
                task_ids, kept = self._services.store.embeddings_of(self._project_id, other_id, task_ids.tolist())
            position = {task_id: i for i, task_id in enumerate(task_ids.tolist())}
            fitted_on = self._fitted_on(other)
            held = [e.task_id for e, out in zip(labelled.usable, labelled.holdout, strict=True) if out]
            both = [i for i, task_id in enumerate(held) if task_id in position and task_id not in fitted_on]
            candidate = ModelOnHoldout("candidate", heads, embeddings[both], groups[both])
            before = ModelOnHoldout(other.name, other.heads, kept[[position[held[i]] for i in both]], groups[both])
            classes = {task: indices[both] for task, indices in classes.items()}
        return evaluate_candidate(
            candidate,
            before,
            classes,
            margin=settings.gate_margin,
            min_photos=settings.gate_min_photos,
            tasks=tasks,
        )

    def _fitted_on(self, version: Version) -> set[int]:
        """Task ids that a version was fitted on. The split is permanent, unless the store was lost."""
        try:
            return {row["task"] for row in self._registry.labels(version.number) if row.get("side") == TRAIN}
        except RegistryError as error:
            logger.error("project %d: %s", self._project_id, error)
            return set()


def _name(version: Version | None) -> str:
    return version.name if version else COLD_START_VERSION
