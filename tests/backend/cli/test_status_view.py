from typing import Any

from backend.cli.status_view import status_text
from carcond.analysis.forecast import Forecast, Gain
from carcond.analysis.labels_saved import LabelsSaved
from tests.carcond.made_cards import HOSTILE, broken_cards, full_card


def all_facts(card: dict[str, Any] | None = None) -> dict[str, Any]:
    gain = Gain(0.9, 0.02, -0.01, 0.05, "rising")
    return (full_card() if card is None else card) | {
        "project": 1,
        "serving": {"version": "carcond-0007", "since": "2026-03-01T10:00:00+00:00", "who": HOSTILE, "why": ""},
        "newest": {"version": "carcond-0008", "accepted": False, "reason": HOSTILE},
        "photos": 900,
        "photos_left": 497,
        "photos_unreadable": 3,
        "photos_skipped": 0,
        "forecast": {
            "damage": Forecast(310, 90, {"accuracy": gain, "macro_f1": gain}).as_json(),
            "cleanliness": Forecast(40, 5, {}, "20 more labels to train on").as_json(),
        },
        "labels_saved": {
            "damage": LabelsSaved(900, 100, 80, 0.5, 0.3, 0.9).as_json(),
            "cleanliness": LabelsSaved(50, 5, missing="25 more labels of drawn photos").as_json(),
        },
        "jobs": {"reachable": True, "waiting": {"turns": 1, "refreshes": 1}, "failed": 2, "workers": 2},
        "next_step": "Go on labelling.",
    }


def test_everything_known_is_told() -> None:
    words = " ".join(status_text(all_facts()).split())
    for expected in (
        "carcond-0007 since 2026-03-01 10:00:00 UTC",
        "carcond-0008 refused",
        "310 for training, 90 in the hold-out, 3 without a usable photo",
        "900, of which 497 are to be labelled, 0 were skipped and 3 cannot be read",
        "2 waiting, 2 workers alive, 2 failed within the last hour",
        "rising +0.020 (-0.010 to +0.050)",
        "too few labels",
        "0.50 (0.30 to 0.90), seen on the first 80 labels",
        "not yet known: 25 more labels of drawn photos",
        "Next: Go on labelling.",
    ):
        assert expected in words


def test_a_pin_is_told_with_the_command_that_ends_it() -> None:
    pin = {"version": "carcond-0007", "since": "2026-03-01T10:00:00+00:00", "who": "anna", "why": HOSTILE}
    words = " ".join(status_text(all_facts() | {"pinned": pin}).split())
    assert "pinned carcond-0007 since 2026-03-01 10:00:00 UTC, by anna: " in words
    assert "Newer versions do not serve until: carcond versions unpin --project 1 --why" in words
    assert "pinned" not in status_text(all_facts())


def test_the_rate_of_kept_pre_labels_is_told_once_it_is_known() -> None:
    known = {"rate": 0.384, "interval": [0.05, 0.71]}
    facts = all_facts() | {"anchoring": {"damage": known, "cleanliness": {"rate": None, "interval": None}}}
    words = " ".join(status_text(facts).split())
    assert "prelabel wrong ones kept, with 95 % intervals: Damage 38% (5% to 71%)" in words
    assert "prelabel" not in status_text(all_facts())


def test_a_long_verdict_is_continued_below_its_beginning() -> None:
    newest = {"version": "carcond-0007", "accepted": True, "reason": "not found worse, " + "damage on 39 photos; " * 8}
    lines = status_text(all_facts() | {"newest": newest}).splitlines()
    begun = next(i for i, line in enumerate(lines) if line.startswith("gate"))
    assert lines[begun + 1].startswith(" " * len("gate     ") + "39 photos; damage")


def test_names_cannot_rewrite_the_terminal() -> None:
    text = status_text(all_facts())
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_malformed_card_never_stops_it() -> None:
    for card in broken_cards()[::7]:
        facts = all_facts(card) | {"labels": card.get("labels")}
        assert "Next:" in status_text(facts)


def test_without_redis_and_version_it_tells_the_rest() -> None:
    facts = all_facts({"version": None, "labels": {"train": 0, "holdout": 0, "unusable": 0}})
    facts |= {"serving": None, "newest": None, "forecast": {}, "labels_saved": {}}
    facts |= {"jobs": {"reachable": False, "reason": "Redis cannot be reached (ConnectionError)"}}
    text = status_text(facts)
    assert "no version yet" in text
    assert "Redis cannot be reached" in text
    assert "hold-out, with 95" not in text


def test_no_worker_is_told() -> None:
    jobs = {"reachable": True, "waiting": {"turns": 0}, "failed": 0, "workers": 0}
    assert "0 waiting, no worker is alive" in status_text(all_facts() | {"jobs": jobs})
