"""One real stack for all tests that need one: Redis, Label Studio, gunicorn, a worker and a real encoder."""

from collections.abc import Iterator

import pytest

from scripts.ports import free_ports
from scripts.stack import Stack, StackOptions


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
    )
    with Stack(options, print) as running:
        yield running
