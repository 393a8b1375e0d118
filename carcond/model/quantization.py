"""Static quantization of an encoder to int8, by ONNX Runtime: weights per channel, activations by their range.

The feature map and its mean, the embedding, are computed in fp32 from the dequantized output of the last convolution,
so heads stay linear on the mean of the map that explanations show (arXiv 1712.05877, 2004.09602).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from carcond.arrays import FloatArray
from carcond.errors import EncoderError


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    def __init__(self, batches: Iterable[FloatArray]) -> None:
        self._batches: Iterator[FloatArray] = iter(batches)

    def get_next(self) -> dict[str, FloatArray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def count_convolutions(onnx_file: Path) -> int:
    """Number of convolutions of an encoder's network.

    Raises:
        EncoderError: the file cannot be read.
    """
    return sum(node.op_type == "Conv" for node in _load(onnx_file).graph.node)


def quantize(onnx_file: Path, target: Path, batches: Iterable[FloatArray], float_convolutions: int = 0) -> None:
    """Write a quantized copy of an encoder's network.

    Args:
        onnx_file: the network in fp32.
        target: the file to write.
        batches: pixels (N, 3, S, S) of typical photos: activations are rounded within the range that they have there.
        float_convolutions: number of the first convolutions that stay in fp32, with all that comes before the next.

    Raises:
        EncoderError: the network cannot be read, or ONNX Runtime cannot quantize it.
    """
    model = _load(onnx_file)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"  # nodes are left out by their names
    add_pre_process_metadata(model)  # else it advises on optimisations that the export has made
    try:
        quantize_static(
            model,
            target,
            _Batches(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_float_nodes(model, float_convolutions),
            # The mean of the batches' ranges: the outermost values are rare, and would make all others coarser.
            extra_options={"CalibMovingAverage": True},
        )
    except Exception as error:  # its exceptions share no base below Exception
        raise EncoderError(f"{onnx_file} cannot be quantized by ONNX Runtime: {error}") from error


def _load(onnx_file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(onnx_file)
    except Exception as error:  # onnx and protobuf each have their own for damaged files
        raise EncoderError(f"{onnx_file} cannot be read: {error}") from error


def _float_nodes(model: onnx.ModelProto, float_convolutions: int) -> list[str]:
    """Names of the nodes before the first quantized convolution and after the last one."""
    nodes = list(model.graph.node)
    places = [place for place, node in enumerate(nodes) if node.op_type == "Conv"]
    if float_convolutions >= len(places):
        raise EncoderError(
            f"expected a network with more than {float_convolutions} convolutions to quantize, got {len(places)}"
        )
    first, last = places[float_convolutions], places[-1]
    return [node.name for place, node in enumerate(nodes) if not first <= place <= last]
