"""The live service without Label Studio and without people: its queue, its hold-out, its versions and its gate.

One annotator labels the photos in the order in which Label Studio serves them. After every few labels a candidate is
fitted; if the gate accepts it, it serves, and the queue is published anew.
"""

from dataclasses import dataclass, field
from math import ceil

import numpy as np

from carcond.analysis.replay_heads import ReplayHeads, fit, fitted
from carcond.analysis.replay_set import ReplayDataset
from carcond.arrays import BoolArray, IntArray
from carcond.data.split import HOLDOUT_SHARE
from carcond.evaluation.gate import ModelOnHoldout, evaluate_candidate
from carcond.model.heads import Head, Heads
from carcond.query.live_queue import Pool, QueueSettings, rank_pool, served_order

# Beyond this number of labels a version is published after each further tenth of them, and for each measurement: a
# tenth changes little, and fits are slow by then.
_EXACT_LABELS, _LATER_SHARE = 200, 0.1


@dataclass(frozen=True)
class LiveSettings:
    """Settings of the live service, see `carcond.settings.Settings`.

    Attributes:
        queue: sizes of the queue.
        publish_every: number of labels from one version to the next, up to 200 labels.
        gate_margin: maximum significant drop of a hold-out metric that a new version may have.
        gate_min_photos: minimum number of hold-out labels of a task before the gate tests it.
    """

    queue: QueueSettings = field(default_factory=QueueSettings)
    publish_every: int = 5
    gate_margin: float = 0.02
    gate_min_photos: int = 20


class LiveReplay:
    """One run of the live service over a labelled set. Deterministic.

    Attributes:
        labelled: ``(P,)``, True for the labelled photos of the pool.
        held: ``(P,)``, True for the photos of the pool that are in the hold-out, labelled or not.
        heads: those that serve.
        refused: number of candidates that the gate refused.
    """

    def __init__(self, dataset: ReplayDataset, settings: LiveSettings, seed: int) -> None:
        self._dataset, self._settings, self._seed = dataset, settings, seed
        self._pool = dataset.pool()
        self._embeddings = dataset.embeddings[self._pool]
        generator = np.random.default_rng(seed)
        self.held = _draw_holdout(dataset.groups[self._pool], generator)
        self._draws = generator.random(len(self._pool), dtype=np.float32)
        self.labelled: BoolArray = np.zeros(len(self._pool), dtype=bool)
        self.heads: ReplayHeads = {}
        self.refused = 0
        # Versions that have served, oldest first, each with its number of training labels.
        self._served: list[tuple[int, dict[str, Head]]] = []
        self._slot_labels = np.zeros(settings.queue.slots + 1, dtype=np.int64)
        self._published_at = 0
        self._publish_queue()

    def label(self, count: int) -> ReplayHeads:
        """Label photos until `count` of the pool are labelled, and return the heads that serve then."""
        done = int(self.labelled.sum())
        while done < count:
            due = self._next_publish(done, count)
            self._label_served(min(due, count) - done)
            done = int(self.labelled.sum())
            if done == due:
                self._publish()
        return self.heads

    def holdout_rows(self) -> IntArray:
        """Rows of the dataset that are labelled and in the hold-out."""
        return self._pool[self.labelled & self.held]

    def training_rows(self) -> IntArray:
        """Rows of the dataset that are labelled and trained on."""
        return self._pool[self.labelled & ~self.held]

    def _next_publish(self, done: int, target: int) -> int:
        if done < _EXACT_LABELS:
            return self._published_at + self._settings.publish_every
        rounds = ceil((target - done) / max(self._settings.publish_every, done * _LATER_SHARE))
        return done + ceil((target - done) / rounds)

    def _label_served(self, count: int) -> None:
        """Label photos as Label Studio serves them: of the slot with the fewest labels, the lowest score.

        A queue that is used up is published again, also without new heads.
        """
        for _ in range(count):
            if not self._left:
                self._publish_queue()
            self._left -= 1
            waiting = [slot for slot, photos in self._waiting.items() if photos]
            slot = min(waiting, key=lambda slot: (self._slot_labels[slot], self._scores[self._waiting[slot][-1]]))
            self.labelled[self._waiting[slot].pop()] = True
            self._slot_labels[slot] += 1

    def _publish(self) -> None:
        self._published_at = int(self.labelled.sum())
        train = self.training_rows()
        heads = fit(self._dataset, train, self.holdout_rows(), self._seed)
        candidate = fitted(heads)
        if candidate:
            if self._accepts(candidate, len(train)):
                self._served.append((len(train), candidate))
            else:
                self.refused += 1
        serving = self._served[-1][1] if self._served else {}
        constants: ReplayHeads = {key: head for key, head in heads.items() if not isinstance(head, Head)}
        self.heads = {**constants, **serving}
        self._publish_queue()

    def _accepts(self, candidate: dict[str, Head], train: int) -> bool:
        """The gate, against the serving version, and the latest that served with half the labels or fewer."""
        if not self._served:
            return True
        serving = len(self._served) - 1
        half = [number for number, (count, _) in enumerate(self._served) if 2 * count <= train]
        against = dict.fromkeys([serving, *half[-1:]])
        return all(self._passes(candidate, self._served[number][1]) for number in against)

    def _passes(self, candidate: dict[str, Head], before: dict[str, Head]) -> bool:
        rows, labels = self.holdout_rows(), self._dataset.labels
        embeddings, groups = self._dataset.embeddings[rows], self._dataset.groups[rows]
        verdict = evaluate_candidate(
            ModelOnHoldout("candidate", Heads("", candidate), embeddings, groups),
            ModelOnHoldout("before", Heads("", before), embeddings, groups),
            {key: each.indices[rows] for key, each in labels.items()},
            margin=self._settings.gate_margin,
            min_photos=self._settings.gate_min_photos,
            tasks=[each.task for each in labels.values()],
        )
        return verdict.accepted

    def _publish_queue(self) -> None:
        probabilities = {key: head.probabilities(self._embeddings) for key, head in fitted(self.heads).items()}
        kept_slots = np.zeros(len(self._pool), dtype=np.int64)
        pool = Pool(self._embeddings, ~self.labelled, self.held, self._draws, kept_slots)
        queue = rank_pool(pool, probabilities, self._settings.queue, self._seed)
        order = served_order(np.concatenate([queue.positions, queue.rest]), queue.slots, queue.scores)
        slots = queue.slots[order]
        self._waiting = {int(slot): order[slots == slot][::-1].tolist() for slot in np.unique(slots)}
        self._scores = queue.scores
        self._left = self._settings.queue.size


def _draw_holdout(groups: IntArray, generator: np.random.Generator) -> BoolArray:
    """``(P,)``, True for the photos of a tenth of the groups ``(P,)``, at least one."""
    drawn = generator.permutation(np.unique(groups))
    return np.isin(groups, drawn[: max(1, round(len(drawn) * HOLDOUT_SHARE))])
