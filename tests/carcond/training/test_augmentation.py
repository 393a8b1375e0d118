import numpy as np
import pytest
import torch
from PIL import Image

from carcond.data.images import InputSpec, to_pixels
from carcond.training.augmentation import TrainingTransform
from carcond.training.settings import NO_AUGMENTATION, Augmentation

pytestmark = pytest.mark.slow

SPEC = InputSpec(64, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bicubic")


def noise(width: int = 200, height: int = 120) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def dot(side: int) -> Image.Image:
    """White, with a black dot in the middle."""
    pixels = np.full((side, side, 3), 255, dtype=np.uint8)
    pixels[side // 2 - side // 20 : side // 2 + side // 20, side // 2 - side // 20 : side // 2 + side // 20] = 0
    return Image.fromarray(pixels)


def test_a_photo_that_is_not_varied_is_what_the_encoder_sees() -> None:
    transform = TrainingTransform(SPEC, NO_AUGMENTATION)
    np.testing.assert_allclose(transform(noise(), 3).numpy(), to_pixels(noise(), SPEC), atol=1e-5)


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    transform = TrainingTransform(SPEC, Augmentation())
    first = transform(noise(), 1)
    torch.rand(3)
    assert torch.equal(transform(noise(), 1), first)
    assert not torch.equal(transform(noise(), 2), first)


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    TrainingTransform(SPEC, Augmentation())(noise(), 1)
    assert torch.equal(torch.rand(2), expected)


def test_crops_show_a_small_mark_larger_and_never_smaller() -> None:
    crops = TrainingTransform(SPEC, NO_AUGMENTATION.model_copy(update={"smallest_crop": 0.5}))
    plain = (torch.from_numpy(to_pixels(dot(400), SPEC))[0] < 0).sum().item()
    seen = [int((crops(dot(400), seed)[0] < 0).sum()) for seed in range(30)]
    assert min(seen) >= 0.9 * plain
    assert max(seen) >= 1.5 * plain


@pytest.mark.parametrize("what", ["flip", "rotation", "brightness", "contrast", "saturation", "hue"])
def test_each_variation_can_be_had_by_itself(what: str) -> None:
    varied = TrainingTransform(SPEC, NO_AUGMENTATION.model_copy(update={what: 0.4}))
    plain = torch.from_numpy(to_pixels(noise(), SPEC))
    assert any((varied(noise(), seed) - plain).abs().max() > 0.1 for seed in range(8))
