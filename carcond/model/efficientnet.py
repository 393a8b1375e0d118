"""EfficientNet (arXiv 1905.11946) as an ONNX graph, made from pretrained weights without PyTorch.

Weights have timm's names. Each batch normalisation is folded into the convolution before it, and a photo's larger views
are cut into tiles as in `carcond.training.views`, so the graph computes what an export of timm's network computes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from carcond.data.images import InputSpec
from carcond.errors import WeightsUnavailableError

Weights = Mapping[str, NDArray[Any]]
"""timm's name -> values."""

CLASSIFIER: Final = ("classifier.weight", "classifier.bias")
"""Names of the weights that an encoder does without."""

_OPSET, _IR_VERSION = 18, 10  # of ONNX Runtime 1.20, the oldest that is supported
_STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each stage
_NORMALISATION = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Architecture:
    """One of the family.

    Attributes:
        name: timm's.
        repository: of its pretrained weights on the hub.
        depths: number of blocks of each stage.
        stem: channels of the first convolution.
        channels: of the feature map.
        mean: of the input's normalisation.
        std: of the input's normalisation.
        is_lite: without squeeze-and-excitation, with ReLU6 for SiLU, and padded as in TensorFlow.
    """

    name: str
    repository: str
    depths: tuple[int, ...]
    stem: int
    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_lite: bool = False

    def input_spec(self, size: int) -> InputSpec:
        """Input of `size` pixels a side, and its normalisation."""
        return InputSpec(size, self.mean, self.std, "bicubic")

    def weight_names(self) -> list[str]:
        """Names of all weights but the classifier's, in timm's order."""
        names = ["conv_stem.weight", *_normalisation("bn1")]
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                prefix = f"blocks.{stage}.{block}"
                layers = ["conv_dw", "conv_pw"] if stage == 0 else ["conv_pw", "conv_dw", "conv_pwl"]
                for number, layer in enumerate(layers, 1):
                    if layer == layers[-1] and not self.is_lite:
                        parts = ("conv_reduce", "conv_expand")
                        names += [f"{prefix}.se.{part}.{kind}" for part in parts for kind in ("weight", "bias")]
                    names += [f"{prefix}.{layer}.weight", *_normalisation(f"{prefix}.bn{number}")]
        return [*names, "conv_head.weight", *_normalisation("bn2")]


ARCHITECTURES: Final = {
    each.name: each
    for each in (
        Architecture(
            "efficientnet_b4",
            "timm/efficientnet_b4.ra2_in1k",
            (2, 4, 4, 6, 6, 8, 2),
            stem=48,
            channels=1792,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        Architecture(
            "tf_efficientnet_lite0",
            "timm/tf_efficientnet_lite0.in1k",
            (1, 2, 2, 3, 3, 4, 1),
            stem=32,
            channels=1280,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            is_lite=True,
        ),
    )
}
"""The default backbone and its fallback, by timm's names."""


def _normalisation(name: str) -> list[str]:
    return [f"{name}.{part}" for part in _NORMALISATION]


def check_weights(architecture: Architecture, weights: Weights, place: str) -> None:
    """Check that weights are of an architecture.

    Args:
        architecture: the expected one.
        weights: without a classifier.
        place: where they are from, for the message.

    Raises:
        WeightsUnavailableError: they are of another network.
    """
    odd = sorted(set(architecture.weight_names()) ^ weights.keys())
    shapes = {"conv_stem.weight": architecture.stem, "conv_head.weight": architecture.channels}
    odd += [name for name, count in shapes.items() if name in weights and weights[name].shape[0] != count]
    if odd:
        raise WeightsUnavailableError(
            f"{place} holds the weights of another network than {architecture.name}: {', '.join(odd[:3])} "
            f"{'and others differ' if len(odd) > 3 else 'differ'}"
        )


def efficientnet_graph(architecture: Architecture, weights: Weights, views: Sequence[int]) -> ModelProto:
    """Make the network of all views.

    Args:
        architecture: of the weights.
        weights: checked by `check_weights`.
        views: sides of the views of a photo, in pixels, from small to large (see `carcond.settings.check_views`).

    Returns:
        A model with the input `pixels` (N, 3, S, S) and, for V views, the outputs `embedding` (N, V * channels) and
        `feature_map` (N, V * channels, h, w).
    """
    graph = _Graph()
    sides = [view // views[0] for view in views]
    tiles = _cut(graph, views[0], sides)
    maps = _network(graph, architecture, weights, tiles)
    side = views[0]
    for _ in range(5):  # each halves it, rounded up
        side = -(-side // 2)
    joined = _join(graph, maps, (architecture.channels, side), sides)
    graph.add("Identity", [joined], output="feature_map")
    axes = graph.constant(np.array([2, 3]))
    graph.add("ReduceMean", [joined, axes], output="embedding", keepdims=0)
    dimension, size = architecture.channels * len(views), sides[-1] * side
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            architecture.name,
            [_tensor("pixels", 3, views[-1], views[-1])],
            [_tensor("embedding", dimension), _tensor("feature_map", dimension, size, size)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="carcond",
    )
    checker.check_model(model, full_check=True)
    return model


def _tensor(name: str, *shape: int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["photos", *shape])


class _Graph:
    """Nodes and constants under construction; values are known by their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def reshape(self, value: str, *shape: int) -> str:
        return self.add("Reshape", [value, self.constant(np.array(shape))])


def _cut(graph: _Graph, size: int, sides: Sequence[int]) -> str:
    """Tiles (N * T, 3, size, size) of pixels; smaller views are means of squares of them."""
    if sides[-1] == 1:
        return "pixels"
    tiles = []
    for side in sides:
        factor = sides[-1] // side
        view = "pixels"
        if factor > 1:
            view = graph.add("AveragePool", [view], kernel_shape=[factor, factor], strides=[factor, factor])
        grid = graph.reshape(view, -1, 3, side, size, side, size)
        cut = graph.add("Transpose", [grid], perm=[0, 2, 4, 1, 3, 5])
        tiles.append(graph.reshape(cut, -1, side**2, 3, size, size))
    return graph.reshape(graph.add("Concat", tiles, axis=1), -1, 3, size, size)


def _join(graph: _Graph, maps: str, shape: tuple[int, int], sides: Sequence[int]) -> str:
    """Feature map of all views from those of the tiles, (N * T, channels, height, height) of `shape`."""
    if sides[-1] == 1:
        return maps
    channels, height = shape
    counts = [side**2 for side in sides]
    tiles = graph.reshape(maps, -1, sum(counts), channels, height, height)
    ends = np.cumsum([0, *counts])
    views = []
    for side, start, end in zip(sides, ends, ends[1:], strict=False):
        bounds = [graph.constant(np.array([bound])) for bound in (start, end, 1)]
        grid = graph.reshape(graph.add("Slice", [tiles, *bounds]), -1, side, side, channels, height, height)
        joined = graph.add("Transpose", [grid], perm=[0, 3, 1, 4, 2, 5])
        view = graph.reshape(joined, -1, channels, side * height, side * height)
        if (factor := sides[-1] // side) > 1:
            scales = graph.constant(np.array([1, 1, factor, factor], dtype=np.float32))
            nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            view = graph.add("Resize", [view, "", scales], **nearest)
        views.append(view)
    return graph.add("Concat", views, axis=1)


def _network(graph: _Graph, architecture: Architecture, weights: Weights, value: str) -> str:
    """Feature maps of tiles."""
    layers = _Layers(graph, weights, architecture.is_lite)
    value = layers.activate(layers.convolve(value, "conv_stem", "bn1", stride=2))
    for stage, depth in enumerate(architecture.depths):
        make = layers.inverted_residual if stage > 0 else layers.depthwise_separable
        value = make(value, f"blocks.{stage}.0", _STRIDES[stage])
        for block in range(1, depth):  # the first one of a stage changes the number of channels
            value = graph.add("Add", [make(value, f"blocks.{stage}.{block}"), value])
    return layers.activate(layers.convolve(value, "conv_head", "bn2"))


class _Layers:
    """Layers of a network, named as in timm."""

    def __init__(self, graph: _Graph, weights: Weights, is_lite: bool) -> None:
        self._graph = graph
        self._weights = weights
        self._is_lite = is_lite
        self._epsilon = 1e-3 if is_lite else 1e-5
        self._bounds = [graph.constant(np.array(bound, dtype=np.float32)) for bound in (0, 6)] if is_lite else []

    def depthwise_separable(self, value: str, name: str, stride: int = 1) -> str:
        value = self.activate(self.convolve(value, f"{name}.conv_dw", f"{name}.bn1", stride))
        return self.convolve(self._excite(value, f"{name}.se"), f"{name}.conv_pw", f"{name}.bn2")

    def inverted_residual(self, value: str, name: str, stride: int = 1) -> str:
        value = self.activate(self.convolve(value, f"{name}.conv_pw", f"{name}.bn1"))
        value = self.activate(self.convolve(value, f"{name}.conv_dw", f"{name}.bn2", stride))
        return self.convolve(self._excite(value, f"{name}.se"), f"{name}.conv_pwl", f"{name}.bn3")

    def convolve(self, value: str, layer: str, normalisation: str, stride: int = 1) -> str:
        """Convolution and batch normalisation, in one."""
        weight = self._weights[f"{layer}.weight"].astype(np.float64)
        gain, offset, mean, variance = (self._weights[f"{normalisation}.{part}"] for part in _NORMALISATION[:4])
        scale = gain / np.sqrt(variance.astype(np.float64) + self._epsilon)
        folded = [weight * scale[:, None, None, None], offset - mean * scale]
        groups = len(weight) if layer.endswith("conv_dw") else 1
        size = weight.shape[-1]
        padding: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if self._is_lite else {"pads": [size // 2] * 4}
        inputs = [value, *(self._graph.constant(values.astype(np.float32)) for values in folded)]
        return self._graph.add("Conv", inputs, strides=[stride, stride], group=groups, **padding)

    def activate(self, value: str) -> str:
        if self._is_lite:
            return self._graph.add("Clip", [value, *self._bounds])
        return self._graph.add("Mul", [value, self._graph.add("Sigmoid", [value])])

    def _excite(self, value: str, name: str) -> str:
        """Squeeze-and-excitation: each channel weighted by a small network of all channels' means."""
        if self._is_lite:
            return value
        inner = self._biased(self._graph.add("GlobalAveragePool", [value]), f"{name}.conv_reduce")
        inner = self._biased(self.activate(inner), f"{name}.conv_expand")
        return self._graph.add("Mul", [value, self._graph.add("Sigmoid", [inner])])

    def _biased(self, value: str, layer: str) -> str:
        constants = [self._graph.constant(self._weights[f"{layer}.{kind}"]) for kind in ("weight", "bias")]
        return self._graph.add("Conv", [value, *constants])
