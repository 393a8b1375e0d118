"""Terminal output of `carcond connect`: the plan of a connection, and the plan of undoing it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backend.project.connection.changes import MODEL_VERSION
from backend.project.connection.disconnecting import Step, UndoPlan
from backend.project.connection.plan import ConnectionPlan
from carcond.json_fields import sanitize_line

_LABELS = {"backend": "ML backend", "webhook": "webhook", "setting": "setting", "tab": "tab"}
_ACTIONS = {
    "restore": "is put back",
    "done": "is as it was before",
    "leave": "was changed by somebody since, and is left as it is",
}


def plan_text(plan: ConnectionPlan) -> str:
    """The plan, a paragraph for each part."""
    found = plan.found
    lines = [f"Project {plan.project.id}: {sanitize_line(plan.project.title)}", ""]
    lines += _part("Will be changed:", [_change_line(change.facts()) for change in plan.changes])
    if plan.changes:
        lines[-1:] = [f"  predictions: one or two of carcond's for each unlabelled photo of {found['photos']}", ""]
    lines += _part("Stays as it is:", _kept(found))
    lines += _part("Understood in the label config:", _words(found))
    lines += _part("Photos:", _photos(found))
    lines += _part("Good to know:", plan.warnings)
    lines += _part("In the way:", plan.obstacles)
    if not plan.changes and not plan.obstacles:
        lines += ["Nothing has to be changed: it is connected.", ""]
    return "\n".join(lines).rstrip()


def _part(title: str, lines: Iterable[str]) -> list[str]:
    shown = [f"  {sanitize_line(line, 2000)}" for line in lines]
    return [title, *shown, ""] if shown else []


def _change_line(facts: Mapping[str, Any]) -> str:
    return f"{_LABELS[facts['kind']]} {facts['name']}: {_value(facts['before'])} -> {_value(facts['after'])}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, "") else str(value)


def _kept(found: Mapping[str, Any]) -> list[str]:
    lines = [f"ML backend {row['title']} at {row['url']}" for row in found["other_backends"]]
    lines += [f"webhook to {url}" for url in found["other_webhooks"]]
    lines += [f"{count} predictions of {name}" for name, count in found["other_predictions"].items()]
    return [*lines, f"labels of {found['labelled']} photos, drafts, other tabs, label config"]


def _words(found: Mapping[str, Any]) -> list[str]:
    return [
        f"{task}: tag {bound['tag']}, " + ", ".join(f"{word} = {key}" for word, key in bound["words"].items())
        for task, bound in found["tasks"].items()
    ]


def _photos(found: Mapping[str, Any]) -> list[str]:
    sample = found["photo_sample"]
    places = ", ".join(f"{count} at {place}" for place, count in sample["places"].items())
    lines = [
        f"{found['photos']}, of which {found['labelled']} are labelled; of {sample['looked_at']} looked at: {places}"
    ]
    if sample["tried"]:
        lines.append(f"{sample['tried'] - len(sample['problems'])} of {sample['tried']} that were tried can be had")
    if found["first_look_s"] is not None:
        duration, encoder = _duration(found["first_look_s"]), sample["encoder"]
        lines.append(
            f"the first look at all takes about {duration} (encoder {encoder}); those seen are ordered meanwhile"
        )
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def undo_text(plan: UndoPlan) -> str:
    """Plan of undoing as text, a paragraph for each part."""
    lines = [f"Project {plan.project_id}", ""]
    lines += _part("Will be undone:", map(step_line, plan.steps))
    lines += _part(
        "Predictions of carcond:",
        [
            f"{plan.removed} of photos that nobody has answered are removed",
            f"{plan.kept} of answered photos stay: they tell what the annotator was shown",
        ],
    )
    if plan.review:
        lines += ['The marks and the tab of "carcond review" are removed.', ""]
    return "\n".join([*lines, "Labels stay, and so do the versions on disk."])


def step_line(step: Step) -> str:
    """One step in words."""
    change = step.change
    now = _value(step.current)
    if step.action == "leave":
        return f"{_LABELS[change.kind]} {change.name}: {_ACTIONS['leave']} ({now}; before: {_value(change.before)})"
    if step.action == "done":
        return f"{_LABELS[change.kind]} {change.name}: {_ACTIONS['done']} ({now})"
    if change.kind != "setting" and change.before is None:
        return f"{_LABELS[change.kind]} {change.name}: is removed"
    return f"{_LABELS[change.kind]} {change.name}: {now} -> {_value(change.before)}"


def refused_text(steps: Sequence[Step]) -> str:
    """Steps that could not be undone, as text."""
    return "".join(
        f"{MODEL_VERSION} is empty now: Label Studio has no predictions of {step.change.before} any more\n"
        for step in steps
    ).rstrip()
