import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from carcond.arrays import UNKNOWN, IntArray
from carcond.training.loss import batch_loss, loss_sums, task_losses

pytestmark = pytest.mark.slow

WEIGHTS = {"cleanliness": 1.0, "damage": 1.2}


def drawn(count: int, seed: int = 0) -> tuple[dict[str, IntArray], dict[str, Tensor]]:
    rng = np.random.default_rng(seed)
    classes = {
        "cleanliness": rng.choice([UNKNOWN, 0, 1, 2], count, p=[0.5, 0.3, 0.15, 0.05]),
        "damage": rng.choice([UNKNOWN, 0, 1], count, p=[0.1, 0.6, 0.3]),
    }
    logits = {key: torch.from_numpy(rng.normal(size=(count, k))) for key, k in (("cleanliness", 3), ("damage", 2))}
    return {key: each.astype(np.int64) for key, each in classes.items()}, logits


def targets(classes: dict[str, IntArray]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(each) for key, each in classes.items()}


@pytest.mark.parametrize("balanced", [True, False])
def test_over_all_photos_it_is_the_weighted_log_loss(balanced: bool) -> None:
    classes, logits = drawn(500)
    losses = task_losses(classes, WEIGHTS, balanced)
    expected = 0.0
    for key, weight in WEIGHTS.items():
        known = classes[key] != UNKNOWN
        y, probabilities = classes[key][known], torch.softmax(logits[key], dim=1).numpy()[known]
        by_class = compute_class_weight("balanced", classes=np.unique(y), y=y) if balanced else np.ones(3)
        expected += weight * float(log_loss(y, probabilities, sample_weight=by_class[y]))
    assert batch_loss(losses, logits, targets(classes), 0.0).item() == pytest.approx(expected, rel=1e-5)
    sums = dict(zip(losses, loss_sums(losses, logits, targets(classes)).tolist(), strict=True))
    summed = sum(WEIGHTS[key] * loss / weights for key, (loss, weights) in sums.items())
    assert summed == pytest.approx(expected, rel=1e-5)


def test_the_parts_of_a_batch_add_up_to_the_whole() -> None:
    classes, logits = drawn(64)
    losses = task_losses(classes, WEIGHTS, True)
    known = targets(classes)
    parts = [
        batch_loss(losses, {k: v[i::4] for k, v in logits.items()}, {k: v[i::4] for k, v in known.items()}, 0.1)
        for i in range(4)
    ]
    whole = batch_loss(losses, logits, known, 0.1)
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-5)


def test_an_unknown_answer_pulls_at_nothing() -> None:
    classes, logits = drawn(40)
    losses = task_losses(classes, WEIGHTS, True)
    leaves = {key: value.requires_grad_() for key, value in logits.items()}
    batch_loss(losses, leaves, targets(classes), 0.0).backward()  # type: ignore[no-untyped-call]
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        unknown = torch.from_numpy(classes[key] == UNKNOWN)
        assert not leaf.grad[unknown].any()
        assert leaf.grad[~unknown].any(dim=1).all()


def test_a_task_with_one_class_has_no_loss_but_a_gradient_of_zero() -> None:
    classes, logits = drawn(40)
    classes["cleanliness"] = np.where(classes["cleanliness"] > 0, UNKNOWN, classes["cleanliness"])
    losses = task_losses(classes, WEIGHTS, True)
    assert list(losses) == ["damage"]
    leaves = {key: value.requires_grad_() for key, value in logits.items()}
    batch_loss(losses, leaves, targets(classes), 0.0).backward()  # type: ignore[no-untyped-call]
    assert leaves["cleanliness"].grad is not None  # processes wait for the gradient of every head
    assert not leaves["cleanliness"].grad.any()


def test_each_class_that_occurs_has_the_same_weight_in_all() -> None:
    classes, _ = drawn(300)
    for key, task in task_losses(classes, WEIGHTS, True).items():
        known = classes[key][classes[key] != UNKNOWN]
        totals = np.bincount(known) * task.class_weights.numpy()
        np.testing.assert_allclose(totals, totals[0], rtol=1e-5)
        assert task.class_weights.numpy()[known].mean() == pytest.approx(1)
