"""What is wrong with a set of photos and its labels: pictures, balance, copies, disagreement."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from carcond.agreement import Answers, krippendorff_alpha, pairwise_agreement
from carcond.groups import Likeness, assign_groups
from carcond.heads import IntArray
from carcond.images import Look
from carcond.suspects import TaskSuspicion, rank_suspects
from carcond.taxonomy import TASKS, Task

MIN_SIDE = 300
"""A photo with a side of fewer pixels is small."""
BLURRED = 0.25
"""A photo of less sharpness (`carcond.images.Look`) is blurred.

Of 1 645 real car photos 0.2 % are below it; of a third of them, blurred by a Gaussian of 0.4 % of the longer side,
91 %.
"""
DARK = 0.13
"""A photo of less brightness is too dark: of 1 645 real car photos the five below it show hardly anything."""
BRIGHT = 0.85
"""A photo of more brightness is over-exposed, or a cut-out on white: three of 1 645, all cut-outs."""
MINIMUM_LABELS = 500
"""So many labels of each class are the least to train on."""
GOOD_LABELS = 2000
"""So many labels of each class are good."""


@dataclass(frozen=True)
class RatedPhoto:
    """A photo and what was said of it.

    Attributes:
        name: task id, or file.
        look: None where it was not measured.
        phash: 64-bit perceptual hash; None where the photo cannot be read, or was not yet.
        problem: why it cannot be read.
        classes: task key -> class key, merged over annotators.
        opinions: annotator -> task key -> class key.
    """

    name: int | str
    look: Look | None = None
    phash: int | None = None
    problem: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    opinions: Mapping[int, Mapping[str, str]] = field(default_factory=dict)


def quality_report(photos: Sequence[RatedPhoto]) -> dict[str, Any]:
    """The facts of a set, JSON-ready; photos are named by `RatedPhoto.name`.

    Returns:
        - `photos`: how many; `labelled`: how many have a label; `measured`: how many have a look.
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
        "measured": sum(photo.look is not None for photo in photos),
        **picture_faults(photos),
        "balance": class_balance(photos),
        "copies": [[photo.name for photo in same] for same in copies],
        "conflicting_copies": conflicting_copies(copies),
        "agreement": {task.key: found for task in TASKS if (found := task_agreement(photos, task))["photos"]},
    }


def suspect_facts(
    suspicions: Mapping[str, TaskSuspicion], classes: Mapping[str, IntArray], names: Sequence[int | str]
) -> dict[str, Any]:
    """What confident learning says of the labels, JSON-ready.

    Args:
        suspicions: task key -> what is thought of the labels of N photos.
        classes: task key -> class indices ``(N,)``.
        names: of the N photos.

    Returns:
        `judged`: task key -> how many labels were judged (`labels`), how many of them are suspected (`suspected`),
        and class keys of which there are `too_few`. `suspects`: each with `photo`, `task`, `given`, `likely` and
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
    looks = [(photo.name, photo.look) for photo in photos if photo.look]
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
            {"photo": name, "sharpness": round(look.sharpness, 3)}
            for name, look in by_sharpness
            if look.sharpness < BLURRED
        ],
        "dark": [_brightness(name, look) for name, look in by_brightness if look.brightness < DARK],
        "bright": [_brightness(name, look) for name, look in reversed(by_brightness) if look.brightness > BRIGHT],
    }


def _brightness(name: int | str, look: Look) -> dict[str, Any]:
    return {"photo": name, "brightness": round(look.brightness, 3)}


def class_balance(photos: Sequence[RatedPhoto]) -> dict[str, dict[str, dict[str, Any]]]:
    """Task key -> class key -> how many labels there are, and whether that is enough."""
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
    """Near-duplicates, two or more together, in order of the first of them; see `carcond.groups`."""
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
    """How far annotators agree on one task.

    Returns:
        `photos` with at least two answers; `alpha`, Krippendorff's, nominal, None where it is not known;
        `alpha_ordinal` for tasks of three or more classes, which only means something where these are degrees;
        `pairs`, see `carcond.agreement.PairAgreement`; and `conflicts`: the photos on which annotators disagree,
        each with `classes`: annotator -> class key.
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
