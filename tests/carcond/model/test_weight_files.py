import sys
from importlib.abc import Traversable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from carcond.errors import WeightsUnavailableError
from carcond.model import weight_files
from carcond.model.weight_files import hub_file, read_fallback, read_safetensors


def test_the_fallbacks_weights_are_those_that_pytorch_reads() -> None:
    package = next(Path(sys.prefix).rglob("efficientnet-lite0-*.pth"))
    expected = torch.load(package, weights_only=True)
    found = read_fallback()
    assert len(found) == len(expected)
    for values, tensor in zip(found, expected.values(), strict=True):
        np.testing.assert_array_equal(values, tensor.numpy())


def test_another_file_in_the_fallbacks_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other: Traversable = tmp_path / "other.pth"
    (tmp_path / "other.pth").write_bytes(b"nonsense")
    monkeypatch.setattr(weight_files, "fallback_file", lambda: other)
    with pytest.raises(WeightsUnavailableError, match="expected the weights with the SHA-256"):
        read_fallback()


def test_without_the_fallbacks_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "FALLBACK_PACKAGE", "no-such-package")
    with pytest.raises(WeightsUnavailableError, match=r"no-such-package.*is not installed"):
        read_fallback()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_are_read_from_a_safetensors_file(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({f"{prefix}bn1.bias": np.arange(3.0)}, path)
    np.testing.assert_array_equal(read_safetensors(path)["bn1.bias"], [0, 1, 2])


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "damaged.safetensors").write_bytes(b"nonsense")
    for name in ("absent", "damaged"):
        with pytest.raises(WeightsUnavailableError, match=f"no weights could be read from .*{name}"):
            read_safetensors(tmp_path / f"{name}.safetensors")


@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_the_error_says_what_to_do() -> None:
    with pytest.raises(WeightsUnavailableError, match="CARCOND_BACKBONE_WEIGHTS"):
        hub_file("efficientnet_b4", "timm/efficientnet_b4.ra2_in1k")
