from collections.abc import Callable, Iterable

import pytest

from backend.doctor.examination import Examination
from backend.doctor.finding import Finding
from tests.backend.conftest import MakeSettings

Look = Callable[..., dict[str, Finding]]
Check = Callable[[Examination], Iterable[Finding]]


@pytest.fixture
def look(make_settings: MakeSettings) -> Look:
    """Call with a check of the stack and settings: name -> finding; what is fine has no name."""

    def look(check: Check, **variables: str) -> dict[str, Finding]:
        with Examination(make_settings(**variables), "http://127.0.0.1:9090") as whole:
            return {finding.name: finding for finding in check(whole)}

    return look
