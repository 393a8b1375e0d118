"""Simulate labelling: learning curves of several strategies over many seeds, and the labels they save."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
import sklearn

from carcond.analysis.replay import EVERYTHING, Curve, measure_full, replay
from carcond.analysis.replay_set import ReplayDataset
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
        values: strategy name -> slice -> `METRICS` of each seed ``(S, R, 3)``.
        full: `METRICS` with all labels ``(3,)``.
        test_photos: slice -> number of its test photos.
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
) -> dict[str, TaskCurves]:
    """Replay each dataset with each strategy and seed.

    Args:
        problems: labelled sets, no two with a task in common.
        strategies: to be compared, with distinct names.
        seeds: number of replays of each; the seeds are 0, 1, ...
        progress: called after each replay.
        processes: number of parallel processes, each on one core; 0 means one per core, 1 this process only.

    Returns:
        Task key -> curves. The same for the same arguments, whatever `processes` is.

    Raises:
        LabelTableError: a task has fewer than two classes to be labelled, or no test photo.
    """
    for dataset in problems:
        dataset.check()
    jobs = [
        (number, strategy, seed) for number in range(len(problems)) for strategy in strategies for seed in range(seeds)
    ]
    curves = _run(problems, jobs, progress, processes or os.cpu_count() or 1)
    found = {}
    for number, dataset in enumerate(problems):
        full = measure_full(dataset)
        for task in dataset.labels:
            by_strategy = {
                strategy.name: [curves[number, strategy.name, seed] for seed in range(seeds)] for strategy in strategies
            }
            found[task] = _task_curves(dataset, task, by_strategy, full[task])
    return found


_Job = tuple[int, Strategy, int]
_Curves = dict[tuple[int, str, int], Curve]


def _run(problems: Sequence[ReplayDataset], jobs: Sequence[_Job], progress: Progress, processes: int) -> _Curves:
    curves: _Curves = {}
    if processes == 1:
        for number, strategy, seed in jobs:
            curves[number, strategy.name, seed] = _replay_on_one_core(problems[number], strategy, seed)
            progress(len(curves), len(jobs))
        return curves
    # Not forked: threads of this process, such as ONNX Runtime's, would be missing in the child.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _keep_problems, (problems,)) as executor:
        futures = {executor.submit(_replay_kept, job): job for job in jobs}
        for future in as_completed(futures):
            number, strategy, seed = futures[future]
            curves[number, strategy.name, seed] = future.result()
            progress(len(curves), len(jobs))
    return curves


# The datasets of a child process: sent once, not with every replay.
_kept: list[ReplayDataset] = []


def _keep_problems(problems: Sequence[ReplayDataset]) -> None:
    _kept[:] = problems


def _replay_kept(job: _Job) -> Curve:
    number, strategy, seed = job
    return _replay_on_one_core(_kept[number], strategy, seed)


def _replay_on_one_core(dataset: ReplayDataset, strategy: Strategy, seed: int) -> Curve:
    # A replay is thousands of small fits: checking their input again and again takes an eighth of the time.
    checked = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
    with one_core(), checked:
        return replay(dataset, strategy, seed)


def _task_curves(
    dataset: ReplayDataset, task: str, by_strategy: Mapping[str, Sequence[Curve]], full: FloatArray
) -> TaskCurves:
    values = {
        name: {part: np.stack([curve.values[task][part] for curve in curves]) for part in curves[0].values[task]}
        for name, curves in by_strategy.items()
    }
    first = next(iter(by_strategy.values()))[0]
    tested = dataset.test & dataset.labels[task].known
    members = {EVERYTHING: np.ones_like(tested)} | dict(dataset.slices)
    test_photos = {name: int((tested & chosen).sum()) for name, chosen in members.items()}
    return TaskCurves(first.labels, values, full, {n: count for n, count in test_photos.items() if count})
