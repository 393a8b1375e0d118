"""Simulate labelling: learning curves of several strategies over many seeds, and the labels they save."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from carcond.heads import FloatArray, IntArray
from carcond.one_core import one_core
from carcond.problem import Problem
from carcond.replay import EVERYTHING, Curve, measure_full, replay
from carcond.strategy import Strategy

Progress = Callable[[int, int], None]
"""Told how many replays are done, of how many."""


@dataclass(frozen=True)
class TaskCurves:
    """Learning curves of one task.

    Attributes:
        labels: how many photos were labelled ``(R,)``.
        values: strategy name -> slice -> `METRICS` of each seed ``(S, R, 3)``.
        full: `METRICS` with all labels ``(3,)``.
        test_photos: slice -> how many test photos it has.
    """

    labels: IntArray
    values: Mapping[str, Mapping[str, FloatArray]]
    full: FloatArray
    test_photos: Mapping[str, int]


def simulate(
    problems: Sequence[Problem],
    strategies: Sequence[Strategy],
    seeds: int,
    progress: Progress,
    processes: int = 0,
) -> dict[str, TaskCurves]:
    """Replay each problem with each strategy and seed.

    Args:
        problems: labelled sets, no two with a task in common.
        strategies: to be compared, with distinct names.
        seeds: how often each is replayed; the seeds are 0, 1, ...
        progress: told after each replay.
        processes: how many replay at the same time, each on one core; 0 means one per core, 1 none but this.

    Returns:
        Task key -> curves. The same for the same arguments, whatever `processes` is.

    Raises:
        LabelTableError: a task has fewer than two classes to be labelled, or no test photo.
    """
    for problem in problems:
        problem.check()
    jobs = [
        (number, strategy, seed) for number in range(len(problems)) for strategy in strategies for seed in range(seeds)
    ]
    curves = _run(problems, jobs, progress, processes or os.cpu_count() or 1)
    found = {}
    for number, problem in enumerate(problems):
        full = measure_full(problem)
        for task in problem.labels:
            by_strategy = {
                strategy.name: [curves[number, strategy.name, seed] for seed in range(seeds)] for strategy in strategies
            }
            found[task] = _task_curves(problem, task, by_strategy, full[task])
    return found


_Job = tuple[int, Strategy, int]
_Curves = dict[tuple[int, str, int], Curve]


def _run(problems: Sequence[Problem], jobs: Sequence[_Job], progress: Progress, processes: int) -> _Curves:
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


# The problems of a child process: handed over once, not with every replay.
_kept: list[Problem] = []


def _keep_problems(problems: Sequence[Problem]) -> None:
    _kept[:] = problems


def _replay_kept(job: _Job) -> Curve:
    number, strategy, seed = job
    return _replay_on_one_core(_kept[number], strategy, seed)


def _replay_on_one_core(problem: Problem, strategy: Strategy, seed: int) -> Curve:
    import sklearn  # noqa: PLC0415 - the command's help needs none of it

    # A replay is thousands of small fits: checking their input again and again takes an eighth of the time.
    checked = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
    with one_core(), checked:
        return replay(problem, strategy, seed)


def _task_curves(
    problem: Problem, task: str, by_strategy: Mapping[str, Sequence[Curve]], full: FloatArray
) -> TaskCurves:
    values = {
        name: {part: np.stack([curve.values[task][part] for curve in curves]) for part in curves[0].values[task]}
        for name, curves in by_strategy.items()
    }
    first = next(iter(by_strategy.values()))[0]
    tested = problem.test & problem.labels[task].known
    members = {EVERYTHING: np.ones_like(tested)} | dict(problem.slices)
    test_photos = {name: int((tested & chosen).sum()) for name, chosen in members.items()}
    return TaskCurves(first.labels, values, full, {n: count for n, count in test_photos.items() if count})
