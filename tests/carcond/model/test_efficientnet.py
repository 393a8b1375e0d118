import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch
from torch import nn

from carcond.errors import WeightsUnavailableError
from carcond.model.efficientnet import ARCHITECTURES, Architecture, Weights, check_weights, efficientnet_graph
from carcond.training.views import ViewNetwork, cut_tiles

pytestmark = pytest.mark.slow


@pytest.fixture(params=list(ARCHITECTURES), scope="module")
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


@pytest.fixture(scope="module")
def network(architecture: Architecture) -> nn.Module:
    """timm's network, with statistics of its batch normalisations that leave none of them without effect."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module: nn.Module = timm.create_model(architecture.name, num_classes=0, global_pool="").eval()
    for name, value in module.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) / 10)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module


@pytest.fixture(scope="module")
def weights(network: nn.Module) -> Weights:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_names_input_and_repository_are_those_of_timm(architecture: Architecture, network: nn.Module) -> None:
    assert architecture.weight_names() == list(network.state_dict())
    config = timm.get_pretrained_cfg(architecture.name)
    assert config is not None
    assert architecture.repository == config.hf_hub_id
    spec = architecture.input_spec(224)
    assert (spec.mean, spec.std, spec.interpolation) == (config.mean, config.std, config.interpolation)


@pytest.mark.parametrize("views", [(64,), (65,), (32, 64), (32, 64, 128)])
def test_the_graph_computes_what_timms_network_computes(
    architecture: Architecture, network: nn.Module, weights: Weights, views: tuple[int, ...]
) -> None:
    model = efficientnet_graph(architecture, weights, views).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    pixels = torch.randn(2, 3, views[-1], views[-1], generator=torch.Generator().manual_seed(1))
    seen = ViewNetwork(network, views, cut_tiles) if len(views) > 1 else network
    with torch.inference_mode():
        expected = seen(pixels)
    embedding, feature_map = session.run(["embedding", "feature_map"], {"pixels": pixels.numpy()})
    scale = float(expected.abs().max())
    np.testing.assert_allclose(feature_map, expected.numpy(), atol=1e-4 * scale)
    np.testing.assert_allclose(embedding, expected.mean(dim=(2, 3)).numpy(), atol=1e-4 * scale)


def test_weights_of_another_network_are_refused(architecture: Architecture, weights: Weights) -> None:
    check_weights(architecture, weights, "here")
    lacking = {name: value for name, value in weights.items() if name != "conv_head.weight"}
    wider = {**weights, "conv_stem.weight": np.zeros((99, 3, 3, 3), np.float32)}
    for other, name in ((lacking, "conv_head.weight"), (wider, "conv_stem.weight")):
        with pytest.raises(WeightsUnavailableError, match=f"here holds the weights of another network.*{name}"):
            check_weights(architecture, other, "here")
