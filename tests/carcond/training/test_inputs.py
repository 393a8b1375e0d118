from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from carcond.data.images import to_pixels
from carcond.training.frozen_stages import split_backbone
from carcond.training.inputs import KeptActivations, PhotoInputs, batches, epoch_order
from carcond.training.pretrained_weights import load_backbone
from carcond.training.settings import Augmentation
from tests.carcond.training.trainings import SMALL, draw_photos

pytestmark = pytest.mark.slow

COUNT = 6
SPEC = load_backbone(SMALL, "random").spec


@pytest.fixture
def photos(tmp_path: Path) -> PhotoInputs:
    training = draw_photos(tmp_path / "photos", COUNT)
    return PhotoInputs(training.files, SPEC, Augmentation(), 10_000_000, seed=0)


def test_a_plain_input_is_what_the_encoder_sees(photos: PhotoInputs, tmp_path: Path) -> None:
    with Image.open(tmp_path / "photos" / "3.png") as image:
        np.testing.assert_array_equal(photos.plain(3).numpy(), to_pixels(image.convert("RGB"), SPEC))


def test_a_varied_input_depends_on_epoch_and_photo_only(photos: PhotoInputs) -> None:
    again = photos.varied(1, 2)
    photos.varied(0, 0)
    assert torch.equal(photos.varied(1, 2), again)
    assert not torch.equal(photos.varied(1, 3), again)


@pytest.mark.parametrize("processes", [0, 1])
def test_processes_that_load_photos_change_no_bit(photos: PhotoInputs, processes: int) -> None:
    order = [np.array([4, 1]), np.array([0])]
    loaded = list(batches(photos, order, 5, processes))
    assert [positions.tolist() for _, positions in loaded] == [[4, 1], [0]]
    assert torch.equal(loaded[0][0], torch.stack([photos.varied(4, 5), photos.varied(1, 5)]))


def test_an_epoch_has_every_photo_and_full_batches() -> None:
    positions = np.arange(100, 111)
    order = epoch_order(positions, 4, seed=3, epoch=1)
    assert [len(batch) for batch in order] == [4, 4, 4]
    drawn = np.concatenate(order)
    assert sorted(drawn[:11]) == positions.tolist()
    assert drawn[11] == drawn[0]
    assert np.concatenate(epoch_order(positions, 4, seed=3, epoch=2)).tolist() != drawn.tolist()
    assert np.concatenate(epoch_order(positions, 4, seed=3, epoch=1)).tolist() == drawn.tolist()


def test_fewer_photos_than_a_batch_fill_it() -> None:
    (batch,) = epoch_order(np.array([7, 9]), 5, seed=0, epoch=1)
    assert sorted(batch[:2]) == [7, 9]
    assert len(batch) == 5


@pytest.fixture
def stages() -> torch.nn.Module:
    return split_backbone(load_backbone(SMALL, "random"), "blocks.3")[0]


TRAIN = np.array([1, 2, 5])


def test_kept_activations_are_what_the_stages_see(photos: PhotoInputs, stages: torch.nn.Module, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    make = KeptActivations.make
    kept = make(tmp_path / "kept.npy", stages, photos, TRAIN, 2, progress=lambda *done: told.append(done))
    assert told[-1] == (COUNT + 2 * len(TRAIN), COUNT + 2 * len(TRAIN))
    with torch.inference_mode():
        for position in range(COUNT):
            torch.testing.assert_close(stages(photos.plain(position)[None])[0], kept.plain(position))
        for position in TRAIN.tolist():
            for epoch, view in ((1, 1), (2, 2), (3, 1)):
                expected = stages(photos.varied(position, view)[None])[0]
                torch.testing.assert_close(expected, kept.varied(position, epoch))


def test_activations_are_kept_once_and_an_unfinished_file_does_not_count(
    photos: PhotoInputs, stages: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "kept.npy"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KeptActivations.make(path, stages, photos, TRAIN, 1, progress=stop)
    assert not path.exists()
    first = KeptActivations.make(path, stages, photos, TRAIN, 1, progress=lambda *done: None).plain(5)
    written = path.stat().st_mtime_ns
    again = KeptActivations.make(path, stages, photos, TRAIN, 1, progress=stop)
    assert path.stat().st_mtime_ns == written
    assert torch.equal(again.plain(5), first)
