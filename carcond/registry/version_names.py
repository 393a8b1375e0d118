"""A model version, and the names by which Label Studio and people know it."""

from dataclasses import dataclass

from carcond.errors import RegistryError
from carcond.model.heads import Heads
from carcond.model.version_card import VersionCard

_PREFIX = "carcond-"

COLD_START_VERSION = f"{_PREFIX}0000"
"""Version string while no version exists: its predictions are empty."""

SUPERSEDED_VERSION = f"{_PREFIX}superseded"
"""Version string of a prediction that is not to be served: a second one of its version, for which Label Studio would
serve the task twice, or one of a photo that was exchanged."""


def version_name(number: int) -> str:
    """Version string of a number in Label Studio."""
    return f"{_PREFIX}{number:04d}"


def is_ours(version: str) -> bool:
    """True if a version string in Label Studio is one of carcond's, not another model's."""
    return version.startswith(_PREFIX)


def version_number(text: str) -> int:
    """The number of a version written as 7, 0007 or carcond-0007.

    Raises:
        RegistryError: it is none of these.
    """
    digits = text.strip().removeprefix(_PREFIX)
    # int() takes signs, underscores, and digits that no version has; thousands of digits it refuses.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise RegistryError(f"expected a version like 7, 0007 or carcond-0007, got {text!r:.80}")
    return int(digits)


@dataclass(frozen=True)
class Version:
    """A loaded model version.

    Attributes:
        number: 1 or greater, growing.
        heads: the fitted heads; `heads.encoder_id` names the encoder they belong to.
        card: provenance: data hash, parent, metrics, timings.
    """

    number: int
    heads: Heads
    card: VersionCard

    @property
    def name(self) -> str:
        """Version string in Label Studio."""
        return version_name(self.number)
