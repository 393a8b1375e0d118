"""The dashboard's sentences about figures."""

from collections.abc import Mapping
from typing import Any

from backend.project.label_advice import outlook
from carcond.json_fields import count, mapping, number, sanitize_line
from carcond.model.version_card import Measure
from carcond.taxonomy import Task


def measure_words(figure: Measure) -> tuple[str, str]:
    """A figure and its interval, each as text; the interval is empty where it is not known."""
    if figure.value is None:
        return "–", ""
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return f"{figure.value:.3f}", interval


def saved_sentence(saved: Mapping[str, Any]) -> str:
    """Labels saved by the choice of photos; see `carcond.analysis.labels_saved.LabelsSaved.as_json`."""
    ratio, low, high = (number(saved, name) for name in ("ratio", "low", "high"))
    if not saved.get("known") or ratio is None or low is None or high is None:
        return f"Not yet known: {sanitize_line(saved.get('missing') or 'too few labels', 200)}."
    share = mapping(saved, "saved")
    compared = f"seen on the first {count(saved, 'compared')} labels"
    if ratio <= 1:
        saved_share = _percent(number(share, "share"))
        told = f"({_percent(number(share, 'low'))} to {_percent(number(share, 'high'))}, 90 % interval)"
        return f"Choosing photos saved {saved_share} of the labels that random ones take {told}, {compared}."
    told = f"({low:.2f} to {high:.2f}, 90 % interval)"
    return f"Chosen labels taught less than random ones: {ratio:.2f} times as many are needed {told}, {compared}."


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def forecast_sentence(forecast: Mapping[str, Any]) -> str:
    """Expected gain of the next labels; see `carcond.analysis.forecast.Forecast.as_json`."""
    if forecast.get("missing"):
        return f"Too early to tell: {sanitize_line(forecast['missing'], 200)} are needed."
    gains = [_gain(name, mapping(forecast, key)) for key, name in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"))]
    return f"{outlook(forecast)} Expected: {' and '.join(filter(None, gains))} (90 % intervals)."


def _gain(name: str, part: Mapping[str, Any]) -> str:
    gain, low, high = (number(part, key) for key in ("gain", "low", "high"))
    return "" if gain is None or low is None or high is None else f"{name} {gain:+.3f} ({low:+.3f} to {high:+.3f})"


def balance_rows(balance: Mapping[str, Any], task: Task) -> list[dict[str, Any]]:
    """Each class of a task with its `labels` and `state`; see `carcond.analysis.label_quality.class_balance`."""
    found = balance[task.key]
    return [{"class": each.en, **found[each.key]} for each in task.classes]
