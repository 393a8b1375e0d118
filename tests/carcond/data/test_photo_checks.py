from dataclasses import replace
from typing import Any

import pytest

from carcond.data.photo_checks import LEAST_SIDE, NOT_A_CAR, Fault, PhotoChecks, Remark
from tests.carcond.conditions import FINE


def test_a_fine_photo_has_no_fault() -> None:
    assert PhotoChecks(FINE, 0.9).faults == ()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"width": LEAST_SIDE - 1}, Fault.TOO_SMALL),
        ({"height": LEAST_SIDE - 1}, Fault.TOO_SMALL),
        ({"brightness": 0.12}, Fault.TOO_DARK),
        ({"sharpness": 0.24}, Fault.TOO_BLURRED),
    ],
)
def test_each_fault_of_a_picture_is_named(changed: dict[str, Any], fault: Fault) -> None:
    assert PhotoChecks(replace(FINE, **changed), 0.9).faults == (fault,)


@pytest.mark.parametrize(
    "changed", [{"width": LEAST_SIDE, "height": LEAST_SIDE}, {"brightness": 0.13}, {"sharpness": 0.25}]
)
def test_photos_at_the_limits_are_fine(changed: dict[str, Any]) -> None:
    assert PhotoChecks(replace(FINE, **changed), NOT_A_CAR).faults == ()


@pytest.mark.parametrize(
    ("side", "remarks"), [(LEAST_SIDE - 1, ()), (LEAST_SIDE, (Remark.SMALL,)), (299, (Remark.SMALL,)), (300, ())]
)
def test_a_small_photo_that_is_judged_gets_a_remark(side: int, remarks: tuple[Remark, ...]) -> None:
    assert PhotoChecks(replace(FINE, height=side), 0.9).remarks == remarks


def test_what_is_probably_no_car_is_said_so() -> None:
    assert PhotoChecks(FINE, NOT_A_CAR * 0.99).faults == (Fault.NOT_A_CAR,)


def test_an_encoder_that_cannot_tell_cars_finds_no_fault_in_it() -> None:
    assert PhotoChecks(FINE, None).faults == ()


def test_all_faults_are_told_those_of_the_picture_first() -> None:
    bad = replace(FINE, width=10, brightness=0.0, sharpness=0.0)
    assert PhotoChecks(bad, 0.0).faults == tuple(Fault)
    assert tuple(Fault)[-1] == Fault.NOT_A_CAR
