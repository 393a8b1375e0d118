from typing import Any

import numpy as np
import pytest

from carcond.analysis.label_errors import TaskSuspicion
from carcond.analysis.label_quality import (
    GOOD_LABELS,
    MINIMUM_LABELS,
    RatedPhoto,
    class_balance,
    quality_report,
    suspect_facts,
)
from carcond.arrays import UNKNOWN
from carcond.data.images import ImageStats
from carcond.data.photo_checks import BLURRED, BRIGHT, DARK, MIN_SIDE
from carcond.taxonomy import DAMAGE

FINE = ImageStats(800, 600, 0.8, 0.5)


def look(**changes: Any) -> ImageStats:
    return ImageStats(**(vars(FINE) | changes))


def test_a_photo_without_faults_is_in_no_list() -> None:
    report = quality_report([RatedPhoto("fine.jpg", FINE, phash=1)])
    lists = ("unreadable", "small", "blurred", "dark", "bright", "copies", "conflicting_copies")
    assert {name: report[name] for name in lists} == {name: [] for name in lists}
    assert (report["photos"], report["labelled"], report["measured"]) == (1, 0, 1)


def test_each_fault_lists_its_photos_worst_first() -> None:
    photos = [
        RatedPhoto("low", look(height=MIN_SIDE - 1)),
        RatedPhoto("narrow", look(width=100)),
        RatedPhoto("soft", look(sharpness=BLURRED - 0.01)),
        RatedPhoto("smeared", look(sharpness=0.01)),
        RatedPhoto("dusk", look(brightness=DARK - 0.01)),
        RatedPhoto("night", look(brightness=0.0)),
        RatedPhoto("glare", look(brightness=BRIGHT + 0.01)),
        RatedPhoto("white", look(brightness=1.0)),
        RatedPhoto("broken", problem="cut off"),
    ]
    report = quality_report(photos)
    assert report["small"] == [
        {"photo": "narrow", "width": 100, "height": 600},
        {"photo": "low", "width": 800, "height": MIN_SIDE - 1},
    ]
    assert [row["photo"] for row in report["blurred"]] == ["smeared", "soft"]
    assert report["dark"] == [{"photo": "night", "brightness": 0.0}, {"photo": "dusk", "brightness": 0.12}]
    assert [row["photo"] for row in report["bright"]] == ["white", "glare"]
    assert report["unreadable"] == [{"photo": "broken", "problem": "cut off"}]
    assert report["measured"] == 8


def test_a_photo_at_a_limit_has_no_fault() -> None:
    photos = [
        RatedPhoto(1, look(width=MIN_SIDE, height=MIN_SIDE)),
        RatedPhoto(2, look(sharpness=BLURRED)),
        RatedPhoto(3, look(brightness=DARK)),
        RatedPhoto(4, look(brightness=BRIGHT)),
    ]
    report = quality_report(photos)
    assert [report[fault] for fault in ("small", "blurred", "dark", "bright")] == [[], [], [], []]


@pytest.mark.parametrize(
    ("labels", "state"),
    [
        (0, "too few"),
        (MINIMUM_LABELS - 1, "too few"),
        (MINIMUM_LABELS, "enough"),
        (GOOD_LABELS - 1, "enough"),
        (GOOD_LABELS, "good"),
    ],
)
def test_balance_tells_whether_a_class_has_enough_labels(labels: int, state: str) -> None:
    photos = [RatedPhoto(i, classes={"damage": "damaged"}) for i in range(labels)]
    balance = class_balance(photos)
    assert balance["damage"]["damaged"] == {"labels": labels, "state": state}
    assert balance["damage"]["intact"] == {"labels": 0, "state": "too few"}
    assert set(balance["cleanliness"]) == {"clean", "slightly_dirty", "very_dirty"}


def test_copies_with_different_labels_are_a_conflict_and_others_are_not() -> None:
    photos = [
        RatedPhoto("a", phash=0, classes={"damage": "intact", "cleanliness": "clean"}),
        RatedPhoto("b", phash=2**64 - 1, classes={"damage": "damaged"}),
        RatedPhoto("a2", phash=0b111, classes={"damage": "damaged"}),
        RatedPhoto("b2", phash=2**64 - 2, classes={"damage": "damaged", "cleanliness": "clean"}),
        RatedPhoto("c", phash=0xFFFFFFFF, classes={"damage": "intact"}),
        RatedPhoto("unreadable", problem="cut off", classes={"damage": "damaged"}),
    ]
    report = quality_report(photos)
    assert report["copies"] == [["a", "a2"], ["b", "b2"]]
    assert report["conflicting_copies"] == [{"task": "damage", "classes": {"a": "intact", "a2": "damaged"}}]


def test_photos_of_one_kind_that_are_no_near_duplicates_are_no_copies() -> None:
    assert quality_report([RatedPhoto("a", phash=0), RatedPhoto("b", phash=0b1111111)])["copies"] == []


def said(name: int, **by: str) -> RatedPhoto:
    return RatedPhoto(name, opinions={int(who[1:]): {"damage": word} for who, word in by.items()})


def test_agreement_tells_pairs_alpha_and_conflicts() -> None:
    photos = [
        said(1, a1="intact", a2="intact"),
        said(2, a1="damaged", a2="intact"),
        said(3, a1="damaged", a2="damaged"),
        said(4, a1="intact"),
    ]
    found = quality_report(photos)["agreement"]
    assert set(found) == {"damage"}
    damage = found["damage"]
    assert damage["photos"] == 3
    # Three of each class among six paired answers: 9 of 15 pairs differ by chance, one of three differs.
    assert damage["alpha"] == pytest.approx(1 - (1 / 3) / (9 / 15))
    assert "alpha_ordinal" not in damage
    (pair,) = damage["pairs"]
    assert (pair["first"], pair["second"], pair["photos"]) == (1, 2, 3)
    assert pair["agreement"] == pytest.approx(2 / 3)
    assert damage["conflicts"] == [{"photo": 2, "classes": {"1": "damaged", "2": "intact"}}]


def test_degrees_have_an_ordinal_alpha_too() -> None:
    words = (("clean", "clean"), ("very_dirty", "slightly_dirty"), ("slightly_dirty", "slightly_dirty"))
    photos = [RatedPhoto(i, opinions={1: {"cleanliness": a}, 2: {"cleanliness": b}}) for i, (a, b) in enumerate(words)]
    found = quality_report(photos)["agreement"]["cleanliness"]
    assert found["alpha_ordinal"] > found["alpha"]


def test_an_empty_set_is_reported_as_empty() -> None:
    report = quality_report([])
    assert report["photos"] == 0
    assert report["agreement"] == {}


def test_suspects_are_named_with_what_they_look_like() -> None:
    indices = np.array([0, 1, UNKNOWN, 1])
    suspicion = TaskSuspicion(
        DAMAGE,
        judged=indices != UNKNOWN,
        suspicion=np.array([0.6, 0.1, 0, 0.93333], np.float32),
        likely=np.array([1, 1, UNKNOWN, 0]),
        suspected=np.array([True, False, False, True]),
        too_few=(),
    )
    facts = suspect_facts({"damage": suspicion}, {"damage": indices}, ["a", "b", "c", "d"])
    assert facts["judged"] == {"damage": {"labels": 3, "suspected": 2, "too_few": []}}
    assert facts["suspects"] == [
        {"photo": "d", "task": "damage", "given": "damaged", "likely": "intact", "suspicion": 0.9333},
        {"photo": "a", "task": "damage", "given": "intact", "likely": "damaged", "suspicion": 0.6},
    ]
