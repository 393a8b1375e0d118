"""The condition of a fleet: latest condition and trend of each car or driver, reminders, and cases for a human.

Photos of one car and day make one visit, with one combined condition (`carcond.model.inference.combine`). The condition
of a car is that of its latest visit. Predictions of low confidence (`carcond.model.inference.SURE`) cause no reminder
or warning: they are listed for a human.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carcond.analysis.fleet_files import FleetFile, visits
from carcond.model.inference import CarCondition, PhotoCondition, TaskCondition, combine
from carcond.reports.mobile_form import confidence_of, status_of
from carcond.taxonomy import CLEANLINESS, DAMAGE, TASKS

_REMINDERS = {"slightly_dirty": "a wash would be good soon", "very_dirty": "please wash before the next ride"}


@dataclass(frozen=True)
class Visit:
    """One car on one day.

    Attributes:
        files: its photos.
        condition: combined from the photos; None when none can be read.
        problems: name of a photo that cannot be read -> why.
    """

    files: tuple[FleetFile, ...]
    condition: CarCondition | None
    problems: Mapping[str, str]

    @property
    def day(self) -> str:
        """Day, ISO 8601; empty when not known."""
        return self.files[0].day.isoformat() if self.files[0].day else ""

    def task(self, key: str) -> TaskCondition | None:
        """Prediction for a task, of any confidence."""
        return self.condition.by_task.get(key) if self.condition else None

    def level(self, key: str) -> int | None:
        """Index of the class among those of its task, 0 is the best; None when not known, or of low confidence."""
        found = self.task(key)
        return found.task.class_keys.index(found.status) if found and found.is_sure else None

    def is_bad(self, key: str) -> bool | None:
        """True if the car was dirty (or damaged); None when not known, or of low confidence."""
        level = self.level(key)
        return None if level is None else level > 0

    def doubts(self) -> list[str]:
        """Reasons for a review by a human; empty when none is needed."""
        reasons = [f"{name}: {problem}" for name, problem in self.problems.items()]
        if self.condition:
            reasons += [fault.replace("_", " ") for fault in self.condition.faults]
            unsure = [(task.en.lower(), self.task(task.key)) for task in TASKS]
            reasons += [
                f"{name} {found.status.replace('_', ' ')}, {found.confidence:.0%} sure"
                for name, found in unsure
                if found and not found.is_sure
            ]
        return reasons


def fleet_visits(files: Sequence[FleetFile], seen: Sequence[PhotoCondition | str]) -> list[Visit]:
    """The visits of a fleet, in order of time.

    Args:
        files: N photos.
        seen: of each, the condition that it shows, or why it cannot be read.
    """
    made = []
    for positions in visits(files):
        read = [each for p in positions if not isinstance(each := seen[p], str)]
        problems = {files[p].name: each for p in positions if isinstance(each := seen[p], str)}
        made.append(Visit(tuple(files[p] for p in positions), combine(read) if read else None, problems))
    return made


def fleet_facts(files: Sequence[FleetFile], seen: Sequence[PhotoCondition | str], by: str) -> dict[str, Any]:
    """The facts of a fleet, JSON-ready.

    Args:
        files: N photos, at least one.
        seen: of each, the condition that it shows, or why it cannot be read.
        by: "car" or "driver", for the record.

    Returns:
        - `by`, and the numbers of `photos`, `visits` and `subjects` (cars or drivers).
        - `dirty`, `damaged`: share of the subjects that were so at their latest visit, as `share`, `count` and `known`:
          the number of subjects with a confident prediction.
        - `rows`: for each subject `name`, `visits`, `photos`, `last` (day), `cleanliness` and `damage` of the latest
          visit with their confidences, `dirty` and `damaged` (shares of its visits, as above), and `trend`.
        - `months`: for each `month` with dated photos the shares `dirty` and `damaged` of its visits.
        - `reminders`: `name`, `day` and `text` for subjects that were dirty; `warnings`: for those that were damaged.
        - `for_a_human`: visits with `name`, `car`, `day`, `files` and `reasons`.
    """
    all_visits = fleet_visits(files, seen)
    by_subject: dict[str, list[Visit]] = {}
    for visit in all_visits:
        by_subject.setdefault(visit.files[0].subject, []).append(visit)
    subjects = dict(sorted(by_subject.items()))
    latest = [own[-1] for own in subjects.values()]
    return {
        "by": by,
        "photos": len(files),
        "visits": len(all_visits),
        "subjects": len(subjects),
        "dirty": _share(latest, CLEANLINESS.key),
        "damaged": _share(latest, DAMAGE.key),
        "rows": [_row(name, own) for name, own in subjects.items()],
        "months": _months(all_visits),
        "reminders": _notices(subjects, _reminder),
        "warnings": _notices(subjects, _warning),
        "for_a_human": [_doubt(visit) for visit in all_visits if visit.doubts()],
    }


def _share(chosen: Sequence[Visit], key: str) -> dict[str, Any]:
    known = [bad for visit in chosen if (bad := visit.is_bad(key)) is not None]
    return {"share": round(sum(known) / len(known), 4) if known else None, "count": sum(known), "known": len(known)}


def _row(name: str, own: Sequence[Visit]) -> dict[str, Any]:
    last = own[-1]
    told: dict[str, str | float] = {}
    for task in TASKS:
        found = last.task(task.key)
        told |= {task.key: status_of(found), f"{task.key}_confidence": confidence_of(found)}
    return {
        "name": name,
        "visits": len(own),
        "photos": sum(len(visit.files) for visit in own),
        "last": last.day,
        **told,
        "dirty": _share(own, CLEANLINESS.key),
        "damaged": _share(own, DAMAGE.key),
        "trend": _trend(own),
    }


def _trend(own: Sequence[Visit]) -> str:
    """Change at the latest visit of a car: "new damage", "dirtier", ..., or "same".

    It is compared, task by task, with the latest confident visit before; empty when there is nothing to compare.
    """
    last = own[-1]
    before = [visit for visit in own[:-1] if visit.files[0].car == last.files[0].car]
    changes, compared = [], False
    for key, worse, better in ((DAMAGE.key, "new damage", "repaired"), (CLEANLINESS.key, "dirtier", "cleaner")):
        earlier = [level for visit in before if (level := visit.level(key)) is not None]
        now = last.level(key)
        if now is None or not earlier:
            continue
        compared = True
        if now != earlier[-1]:
            changes.append(worse if now > earlier[-1] else better)
    return ", ".join(changes) or ("same" if compared else "")


def _months(all_visits: Sequence[Visit]) -> list[dict[str, Any]]:
    by_month: dict[str, list[Visit]] = {}
    for visit in all_visits:
        if visit.day:
            by_month.setdefault(visit.day[:7], []).append(visit)
    return [
        {"month": month, "dirty": _share(own, CLEANLINESS.key), "damaged": _share(own, DAMAGE.key)}
        for month, own in by_month.items()
    ]


def _notices(
    subjects: Mapping[str, Sequence[Visit]], text_of: Callable[[Sequence[Visit]], str]
) -> list[dict[str, str]]:
    texts = [(name, own[-1].day, text_of(own)) for name, own in subjects.items()]
    return [{"name": name, "day": day, "text": text} for name, day, text in texts if text]


def _reminder(own: Sequence[Visit]) -> str:
    return _REMINDERS[status_of(own[-1].task(CLEANLINESS.key))] if own[-1].is_bad(CLEANLINESS.key) else ""


def _warning(own: Sequence[Visit]) -> str:
    if not own[-1].is_bad(DAMAGE.key):
        return ""
    new = ", new since the visit before" if "new damage" in _trend(own) else ""
    return f"damaged{new}: have it checked before the next ride"


def _doubt(visit: Visit) -> dict[str, Any]:
    first = visit.files[0]
    names = [file.name for file in visit.files]
    return {"name": first.subject, "car": first.car, "day": visit.day, "files": names, "reasons": visit.doubts()}
