import gzip
import json
import logging
import operator
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from carcond.errors import RegistryError
from carcond.model.heads import Head, Heads
from carcond.model.version_card import Gate, VersionCard
from carcond.registry.registry import COLD_START_VERSION, Registry, version_name
from carcond.reports.card_page import card_page
from carcond.taxonomy import DAMAGE
from tests.disk import fill, full_disk, small_disk

ROWS = [{"task": 1, "classes": {"damage": "intact"}}, {"task": 2, "classes": {"damage": "damaged"}}]


def make_heads(value: float = 0.5) -> Heads:
    """Heads that tell by their weights which version they are of."""
    head = Head(DAMAGE, np.full((2, 8), value, np.float32), np.zeros(2, np.float32), 1.5, cross_fitted=True)
    return Heads("tiny", {"damage": head})


def value_of(heads: Heads) -> float:
    return float(heads.by_task["damage"].weight[0, 0])


def publish(registry: Registry, value: float = 0.5) -> int:
    number = registry.write(make_heads(value), VersionCard(fit_seconds=value), ROWS, card_page)
    registry.promote(number)
    return number


def write_refused(registry: Registry, value: float = 0.5) -> int:
    return registry.write(make_heads(value), VersionCard(gate=Gate(accepted=False, reason="worse")), ROWS, card_page)


def serving_number(registry: Registry) -> int:
    version = registry.current()
    assert version is not None
    return version.number


def all_files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path, 7)


def other_process(registry: Registry) -> Registry:
    """The same project, with nothing loaded."""
    return Registry(registry.root.parents[1], 7)


def version_dir(registry: Registry, number: int) -> Path:
    return registry.root / "versions" / f"{number:04d}"


# Writing


def test_a_project_without_versions_has_none(registry: Registry) -> None:
    assert registry.numbers() == []
    assert registry.current() is None


def test_version_names_sort_as_their_numbers() -> None:
    assert [version_name(n) for n in (1, 23, 9999)] == ["carcond-0001", "carcond-0023", "carcond-9999"]
    assert version_name(0) == COLD_START_VERSION


def test_numbers_grow_from_one(registry: Registry) -> None:
    assert [registry.write(make_heads(), VersionCard(), []) for _ in range(3)] == [1, 2, 3]
    assert registry.numbers() == [1, 2, 3]


def test_a_version_is_read_as_it_was_written(registry: Registry) -> None:
    number = registry.write(make_heads(0.25), VersionCard(parent="carcond-0000"), ROWS)
    version = registry.load(number)
    assert (version.number, version.name) == (1, "carcond-0001")
    assert value_of(version.heads) == 0.25
    assert version.card == VersionCard(version="carcond-0001", parent="carcond-0000")
    assert registry.labels(number) == ROWS


def test_a_version_has_four_files_and_nothing_is_left_beside_it(registry: Registry) -> None:
    publish(registry)
    assert all_files(registry.root) == [
        "current",
        "promotions.jsonl",
        "versions",
        "versions/0001",
        "versions/0001/card.json",
        "versions/0001/heads.safetensors",
        "versions/0001/labels.jsonl.gz",
        "versions/0001/report.html",
    ]


def test_the_page_of_a_version_shows_its_card(registry: Registry) -> None:
    number = write_refused(registry)
    page = (version_dir(registry, number) / "report.html").read_text()
    assert "Report card of carcond-0001" in page
    assert "Refused" in page


def test_projects_do_not_see_each_others_versions(tmp_path: Path) -> None:
    publish(Registry(tmp_path, 1))
    assert Registry(tmp_path, 11).current() is None


def test_a_version_that_is_written_does_not_serve_before_it_is_promoted(registry: Registry) -> None:
    registry.write(make_heads(), VersionCard(), [])
    assert registry.current() is None


@pytest.mark.parametrize("limit", [0, 100, 400])
def test_a_full_disk_is_told_and_leaves_nothing_behind(limit: int, registry: Registry) -> None:
    publish(registry)
    before = all_files(registry.root)
    noise = np.random.default_rng(0).integers(0, 2**60, size=400).tolist()
    with full_disk(limit), pytest.raises(RegistryError, match="carcond-0002 cannot be written"):
        registry.write(make_heads(), VersionCard(), [{"task": task} for task in noise])
    assert all_files(registry.root) == before
    assert registry.write(make_heads(), VersionCard(), []) == 2


def test_a_place_that_cannot_be_written_is_told(registry: Registry) -> None:
    registry.root.parent.mkdir(parents=True)
    registry.root.write_text("a file where the project's directory should be")
    with pytest.raises(RegistryError, match="carcond-0001 cannot be written"):
        registry.write(make_heads(), VersionCard(), [])


def test_a_card_with_a_wrong_type_cannot_be_written(registry: Registry) -> None:
    facts: dict[str, Any] = {"labels": {"train": "many"}}
    with pytest.raises(ValidationError, match=r"labels\.train"):
        registry.write(make_heads(), VersionCard(**facts), [])
    assert registry.directories() == set()


def test_a_mistake_in_the_page_leaves_nothing_behind(registry: Registry) -> None:
    with pytest.raises(KeyError):
        registry.write(make_heads(), VersionCard(), [], operator.itemgetter("accuracy"))
    assert all_files(registry.root) == ["versions"]


def test_labels_that_break_off_leave_nothing_behind(registry: Registry) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"task": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.write(make_heads(), VersionCard(), rows())
    assert all_files(registry.root) == ["versions"]


def test_a_version_that_another_writer_made_meanwhile_stays_whole(registry: Registry) -> None:
    def rows() -> Iterator[dict[str, int]]:
        assert other_process(registry).write(make_heads(9), VersionCard(), ROWS) == 1
        yield {"task": 1}

    with pytest.raises(RegistryError, match="carcond-0001 cannot be written"):
        registry.write(make_heads(1), VersionCard(), rows())
    assert value_of(registry.load(1).heads) == 9
    assert registry.labels(1) == ROWS


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_no_version(registry: Registry) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from carcond.registry.registry import Registry\n"
        "from carcond.model.version_card import VersionCard\n"
        "from tests.carcond.registry.test_registry import make_heads\n"
        "def rows():\n"
        "    yield {'task': 1}\n"
        "    os._exit(9)\n"
        "Registry(Path(sys.argv[1]), 7).write(make_heads(), VersionCard(), rows())\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(registry.root.parents[1])], check=False)
    assert killed.returncode == 9
    assert registry.numbers() == []
    assert registry.write(make_heads(), VersionCard(), []) == 1


# Promoting


def test_the_promoted_version_serves_whatever_its_number(registry: Registry) -> None:
    for value in (1, 2, 3):
        registry.write(make_heads(value), VersionCard(), [])
    for number in (2, 3, 1):
        registry.promote(number)
        current = registry.current()
        assert current is not None
        assert (current.number, value_of(current.heads)) == (number, number)


def test_a_version_that_does_not_exist_cannot_be_promoted(registry: Registry) -> None:
    publish(registry)
    with pytest.raises(RegistryError, match=r"there is no version 5; there is only 1$"):
        registry.promote(5)
    current = registry.current()
    assert current is not None
    assert current.number == 1


def test_a_version_that_does_not_exist_is_told_with_those_that_do(registry: Registry) -> None:
    def told() -> str:
        with pytest.raises(RegistryError) as caught:
            registry.card(999)
        return str(caught.value)

    assert told() == "there is no version 999; there is none yet"
    for _ in range(4):
        registry.write(make_heads(), VersionCard(), [])
    assert told() == "there is no version 999; there are 1 to 4"
    shutil.rmtree(registry.root / "versions" / "0002")
    assert told() == "there is no version 999; there are 1, 3, 4"


def test_a_promotion_refused_by_the_disk_leaves_the_serving_version(registry: Registry) -> None:
    publish(registry)
    second = registry.write(make_heads(), VersionCard(), [])
    before = all_files(registry.root)
    with full_disk(0), pytest.raises(RegistryError, match="carcond-0002 cannot be promoted"):
        registry.promote(second)
    assert all_files(registry.root) == before
    current = other_process(registry).current()
    assert current is not None
    assert current.number == 1


def test_an_unchanged_version_is_not_read_again(registry: Registry) -> None:
    publish(registry)
    assert registry.current() is registry.current()


def test_another_process_sees_a_promotion_at_once(registry: Registry) -> None:
    reader = other_process(registry)
    for expected in (1, 2, 3):
        publish(registry, value=expected)
        current = reader.current()
        assert current is not None
        assert value_of(current.heads) == expected


def test_readers_see_whole_versions_while_others_are_promoted(registry: Registry) -> None:
    """Every version read has the weights that its card tells, and versions never go back."""
    publish(registry, value=1)

    def read(_: int) -> list[int]:
        reader = other_process(registry)
        seen: list[int] = []
        while not seen or seen[-1] < 15:
            version = reader.current()
            assert version is not None
            assert value_of(version.heads) == version.card.fit_seconds == version.number
            seen.append(version.number)
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = pool.map(read, range(2))
        for value in range(2, 16):
            publish(registry, value)
        for seen in readers:
            assert seen == sorted(seen)


# Broken versions


def break_heads(directory: Path) -> None:
    (directory / "heads.safetensors").write_bytes(b"broken")


def break_card(directory: Path) -> None:
    (directory / "card.json").write_text('{"version": "car')


def empty_card(directory: Path) -> None:
    (directory / "card.json").write_text("null")


def garble_card(directory: Path) -> None:
    (directory / "card.json").write_bytes(b"\xff\xfe\x00")


def lose_heads(directory: Path) -> None:
    (directory / "heads.safetensors").unlink()


def lose_card(directory: Path) -> None:
    (directory / "card.json").unlink()


BREAKAGES = [break_heads, break_card, empty_card, garble_card, lose_heads, lose_card]


@pytest.mark.parametrize("damage", BREAKAGES)
def test_a_broken_version_is_an_error_to_load(damage: Callable[[Path], None], registry: Registry) -> None:
    number = publish(registry)
    damage(version_dir(registry, number))
    with pytest.raises(RegistryError):
        registry.load(number)


@pytest.mark.parametrize("damage", BREAKAGES)
def test_the_loaded_version_goes_on_when_the_promoted_one_is_broken(
    damage: Callable[[Path], None], registry: Registry
) -> None:
    publish(registry, value=1)
    good = registry.current()
    damage(version_dir(registry, publish(registry, value=2)))
    assert registry.current() is good


def test_a_process_that_just_started_takes_the_newest_good_version(registry: Registry) -> None:
    for value in (1, 2, 3, 4):
        publish(registry, value)
    for number in (3, 4):
        break_heads(version_dir(registry, number))
    started = other_process(registry)
    current = started.current()
    assert current is not None
    assert current.number == 2
    assert started.current() is current


def test_a_broken_version_is_tried_again_and_serves_once_it_is_mended(registry: Registry) -> None:
    publish(registry, value=1)
    publish(registry, value=2)
    path = version_dir(registry, 2) / "heads.safetensors"
    content = path.read_bytes()
    path.write_bytes(b"")
    reader = other_process(registry)
    first = reader.current()
    path.write_bytes(content)
    second = reader.current()
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (1, 2)


def test_a_newer_good_version_serves_after_a_broken_one(registry: Registry) -> None:
    publish(registry, value=1)
    break_heads(version_dir(registry, publish(registry, value=2)))
    assert registry.current() is not None
    publish(registry, value=3)
    current = registry.current()
    assert current is not None
    assert current.number == 3


def test_a_broken_version_is_told_in_the_log(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    break_heads(version_dir(registry, publish(registry)))
    with caplog.at_level(logging.ERROR):
        assert registry.current() is None
    assert "the promoted version" in caplog.text
    assert "carcond-0001 cannot be read" in caplog.text


@pytest.mark.parametrize("content", ["", "nonsense\n", "-1\n", "9999\n"])
def test_a_garbled_pointer_does_not_stop_the_last_good_version(content: str, registry: Registry) -> None:
    publish(registry)
    (registry.root / "current").write_text(content)
    current = other_process(registry).current()
    assert current is not None
    assert current.number == 1


def test_a_lost_pointer_does_not_stop_the_loaded_version(registry: Registry) -> None:
    publish(registry)
    loaded = registry.current()
    (registry.root / "current").unlink()
    assert registry.current() is loaded


def test_drafts_and_stray_files_are_no_versions(registry: Registry) -> None:
    publish(registry)
    (registry.root / "versions" / ".0002-abc").mkdir()
    (registry.root / "versions" / "notes.txt").write_text("")
    assert registry.numbers() == [1]


def test_a_broken_version_cannot_be_promoted(registry: Registry) -> None:
    publish(registry, value=1)
    second = registry.write(make_heads(2), VersionCard(), [])
    break_heads(version_dir(registry, second))
    with pytest.raises(RegistryError, match="heads cannot be read"):
        registry.promote(second)
    assert serving_number(registry) == 1


@pytest.mark.parametrize("lost", ["version", "pointer"])
def test_a_refused_version_never_steps_in_for_a_lost_one(lost: str, registry: Registry) -> None:
    publish(registry, value=1)
    publish(registry, value=2)
    write_refused(registry, value=3)
    if lost == "version":
        break_heads(version_dir(registry, 2))
    else:
        (registry.root / "current").write_text("nonsense")
    assert serving_number(other_process(registry)) == (1 if lost == "version" else 2)


def test_with_refused_versions_alone_nothing_serves(registry: Registry) -> None:
    break_heads(version_dir(registry, publish(registry)))
    write_refused(registry)
    assert registry.current() is None


def test_what_was_rolled_back_does_not_step_in_for_a_broken_version(registry: Registry) -> None:
    for value in (1, 2, 3):
        publish(registry, value)
    registry.promote(2, "anna", "3 calls all cars dirty", "rollback")
    break_heads(version_dir(registry, 2))
    assert serving_number(other_process(registry)) == 1


def test_a_lost_pointer_is_made_up_for_by_the_record(registry: Registry) -> None:
    for value in (1, 2, 3):
        publish(registry, value)
    registry.promote(2, "anna", "3 calls all cars dirty", "rollback")
    (registry.root / "current").unlink()
    assert serving_number(other_process(registry)) == 2


# The record, and going back


def test_each_promotion_is_recorded_with_who_and_why(registry: Registry) -> None:
    publish(registry)
    registry.promote(registry.write(make_heads(), VersionCard(), []), "Анна", "лучше\u2028видит грязь")
    first, second = other_process(registry).promotions()
    assert (first.action, first.before, first.version, first.who, first.why) == ("promote", None, 1, "loop", "")
    assert (second.before, second.version, second.who, second.why) == (1, 2, "Анна", "лучше\u2028видит грязь")


def test_a_second_rollback_goes_further_back_and_not_forth(registry: Registry) -> None:
    for value in (1, 2, 3):
        publish(registry, value)
    for expected in (2, 1):
        number = other_process(registry).previous().number
        assert number == expected
        registry.promote(number, "anna", "worse", "rollback")
    with pytest.raises(RegistryError, match="a version that served before carcond-0001"):
        registry.previous()


def test_an_old_version_promoted_by_hand_is_rolled_back_to_the_one_it_took_over_from(registry: Registry) -> None:
    for value in (1, 2, 3):
        publish(registry, value)
    registry.promote(1, "anna", "a try")
    assert registry.previous().number == 3


def test_a_rollback_leaves_out_versions_that_never_served(registry: Registry) -> None:
    publish(registry, value=1)
    write_refused(registry, value=2)
    registry.write(make_heads(3), VersionCard(), [])
    publish(registry, value=4)
    assert registry.previous().number == 1


def test_a_rollback_passes_over_broken_versions(registry: Registry) -> None:
    for value in (1, 2, 3):
        publish(registry, value)
    break_card(version_dir(registry, 2))
    assert registry.previous().number == 1


def test_versions_of_before_there_was_a_record_can_be_gone_back_to(registry: Registry) -> None:
    for value in (1, 2):
        publish(registry, value)
    (registry.root / "promotions.jsonl").unlink()
    assert registry.previous().number == 1
    publish(registry, value=3)
    for expected in (2, 1):
        assert registry.previous().number == expected
        registry.promote(expected, "anna", "worse", "rollback")


def test_a_lost_record_does_not_bring_a_refused_version_back(registry: Registry) -> None:
    publish(registry, value=1)
    write_refused(registry, value=2)
    publish(registry, value=3)
    (registry.root / "promotions.jsonl").unlink()
    assert registry.previous().number == 1


def test_a_promotion_whose_record_was_lost_in_a_crash_is_still_gone_back_from(registry: Registry) -> None:
    for value in (1, 2):
        publish(registry, value)
    record = registry.root / "promotions.jsonl"
    kept = record.read_bytes()
    publish(registry, value=3)
    record.write_bytes(kept)
    assert registry.previous().number == 2
    publish(registry, value=4)
    assert registry.previous().number == 3


def test_a_full_disk_for_the_record_does_not_undo_the_promotion(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, value=1)
    second = registry.write(make_heads(2), VersionCard(), [])
    (registry.root / "promotions.jsonl").write_bytes(b"x" * 500)
    with full_disk(100):
        registry.promote(second)
    assert serving_number(registry) == 2
    assert "that could not be recorded" in caplog.text


def test_the_serving_version_is_not_promoted_again(registry: Registry) -> None:
    publish(registry)
    with pytest.raises(RegistryError, match="carcond-0001 is the serving version already"):
        registry.promote(1)
    assert len(registry.promotions()) == 1


def test_a_record_that_cannot_be_read_stops_a_rollback_and_no_serving(registry: Registry) -> None:
    publish(registry)
    (registry.root / "promotions.jsonl").unlink()
    (registry.root / "promotions.jsonl").mkdir()
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.previous()
    (registry.root / "current").write_text("nonsense")
    assert serving_number(other_process(registry)) == 1


# Pinning


def pinned(registry: Registry) -> int | None:
    pin = other_process(registry).pin()
    return pin.version if pin else None


def test_while_a_version_is_pinned_the_loop_promotes_no_other_one(registry: Registry) -> None:
    publish(registry, value=1)
    registry.pin_serving(1, "anna", "measured")
    second = registry.write(make_heads(2), VersionCard(), [])
    with pytest.raises(RegistryError, match="carcond-0002 is not served: carcond-0001 is pinned by anna: measured"):
        other_process(registry).promote(second)
    registry.unpin("anna", "done")
    registry.promote(second)
    assert serving_number(registry) == 2


def test_a_person_s_choice_replaces_a_pin(registry: Registry) -> None:
    for value in (1, 2, 3):
        publish(registry, value)
    registry.pin_serving(3, "anna", "measured")
    registry.promote(1, "ben", "was better", pinned=True)
    assert (pinned(registry), serving_number(registry)) == (1, 1)
    registry.promote(2, "carl", "was better")
    assert (pinned(registry), serving_number(registry)) == (None, 2)


def test_a_pin_is_no_change_of_what_serves(registry: Registry) -> None:
    for value in (1, 2):
        publish(registry, value)
    before = registry.promotions()
    registry.pin_serving(2, "anna", "measured")
    registry.unpin("anna", "done")
    assert registry.promotions() == before
    assert [each.action for each in registry.history()[2:]] == ["pin", "unpin"]
    assert registry.previous().number == 1


def test_nothing_is_pinned_twice_and_nothing_unpinned_that_is_not(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="there is no version 1; there is none yet"):
        registry.pin_serving(1, "anna", "measured")
    publish(registry)
    with pytest.raises(RegistryError, match="expected a pinned version, none is; carcond-0001 serves"):
        registry.unpin("anna", "done")
    registry.pin_serving(1, "anna", "measured")
    with pytest.raises(RegistryError, match="carcond-0001 is pinned by anna: measured already"):
        registry.pin_serving(1, "ben", "measured too")
    with pytest.raises(RegistryError, match="there is no version 9; there is only 1"):
        registry.promote(9, "ben", "a try", pinned=True)
    assert len(registry.history()) == 2


@pytest.mark.parametrize("change", ["pin", "unpin", "choose"])
def test_a_full_disk_refuses_a_change_of_the_pin(change: str, registry: Registry) -> None:
    for value in (1, 2):
        publish(registry, value)
    if change == "unpin":
        registry.pin_serving(2, "anna", "measured")
    history = registry.history()
    changes = {
        "pin": lambda: registry.pin_serving(2, "anna", "measured"),
        "unpin": lambda: registry.unpin("anna", "done"),
        "choose": lambda: registry.promote(1, "anna", "was better", pinned=True),
    }
    with full_disk(100), pytest.raises(RegistryError, match="cannot be recorded"):
        changes[change]()
    assert registry.history() == history
    assert serving_number(other_process(registry)) == 2


def test_who_is_killed_after_the_pin_was_recorded_has_pinned_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (1, 2):
        publish(registry, value)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("carcond.registry.registry.replace_text", kill)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(1, "anna", "was better", pinned=True)
    assert (pinned(registry), serving_number(registry)) == (1, 2)


# Labels


def test_labels_of_a_version_that_does_not_exist_are_an_error(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="the labels of carcond-0001 cannot be read"):
        registry.labels(1)


@pytest.mark.parametrize("kind", ["no gzip", "cut off", "garbled", "no json"])
def test_broken_labels_are_an_error(kind: str, registry: Registry) -> None:
    noise = np.random.default_rng(0).integers(0, 2**60, size=200).tolist()
    number = registry.write(make_heads(), VersionCard(), [{"task": task} for task in noise])
    path = version_dir(registry, number) / "labels.jsonl.gz"
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "no gzip": b"plain text",
            "cut off": content[:middle],
            "garbled": content[:40] + b"\xff" * 40 + content[80:],
            "no json": gzip.compress(b"{broken\n"),
        }[kind]
    )
    with pytest.raises(RegistryError, match="the labels of carcond-0001 cannot be read"):
        registry.labels(number)


def test_labels_in_any_alphabet_are_kept(registry: Registry) -> None:
    rows = [{"task": 1, "problem": "фото не открывается"}]
    number = registry.write(make_heads(), VersionCard(weights_source="слово"), rows)
    assert registry.labels(number) == rows
    assert json.loads((version_dir(registry, number) / "card.json").read_text())["weights_source"] == "слово"


def test_a_disk_that_is_really_full_refuses_a_version_and_the_one_before_serves_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 300) as disk:
        registry = Registry(disk / "models", 7)
        first = registry.write(make_heads(), VersionCard(), [{"task": 1}])
        registry.promote(first)
        fill(disk / "other")
        with pytest.raises(RegistryError, match="No space left"):
            registry.write(make_heads(), VersionCard(), [{"task": 1}, {"task": 2}])
        serving = Registry(disk / "models", 7).current()
        assert serving is not None
        assert serving.number == first
        assert registry.numbers() == [first]
        (disk / "other").unlink()
        assert registry.write(make_heads(), VersionCard(), [{"task": 1}]) == first + 1
