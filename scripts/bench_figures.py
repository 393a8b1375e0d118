"""The tables of docs/simulate.md and docs/calibration.md: strategies, the live service, calibration and hold-out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from carcond.analysis.live_replay import LiveReplay, LiveSettings
from carcond.analysis.replay import label_counts, measure_full, replay
from carcond.analysis.replay_heads import EVERYTHING, METRICS, fit, fitted, measure, predict
from carcond.analysis.replay_set import FOLDS, ReplayDataset
from carcond.analysis.simulation_report import labels_needed, mean_and_band
from carcond.arrays import FloatArray, IntArray
from carcond.evaluation.calibration import calibration_error, negative_log_likelihood
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
_PUBLISH_ECE = (50, 100, 200)
_SHARE = 0.95
_MACRO_F1 = METRICS.index("macro_f1")

T = TypeVar("T")
Say = Callable[[str], None]
"""Progress callback, called with a line of text."""


@dataclass(frozen=True)
class LiveRun:
    """One run of the live service, measured after R numbers of labels.

    Attributes:
        macro_f1: on the test photos ``(R,)``.
        truth: classes of the test photos ``(T,)``.
        probabilities: number of labels -> probabilities of the test photos ``(T, K)``.
        training_probabilities: the same with a temperature chosen on training labels alone.
        gaps: `GAPS` of the labelled hold-out minus those of the test photos ``(R, 3)``; NaN without a head.
    """

    macro_f1: FloatArray
    truth: IntArray
    probabilities: Mapping[int, FloatArray]
    training_probabilities: Mapping[int, FloatArray]
    gaps: FloatArray


GAPS = ("accuracy, points", "negative log-likelihood", "the same, by the temperature that serves")
"""Figures of the hold-out. The second is that of a version's card; labels of the hold-out had a part in the third."""


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
    publishing = [*(f"macro-F1 at {count}" for count in _PUBLISH_SHOWN), *(f"ECE at {count}" for count in _PUBLISH_ECE)]
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
    labels = dataset.labels[key]
    test = np.flatnonzero(dataset.measured() & labels.known)
    macro_f1, gaps = [], []
    served, alone = {}, {}
    for count in counts:
        heads = service.label(count)
        macro_f1.append(measure(dataset, heads)[key][EVERYTHING][_MACRO_F1])
        gaps.append(_gaps(dataset, fitted(heads).get(key), test, service.holdout_rows()))
        if count in _CALIBRATED:
            uncorrected = fit(dataset, service.training_rows(), test[:0], seed)
            served[count], alone[count] = (
                predict(each.get(key), dataset.embeddings[test], len(labels.task.classes))
                for each in (heads, uncorrected)
            )
    return LiveRun(np.array(macro_f1), labels.indices[test], served, alone, np.array(gaps))


def _gaps(dataset: ReplayDataset, head: Head | None, test: IntArray, held: IntArray) -> tuple[float, ...]:
    if head is None:
        return (np.nan,) * len(GAPS)
    (labels,) = dataset.labels.values()
    truth, stated = labels.indices[test], labels.indices[held]
    on_test, own = head.probabilities(dataset.embeddings[test]), head.probabilities(dataset.embeddings[held])
    clean = head.holdout_probabilities(dataset.embeddings[held], dataset.groups[held])
    nll = negative_log_likelihood(on_test, truth)
    accuracy = float((own.argmax(axis=1) == stated).mean() - (on_test.argmax(axis=1) == truth).mean())
    return 100 * accuracy, negative_log_likelihood(clean, stated) - nll, negative_log_likelihood(own, stated) - nll


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
        f1 = np.stack([run.macro_f1 for run in live])
        calibrated = _calibration([run.probabilities for run in live], live)
        published.append([name, str(every), *_means(at, f1, _PUBLISH_SHOWN), *_cells(calibrated, _PUBLISH_ECE)])
        if is_default:
            strategies.append(_strategy_row(name, "live", counts, f1[:, : len(counts)], target))
            alone = _calibration([run.training_probabilities for run in live], live)
            calibration = [
                [name, "training labels alone", *_cells(alone, _CALIBRATED)],
                [name, "training labels and hold-out", *_cells(calibrated, _CALIBRATED)],
            ]
            gaps = np.stack([run.gaps for run in live])
            holdout = [[name, gap, *_with_bands(at, gaps[:, :, column])] for column, gap in enumerate(GAPS)]
    return [strategies, published, calibration, holdout]


def _calibration(probabilities: Sequence[Mapping[int, FloatArray]], live: Sequence[LiveRun]) -> dict[int, float]:
    """Number of labels -> calibration error over all test folds of a deal, the mean over the deals.

    On one fold of a hundred photos chance alone gives an error of .06, although it is debiased.
    """
    errors: dict[int, float] = {}
    for count in probabilities[0]:
        by_deal = []
        for first in range(0, len(live), FOLDS):
            told = np.concatenate([each[count] for each in probabilities[first : first + FOLDS]])
            by_deal.append(calibration_error(told, np.concatenate([r.truth for r in live[first : first + FOLDS]])))
        errors[count] = float(np.mean(by_deal))
    return errors


def _strategy_row(name: str, strategy: str, counts: Sequence[int], runs: FloatArray, target: float) -> list[str]:
    needed = labels_needed(np.array(counts), runs, target)
    return [name, f"`{strategy}`", *_means(counts, runs, _SHOWN), f"{needed:.0f}" if needed else f"over {counts[-1]}"]


def _means(counts: Sequence[int], runs: FloatArray, shown: Sequence[int]) -> list[str]:
    """Means over the seeds of `runs` ``(S, R)`` at the counts that are shown."""
    return _cells(dict(zip(counts, runs.mean(axis=0).tolist(), strict=True)), shown)


def _cells(values: Mapping[int, float], shown: Sequence[int]) -> list[str]:
    """The values at the counts that are shown; empty where none was measured."""
    return [f"{values[count]:.3f}".removeprefix("0") if count in values else "" for count in shown]


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
