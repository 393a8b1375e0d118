"""The tables of docs/simulate.md and docs/calibration.md: strategies, the live service, calibration and hold-out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from carcond.analysis.live_replay import LiveReplay, LiveSettings
from carcond.analysis.replay import label_counts, measure_full, replay
from carcond.analysis.replay_heads import EVERYTHING, METRICS, fit, fitted, measure
from carcond.analysis.replay_set import FOLDS, ReplayDataset
from carcond.analysis.simulation_report import labels_needed, mean_and_band
from carcond.arrays import FloatArray, IntArray
from carcond.evaluation.calibration import negative_log_likelihood
from carcond.model.heads import Head
from carcond.model.single_thread import one_core
from carcond.query.strategy import parse_strategy

_OTHERS = ("random", "margin", "badge")
_PUBLISH_EVERY = (1, 5, 20)
_MOST = 400
_SHOWN = (10, 20, 30, 50, 100, 200, 400)
_PUBLISH_SHOWN = (20, 50, 100, 200)
_CALIBRATED = (50, 100, 150, 200, 400)
_HOLDOUT = (100, 400, 1000)
_SHARE = 0.95
_MACRO_F1, _ECE = METRICS.index("macro_f1"), METRICS.index("ece")

T = TypeVar("T")
Say = Callable[[str], None]
"""Progress callback, called with a line of text."""


@dataclass(frozen=True)
class LiveRun:
    """One run of the live service, measured after R numbers of labels.

    Attributes:
        metrics: `METRICS` on the test photos ``(R, 3)``.
        training_ece: calibration error with a temperature chosen on training labels alone ``(R,)``.
        accuracy_gap: accuracy on the labelled hold-out minus that on the test photos ``(R,)``; NaN without a head.
        nll_gap: the same of the negative log-likelihood, as a version's card has it ``(R,)``.
        own_nll_gap: the same with the temperature that the hold-out's own labels had a part in ``(R,)``.
    """

    metrics: FloatArray
    training_ece: FloatArray
    accuracy_gap: FloatArray
    nll_gap: FloatArray
    own_nll_gap: FloatArray


def figures(sets: Mapping[str, ReplayDataset], seeds: int, say: Say) -> str:
    """All tables, as Markdown.

    Args:
        sets: name -> labelled set of one task.
        seeds: number of replays of each, at least 2; five in turn are measured on the five folds of one deal.
        say: called before each replay.
    """
    tables: list[list[list[str]]] = [[], [], [], []]
    with one_core():
        for name, dataset in sets.items():
            splits = [dataset.for_seed(seed) for seed in range(seeds)]
            for table, rows in zip(tables, _set_rows(name, splits, say), strict=True):
                table.extend(rows)
    publishing = [f"{figure} at {count}" for figure in ("macro-F1", "ECE") for count in _PUBLISH_SHOWN]
    headings = [
        ["macro-F1", "strategy", *map(str, _SHOWN), f"labels needed for {_SHARE:.0%} of it with all labels"],
        ["live", "labels between versions", *publishing],
        ["ECE", "temperature chosen on", *map(str, _CALIBRATED)],
        ["hold-out minus test photos", "figure", *map(str, _HOLDOUT)],
    ]
    return "\n\n".join(markdown_table(*each) for each in zip(headings, tables, strict=True))


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a first cell that repeats the one above it is left empty."""
    lines = [heading, ["---"] * len(heading)]
    for above, row in zip([["", ""], *rows], rows, strict=False):
        lines.append(["" if row[0] == above[0] else row[0], *row[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_live(dataset: ReplayDataset, settings: LiveSettings, seed: int, counts: Sequence[int]) -> LiveRun:
    """Run the live service, and measure it after some numbers of labels.

    Args:
        dataset: of one task, for one seed.
        settings: of the service.
        seed: of its random numbers.
        counts: numbers of labels ``(R,)``, ascending.
    """
    service = LiveReplay(dataset, settings, seed)
    (key,) = dataset.labels
    metrics, training_ece, gaps = [], [], []
    for count in counts:
        heads = service.label(count)
        metrics.append(_of_one_task(measure(dataset, heads))[EVERYTHING])
        alone = metrics[-1]
        if count in _CALIBRATED:
            nothing = np.empty(0, dtype=np.int64)
            alone = _of_one_task(measure(dataset, fit(dataset, service.training_rows(), nothing, seed)))[EVERYTHING]
        training_ece.append(alone[_ECE])
        gaps.append(_gaps(dataset, fitted(heads).get(key), service.holdout_rows()))
    accuracy_gap, nll_gap, own_nll_gap = np.array(gaps).T
    return LiveRun(np.stack(metrics), np.array(training_ece), accuracy_gap, nll_gap, own_nll_gap)


def _gaps(dataset: ReplayDataset, head: Head | None, held: IntArray) -> tuple[float, float, float]:
    """The last three figures of `LiveRun`."""
    (labels,) = dataset.labels.values()
    if head is None:
        return np.nan, np.nan, np.nan
    test = np.flatnonzero(dataset.measured() & labels.known)
    truth, stated = labels.indices[test], labels.indices[held]
    on_test, own = head.probabilities(dataset.embeddings[test]), head.probabilities(dataset.embeddings[held])
    clean = head.holdout_probabilities(dataset.embeddings[held], dataset.groups[held])
    nll = negative_log_likelihood(on_test, truth)
    accuracy = float((own.argmax(axis=1) == stated).mean() - (on_test.argmax(axis=1) == truth).mean())
    return accuracy, negative_log_likelihood(clean, stated) - nll, negative_log_likelihood(own, stated) - nll


def _set_rows(name: str, splits: Sequence[ReplayDataset], say: Say) -> list[list[list[str]]]:
    """Rows of one set, for each of the four tables."""
    smallest = min(len(split.pool()) for split in splits)
    counts = [count for count in label_counts(smallest) if count <= _MOST]
    target = _SHARE * float(np.mean([_of_one_task(measure_full(split))[_MACRO_F1] for split in splits[:FOLDS]]))
    strategies, published = [], []
    for strategy in _OTHERS:
        runs = []
        for seed, split in enumerate(splits):
            say(f"{name}: {strategy}, seed {seed}")
            runs.append(_of_one_task(replay(split, parse_strategy(strategy), seed, counts).values)[EVERYTHING])
        strategies.append(_strategy_row(name, strategy, counts, np.stack(runs)[:, :, _MACRO_F1], target))
    calibration: list[list[str]] = []
    holdout: list[list[str]] = []
    for every in _PUBLISH_EVERY:
        is_default = every == LiveSettings().publish_every
        at = sorted({*counts, *_HOLDOUT} if is_default else _PUBLISH_SHOWN)
        at = [count for count in at if count <= smallest]
        live = []
        for seed, split in enumerate(splits):
            say(f"{name}: live, a version every {every} labels, seed {seed}")
            live.append(run_live(split, LiveSettings(publish_every=every), seed, at))
        f1, ece = (np.stack([run.metrics[:, column] for run in live]) for column in (_MACRO_F1, _ECE))
        published.append([name, str(every), *_means(at, f1, _PUBLISH_SHOWN), *_means(at, ece, _PUBLISH_SHOWN)])
        if is_default:
            strategies.append(_strategy_row(name, "live", counts, f1[:, : len(counts)], target))
            alone = np.stack([run.training_ece for run in live])
            calibration = [
                [name, "training labels alone", *_means(at, alone, _CALIBRATED)],
                [name, "training labels and hold-out", *_means(at, ece, _CALIBRATED)],
            ]
            holdout = _holdout_rows(name, at, live)
    return [strategies, published, calibration, holdout]


def _holdout_rows(name: str, counts: Sequence[int], live: Sequence[LiveRun]) -> list[list[str]]:
    figures = {
        "accuracy, points": 100 * np.stack([run.accuracy_gap for run in live]),
        "negative log-likelihood": np.stack([run.nll_gap for run in live]),
        "the same, by the temperature that serves": np.stack([run.own_nll_gap for run in live]),
    }
    return [[name, figure, *_with_bands(counts, runs)] for figure, runs in figures.items()]


def _strategy_row(name: str, strategy: str, counts: Sequence[int], runs: FloatArray, target: float) -> list[str]:
    needed = labels_needed(np.array(counts), runs, target)
    return [name, f"`{strategy}`", *_means(counts, runs, _SHOWN), f"{needed:.0f}" if needed else f"over {counts[-1]}"]


def _means(counts: Sequence[int], runs: FloatArray, shown: Sequence[int]) -> list[str]:
    """Means over the seeds of `runs` ``(S, R)`` at the counts that are shown; empty where none was measured."""
    mean = dict(zip(counts, runs.mean(axis=0), strict=True))
    return [f"{mean[count]:.3f}".removeprefix("0") if count in mean else "" for count in shown]


def _with_bands(counts: Sequence[int], runs: FloatArray) -> list[str]:
    cells = []
    for count in _HOLDOUT:
        if count not in counts:
            cells.append("")
            continue
        known = runs[:, list(counts).index(count)]
        if np.isnan(known).any():
            cells.append("no head in some runs")
            continue
        mean, band = mean_and_band(known)
        cells.append(f"{mean:+.3f} ± {band:.3f}")
    return cells


def _of_one_task(by_task: Mapping[str, T]) -> T:
    (only,) = by_task.values()
    return only
