"""One real stack for all tests that need one: Redis, Label Studio, gunicorn, a worker and a real encoder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from scripts.ports import free_ports
from scripts.stack import Stack, StackOptions
from tests.e2e.browser import open_page


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with no project. Tests make their own, with a title of their own, by `stack.provision`.

    Label Studio's environment is made at `.carcond/label-studio-venv` when it is missing, and kept.
    """
    label_studio_port, backend_port, redis_port = free_ports(3)
    options = StackOptions(
        data_dir=tmp_path_factory.mktemp("stack") / "data",
        label_studio_port=label_studio_port,
        backend_port=backend_port,
        redis_port=redis_port,
        extra_environment={"CARCOND_FINETUNE_CONFIG": str(Path(__file__).with_name("training.yaml"))},
    )
    with Stack(options, print) as running:
        yield running


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    """A page of Chromium, logged in, that reaches nothing but this machine."""
    with open_page(stack) as opened:
        yield opened
