import sys

import pytest

from carcond.errors import MissingPackageError
from carcond.training.requirements import check_packages


def test_a_missing_package_is_named_and_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_packages("fine-tuning")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"fine-tuning needs PyTorch: not installed is timm.*scripts/setup"):
        check_packages("fine-tuning")
