import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carcond.errors import RegistryError
from carcond.model.heads import Head, Heads
from carcond.model.version_card import Gate, Labels, VersionCard
from carcond.registry import pruning
from carcond.registry.baseline import find_baseline
from carcond.registry.pruning import prune
from carcond.registry.registry import Registry
from carcond.taxonomy import DAMAGE
from tests.disk import full_disk

HEADS = Heads(
    "tiny", {"damage": Head(DAMAGE, np.ones((2, 8), np.float32), np.zeros(2, np.float32), 1.0, cross_fitted=True)}
)
LABELS_AT_FIRST = 10


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, 7)


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "GRACE_S", 0.0)


def write(registry: Registry, accepted: bool = True, encoder: str = "tiny") -> int:
    """A version of one label more than there are versions already, with ten at first."""
    train = LABELS_AT_FIRST + len(registry.directories() | registry.log.rows().keys())
    gate = Gate(accepted=accepted, reason="not worse" if accepted else "worse")
    card = VersionCard(labels=Labels(train=train, holdout=0), gate=gate, encoder_id=encoder, created="2026-03-01")
    return registry.write(HEADS, card, [])


def publish(registry: Registry, count: int = 1) -> int:
    number = 0
    for _ in range(count):
        number = write(registry)
        registry.promote(number)
    return number


def settle(registry: Registry) -> list[int]:
    """Prune until nothing changes. Returns the versions that are kept."""
    before: Any = None
    while before != (before := (registry.numbers(), sorted(registry.directories()))):
        prune(registry)
    assert registry.numbers() == sorted(registry.directories())
    return registry.numbers()


def test_the_newest_and_the_milestones_are_kept(registry: Registry) -> None:
    publish(registry, 60)
    # With 10 labels, 25, 50; and ten.
    assert settle(registry) == [1, 16, 41, *range(51, 61)]
    assert {number: row["kept"] for number, row in registry.log.rows().items() if row["kept"]} == {
        1: "the first version",
        16: "the first with 25 labels",
        41: "the first with 50 labels",
    }


def test_a_line_remains_of_what_was_pruned(registry: Registry) -> None:
    publish(registry, 20)
    settle(registry)
    row = registry.pruned()[5]
    assert (row["version"], row["created"], row["encoder_id"]) == ("carcond-0005", "2026-03-01", "tiny")
    assert row["labels"] == {"train": 14, "holdout": 0}
    assert row["gate"] == {"accepted": True, "reason": "not worse"}
    assert row["promoted"]["who"] == "loop"
    assert row["pruned"].endswith("+00:00")


def test_pruning_goes_on_as_versions_are_made(registry: Registry) -> None:
    for _ in range(40):
        publish(registry)
        prune(registry)
    assert settle(registry) == [1, 16, *range(31, 41)]


def test_a_version_that_was_pruned_is_told_of(registry: Registry) -> None:
    publish(registry, 20)
    settle(registry)
    for read in (registry.card, registry.load, registry.promote):
        with pytest.raises(RegistryError, match=r"carcond-0005 was pruned on .* carcond versions show 5 --project 7"):
            read(5)


def test_numbers_of_pruned_versions_are_never_given_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "NEWEST", 1)
    publish(registry)
    for _ in range(3):
        write(registry)
    publish(registry)
    registry.promote(1, "anna", "as it was")
    settle(registry)
    os.rename(registry.path(5), registry.path(5).with_name("lost"))
    assert registry.log.rows().keys() == {1, 2, 3, 4}
    assert registry.numbers() == [1]
    assert write(registry) == 5
    os.rename(registry.path(5), registry.path(5).with_name("lost-too"))
    registry.log.append([{"number": 9, "kept": "", "pruned": "2026-03-01T10:00:00+00:00"}])
    assert write(registry) == 10


def test_the_serving_version_stays_however_old_it_is(registry: Registry) -> None:
    publish(registry, 3)
    for _ in range(30):
        write(registry, accepted=False)
    assert settle(registry) == [1, 3, 4, *range(24, 34)]
    assert registry.log.rows().keys() == {1, 2, *range(4, 24)}
    publish(registry, 12)
    settle(registry)
    assert 3 in registry.pruned()


@pytest.mark.parametrize("action", ["pin", "promote", "rollback"])
def test_what_a_person_chose_is_kept_for_ever(action: str, registry: Registry) -> None:
    publish(registry, 8)
    if action == "pin":
        registry.pin_serving(8, "anna", "measured")
        registry.unpin("anna", "done")
    else:
        registry.promote(8 if action == "promote" else 6, "anna", "wet", "rollback") if action == "rollback" else None
        if action == "promote":
            registry.promote(3, "anna", "was better")
    publish(registry, 30)
    kept = settle(registry)
    assert {"pin": {8}, "promote": {3, 8}, "rollback": {6, 8}}[action] <= set(kept)


def test_a_rollback_goes_to_the_newest_kept_version_that_served_before(registry: Registry) -> None:
    publish(registry, 60)
    settle(registry)
    for expected in (*range(59, 50, -1), 41, 16, 1):
        assert registry.previous().number == expected
        registry.promote(expected, "anna", "worse", "rollback")


def test_the_milestone_below_half_of_the_labels_is_the_landmark(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, 100)
    settle(registry)
    baseline = find_baseline(registry, 110)
    assert baseline
    assert baseline.card.labels.train == 50
    assert not caplog.records


def test_the_first_version_on_each_encoder_is_kept(registry: Registry) -> None:
    publish(registry, 5)
    registry.promote(write(registry, encoder="tuned"))
    publish(registry, 12)
    assert settle(registry)[:3] == [1, 6, 9]


def test_a_project_of_hundreds_of_versions_is_pruned_bit_by_bit(registry: Registry) -> None:
    publish(registry, 130)
    prune(registry)
    assert len(registry.log.rows()) == pruning.AT_ONCE
    assert len(registry.directories()) == 130
    prune(registry)
    assert len(registry.directories()) == 130 - (pruning.AT_ONCE - 3)
    assert settle(registry) == [1, 16, 41, 91, *range(121, 131)]


def test_a_turn_reads_one_card_once_all_others_are_decided_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, 40)
    settle(registry)
    publish(registry)
    read: list[int] = []
    card = Registry.card

    def read_card(self: Registry, number: int) -> dict[str, Any]:
        read.append(number)
        return card(self, number)

    monkeypatch.setattr(Registry, "card", read_card)
    registry.current()
    read.clear()
    prune(registry)
    assert read == [31]


# Failures


def test_a_full_disk_while_lines_are_written_loses_no_version(registry: Registry) -> None:
    publish(registry, 30)
    with full_disk(300), pytest.raises(RegistryError, match="cannot be pruned"):
        prune(registry)
    assert len(registry.directories()) == 30
    assert registry.numbers()[-10:] == list(range(21, 31))
    assert settle(registry) == [1, 16, *range(21, 31)]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["carcond.registry.pruning.rmtree", "pathlib.Path.rename"])
def test_killed_between_line_and_removal_the_rest_is_done_by_the_next_call(
    step: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, 30)
    prune(registry)

    def kill(*_: Any, **__: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(step, kill)
        with pytest.raises(_Killed):
            prune(registry)
    assert registry.numbers() == [1, 16, *range(21, 31)]
    assert settle(registry) == [1, 16, *range(21, 31)]
    assert not list((registry.root / "versions").glob(".*"))


def test_a_directory_stays_for_a_while_after_its_line(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "GRACE_S", 60.0)
    publish(registry, 30)
    for _ in range(3):
        prune(registry)
    assert len(registry.directories()) == 30
    assert registry.numbers() == [1, 16, *range(21, 31)]


def test_a_version_chosen_in_the_moment_in_which_its_line_is_written_stays(registry: Registry) -> None:
    publish(registry, 30)
    append = registry.log.append

    def choose_meanwhile(rows: Any) -> None:
        Registry(registry.root.parents[1], 7).promote(5, "anna", "was better", pinned=True)
        append(rows)

    registry.log.append = choose_meanwhile  # type: ignore[method-assign]
    prune(registry)
    registry.log.append = append  # type: ignore[method-assign]
    assert 5 in settle(registry)
    version = registry.current()
    assert version
    assert version.number == 5


def lose_card(directory: Path) -> None:
    (directory / "card.json").unlink()


def garble_card(directory: Path) -> None:
    (directory / "card.json").write_bytes(b"\xff")


@pytest.mark.parametrize("damage", [lose_card, garble_card])
def test_a_version_whose_card_cannot_be_read_is_not_thrown_away_and_told_of_once(
    damage: Callable[[Path], None], registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, 30)
    damage(registry.path(5))
    with caplog.at_level(logging.ERROR):
        assert settle(registry) == [1, 5, 16, *range(21, 31)]
    assert caplog.text.count("carcond-0005 is kept") == 1


def test_a_record_that_cannot_be_read_prunes_nothing(registry: Registry) -> None:
    publish(registry, 30)
    record = registry.root / "promotions.jsonl"
    record.unlink()
    record.mkdir()
    with pytest.raises(RegistryError):
        prune(registry)
    assert len(registry.directories()) == 30
    assert len(registry.numbers()) == 30


def test_a_time_that_somebody_garbled_does_not_stop_pruning(registry: Registry) -> None:
    publish(registry, 15)
    prune(registry)
    path = registry.root / "versions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"pruned": row["pruned"] and "yesterday"}) + "\n" for row in rows))
    assert settle(registry) == [1, *range(6, 16)]


def test_what_a_killed_process_left_half_written_is_removed_an_hour_later(registry: Registry) -> None:
    publish(registry, 2)
    left, fresh = (registry.root / "versions" / name for name in (".0003-abcd", ".0003-efgh"))
    for draft in (left, fresh):
        draft.mkdir()
        (draft / "card.json").write_text("{")
    an_hour_ago = time.time() - 3700
    os.utime(left, (an_hour_ago, an_hour_ago))
    prune(registry)
    assert not left.exists()
    assert fresh.exists()
