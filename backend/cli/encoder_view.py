"""Encoders as lines of text for a terminal."""

from collections.abc import Iterator

from carcond.evaluation.quantization_gate import MAX_ERROR_RISE, MIN_AGREEMENT
from carcond.model.encoder_card import EncoderCard, Quantization


def encoder_line(card: EncoderCard) -> str:
    """Network, views and weights of an encoder."""
    views = "+".join(map(str, card.views))
    return f"encoder {card.encoder_id}: {card.backbone}, views {views}, weights {card.weights_source}"


def quantization_text(card: EncoderCard, quantization: Quantization) -> str:
    """Provenance of a quantized encoder and its comparison with the one that it was made from."""
    return "\n".join(_lines(card.encoder_id, quantization))


def _lines(encoder_id: str, made: Quantization) -> Iterator[str]:
    quantized = made.convolutions - made.float_convolutions
    yield (
        f"encoder {encoder_id}: {made.base} with {quantized} of {made.convolutions} convolutions in "
        f"{made.number_type}, for project {made.project}"
    )
    yield f"compared by the heads of {made.version}:"
    for key, task in made.comparison.tasks.items():
        yield (
            f"  {key}: {task.agreement:.1%} of {task.photos} photos keep their class (at least {MIN_AGREEMENT:.0%}); "
            f"calibration error {task.error:.4f} after {task.base_error:.4f} on {task.labels} hold-out labels "
            f"(a rise of {MAX_ERROR_RISE} at most)"
        )
    yield f"  {made.comparison.ms:.1f} ms a photo, fp32 {made.comparison.base_ms:.1f} ms"
