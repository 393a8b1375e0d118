import json
import shutil
from functools import partial
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest

from carcond.errors import ModelMirrorError, RegistryError
from carcond.model.heads import Head, Heads
from carcond.model.version_card import VersionCard
from carcond.registry.object_store import ModelMirror
from carcond.registry.pruning import prune
from carcond.registry.registry import Registry
from carcond.taxonomy import DAMAGE

PROJECT = 7


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/store" if request.param == "file" else f"memory://{uuid4()}/models"


class Host:
    """A machine with a models folder of its own."""

    def __init__(self, models_dir: Path, url: str) -> None:
        self.models_dir = models_dir
        self.url = url
        self.restart()

    def restart(self) -> None:
        self.mirror = ModelMirror(self.models_dir, self.url)
        self.registry = Registry(self.models_dir, PROJECT, partial(self.mirror.promote, PROJECT))

    def write(self, bias: float = 0.0) -> int:
        head = Head(DAMAGE, np.ones((2, 3), np.float32), np.array([bias, -bias], np.float32), 1.0, True)
        return self.registry.write(Heads("encoder", {"damage": head}), VersionCard(fit_seconds=bias), [{"task": 1}])

    def make(self, bias: float = 0.0) -> int:
        """Write, promote and hand over."""
        number = self.write(bias)
        self.registry.promote(number)
        self.mirror.push_versions(PROJECT)
        return number

    def history(self) -> list[tuple[int, str]]:
        return [(each.version, each.who) for each in self.registry.promotions()]

    def serving(self) -> int | None:
        version = self.registry.current()
        return version.number if version else None


@pytest.fixture
def ours(tmp_path: Path, url: str) -> Host:
    return Host(tmp_path / "ours", url)


@pytest.fixture
def theirs(tmp_path: Path, url: str) -> Host:
    return Host(tmp_path / "theirs", url)


def test_what_one_host_promotes_serves_on_the_other(ours: Host, theirs: Host) -> None:
    ours.make(bias=2.5)
    assert theirs.mirror.pull_serving(PROJECT)
    version = theirs.registry.current()
    assert version is not None
    assert version.heads.by_task["damage"].bias[0] == 2.5
    assert theirs.registry.labels(version.number) == [{"task": 1}]


def test_asking_again_fetches_nothing(ours: Host, theirs: Host) -> None:
    ours.make()
    theirs.mirror.pull_serving(PROJECT)
    assert not theirs.mirror.pull_serving(PROJECT)


def test_an_empty_store_has_nothing_to_fetch(ours: Host) -> None:
    ours.mirror.pull_encoders()
    ours.mirror.pull_versions(PROJECT)
    assert not ours.mirror.pull_serving(PROJECT)
    assert ours.serving() is None


def test_a_host_without_versions_hands_over_nothing(ours: Host, theirs: Host) -> None:
    ours.mirror.push_versions(PROJECT)
    assert not theirs.mirror.pull_serving(PROJECT)


def test_a_version_that_does_not_serve_travels_too_so_that_its_number_is_taken(ours: Host, theirs: Host) -> None:
    ours.make()
    ours.write()
    ours.mirror.push_versions(PROJECT)
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.registry.numbers() == [1, 2]
    assert theirs.serving() == 1
    assert theirs.make() == 3


def test_a_version_whose_hand_over_was_cut_off_is_not_there(ours: Host, theirs: Host) -> None:
    ours.make()
    ours.make()
    files, root = fsspec.url_to_fs(ours.url)
    files.rm(files.glob(f"{root}/projects/{PROJECT}/versions/0002.*.json")[0])
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.registry.numbers() == [1]
    ours.restart()
    ours.mirror.push_versions(PROJECT)
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.registry.numbers() == [1, 2]


def test_a_rollback_elsewhere_is_not_taken_back_by_a_turn_that_changes_nothing(ours: Host, theirs: Host) -> None:
    ours.make()
    ours.make()
    theirs.mirror.pull_versions(PROJECT)
    theirs.registry.promote(1, who="mechanic", why="blurred", action="rollback")
    ours.mirror.push_versions(PROJECT)
    ours.mirror.pull_versions(PROJECT)
    assert ours.serving() == theirs.serving() == 1
    assert ours.history() == [(1, "loop"), (2, "loop"), (1, "mechanic")]


def test_a_promotion_holds_on_other_hosts_before_anything_else_is_handed_over(ours: Host, theirs: Host) -> None:
    ours.make()
    ours.registry.promote(ours.write(bias=2.5), who="mechanic")
    theirs.mirror.pull_serving(PROJECT)
    assert theirs.serving() == 2
    assert theirs.history() == [(1, "loop"), (2, "mechanic")]


def test_of_two_hosts_that_promote_at_once_the_second_is_told_and_nothing_of_it_is_left(
    ours: Host, theirs: Host
) -> None:
    ours.make()
    ours.make()
    ours.write()
    ours.mirror.push_versions(PROJECT)
    theirs.mirror.pull_versions(PROJECT)
    theirs.registry.promote(1, who="mechanic", why="blurred", action="rollback")
    with pytest.raises(ModelMirrorError, match="carcond-0003 does not serve: carcond-0001 serves on other hosts"):
        ours.registry.promote(3)
    ours.mirror.push_versions(PROJECT)
    ours.mirror.pull_versions(PROJECT)
    assert ours.serving() == 1
    assert ours.history() == [(1, "loop"), (2, "loop"), (1, "mechanic")]


def test_who_is_killed_after_other_hosts_were_told_serves_the_same_after_the_next_pull(
    ours: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.make()

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("carcond.registry.registry.replace_text", kill)
        with pytest.raises(KeyboardInterrupt):
            ours.make()
    ours.restart()
    assert ours.serving() == 1
    ours.mirror.pull_versions(PROJECT)
    assert ours.serving() == 2
    assert ours.history() == [(1, "loop"), (2, "loop")]


def test_a_promotion_whose_line_the_store_refuses_holds_and_the_line_comes_with_the_next_hand_over(
    ours: Host, theirs: Host, caplog: pytest.LogCaptureFixture
) -> None:
    ours.make()
    files, root = fsspec.url_to_fs(ours.url)
    record = f"{root}/projects/{PROJECT}/promotions.jsonl"
    text = files.cat_file(record)
    files.pipe_file(record, b"\xff")
    number = ours.write()
    ours.registry.promote(number)
    assert "carcond-0002 serves, other hosts have no record of it" in caplog.text
    files.pipe_file(record, text)
    ours.mirror.push_versions(PROJECT)
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.serving() == 2
    assert theirs.history() == [(1, "loop"), (2, "loop")]


def test_a_reason_of_any_characters_is_one_line_on_all_hosts(ours: Host, theirs: Host) -> None:
    why = "calls\u2028wet\x85cars dirty"
    ours.registry.promote(ours.write(), why=f"{why}\udcff")
    theirs.mirror.pull_versions(PROJECT)
    ours.mirror.pull_versions(PROJECT)
    assert [p.why for p in theirs.registry.promotions()] == [f"{why}?"]
    assert ours.registry.promotions() == theirs.registry.promotions()


@pytest.mark.parametrize("first", ["hand over", "promote"])
def test_what_was_made_before_there_was_a_store_is_handed_over(first: str, ours: Host, theirs: Host) -> None:
    alone = Registry(ours.models_dir, PROJECT)
    alone.promote(ours.write())
    alone.promote(ours.write())
    ours.mirror.pull_versions(PROJECT)
    if first == "hand over":
        ours.mirror.push_versions(PROJECT)
        theirs.mirror.pull_versions(PROJECT)
        assert theirs.serving() == 2
    ours.registry.promote(1, action="rollback")
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.serving() == 1
    assert theirs.history() == [(1, "loop"), (2, "loop"), (1, "loop")]


def test_of_two_versions_with_one_number_the_store_s_is_kept(ours: Host, theirs: Host) -> None:
    ours.make()
    theirs.mirror.pull_versions(PROJECT)
    theirs.write(bias=1)  # and dies before it could hand it over
    ours.make(bias=2)
    theirs.restart()
    theirs.mirror.pull_versions(PROJECT)
    version = theirs.registry.current()
    assert version is not None
    assert version.card.fit_seconds == 2


def test_encoders_travel_with_the_one_in_use(ours: Host, theirs: Host) -> None:
    directory = ours.models_dir / "encoders" / "lite"
    directory.mkdir(parents=True)
    (directory / "encoder.json").write_text("{}")
    (directory / "encoder.onnx").write_bytes(b"network")
    (ours.models_dir / "encoders" / "current").write_text("lite\n")
    ours.mirror.push_encoders()
    theirs.mirror.pull_encoders()
    assert (theirs.models_dir / "encoders" / "lite" / "encoder.onnx").read_bytes() == b"network"
    assert (theirs.models_dir / "encoders" / "current").read_text() == "lite\n"


def test_a_manifest_cannot_write_outside_its_directory(ours: Host, theirs: Host) -> None:
    ours.make()
    files, root = fsspec.url_to_fs(ours.url)
    path = files.glob(f"{root}/projects/{PROJECT}/versions/0001.*.json")[0]
    files.pipe_file(path, json.dumps(["../../../../stolen"]).encode())
    with pytest.raises(ModelMirrorError, match="stolen"):
        theirs.mirror.pull_versions(PROJECT)
    assert theirs.registry.numbers() == []
    assert not list(theirs.models_dir.parent.rglob("stolen"))


def test_a_store_that_is_not_there_is_told_with_its_address_and_no_password(tmp_path: Path) -> None:
    with pytest.raises(ModelMirrorError, match=r"ftp://127\.0\.0\.1:9/models") as caught:
        ModelMirror(tmp_path, "ftp://mechanic:secret@127.0.0.1:9/models")
    assert "secret" not in str(caught.value)


def test_a_store_that_refuses_is_told_with_its_address(ours: Host, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    ours.url = f"file://{tmp_path}/taken/models"
    ours.restart()
    with pytest.raises(ModelMirrorError, match="taken/models"):
        ours.make()
    assert ours.serving() is None
    assert ours.history() == []


@pytest.mark.parametrize("url", ["nonsense://bucket/models", "gcs2://"])
def test_an_address_of_no_known_kind_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ModelMirrorError, match="CARCOND_MODELS_URL"):
        ModelMirror(tmp_path, url)


# Pins


def test_a_pin_holds_on_all_hosts(ours: Host, theirs: Host) -> None:
    ours.make()
    theirs.mirror.pull_versions(PROJECT)
    theirs.registry.pin_serving(1, "mechanic", "measured")
    assert not ours.mirror.pull_serving(PROJECT)
    with pytest.raises(RegistryError, match="carcond-0001 is pinned by mechanic: measured"):
        ours.make()
    theirs.registry.unpin("mechanic", "done")
    ours.mirror.pull_serving(PROJECT)
    ours.registry.promote(2)
    theirs.mirror.pull_serving(PROJECT)
    assert theirs.serving() == 2


def test_a_host_that_has_not_heard_of_a_pin_promotes_nothing(ours: Host, theirs: Host) -> None:
    ours.make()
    theirs.mirror.pull_versions(PROJECT)
    theirs.registry.pin_serving(1, "mechanic", "measured")
    with pytest.raises(ModelMirrorError, match="on other hosts carcond-0001 is pinned by mechanic: measured"):
        ours.make()
    ours.mirror.pull_versions(PROJECT)
    assert ours.serving() == theirs.serving() == 1


def test_a_version_is_pinned_whatever_was_promoted_elsewhere_meanwhile(ours: Host, theirs: Host) -> None:
    ours.make()
    ours.make()
    theirs.mirror.pull_versions(PROJECT)
    ours.make()
    theirs.registry.promote(1, "mechanic", "blurred", "rollback", pinned=True)
    ours.mirror.pull_versions(PROJECT)
    assert ours.serving() == 1
    pin = ours.registry.pin()
    assert pin
    assert (pin.version, pin.who) == (1, "mechanic")


def test_a_pin_that_another_host_writes_over_in_the_moment_is_written_again(
    ours: Host, theirs: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.make()
    theirs.mirror.pull_versions(PROJECT)
    files, root = fsspec.url_to_fs(ours.url)
    record = f"{root}/projects/{PROJECT}/promotions.jsonl"
    before, write, lost = files.cat_file(record), ModelMirror._write, [True]

    def write_and_lose(mirror: ModelMirror, path: str, text: str | None) -> None:
        write(mirror, path, text)
        if path.endswith("promotions.jsonl") and lost:
            lost.pop()
            files.pipe_file(record, before)

    monkeypatch.setattr(ModelMirror, "_write", write_and_lose)
    theirs.registry.pin_serving(1, "mechanic", "measured")
    ours.mirror.pull_versions(PROJECT)
    assert ours.registry.pin()


def test_a_pin_that_the_store_refuses_is_none(ours: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ours.make()

    def refuse(*_: object) -> None:
        raise OSError("no right to write")

    monkeypatch.setattr(ModelMirror, "_write", refuse)
    with pytest.raises(ModelMirrorError, match="no right to write"):
        ours.registry.pin_serving(1, "mechanic", "measured")
    assert ours.registry.pin() is None


# Pruned versions


@pytest.fixture
def pruned(ours: Host, theirs: Host, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Both hosts have versions 1 to 15; our worker has just pruned some, whose directories are all still there."""
    monkeypatch.setattr("carcond.registry.pruning.GRACE_S", 0.0)
    for _ in range(15):
        ours.make()
    theirs.mirror.pull_versions(PROJECT)
    prune(ours.registry)
    return sorted(ours.registry.pruned())


def stored(host: Host) -> set[int]:
    """Numbers in the store, of directories or of manifests alone."""
    files, root = fsspec.url_to_fs(host.url)
    return {int(Path(path).name[:4]) for path in files.ls(f"{root}/projects/{PROJECT}/versions", detail=False)}


def test_pruned_versions_are_removed_from_the_store_and_from_all_hosts(
    ours: Host, theirs: Host, pruned: list[int]
) -> None:
    ours.mirror.prune(PROJECT)
    prune(ours.registry)
    assert pruned == [2, 3, 4, 5]
    assert stored(ours) == set(range(1, 16)) - set(pruned)
    theirs.mirror.pull_versions(PROJECT)
    for host in (ours, theirs):
        assert host.registry.directories() == stored(ours)
        assert sorted(host.registry.pruned()) == pruned


def test_a_host_that_still_has_a_pruned_version_does_not_bring_it_back(
    ours: Host, theirs: Host, pruned: list[int]
) -> None:
    ours.mirror.prune(PROJECT)
    theirs.mirror.pull_serving(PROJECT)
    theirs.mirror.push_versions(PROJECT)
    ours.mirror.push_versions(PROJECT)
    assert stored(ours).isdisjoint(pruned)
    ours.mirror.pull_versions(PROJECT)
    assert ours.registry.directories().isdisjoint(pruned)


def test_a_host_without_models_fetches_no_pruned_version(ours: Host, theirs: Host, pruned: list[int]) -> None:
    shutil.rmtree(theirs.models_dir)
    theirs.restart()
    ours.mirror.push_versions(PROJECT)
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.registry.directories() == set(range(1, 16)) - set(pruned)
    assert theirs.make() == 16


def test_who_is_killed_while_removing_from_the_store_leaves_whole_versions_and_goes_on_later(
    ours: Host, theirs: Host, pruned: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = fsspec.url_to_fs(ours.url)
    remove, calls = type(files).rm, []

    def kill_third(self: object, path: str, **options: object) -> None:
        calls.append(path)
        if len(calls) == 4:  # the directory whose manifest has just gone
            raise KeyboardInterrupt
        remove(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(files), "rm", kill_third)
        with pytest.raises(KeyboardInterrupt):
            ours.mirror.prune(PROJECT)
    shutil.rmtree(theirs.models_dir)
    theirs.restart()
    theirs.mirror.pull_versions(PROJECT)
    assert theirs.registry.directories() == set(range(1, 16)) - set(pruned)
    ours.mirror.prune(PROJECT)
    assert stored(ours) == theirs.registry.directories()


def test_a_version_that_another_host_chose_before_its_line_arrived_stays_and_serves(
    ours: Host, theirs: Host, pruned: list[int]
) -> None:
    theirs.registry.promote(3, "mechanic", "was better", pinned=True)
    ours.mirror.prune(PROJECT)
    prune(ours.registry)
    assert 3 in stored(ours)
    ours.mirror.pull_versions(PROJECT)
    theirs.mirror.pull_versions(PROJECT)
    assert ours.serving() == theirs.serving() == 3


def test_a_serving_version_whose_files_were_lost_here_is_fetched_again(ours: Host, theirs: Host) -> None:
    ours.make()
    theirs.mirror.pull_serving(PROJECT)
    shutil.rmtree(theirs.registry.path(1))
    assert theirs.mirror.pull_serving(PROJECT)
    assert theirs.registry.load(1)
