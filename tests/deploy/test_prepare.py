from typing import Any
from unittest.mock import Mock

import pytest

from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from carcond.errors import LabelStudioError
from docker.prepare import BACKEND_URL, verify


def test_webhooks_that_are_not_as_they_should_be_are_told_without_the_password_that_they_carry() -> None:
    backend = BackendAddress(BACKEND_URL, "label-studio", "hunter2")
    kept: dict[str, Any] = {"url": backend.webhook_url, "headers": backend.webhook_headers}
    api = Mock(LabelStudioApi)
    api.request.return_value = [kept | {"id": 1, "is_active": True}, kept | {"id": 2, "is_active": False}]
    with pytest.raises(LabelStudioError, match=r"it has 2 webhooks, active: True, False$") as caught:
        verify(api, backend, 1)
    for header in backend.webhook_headers.values():
        assert header not in str(caught.value)
