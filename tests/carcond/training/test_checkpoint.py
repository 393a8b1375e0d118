from pathlib import Path

import pytest
import torch

from carcond.errors import TrainingError
from carcond.training.checkpoint import Checkpoint, Checkpoints
from carcond.training.history import Epoch, Measured

pytestmark = pytest.mark.slow


def checkpoint(number: int) -> Checkpoint:
    history = [Epoch(i, None, Measured(0.1 * i, {"damage": 0.5}, None), 1e-4, 1.0) for i in range(number + 1)]
    weights = {"a.weight": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    state = {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(3)}} if number else {}
    return Checkpoint(history, weights, {"a.weight": torch.randn(2)}, state, {"scale": 2.0} if number else {})


@pytest.mark.parametrize("number", [0, 3])
def test_a_checkpoint_comes_back_to_the_last_bit(tmp_path: Path, number: int) -> None:
    saved = checkpoint(number)
    Checkpoints(tmp_path / "checkpoints").save(saved)
    loaded = Checkpoints(tmp_path / "checkpoints").load()
    assert loaded is not None
    assert loaded.history == saved.history
    assert loaded.scaler == saved.scaler
    for ours, theirs in ((saved.network, loaded.network), (saved.best, loaded.best)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.optimizer.keys() == saved.optimizer.keys()
    for i, state in saved.optimizer.items():
        assert all(torch.equal(value, loaded.optimizer[i][name]) for name, value in state.items())


def test_only_the_last_one_is_kept_and_a_half_written_one_does_not_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for number in range(3):
        checkpoints.save(checkpoint(number))
    (tmp_path / ".0003-xyz").mkdir()
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["0002"]
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded.history[-1].number == 2


@pytest.mark.parametrize("name", ["state.json", "network.safetensors", "optimizer.safetensors", "best.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b'{"history": [{}]}'])
def test_a_damaged_checkpoint_says_how_to_begin_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    Checkpoints(tmp_path).save(checkpoint(1))
    file = tmp_path / "0001" / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(TrainingError, match="remove it, and the training begins anew"):
        Checkpoints(tmp_path).load()


def test_a_disk_that_refuses_is_an_error_and_the_checkpoint_before_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    (tmp_path / "0002").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        checkpoints.save(checkpoint(2))
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded.history[-1].number == 1
