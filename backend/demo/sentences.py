"""What the dashboard says of figures, in words."""

from collections.abc import Mapping
from typing import Any

from carcond.card_values import count, mapping, number, plain
from carcond.report_view import Measure
from carcond.taxonomy import Task


def measure_words(figure: Measure) -> tuple[str, str]:
    """A figure and its interval, each as text; the interval is empty where it is not known."""
    if figure.value is None:
        return "–", ""
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3f} to {figure.high:.3f}"
    return f"{figure.value:.3f}", interval


def saved_sentence(saved: Mapping[str, Any]) -> str:
    """What the choice of photos was worth; see `carcond.labels_saved.LabelsSaved.as_json`."""
    ratio, low, high = (number(saved, name) for name in ("ratio", "low", "high"))
    if not saved.get("known") or ratio is None or low is None or high is None:
        return f"Not yet known: {plain(saved.get('missing') or 'too few labels', 200)}."
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


_OUTLOOK = {
    "rising": "Go on: {labels} more labels should bring a point or more.",
    "slow": "Go on if it matters: {labels} more labels should bring less than a point; one is not ruled out.",
    "flat": "Stop, or bring other photos: {labels} more labels of this kind will hardly help.",
}


def forecast_sentence(forecast: Mapping[str, Any]) -> str:
    """What the next labels would bring; see `carcond.forecast.Forecast.as_json`."""
    if forecast.get("missing"):
        return f"Too early to tell: {plain(forecast['missing'], 200)} are needed."
    outlook = _OUTLOOK.get(str(forecast.get("state")), "").format(labels=count(forecast, "next_labels"))
    gains = [_gain(name, mapping(forecast, key)) for key, name in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"))]
    return f"{outlook} Expected: {' and '.join(filter(None, gains))} (90 % intervals)."


def _gain(name: str, part: Mapping[str, Any]) -> str:
    gain, low, high = (number(part, key) for key in ("gain", "low", "high"))
    return "" if gain is None or low is None or high is None else f"{name} {gain:+.3f} ({low:+.3f} to {high:+.3f})"


def balance_rows(balance: Mapping[str, Any], task: Task) -> list[dict[str, Any]]:
    """Each class of a task with its `labels` and `state`; see `carcond.quality.class_balance`."""
    found = balance[task.key]
    return [{"class": each.en, **found[each.key]} for each in task.classes]
