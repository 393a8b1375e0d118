"""Report of the labels and photos that a training uses and leaves out: nothing is dropped silently."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_SHOWN_PHOTOS = 5


@dataclass
class TrainingReport:
    """Labels and photos that are used, and those that are not and why. A photo that is not used is in one list.

    Attributes:
        used: number of photos that are used.
        sides: split -> number of these photos.
        labels: task key -> class key -> number of these photos.
        unmapped_words: word of a choice or a box that maps to no class -> photos that have it.
        missing_photos: names of labelled photos that are not in the folder.
        unreadable_photos: name -> why it cannot be read.
        conflicts: `photo`, `task`, `classes` and `reason` of each question with two answers; it counts as unanswered.
        skipped: name -> why a photo has no label.
    """

    used: int = 0
    sides: dict[str, int] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    unmapped_words: dict[str, list[str]] = field(default_factory=dict)
    missing_photos: list[str] = field(default_factory=list)
    unreadable_photos: dict[str, str] = field(default_factory=dict)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add_conflict(self, photo: str, task: str, classes: Iterable[str], reason: str) -> None:
        """Note a question with two answers."""
        self.conflicts.append({"photo": photo, "task": task, "classes": sorted(classes), "reason": reason})

    def as_json(self) -> dict[str, Any]:
        """JSON-ready; of each unmapped label the first photos are named."""
        return {
            "used": self.used,
            "sides": self.sides,
            "labels": self.labels,
            "unmapped_labels": [
                {"label": word, "count": len(photos), "photos": list(dict.fromkeys(photos))[:_SHOWN_PHOTOS]}
                for word, photos in sorted(self.unmapped_words.items())
            ],
            "missing_photos": self.missing_photos,
            "unreadable_photos": [{"photo": name, "reason": why} for name, why in self.unreadable_photos.items()],
            "conflicts": self.conflicts,
            "skipped": [{"photo": name, "reason": why} for name, why in self.skipped.items()],
        }

    def lines(self) -> list[str]:
        """Lines for the terminal, one for each non-empty part."""
        sides = ", ".join(f"{count} {side}" for side, count in self.sides.items())
        lines = [f"photos used: {self.used}" + (f" ({sides})" if sides else "")]
        for task, classes in self.labels.items():
            lines.append(f"{task}: " + ", ".join(f"{count} {key}" for key, count in classes.items()))
        words = ", ".join(f"{word} ({len(photos)})" for word, photos in sorted(self.unmapped_words.items()))
        parts = {
            "labels that mean no class": words,
            "photos not found": _few(self.missing_photos),
            "photos that cannot be read": _few(list(self.unreadable_photos)),
            "questions with two answers, left out": _few([f"{c['photo']} {c['task']}" for c in self.conflicts]),
            "photos without a label": _few(list(self.skipped)),
        }
        return lines + [f"{name}: {told}" for name, told in parts.items() if told]


def _few(names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(name or "(no name)" for name in names[:_SHOWN_PHOTOS])
    return f"{len(names)}: {shown}" + (", ..." if len(names) > _SHOWN_PHOTOS else "")
