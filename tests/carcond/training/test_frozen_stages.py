import pytest
import torch

from carcond.errors import TrainingError
from carcond.training.frozen_stages import freeze_statistics, map_shape, split_backbone, stage_names
from carcond.training.network import TwoHeadNetwork
from carcond.training.pretrained_weights import load_backbone

pytestmark = pytest.mark.slow

SMALL = "test_efficientnet"


def test_the_stages_are_those_of_timm() -> None:
    names = [f"blocks.{i}" for i in range(7)]
    assert stage_names(load_backbone("tf_efficientnet_lite0", "random")) == [*names, "conv_head"]


@pytest.mark.parametrize("stage", ["blocks.0", "blocks.3", "conv_head"])
def test_both_parts_together_compute_what_the_backbone_does(stage: str) -> None:
    backbone = load_backbone(SMALL, "random")
    frozen, trained = split_backbone(backbone, stage)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        between = frozen(pixels)
        torch.testing.assert_close(trained.module(between), backbone.module(pixels))
    assert map_shape(frozen, 64) == tuple(between.shape[1:])


@pytest.mark.parametrize("views", [(64, 128), (32, 64, 192), (50, 100)])
@pytest.mark.parametrize("stage", ["blocks.0", "blocks.3", "conv_head"])
def test_both_parts_together_compute_what_the_backbone_does_of_several_views(
    stage: str, views: tuple[int, ...]
) -> None:
    backbone = load_backbone(SMALL, "random", views)
    frozen, trained = split_backbone(backbone, stage)
    pixels = torch.randn(2, 3, views[-1], views[-1])
    with torch.inference_mode():
        between = frozen(pixels)
        torch.testing.assert_close(trained.network()(between), backbone.network()(pixels))
    assert map_shape(frozen, views[-1]) == tuple(between.shape[1:])


def test_training_the_rest_changes_the_backbone_and_nothing_before() -> None:
    backbone = load_backbone(SMALL, "random")
    frozen, trained = split_backbone(backbone, "blocks.3")
    first, last = backbone.module.get_parameter("conv_stem.weight"), backbone.module.get_parameter("conv_head.weight")
    TwoHeadNetwork(trained)(frozen(torch.randn(2, 3, 64, 64)))["damage"].sum().backward()
    assert first.grad is None
    assert last.grad is not None


@pytest.mark.parametrize(("network", "stage"), [(SMALL, "blocks.9"), (SMALL, "5"), ("test_resnet", "blocks.1")])
def test_a_stage_that_is_not_there_is_an_error(network: str, stage: str) -> None:
    with pytest.raises(TrainingError, match="expected"):
        split_backbone(load_backbone(network, "random"), stage)


def test_frozen_statistics_stay_while_the_network_trains() -> None:
    network = TwoHeadNetwork(load_backbone(SMALL, "random")).train()
    freeze_statistics(network)
    before = network.backbone.get_buffer("bn1.running_mean").clone()
    network(torch.randn(4, 3, 64, 64))
    assert torch.equal(network.backbone.get_buffer("bn1.running_mean"), before)
    assert network.dropout.training
