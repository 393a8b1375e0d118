"""Terminal output about label quality: the report of `carcond quality`, the list of `carcond review`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from carcond.analysis.label_quality import GOOD_LABELS, MINIMUM_LABELS
from carcond.data.photo_checks import BLURRED, BRIGHT, DARK, MIN_SIDE
from carcond.reports.text_page import PlainPage, add_cells, plain_table

_WIDTH = 110
_SHOWN = 10
# Heads fitted on fewer labels know too little to accuse any of them.
_FEW_LABELS = 100
_FAULTS = {
    "unreadable": "cannot be read",
    "small": f"a side under {MIN_SIDE} pixels",
    "blurred": f"blurred (sharpness under {BLURRED})",
    "dark": f"too dark (brightness under {DARK})",
    "bright": f"too bright, or a cut-out on white (brightness over {BRIGHT})",
}


def quality_text(facts: Mapping[str, Any]) -> str:
    """The report as text; see `carcond.analysis.label_quality`. Long lists are cut: `--json` has them whole."""
    page = PlainPage(_WIDTH)
    page.print(f"{facts['photos']} photos, {facts['labelled']} labelled, {facts['measured']} measured", end="\n\n")
    page.print(_faults_table(facts))
    page.print(_balance_table(facts["balance"]))
    page.print(f"{MINIMUM_LABELS} labels of a class are the least to train on, {GOOD_LABELS} are good", end="\n\n")
    _print_copies(page, facts)
    for task, found in facts["agreement"].items():
        _print_agreement(page, task, found, facts.get("annotators", {}))
    for task, rows in facts.get("anchoring", {}).items():
        page.print(_anchoring_table(task, rows))
    if facts.get("judged"):
        page.print(judged_lines(facts["judged"]), end="\n\n")
    if facts.get("suspects"):
        page.print(_suspects_table(facts["suspects"]))
    return page.text


def review_text(facts: Mapping[str, Any]) -> str:
    """Photos to review, as text; see `backend.project.label_review.review_facts`."""
    page = PlainPage(_WIDTH)
    page.print(judged_lines(facts["judged"]), end="\n\n")
    if facts["photos"]:
        table = plain_table("Look again", "photo", "suspicion", "labelled", "by", "looks like", "where")
        for photo in facts["photos"]:
            for i, doubt in enumerate(photo["doubts"]):
                first = (str(photo["photo"]), photo["link"]) if i == 0 else ("", "")
                suspicion = f"{doubt['suspicion']:.3f}"
                add_cells(table, first[0], suspicion, doubt["given"], _by(doubt), doubt["likely"], first[1])
        page.print(table)
    else:
        page.print("no label looks wrong")
    if facts["tab"]:
        page.print(f"in Label Studio: {facts['tab']}", soft_wrap=True)
    return page.text


def is_early(judged: Mapping[str, Any]) -> bool:
    """True if a task's labels are suspected by heads fitted on too few labels to be reliable."""
    return bool(judged["suspected"]) and int(judged["labels"]) < _FEW_LABELS


def judged_lines(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """Number of evaluated labels of each task, and the classes with too few labels."""
    lines = []
    for task, each in judged.items():
        few = f"; too few labels to judge: {', '.join(each['too_few'])}" if each["too_few"] else ""
        lines.append(f"{task}: {each['labels']} labels judged, {each['suspected']} suspected{few}")
        if is_early(each):
            lines.append(f"  it is early: with fewer than {_FEW_LABELS} labels, many of the suspected ones are right")
    return "\n".join(lines) or "no labels"


def _faults_table(facts: Mapping[str, Any]) -> Table:
    table = plain_table("Pictures", "fault", "photos", "worst")
    for fault, words in _FAULTS.items():
        add_cells(table, words, str(len(facts[fault])), _some([row["photo"] for row in facts[fault]]))
    return table


def _balance_table(balance: Mapping[str, Any]) -> Table:
    table = plain_table("Labels of each class", "task", "class", "labels", "")
    for task, classes in balance.items():
        for name, each in classes.items():
            add_cells(table, task, name, str(each["labels"]), each["state"])
    return table


def _print_copies(page: PlainPage, facts: Mapping[str, Any]) -> None:
    copies = facts["copies"]
    together = sum(map(len, copies))
    page.print(f"Near-duplicates: {together} photos in {len(copies)} groups", end="\n\n")
    if facts["conflicting_copies"]:
        table = plain_table("Near-duplicates with different labels", "task", "photos")
        for row in facts["conflicting_copies"][:_SHOWN]:
            add_cells(table, row["task"], ", ".join(f"{photo} {key}" for photo, key in row["classes"].items()))
        page.print(table)


def pair_name(pair: Mapping[str, Any], annotators: Mapping[str, str]) -> str:
    """The names of two annotators; of an export, which has none, their ids."""
    return " and ".join(annotators.get(str(pair[which]), str(pair[which])) for which in ("first", "second"))


def _print_agreement(page: PlainPage, task: str, found: Mapping[str, Any], annotators: Mapping[str, str]) -> None:
    ordinal = f", ordinal {_number(found['alpha_ordinal'])}" if "alpha_ordinal" in found else ""
    page.print(
        f"{task}: {found['photos']} photos answered by several annotators, "
        f"Krippendorff's alpha {_number(found['alpha'])}{ordinal}, they disagree on {len(found['conflicts'])}",
        end="\n\n",
    )
    table = plain_table(f"Agreement on {task}", "annotators", "photos", "agreement", "kappa")
    for pair in found["pairs"]:
        add_cells(
            table, pair_name(pair, annotators), str(pair["photos"]), _number(pair["agreement"]), _number(pair["kappa"])
        )
    page.print(table)


def anchoring_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Heading -> words of one row of `carcond.analysis.anchoring.anchoring_facts`."""
    rate, missing = row["rate"], []
    if row["missing_shown"]:
        missing.append(f"{row['missing_shown']} more with the pre-label shown")
    if row["missing_blind"]:
        missing.append(f"{row['missing_blind']} more with it hidden")
    if rate is not None:
        low, high = row["interval"]
        words = f"{rate:.0%} ({low:.0%} to {high:.0%})"
    else:
        words = f"not known: needs {' and '.join(missing)}"
    return {
        "annotator": "all" if row["annotator"] is None else row["annotator"],
        "shown": str(row["shown"]),
        "equal to it": _share(row["kept"]),
        "hidden": str(row["blind"]),
        "equal to it then": _share(row["agreed"]),
        "wrong ones kept, with 95 % interval": words,
    }


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _anchoring_table(task: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [anchoring_cells(row) for row in rows]
    table = plain_table(f"Labels of {task} beside the pre-label", *cells[0])
    for row in cells:
        add_cells(table, *row.values())
    return table


def _suspects_table(suspects: Sequence[Mapping[str, Any]]) -> Table:
    table = plain_table(
        "Suspected labels, most suspicious first", "photo", "task", "labelled", "by", "looks like", "suspicion"
    )
    for row in suspects[:_SHOWN]:
        suspicion = f"{row['suspicion']:.3f}"
        add_cells(table, str(row["photo"]), row["task"], row["given"], _by(row), row["likely"], suspicion)
    if len(suspects) > _SHOWN:
        add_cells(table, f"and {len(suspects) - _SHOWN} more", "", "", "", "", "")
    return table


def _by(suspect: Mapping[str, Any]) -> str:
    """Names of those who gave a label; empty for files, which contain none."""
    return ", ".join(suspect.get("by", ()))


def _some(names: Sequence[int | str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(str, names[:3])) + more


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
