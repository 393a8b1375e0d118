"""Quality report of a set of photos and its labels: picture faults, class balance, copies, disagreement."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from carcond.analysis.agreement import Answers, krippendorff_alpha, pairwise_agreement
from carcond.analysis.label_errors import TaskSuspicion, rank_suspects
from carcond.arrays import IntArray
from carcond.data.images import ImageStats
from carcond.data.near_duplicates import Likeness, assign_groups
from carcond.data.photo_checks import BLURRED, BRIGHT, DARK, MIN_SIDE
from carcond.taxonomy import TASKS, Task

MINIMUM_LABELS = 500
"""Minimum number of labels per class to train on."""
GOOD_LABELS = 2000
"""Recommended number of labels per class."""


@dataclass(frozen=True)
class RatedPhoto:
    """A photo with its measurements and labels.

    Attributes:
        name: task id, or file.
        look: None where it was not measured.
        phash: 64-bit perceptual hash; None where the photo cannot be read, or was not yet.
        problem: why it cannot be read.
        classes: task key -> class key, merged over annotators.
        opinions: annotator -> task key -> class key.
    """

    name: int | str
    stats: ImageStats | None = None
    phash: int | None = None
    problem: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    opinions: Mapping[int, Mapping[str, str]] = field(default_factory=dict)


def quality_report(photos: Sequence[RatedPhoto]) -> dict[str, Any]:
    """The facts of a set, JSON-ready; photos are named by `RatedPhoto.name`.

    Returns:
        - `photos`, `labelled`, `measured`: numbers of photos, of those with a label, and of those with a look.
        - `unreadable`: each with its `problem`; `small`: with `width` and `height`; `blurred`: with `sharpness`;
          `dark` and `bright`: with `brightness`. Worst first.
        - `balance`: task key -> class key -> `labels` and `state`: "too few", "enough" or "good".
        - `copies`: lists of photos that are near-duplicates of each other; `conflicting_copies`: those of them with
          different labels: the `task`, and `classes`: photo -> class key.
        - `agreement`: task key -> see `task_agreement`; tasks that no photo has two answers to are absent.
    """
    copies = find_copies(photos)
    return {
        "photos": len(photos),
        "labelled": sum(bool(photo.classes) for photo in photos),
        "measured": sum(photo.stats is not None for photo in photos),
        **picture_faults(photos),
        "balance": class_balance(photos),
        "copies": [[photo.name for photo in same] for same in copies],
        "conflicting_copies": conflicting_copies(copies),
        "agreement": {task.key: found for task in TASKS if (found := task_agreement(photos, task))["photos"]},
    }


def suspect_facts(
    suspicions: Mapping[str, TaskSuspicion], classes: Mapping[str, IntArray], names: Sequence[int | str]
) -> dict[str, Any]:
    """Label errors suspected by confident learning, JSON-ready.

    Args:
        suspicions: task key -> suspicion of the labels of N photos.
        classes: task key -> class indices ``(N,)``.
        names: of the N photos.

    Returns:
        `judged`: task key -> number of labels checked (`labels`), number of those suspected (`suspected`), and
        class keys of which there are `too_few`. `suspects`: each with `photo`, `task`, `given`, `likely` and
        `suspicion`, most suspicious first.
    """
    judged = {
        key: {
            "labels": int(each.judged.sum()),
            "suspected": int(each.suspected.sum()),
            "too_few": list(each.too_few),
        }
        for key, each in suspicions.items()
    }
    suspects = [
        {
            "photo": names[s.position],
            "task": s.task,
            "given": s.given,
            "likely": s.likely,
            "suspicion": round(s.suspicion, 4),
        }
        for s in rank_suspects(suspicions.values(), classes)
    ]
    return {"judged": judged, "suspects": suspects}


def picture_faults(photos: Sequence[RatedPhoto]) -> dict[str, list[dict[str, Any]]]:
    """Fault -> photos that have it, worst first; see `quality_report`."""
    unreadable = [{"photo": photo.name, "problem": photo.problem} for photo in photos if photo.problem]
    looks = [(photo.name, photo.stats) for photo in photos if photo.stats]
    small = sorted((min(look.width, look.height), i) for i, (_, look) in enumerate(looks))
    by_sharpness = sorted(looks, key=lambda each: each[1].sharpness)
    by_brightness = sorted(looks, key=lambda each: each[1].brightness)
    return {
        "unreadable": unreadable,
        "small": [
            {"photo": looks[i][0], "width": looks[i][1].width, "height": looks[i][1].height}
            for side, i in small
            if side < MIN_SIDE
        ],
        "blurred": [
            {"photo": name, "sharpness": round(stats.sharpness, 3)}
            for name, stats in by_sharpness
            if stats.sharpness < BLURRED
        ],
        "dark": [_brightness(name, stats) for name, stats in by_brightness if stats.brightness < DARK],
        "bright": [_brightness(name, stats) for name, stats in reversed(by_brightness) if stats.brightness > BRIGHT],
    }


def _brightness(name: int | str, stats: ImageStats) -> dict[str, Any]:
    return {"photo": name, "brightness": round(stats.brightness, 3)}


def class_balance(photos: Sequence[RatedPhoto]) -> dict[str, dict[str, dict[str, Any]]]:
    """Task key -> class key -> number of labels, and whether that is enough."""
    counts = {task.key: Counter(p.classes[task.key] for p in photos if task.key in p.classes) for task in TASKS}
    return {
        task.key: {
            key: {"labels": counts[task.key][key], "state": _state(counts[task.key][key])} for key in task.class_keys
        }
        for task in TASKS
    }


def _state(labels: int) -> str:
    if labels < MINIMUM_LABELS:
        return "too few"
    return "good" if labels >= GOOD_LABELS else "enough"


def find_copies(photos: Sequence[RatedPhoto]) -> list[list[RatedPhoto]]:
    """Near-duplicates, two or more together, in order of the first of them; see `carcond.data.near_duplicates`."""
    hashed = [photo for photo in photos if photo.phash is not None]
    groups = assign_groups([Likeness(photo.phash or 0) for photo in hashed], [], [])
    by_group: dict[int, list[RatedPhoto]] = {}
    for photo, group in zip(hashed, groups, strict=True):
        by_group.setdefault(group, []).append(photo)
    return [same for same in by_group.values() if len(same) > 1]


def conflicting_copies(copies: Sequence[Sequence[RatedPhoto]]) -> list[dict[str, Any]]:
    """Near-duplicates with different labels of a task: at least one of them is wrong."""
    found = []
    for same in copies:
        for task in TASKS:
            classes = {str(photo.name): photo.classes[task.key] for photo in same if task.key in photo.classes}
            if len(set(classes.values())) > 1:
                found.append({"task": task.key, "classes": classes})
    return found


def task_agreement(photos: Sequence[RatedPhoto], task: Task) -> dict[str, Any]:
    """Inter-annotator agreement on one task.

    Returns:
        `photos` with at least two answers; `alpha`, Krippendorff's, nominal, None where undefined;
        `alpha_ordinal` for tasks of three or more classes, which is meaningful only where these are ordinal;
        `pairs`, see `carcond.analysis.agreement.PairAgreement`; and `conflicts`: the photos on which annotators
        disagree, each with `classes`: annotator -> class key.
    """
    answers = Answers.of([photo.opinions for photo in photos], task.key, task.class_keys)
    counts = answers.counts()
    report: dict[str, Any] = {
        "photos": int((counts.sum(axis=1) >= 2).sum()),
        "alpha": krippendorff_alpha(counts),
    }
    if len(task.classes) > 2:
        report["alpha_ordinal"] = krippendorff_alpha(counts, "ordinal")
    conflicts = [photos[i] for i in answers.conflicts()]
    said = [{str(who): each[task.key] for who, each in p.opinions.items() if task.key in each} for p in conflicts]
    return {
        **report,
        "pairs": [asdict(pair) for pair in pairwise_agreement(answers)],
        "conflicts": [{"photo": p.name, "classes": each} for p, each in zip(conflicts, said, strict=True)],
    }
