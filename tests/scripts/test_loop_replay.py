import numpy as np
import pytest

from carcond.analysis.replay_set import ReplayDataset
from carcond.data.label_table import TaskLabels
from carcond.evaluation.metrics import evaluate
from carcond.model.head_fitting import fit_heads
from carcond.query.live_queue import QueueSettings
from carcond.taxonomy import DAMAGE
from scripts.loop_replay import compare, measure_heads, replay_curves


@pytest.fixture(scope="module")
def dataset() -> ReplayDataset:
    """120 photos, the classes in two clouds, of which every third is a test photo."""
    rng = np.random.default_rng(0)
    indices = np.arange(120) % 2
    embeddings = (rng.normal(size=(120, 12)) + 2 * indices[:, np.newaxis]).astype(np.float32)
    return ReplayDataset(
        embeddings, {"damage": TaskLabels(DAMAGE, indices)}, np.arange(120), test=np.arange(120) % 3 == 0
    )


def test_heads_are_measured_on_the_test_photos_alone(dataset: ReplayDataset) -> None:
    labels, test = dataset.labels["damage"].indices, dataset.measured()
    heads = fit_heads("tiny", dataset.embeddings[:20], {"damage": labels[:20]})
    measured = evaluate(heads, dataset.embeddings[test], {"damage": labels[test]})["damage"]
    assert measure_heads(heads, dataset) == {
        "damage": {"accuracy": measured["accuracy"], "macro_f1": measured["macro_f1"]}
    }


def test_a_replay_learns_and_differs_from_seed_to_seed(dataset: ReplayDataset) -> None:
    curves = replay_curves(dataset, [1, 30], seeds=3, queue=QueueSettings(), say=lambda _: None)
    assert [[point["labels"] for point in curve] for curve in curves] == [[1, 30]] * 3
    assert all("damage" not in curve[0] for curve in curves)
    assert all(curve[1]["damage"]["accuracy"] > 0.8 for curve in curves)
    again = replay_curves(dataset, [1, 30], seeds=3, queue=QueueSettings(), say=lambda _: None)
    assert again == curves


def test_the_difference_is_that_of_the_service_and_the_mean_replay() -> None:
    def point(accuracy: float | None, macro_f1: float | None) -> dict[str, object]:
        return {"labels": 25, "damage": {"accuracy": accuracy, "macro_f1": macro_f1}}

    rows = compare([point(0.9, 0.8)], [[point(0.88, None)], [point(0.9, 0.7)]])
    assert rows == [
        {
            "labels": 25,
            "task": "damage",
            "figure": "accuracy",
            "service": 0.9,
            "replay": 0.89,
            "sd": 0.0141,
            "difference": 1.0,
        }
    ]
    assert compare([point(0.9, 0.8)], [[{"labels": 25}]]) == []
    assert compare([point(0.9, None)], [[point(0.9, 0.8)]])[0]["sd"] is None
