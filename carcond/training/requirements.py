"""The optional packages that this package needs; it can be imported without them."""

from importlib.util import find_spec

from carcond.errors import MissingPackageError

_PACKAGES = ("torch", "torchvision", "timm", "accelerate", "onnxscript", "psutil")


def check_packages(purpose: str) -> None:
    """Check that PyTorch and what is used with it are installed.

    Args:
        purpose: what needs them, for the message.

    Raises:
        MissingPackageError: a package is missing.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"{purpose} needs PyTorch: not installed {'is' if len(missing) == 1 else 'are'} {', '.join(missing)}. Run "
            "`scripts/setup train` in the checkout, or install carcond with its extra `train`"
        )
