from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.special import softmax as reference_softmax

from carcond.arrays import FloatArray, softmax
from carcond.errors import RegistryError
from carcond.model.head_fitting import fit_heads
from carcond.model.heads import Heads, holdout_folds, joint_confidence
from carcond.taxonomy import CLEANLINESS, DAMAGE
from tests.carcond.drawn_sets import draw_set


@pytest.fixture
def heads() -> Heads:
    embeddings, cleanliness = draw_set(60, 3)
    return fit_heads("tiny", embeddings, {"cleanliness": cleanliness, "damage": (cleanliness > 1).astype(np.int64)})


# Probabilities


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature(heads: Heads) -> None:
    embeddings, _ = draw_set(20, 3, seed=1)
    for key, probabilities in heads.probabilities(embeddings).items():
        head = heads.by_task[key]
        logits = embeddings.astype(np.float64) @ head.weight.T.astype(np.float64) + head.bias
        np.testing.assert_allclose(probabilities, reference_softmax(logits / head.temperature, axis=1), atol=1e-4)


def test_softmax_is_scipys() -> None:
    logits = np.random.default_rng(0).normal(scale=20, size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), reference_softmax(logits.astype(np.float64), axis=1), atol=1e-6)


def test_softmax_of_huge_logits_does_not_overflow() -> None:
    logits = np.array([[1e30, 0, -1e30], [-1e30, -1e30, -1e30]], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits), np.array([[1, 0, 0], [1 / 3] * 3]), rtol=1e-6)


def test_joint_confidence_is_the_product_that_a_plain_loop_gives(heads: Heads) -> None:
    embeddings, _ = draw_set(30, 3, seed=2)
    probabilities = heads.probabilities(embeddings)
    dirt, damage = probabilities["cleanliness"], probabilities["damage"]
    expected = np.array([float(dirt[i].max()) * float(damage[i].max()) for i in range(30)])
    np.testing.assert_allclose(joint_confidence(probabilities), expected, rtol=1e-6)


def test_a_task_without_a_head_counts_as_a_guess_among_its_classes() -> None:
    damage = np.array([[0.9, 0.1], [0.4, 0.6]], dtype=np.float32)
    np.testing.assert_allclose(joint_confidence({"damage": damage}), [0.3, 0.2], rtol=1e-6)


def test_joint_confidence_leaves_the_probabilities_as_they_were() -> None:
    damage = np.array([[0.9, 0.1]], dtype=np.float32)
    joint_confidence({"damage": damage})
    np.testing.assert_array_equal(damage, np.array([[0.9, 0.1]], dtype=np.float32))


def test_joint_confidence_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        joint_confidence({})


def test_heads_of_no_photo_give_empty_probabilities(heads: Heads) -> None:
    probabilities = heads.probabilities(np.zeros((0, 24), dtype=np.float32))
    assert {key: rows.shape for key, rows in probabilities.items()} == {"cleanliness": (0, 3), "damage": (0, 2)}
    assert joint_confidence(probabilities).shape == (0,)


# Saving and loading


def test_loaded_heads_are_the_saved_ones(heads: Heads, tmp_path: Path) -> None:
    heads.save(tmp_path / "heads.safetensors")
    loaded = Heads.load(tmp_path / "heads.safetensors")
    assert loaded.encoder_id == "tiny"
    assert list(loaded.by_task) == list(heads.by_task)
    for key, head in heads.by_task.items():
        copy = loaded.by_task[key]
        assert copy.task is head.task
        np.testing.assert_array_equal(copy.weight, head.weight)
        np.testing.assert_array_equal(copy.bias, head.bias)
        assert copy.temperature == pytest.approx(head.temperature, rel=1e-6)
        assert copy.cross_fitted == head.cross_fitted


def test_heads_of_one_task_are_saved_without_the_other(tmp_path: Path) -> None:
    embeddings, indices = draw_set(20, 2)
    fit_heads("tiny", embeddings, {"damage": indices}).save(tmp_path / "heads.safetensors")
    assert set(Heads.load(tmp_path / "heads.safetensors").by_task) == {"damage"}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"nothing\.safetensors"):
        Heads.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{broken"])
def test_a_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "heads.safetensors").write_bytes(content)
    with pytest.raises(RegistryError, match="cannot be read"):
        Heads.load(tmp_path / "heads.safetensors")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_cut_off_is_refused(part: float, heads: Heads, tmp_path: Path) -> None:
    path = tmp_path / "heads.safetensors"
    heads.save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(RegistryError, match="cannot be read"):
        Heads.load(path)


def rewrite(
    heads: Heads, path: Path, changes: Mapping[str, FloatArray | None], classes: str = "intact,damaged"
) -> None:
    """Save the head of damage with some tensors replaced, or left out where None."""
    heads.save(path)
    tensors = {name: tensor for name, tensor in load_file(path).items() if name.startswith("damage")}
    tensors |= {f"damage.{name}": tensor for name, tensor in changes.items() if tensor is not None}
    kept = {name: t for name, t in tensors.items() if changes.get(name.partition(".")[2], t) is not None}
    save_file(kept, path, metadata={"encoder_id": "tiny", "damage.classes": classes})


def test_heads_written_for_other_classes_are_refused(heads: Heads, tmp_path: Path) -> None:
    rewrite(heads, tmp_path / "heads.safetensors", {}, classes="intact,scratched")
    with pytest.raises(RegistryError, match="scratched"):
        Heads.load(tmp_path / "heads.safetensors")


@pytest.mark.parametrize("name", ["bias", "temperature", "cross_fitted"])
def test_an_incomplete_head_is_refused(name: str, heads: Heads, tmp_path: Path) -> None:
    rewrite(heads, tmp_path / "heads.safetensors", {name: None})
    with pytest.raises(RegistryError, match=f"incomplete: {name}"):
        Heads.load(tmp_path / "heads.safetensors")


@pytest.mark.parametrize(
    ("name", "shape"), [("weight", (3, 24)), ("weight", (48,)), ("bias", (3,)), ("bias", (2, 1)), ("temperature", (1,))]
)
def test_a_head_of_the_wrong_shape_or_temperature_is_refused(
    name: str, shape: tuple[int, ...], heads: Heads, tmp_path: Path
) -> None:
    rewrite(heads, tmp_path / "heads.safetensors", {name: np.zeros(shape, dtype=np.float32)})
    with pytest.raises(
        RegistryError, match=r"expected damage\.weight \(2, D\)|expected temperatures of damage between"
    ):
        Heads.load(tmp_path / "heads.safetensors")


@pytest.mark.parametrize("temperatures", [np.ones((5, 1)), np.ones(0), np.array([1, 0]), np.array([np.nan, 1])])
def test_fold_temperatures_that_are_none_are_refused(temperatures: FloatArray, heads: Heads, tmp_path: Path) -> None:
    changes: dict[str, FloatArray | None] = {"fold_temperatures": temperatures.astype(np.float32)}
    rewrite(heads, tmp_path / "heads.safetensors", changes)
    with pytest.raises(RegistryError, match=r"fold_temperatures \(F,\)|expected temperatures of damage"):
        Heads.load(tmp_path / "heads.safetensors")


def test_temperatures_of_the_folds_of_the_holdout_are_kept(heads: Heads, tmp_path: Path) -> None:
    temperatures = np.array([0.5, 1, 2, 3, 4], dtype=np.float32)
    head = replace(heads.by_task["damage"], fold_temperatures=temperatures)
    replace(heads, by_task={**heads.by_task, "damage": head}).save(tmp_path / "heads.safetensors")
    by_task = Heads.load(tmp_path / "heads.safetensors").by_task
    np.testing.assert_array_equal(by_task["damage"].fold_temperatures, temperatures)
    assert by_task["cleanliness"].fold_temperatures is None


def test_a_group_of_the_holdout_is_in_one_fold_for_ever() -> None:
    assert holdout_folds(np.array([3, 8, 4, 3]), 5).tolist() == [3, 3, 4, 3]


def test_a_file_without_any_head_is_refused(tmp_path: Path) -> None:
    save_file({"other": np.zeros(1, dtype=np.float32)}, tmp_path / "heads.safetensors")
    with pytest.raises(RegistryError, match="expected a head of cleanliness or damage"):
        Heads.load(tmp_path / "heads.safetensors")


def test_the_head_is_linear_so_that_maps_of_it_average_to_its_logits(heads: Heads) -> None:
    maps = np.random.default_rng(3).normal(size=(24, 7, 7)).astype(np.float32)
    for task in (CLEANLINESS, DAMAGE):
        head = heads.by_task[task.key]
        activation = np.tensordot(head.weight, maps, axes=1)
        logits = head.logits(maps.mean(axis=(1, 2))[np.newaxis])[0]
        np.testing.assert_allclose(activation.mean(axis=(1, 2)) + head.bias, logits, atol=1e-4)
