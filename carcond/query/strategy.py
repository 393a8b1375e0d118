"""Query strategies, composed of a cold start, an acquisition score and a batch rule.

A strategy is named by words joined by hyphens, for example `margin`, `margin-power` or
`entropy-slots-random10`:

* first the score: `random`, `confidence`, `margin`, `entropy`, `bald` (see
  `carcond.query.uncertainty`; tasks are combined by `combine_tasks`) or `joint` (the probability that the
  pre-labels of all tasks are right together, as published to Label Studio);
* then, in any order, the batch rule (`top`, `power`, `distinct`, `slots`, `badge`; see `carcond.query.batch_rules`),
  the start (`representative10`: the first 10 labels go to representative photos; `random10`: the first 10 to random
  ones), `diverse50` (after the start and up to 50 labels, `slots` is the batch rule), and `exploration`: one label in
  ten is sampled at random, for the hold-out, and never trained on.

`badge` alone means `margin-badge`, since badge uses no score. `live` is the queue in Label Studio itself
(`carcond.query.live_queue`), and takes no further words.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from carcond.arrays import FloatArray, IntArray
from carcond.errors import StrategyError
from carcond.model.heads import joint_confidence
from carcond.query.batch_rules import BATCH_RULES, Candidates
from carcond.query.uncertainty import SCORES, combine_tasks
from carcond.taxonomy import Task

logger = logging.getLogger(__name__)

RANDOM = "random"
JOINT = "joint"
LIVE = "live"
"""The rule of the queue in Label Studio."""

_FIRST_WORDS = (RANDOM, *SCORES, JOINT)
_SHORT_NAMES = {"badge": "margin-badge"}
_START = re.compile(r"(representative|random)([1-9]\d{0,3})")
_DIVERSE = re.compile(r"diverse([1-9]\d{0,3})")
# Deprecated words of the last release -> their current names.
_FORMER_WORDS = {"typical": "representative", "grouped": "diverse", "disagreement": "bald"}
_FORMER = re.compile(rf"\b({'|'.join(_FORMER_WORDS)})(?=\d|\b)")


@dataclass(frozen=True)
class Strategy:
    """A query strategy.

    Attributes:
        name: as it was requested.
        score: name of the acquisition score.
        batch: name of the batch rule.
        start: `representative` or `random`: how photos are selected before there is a usable model.
        cold_start_labels: number of labels before the score is used.
        diversity_until_labels: number of labels up to which batches are selected by `slots` and not by `batch`.
        exploration: True if one label in ten is sampled at random for the hold-out.
    """

    name: str
    score: str
    batch: str = "top"
    start: str = "representative"
    cold_start_labels: int = 10
    diversity_until_labels: int = 0
    exploration: bool = False

    @property
    def needs_ensemble(self) -> bool:
        """True if the score compares several heads of a task."""
        return self.score == "bald"


@dataclass(frozen=True)
class Beliefs:
    """Predictions of the heads on the unlabelled photos.

    Attributes:
        tasks: all tasks, with or without a head.
        embeddings: ``(N, D)``.
        by_task: task key -> calibrated probabilities of an ensemble ``(M, N, K)``, for tasks that have a head.
    """

    tasks: tuple[Task, ...]
    embeddings: FloatArray
    by_task: Mapping[str, FloatArray]


def parse_strategy(name: str) -> Strategy:
    """Parse the name of a strategy; see the module's docstring.

    Raises:
        StrategyError: a word is unknown.
    """
    if name == LIVE:
        return Strategy(LIVE, LIVE)
    current = _FORMER.sub(lambda word: _FORMER_WORDS[word[1]], name)
    if current != name:
        logger.warning("the strategy %s is called %s now; the former name goes with the next release", name, current)
    first, *words = _SHORT_NAMES.get(current, current).split("-")
    if first not in _FIRST_WORDS:
        known = ", ".join((*_FIRST_WORDS, *_SHORT_NAMES, LIVE))
        raise StrategyError(f"expected a strategy that begins with {known}, got {name!r}")
    strategy = Strategy(current, first)
    for word in words:
        strategy = _with_word(strategy, word)
    return strategy


def parse_strategies(names: str) -> list[Strategy]:
    """Parse comma-separated names of strategies, each once.

    Raises:
        StrategyError: a name is unknown, or there is none.
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
        return replace(strategy, start=match[1], cold_start_labels=int(match[2]))
    if match := _DIVERSE.fullmatch(word):
        return replace(strategy, diversity_until_labels=int(match[1]))
    known = ", ".join((*BATCH_RULES, "exploration", "representative10", "random10", "diverse50"))
    raise StrategyError(f"expected {known} after the first word of a strategy, got {word!r} in {strategy.name!r}")


def choose_batch(
    strategy: Strategy, beliefs: Beliefs, count: int, generator: np.random.Generator, *, labelled: int
) -> IntArray:
    """Positions of the photos to be labelled next, by a strategy past its cold start.

    Args:
        strategy: its start and exploration are ignored.
        beliefs: of the unlabelled photos; at least one task has a head.
        count: size of the batch.
        generator: random generator.
        labelled: number of labelled photos.

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
    rule = "slots" if labelled < strategy.diversity_until_labels else strategy.batch
    return BATCH_RULES[rule](candidates, count, generator)
