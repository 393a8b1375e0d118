"""Strategies: complete rules for what is labelled next, made of a start, a score and a batch rule.

A strategy is named by words joined by hyphens, for example `margin`, `margin-power` or
`entropy-slots-random10`:

* first what photos are ordered by: `random`, `confidence`, `margin`, `entropy`, `disagreement` (see
  `carcond.acquisition`; tasks are combined by `combine_tasks`) or `joint` (the probability that the
  pre-labels of all tasks are right together, as published to Label Studio);
* then, in any order, the batch rule (`top`, `power`, `distinct`, `slots`, `badge`; see `carcond.batches`), the
  start (`typical10`: the first 10 labels go to typical photos; `random10`: the first 10 to random ones),
  `grouped50` (after the start and up to 50 labels, `slots` is the batch rule), and `exploration`: one label in ten
  is drawn at random, for the hold-out, and never trained on.

`badge` alone means `margin-badge`, since badge looks at no score. `live` is the rule of the queue in Label
Studio.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from carcond.acquisition import SCORES, combine_tasks
from carcond.batches import BATCH_RULES, Candidates
from carcond.errors import StrategyError
from carcond.heads import FloatArray, IntArray, joint_confidence
from carcond.taxonomy import Task

RANDOM = "random"
JOINT = "joint"

_FIRST_WORDS = (RANDOM, *SCORES, JOINT)
_SHORT_NAMES = {"badge": "margin-badge", "live": "margin-grouped50-typical10-exploration"}
_START = re.compile(r"(typical|random)([1-9]\d{0,3})")
_GROUPED = re.compile(r"grouped([1-9]\d{0,3})")


@dataclass(frozen=True)
class Strategy:
    """A rule for what is labelled next.

    Attributes:
        name: as it was asked for.
        score: what photos are ordered by.
        batch: name of the batch rule.
        start: `typical` or `random`: how photos are chosen before there is a usable model.
        start_labels: so many labels are made before the score is used.
        grouped_labels: up to so many labels, batches are chosen by `slots` and not by `batch`.
        exploration: whether one label in ten is drawn at random for the hold-out.
    """

    name: str
    score: str
    batch: str = "top"
    start: str = "typical"
    start_labels: int = 10
    grouped_labels: int = 0
    exploration: bool = False

    @property
    def needs_ensemble(self) -> bool:
        """Whether the score compares several heads of a task."""
        return self.score == "disagreement"


@dataclass(frozen=True)
class Beliefs:
    """What the heads think of the unlabelled photos.

    Attributes:
        tasks: all that are to be learnt.
        embeddings: ``(N, D)``.
        by_task: task key -> calibrated probabilities of an ensemble ``(M, N, K)``, for tasks that have a head.
    """

    tasks: tuple[Task, ...]
    embeddings: FloatArray
    by_task: Mapping[str, FloatArray]


def parse_strategy(name: str) -> Strategy:
    """The strategy of a name; see the module's text.

    Raises:
        StrategyError: a word means nothing.
    """
    first, *words = _SHORT_NAMES.get(name, name).split("-")
    if first not in _FIRST_WORDS:
        known = ", ".join((*_FIRST_WORDS, *_SHORT_NAMES))
        raise StrategyError(f"expected a strategy that begins with {known}, got {name!r}")
    strategy = Strategy(name, first)
    for word in words:
        strategy = _with_word(strategy, word)
    return strategy


def parse_strategies(names: str) -> list[Strategy]:
    """The strategies of names with commas between them, each once.

    Raises:
        StrategyError: a name means nothing, or there is none.
    """
    found = [parse_strategy(name.strip()) for name in dict.fromkeys(names.split(",")) if name.strip()]
    if not found:
        raise StrategyError("expected at least one strategy, got none")
    return found


def _with_word(strategy: Strategy, word: str) -> Strategy:
    if word in BATCH_RULES:
        return replace(strategy, batch=word)
    if word == "exploration":
        return replace(strategy, exploration=True)
    if match := _START.fullmatch(word):
        return replace(strategy, start=match[1], start_labels=int(match[2]))
    if match := _GROUPED.fullmatch(word):
        return replace(strategy, grouped_labels=int(match[1]))
    known = ", ".join((*BATCH_RULES, "exploration", "typical10", "random10", "grouped50"))
    raise StrategyError(f"expected {known} after the first word of a strategy, got {word!r} in {strategy.name!r}")


def choose_batch(
    strategy: Strategy, beliefs: Beliefs, count: int, generator: np.random.Generator, *, labelled: int
) -> IntArray:
    """Positions of the photos to be labelled next, by a strategy that is past its start.

    Args:
        strategy: what to go by; its start and exploration are not looked at.
        beliefs: of the unlabelled photos; at least one task has a head.
        count: length of the batch.
        generator: source of chance.
        labelled: how many photos are labelled.

    Returns:
        min(count, N) distinct positions.
    """
    if strategy.score == RANDOM:
        return generator.permutation(len(beliefs.embeddings))[:count]
    probabilities = {key: np.asarray(p.mean(axis=0), dtype=np.float32) for key, p in beliefs.by_task.items()}
    if strategy.score == JOINT:
        scores = 1 - joint_confidence(probabilities, beliefs.tasks)
    else:
        scores = combine_tasks({key: SCORES[strategy.score](p) for key, p in beliefs.by_task.items()})
    candidates = Candidates(beliefs.embeddings, scores, probabilities)
    rule = "slots" if labelled < strategy.grouped_labels else strategy.batch
    return BATCH_RULES[rule](candidates, count, generator)
