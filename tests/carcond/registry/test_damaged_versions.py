"""Versions whose files are damaged: refused with an error of ours, never served, and never in the way of others."""

import gzip
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from carcond.arrays import FloatArray
from carcond.errors import RegistryError
from carcond.model.head_fitting import fit_heads
from carcond.model.heads import Heads
from carcond.model.version_card import VersionCard
from carcond.registry.promotions import parse_promotions
from carcond.registry.registry import Registry
from carcond.registry.version_log import VersionLog
from carcond.reports.card_text import card_text
from tests.carcond.drawn_sets import draw_set
from tests.carcond.made_cards import full_card
from tests.damage import damaged_bytes, damaged_json, json_values

EMBEDDINGS, CLEANLINESS = draw_set(60, 3)
HEADS = fit_heads("tiny", EMBEDDINGS, {"cleanliness": CLEANLINESS, "damage": (CLEANLINESS > 1).astype(np.int64)})
CARD = full_card()
ROWS = [{"task": 1, "side": "train", "classes": {"damage": "intact"}}]
LINE = {"when": "2026-01-01T00:00:00+00:00", "action": "promote", "from": None, "to": 1, "who": "loop", "why": "new"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two versions of fitted heads, of which the second serves."""
    registry = Registry(tmp_path_factory.mktemp("models"), 1)
    for _ in range(2):
        registry.promote(registry.write(HEADS, VersionCard.read(CARD), ROWS))
    return registry


@pytest.fixture(scope="module")
def heads_file(project: Registry) -> bytes:
    return (project.path(2) / "heads.safetensors").read_bytes()


def check_load(path: Path) -> None:
    """Load heads: either each task's probabilities are finite and sum to 1, or the file is refused by name."""
    try:
        heads = Heads.load(path)
    except RegistryError as error:
        assert str(path) in str(error)  # noqa: PT017 - either is right
        return
    width = next(iter(heads.by_task.values())).weight.shape[1]
    for probabilities in heads.probabilities(np.resize(EMBEDDINGS, (60, width))).values():
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)
        assert (probabilities >= 0).all()


@given(data=st.data())
def test_heads_with_damaged_bytes_load_to_probabilities_or_are_refused(
    data: st.DataObject, heads_file: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data.draw(damaged_bytes([heads_file])))
    check_load(path)


# Numbers that a type may hold, the worst of them more often than they would come by themselves.
_NUMBERS = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1.0, 1e-45, 1e-7, 1e20, 3.4e38, -3.4e38])
_TYPES = st.sampled_from(["float32", "float32", "float32", "float64", "float16", "int64", "uint8", "bool"])


@given(data=st.data())
def test_heads_with_other_tensors_load_to_probabilities_or_are_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "replaced.safetensors"
    HEADS.save(path)
    tensors = load_file(path)
    classes = {f"{key}.classes": ",".join(head.task.class_keys) for key, head in HEADS.by_task.items()}
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        tensor = tensors[name].copy()
        if data.draw(st.booleans()):  # its shape and type, else one of its numbers
            shape = data.draw(
                st.sampled_from([(), (0,), (1,), (2,), (1, 1), (2, 0), (2, 24), (3, 24), (2, 12), (0, 24)])
            )
            with np.errstate(all="ignore"):
                tensor = np.full(shape, data.draw(_NUMBERS)).astype(data.draw(_TYPES))
        elif tensor.size and tensor.dtype == np.float32:
            tensor.flat[data.draw(st.integers(0, tensor.size - 1))] = data.draw(_NUMBERS)
        tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "1", "encoder_id": "tiny", **classes})
    check_load(path)


@contextmanager
def replaced_content(path: Path, content: bytes) -> Iterator[None]:
    """Other bytes in a file, for as long as the block takes."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@given(card=damaged_json(CARD) | json_values)
def test_a_damaged_card_is_read_and_shown_or_refused(card: Any, project: Registry) -> None:
    with replaced_content(project.path(2) / "card.json", json.dumps(card).encode()):
        try:
            version = project.load(2)
        except RegistryError as error:
            assert "card of carcond-0002" in str(error)  # noqa: PT017 - either is right
            return
        assert card_text(project.card(2))
    assert version.card.facts() is not None


@given(data=st.data())
def test_damaged_bytes_of_cards_labels_and_records_are_read_or_refused(data: st.DataObject, project: Registry) -> None:
    name = data.draw(
        st.sampled_from(
            ["card.json", "labels.jsonl.gz", "../../current", "../../promotions.jsonl", "heads.safetensors"]
        )
    )
    path = project.path(2) / name
    with replaced_content(path, data.draw(damaged_bytes([path.read_bytes()]))):
        other_process = Registry(project.root.parents[1], 1)
        serving = other_process.current()
        assert serving is not None
        assert serving.number in (1, 2)
        try:
            assert all(isinstance(row["task"], int) for row in other_process.labels(2))
        except RegistryError as error:
            assert name == "labels.jsonl.gz", error  # noqa: PT017 - either is right


@given(line=damaged_json(LINE) | json_values)
def test_lines_that_are_no_promotions_are_skipped(line: Any) -> None:
    for each in parse_promotions(json.dumps(LINE) + "\n" + json.dumps(line) + "\n")[1:]:
        assert isinstance(each.version, int)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("damage.temperature", np.zeros(0, np.float32)),
        ("damage.temperature", np.ones((1, 1), np.float32)),
        ("damage.temperature", np.full(1, np.nan, np.float32)),
        ("damage.temperature", np.full(1, np.inf, np.float32)),
        ("damage.cross_fitted", np.zeros(0, np.float32)),
        ("damage.fold_temperatures", np.zeros(5, np.float32)),
        ("damage.weight", np.full((2, 24), np.nan, np.float32)),
        ("damage.weight", np.full((2, 24), np.inf, np.float32)),
        ("damage.weight", np.zeros((2, 0), np.float32)),
        ("damage.weight", np.zeros((2, 23), np.float32)),
        ("damage.weight", np.zeros((2, 24), np.int64)),
        ("damage.bias", np.full(2, np.nan, np.float32)),
    ],
)
def test_the_version_before_goes_on_serving_beside_numbers_that_are_none(
    name: str, tensor: FloatArray, project: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Registry(tmp_path, 1)
    shutil.copytree(project.root, copy.root)
    path = copy.path(2) / "heads.safetensors"
    classes = {f"{key}.classes": ",".join(head.task.class_keys) for key, head in HEADS.by_task.items()}
    save_file(load_file(path) | {name: tensor}, path, metadata={"format": "1", "encoder_id": "tiny", **classes})
    with pytest.raises(RegistryError, match=rf"expected .*{path}"):
        copy.load(2)
    with caplog.at_level(logging.ERROR):
        serving = copy.current()
    assert serving is not None
    assert serving.number == 1
    assert str(path) in caplog.text


@pytest.mark.parametrize("name", ["card.json", "labels.jsonl.gz", "promotions.jsonl", "versions.jsonl"])
def test_json_nested_too_deeply_is_refused_like_other_damage(name: str, project: Registry, tmp_path: Path) -> None:
    copy = Registry(tmp_path, 1)
    shutil.copytree(project.root, copy.root)
    deep = b"[" * 200_000
    if name.endswith(".gz"):
        (copy.path(2) / name).write_bytes(gzip.compress(deep))
        with pytest.raises(RegistryError, match="cannot be read"):
            copy.labels(2)
    elif name == "card.json":
        (copy.path(2) / name).write_bytes(deep)
        with pytest.raises(RegistryError, match="cannot be read"):
            copy.load(2)
    else:
        (copy.root / name).write_bytes(deep)
        assert len(copy.history()) == (0 if name == "promotions.jsonl" else 2)
        assert VersionLog(copy.root / "versions.jsonl").rows() == {}


@pytest.mark.parametrize("row", [[], None, {"side": "train"}, {"task": "one"}])
def test_labels_that_name_no_task_are_refused(row: Mapping[str, Any] | None, project: Registry, tmp_path: Path) -> None:
    copy = Registry(tmp_path, 1)
    shutil.copytree(project.root, copy.root)
    (copy.path(2) / "labels.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    with pytest.raises(RegistryError, match=r"the number of a task in each line of .*labels\.jsonl\.gz"):
        copy.labels(2)
