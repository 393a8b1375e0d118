"""Simulate labelling: learning curves of several strategies over many seeds, and the labels they save."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import sklearn

from carcond.analysis.live_replay import LiveSettings
from carcond.analysis.replay import Curve, label_counts, measure_full, replay
from carcond.analysis.replay_heads import EVERYTHING
from carcond.analysis.replay_set import FOLDS, ReplayDataset
from carcond.arrays import FloatArray, IntArray
from carcond.model.single_thread import one_core
from carcond.query.strategy import Strategy

Progress = Callable[[int, int], None]
"""Progress callback, called with the number of replays done and the total."""


@dataclass(frozen=True)
class TaskCurves:
    """Learning curves of one task.

    Attributes:
        labels: number of labelled photos ``(R,)``.
        values: strategy name -> slice -> `METRICS` of each seed ``(S, R, 3)``; seeds without a test photo of a slice
            are left out of it.
        full: `METRICS` with all labels ``(3,)``; where each seed has test photos of its own, their mean over a deal.
        test_photos: slice -> mean number of its test photos.
    """

    labels: IntArray
    values: Mapping[str, Mapping[str, FloatArray]]
    full: FloatArray
    test_photos: Mapping[str, int]


def simulate(
    problems: Sequence[ReplayDataset],
    strategies: Sequence[Strategy],
    seeds: int,
    progress: Progress,
    processes: int = 0,
    *,
    live: LiveSettings | None = None,
) -> dict[str, TaskCurves]:
    """Replay each dataset with each strategy and seed.

    Args:
        problems: labelled sets, no two with a task in common.
        strategies: to be compared, with distinct names.
        seeds: number of replays of each; the seeds are 0, 1, ...
        progress: called after each replay.
        processes: number of parallel processes, each on one core; 0 means one per core, 1 this process only.
        live: settings of the live service, for the strategy `live`; None for the defaults.

    Returns:
        Task key -> curves. The same for the same arguments, whatever `processes` is.

    Raises:
        LabelTableError: a task has fewer than two classes to be labelled, or no test photo.
    """
    counts = [_common_counts(dataset, seeds) for dataset in problems]
    jobs = [
        (number, strategy, seed) for number in range(len(problems)) for strategy in strategies for seed in range(seeds)
    ]
    curves = _run(_Replays(problems, counts, live), jobs, progress, processes or os.cpu_count() or 1)
    found = {}
    for number, dataset in enumerate(problems):
        splits = [dataset.for_seed(seed) for seed in range(1 if dataset.test is not None else FOLDS)]
        full = [measure_full(split) for split in splits]
        for task in dataset.labels:
            by_strategy = {
                strategy.name: [curves[number, strategy.name, seed] for seed in range(seeds)] for strategy in strategies
            }
            mean = np.mean([each[task] for each in full], axis=0)
            found[task] = _task_curves(splits, task, by_strategy, mean)
    return found


def _common_counts(dataset: ReplayDataset, seeds: int) -> list[int]:
    """Label counts up to the smallest pool of the seeds, all of which can be replayed."""
    sizes = []
    for seed in range(seeds):
        split = dataset.for_seed(seed)
        split.check()
        sizes.append(len(split.pool()))
    return label_counts(min(sizes))


_Job = tuple[int, Strategy, int]
_Curves = dict[tuple[int, str, int], Curve]


@dataclass(frozen=True)
class _Replays:
    """What all replays share: the datasets, the counts of labels of each, and the settings of the live service."""

    problems: Sequence[ReplayDataset]
    counts: Sequence[Sequence[int]]
    live: LiveSettings | None

    def run(self, job: _Job) -> Curve:
        """Replay on one core."""
        number, strategy, seed = job
        # A replay is thousands of small fits: checking their input again and again takes an eighth of the time.
        checked = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
        with one_core(), checked:
            return replay(self.problems[number].for_seed(seed), strategy, seed, self.counts[number], self.live)


def _run(replays: _Replays, jobs: Sequence[_Job], progress: Progress, processes: int) -> _Curves:
    curves: _Curves = {}
    if processes == 1:
        for job in jobs:
            number, strategy, seed = job
            curves[number, strategy.name, seed] = replays.run(job)
            progress(len(curves), len(jobs))
        return curves
    # Not forked: threads of this process, such as ONNX Runtime's, would be missing in the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _keep, (replays,)) as executor:
        futures = {executor.submit(_run_kept, job): job for job in jobs}
        for future in as_completed(futures):
            number, strategy, seed = futures[future]
            curves[number, strategy.name, seed] = future.result()
            progress(len(curves), len(jobs))
    return curves


# The replays of a child process: their datasets are sent once, not with every job.
_kept: list[_Replays] = []


def _keep(replays: _Replays) -> None:
    _kept[:] = [replays]


def _run_kept(job: _Job) -> Curve:
    return _kept[0].run(job)


def _task_curves(
    splits: Sequence[ReplayDataset], task: str, by_strategy: Mapping[str, Sequence[Curve]], full: FloatArray
) -> TaskCurves:
    measured = [{EVERYTHING: split.measured()} | dict(split.slices) for split in splits]
    tested = [split.measured() & split.labels[task].known for split in splits]
    photos = {
        name: round(float(np.mean([(each[name] & of).sum() for each, of in zip(measured, tested, strict=True)])))
        for name in measured[0]
    }
    values = {}
    for name, curves in by_strategy.items():
        by_slice = {part: [c.values[task][part] for c in curves if part in c.values[task]] for part in photos}
        values[name] = {part: np.stack(runs) for part, runs in by_slice.items() if len(runs) > 1}
    first = next(iter(by_strategy.values()))[0]
    return TaskCurves(first.labels, values, full, {n: c for n, c in photos.items() if n in next(iter(values.values()))})
