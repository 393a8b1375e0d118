"""Advice on labelling, from the forecasts of all tasks: go on, or stop.

There is one piece of advice for the whole project, since a photo is labelled for all tasks at once. The outlook of a
single task gives no advice: so no page says "stop" beside "go on".
"""

from collections.abc import Mapping
from typing import Any

from carcond.json_fields import count
from carcond.taxonomy import TASK_BY_KEY

_OUTLOOKS = {
    "rising": "{labels} more labels should bring a point or more.",
    "slow": "{labels} more labels should bring less than a point; one is not ruled out.",
    "flat": "{labels} more labels of this kind will hardly help.",
}


def outlook(forecast: Mapping[str, Any]) -> str:
    """Expected gain of one task from further labels, as a sentence; empty while it is unknown.

    Args:
        forecast: see `carcond.analysis.forecast.Forecast.as_json`.
    """
    return _OUTLOOKS.get(str(forecast.get("state")), "").format(labels=count(forecast, "next_labels"))


def labelling_advice(forecasts: Mapping[str, Mapping[str, Any]]) -> str:
    """Advice on whether to go on labelling, in one sentence.

    Args:
        forecasts: task key -> forecast, see `carcond.analysis.forecast.Forecast.as_json`; empty before the first label.
    """
    tasks_in: dict[str, list[str]] = {}
    for key, each in forecasts.items():
        name = TASK_BY_KEY[key].en.lower() if key in TASK_BY_KEY else key
        tasks_in.setdefault(str(each.get("state")), []).append(name)
    flat, slow = tasks_in.pop("flat", []), tasks_in.pop("slow", [])
    gaining = [name for names in tasks_in.values() for name in names]
    if flat and not slow and not gaining:
        return "More labels of this kind will hardly help: stop, or bring photos of another kind."
    if not flat and not slow:
        return "Go on labelling."
    if not gaining:
        labels = max(count(each, "next_labels") or 0 for each in forecasts.values())
        return f"Go on labelling if less than a point matters: {labels} more labels should bring no more."
    hardly = f"; {_and(flat)} will hardly gain from more labels of this kind" if flat else ""
    little = f"; {_and(slow)} should gain less than a point" if slow else ""
    return f"Go on labelling, for {_and(gaining)}{little}{hardly}."


def _and(names: list[str]) -> str:
    return " and ".join(names)
